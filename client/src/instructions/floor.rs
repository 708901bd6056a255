//! The time floor: the earliest time that it can be, against a clock that was set back (signing.md).
//!
//! Were it raised by the wall clock alone, one wrong step forward would keep every later order out for good. So it rises
//! with the monotonic clock, and to the time of an order that was admitted, whose window somebody else signed.

use std::time::Instant;

use super::Now;

/// The floor as of a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeFloor {
    ms: i64,
    since: Instant,
    /// What was told before, so that a clock which is set back while the client runs does not take the floor with it.
    highest_ms: i64,
}

impl TimeFloor {
    /// Starts from what the store remembers, milliseconds since 1970.
    pub(crate) fn new(ms: i64, now: Instant) -> Self {
        Self { ms, since: now, highest_ms: ms }
    }

    /// Returns the floor by now: what has passed since, never more than the wall clock shows, never less than before.
    pub(super) fn at(&mut self, now: Now) -> i64 {
        let passed = now.instant.saturating_duration_since(self.since).as_millis();
        let risen = self.ms.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX));
        self.highest_ms = risen.min(now.wall_ms).max(self.highest_ms);
        self.highest_ms
    }

    /// An order was admitted whose window ends then; returns the floor by now.
    pub(super) fn raise(&mut self, expires_at_ms: i64, now: Now) -> i64 {
        let ms = self.at(now).max(now.wall_ms.min(expires_at_ms));
        *self = Self::new(ms, now.instant);
        ms
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const START_MS: i64 = 1_800_000_000_000;

    const YEAR_MS: i64 = 365 * 86_400_000;

    #[test]
    fn a_clock_that_steps_forward_raises_the_floor_by_no_more_than_what_has_passed() {
        let start = Instant::now();
        let mut floor = TimeFloor::new(START_MS, start);

        let later = Now { instant: start + Duration::from_secs(60), wall_ms: START_MS + YEAR_MS };

        assert_eq!(floor.at(Now { wall_ms: START_MS - 10, ..later }), START_MS);
        assert_eq!(floor.at(Now { wall_ms: START_MS + 10, ..later }), START_MS + 10);
        assert_eq!(floor.at(later), START_MS + 60_000);
        assert_eq!(floor.at(Now { wall_ms: START_MS - YEAR_MS, ..later }), START_MS + 60_000, "set back");
    }

    #[test]
    fn an_admitted_order_raises_the_floor_to_now_and_not_beyond_its_window() {
        let start = Instant::now();
        let mut floor = TimeFloor::new(0, start);
        let now = Now { instant: start, wall_ms: START_MS };

        assert_eq!(floor.raise(START_MS + 60_000, now), START_MS);
        assert_eq!(
            floor.raise(START_MS + 60_000, Now { wall_ms: START_MS + YEAR_MS, ..now }),
            START_MS + 60_000
        );
        assert_eq!(floor.at(Now { instant: start + Duration::from_secs(1), ..now }), START_MS + 60_000);
    }
}
