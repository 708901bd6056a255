//! Names of the engine's metrics, and the few functions that write them. Labels have few values, never a device.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// Items in one batch.
const BATCH_ITEMS: &str = "muster_switch_store_batch_items";
/// From a batch's first statement until it is on disk.
const COMMIT_SECONDS: &str = "muster_switch_store_commit_seconds";
/// Results committed.
const RESULTS: &str = "muster_switch_results_total";
/// Events committed, by road.
const EVENTS: &str = "muster_switch_events_total";
/// Results and events that came again and were acked again, by lane.
const REPEATED: &str = "muster_switch_repeated_total";
/// Results and events that were acked but not stored, by reason.
const DROPPED: &str = "muster_switch_store_dropped_total";
/// Results that had been kept long enough and were deleted.
const RESULTS_DELETED: &str = "muster_switch_results_deleted_total";
/// Results and events that were neither stored nor acked, by reason.
const UNACKED: &str = "muster_switch_store_unacked_total";
/// Events not taken because the disk is short, by road.
const EVENTS_WITHHELD: &str = "muster_switch_events_withheld_total";
/// Relayed events that were not taken, by cause.
const RELAY_REFUSED: &str = "muster_switch_relay_refused_total";
/// Devices that were given a later epoch than the store remembers, since the start.
const DEVICES_AHEAD: &str = "muster_switch_devices_ahead";
/// Devices that operators removed.
const DEVICES_REMOVED: &str = "muster_switch_devices_removed_total";
/// Devices that operators keep out.
const BLOCKED: &str = "muster_switch_blocked_devices";
/// Blocks that were refused since as many devices are blocked as may be.
const BLOCKED_FULL: &str = "muster_switch_blocked_full_total";
/// Attributes of a `Hello` that were left out because the fleet has too many names.
const ATTRIBUTES_REFUSED: &str = "muster_switch_attributes_refused_total";
/// Outboxes forgotten because their device has later ones.
const OUTBOXES_FORGOTTEN: &str = "muster_switch_outboxes_forgotten_total";
/// Stored records that failed their checksum, by table.
const DAMAGED: &str = "muster_switch_store_damaged_records_total";
/// Instructions accepted.
const INSTRUCTIONS: &str = "muster_switch_instructions_total";
/// Aggregates over results, by outcome.
const AGGREGATES: &str = "muster_switch_aggregates_total";
/// From the beginning of an aggregate to its end.
const AGGREGATE_SECONDS: &str = "muster_switch_aggregate_seconds";
/// Approvals accepted.
const APPROVALS: &str = "muster_switch_approvals_total";
/// Stops accepted.
const STOPS: &str = "muster_switch_stops_total";
/// Stops that were refused since as many wait as may.
const STOPS_FULL: &str = "muster_switch_stops_full_total";
/// Instructions with targets that are not terminal.
const ACTIVE: &str = "muster_switch_active_instructions";
/// Devices that are to follow a later policy than they do.
const POLICY_BEHIND: &str = "muster_switch_policy_behind_devices";
/// Devices known.
const DEVICES: &str = "muster_switch_devices";
/// Calls that found the engine's queue full to the end of their patience.
const QUEUE_FULL: &str = "muster_switch_store_queue_full_total";
/// Messages that wait because a shard's mailbox was full, by shard.
const BACKLOG: &str = "muster_switch_shard_backlog_messages";
/// Free bytes where the store lies.
const DISK_FREE: &str = "muster_switch_disk_free_bytes";
/// Prepared orders that were forgotten before their time, by whose share was full.
const PREPARED_FORGOTTEN: &str = "muster_switch_prepared_forgotten_total";
/// What was refused to devices without a certificate, by what.
const UNAUTHENTICATED_REFUSED: &str = "muster_switch_unauthenticated_refused_total";
/// Devices known that have no certificate.
const UNAUTHENTICATED: &str = "muster_switch_unauthenticated_devices";
/// Targets that entered a state.
const TARGETS: &str = "muster_switch_targets_total";

