//! [`TrustSettings`]: how a client's policy wants servers verified (T9).

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::fingerprint::{self, FingerprintError};
use crate::thumbprint::Thumbprint;

/// Yes or no, as policies write it: `"yes"`, `"no"`, or TOML's `true` and `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum YesNo {
    /// Yes.
    Yes,
    /// No.
    No,
}

impl Serialize for YesNo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Yes => "yes",
            Self::No => "no",
        })
    }
}

impl<'de> Deserialize<'de> for YesNo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YesNoVisitor)
    }
}

struct YesNoVisitor;

impl Visitor<'_> for YesNoVisitor {
    type Value = YesNo;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"yes\" or \"no\"")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<YesNo, E> {
        Ok(if value { YesNo::Yes } else { YesNo::No })
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<YesNo, E> {
        match value {
            "yes" => Ok(YesNo::Yes),
            "no" => Ok(YesNo::No),
            other => Err(E::custom(format_args!("{other:?}; wanted \"yes\" or \"no\""))),
        }
    }
}

/// The fields of T9 as a policy has them; [`TrustSettings`] is what they mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrustFields {
    /// Whether the server's chain must lead to an anchor. `no` only together with `pinned_fingerprint`. Default: yes.
    pub verify_peer: YesNo,
    /// Whether the server's certificate must have the name that was called. Default: yes.
    pub verify_host: YesNo,
    /// A PEM file whose certificates are merged behind those at hand; an absolute path on the device. Default: none.
    pub ca_file: String,
    /// A folder of PEM files that are trusted behind the merged ones; an absolute path on the device. Default: none.
    pub ca_path: String,
    /// The fingerprint that the server's certificate must have, whatever else holds: `SHA256:…`. Default: none.
    pub pinned_fingerprint: String,
    /// Whether the system's CAs are trusted behind all others. Default: no.
    pub use_system_ca_store: YesNo,
}

impl Default for TrustFields {
    fn default() -> Self {
        Self {
            verify_peer: YesNo::Yes,
            verify_host: YesNo::Yes,
            ca_file: String::new(),
            ca_path: String::new(),
            pinned_fingerprint: String::new(),
            use_system_ca_store: YesNo::No,
        }
    }
}

/// How servers are verified; cannot be contradictory (T9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustSettings {
    peer: PeerVerification,
    verify_host: YesNo,
    ca_file: Option<PathBuf>,
    ca_path: Option<PathBuf>,
    use_system_ca_store: YesNo,
}

/// What a server's certificate must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerVerification {
    /// A way to an anchor.
    Anchor,
    /// A way to an anchor, and this fingerprint.
    AnchorAndFingerprint(Thumbprint),
    /// This fingerprint; `verify_peer = no`.
    Fingerprint(Thumbprint),
}

impl Default for TrustSettings {
    fn default() -> Self {
        Self {
            peer: PeerVerification::Anchor,
            verify_host: YesNo::Yes,
            ca_file: None,
            ca_path: None,
            use_system_ca_store: YesNo::No,
        }
    }
}

impl TrustSettings {
    /// Returns what the server's certificate must have.
    #[must_use]
    pub fn peer(&self) -> PeerVerification {
        self.peer
    }

    /// Returns whether the name is compared.
    #[must_use]
    pub fn verify_host(&self) -> YesNo {
        self.verify_host
    }

    /// Returns the policy's CA file, an absolute path: [`super::Inputs::policy`].
    #[must_use]
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// Returns the policy's folder of CA files, an absolute path.
    #[must_use]
    pub fn ca_path(&self) -> Option<&Path> {
        self.ca_path.as_deref()
    }

    /// Returns whether the system's CAs are trusted as well.
    #[must_use]
    pub fn use_system_ca_store(&self) -> YesNo {
        self.use_system_ca_store
    }
}

impl TryFrom<&TrustFields> for TrustSettings {
    type Error = TrustSettingsError;

