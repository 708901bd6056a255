//! Durations and byte counts as people write them, read and printed.
//!
//! ```toml
//! ping_interval = "1m"
//! frame_bytes_max = "1MiB"
//! ```
//! Use as `#[serde(with = "muster_service::config::human::duration")]` (or `bytes`).

/// A `Duration` as text such as `10s`, `1m 30s`, `24h`; a bare number is refused, for it has no unit.
pub mod duration {
    use std::time::Duration;

    use serde::de::{Unexpected, Visitor};
    use serde::{Deserializer, Serializer};

    /// Writes `1m 30s`.
    ///
    /// # Errors
    /// Returns the serializer's error.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(*value))
    }

    /// Reads `1m 30s`.
    ///
    /// # Errors
    /// Returns the deserializer's error, with what was wanted.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_str(Reader)
    }

    /// Returns `value` as [`parse`] reads it.
    #[must_use]
    pub fn format(value: Duration) -> String {
        humantime::format_duration(value).to_string()
    }

    /// Parses `10s`, `1m 30s`, `24h`.
    ///
    /// # Errors
    /// Returns what is wrong with the text.
    pub fn parse(text: &str) -> Result<Duration, String> {
        humantime::parse_duration(text.trim()).map_err(|error| error.to_string())
    }

    struct Reader;

    impl Visitor<'_> for Reader {
        type Value = Duration;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a duration with its unit, such as \"10s\" or \"1m 30s\"")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Duration, E> {
            parse(text).map_err(|_reason| E::invalid_value(Unexpected::Str(text), &self))
        }

        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Duration, E> {
            Err(E::invalid_value(Unexpected::Signed(number), &self))
        }
    }
}

/// An unsigned integer as a byte count: `64 MiB`, `768KiB`, `10 MB`, or a bare number of bytes.
pub mod bytes {
    use serde::de::{Unexpected, Visitor};
    use serde::{Deserializer, Serializer};

    /// Writes `64 MiB`, with the largest unit that divides the number.
    ///
    /// # Errors
    /// Returns the serializer's error.
    pub fn serialize<T, S>(value: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: Copy + TryInto<u64>,
        S: Serializer,
    {
        let bytes = (*value).try_into().unwrap_or(u64::MAX);
        serializer.serialize_str(&format(bytes))
    }

    /// Reads `64 MiB` or a bare number.
    ///
    /// # Errors
    /// Returns the deserializer's error, with what was wanted, or that the field cannot hold as much.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: TryFrom<u64>,
        D: Deserializer<'de>,
    {
        use serde::de::Error as _;
        let bytes = deserializer.deserialize_any(Reader)?;
        T::try_from(bytes).map_err(|_out_of_range| {
            D::Error::invalid_value(Unexpected::Unsigned(bytes), &"a byte count in this key's range")
        })
    }

    /// Returns `bytes` with the largest binary unit that divides it.
    #[must_use]
    pub fn format(bytes: u64) -> String {
        let (unit, name) = BINARY_UNITS
            .into_iter()
            .find(|(unit, _name)| bytes != 0 && bytes.is_multiple_of(*unit))
            .unwrap_or((1, "B"));
        format!("{} {name}", bytes / unit)
    }

    /// Returns a least value: `bytes`, or the whole KiB above it where it is none, since people write those.
    #[must_use]
    pub fn format_up(bytes: u64) -> String {
        const KIB: u64 = 1 << 10;
        format(if bytes < KIB { bytes } else { bytes.checked_next_multiple_of(KIB).unwrap_or(bytes) })
    }

    /// Parses `64 MiB`, `768KiB`, `10 MB`, `512 B` or `512`.
    ///
    /// # Errors
    /// Returns what is wrong with the text.
    pub fn parse(text: &str) -> Result<u64, String> {
        let text = text.trim();
        let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|error| format!("`{number}`: {error}"))?;
        let unit = unit.trim();
        let factor = BINARY_UNITS
            .into_iter()
            .chain(DECIMAL_UNITS)
            .find_map(|(factor, name)| name.eq_ignore_ascii_case(unit).then_some(factor))
            .or_else(|| unit.is_empty().then_some(1))
            .ok_or_else(|| {
                format!("unknown unit `{unit}`; wanted B, KiB, MiB, GiB, TiB, KB, MB, GB or TB")
            })?;
        number.checked_mul(factor).ok_or_else(|| format!("`{text}` is more than 2^64 bytes"))
    }

    /// Largest first, so that `format` finds the shortest text.
    const BINARY_UNITS: [(u64, &str); 4] =
        [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    const DECIMAL_UNITS: [(u64, &str); 5] =
        [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "KB"), (1, "B")];

    struct Reader;

    impl Visitor<'_> for Reader {
        type Value = u64;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a byte count such as \"64 MiB\"")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u64, E> {
            parse(text).map_err(|_reason| E::invalid_value(Unexpected::Str(text), &self))
        }

        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }

        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<u64, E> {
            u64::try_from(number).map_err(|_negative| E::invalid_value(Unexpected::Signed(number), &self))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{bytes, duration};

    #[test]
    fn byte_counts_print_as_they_are_read() {
        for (number, text) in
            [(0, "0 B"), (512, "512 B"), (786_432, "768 KiB"), (1 << 20, "1 MiB"), (3 << 40, "3 TiB")]
        {
            assert_eq!(bytes::format(number), text);
            assert_eq!(bytes::parse(text), Ok(number));
        }
    }

    #[test]
    fn a_least_byte_count_is_one_that_people_write_and_never_less() {
        for (least, text) in
            [(512, "512 B"), (4_096, "4 KiB"), (786_437, "769 KiB"), (u64::MAX, "18446744073709551615 B")]
        {
            assert_eq!(bytes::format_up(least), text);
            assert!(bytes::parse(text).unwrap() >= least);
        }
    }

    #[test]
    fn byte_counts_take_decimal_units_and_none() {
        assert_eq!(bytes::parse("10MB"), Ok(10_000_000));
        assert_eq!(bytes::parse("4096"), Ok(4_096));
        assert_eq!(bytes::parse(" 64 mib "), Ok(64 << 20));
    }

    #[test]
    fn byte_counts_refuse_what_has_no_meaning() {
        for text in ["", "MiB", "-1", "1.5 MiB", "10 parsecs", "99999999999 TiB"] {
            assert!(bytes::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_print_as_they_are_read() {
        for seconds in [0, 10, 90, 86_400] {
            let value = Duration::from_secs(seconds);
            assert_eq!(duration::parse(&duration::format(value)), Ok(value));
        }
    }
}