/// Tells the recorder what the names mean.
pub(crate) fn describe() {
    describe_histogram!(BATCH_ITEMS, "items of one commit");
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "from a batch's first statement until it is on disk");
    describe_counter!(RESULTS, "results committed");
    describe_counter!(EVENTS, "events committed, by road");
    describe_counter!(REPEATED, "results and events that came again and were acked again, by lane");
    describe_counter!(RESULTS_DELETED, "results that had been kept long enough and were deleted");
    describe_counter!(DROPPED, "results and events acked but not stored, by reason");
    describe_counter!(
        UNACKED,
        "results and events neither stored nor acked, so that who sent them keeps them, by reason"
    );
    describe_counter!(EVENTS_WITHHELD, "events not taken because the disk is short, by road");
    describe_counter!(
        RELAY_REFUSED,
        "relayed events not taken and left with the Background Channel, by cause"
    );
    describe_gauge!(
        DEVICES_AHEAD,
        "devices that came since the start and had sessions that the store, an older copy then, does not know of"
    );
    describe_counter!(DEVICES_REMOVED, "devices that operators removed");
    describe_gauge!(BLOCKED, "devices that operators keep out");
    describe_counter!(BLOCKED_FULL, "blocks refused for `engine.blocked_max`");
    describe_counter!(ATTRIBUTES_REFUSED, "attributes left out because the fleet has too many names");
    describe_counter!(OUTBOXES_FORGOTTEN, "outboxes forgotten because their device has later ones");
    describe_counter!(DAMAGED, "stored records that failed their checksum and were set aside, by table");
    describe_counter!(INSTRUCTIONS, "instructions accepted");
    describe_counter!(
        AGGREGATES,
        "aggregates over results, by outcome: whole, partial, no_aggregate, sql, busy, too_many_rows, memory, deadline, gone, failed"
    );
    describe_histogram!(AGGREGATE_SECONDS, Unit::Seconds, "from the beginning of an aggregate to its end");
    describe_counter!(APPROVALS, "approvals of instructions accepted");
    describe_counter!(STOPS, "stops of instructions accepted");
    describe_counter!(STOPS_FULL, "stops refused for `engine.stops_max`");
    describe_gauge!(ACTIVE, "instructions with targets that are not terminal");
    describe_gauge!(DEVICES, "devices known");
    describe_gauge!(POLICY_BEHIND, "devices that are to follow a later policy than they say they do");
    describe_counter!(QUEUE_FULL, "calls refused because the store's queue stayed full");
    describe_gauge!(BACKLOG, "messages that wait because a shard's mailbox was full");
    describe_gauge!(DISK_FREE, Unit::Bytes, "free bytes where the store lies");
    describe_counter!(
        PREPARED_FORGOTTEN,
        "prepared orders forgotten because too many wait for a signature, of one operator or of all"
    );
    describe_counter!(
        UNAUTHENTICATED_REFUSED,
        "what was refused to devices without a certificate: devices (too many), new (too many in a minute), action"
    );
    describe_gauge!(UNAUTHENTICATED, "devices known that have no certificate");
    describe_counter!(TARGETS, "targets that entered a state, by state");
}

/// Records one commit.
pub(crate) fn committed(items: usize, took: Duration) {
    histogram!(BATCH_ITEMS).record(f64::from(u32::try_from(items).unwrap_or(u32::MAX)));
    histogram!(COMMIT_SECONDS).record(took);
}

/// Counts a stored result.
pub(crate) fn result_stored() {
    counter!(RESULTS).increment(1);
}

/// Counts results that were deleted, as they are about to be.
pub(crate) fn results_deleted(count: u64) {
    counter!(RESULTS_DELETED).increment(count);
}

/// Counts a stored event by its road.
pub(crate) fn event_stored(road: &'static str) {
    counter!(EVENTS, "road" => road).increment(1);
}

/// Counts a repeated result or event.
pub(crate) fn repeated(lane: &'static str) {
    counter!(REPEATED, "lane" => lane).increment(1);
}

/// Counts a result or event that is left with who sent it, and why.
pub(crate) fn left_unacked(reason: &'static str) {
    counter!(UNACKED, "reason" => reason).increment(1);
}

/// Counts a result or event that was acked and not stored, and why.
pub(crate) fn dropped(reason: &'static str) {
    counter!(DROPPED, "reason" => reason).increment(1);
}

/// Counts events that were left with who sent them because the disk is short.
pub(crate) fn events_withheld(road: &'static str, count: usize) {
    counter!(EVENTS_WITHHELD, "road" => road).increment(u64::try_from(count).unwrap_or(u64::MAX));
}

