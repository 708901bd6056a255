//! [`Roads`]: by which road a Switch is reached. Whichever connection has shaken hands first is the only one that says anything, so that nothing is
//! said twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use muster_proto::session::quic::ALPN;
use muster_service::credentials::{
    Address, ClientCredentials, Deadlines, DialError, Outgoing, OutgoingQuic, QuicRoad, dial, dial_quic,
};
use tokio::time::{sleep, timeout};

use crate::config::{SessionConfig, TransportChoice};

/// How long a handshake over QUIC goes on when the one by TCP has failed: more than a round trip by satellite.
const GRACE: Duration = Duration::from_secs(1);

/// How many times as long a head start QUIC has where the last session held over it: a Switch to which a whole fleet comes back takes its time for
/// a handshake, and who comes by TCP then stays there.
const HELD_HEAD_START: u32 = 10;

/// Switches of which something is remembered.
const KNOWN_MAX: usize = 64;

/// A connection that has shaken hands, and over which nothing was said.
#[derive(Debug)]
pub(super) enum Dialled {
    /// By TCP.
    Tls(Box<Outgoing>),
    /// By UDP.
    Quic(OutgoingQuic),
}

/// What QUIC was good for lately, by the Switches' addresses. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roads(Arc<Mutex<BTreeMap<String, Known>>>);

/// What is remembered of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It was not reached by QUIC, which is left alone until then.
    Rests(Instant),
    /// The last session held over QUIC.
    Held,
    /// It fell silent, and the one before did not.
    Silent,
}

impl Roads {
    /// Reaches a Switch as the configuration says.
    pub(super) async fn dial(
        &self,
        config: &SessionConfig,
        credentials: &Arc<ClientCredentials>,
        address: &Address,
    ) -> Result<Dialled, DialError> {
        let deadlines = Deadlines { connect: config.connect_timeout, tls: config.tls_timeout };
        let keep_alive = Some(config.quic_keep_alive).filter(|every| !every.is_zero());
        let road = QuicRoad { alpn: ALPN, keep_alive };
        let quic = async { dial_quic(credentials, address, road, deadlines).await.map(Dialled::Quic) };
        let tls = async {
            dial(credentials, address, deadlines).await.map(|stream| Dialled::Tls(Box::new(stream)))
        };
        match config.transport {
            TransportChoice::Quic => quic.await,
            TransportChoice::Websocket => tls.await,
            TransportChoice::Race if self.rests(address, Instant::now()) => {
                // Maybe it is the other road that is closed by now.
                tls.await.inspect_err(|_| self.forget(address))
            }
            TransportChoice::Race => {
                // Who is told that there is no room has reached the Switch.
                let has_answered = AtomicBool::new(false);
                let quic = async {
                    let dialled = quic.await;
                    dialled
                        .inspect_err(|error| has_answered.store(error.is_want_of_room(), Ordering::Relaxed))
                };
                let reached = race(quic, tls, self.head_start(address, config.quic_head_start)).await?;
                if matches!(reached, Dialled::Tls(_)) && !has_answered.load(Ordering::Relaxed) {
                    self.rest(address, config.quic_rest);
                }
                Ok(reached)
            }
        }
    }

    /// Leaves QUIC alone for a while: it did not come about, or brought no session, or none that lasts.
    pub(super) fn rest(&self, address: &Address, rest: Duration) {
        tracing::debug!(%address, ?rest, "QUIC did not come about; WebSocket alone for a while");
        self.remember(address, Known::Rests(Instant::now() + rest));
    }

    /// Notes that a session held over QUIC.
    pub(super) fn held(&self, address: &Address) {
        self.remember(address, Known::Held);
    }

    /// Notes that a session over QUIC fell silent. A device that sleeps, or has no network for a while, looks like that, too; two of them running look like
    /// something on the way that forgets UDP, and QUIC is left alone for a while.
    pub(super) fn fell_silent(&self, address: &Address, rest: Duration) {
        match self.known(address) {
            Some(Known::Silent) => self.rest(address, rest),
            Some(Known::Held | Known::Rests(_)) | None => self.remember(address, Known::Silent),
        }
    }

    /// Returns how long QUIC is alone.
    fn head_start(&self, address: &Address, usual: Duration) -> Duration {
        match self.known(address) {
            Some(Known::Held) => usual.saturating_mul(HELD_HEAD_START),
            Some(Known::Silent | Known::Rests(_)) | None => usual,
        }
    }

    fn rests(&self, address: &Address, now: Instant) -> bool {
        matches!(self.known(address), Some(Known::Rests(until)) if now < until)
    }

    fn known(&self, address: &Address) -> Option<Known> {
        self.all().get(&address.to_string()).copied()
    }

