//! The names of things on the wire, as types that can't be mixed up.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// Why bytes or text are not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} of {got}, wanted {wanted}")]
pub struct IdError {
    what: &'static str,
    got: String,
    wanted: &'static str,
}

/// Defines a newtype over an array of bytes with its conversions.
macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $length:literal, $what:literal, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $length]);

        impl $name {
            /// Returns the bytes as they are on the wire.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }

            /// Returns the bytes as a message's field holds them.
            #[must_use]
            pub fn to_vec(&self) -> Vec<u8> {
                self.0.to_vec()
            }
        }

        impl From<[u8; $length]> for $name {
            fn from(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }
        }

        impl From<$name> for [u8; $length] {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                let wrong = |_| IdError { what: $what, got: format!("{} bytes", bytes.len()), wanted: $wanted };
                bytes.try_into().map(Self).map_err(wrong)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

byte_id!(
    /// The 128 random bits made with a client's store; results and events are known by (device, outbox_id, sequence).
    ///
    /// Shown as 32 lower-case hex digits.
    OutboxId, 16, "an outbox_id", "16 bytes, or 32 hex digits"
);
byte_id!(
    /// An instruction's id: a UUIDv7, shown hyphenated. Its version digit is the order's matter, not this type's.
    InstructionId, 16, "an instruction's id", "16 bytes, or a UUID such as 018f4f9a-7a3c-7000-8000-000000000001"
);
byte_id!(
    /// A SHA-256, such as of an envelope. Shown as 64 lower-case hex digits.
    Digest, 32, "a SHA-256 digest", "32 bytes, or 64 hex digits"
);

impl fmt::Display for OutboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Display for InstructionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, rest @ ..] = &self.0;
        for (index, group) in
            [&[*a0, *a1, *a2, *a3][..], &[*b0, *b1], &[*c0, *c1], &[*d0, *d1], rest].iter().enumerate()
        {
            if index > 0 {
                f.write_str("-")?;
            }
            write_hex(f, group)?;
        }
        Ok(())
    }
}

impl FromStr for OutboxId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        parse_hex(text).map(Self).ok_or_else(|| wrong_text("an outbox_id", text, "32 hex digits"))
    }
}

impl FromStr for Digest {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        parse_hex(text).map(Self).ok_or_else(|| wrong_text("a SHA-256 digest", text, "64 hex digits"))
    }
}

impl FromStr for InstructionId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let hyphens_fit = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| (byte == b'-') == matches!(at, 8 | 13 | 18 | 23));
        let digits: String = text.chars().filter(|character| *character != '-').collect();
        parse_hex(&digits).filter(|_| hyphens_fit).map(Self).ok_or_else(|| {
            wrong_text("an instruction's id", text, "a UUID such as 018f4f9a-7a3c-7000-8000-000000000001")
        })
    }
}

impl InstructionId {
    /// Returns whether the bytes are a UUID of version 7 (RFC 9562 §5.7), as every order's id has to be.
    #[must_use]
    pub const fn is_version_7(&self) -> bool {
        self.0[6] >> 4 == 7 && self.0[8] >> 6 == 0b10
    }

    /// Returns when it was made, milliseconds since 1970 by its maker's clock (RFC 9562 §5.7).
    #[must_use]
    pub fn made_at_ms(&self) -> i64 {
        self.0[..6].iter().fold(0, |ms, byte| ms << 8 | i64::from(*byte))
    }
}

/// Tells a device's newer sessions from its older ones; given by the Switch, never used to know repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a result or event in its outbox, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(NonZeroU64);

impl Sequence {
    /// The first of an outbox.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// Returns the number.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0.get()
    }

    /// Returns the number after this one; `None` after the last of 2⁶⁴ − 1.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl TryFrom<u64> for Sequence {
    type Error = IdError;

    fn try_from(number: u64) -> Result<Self, IdError> {
        NonZeroU64::new(number).map(Self).ok_or_else(|| IdError {
            what: "a sequence",
            got: "0".to_owned(),
            wanted: "1 or more",
        })
    }
}

impl From<Sequence> for u64 {
    fn from(sequence: Sequence) -> Self {
        sequence.value()
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(bytes)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Quotes at most the first 80 characters, so that an error's length is bounded.
fn wrong_text(what: &'static str, text: &str, wanted: &'static str) -> IdError {
    IdError { what, got: format!("{:?}", text.chars().take(80).collect::<String>()), wanted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_is_shown_and_read_as_a_uuid() {
        let text = "018f4f9a-7a3c-7b01-9c2d-00112233aabb";

        let id: InstructionId = text.parse().unwrap();

        assert_eq!(id.to_string(), text);
        assert!(id.is_version_7());
        assert_eq!(id.made_at_ms(), 0x018f_4f9a_7a3c);
        assert_eq!(format!("{id:?}"), format!("InstructionId({text})"));
    }

    #[test]
    fn refuses_text_that_is_not_a_uuid() {
        for text in [
            "",
            "018f4f9a7a3c7b019c2d00112233aabb",
            "018f4f9a-7a3c-7b01-9c2d-00112233aabg",
            "018f4f9-a7a3c-7b01-9c2d-00112233aabb",
            "ü18f4f9a-7a3c-7b01-9c2d-00112233aab",
        ] {
            assert!(text.parse::<InstructionId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_digest_survives_its_text() {
        let digest = Digest::from([0xa5; 32]);

        assert_eq!(digest.to_string().parse(), Ok(digest));
    }

    #[test]
    fn says_what_it_got_and_what_it_wanted() {
        let error = OutboxId::try_from(&[1, 2, 3][..]).unwrap_err();

        assert_eq!(error.to_string(), "an outbox_id of 3 bytes, wanted 16 bytes, or 32 hex digits");
    }

    #[test]
    fn no_sequence_is_zero() {
        assert!(Sequence::try_from(0).is_err());
        assert_eq!(Sequence::FIRST.next().map(Sequence::value), Some(2));
        assert_eq!(Sequence::try_from(u64::MAX).unwrap().next(), None);
    }
}
