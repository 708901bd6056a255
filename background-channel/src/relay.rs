//! Carries spooled events to the Switch, in order, and removes them after its ack.
//!
//! The Switch may be away for days; the spool holds what was acked until then. Attempts back off with full jitter. An event
//! whose device the Switch does not know stays in the spool and holds up no other, see [`waiting`].

pub(crate) mod door;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use muster_proto::relay::v1::{RefusedEvent, RelayEventsRequest, RelayRefusal};
use muster_proto_grpc::relay::v1::event_relay_service_client::EventRelayServiceClient;
use muster_service::credentials::{Address, ClientCredentials, Deadlines, DialError, dial};
use muster_service::exit::describe;
use muster_service::health::{Component, State};
use muster_service::wall::Wall;
use rand::Rng as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::metrics;
use crate::spool::{Settled, Spool, Spooled};
use waiting::Waiting;

/// Events in one request; the Switch takes as many.
const BATCH_MAX: usize = 1_000;
/// Bytes in one request, below the Switch's bound of 4 MiB.
const BATCH_BYTES_MAX: usize = 3 * 1024 * 1024;
/// One attempt, from connecting to the Switch's ack.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(30);
/// For TCP and for TLS, within an attempt.
const DIAL_DEADLINES: Deadlines =
    Deadlines { connect: Duration::from_secs(10), tls: Duration::from_secs(10) };
/// The longest pause between attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The first pause.
const BACKOFF_MIN: Duration = Duration::from_millis(200);

/// The longest pause until events of unknown devices are offered again: each time all of them are sent.
const REFUSED_BACKOFF_MAX: Duration = Duration::from_secs(300);

/// Attempts that fail this long are more than a Switch that starts again: `/readyz` says so.
const DEGRADED_AFTER: Duration = Duration::from_secs(60);

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
    #[error(transparent)]
    Dial(#[from] DialError),
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

/// How the road to the Switch is, by what came of the attempts. It knows no clock.
#[derive(Debug, Default)]
struct Road {
    failing_since: Option<Instant>,
    failures: u32,
}

/// What an attempt changed.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// Nothing that anybody need hear of.
    Nothing,
    /// The first failure after success.
    Interrupted,
    /// Failing for [`DEGRADED_AFTER`], and how long it is now.
    Degraded { failing: Duration },
    /// An attempt worked after failures.
    Restored { failed: Duration },
}

impl Road {
    /// An attempt worked.
    fn handle_success(&mut self, now: Instant) -> Change {
        self.failures = 0;
        match self.failing_since.take() {
            Some(since) => Change::Restored { failed: now.saturating_duration_since(since) },
            None => Change::Nothing,
        }
    }

    /// An attempt failed.
    fn handle_failure(&mut self, now: Instant) -> Change {
        self.failures = self.failures.saturating_add(1);
        let Some(since) = self.failing_since else {
            self.failing_since = Some(now);
            return Change::Interrupted;
        };
        let failing = now.saturating_duration_since(since);
        if failing < DEGRADED_AFTER { Change::Nothing } else { Change::Degraded { failing } }
    }
}

