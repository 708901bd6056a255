//! The wall clock, for certificates and for people; everything else is monotonic.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::UnixTime;

/// Returns the moment, as certificate checks want it.
pub(crate) fn now() -> UnixTime {
    UnixTime::now()
}

/// Returns the moment, milliseconds since 1970, UTC.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Returns a moment in milliseconds since 1970, UTC.
pub(crate) fn millis(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000)
}
