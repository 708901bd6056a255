//! Moments as people write them (RFC 3339), in Unix seconds.

use toml::value::{Datetime, Offset};

/// Reads `2026-01-31`, `2026-01-31T12:00:00Z` (or another offset), or Unix seconds.
pub(crate) fn parse(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().or_else(|| unix_seconds(&text.parse().ok()?))
}

/// Returns the Unix seconds of a date (its midnight) or a moment, UTC where no offset is given.
pub(crate) fn unix_seconds(moment: &Datetime) -> Option<i64> {
    let date = moment.date?;
    let time = moment.time.map_or(0, |time| {
        i64::from(time.hour) * 3_600 + i64::from(time.minute) * 60 + time.second.map_or(0, i64::from)
    });
    let offset_minutes = match moment.offset {
        Some(Offset::Custom { minutes }) => i64::from(minutes),
        Some(Offset::Z) | None => 0,
    };
    let days = days_since_1970(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    Some(days * 86_400 + time - offset_minutes * 60)
}

/// Returns the moment of Unix seconds, UTC; `None` outside the years 0 to 9999.
pub(crate) fn from_unix_seconds(seconds: i64) -> Option<Datetime> {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The years of a 400-year era begin with March, so that the leap day is its last one.
    let shifted = days.checked_add(DAYS_TO_1970)?;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    if !(0..=9_999).contains(&year) {
        return None;
    }
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
        .parse()
        .ok()
}

/// Days from 1 March of year 0 to 1 January 1970.
const DAYS_TO_1970: i64 = 719_468;

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - DAYS_TO_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_dates_moments_and_seconds() {
        assert_eq!(parse("1970-01-01"), Some(0));
        assert_eq!(parse("2000-02-29T00:00:00Z"), Some(951_782_400));
        assert_eq!(parse("2026-01-31T12:00:00+01:00"), Some(1_769_857_200));
        assert_eq!(parse("951782400"), Some(951_782_400));
        assert_eq!(parse("tomorrow"), None);
        assert_eq!(parse("12:00:00"), None);
    }

    #[test]
    fn writes_what_it_reads_for_every_day_of_800_years() {
        for day in -146_097..146_097 {
            let seconds = day * 86_400 + 3_723;

            assert_eq!(unix_seconds(&from_unix_seconds(seconds).unwrap()), Some(seconds));
        }
        assert_eq!(from_unix_seconds(i64::MAX), None);
    }
}
