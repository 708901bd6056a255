//! The wall clock, injected: orders and certificates end by it, and tests turn it by hand.

use std::time::Duration;

use rustls_pki_types::UnixTime;

use crate::wall::Wall;

/// Tells the time of day.
#[derive(Debug, Clone)]
pub(crate) struct Clock(Wall);

impl Clock {
    /// Returns the clock that all of the Switch goes by.
    pub(crate) fn of(wall: &Wall) -> Self {
        Self(wall.clone())
    }

    /// Returns the time, milliseconds since 1970, UTC.
    pub(crate) fn now_ms(&self) -> i64 {
        self.0.now_ms()
    }

    /// Returns the time if nothing speaks against it; only by that is anything deleted.
    pub(crate) fn settled_ms(&self) -> Option<i64> {
        self.0.settled_ms()
    }

    /// Returns the time as certificates are compared with.
    pub(crate) fn unix_time(&self) -> UnixTime {
        unix_time(self.now_ms())
    }
}

/// Turns milliseconds since 1970 into the time that certificates are compared with; before 1970 is 1970.
pub(crate) fn unix_time(ms: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(ms).unwrap_or_default()))
}

/// Turns a duration into milliseconds as messages hold them; what is too long becomes the longest.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
