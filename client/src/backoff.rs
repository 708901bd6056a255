//! How long to wait before the next attempt: full jitter, capped. Pure: the randomness is a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Doublings after which the cap is reached in any case; keeps the shift in range.
const DOUBLINGS_MAX: u32 = 20;

/// The pauses between attempts.
///
/// Each is drawn evenly from nothing up to a bound that doubles with every attempt, up to the cap; so a fleet that lost
/// its Switch at once does not come back at once (promises.md, "Limits").
#[derive(Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempts: u32,
    random: StdRng,
}

impl Backoff {
    /// Makes pauses that start below `base` and never exceed `cap`.
    #[must_use]
    pub fn new(base: Duration, cap: Duration, seed: u64) -> Self {
        Self { base, cap, attempts: 0, random: StdRng::seed_from_u64(seed) }
    }

    /// Returns the next pause.
    pub fn next_pause(&mut self) -> Duration {
        let bound = self.bound();
        self.attempts = self.attempts.saturating_add(1);
        bound.mul_f64(self.random.random::<f64>())
    }

    /// Returns a pause that is at least what the peer asked for; behind it comes jitter as usual, so that those who were
    /// all told the same do not come back together.
    pub fn next_pause_after(&mut self, asked: Duration) -> Duration {
        asked.saturating_add(self.next_pause())
    }

    /// As [`Self::next_pause_after`], for one who may ask for no more than the cap.
    pub fn next_pause_after_some(&mut self, asked: Duration) -> Duration {
        self.next_pause_after(asked.min(self.cap))
    }

    /// Returns a pause of the whole cap and up to half of it again, for a peer that must not be pressed.
    pub fn long_pause(&mut self) -> Duration {
        self.cap + self.cap.mul_f64(self.random.random::<f64>() / 2.0)
    }

    /// Starts over, after an attempt that went well.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    fn bound(&self) -> Duration {
        self.base.saturating_mul(1_u32 << self.attempts.min(DOUBLINGS_MAX)).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: Duration = Duration::from_secs(1);
    const CAP: Duration = Duration::from_secs(60);

    proptest! {
        #[test]
        fn every_pause_is_below_its_doubling_bound_and_the_cap(seed: u64) {
            let mut backoff = Backoff::new(BASE, CAP, seed);
            for attempt in 0..40_u32 {
                let bound = BASE.saturating_mul(1 << attempt.min(20)).min(CAP);
                prop_assert!(backoff.next_pause() <= bound);
            }
        }

        #[test]
        fn a_pause_that_was_asked_for_is_kept(seed: u64, asked_ms in 0_u64..3_600_000) {
            let asked = Duration::from_millis(asked_ms);
            let mut backoff = Backoff::new(BASE, CAP, seed);
            for _ in 0..10 {
                let pause = backoff.next_pause_after(asked);
                prop_assert!(pause >= asked && pause <= asked + CAP);
            }
        }
    }

    #[test]
    fn the_jitter_is_full() {
        // Ten equal parts of the capped range: a thousand draws leave none empty and none with a fifth of them.
        let mut backoff = Backoff::new(CAP, CAP, 7);
        let mut parts = [0_u32; 10];
        for _ in 0..1_000 {
            let part = backoff.next_pause().as_millis() * 10 / (CAP.as_millis() + 1);
            parts[usize::try_from(part).unwrap()] += 1;
        }

        assert!(parts.iter().all(|count| (50..200).contains(count)), "{parts:?}");
    }

    #[test]
    fn a_reset_starts_over() {
        let mut backoff = Backoff::new(BASE, CAP, 1);
        for _ in 0..10 {
            backoff.next_pause();
        }

        backoff.reset();

        assert!(backoff.next_pause() <= BASE);
    }

    #[test]
    fn the_same_seed_gives_the_same_pauses() {
        let mut one = Backoff::new(BASE, CAP, 42);
        let mut other = Backoff::new(BASE, CAP, 42);

        for _ in 0..10 {
            assert_eq!(one.next_pause(), other.next_pause());
        }
    }
}
