//! [`Steady`]: the wall clock held against the time that has passed, without reading either.

use std::time::Duration;

use super::ClockLimits;

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock, milliseconds since 1970, UTC.
    pub wall_ms: i64,
    /// Time that has passed since some moment; it never jumps and never goes back.
    pub passed: Duration,
}

/// Something to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The wall clock jumped by more than `jump_max` and is not followed.
    Held { wall_ms: i64 },
    /// It is back where it ought to be.
    Agreed,
    /// It was ahead for as long as `settle`, and is believed.
    TakenOver { ahead_ms: i64 },
}

/// What is believed of the time of day.
///
/// A wall clock that moves with the time that passes, give or take `jump_max`, is believed as it is. One that jumps is
/// not followed: the time goes on as it passes. If the clock comes back, all was well; if it stays ahead, and moves
/// steadily, it is believed after `settle`. A clock that was set back is never followed, since time goes forward: only a
/// new process begins with it.
#[derive(Debug)]
pub(super) struct Steady {
    limits: ClockLimits,
    /// When the first reading was taken.
    began: Duration,
    /// The last moment that was believed of the wall clock.
    anchor: Reading,
    /// What was said last.
    last_ms: i64,
    doubt: Option<Doubt>,
}

/// A wall clock that is not believed.
#[derive(Debug)]
struct Doubt {
    /// Since when it moves steadily, though elsewhere.
    since: Duration,
    latest: Reading,
    off_ms: i64,
}

impl Steady {
    /// Believes the first reading: there is nothing to hold it against.
    pub(super) fn new(limits: ClockLimits, first: Reading) -> Self {
        Self { limits, began: first.passed, anchor: first, last_ms: first.wall_ms, doubt: None }
    }

    /// Takes a reading; returns the time to go by, and what is to be told.
    pub(super) fn handle_reading(&mut self, reading: Reading) -> (i64, Option<Change>) {
        let expected_ms = after(self.anchor, reading.passed);
        let off_ms = reading.wall_ms.saturating_sub(expected_ms);
        let change = if self.is_small(off_ms) {
            self.believe(reading);
            self.doubt.take().map(|_| Change::Agreed)
        } else {
            self.doubt_it(reading, off_ms)
        };
        let now_ms = if self.doubt.is_some() { expected_ms } else { reading.wall_ms };
        self.last_ms = self.last_ms.max(now_ms);
        (self.last_ms, change)
    }

    /// Returns how far the wall clock is ahead (or behind), if it is not believed.
    pub(super) fn off_ms(&self) -> Option<i64> {
        self.doubt.as_ref().map(|doubt| doubt.off_ms)
    }

    /// Returns whether nothing speaks against the time, as of the last reading: the wall clock is believed, and the first reading, which
    /// could be held against nothing, was taken `settle` ago. A clock that was wrong at the start is mostly set right before that.
    pub(super) fn is_settled(&self, passed: Duration) -> bool {
        self.doubt.is_none() && passed.saturating_sub(self.began) >= self.limits.settle
    }

    /// A clock that is a little behind makes the time stand still until it has caught up.
    fn believe(&mut self, reading: Reading) {
        self.anchor = Reading { wall_ms: reading.wall_ms.max(self.last_ms), ..reading };
    }

    fn doubt_it(&mut self, reading: Reading, off_ms: i64) -> Option<Change> {
        let steady_since = self.doubt.as_ref().and_then(|doubt| {
            let expected_ms = after(doubt.latest, reading.passed);
            self.is_small(reading.wall_ms.saturating_sub(expected_ms)).then_some(doubt.since)
        });
        let since = steady_since.unwrap_or(reading.passed);
        if off_ms > 0 && reading.passed.saturating_sub(since) >= self.limits.settle {
            self.believe(reading);
            self.doubt = None;
            return Some(Change::TakenOver { ahead_ms: off_ms });
        }
        let is_new = self.doubt.is_none();
        self.doubt = Some(Doubt { since, latest: reading, off_ms });
        is_new.then_some(Change::Held { wall_ms: reading.wall_ms })
    }

    fn is_small(&self, off_ms: i64) -> bool {
        u128::from(off_ms.unsigned_abs()) <= self.limits.jump_max.as_millis()
    }
}

