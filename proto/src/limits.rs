//! Every bound of the wire, in one place.
//!
//! The constants are what a *frame* may hold: both sides refuse more, so nobody may raise them alone.
//! [`SessionLimits`] is what an operator may set within them. PROTOCOL.md repeats the numbers for authors of clients.

use std::fmt;
use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Bytes of one encoded frame, which is one WebSocket message (promises.md, "Limits").
pub const FRAME_BYTES_MAX: usize = MIB;

/// Bytes of a signed envelope: the largest a client hashes and parses (signing.md, "Envelope").
pub const ENVELOPE_BYTES_MAX: usize = 256 * KIB;

/// Bytes of an encoded `Result`. A quarter of the frame stays free, so that a store or a bus can wrap it.
pub const RESULT_BYTES_MAX: usize = 768 * KIB;

/// Bytes of an encoded `Event`. 1,000 of the usual 200 bytes fit one `EventBatch`.
pub const EVENT_BYTES_MAX: usize = 64 * KIB;

/// Bytes of an encoded `Hello`: 64 attributes of a kilobyte.
pub const HELLO_BYTES_MAX: usize = 64 * KIB;

/// Bytes of an encoded `Ack`: 1,000 ranges of two ten-byte numbers and their tags.
pub const ACK_BYTES_MAX: usize = 32 * KIB;

/// Bytes of every other body and of a proof, with room for fields of later versions.
pub const SMALL_BYTES_MAX: usize = 4 * KIB;

/// Bytes of an `EventBatch`, the body of `POST /Background/v1/events`.
pub const EVENT_BATCH_BYTES_MAX: usize = MIB;

/// Events of an `EventBatch`: as many as a writer commits at once.
pub const EVENT_BATCH_EVENTS_MAX: usize = 1_000;

/// Protocol versions a client may offer in `Hello`.
pub const VERSIONS_MAX: usize = 8;

/// Attributes in `Hello`. The Switch indexes every one.
pub const ATTRIBUTES_MAX: usize = 64;

/// Bytes of `Hello.client_version`.
pub const CLIENT_VERSION_BYTES_MAX: usize = 32;

/// Bytes of a column's, an attribute's or a field's name.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes of one text or blob value.
pub const VALUE_BYTES_MAX: usize = 64 * KIB;

/// Columns of a result, and values of a row.
pub const COLUMNS_MAX: usize = 64;

/// Bytes of `Result.detail`.
pub const DETAIL_BYTES_MAX: usize = KIB;

/// Names in `Result.sandbox_missing`: more layers than a sandbox has.
pub const SANDBOX_MISSING_MAX: usize = 16;

/// Fields of an event.
pub const EVENT_FIELDS_MAX: usize = 32;

/// Ranges in one `Ack` and in one `EventBatchAck`.
pub const ACK_RANGES_MAX: usize = 1_000;

/// Hashes of an inclusion proof: the depth of a tree over all 2³² device numbers.
pub const PROOF_HASHES_MAX: usize = 32;

/// Bytes of `GoAway.detail`.
pub const GO_AWAY_DETAIL_BYTES_MAX: usize = 256;

/// The longest `GoAway.reconnect_after_ms` may ask a client to stay away.
pub const RECONNECT_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// The shortest `Welcome.idle_timeout_ms`; less would take a garbage collection for a death.
pub const IDLE_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// The longest `Welcome.idle_timeout_ms`; a client would not notice a dead Switch for longer.
pub const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(3_600);

/// Frame tags and lengths around the largest `Result` or `Event`: one tag byte and at most four of length.
pub const FRAME_OVERHEAD_MAX: usize = 5;

/// Documents a client may have asked for and not received; a further request is ignored.
///
/// 16 × 256 KiB is what the largest definitions would take of the Switch's memory for one session at worst.
pub const DOCUMENT_REQUESTS_MAX: usize = 16;

