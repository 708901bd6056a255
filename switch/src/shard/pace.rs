//! [`Pace`]: tells an order to many sessions over QUIC a few at a time.
//!
//! Nothing holds back one who writes to a UDP socket: a fleet's worth of packets at once overruns the buffers of those who receive them, and their
//! acknowledgements ours; what is lost is sent again much later (performance.md: an unpaced broadcast to 100,000 took 14 to 23 s).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;
use std::vec;

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Shard;
use super::session::Session;
use super::table::{Broadcast, deliver};
use crate::engine::Urgency;

/// Sessions that are told in one go: one packet each, some 120 KB, of which the kernel's usual buffer holds as much.
pub(super) const SESSIONS_PER_TURN: usize = 96;

/// The rest between two turns, in which acknowledgements are read: 100,000 sessions are told within two seconds.
const TURN: Duration = Duration::from_millis(1);

/// Orders on their way to sessions, each with those that were not told yet.
#[derive(Debug, Default)]
pub(super) struct Pace {
    waiting: RefCell<VecDeque<Paced>>,
    some: Notify,
}

#[derive(Debug)]
struct Paced {
    order: Broadcast,
    left: vec::IntoIter<(u32, Rc<Session>)>,
}

impl Pace {
    /// Takes an order for the sessions of these numbers; a stop goes before every order.
    pub(super) fn push(&self, order: Broadcast, sessions: Vec<(u32, Rc<Session>)>) {
        let mut waiting = self.waiting.borrow_mut();
        let at = match order.urgency {
            Urgency::Stop => waiting.iter().take_while(|paced| paced.order.urgency == Urgency::Stop).count(),
            Urgency::Order => waiting.len(),
        };
        waiting.insert(at, Paced { order, left: sessions.into_iter() });
        self.some.notify_one();
    }

    /// Tells the next few; returns whether there are more. `tell` writes what a session was given.
    fn turn(&self, tell: impl Fn(&Session)) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        for _ in 0..SESSIONS_PER_TURN {
            let Some(Paced { order, left }) = waiting.front_mut() else { return false };
            match left.next() {
                Some((number, session)) => {
                    session.alone(|| {
                        deliver(order, number, &session);
                        tell(&session);
                    });
                }
                None => drop(waiting.pop_front()),
            }
        }
        !waiting.is_empty()
    }
}

/// Tells what waits until the Switch has stopped.
pub(super) async fn run(shard: Rc<Shard>, done: CancellationToken) {
    let Some(pace) = shard.table.pace() else { return };
    while done.run_until_cancelled(pace.some.notified()).await.is_some() {
        while pace.turn(|session| shard.tell(session)) {
            sleep(TURN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use bytes::Bytes;
    use muster_proto::ids::InstructionId;
    use muster_proto::session::switch::{SwitchSession, SwitchSessionConfig};
    use roaring::RoaringBitmap;

    use super::*;

    #[test]
    fn many_sessions_are_told_a_few_at_a_time_and_a_stop_first() {
        let (pace, count) = (Pace::default(), SESSIONS_PER_TURN + 10);
        let sessions: Vec<_> = (0..).take(count).map(|number| (number, session(number))).collect();
        let waiting = || sessions.iter().filter(|(_, session)| session.waiting_bytes() > 0).count();
        pace.push(order(1, Urgency::Order), sessions.clone());
        assert_eq!(waiting(), 0);

        assert!(pace.turn(|_| {}));
        assert_eq!(waiting(), SESSIONS_PER_TURN);
        let last = sessions.last().unwrap().clone();
        pace.push(order(2, Urgency::Stop), vec![last.clone()]);
        while pace.turn(|_| {}) {}

        assert_eq!(waiting(), count);
        assert_eq!(last.1.waiting_bytes(), 3);
        assert!(!pace.turn(|_| {}));
    }

    fn session(slot: u32) -> Rc<Session> {
        let half = SwitchSession::new(SwitchSessionConfig::default(), Instant::now());
        Rc::new(Session::new(slot, format!("w{slot}").parse().unwrap(), None, half, 1 << 20))
    }

    /// An order whose frame has so many bytes.
    fn order(bytes: u8, urgency: Urgency) -> Broadcast {
        Broadcast {
            instruction: InstructionId::from([bytes; 16]),
            frame: Bytes::from(vec![0; bytes.into()]),
            targets: Arc::new(RoaringBitmap::new()),
            proofs: None,
            urgency,
            since: Instant::now(),
        }
    }
}
