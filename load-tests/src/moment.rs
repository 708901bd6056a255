//! Moments that processes of one machine agree on: nanoseconds of `CLOCK_MONOTONIC`.

use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of the machine's monotonic clock, the same in every process.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Moment(u64);

impl Moment {
    /// The present one.
    #[must_use]
    pub fn now() -> Self {
        // The clock of a running machine can always be read.
        Self(read(ClockId::CLOCK_MONOTONIC).unwrap_or_default())
    }

    /// The time since an earlier moment; nothing since a later one.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment so much later.
    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Nanoseconds of any clock.
pub(crate) fn read(clock: ClockId) -> nix::Result<u64> {
    let time: TimeSpec = clock_gettime(clock)?;
    let whole = u64::try_from(time.tv_sec()).unwrap_or_default() * 1_000_000_000;
    Ok(whole + u64::try_from(time.tv_nsec()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_go_on_and_their_distance_is_never_negative() {
        let first = Moment::now();
        let later = first.plus(Duration::from_millis(3));

        assert!(Moment::now() >= first);
        assert_eq!(later.since(first), Duration::from_millis(3));
        assert_eq!(first.since(later), Duration::ZERO);
    }
}
