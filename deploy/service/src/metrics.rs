//! The names of the metrics this crate records. Labels: `component`, `credentials`, the thumbprint of a certificate of ours; never
//! a device.

/// Counter: credential files reloaded and put to use.
pub const CREDENTIALS_RELOADED_TOTAL: &str = "muster_credentials_reloaded_total";
/// Counter: credential files that were refused, so that the ones before stay in use.
pub const CREDENTIALS_REFUSED_TOTAL: &str = "muster_credentials_refused_total";
/// Gauge: 1 while the files on disk are refused and older ones are in use, else 0.
pub const CREDENTIALS_STALE: &str = "muster_credentials_stale";
/// Gauge: 1 for the certificate of ours that is in use, 0 for those before it; labels `credentials` and `thumbprint`.
pub const CREDENTIALS_INFO: &str = "muster_credentials_info";
/// Gauge: the end of the validity of a certificate of ours, in seconds since 1970, 0 while there is none; label `credentials` says
/// which.
pub const CREDENTIALS_NOT_AFTER_SECONDS: &str = "muster_credentials_not_after_seconds";
/// Gauge: when the first CA of a file of roots or issuers, or the first anchor of a trust store, ends, in seconds since 1970; label `file`.
pub const AUTHORITIES_NOT_AFTER_SECONDS: &str = "muster_authorities_not_after_seconds";
/// Gauge: when the next CRL is due, in seconds since 1970; label `crl`, the file or URL of the one in use.
pub const CRL_NEXT_UPDATE_SECONDS: &str = "muster_crl_next_update_seconds";
/// Counter: peers refused by the check of their certificate, in or after the handshake.
pub const PEERS_REFUSED_TOTAL: &str = "muster_peers_refused_total";
/// Counter: refusals of peers that had no line in the log, since the same peer or many others had theirs in that minute.
pub const REFUSALS_UNLOGGED_TOTAL: &str = "muster_refusals_unlogged_total";
/// Gauge: 0 ready, 1 starting, 2 degraded, 3 failed.
pub const HEALTH_STATE: &str = "muster_health_state";
/// Counter: requests the admin listener answered.
pub const ADMIN_REQUESTS_TOTAL: &str = "muster_admin_requests_total";
/// Counter: tasks that ended by a panic.
pub const TASKS_PANICKED_TOTAL: &str = "muster_tasks_panicked_total";
/// Gauge: certificates on all CRLs in use.
pub const CRL_ENTRIES: &str = "muster_crl_entries";
/// Counter: CRLs, from files or fetched, that were refused; the ones before stay in use.
pub const CRL_REFUSED_TOTAL: &str = "muster_crl_refused_total";
/// Counter: fetches of a CRL that brought none.
pub const CRL_FETCH_FAILURES_TOTAL: &str = "muster_crl_fetch_failures_total";
/// Gauge: distribution points that are due and wait, since as many fetches are under way as may (`[revocation.fetching]`).
pub const CRL_FETCHES_WAITING: &str = "muster_crl_fetches_waiting";
/// Gauge: 1 while an issuer has no fresh CRL, or a CRL or distribution point is refused, else 0.
pub const CRL_STALE: &str = "muster_crl_stale";