    fn remember(&self, address: &Address, known: Known) {
        let mut all = self.all();
        if all.len() >= KNOWN_MAX {
            all.clear();
        }
        all.insert(address.to_string(), known);
    }

    fn forget(&self, address: &Address) {
        self.all().remove(&address.to_string());
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the first of two that comes about; `second` begins when `first` has failed, or has not come about after its head start. When the
/// second has failed, the first has a moment left: nobody says by UDP that nobody listens. If neither comes about, what is wrong with the
/// second is told: it is there where the first is not.
async fn race<T, E: std::fmt::Display>(
    first: impl Future<Output = Result<T, E>>,
    second: impl Future<Output = Result<T, E>>,
    head_start: Duration,
) -> Result<T, E> {
    tokio::pin!(first);
    tokio::select! {
        biased;
        came = &mut first => match came {
            Ok(came) => return Ok(came),
            Err(error) => {
                tracing::debug!(%error, "not by QUIC");
                return second.await;
            }
        },
        () = sleep(head_start) => {}
    }
    tokio::pin!(second);
    tokio::select! {
        biased;
        came = &mut first => match came {
            Ok(came) => Ok(came),
            Err(error) => {
                tracing::debug!(%error, "not by QUIC");
                second.await
            }
        },
        came = &mut second => match came {
            Ok(came) => Ok(came),
            Err(error) => timeout(GRACE, first).await.ok().and_then(Result::ok).ok_or(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const HEAD_START: Duration = Duration::from_millis(20);

    /// Comes about, or not, after so long.
    async fn after(
        wait: u64,
        came: Result<&'static str, &'static str>,
    ) -> Result<&'static str, &'static str> {
        sleep(Duration::from_millis(wait)).await;
        came
    }

    #[tokio::test]
    async fn the_second_begins_after_the_head_start_or_once_the_first_has_failed() {
        let has_begun = Cell::new(false);
        let second = async {
            has_begun.set(true);
            after(0, Ok("second")).await
        };
        assert_eq!(race(after(0, Ok("first")), second, HEAD_START).await, Ok("first"));
        assert!(!has_begun.get());

        let never = std::future::pending();
        assert_eq!(race(never, after(0, Ok("second")), HEAD_START).await, Ok("second"));
        let hour = Duration::from_secs(3_600);
        assert_eq!(race(after(0, Err("first")), after(0, Ok("second")), hour).await, Ok("second"));
    }

    #[tokio::test]
    async fn whichever_is_there_first_wins_and_what_fails_leaves_the_other_its_time() {
        let slow_second = after(10_000, Ok("second"));
        assert_eq!(race(after(40, Ok("first")), slow_second, HEAD_START).await, Ok("first"));
        assert_eq!(race(after(60, Ok("first")), after(0, Err("second")), HEAD_START).await, Ok("first"));
        assert_eq!(race(after(40, Err("first")), after(60, Ok("second")), HEAD_START).await, Ok("second"));
        assert_eq!(race(after(60, Err("first")), after(0, Err("second")), HEAD_START).await, Err("second"));
        let never = std::future::pending();
        assert_eq!(race(never, after(0, Err("second")), HEAD_START).await, Err("second"));
    }

    #[test]
    fn a_switch_out_of_reach_by_quic_is_called_without_it_for_a_while_and_no_other_is() {
        let (roads, now) = (Roads::default(), Instant::now());
        let [one, other] = ["a.test:4000", "b.test:4000"].map(|address| address.parse::<Address>().unwrap());

        roads.rest(&one, Duration::from_secs(600));

        assert!(roads.rests(&one, now + Duration::from_secs(590)));
        assert!(!roads.rests(&one, now + Duration::from_secs(601)));
        assert!(!roads.rests(&other, now));
        roads.forget(&one);
        assert!(!roads.rests(&one, now));
    }

    #[test]
    fn quic_is_left_alone_once_two_sessions_running_fell_silent() {
        let (roads, address) = (Roads::default(), "a.test:4000".parse::<Address>().unwrap());
        let (rest, now) = (Duration::from_secs(600), Instant::now());

        for _ in 0..3 {
            roads.fell_silent(&address, rest);
            assert!(!roads.rests(&address, now));
            roads.held(&address);
        }
        roads.fell_silent(&address, rest);
        roads.fell_silent(&address, rest);

        assert!(roads.rests(&address, now));
    }

    #[test]
    fn quic_has_a_longer_head_start_where_the_last_session_held_over_it() {
        let (roads, address) = (Roads::default(), "a.test:4000".parse::<Address>().unwrap());
        let head_start = || roads.head_start(&address, HEAD_START);
        assert_eq!(head_start(), HEAD_START);

        roads.held(&address);
        assert_eq!(head_start(), HEAD_START * 10);

        roads.rest(&address, Duration::ZERO);
        assert_eq!(head_start(), HEAD_START, "TCP was there first");
    }
}