/// Ranges a [`crate::seen::SeenSet`] holds above its mark.
///
/// 4,096 × 16 bytes = 64 KiB for a device; only a client that lost events without telling of the gap comes near it.
pub const SEEN_RANGES_MAX: usize = 4_096;

/// Ranges that wait to be acked in one session; a client that reads none of its acks is closed as slow.
pub const PENDING_ACK_RANGES_MAX: usize = 4_096;

/// From the end of the WebSocket upgrade to `Hello`, and from `Hello` to `Welcome` (promises.md: "first frame 15 s").
pub const HELLO_DEADLINE: Duration = Duration::from_secs(15);

/// Between two pings, before jitter of ±10 % (promises.md, "Limits").
pub const PING_INTERVAL: Duration = Duration::from_secs(60);

/// A session is dead when nothing was heard for this long: two pings and a half.
pub const DEAD_AFTER: Duration = Duration::from_secs(150);

/// Bytes that may wait to be written to one session (promises.md: "per-session outbound queue 1 MiB").
pub const OUTBOUND_BYTES_MAX: usize = MIB;

/// Bytes of `Result` frames a client may send before the first ack: the largest one and a quarter.
pub const RESULTS_CREDIT_BYTES: u64 = 1_048_576;

/// Bytes of `Event` frames a client may send before the first ack: four of the largest, or some 1,300 usual ones.
pub const EVENTS_CREDIT_BYTES: u64 = 262_144;

/// The longest pause between two attempts to connect; every pause is drawn evenly from zero to its bound (full jitter).
pub const RECONNECT_BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The bound of the first pause between two attempts to connect; it doubles with each failure.
pub const RECONNECT_BACKOFF_MIN: Duration = Duration::from_secs(1);

/// How long a client waits for a `Document` before it asks again.
pub const DOCUMENT_DEADLINE: Duration = Duration::from_secs(30);

/// How long a client is without a Switch before it posts its events to the Background Channel.
pub const BACKGROUND_AFTER: Duration = Duration::from_secs(30);

/// What an operator may set of a session's behaviour. The default is the constants of this module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionLimits {
    /// From the upgrade to `Hello` and, on the client, from `Hello` to `Welcome`.
    pub hello_deadline: Duration,
    /// Between two pings, before jitter.
    pub ping_interval: Duration,
    /// A session is dead when nothing was heard for this long; told to the client as `Welcome.idle_timeout_ms`.
    pub dead_after: Duration,
    /// Bytes that may wait to be written to the peer.
    pub outbound_bytes_max: usize,
    /// First credit of `LANE_RESULTS`.
    pub results_credit_bytes: u64,
    /// First credit of `LANE_EVENTS`.
    pub events_credit_bytes: u64,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            hello_deadline: HELLO_DEADLINE,
            ping_interval: PING_INTERVAL,
            dead_after: DEAD_AFTER,
            outbound_bytes_max: OUTBOUND_BYTES_MAX,
            results_credit_bytes: RESULTS_CREDIT_BYTES,
            events_credit_bytes: EVENTS_CREDIT_BYTES,
        }
    }
}

impl SessionLimits {
    /// Checks that sessions can live under these limits; programs call it when they read their configuration.
    ///
    /// # Errors
    /// The first of [`Self::findings`].
    pub fn check(&self) -> Result<(), LimitsError> {
        self.findings().into_iter().next().map_or(Ok(()), Err)
    }

