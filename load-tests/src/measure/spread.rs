//! A figure of several rounds: the median, the minimum and the maximum.

use serde::Serialize;

/// A figure that was measured in several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The one in the middle; of an even number the lower of two.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
    /// How many rounds.
    pub rounds: usize,
}

impl Spread {
    /// Sums up; `None` without a round.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let median = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
        Some(Self { median, min: *sorted.first()?, max: *sorted.last()?, rounds: sorted.len() })
    }

    /// By how much the highest differs from the lowest, as a share of the lowest.
    #[must_use]
    pub fn width(&self) -> f64 {
        (self.max - self.min) / self.min.max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_summed_up_by_the_one_in_the_middle() {
        let spread = Spread::of(&[5.0, 1.0, 3.0]).unwrap();

        assert_eq!(spread, Spread { median: 3.0, min: 1.0, max: 5.0, rounds: 3 });
        assert!((spread.width() - 4.0).abs() < 1e-9);
        assert_eq!(Spread::of(&[]), None);
    }
}
