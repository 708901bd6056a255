//! The time of the operator's machine.

use rustls_pki_types::UnixTime;

/// Returns the wall clock, milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    i64::try_from(UnixTime::now().as_secs().saturating_mul(1_000)).unwrap_or(i64::MAX)
}
