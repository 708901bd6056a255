//! Names of the Switch's metrics, and the few functions that write them. Labels have few values, never a device.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use muster_service::wall::Names;

use crate::engine::EngineStatus;

/// Sessions held, by shard.
const SESSIONS: &str = "muster_switch_sessions";
/// Sessions of devices without a certificate.
const UNAUTHENTICATED: &str = "muster_switch_unauthenticated_sessions";
/// Handshakes ended, by listener and outcome.
const HANDSHAKES: &str = "muster_switch_handshakes_total";
/// Clients that were asked to show their address before a handshake over QUIC.
const QUIC_RETRIES: &str = "muster_switch_quic_retries_total";
/// Bytes that wait for slow clients, by shard.
const QUEUE_BYTES: &str = "muster_switch_queue_bytes";
/// Sessions that are still to be told an order or a notice, added up over those, by shard.
const UNTOLD: &str = "muster_switch_untold_messages";
/// Bytes that were sealed for sessions and that their sockets have not taken, by shard.
const UNSENT_BYTES: &str = "muster_switch_unsent_bytes";
/// Messages to clients dropped, by reason.
const DROPS: &str = "muster_switch_drops_total";
/// Sessions ended, by reason.
const ENDED: &str = "muster_switch_sessions_ended_total";
/// From the moment an order reaches a shard until it is written to a session.
const PUSH_SECONDS: &str = "muster_switch_push_seconds";
/// Certificates refused, by listener and rule of trust.md.
const REFUSED_CERTIFICATES: &str = "muster_switch_refused_certificates_total";
/// Connections of operators and services that the Switch ended, by reason.
const OPERATORS_ENDED: &str = "muster_switch_operator_connections_ended_total";
/// Jumps of the wall clock that were not followed, by direction.
const CLOCK_JUMPS: &str = "muster_switch_clock_jumps_total";
/// How far the wall clock is from the time that is believed; 0 while it is believed.
const CLOCK_OFF_SECONDS: &str = "muster_switch_clock_off_seconds";
/// Calls of the operator API denied by the gate, by reason.
const DENIED: &str = "muster_switch_denied_calls_total";
/// Looks for a newer licence, in a file or at a URL, by outcome: taken, fine, unreached, refused.
pub(crate) const LICENCE_LOOKS: &str = "muster_switch_licence_looks_total";
/// The serial of the licence held; 0: none.
const LICENCE_SERIAL: &str = "muster_switch_licence_serial";
/// When the licence held ends, seconds since 1970; 0: none.
const LICENCE_NOT_AFTER: &str = "muster_switch_licence_not_after_seconds";
/// When a newer licence should have come, seconds since 1970; 0: it does not say.
const LICENCE_REFRESH_BY: &str = "muster_switch_licence_refresh_by_seconds";
/// 1 while that moment has passed, else 0: somebody must look.
const LICENCE_OVERDUE: &str = "muster_switch_licence_overdue";

/// What the clock is told under.
pub(crate) const CLOCK: Names =
    Names { program: "the Switch", jumps_total: CLOCK_JUMPS, off_seconds: CLOCK_OFF_SECONDS };

/// Tells the recorder what the names mean.
pub(crate) fn describe() {
    describe_gauge!(SESSIONS, "sessions held");
    describe_gauge!(UNAUTHENTICATED, "sessions of devices without a certificate");
    describe_counter!(HANDSHAKES, "handshakes ended, by listener and outcome");
    describe_counter!(QUIC_RETRIES, "clients asked to show their address before a handshake over QUIC");
    describe_gauge!(QUEUE_BYTES, Unit::Bytes, "bytes that wait for slow clients");
    describe_gauge!(UNTOLD, "sessions still to be told an order or a notice, added up over those");
    describe_gauge!(UNSENT_BYTES, Unit::Bytes, "bytes sealed for sessions whose sockets have not taken them");
    describe_counter!(DROPS, "messages to clients dropped, by reason");
    describe_counter!(ENDED, "sessions ended, by reason");
    describe_histogram!(
        PUSH_SECONDS,
        Unit::Seconds,
        "from an order's arrival at a shard until it is written"
    );
    describe_counter!(REFUSED_CERTIFICATES, "certificates refused, by listener and rule");
    describe_counter!(
        OPERATORS_ENDED,
        "connections of operators and services ended by the Switch, by reason"
    );
    describe_counter!(CLOCK_JUMPS, "jumps of the wall clock that were not followed, by direction");
    describe_gauge!(CLOCK_OFF_SECONDS, Unit::Seconds, "how far the wall clock is from the believed time");
    describe_counter!(DENIED, "operator calls denied by the gate");
    describe_counter!(LICENCE_LOOKS, "looks for a newer licence, by outcome");
    describe_gauge!(LICENCE_SERIAL, "serial of the licence held, 0 for none");
    describe_gauge!(
        LICENCE_NOT_AFTER,
        Unit::Seconds,
        "when the licence held ends, or its signer's certificate before it, since 1970"
    );
    describe_gauge!(LICENCE_REFRESH_BY, Unit::Seconds, "when a newer licence should have come, since 1970");
    describe_gauge!(LICENCE_OVERDUE, "1 while a newer licence should have come, else 0");
}

