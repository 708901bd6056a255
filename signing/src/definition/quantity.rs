//! Durations and sizes as people write them: `10s`, `1h`, `256 KiB`.

use std::time::Duration;

const SECONDS: [(&str, u64); 5] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800)];
const BYTES: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Reads `90s`, `10m`, `1h`, `7d` or `2w`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    number(text, &SECONDS).map(Duration::from_secs)
}

/// Reads `512 B`, `256 KiB`, `1 MiB` or `2 GiB`, with or without the space.
pub(super) fn bytes(text: &str) -> Option<u64> {
    number(text, &BYTES)
}

fn number(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write_and_nothing_else() {
        assert_eq!(duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(duration("7d"), Some(Duration::from_secs(604_800)));
        assert_eq!(bytes("256 KiB"), Some(262_144));
        assert_eq!(bytes("1MiB"), Some(1_048_576));
        for text in ["", "10", "s", "-1s", "1 s s", "1.5h", "99999999999999999999s", "18446744073709551615w"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(bytes("1 KB"), None);
    }
}
