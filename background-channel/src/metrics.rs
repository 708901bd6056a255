//! Names of the Background Channel's metrics, in one place.

use metrics::{counter, gauge};
use muster_proto::relay::v1::RelayRefusal;
use muster_service::wall::Names;

/// What the clock is told under: jumps that were not followed, by direction, and how far it is off.
pub(crate) const CLOCK: Names = Names {
    program: "the Background Channel",
    jumps_total: "muster_background_clock_jumps_total",
    off_seconds: "muster_background_clock_off_seconds",
};

/// A request was answered; the status is its class, such as `2xx`.
pub(crate) fn request(route: &'static str, status: u16) {
    let class = match status {
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    };
    counter!("muster_background_requests_total", "route" => route, "status" => class).increment(1);
}

/// Content was sent.
pub(crate) fn sent_bytes(bytes: u64) {
    counter!("muster_background_sent_bytes_total").increment(bytes);
}

/// The spool's size.
pub(crate) fn spool_bytes(bytes: u64) {
    // A gauge is a float; beyond 2^53 bytes its last digits would not matter to anyone.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    gauge!("muster_background_spool_bytes").set(bytes as f64);
}

/// A batch of the spool was refused, since the disk had no room for it.
pub(crate) fn disk_full() {
    counter!("muster_background_spool_disk_full_total").increment(1);
}

/// Events the Switch has committed.
pub(crate) fn relayed(events: u64) {
    counter!("muster_background_relayed_events_total").increment(events);
}

/// A spooled event that the Switch did not take, each time it was offered, by cause.
pub(crate) fn refused_event(cause: RelayRefusal) {
    let cause = match cause {
        RelayRefusal::Unspecified => "unspecified",
        RelayRefusal::UnknownDevice => "unknown_device",
        RelayRefusal::Malformed => "malformed",
        RelayRefusal::OutboxFull => "outbox_full",
        RelayRefusal::Blocked => "blocked",
    };
    counter!("muster_background_refused_events_total", "cause" => cause).increment(1);
}

/// A relay attempt that did not work.
pub(crate) fn relay_failure() {
    counter!("muster_background_relay_failures_total").increment(1);
}

/// A stored record whose checksum is wrong.
pub(crate) fn damaged_record() {
    counter!("muster_background_damaged_records_total").increment(1);
}

/// Events dropped without the Switch having them, by cause.
pub(crate) fn dropped_events(cause: &'static str, events: u64) {
    counter!("muster_background_dropped_events_total", "cause" => cause).increment(events);
}

/// A post of events was refused before it was read, or while it was, by cause.
pub(crate) fn refused_post(cause: &'static str) {
    counter!("muster_background_posts_refused_total", "cause" => cause).increment(1);
}

/// A request was answered before its content was through.
pub(crate) fn unread() {
    counter!("muster_background_unread_requests_total").increment(1);
}

/// A connection was refused before a request, by cause.
pub(crate) fn refused(cause: &'static str) {
    counter!("muster_background_connections_refused_total", "cause" => cause).increment(1);
}

/// A certificate was refused, by rule of trust.md.
pub(crate) fn refused_certificate(rule: String) {
    counter!("muster_background_refused_certificates_total", "rule" => rule).increment(1);
}

/// A refusal is not told to the Switch, since as many wait as may: it is in the log only.
pub(crate) fn refusal_untold() {
    counter!("muster_background_refusals_untold_total").increment(1);
}

/// A live connection was ended by us, by cause.
pub(crate) fn ended(cause: &'static str) {
    counter!("muster_background_connections_ended_total", "cause" => cause).increment(1);
}
