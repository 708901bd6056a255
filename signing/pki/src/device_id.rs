//! [`DeviceId`]: the name that stays a device's name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;

/// The name of a device: lower-case ASCII, 1 to 253 bytes, as it stands in its certificate; a device without one is named
/// after its key.
///
/// It survives renewal and a change of issuer (DESIGN.md, "Contracts"; rule C7). Letters, digits, hyphens, underscores
/// and dots are allowed; a dot neither begins nor ends it, nor follows another. A clone shares the text: a server has several of each device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(Arc<str>);

impl DeviceId {
    /// Longest name in bytes, that of a DNS name (RFC 1035 §2.3.4, without the root's dot).
    pub const BYTES_MAX: usize = 253;

    /// How the name of a device ends that has no certificate. `invalid` is nobody's domain (RFC 6761 §6.4).
    const OF_KEY: &str = ".key.invalid";

    /// Bytes of the digest in such a name: nobody makes a key that has another's name.
    const OF_KEY_BYTES: usize = 16;

    /// Returns the name of a device that has a key and no certificate (C1): the first half of the SHA-256 of the key's
    /// SubjectPublicKeyInfo in hex, and `.key.invalid`. No certificate gives such a name.
    #[must_use]
    pub fn of_key(spki: &[u8]) -> Self {
        let digest = digest::digest(&digest::SHA256, spki);
        let half: Vec<u8> = digest.as_ref().iter().copied().take(Self::OF_KEY_BYTES).collect();
        Self(format!("{}{}", hex::encode(half), Self::OF_KEY).into())
    }

    /// Returns whether it is the name of a device without a certificate: *unauthenticated*.
    #[must_use]
    pub fn is_of_key(&self) -> bool {
        self.0.ends_with(Self::OF_KEY)
    }

    /// Returns the name a certificate gives its device: its first SAN dNSName, else its CN (C7).
    ///
    /// # Errors
    /// The certificate has neither, or the one that counts is no device name (a wildcard, for example), or is one that only
    /// devices without a certificate have.
    pub fn from_certificate(certificate: &Certificate) -> Result<Self, DeviceIdError> {
        let name = certificate.dns_names().first().map(String::as_str).or(certificate.common_name());
        let device: Self = name.ok_or(DeviceIdError::Missing)?.parse()?;
        if device.is_of_key() { Err(DeviceIdError::OfKey(device.into())) } else { Ok(device) }
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceId {
    type Err = DeviceIdError;

    fn from_str(text: &str) -> Result<Self, DeviceIdError> {
        if text.is_empty() || text.len() > Self::BYTES_MAX {
            return Err(DeviceIdError::Length(text.len()));
        }
        if let Some(wrong) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.".contains(*c))) {
            return Err(DeviceIdError::Character { name: text.to_owned(), wrong });
        }
        if text.split('.').any(str::is_empty) {
            return Err(DeviceIdError::EmptyLabel(text.to_owned()));
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for DeviceId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for DeviceId {
    type Error = DeviceIdError;

    fn try_from(text: String) -> Result<Self, DeviceIdError> {
        text.parse()
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> Self {
        id.0.as_ref().to_owned()
    }
}

/// Why a text or a certificate names no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceIdError {
    /// The certificate has neither SAN dNSName nor CN.
    #[error(
        "the certificate has neither a SAN dNSName nor a CN; reissue it with the computer name as SAN dNSName"
    )]
    Missing,
    /// Empty or too long.
    #[error("a device name of {0} bytes; wanted 1 to {max}", max = DeviceId::BYTES_MAX)]
    Length(usize),
    /// A character that no device name has.
    #[error("device name {name:?} has the character {wrong:?}; wanted letters, digits, `-`, `_` and `.`")]
    Character {
        /// The name as it was given.
        name: String,
        /// The first character that is not allowed.
        wrong: char,
    },
    /// Two dots in a row, or one at an end.
    #[error("device name {0:?} has an empty label; wanted one dot between labels and none at the ends")]
    EmptyLabel(String),
    /// A certificate for a name of devices that have none.
    #[error(
        "device name {0:?} ends as the names of devices without a certificate do; reissue it with the computer name as SAN dNSName"
    )]
    OfKey(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowers_the_case() {
        let id: DeviceId = "W701.ACME.Local".parse().unwrap();

        assert_eq!(id.as_str(), "w701.acme.local");
    }

    #[test]
    fn c1_the_name_of_a_key_is_one_of_its_own() {
        let device = DeviceId::of_key(b"a key");

        // printf 'a key' | sha256sum
        assert_eq!(device.as_str(), "8fa3aab2faa9b79e0a0398da5b5abd07.key.invalid");
        assert_eq!(device.to_string().to_uppercase().parse(), Ok(device.clone()));
        assert!(device.is_of_key());
        for other in ["w701.acme.local", "key.invalid", "a.key.invalid.acme.local", "akey.invalid"] {
            assert!(!other.parse::<DeviceId>().unwrap().is_of_key(), "{other}");
        }
    }

    #[test]
    fn refuses_what_is_no_device_name() {
        for text in ["", "a b", "*.acme.local", ".a", "a.", "a..b", "ä", "a\n", &"a".repeat(254)] {
            assert!(text.parse::<DeviceId>().is_err(), "{text:?}");
        }
    }
}
