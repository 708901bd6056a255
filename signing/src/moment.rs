//! Moments, as errors and reports show them to people.

use crate::definition::datetime;

/// Returns Unix seconds as RFC 3339 in UTC; beyond the year 9999, as the number that it is.
#[must_use]
pub fn shown(seconds: u64) -> String {
    let moment = i64::try_from(seconds).ok().and_then(datetime::from_unix_seconds);
    moment.map_or_else(|| format!("{seconds} (Unix seconds)"), |moment| moment.to_string())
}

/// Reads a moment: `2026-01-31` (its midnight), `2026-01-31T12:00:00Z` (or another offset), or Unix seconds; `None`: it is none, or is before
/// 1970.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    datetime::parse(text).and_then(|seconds| u64::try_from(seconds).ok())
}

#[cfg(test)]
mod tests {
    use super::{parse, shown};

    #[test]
    fn a_moment_is_shown_as_people_read_it_and_what_no_calendar_has_as_a_number() {
        assert_eq!(shown(0), "1970-01-01T00:00:00Z");
        assert_eq!(shown(1_800_000_000), "2027-01-15T08:00:00Z");
        assert_eq!(shown(u64::MAX), "18446744073709551615 (Unix seconds)");
    }

    #[test]
    fn what_is_shown_is_read_again_and_nothing_before_1970() {
        for moment in ["2027-01-15T08:00:00Z", "2027-01-15T10:00:00+02:00", "1800000000"] {
            assert_eq!(parse(moment), Some(1_800_000_000), "{moment}");
        }
        for none in ["", "-1", "1969-12-31T23:59:59Z", "soon"] {
            assert_eq!(parse(none), None, "{none}");
        }
    }
}