/// Relays until cancelled. `component` tells whether the Switch takes events: one that is away for long is a matter for
/// somebody, but this service serves all the same, so it is degraded and never failed.
pub(crate) async fn run(
    spool: Spool,
    target: Target,
    component: Component,
    wall: Wall,
    cancelled: CancellationToken,
) {
    let mut appended = spool.appended();
    let mut channel: Option<Channel> = None;
    let mut road = Road::default();
    let mut waiting = Waiting::default();
    component.set(State::Ready);
    loop {
        appended.mark_unchanged();
        waiting.handle_timeout(Instant::now());
        let attempt = tokio::time::timeout(
            ATTEMPT_DEADLINE,
            relay_batch(&spool, &target, &mut channel, waiting.position(), &wall),
        );
        let outcome = tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            outcome = attempt => outcome.unwrap_or(Err(RelayError::Deadline)),
        };
        let pause = match outcome {
            Ok(None) => {
                tell(&road.handle_success(Instant::now()), &component, &target.address, "");
                waiting.handle_end(Instant::now(), backoff(waiting.rounds(), REFUSED_BACKOFF_MAX));
                tokio::select! {
                    biased;
                    () = cancelled.cancelled() => return,
                    changed = appended.changed() => if changed.is_err() { return },
                    () = sleep_until(waiting.poll_timeout()) => {}
                }
                continue;
            }
            Ok(Some(relayed)) => {
                tell(&road.handle_success(Instant::now()), &component, &target.address, "");
                metrics::relayed(u64::try_from(relayed.taken).unwrap_or(u64::MAX));
                waiting.handle_refused(&relayed.kept);
                continue;
            }
            Err(error) => {
                channel = None;
                metrics::relay_failure();
                let change = road.handle_failure(Instant::now());
                let error = describe(&error);
                tracing::debug!(error, failures = road.failures, "attempt to relay");
                tell(&change, &component, &target.address, &error);
                backoff(road.failures, BACKOFF_MAX)
            }
        };
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Logs a change once, and keeps the component's state and reason current.
fn tell(change: &Change, component: &Component, switch: &str, error: &str) {
    match change {
        Change::Nothing => {}
        Change::Interrupted => {
            tracing::warn!(error, switch, "events wait for the Switch; attempts go on");
        }
        Change::Degraded { failing } => {
            let failing = Duration::from_secs(failing.as_secs());
            if component.state() == State::Ready {
                tracing::warn!(
                    error,
                    switch,
                    ?failing,
                    "events wait for the Switch for long; /readyz says so"
                );
            }
            component.set(State::Degraded(format!(
                "events wait, relaying to the Switch at {switch} fails for {failing:?}: {error}"
            )));
        }
        Change::Restored { failed } => {
            tracing::info!(switch, ?failed, "the Switch takes events again");
            component.set(State::Ready);
        }
    }
}

/// Full jitter below an exponential cap.
fn backoff(failures: u32, most: Duration) -> Duration {
    let cap = BACKOFF_MIN.saturating_mul(1 << failures.min(16)).min(most);
    rand::rng().random_range(Duration::ZERO..=cap)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What became of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
struct Relayed {
    /// Events that the Switch has.
    taken: usize,
    /// Positions of those that it may take later.
    kept: Vec<i64>,
}

/// Relays the oldest events behind a position; `None` when there are none.
async fn relay_batch(
    spool: &Spool,
    target: &Target,
    channel: &mut Option<Channel>,
    after: i64,
    wall: &Wall,
) -> Result<Option<Relayed>, RelayError> {
    let (reader, now_ms) = (spool.clone(), wall.now_ms());
    let batch = tokio::task::spawn_blocking(move || reader.read(after, BATCH_MAX, now_ms)).await??;
    let batch = within_bytes(batch);
    if batch.is_empty() {
        return Ok(None);
    }
    let channel = match channel {
        Some(channel) => channel.clone(),
        None => channel.insert(connect(target).await?).clone(),
    };
    let positions: Vec<i64> = batch.iter().map(|spooled| spooled.position).collect();
    let events = batch.into_iter().map(|spooled| spooled.event).collect();
    let mut client = EventRelayServiceClient::new(channel);
    let answer = client.relay_events(RelayEventsRequest { events }).await.map_err(Box::new)?.into_inner();
    let settled = sort(positions, &answer.refused);
    let relayed = Relayed { taken: settled.taken.len(), kept: settled.kept.clone() };
    // Committed before the next read, so that a batch is not sent twice.
    spool.settle(dated(settled, wall.settled_ms()), wall.now_ms()).await?;
    Ok(Some(relayed))
}

/// Leaves out what is kept while something speaks against the clock: how long an event has been refused counts from a settled time to a settled
/// time, since it is dropped by that.
fn dated(settled: Settled, settled_ms: Option<i64>) -> Settled {
    match settled_ms {
        Some(_) => settled,
        None => Settled { kept: Vec::new(), ..settled },
    }
}

/// Sorts the positions of a batch by what the Switch said of each.
fn sort(positions: Vec<i64>, refused: &[RefusedEvent]) -> Settled {
    let refused: BTreeMap<u32, &RefusedEvent> = refused.iter().map(|event| (event.index, event)).collect();
    let mut sorted = Settled::default();
    for (index, position) in (0_u32..).zip(positions) {
        let Some(event) = refused.get(&index) else {
            sorted.taken.push(position);
            continue;
        };
        metrics::refused_event(event.cause());
        tracing::debug!(position, detail = event.detail, "the Switch does not take a spooled event");
        match event.cause() {
            RelayRefusal::Malformed => sorted.hopeless.push(position),
            // A cause that a later Switch has may pass, too.
            RelayRefusal::UnknownDevice
            | RelayRefusal::OutboxFull
            | RelayRefusal::Blocked
            | RelayRefusal::Unspecified => sorted.kept.push(position),
        }
    }
    if let Some(event) = refused.values().next() {
        let (kept, set_aside) = (sorted.kept.len(), sorted.hopeless.len());
        tracing::warn!(kept, set_aside, first = event.detail, "the Switch does not take spooled events");
    }
    sorted
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
    let address: Address = target.address.parse()?;
    // The first connection is made here, so that its error is whole; tonic would flatten it.
    let mut first = Some(dial(&target.credentials, &address, DIAL_DEADLINES).await?);
    let credentials = Arc::clone(&target.credentials);
    let connector = tower::service_fn(move |_: http::Uri| {
        let ready = first.take();
        let (address, credentials) = (address.clone(), Arc::clone(&credentials));
        async move {
            match ready {
                Some(stream) => Ok(TokioIo::new(stream)),
                None => dial(&credentials, &address, DIAL_DEADLINES).await.map(TokioIo::new),
            }
        }
    });
    Ok(Endpoint::from_static("http://switch.invalid").connect_with_connector(connector).await?)
}

#[cfg(test)]
mod tests {
    use muster_proto::relay::v1::RelayedEvent;

    use super::*;

    #[test]
    fn a_road_that_fails_for_long_is_degraded_until_an_attempt_works() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut road = Road::default();
        let long = DEGRADED_AFTER.as_secs();

        assert_eq!(road.handle_success(at(0)), Change::Nothing);
        assert_eq!(road.handle_failure(at(1)), Change::Interrupted);
        assert_eq!(road.handle_failure(at(long)), Change::Nothing);
        for later in [1, 500] {
            let failing = Duration::from_secs(long + later - 1);
            assert_eq!(road.handle_failure(at(long + later)), Change::Degraded { failing });
        }
        let failed = Duration::from_secs(2 * long);
        assert_eq!(road.handle_success(at(2 * long + 1)), Change::Restored { failed });
        assert_eq!(road.handle_success(at(2 * long + 2)), Change::Nothing);
        assert_eq!(road.handle_failure(at(2 * long + 3)), Change::Interrupted);
    }

    #[test]
    fn a_degraded_road_says_why_and_the_service_stays_ready() {
        let health = muster_service::health::Health::new();
        let component = health.component("relay");
        component.set(State::Ready);
        let tell =
            |change: &Change| tell(change, &component, "localhost:4001", "connect: connection refused");

        tell(&Change::Interrupted);
        let interrupted = component.state();
        tell(&Change::Degraded { failing: Duration::from_millis(75_300) });
        let (degraded, is_ready) = (component.state(), health.snapshot().is_ready());
        tell(&Change::Restored { failed: Duration::from_secs(80) });

        assert_eq!(interrupted, State::Ready);
        let reason = "events wait, relaying to the Switch at localhost:4001 fails for 75s: connect: connection refused";
        assert_eq!((degraded, is_ready), (State::Degraded(reason.to_owned()), true));
        assert_eq!(component.state(), State::Ready);
    }

    #[test]
    fn pauses_stay_below_their_cap_and_never_overflow() {
        for failures in [1, 2, 10, 1_000, u32::MAX] {
            assert!(backoff(failures, BACKOFF_MAX) <= BACKOFF_MAX);
        }
    }

    #[test]
    fn what_may_be_taken_later_is_kept_and_what_never_will_is_set_aside() {
        let refused = |index, cause: RelayRefusal| RefusedEvent {
            index,
            cause: cause.into(),
            ..RefusedEvent::default()
        };
        let answer = [
            refused(1, RelayRefusal::UnknownDevice),
            refused(2, RelayRefusal::Malformed),
            RefusedEvent { index: 3, cause: 99, ..RefusedEvent::default() },
            refused(4, RelayRefusal::OutboxFull),
            refused(6, RelayRefusal::Blocked),
            refused(77, RelayRefusal::Malformed),
        ];

        let sorted = sort(vec![10, 11, 12, 13, 14, 15, 16], &answer);

        assert_eq!(sorted, Settled { taken: vec![10, 15], kept: vec![11, 13, 14, 16], hopeless: vec![12] });
    }

    #[test]
    fn while_the_clock_is_not_settled_no_event_is_dropped_or_dated_for_being_refused() {
        let settled = || Settled { taken: vec![1], kept: vec![2], hopeless: vec![3] };

        assert_eq!(dated(settled(), None), Settled { taken: vec![1], kept: vec![], hopeless: vec![3] });
        assert_eq!(dated(settled(), Some(7)), settled());
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
