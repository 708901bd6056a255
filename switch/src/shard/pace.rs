//! [`Pace`]: what the engine says to many sessions, told to a few of them at a time.
//!
//! However much is said to however many, the shard's other tasks have their turns in between: who pings, answers or connects does not wait for
//! a broadcast. Each session is told all that waits for it at once. What comes again while it waits is the same entry, so that repetitions make
//! nothing later, and no queue longer.
//!
//! Over QUIC there is a rest besides. Nothing holds back one who writes to a UDP socket: a fleet's worth of packets at once overruns the buffers
//! of those who receive them, and their acknowledgements ours; what is lost is sent again much later (performance.md: an unpaced broadcast to
//! 100,000 took 14 to 23 s).

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use muster_proto::ids::{Digest, InstructionId};
use roaring::RoaringBitmap;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::session::Session;
use super::table::{Broadcast, Table, deliver};
use super::wire;
use crate::engine::Urgency;
use crate::metrics;

/// Sayings of one rank that wait at most: stops, orders, notices. A further one is left out; the engine sends orders again, and clients ask for
/// the rest. Each keeps a bitmap of its sessions, some 12 KiB for 100,000.
const SAYINGS_MAX: usize = 1_024;

/// The rest behind a turn in which nobody took anything; others have theirs soon, and those again within seconds.
const BEHIND_REST: Duration = Duration::from_millis(10);

/// What counts for a notice, about what it has.
const NOTICE_BYTES: usize = 64;

/// How much is told in one turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stride {
    /// Sessions.
    sessions: usize,
    /// Bytes, after which nobody else is told.
    bytes: usize,
    /// Bytes of one session that count at most: its road takes no more at once.
    session_bytes: usize,
    /// From one turn to the next.
    rest: Duration,
}

impl Stride {
    /// Some milliseconds of sealing and writing, in which a ping or an answer waits.
    pub(super) const TCP: Self =
        Self { sessions: 512, bytes: 4 << 20, session_bytes: 64 << 10, rest: Duration::ZERO };

    /// One packet each, some 120 KB, of which the kernel's usual buffer holds as much; of what is longer, the packets that leave before the
    /// first acknowledgement. Acknowledgements are read in the rest: 100,000 sessions are told within two seconds.
    pub(super) const QUIC: Self =
        Self { sessions: 96, bytes: 160 << 10, session_bytes: 14 << 10, rest: Duration::from_millis(1) };
}

/// What is said to many.
#[derive(Debug, Clone)]
pub(super) enum Saying {
    /// An order, or a stop.
    Order(Broadcast),
    /// There is a later policy; who is told asks for it within so much time.
    Policy(Digest, Duration),
    /// There is another licence.
    Licence(Digest),
}

/// What makes two sayings one.
#[derive(Debug, PartialEq, Eq)]
enum Key {
    Order(InstructionId),
    Policy(Digest),
    Licence,
}

/// What goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Stop,
    Order,
    Notice,
}

impl Saying {
    fn key(&self) -> Key {
        match self {
            Self::Order(order) => Key::Order(order.instruction),
            Self::Policy(digest, _) => Key::Policy(*digest),
            Self::Licence(_) => Key::Licence,
        }
    }

    fn rank(&self) -> Rank {
        match self {
            Self::Order(Broadcast { urgency: Urgency::Stop, .. }) => Rank::Stop,
            Self::Order(_) => Rank::Order,
            Self::Policy(..) | Self::Licence(_) => Rank::Notice,
        }
    }

    /// Takes what came under the same key; an order waits since it came first.
    fn renew(&mut self, newer: Self) {
        let since = match &*self {
            Self::Order(order) => Some(order.since),
            Self::Policy(..) | Self::Licence(_) => None,
        };
        *self = newer;
        if let (Self::Order(order), Some(since)) = (self, since) {
            order.since = since;
        }
    }

