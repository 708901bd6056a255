//! The clocks of the machine, read in one place.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::instructions::Now;

/// Returns the wall clock, milliseconds since 1970; a clock before 1970 reads 0.
pub(crate) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Returns both clocks.
pub(crate) fn now() -> Now {
    Now { instant: Instant::now(), wall_ms: wall_ms() }
}
