//! The time floor: the earliest time that it can be, against a clock that was set back (signing.md).
//!
//! Were it raised by the wall clock alone, one wrong step forward would keep every later order out for good. So it rises
//! with the monotonic clock, and to the time of an order that was admitted, whose window somebody else signed.
//!
//! The Switch's clock never moves the floor, since the Switch is not trusted with it; it only helps to tell why something is
//! refused.

use std::time::Instant;

use super::Now;

/// The floor as of a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeFloor {
    ms: i64,
    since: Instant,
    /// What the Switch's clock showed, and when it was told.
    switch: Option<(i64, Instant)>,
    /// What was told before, so that a clock which is set back while the client runs does not take the floor with it.
    highest_ms: i64,
}

impl TimeFloor {
    /// Starts from what the store remembers, milliseconds since 1970.
    pub(crate) fn new(ms: i64, now: Instant) -> Self {
        Self { ms, since: now, switch: None, highest_ms: ms }
    }

    /// Returns the floor by now: what has passed since, never more than the wall clock shows, never less than before.
    pub(super) fn at(&mut self, now: Now) -> i64 {
        self.highest_ms = self.risen(now);
        self.highest_ms
    }

    fn risen(&self, now: Now) -> i64 {
        after(self.ms, self.since, now).min(now.wall_ms).max(self.highest_ms)
    }

    /// An order was admitted whose window ends then; returns the floor by now.
    pub(super) fn raise(&mut self, expires_at_ms: i64, now: Now) -> i64 {
        let ms = self.at(now).max(now.wall_ms.min(expires_at_ms));
        *self = Self { switch: self.switch, ..Self::new(ms, now.instant) };
        ms
    }

    /// The Switch told its time.
    pub(super) fn tell_switch(&mut self, switch_ms: i64, now: Now) {
        self.switch = Some((switch_ms, now.instant));
    }

    /// Returns what contradicts the wall clock by more than [`CLOCK_OFF_MS`], if anything does.
    pub(super) fn contradiction(&self, now: Now) -> Option<Contradiction> {
        let floor_ms = self.risen(now);
        if now.wall_ms < floor_ms.saturating_sub(CLOCK_OFF_MS) {
            return Some(Contradiction { by: Witness::Floor, ms: floor_ms });
        }
        let (switch_ms, told) = self.switch?;
        let switch_ms = after(switch_ms, told, now);
        let is_off = now.wall_ms.abs_diff(switch_ms) > CLOCK_OFF_MS.unsigned_abs();
        is_off.then_some(Contradiction { by: Witness::Switch, ms: switch_ms })
    }
}

/// Returns what a clock shows by now that showed `ms` at `since`.
fn after(ms: i64, since: Instant, now: Now) -> i64 {
    let passed = now.instant.saturating_duration_since(since).as_millis();
    ms.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
}

/// How far the wall clock may be off before it is to blame: what an order's time allows as well (signing.md, "clock set back").
pub(crate) const CLOCK_OFF_MS: i64 = 5 * 60 * 1_000;

/// Another time than the wall clock's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contradiction {
    by: Witness,
    /// The time it is, or the earliest that it can be; milliseconds since 1970.
    pub(super) ms: i64,
}

/// Who knows another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Witness {
    Floor,
    Switch,
}

impl Contradiction {
    /// Says what is to be done about a wall clock that shows `wall_ms`.
    pub(super) fn advice(self, wall_ms: i64) -> String {
        let seconds = self.ms.abs_diff(wall_ms) / 1_000;
        let direction = if wall_ms < self.ms { "behind" } else { "ahead of" };
        match self.by {
            Witness::Floor => format!("this device's clock is {seconds} s behind what it has seen; set it"),
            Witness::Switch => {
                format!(
                    "this device's clock is {seconds} s {direction} the Switch's; set the one that is wrong"
                )
            }
        }
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
    fn a_clock_that_is_off_is_contradicted_by_the_floor_or_the_switch_and_a_good_one_by_nobody() {
        let start = Instant::now();
        let mut floor = TimeFloor::new(START_MS, start);
        let at = |wall_ms| Now { instant: start, wall_ms };
        assert_eq!(floor.contradiction(at(START_MS - 300_000)), None);
        let told = |contradiction: Option<Contradiction>, wall_ms| contradiction.unwrap().advice(wall_ms);
        let set_back = START_MS - 301_000;
        assert!(told(floor.contradiction(at(set_back)), set_back).contains("301 s behind what it has seen"));

        floor.tell_switch(START_MS + YEAR_MS, at(START_MS));

        let later = Now { instant: start + Duration::from_secs(60), wall_ms: START_MS + YEAR_MS + 60_000 };
        assert_eq!(floor.contradiction(later), None);
        let contradiction = floor.contradiction(at(START_MS)).unwrap();
        assert_eq!(contradiction.ms, START_MS + YEAR_MS);
        assert!(contradiction.advice(START_MS).contains("behind the Switch's"));
        let ahead = START_MS + 2 * YEAR_MS;
        assert!(told(floor.contradiction(at(ahead)), ahead).contains("ahead of the Switch's"));
        assert_eq!(floor.at(at(START_MS)), START_MS, "the Switch's clock moves no floor");
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
