//! [`Thumbprint`]: the SHA-256 of a certificate.

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
        let digits: String =
            text.chars().filter(|c| !c.is_whitespace() && *c != ':' && *c != '\u{200e}').take(65).collect();
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
    fn refuses_other_lengths_and_names_sha1() {
        assert_eq!("a".repeat(40).parse::<Thumbprint>(), Err(ThumbprintError::Sha1));
        assert_eq!("a".repeat(63).parse::<Thumbprint>(), Err(ThumbprintError::Digits(63)));
        assert_eq!("z".repeat(64).parse::<Thumbprint>(), Err(ThumbprintError::Digits(64)));
    }
}