    /// Gives it to a session; returns the bytes that count.
    fn give(&self, number: u32, session: &Session) -> usize {
        match self {
            Self::Order(order) => {
                deliver(order, number, session);
                order.frame.len()
            }
            Self::Policy(digest, spread) => {
                session.push_policy_notice(Some(*digest), *spread);
                NOTICE_BYTES
            }
            Self::Licence(digest) => {
                session.push_licence_notice(*digest);
                NOTICE_BYTES
            }
        }
    }
}

/// What is left after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing waits.
    Done,
    /// There is more to tell.
    More,
    /// Of those whose turn it was nobody takes anything.
    Behind,
}

/// What waits to be told, and to whom.
#[derive(Debug)]
pub(super) struct Pace {
    stride: Stride,
    waiting: RefCell<Waiting>,
    some: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By rank; within one, in the order of their coming.
    sayings: Vec<Untold>,
    /// Whoever is left in any.
    anyone: RoaringBitmap,
    /// Whoever is left in a stop.
    stopped: RoaringBitmap,
    /// Where the next turn goes on among them, so that each has its turn.
    next: u32,
    next_stopped: u32,
}

#[derive(Debug)]
struct Untold {
    saying: Saying,
    /// The numbers of the devices whose sessions were not told.
    left: RoaringBitmap,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(Stride::TCP)
    }
}

impl Pace {
    /// Makes one without anything that waits.
    pub(super) fn new(stride: Stride) -> Self {
        Self { stride, waiting: RefCell::default(), some: Notify::new() }
    }

    /// Takes what is to be said to the sessions of these devices. What waits already has these added to its own.
    pub(super) fn push(&self, saying: Saying, numbers: &RoaringBitmap) {
        if numbers.is_empty() {
            return;
        }
        if self.waiting.borrow_mut().push(saying, numbers) {
            self.some.notify_one();
        } else {
            metrics::dropped("pace");
        }
    }

    /// Forgets a device, whose session is new and was given everything.
    pub(super) fn forget(&self, number: u32) {
        self.waiting.borrow_mut().take(number, |_| {});
    }

    /// Tells one session what waits for it, before it ends. `tell` writes what it was given.
    pub(super) fn tell_one(&self, number: u32, session: &Session, tell: impl Fn(&Session)) {
        let mut waiting = self.waiting.borrow_mut();
        let mut sayings = Vec::new();
        waiting.take(number, |saying| sayings.push(saying.clone()));
        if !sayings.is_empty() {
            session.alone(|| {
                for saying in &sayings {
                    saying.give(number, session);
                }
                tell(session);
            });
        }
    }

    /// Returns how many sessions are still to be told, added up over what is to be said.
    pub(super) fn untold(&self) -> u64 {
        self.waiting.borrow().sayings.iter().map(|untold| untold.left.len()).sum()
    }

    /// Tells the next few; `find` has the session of a device, and `tell` writes what it was given.
    pub(super) fn turn(&self, find: impl Fn(u32) -> Option<Rc<Session>>, tell: impl Fn(&Session)) -> Turn {
        let mut waiting = self.waiting.borrow_mut();
        let Stride { sessions, bytes: bytes_max, session_bytes, rest: _ } = self.stride;
        let (urgent, others) = waiting.choose(sessions);
        let chosen: RoaringBitmap = urgent.iter().chain(&others).copied().collect();
        let Waiting { sayings, anyone, stopped, next, next_stopped } = &mut *waiting;
        // Of hundreds of orders hardly any may be left for these.
        let mut due: Vec<&mut Untold> =
            sayings.iter_mut().filter(|untold| !untold.left.is_disjoint(&chosen)).collect();
        let (mut bytes, mut is_any) = (0, false);
        for (at, number) in urgent.iter().chain(&others).copied().enumerate() {
            if bytes >= bytes_max {
                break;
            }
            let cursor = if at < urgent.len() { &mut *next_stopped } else { &mut *next };
            *cursor = number.wrapping_add(1);
            let session = find(number);
            // What has no room waits for its next turn.
            if wire::is_crowded() && session.as_ref().is_some_and(|session| session.is_behind()) {
                continue;
            }
            is_any = true;
            anyone.remove(number);
            stopped.remove(number);
            // Taken before any is given: a session that fails is not told again.
            let left =
                due.iter_mut().filter_map(|untold| untold.left.remove(number).then_some(&untold.saying));
            let said: Vec<&Saying> = left.collect();
            let Some(session) = session.filter(|_| !said.is_empty()) else { continue };
            let mut given = 0;
            session.alone(|| {
                given = said.iter().map(|saying| saying.give(number, &session)).sum();
                tell(&session);
            });
            bytes += given.min(session_bytes);
        }
        drop(due);
        sayings.retain(|untold| !untold.left.is_empty());
        match (anyone.is_empty(), is_any) {
            (true, _) => Turn::Done,
            (false, true) => Turn::More,
            (false, false) => Turn::Behind,
        }
    }
}