    /// Returns every limit that would stop sessions from working, once each, with what would do.
    #[must_use]
    pub fn findings(&self) -> Vec<LimitsError> {
        let at_least = |limit, got: Measure, min: Measure, why| {
            (got < min).then_some(LimitsError { limit, got, min, why })
        };
        let wait = |limit, got, min, why| at_least(limit, Measure::Time(got), Measure::Time(min), why);
        let room = |limit, got: u64, body: usize, why| {
            at_least(limit, Measure::Bytes(got), Measure::Bytes(bytes(body)), why)
        };
        let ping_and_half = self.ping_interval.saturating_mul(3) / 2;
        let found = [
            wait("hello_deadline", self.hello_deadline, ROUND_TRIP, "one round trip"),
            wait("ping_interval", self.ping_interval, ROUND_TRIP, "one round trip"),
            wait("dead_after", self.dead_after, IDLE_TIMEOUT_MIN, "the shortest idle timeout").or_else(
                || {
                    let why = "ping_interval and a half, so that a ping and its answer fit in";
                    wait("dead_after", self.dead_after, ping_and_half, why)
                },
            ),
            room(
                "outbound_bytes_max",
                bytes(self.outbound_bytes_max),
                ENVELOPE_BYTES_MAX + SMALL_BYTES_MAX,
                "the largest order",
            ),
            room(
                "results_credit_bytes",
                self.results_credit_bytes,
                RESULT_BYTES_MAX + FRAME_OVERHEAD_MAX,
                "the largest result",
            ),
            room(
                "events_credit_bytes",
                self.events_credit_bytes,
                EVENT_BYTES_MAX + FRAME_OVERHEAD_MAX,
                "the largest event",
            ),
        ];
        found.into_iter().flatten().collect()
    }
}

/// What a hello and a ping need at least.
const ROUND_TRIP: Duration = Duration::from_millis(100);

fn bytes(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// How much a limit is; programs print it as their configuration writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// A time.
    Time(Duration),
    /// A number of bytes.
    Bytes(u64),
}

impl fmt::Display for Measure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => write!(formatter, "{time:?}"),
            Self::Bytes(bytes) => write!(formatter, "{bytes} bytes"),
        }
    }
}

/// A limit under which sessions would not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{limit} is {got}; set it to {min} or more ({why})")]
pub struct LimitsError {
    limit: &'static str,
    got: Measure,
    min: Measure,
    why: &'static str,
}

impl LimitsError {
    /// Returns the field of [`SessionLimits`] that is too low.
    #[must_use]
    pub fn limit(&self) -> &'static str {
        self.limit
    }

    /// Returns what it is.
    #[must_use]
    pub fn got(&self) -> Measure {
        self.got
    }

    /// Returns the least that would do.
    #[must_use]
    pub fn min(&self) -> Measure {
        self.min
    }

    /// Returns what that is for, in words.
    #[must_use]
    pub fn why(&self) -> &'static str {
        self.why
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work() {
        assert_eq!(SessionLimits::default().check(), Ok(()));
    }

    #[test]
    fn every_limit_that_cannot_work_is_told_once() {
        let limits = SessionLimits {
            hello_deadline: Duration::ZERO,
            ping_interval: Duration::ZERO,
            dead_after: Duration::ZERO,
            outbound_bytes_max: 0,
            results_credit_bytes: 0,
            events_credit_bytes: 0,
        };

        let told: Vec<&str> = limits.findings().iter().map(LimitsError::limit).collect();

        let fields = [
            "hello_deadline",
            "ping_interval",
            "dead_after",
            "outbound_bytes_max",
            "results_credit_bytes",
            "events_credit_bytes",
        ];
        assert_eq!(told, fields);
    }

    #[test]
    fn refuses_a_credit_that_the_largest_result_exceeds() {
        let limits = SessionLimits { results_credit_bytes: 4_096, ..SessionLimits::default() };

        let error = limits.check().unwrap_err();

        assert_eq!(error.limit(), "results_credit_bytes");
        assert_eq!(
            error.to_string(),
            "results_credit_bytes is 4096 bytes; set it to 786437 bytes or more (the largest result)"
        );
    }

    #[test]
    fn refuses_to_call_a_session_dead_before_its_ping_is_answered() {
        let limits = SessionLimits { dead_after: Duration::from_secs(61), ..SessionLimits::default() };

        assert_eq!(limits.check().unwrap_err().limit(), "dead_after");
    }
}