/// Returns what the wall clock ought to show when so much time has passed.
fn after(reading: Reading, passed: Duration) -> i64 {
    let since = passed.saturating_sub(reading.passed).as_millis();
    reading.wall_ms.saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ClockLimits =
        ClockLimits { jump_max: Duration::from_secs(30), settle: Duration::from_secs(600) };

    const DAY: i64 = 86_400;

    /// Readings as (passed, wall clock, what is to be believed, what is told), in seconds after the first.
    type Course = Vec<(u64, i64, i64, Option<Change>)>;

    #[expect(clippy::unnecessary_wraps, reason = "it stands in a column of options")]
    fn held(wall_s: i64) -> Option<Change> {
        Some(Change::Held { wall_ms: at(wall_s) })
    }

    fn at(seconds: i64) -> i64 {
        1_800_000_000_000 + seconds * 1_000
    }

    #[test]
    fn the_time_goes_on_whatever_the_wall_clock_does() {
        let agreed = Some(Change::Agreed);
        let taken_over = |ahead_s: i64| Some(Change::TakenOver { ahead_ms: ahead_s * 1_000 });
        let courses: Vec<(&str, Course)> = vec![
            ("a clock that goes as it should", vec![(1, 1, 1, None), (3600, 3600, 3600, None)]),
            ("steps within the bound are followed", vec![(1, 31, 31, None), (2, 62, 62, None)]),
            (
                "a small step back makes the time stand still",
                vec![(10, 10, 10, None), (11, -9, 10, None), (25, 5, 10, None), (31, 11, 11, None)],
            ),
            (
                "two days ahead for a second",
                vec![
                    (1, 1, 1, None),
                    (2, 2 * DAY, 2, held(2 * DAY)),
                    (3, 2 * DAY + 1, 3, None),
                    (4, 4, 4, agreed),
                    (5, 5, 5, None),
                ],
            ),
            (
                "ahead for good is believed after the time to settle",
                vec![
                    (1, DAY, 1, held(DAY)),
                    (600, DAY + 599, 600, None),
                    (601, DAY + 600, DAY + 600, taken_over(DAY - 1)),
                    (602, DAY + 601, DAY + 601, None),
                ],
            ),
            (
                "a clock that jumps again has to settle again",
                vec![
                    (1, DAY, 1, held(DAY)),
                    (590, 3 * DAY, 590, None),
                    (602, 3 * DAY + 12, 602, None),
                    (1190, 3 * DAY + 600, 3 * DAY + 600, taken_over(3 * DAY + 600 - 1190)),
                ],
            ),
            ("two days back, and right again", vec![(1, -2 * DAY, 1, held(-2 * DAY)), (5, 5, 5, agreed)]),
            (
                "a clock set back is never followed",
                vec![(1, -2 * DAY, 1, held(-2 * DAY)), (10_000, -2 * DAY + 9_999, 10_000, None)],
            ),
            (
                "back after it was believed, the time does not go back",
                vec![
                    (1, DAY, 1, held(DAY)),
                    (601, DAY + 600, DAY + 600, taken_over(DAY - 1)),
                    (602, 602, DAY + 601, held(602)),
                    (603, DAY + 602, DAY + 602, agreed),
                ],
            ),
        ];
        for (name, course) in courses {
            let first = Reading { wall_ms: at(0), passed: Duration::from_secs(1_000) };
            let mut steady = Steady::new(LIMITS, first);
            for (passed, wall, believed, told) in course {
                let reading = Reading { wall_ms: at(wall), passed: Duration::from_secs(1_000 + passed) };

                let got = steady.handle_reading(reading);

                assert_eq!(got, (at(believed), told), "{name}, after {passed} s");
            }
        }
    }

    #[test]
    fn the_first_reading_settles_and_whatever_is_doubted_has_not() {
        let first = Reading { wall_ms: at(0), passed: Duration::from_secs(1_000) };
        /// The passed time and the wall clock of readings one after the other.
        type Readings = &'static [(u64, i64)];
        // With whether the last of them leaves a settled time.
        let courses: [(&str, Readings, bool); 8] = [
            ("at the start", &[(0, 0)], false),
            ("just before its time", &[(599, 599)], false),
            ("when it has stood", &[(600, 600)], true),
            (
                "wrong at the start and set back in time",
                &[(100, 100 - 40 * DAY), (10_000, 10_000 - 40 * DAY)],
                false,
            ),
            ("set back later", &[(600, 600), (601, -DAY)], false),
            ("jumped ahead", &[(600, 600), (601, DAY)], false),
            ("back from a jump", &[(600, 600), (601, DAY), (602, 602)], true),
            ("ahead for good", &[(1, DAY), (601, DAY + 600)], true),
        ];
        for (name, readings, wanted) in courses {
            let mut steady = Steady::new(LIMITS, first);
            let mut last = first.passed;
            for (passed, wall) in readings {
                last = Duration::from_secs(1_000 + passed);
                steady.handle_reading(Reading { wall_ms: at(*wall), passed: last });
            }

            assert_eq!(steady.is_settled(last), wanted, "{name}");
        }
    }

    #[test]
    fn a_clock_that_is_held_back_says_how_far_it_is_off() {
        let mut steady = Steady::new(LIMITS, Reading { wall_ms: at(0), passed: Duration::ZERO });

        steady.handle_reading(Reading { wall_ms: at(DAY), passed: Duration::ZERO });
        assert_eq!(steady.off_ms(), Some(DAY * 1_000));
        steady.handle_reading(Reading { wall_ms: at(1), passed: Duration::from_secs(1) });

        assert_eq!(steady.off_ms(), None);
    }
}
