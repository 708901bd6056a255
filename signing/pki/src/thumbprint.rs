//! [`Thumbprint`]: the SHA-256 of a certificate. [`AnyThumbprint`]: SHA-256 or SHA-1, as people paste it.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

/// SHA-256 over a certificate's DER; shown as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Thumbprint([u8; 32]);

impl Thumbprint {
    /// Computes the thumbprint of `der`.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(digest::digest(&digest::SHA256, der).as_ref()) {
            *to = *from;
        }
        Self(bytes)
    }

    /// Wraps the 32 bytes of a SHA-256 hash.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Thumbprint {
    type Err = ThumbprintError;

    /// Reads 64 hex digits, without regard to case, spaces, colons and U+200E (N5), which Windows' certificate dialogue
    /// puts in front.
    fn from_str(text: &str) -> Result<Self, ThumbprintError> {
        let digits = digits(text);
        if digits.len() == 40 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ThumbprintError::Sha1);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(&digits, &mut bytes).map_err(|_| ThumbprintError::Digits(digits.len()))?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thumbprint({self})")
    }
}

impl TryFrom<String> for Thumbprint {
    type Error = ThumbprintError;

    fn try_from(text: String) -> Result<Self, ThumbprintError> {
        text.parse()
    }
}

impl From<Thumbprint> for String {
    fn from(thumbprint: Thumbprint) -> Self {
        thumbprint.to_string()
    }
}

/// A thumbprint that names one certificate among those at hand: SHA-256, or SHA-1 as Windows' dialogue shows it.
///
/// For look-ups only (DESIGN.md, "Contracts"): it picks from certificates that were judged otherwise, it never makes
/// one trusted. Read without regard to case, spaces, colons and U+200E (N5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AnyThumbprint {
    /// 64 hex digits.
    Sha256(Thumbprint),
    /// 40 hex digits.
    Sha1([u8; 20]),
}

impl AnyThumbprint {
    /// Returns whether this is the thumbprint of the certificate with the bytes `der`.
    #[must_use]
    pub fn is_of(&self, der: &[u8]) -> bool {
        match self {
            Self::Sha256(thumbprint) => *thumbprint == Thumbprint::of(der),
            Self::Sha1(bytes) => {
                digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der).as_ref() == bytes.as_slice()
            }
        }
    }
}

impl FromStr for AnyThumbprint {
    type Err = ThumbprintError;

    fn from_str(text: &str) -> Result<Self, ThumbprintError> {
        let digits = digits(text);
        let mut sha1 = [0; 20];
        if hex::decode_to_slice(&digits, &mut sha1).is_ok() {
            return Ok(Self::Sha1(sha1));
        }
        let sha256 = digits.parse().map_err(|_| ThumbprintError::Neither(digits.len()))?;
        Ok(Self::Sha256(sha256))
    }
}

impl fmt::Display for AnyThumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(thumbprint) => thumbprint.fmt(f),
            Self::Sha1(bytes) => f.write_str(&hex::encode(bytes)),
        }
    }
}

impl From<Thumbprint> for AnyThumbprint {
    fn from(thumbprint: Thumbprint) -> Self {
        Self::Sha256(thumbprint)
    }
}

impl TryFrom<String> for AnyThumbprint {
    type Error = ThumbprintError;

    fn try_from(text: String) -> Result<Self, ThumbprintError> {
        text.parse()
    }
}

impl From<AnyThumbprint> for String {
    fn from(thumbprint: AnyThumbprint) -> Self {
        thumbprint.to_string()
    }
}

/// Leaves out what N5 disregards; one character more than the longest thumbprint has is enough to refuse it.
fn digits(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != ':' && *c != '\u{200e}').take(65).collect()
}

/// Why a text is no thumbprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ThumbprintError {
    /// 40 digits: a SHA-1 thumbprint.
    #[error(
        "a SHA-1 thumbprint (40 hex digits); wanted SHA-256 (64): `openssl x509 -in CERT -noout -fingerprint -sha256`"
    )]
    Sha1,
    /// Not 64 hex digits.
    #[error("{0} characters; wanted the 64 hex digits of a SHA-256 thumbprint")]
    Digits(usize),
    /// Neither 64 nor 40 hex digits.
    #[error(
        "{0} characters; wanted the 64 hex digits of a SHA-256 thumbprint or the 40 of a SHA-1 thumbprint"
    )]
    Neither(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n5_reads_without_regard_to_case_spaces_colons_and_marks() {
        let plain = Thumbprint::of(b"certificate");
        let dressed: String = plain
            .to_string()
            .to_uppercase()
            .as_bytes()
            .chunks(2)
            .fold(String::from("\u{200e} "), |text, pair| text + std::str::from_utf8(pair).unwrap() + ":");

        assert_eq!(dressed.parse(), Ok(plain));
    }

    #[test]
    fn n5_a_look_up_takes_sha1_and_sha256_in_any_dress() {
        // SHA-1 and SHA-256 of "abc" (FIPS 180-2, appendices A.1 and B.1).
        let sha1 = "\u{200e}A9 99 3E 36 47 06 81 6A ba 3e 25 71 78 50 c2 6c 9c d0 d8 9d";
        let sha256 =
            "BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:b0:03:61:a3:96:17:7a:9c:b4:10:ff:61:f2:00:15:ad";

        for text in [sha1, sha256] {
            let thumbprint: AnyThumbprint = text.parse().unwrap();

            assert!(thumbprint.is_of(b"abc") && !thumbprint.is_of(b"abd"), "{text}");
            assert_eq!(thumbprint.to_string().parse(), Ok(thumbprint), "{text}");
        }
        assert_eq!(sha256.parse(), Ok(AnyThumbprint::from(Thumbprint::of(b"abc"))));
    }

    #[test]
    fn n5_a_look_up_refuses_every_other_length_and_what_is_not_hex() {
        for (text, length) in [("", 0), (&"a".repeat(39), 39), (&"a".repeat(41), 41), (&"a".repeat(90), 65)] {
            assert_eq!(text.parse::<AnyThumbprint>(), Err(ThumbprintError::Neither(length)), "{text}");
        }
        assert_eq!("g".repeat(40).parse::<AnyThumbprint>(), Err(ThumbprintError::Neither(40)));
    }

    #[test]
    fn refuses_other_lengths_and_names_sha1() {
        assert_eq!("a".repeat(40).parse::<Thumbprint>(), Err(ThumbprintError::Sha1));
        assert_eq!("a".repeat(63).parse::<Thumbprint>(), Err(ThumbprintError::Digits(63)));
        assert_eq!("z".repeat(64).parse::<Thumbprint>(), Err(ThumbprintError::Digits(64)));
    }
}