    fn try_from(fields: &TrustFields) -> Result<Self, Self::Error> {
        let pinned = match fields.pinned_fingerprint.trim() {
            "" => None,
            text => Some(fingerprint::parse(text).map_err(TrustSettingsError::Fingerprint)?),
        };
        let peer = match (fields.verify_peer, pinned) {
            (YesNo::Yes, None) => PeerVerification::Anchor,
            (YesNo::Yes, Some(pinned)) => PeerVerification::AnchorAndFingerprint(pinned),
            (YesNo::No, Some(pinned)) => PeerVerification::Fingerprint(pinned),
            (YesNo::No, None) => return Err(TrustSettingsError::UnverifiedPeer),
        };
        Ok(Self {
            peer,
            verify_host: fields.verify_host,
            ca_file: absolute("ca_file", &fields.ca_file)?,
            ca_path: absolute("ca_path", &fields.ca_path)?,
            use_system_ca_store: fields.use_system_ca_store,
        })
    }
}

impl<'de> Deserialize<'de> for TrustSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(&TrustFields::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Returns the path, `None` where the field is empty.
fn absolute(field: &'static str, text: &str) -> Result<Option<PathBuf>, TrustSettingsError> {
    if text.is_empty() {
        return Ok(None);
    }
    let path = PathBuf::from(text);
    if !path.is_absolute() || text.contains('\0') {
        return Err(TrustSettingsError::RelativePath { field, found: text.to_owned() });
    }
    Ok(Some(path))
}

/// Why a policy's trust fields are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustSettingsError {
    /// Any server would be accepted.
    #[error(
        "verify_peer = no without a pinned fingerprint accepts any server; set pinned_fingerprint = \"SHA256:…\", or verify_peer = yes"
    )]
    UnverifiedPeer,
    /// A path that depends on the working directory (T10).
    #[error(
        "{field} = {found:?} is no absolute path; wanted one that begins at the root of the file system, like \"/etc/muster/ca.pem\""
    )]
    RelativePath {
        /// The field.
        field: &'static str,
        /// Its value.
        found: String,
    },
    /// Not a SHA-256 fingerprint.
    #[error("pinned_fingerprint: {0}")]
    Fingerprint(FingerprintError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> TrustFields {
        TrustFields::default()
    }

    #[test]
    fn t9_defaults_verify_everything_and_are_otherwise_empty() {
        let settings = TrustSettings::try_from(&fields());

        assert_eq!(settings, Ok(TrustSettings::default()));
        assert_eq!(TrustSettings::default().verify_host(), YesNo::Yes);
        assert_eq!(TrustSettings::default().peer(), PeerVerification::Anchor);
    }

    #[test]
    fn t9_an_unverified_peer_needs_a_pinned_fingerprint() {
        let pinned = format!("SHA256:{}", "ab".repeat(32));
        let thumbprint = Thumbprint::from_bytes([0xab; 32]);
        for (verify_peer, pinned_fingerprint, expected) in [
            (YesNo::No, "", Err(TrustSettingsError::UnverifiedPeer)),
            (YesNo::No, "  ", Err(TrustSettingsError::UnverifiedPeer)),
            (YesNo::No, &pinned, Ok(PeerVerification::Fingerprint(thumbprint))),
            (YesNo::Yes, &pinned, Ok(PeerVerification::AnchorAndFingerprint(thumbprint))),
            (YesNo::Yes, "", Ok(PeerVerification::Anchor)),
            (
                YesNo::No,
                "SHA1:00",
                Err(TrustSettingsError::Fingerprint(FingerprintError::Hash("SHA1".to_owned()))),
            ),
        ] {
            let fields =
                TrustFields { verify_peer, pinned_fingerprint: pinned_fingerprint.to_owned(), ..fields() };

            let peer = TrustSettings::try_from(&fields).map(|settings| settings.peer());

            assert_eq!(peer, expected, "{fields:?}");
        }
    }

    #[test]
    fn t10_relative_paths_are_refused() {
        for path in ["ca.pem", "./ca.pem", "../ca.pem", "~/ca.pem", "etc/ca.pem", " /ca.pem", "/a\0b"] {
            let file = TrustSettings::try_from(&TrustFields { ca_file: path.to_owned(), ..fields() });
            let folder = TrustSettings::try_from(&TrustFields { ca_path: path.to_owned(), ..fields() });

            for (field, outcome) in [("ca_file", file), ("ca_path", folder)] {
                let found = path.to_owned();
                assert_eq!(outcome, Err(TrustSettingsError::RelativePath { field, found }), "{path}");
            }
        }
        let absolute =
            TrustSettings::try_from(&TrustFields { ca_file: "/mycert.pem".to_owned(), ..fields() });
        assert_eq!(absolute.unwrap().ca_file(), Some(Path::new("/mycert.pem")));
    }
}
