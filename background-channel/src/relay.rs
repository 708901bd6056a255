//! Carries spooled events to the Switch, in order, and removes them after its ack.
//!
//! The Switch may be away for days; the spool holds what was acked until then. Attempts back off with full jitter.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use muster_proto::relay::v1::RelayEventsRequest;
use muster_proto_grpc::relay::v1::event_relay_service_client::EventRelayServiceClient;
use muster_service::credentials::ClientCredentials;
use rand::Rng as _;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::metrics;
use crate::spool::{Spool, Spooled};

/// Events in one request; the Switch takes as many.
const BATCH_MAX: usize = 1_000;
/// Bytes in one request, below the Switch's bound of 4 MiB.
const BATCH_BYTES_MAX: usize = 3 * 1024 * 1024;
/// One attempt, from connecting to the Switch's ack.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(30);
/// The longest pause between attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The first pause.
const BACKOFF_MIN: Duration = Duration::from_millis(200);

/// Where the Switch's operator API is, and who we are to it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// `host:port`.
    pub(crate) address: String,
    /// The service certificate and the roots of servers.
    pub(crate) credentials: Arc<ClientCredentials>,
}

/// What is wrong with an attempt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("`{0}` is not HOST:PORT")]
    Address(String),
    #[error("connect: {0}")]
    Connect(#[from] tonic::transport::Error),
    #[error("{0}")]
    Refused(#[from] Box<tonic::Status>),
    #[error(transparent)]
    Spool(#[from] crate::spool::SpoolError),
    #[error("no answer within {ATTEMPT_DEADLINE:?}")]
    Deadline,
    #[error("read task: {0}")]
    Read(#[from] tokio::task::JoinError),
}

/// Relays until cancelled.
pub(crate) async fn run(spool: Spool, target: Target, cancelled: CancellationToken) {
    let mut appended = spool.appended();
    let mut channel: Option<Channel> = None;
    let mut failures = 0_u32;
    loop {
        appended.mark_unchanged();
        let attempt = tokio::time::timeout(ATTEMPT_DEADLINE, relay_batch(&spool, &target, &mut channel));
        let outcome = tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            outcome = attempt => outcome.unwrap_or(Err(RelayError::Deadline)),
        };
        let pause = match outcome {
            Ok(0) => {
                failures = 0;
                tokio::select! {
                    biased;
                    () = cancelled.cancelled() => return,
                    changed = appended.changed() => if changed.is_err() { return },
                }
                continue;
            }
            Ok(relayed) => {
                failures = 0;
                metrics::relayed(u64::try_from(relayed).unwrap_or(u64::MAX));
                continue;
            }
            Err(error) => {
                channel = None;
                failures = failures.saturating_add(1);
                metrics::relay_failure();
                let pause = backoff(failures);
                tracing::warn!(%error, ?pause, switch = target.address, "events wait for the Switch");
                pause
            }
        };
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Full jitter below an exponential cap.
fn backoff(failures: u32) -> Duration {
    let cap = BACKOFF_MIN.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
    rand::rng().random_range(Duration::ZERO..=cap)
}

/// Relays the oldest events; returns how many, 0 when there are none.
async fn relay_batch(
    spool: &Spool,
    target: &Target,
    channel: &mut Option<Channel>,
) -> Result<usize, RelayError> {
    let reader = spool.clone();
    let batch = tokio::task::spawn_blocking(move || reader.read(0, BATCH_MAX)).await??;
    let batch = within_bytes(batch);
    if batch.is_empty() {
        return Ok(0);
    }
    let channel = match channel {
        Some(channel) => channel.clone(),
        None => channel.insert(connect(target).await?).clone(),
    };
    let positions: Vec<i64> = batch.iter().map(|spooled| spooled.position).collect();
    let events = batch.into_iter().map(|spooled| spooled.event).collect();
    let mut client = EventRelayServiceClient::new(channel);
    client.relay_events(RelayEventsRequest { events }).await.map_err(Box::new)?;
    let relayed = positions.len();
    spool.remove(positions).await;
    // The removal is committed before the next read, so that a batch is not sent twice.
    spool.append(Vec::new()).await?;
    Ok(relayed)
}

/// The first events that fit one request; always at least one.
fn within_bytes(batch: Vec<Spooled>) -> Vec<Spooled> {
    let mut bytes = 0;
    batch
        .into_iter()
        .enumerate()
        .take_while(|(index, spooled)| {
            bytes += prost::Message::encoded_len(&spooled.event);
            *index == 0 || bytes <= BATCH_BYTES_MAX
        })
        .map(|(_, spooled)| spooled)
        .collect()
}

async fn connect(target: &Target) -> Result<Channel, RelayError> {
    let address = target.address.clone();
    let host = address
        .rsplit_once(':')
        .map(|(host, _)| host.trim_start_matches('[').trim_end_matches(']').to_owned());
    let name = host
        .and_then(|host| ServerName::try_from(host).ok())
        .ok_or_else(|| RelayError::Address(address.clone()))?;
    let credentials = Arc::clone(&target.credentials);
    let connector = tower::service_fn(move |_: http::Uri| {
        let (address, name, credentials) = (address.clone(), name.clone(), Arc::clone(&credentials));
        async move {
            let stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            let stream = tokio_rustls::TlsConnector::from(credentials.config()).connect(name, stream).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    Ok(Endpoint::from_static("http://switch.invalid").connect_with_connector(connector).await?)
}

#[cfg(test)]
mod tests {
    use muster_proto::relay::v1::RelayedEvent;

    use super::*;

    #[test]
    fn pauses_stay_below_their_cap_and_never_overflow() {
        for failures in [1, 2, 10, 1_000, u32::MAX] {
            assert!(backoff(failures) <= BACKOFF_MAX);
        }
    }

    #[test]
    fn a_request_holds_one_event_at_least_and_its_bytes_at_most() {
        let large = |position| Spooled {
            position,
            event: RelayedEvent { device: "d".repeat(BATCH_BYTES_MAX), ..RelayedEvent::default() },
        };

        assert_eq!(within_bytes(vec![large(1), large(2)]).len(), 1);
        assert_eq!(within_bytes(Vec::new()).len(), 0);
    }
}
