//! [`Selection`]: what an organisation configured about the choice (S3, S5, N2).

use serde::{Deserialize, Serialize};

use crate::thumbprint::{AnyThumbprint, ThumbprintError};

/// Most substrings of one list; an organisation has a handful of CAs.
pub const PARTS_MAX: usize = 64;

/// The section of a configuration or policy, as it is typed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelectionSettings {
    /// Comma-separated substrings of issuer names, without regard to case. Where it is set, a certificate of no such issuer
    /// is never taken, as client or server (S3). Empty: any issuer.
    pub cert_issuer: String,
    /// Comma-separated substrings of subjects or SAN dNSNames, without regard to case: which certificate to prefer (S3).
    /// Empty: no preference.
    pub cert_subject: String,
    /// SHA-256 or SHA-1 thumbprint of the certificate to take if it is valid: always for the Background Channel and
    /// peers, for the Switch where neither `cert_issuer` nor `cert_subject` is set (S5). Empty: none.
    pub thumbprint: String,
    /// Whether the newer certificate of the same subject, issuer and Extended Key Usage is taken once the one of `thumbprint`
    /// expired or was archived (N2). Default true.
    pub follow_successor: bool,
}

impl Default for SelectionSettings {
    fn default() -> Self {
        Self {
            cert_issuer: String::new(),
            cert_subject: String::new(),
            thumbprint: String::new(),
            follow_successor: true,
        }
    }
}

/// The same, parsed. The default has no preference at all, and follows successors.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "SelectionSettings", into = "SelectionSettings")]
pub struct Selection {
    issuer: Vec<String>,
    subject: Vec<String>,
    thumbprint: Option<AnyThumbprint>,
    follow: FollowSuccessor,
}

/// Whether a pinned certificate that is no longer valid hands over to its successor (N2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FollowSuccessor {
    /// It does; the default.
    #[default]
    Yes,
    /// Normal selection follows at once.
    No,
}

impl Selection {
    /// Returns the substrings of `cert_issuer`; empty: not set.
    #[must_use]
    pub fn issuer(&self) -> &[String] {
        &self.issuer
    }

    /// Returns the substrings of `cert_subject`; empty: not set.
    #[must_use]
    pub fn subject(&self) -> &[String] {
        &self.subject
    }

    /// Returns the pinned thumbprint.
    #[must_use]
    pub fn thumbprint(&self) -> Option<AnyThumbprint> {
        self.thumbprint
    }

    /// Returns whether a pinned certificate's successor is taken.
    #[must_use]
    pub fn follow_successor(&self) -> FollowSuccessor {
        self.follow
    }
}

impl TryFrom<SelectionSettings> for Selection {
    type Error = SelectionError;

    fn try_from(settings: SelectionSettings) -> Result<Self, SelectionError> {
        let bare = |c: char| c.is_whitespace() || c == '\u{200e}';
        let thumbprint = match settings.thumbprint.trim_matches(bare) {
            "" => None,
            text => Some(text.parse().map_err(|source| SelectionError::Thumbprint {
                text: text.chars().take(80).collect(),
                source,
            })?),
        };
        Ok(Self {
            issuer: parts("cert_issuer", &settings.cert_issuer)?,
            subject: parts("cert_subject", &settings.cert_subject)?,
            thumbprint,
            follow: if settings.follow_successor { FollowSuccessor::Yes } else { FollowSuccessor::No },
        })
    }
}

impl From<Selection> for SelectionSettings {
    fn from(selection: Selection) -> Self {
        Self {
            cert_issuer: selection.issuer.join(", "),
            cert_subject: selection.subject.join(", "),
            thumbprint: selection.thumbprint.map(String::from).unwrap_or_default(),
            follow_successor: selection.follow == FollowSuccessor::Yes,
        }
    }
}

fn parts(key: &'static str, text: &str) -> Result<Vec<String>, SelectionError> {
    let parts: Vec<String> =
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect();
    if parts.len() > PARTS_MAX {
        return Err(SelectionError::TooMany { key, got: parts.len() });
    }
    Ok(parts)
}

/// Why settings are no selection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// Not a thumbprint.
    #[error(
        "thumbprint {text:?}: {source}; read it with `openssl x509 -in CERT -noout -fingerprint -sha256`"
    )]
    Thumbprint {
        /// What stands there, at most 80 characters.
        text: String,
        /// What is wrong with it.
        source: ThumbprintError,
    },
    /// A list that nobody can oversee.
    #[error(
        "{key}: {got} names; wanted at most {PARTS_MAX}; a substring that several share stands for them all"
    )]
    TooMany {
        /// The setting.
        key: &'static str,
        /// How many there are.
        got: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(cert_issuer: &str, thumbprint: &str) -> SelectionSettings {
        SelectionSettings {
            cert_issuer: cert_issuer.to_owned(),
            thumbprint: thumbprint.to_owned(),
            ..SelectionSettings::default()
        }
    }

    #[test]
    fn s3_splits_at_commas_trims_and_drops_empty_parts() {
        let selection = Selection::try_from(settings(" Acme CA ,,globex,\t, ", "")).unwrap();

        assert_eq!(selection.issuer(), ["Acme CA", "globex"]);
        assert_eq!(selection.subject(), [""; 0]);
        assert_eq!(selection.follow_successor(), FollowSuccessor::Yes);
    }

    #[test]
    fn s3_commas_alone_are_not_set() {
        assert_eq!(Selection::try_from(settings(" , ,", " \u{200e} ")), Ok(Selection::default()));
    }

    #[test]
    fn s5_names_a_thumbprint_that_is_none() {
        let error = Selection::try_from(settings("", "beef")).unwrap_err();

        assert_eq!(
            error.to_string(),
            "thumbprint \"beef\": 4 characters; wanted the 64 hex digits of a SHA-256 thumbprint or the 40 of a \
             SHA-1 thumbprint; read it with `openssl x509 -in CERT -noout -fingerprint -sha256`"
        );
    }

    #[test]
    fn s3_bounds_a_list() {
        let error = Selection::try_from(settings(&"a,".repeat(65), "")).unwrap_err();

        assert_eq!(error, SelectionError::TooMany { key: "cert_issuer", got: 65 });
    }

    #[test]
    fn reads_a_section_and_refuses_unknown_keys() {
        let read = |text: &str| serde_json::from_str::<Selection>(text).map_err(|error| error.to_string());

        assert_eq!(read("{}"), Ok(Selection::default()));
        assert_eq!(read(r#"{"cert_issuer": "Acme"}"#).unwrap().issuer(), ["Acme"]);
        assert!(read(r#"{"cert_isuer": "Acme"}"#).unwrap_err().contains("unknown field `cert_isuer`"));
        assert!(read(r#"{"thumbprint": "beef"}"#).unwrap_err().contains("thumbprint \"beef\": 4 characters"));
    }

    #[test]
    fn comes_back_from_its_own_settings() {
        let settings = SelectionSettings { follow_successor: false, ..settings("a, b", &"0a".repeat(20)) };

        let selection = Selection::try_from(settings.clone()).unwrap();

        assert_eq!(SelectionSettings::from(selection), settings);
    }
}