impl Waiting {
    /// Returns whether there is room.
    fn push(&mut self, saying: Saying, numbers: &RoaringBitmap) -> bool {
        let (key, rank) = (saying.key(), saying.rank());
        match self.sayings.iter().position(|untold| untold.saying.key() == key) {
            Some(at) => {
                if let Some(untold) = self.sayings.get_mut(at) {
                    untold.left |= numbers;
                    untold.saying.renew(saying);
                }
            }
            None => {
                let first = self.sayings.partition_point(|untold| untold.saying.rank() < rank);
                let end = self.sayings.partition_point(|untold| untold.saying.rank() <= rank);
                if end - first >= SAYINGS_MAX {
                    return false;
                }
                self.sayings.insert(end, Untold { saying, left: numbers.clone() });
            }
        }
        if let Key::Policy(_) = key {
            // Who is named a later policy need not hear of the one before.
            let others = self.sayings.iter_mut().filter(|untold| match untold.saying.key() {
                other @ Key::Policy(_) => other != key,
                Key::Order(_) | Key::Licence => false,
            });
            others.for_each(|untold| untold.left -= numbers);
        }
        self.anyone |= numbers;
        if rank == Rank::Stop {
            self.stopped |= numbers;
        }
        true
    }

    /// Chooses who is told next: those with a stop, up to half of all, so that stops without an end keep nobody's orders back; then whoever's
    /// turn it is.
    fn choose(&self, max: usize) -> (Vec<u32>, Vec<u32>) {
        let urgent: Vec<u32> = from(&self.stopped, self.next_stopped).take(max.div_ceil(2)).collect();
        let others = from(&self.anyone, self.next).filter(|number| !urgent.contains(number));
        let others = others.take(max - urgent.len()).collect();
        (urgent, others)
    }

    /// Takes everything that waits for one session.
    fn take(&mut self, number: u32, mut each: impl FnMut(&Saying)) {
        self.stopped.remove(number);
        if self.anyone.remove(number) {
            for Untold { saying, left } in &mut self.sayings {
                if left.remove(number) {
                    each(saying);
                }
            }
            self.sayings.retain(|untold| !untold.left.is_empty());
        }
    }
}

/// Numbers from one on, and then those before it.
fn from(numbers: &RoaringBitmap, next: u32) -> impl Iterator<Item = u32> {
    numbers.range(next..).chain(numbers.range(..next))
}

/// Tells what waits, until the shard is done: what is untold then stays queued.
pub(super) async fn run(table: &Table, tell: impl Fn(&Session), done: &CancellationToken) {
    let Pace { some, stride, .. } = table.pace();
    while done.run_until_cancelled(some.notified()).await.is_some() {
        loop {
            let rest = match table.turn(&tell) {
                Turn::Done => break,
                Turn::More => stride.rest,
                Turn::Behind => BEHIND_REST,
            };
            if done.run_until_cancelled(pause(rest)).await.is_none() {
                return;
            }
        }
    }
}

/// Gives others their turn.
async fn pause(rest: Duration) {
    if rest.is_zero() {
        yield_now().await;
    } else {
        sleep(rest).await;
    }
}