/// Tells of the licence held.
pub(crate) fn licence(status: &EngineStatus, now_ms: i64) {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    let seconds = |ms: i64| (ms / 1000) as f64;
    #[expect(clippy::cast_precision_loss, reason = "a licensor gives out no more than 2^53")]
    gauge!(LICENCE_SERIAL).set(status.licence_serial as f64);
    gauge!(LICENCE_NOT_AFTER).set(seconds(status.licence_expires_at_ms));
    gauge!(LICENCE_REFRESH_BY).set(seconds(status.licence_refresh_by_ms));
    gauge!(LICENCE_OVERDUE).set(if status.is_licence_overdue(now_ms) { 1.0 } else { 0.0 });
}

/// Sets how many sessions a shard holds.
pub(crate) fn sessions(shard: u16, count: usize) {
    gauge!(SESSIONS, "shard" => shard.to_string()).set(u32::try_from(count).unwrap_or(u32::MAX));
}

/// Sets how many sessions have no certificate.
pub(crate) fn unauthenticated_sessions(count: u32) {
    gauge!(UNAUTHENTICATED).set(count);
}

/// Which listener a handshake was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Listener {
    /// Devices, over WebSocket.
    Sessions,
    /// Devices, over QUIC.
    Quic,
    /// Operators and services.
    Operators,
    /// That of a Background Channel, which tells whom it turns away.
    Background,
}

impl Listener {
    /// Returns its name in metrics, logs and lists.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Quic => "quic",
            Self::Operators => "operators",
            Self::Background => "background",
        }
    }
}

/// Counts a handshake.
pub(crate) fn handshake(listener: Listener, outcome: &'static str) {
    counter!(HANDSHAKES, "listener" => listener.name(), "outcome" => outcome).increment(1);
}

/// Counts a client that has to show its address first.
pub(crate) fn quic_retried() {
    counter!(QUIC_RETRIES).increment(1);
}

/// Sets how much waits in a shard's queues.
pub(crate) fn queue_bytes(shard: u16, bytes: usize) {
    gauge!(QUEUE_BYTES, "shard" => shard.to_string()).set(u32::try_from(bytes).unwrap_or(u32::MAX));
}

/// Sets how many sessions of a shard are still to be told something.
pub(crate) fn untold(shard: u16, count: u64) {
    gauge!(UNTOLD, "shard" => shard.to_string()).set(u32::try_from(count).unwrap_or(u32::MAX));
}

/// Sets how much was sealed for sessions of a shard and waits for their sockets.
pub(crate) fn unsent_bytes(shard: u16, bytes: usize) {
    gauge!(UNSENT_BYTES, "shard" => shard.to_string()).set(u32::try_from(bytes).unwrap_or(u32::MAX));
}

/// Counts a message that did not reach its client's queue.
pub(crate) fn dropped(reason: &'static str) {
    counter!(DROPS, "reason" => reason).increment(1);
}

/// Counts a session's end.
pub(crate) fn session_ended(reason: &'static str) {
    counter!(ENDED, "reason" => reason).increment(1);
}

/// Records how long an order took from the shard's mailbox to the session's socket.
pub(crate) fn pushed(after: Duration) {
    histogram!(PUSH_SECONDS).record(after);
}

/// Counts a refused certificate under the rule it breaks.
pub(crate) fn refused_certificate(listener: Listener, rule: String) {
    counter!(REFUSED_CERTIFICATES, "listener" => listener.name(), "rule" => rule).increment(1);
}

/// Counts a connection of an operator or service that the Switch ended.
pub(crate) fn operator_connection_ended(reason: &'static str) {
    counter!(OPERATORS_ENDED, "reason" => reason).increment(1);
}

/// Counts a call that the gate denied.
pub(crate) fn denied(reason: &'static str) {
    counter!(DENIED, "reason" => reason).increment(1);
}
