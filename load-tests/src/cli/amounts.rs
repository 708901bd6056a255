//! Amounts as people type them: shares and rates.

/// `1%`, `0.01 %` or `0.0001`: a share from 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let (number, divisor) = match text.trim().strip_suffix('%') {
        Some(percent) => (percent.trim(), 100.0),
        None => (text.trim(), 1.0),
    };
    let share = number.parse::<f64>().map(|number| number / divisor);
    share
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| format!("`{text}` is no share; wanted 0% to 100%, such as 1%"))
}

/// `15%` or `1000%`: how much two figures may differ.
pub(super) fn tolerance(text: &str) -> Result<f64, String> {
    let percent = text.trim().trim_end_matches('%').trim().parse::<f64>();
    percent
        .ok()
        .filter(|percent| percent.is_finite() && *percent >= 0.0)
        .map(|percent| percent / 100.0)
        .ok_or_else(|| format!("`{text}` is no tolerance; wanted percent, such as 15%"))
}

/// `1KiB/s`, `64 KiB/s`, `1MiB/s` or `500B/s`: bytes a second.
pub(super) fn rate(text: &str) -> Result<u64, String> {
    let wanted = || format!("`{text}` is no rate; wanted bytes a second, such as 1KiB/s");
    let amount = text.trim().strip_suffix("/s").ok_or_else(wanted)?.trim();
    let units = [("KiB", 1_u64 << 10), ("MiB", 1 << 20), ("B", 1)];
    let found = units.iter().find_map(|(unit, bytes)| Some((amount.strip_suffix(unit)?, bytes)));
    let (number, bytes) = found.ok_or_else(wanted)?;
    let number: u64 = number.trim().parse().map_err(|_| wanted())?;
    // A rate of a gibibyte is as good as none.
    number.checked_mul(*bytes).filter(|rate| (1..=1 << 30).contains(rate)).ok_or_else(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_rates_are_read_as_people_type_them() {
        assert_eq!(share("1%"), Ok(0.01));
        assert_eq!(share("0.25"), Ok(0.25));
        assert_eq!(rate("1KiB/s"), Ok(1_024));
        assert_eq!(rate("500 B/s"), Ok(500));
        assert_eq!(tolerance("15%"), Ok(0.15));
        for bad in ["101%", "-1%", "x", "", "NaN"] {
            assert!(share(bad).is_err(), "{bad}");
        }
        for bad in ["1KiB", "0B/s", "-1B/s", "1GiB/s", "99999999999MiB/s"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        assert!(tolerance("-1%").is_err() && tolerance("inf").is_err());
    }
}
