//! [`Roads`]: by which road a Switch is reached. Whichever connection has shaken hands first is the only one that says anything, so that nothing is
//! said twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use muster_proto::session::quic::ALPN;
use muster_service::credentials::{
    Address, ClientCredentials, Deadlines, DialError, Outgoing, OutgoingQuic, QuicRoad, dial, dial_quic,
};
use tokio::time::{sleep, timeout};

use crate::config::{SessionConfig, TransportChoice};

/// Silence after which a connection over QUIC is over (promises.md, "Limits": "idle 75 s").
const QUIC_IDLE: Duration = Duration::from_secs(75);

/// How long a handshake over QUIC goes on when the one by TCP has failed: more than a round trip by satellite.
const GRACE: Duration = Duration::from_secs(1);

/// Switches that are remembered as out of reach by QUIC.
const RESTS_MAX: usize = 64;

/// A connection that has shaken hands, and over which nothing was said.
#[derive(Debug)]
pub(super) enum Dialled {
    /// By TCP.
    Tls(Box<Outgoing>),
    /// By UDP.
    Quic(OutgoingQuic),
}

/// Which Switches were not reached by QUIC lately. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roads(Arc<Mutex<BTreeMap<String, Instant>>>);

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
        let road = QuicRoad { alpn: ALPN, idle: QUIC_IDLE, keep_alive };
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
                let reached = race(quic, tls, config.quic_head_start).await?;
                if matches!(reached, Dialled::Tls(_)) {
                    self.rest(address, config.quic_rest);
                }
                Ok(reached)
            }
        }
    }

    /// Leaves QUIC alone for a while: it did not come about, or a session over it broke before it began.
    pub(super) fn rest(&self, address: &Address, rest: Duration) {
        tracing::debug!(%address, ?rest, "QUIC did not come about; WebSocket alone for a while");
        let mut rests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rests.len() >= RESTS_MAX {
            rests.clear();
        }
        rests.insert(address.to_string(), Instant::now() + rest);
    }

    fn rests(&self, address: &Address, now: Instant) -> bool {
        let rests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rests.get(&address.to_string()).is_some_and(|until| now < *until)
    }

    fn forget(&self, address: &Address) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&address.to_string());
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
}
