//! Names of the client's metrics. Labels have few values: refused policies have their `reason`, sessions their `transport`.

/// Times the store was full and a batch was refused.
pub(crate) const STORE_FULL: &str = "muster_client_store_full_total";
/// Stored records whose checksum was wrong.
pub(crate) const RECORDS_DAMAGED: &str = "muster_client_records_damaged_total";
/// Records dropped at the bounds of the outbox.
pub(crate) const OUTBOX_DROPPED: &str = "muster_client_outbox_dropped_total";
/// Times the outbox took another outbox_id, since the Switch has seen numbers that the store never sent.
pub(crate) const OUTBOX_RENEWED: &str = "muster_client_outbox_renewed_total";
/// Sessions that were welcomed, by `transport` (`quic`, `websocket`).
pub(crate) const SESSIONS: &str = "muster_client_sessions_total";
/// Attempts to connect that failed.
pub(crate) const CONNECT_FAILURES: &str = "muster_client_connect_failures_total";
/// Instructions that were started.
pub(crate) const INSTRUCTIONS_STARTED: &str = "muster_client_instructions_started_total";
/// Results of which rows or values were left out, since a limit of their definition or of this device was reached.
pub(crate) const RESULTS_TRUNCATED: &str = "muster_client_results_truncated_total";
/// Stops that were taken: their instructions never start, or were ended.
pub(crate) const STOPS: &str = "muster_client_stops_total";
/// Orders that were refused, stops included.
pub(crate) const ORDERS_REFUSED: &str = "muster_client_orders_refused_total";
/// Orders and stops that do not verify and were neither answered nor told, since too many such answers wait already, or were told lately.
pub(crate) const ORDERS_UNANSWERED: &str = "muster_client_orders_unanswered_total";
/// Orders and documents that came while a write waited for room on the disk, and had no room themselves; the Switch sends them again.
pub(crate) const ORDERS_WITHOUT_ROOM: &str = "muster_client_orders_without_room_total";
/// Events that the Background Channel took.
pub(crate) const EVENTS_POSTED: &str = "muster_client_events_posted_total";
/// Events that the Background Channel refuses for good; they wait for a session.
pub(crate) const EVENTS_REFUSED: &str = "muster_client_events_refused_total";
/// Bytes of resources that were verified and written.
pub(crate) const RESOURCE_BYTES: &str = "muster_client_resource_bytes_total";
/// Groups of 16 KiB that were not what was signed.
pub(crate) const RESOURCE_LIES: &str = "muster_client_resource_lies_total";
/// Times a resource was asked for again, since its source was away, overloaded or wrong.
pub(crate) const RESOURCE_RETRIES: &str = "muster_client_resource_retries_total";
/// Roots of signers that were refused while the client ran; the old content stays in use.
pub(crate) const TRUST_REFUSED: &str = "muster_client_trust_refused_total";
/// 1 while such roots are refused, else 0: somebody must look.
pub(crate) const TRUST_STALE: &str = "muster_client_trust_stale";
/// 1 while a newer licence should have come (`refresh_by`), else 0: somebody must look.
pub(crate) const LICENCE_OVERDUE: &str = "muster_client_licence_overdue";
/// Policies of administrators that were offered and are not followed, by `reason`.
pub(crate) const POLICIES_REFUSED: &str = "muster_client_policies_refused_total";
/// Policies that were tried in vain.
pub(crate) const POLICIES_ROLLED_BACK: &str = "muster_client_policies_rolled_back_total";
/// The serial of the policy that is followed, 0 for none.
pub(crate) const POLICY_SERIAL: &str = "muster_client_policy_serial";
/// 1 while there is no certificate to show, and so neither a session nor a download, else 0.
pub(crate) const CERTIFICATE_MISSING: &str = "muster_client_certificate_missing";
/// 1 while a download waits for a certificate and holds back all others, else 0.
pub(crate) const DOWNLOAD_WAITS: &str = "muster_client_download_waits_for_certificate";