/// Counts a relayed event that was not taken.
pub(crate) fn relay_refused(cause: &'static str) {
    counter!(RELAY_REFUSED, "cause" => cause).increment(1);
}

/// Sets how many devices were given a later epoch than the store remembers.
pub(crate) fn devices_ahead(devices: u64) {
    gauge!(DEVICES_AHEAD).set(f64::from(u32::try_from(devices).unwrap_or(u32::MAX)));
}

/// Sets how many devices operators keep out.
pub(crate) fn blocked(count: usize) {
    gauge!(BLOCKED).set(u32::try_from(count).unwrap_or(u32::MAX));
}

/// Counts a block that was refused.
pub(crate) fn blocked_full() {
    counter!(BLOCKED_FULL).increment(1);
}

/// Counts a device that was removed.
pub(crate) fn device_removed() {
    counter!(DEVICES_REMOVED).increment(1);
}

/// Counts attributes that were left out.
pub(crate) fn attributes_refused(count: usize) {
    counter!(ATTRIBUTES_REFUSED).increment(u64::try_from(count).unwrap_or(u64::MAX));
}

/// Counts an outbox that was forgotten.
pub(crate) fn outbox_forgotten() {
    counter!(OUTBOXES_FORGOTTEN).increment(1);
}

/// Counts a damaged record.
pub(crate) fn damaged(table: &'static str) {
    counter!(DAMAGED, "table" => table).increment(1);
}

/// Counts an accepted instruction.
pub(crate) fn instruction_accepted() {
    counter!(INSTRUCTIONS).increment(1);
}

/// Counts an aggregate by what came of it.
pub(crate) fn aggregated(outcome: &'static str, took: Duration) {
    counter!(AGGREGATES, "outcome" => outcome).increment(1);
    histogram!(AGGREGATE_SECONDS).record(took);
}

/// Counts an accepted approval.
pub(crate) fn approval_accepted() {
    counter!(APPROVALS).increment(1);
}

/// Counts an accepted stop.
pub(crate) fn stop_accepted() {
    counter!(STOPS).increment(1);
}

/// Counts a stop that was refused for want of room.
pub(crate) fn stops_full() {
    counter!(STOPS_FULL).increment(1);
}

/// Counts a prepared order that was forgotten for want of room.
pub(crate) fn prepared_forgotten(share: &'static str) {
    counter!(PREPARED_FORGOTTEN, "share" => share).increment(1);
}

/// Counts targets that entered a state.
pub(crate) fn targets_entered(state: &'static str, count: u64) {
    counter!(TARGETS, "state" => state).increment(count);
}

/// Sets how many instructions are active and devices known.
pub(crate) fn sizes(active: usize, devices: usize) {
    gauge!(ACTIVE).set(f64::from(u32::try_from(active).unwrap_or(u32::MAX)));
    gauge!(DEVICES).set(f64::from(u32::try_from(devices).unwrap_or(u32::MAX)));
}

/// Sets how many of the devices have no certificate.
pub(crate) fn unauthenticated(devices: u64) {
    gauge!(UNAUTHENTICATED).set(f64::from(u32::try_from(devices).unwrap_or(u32::MAX)));
}

/// Counts what was refused to a device without a certificate.
pub(crate) fn unauthenticated_refused(what: &'static str) {
    counter!(UNAUTHENTICATED_REFUSED, "what" => what).increment(1);
}

/// Sets how many devices are to follow a later policy than they do.
pub(crate) fn policy_behind(devices: u64) {
    gauge!(POLICY_BEHIND).set(f64::from(u32::try_from(devices).unwrap_or(u32::MAX)));
}

/// Counts a call that found no room.
pub(crate) fn queue_full() {
    counter!(QUEUE_FULL).increment(1);
}

/// Sets how many messages wait for a shard.
pub(crate) fn backlog(shard: usize, messages: usize) {
    gauge!(BACKLOG, "shard" => shard.to_string()).set(f64::from(u32::try_from(messages).unwrap_or(u32::MAX)));
}

/// Sets the free bytes of the store's disk.
pub(crate) fn disk_free(bytes: u64) {
    // Whole MiB are exact in a double, and finer than anybody looks.
    gauge!(DISK_FREE).set(f64::from(u32::try_from(bytes >> 20).unwrap_or(u32::MAX)) * 1_048_576.0);
}
