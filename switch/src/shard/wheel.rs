//! [`Wheel`]: the next deadline of every session of a shard, in a few bytes each and without a timer each.
//!
//! A session stands in the bucket of its next deadline. One that moves away, as most do with every byte of the client, is not moved: when its
//! bucket is due the session is asked again. One that comes closer is put in once more, and what stands further away is then ignored.

use std::time::{Duration, Instant};

/// How exact deadlines are, and how often [`Wheel::handle_timeout`] should be called: far below the shortest that an operator would set, far above what a look at a bucket costs.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Buckets, a power of two: together 204 s, more than the default of every deadline. What is further away is asked once on its way.
const BUCKETS: u32 = 2048;

/// A moment, in ticks since the wheel began: 13 years of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(u32);

impl Tick {
    /// Later than any deadline.
    pub(super) const NEVER: Self = Self(u32::MAX);
}

/// Deadlines by slot.
#[derive(Debug)]
pub(super) struct Wheel {
    began: Instant,
    /// The next tick that is not over.
    next: u32,
    buckets: Vec<Vec<u32>>,
    entries: usize,
}

impl Wheel {
    /// Makes an empty one.
    pub(super) fn new(now: Instant) -> Self {
        let buckets = (0..BUCKETS).map(|_| Vec::new()).collect();
        Self { began: now, next: 0, buckets, entries: 0 }
    }

    /// Puts a slot in, to be due at its deadline or up to a tick later, or earlier if that is far away. Returns when; a slot whose entry is
    /// `scheduled` already stands where it is if that is no later.
    pub(super) fn schedule(&mut self, slot: u32, deadline: Instant, scheduled: Tick) -> Tick {
        let since = deadline.saturating_duration_since(self.began);
        let exact = since.as_millis().div_ceil(TICK.as_millis());
        let exact = u32::try_from(exact).unwrap_or(u32::MAX - 1);
        let tick = exact.clamp(self.next, self.next.saturating_add(BUCKETS - 1));
        if scheduled <= Tick(tick) {
            return scheduled;
        }
        self.bucket(tick).push(slot);
        self.entries += 1;
        Tick(tick)
    }

    /// Appends what is due to `due`, with the tick at which it was.
    pub(super) fn handle_timeout(&mut self, now: Instant, due: &mut Vec<(u32, Tick)>) {
        let over = now.saturating_duration_since(self.began).as_millis() / TICK.as_millis();
        let over = u32::try_from(over).unwrap_or(u32::MAX - 1);
        // Whoever did not look for a whole turn finds every bucket once.
        let first = self.next.max(over.saturating_sub(BUCKETS - 1));
        let skipped = first - self.next;
        for tick in self.next..self.next.saturating_add(skipped.min(BUCKETS)) {
            self.empty(tick, due);
        }
        for tick in first..=over {
            self.empty(tick, due);
        }
        self.next = self.next.max(over.saturating_add(1));
    }

    fn empty(&mut self, tick: u32, due: &mut Vec<(u32, Tick)>) {
        // A bucket keeps no room: what stood in it spreads over others.
        let slots = std::mem::take(self.bucket(tick));
        self.entries -= slots.len();
        due.extend(slots.into_iter().map(|slot| (slot, Tick(tick))));
    }

    #[expect(clippy::indexing_slicing, reason = "a place is below the number of buckets")]
    fn bucket(&mut self, tick: u32) -> &mut Vec<u32> {
        &mut self.buckets[place(tick)]
    }
}

/// The bucket of a tick.
fn place(tick: u32) -> usize {
    usize::try_from(tick % BUCKETS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn due(wheel: &mut Wheel, now: Instant) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.handle_timeout(now, &mut due);
        due.into_iter().map(|(slot, _)| slot).collect()
    }

    #[test]
    fn a_slot_is_due_at_its_deadline_and_never_before() {
        let began = Instant::now();
        let mut wheel = Wheel::new(began);
        wheel.schedule(7, began + 60 * SECOND, Tick::NEVER);
        wheel.schedule(8, began + 3 * SECOND / 2, Tick::NEVER);

        assert!(due(&mut wheel, began + SECOND).is_empty());
        assert_eq!(due(&mut wheel, began + 2 * SECOND), [8]);
        assert!(due(&mut wheel, began + 59 * SECOND).is_empty());
        assert_eq!(due(&mut wheel, began + 60 * SECOND), [7]);
        assert_eq!(wheel.entries, 0);
    }

    #[test]
    fn a_deadline_that_comes_closer_is_kept_and_one_that_moves_away_costs_nothing() {
        let began = Instant::now();
        let mut wheel = Wheel::new(began);
        let far = wheel.schedule(7, began + 60 * SECOND, Tick::NEVER);

        assert_eq!(wheel.schedule(7, began + 90 * SECOND, far), far);
        assert_eq!(wheel.entries, 1);
        let near = wheel.schedule(7, began + 2 * SECOND, far);

        assert!(near < far);
        assert_eq!(due(&mut wheel, began + 2 * SECOND), [7]);
    }

    #[test]
    fn a_deadline_beyond_the_wheel_is_asked_for_before() {
        let began = Instant::now();
        let mut wheel = Wheel::new(began);
        wheel.schedule(7, began + 86_400 * SECOND, Tick::NEVER);

        assert_eq!(due(&mut wheel, began + 205 * SECOND), [7]);
    }

    #[test]
    fn what_is_over_already_is_due_at_once() {
        let began = Instant::now();
        let mut wheel = Wheel::new(began);
        assert!(due(&mut wheel, began + 500 * SECOND).is_empty());

        wheel.schedule(7, began + SECOND, Tick::NEVER);

        assert_eq!(due(&mut wheel, began + 501 * SECOND), [7]);
    }

    proptest! {
        #[test]
        fn every_slot_is_due_once_within_a_tick_of_its_deadline(
            deadlines in prop::collection::vec(0_u64..200_000, 0..200),
            looks in prop::collection::vec(1_u64..400_000, 1..20),
        ) {
            let began = Instant::now();
            let mut wheel = Wheel::new(began);
            let mut left = BTreeMap::new();
            for (slot, deadline) in (0_u32..).zip(&deadlines) {
                wheel.schedule(slot, began + Duration::from_millis(*deadline), Tick::NEVER);
                left.insert(slot, *deadline);
            }
            let mut now = 0;
            for look in looks {
                now += look;
                for slot in due(&mut wheel, began + Duration::from_millis(now)) {
                    let deadline = left.remove(&slot);
                    prop_assert!(deadline.is_some_and(|deadline| deadline <= now));
                }
                prop_assert!(left.values().all(|deadline| deadline + 100 > now));
                prop_assert_eq!(wheel.entries, left.len());
            }
        }
    }
}
