//! [`Finding`]: one thing that is wrong, or worth telling, about a certificate (C14).

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::certificate::Certificate;
use crate::thumbprint::Thumbprint;

/// A rule of `spec/trust.md` (C, R, T) or `spec/signing.md` (G).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A certificate is required.
    C1,
    /// The chain ends at a configured root of the role.
    C2,
    /// Extended Key Usage.
    C3,
    /// Key Usage.
    C4,
    /// The private key is present.
    C5,
    /// A CRL distribution point over http or https.
    C6,
    /// The name.
    C7,
    /// No self-signed leaf, no CA as leaf.
    C8,
    /// Validity.
    C9,
    /// SHA-512 chains work.
    C10,
    /// TLS 1.2 and 1.3.
    C11,
    /// Client and Switch run the same checks.
    C12,
    /// PFX files.
    C13,
    /// Every refusal is shown.
    C14,
    /// No plain listener.
    C15,
    /// Algorithms and key lengths.
    C16,
    /// A signer of documents: codeSigning, a chain to its own root, not self-signed, not revoked.
    G5,
    /// A revoked leaf.
    R2,
    /// A fresh CRL of the issuer.
    R6,
    /// A revoked intermediate.
    R8,
    /// A server that the trust store knows: below one of its CAs, or itself saved there.
    T6,
    /// A server's pinned fingerprint.
    T7,
}

impl Rule {
    /// Returns the rule's number as the spec writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::C1 => "C1",
            Self::C2 => "C2",
            Self::C3 => "C3",
            Self::C4 => "C4",
            Self::C5 => "C5",
            Self::C6 => "C6",
            Self::C7 => "C7",
            Self::C8 => "C8",
            Self::C9 => "C9",
            Self::C10 => "C10",
            Self::C11 => "C11",
            Self::C12 => "C12",
            Self::C13 => "C13",
            Self::C14 => "C14",
            Self::C15 => "C15",
            Self::C16 => "C16",
            Self::G5 => "G5",
            Self::R2 => "R2",
            Self::R6 => "R6",
            Self::R8 => "R8",
            Self::T6 => "T6",
            Self::T7 => "T7",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What a finding means for the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Accepted, but someone should act.
    Warning,
    /// Refused.
    Refusal,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "note",
            Self::Warning => "warning",
            Self::Refusal => "refused",
        })
    }
}

/// One finding, with everything an operator needs to act (C14).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule that is broken.
    pub rule: Rule,
    /// What follows from it.
    pub severity: Severity,
    /// What the certificate has.
    pub got: String,
    /// What the rule asks for.
    pub wanted: String,
    /// What would put it right.
    pub fix: String,
    /// Subject of the certificate that the finding is about; empty if there is none.
    pub subject: String,
    /// Its serial number in hex; empty if there is none.
    pub serial: String,
    /// Its thumbprint.
    pub thumbprint: Option<Thumbprint>,
    /// Its issuer; empty if there is none.
    pub issuer: String,
}

impl Finding {
    /// Makes a refusal about `certificate`.
    pub(crate) fn refusal(
        rule: Rule,
        certificate: &Certificate,
        got: impl Into<String>,
        wanted: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            rule,
            severity: Severity::Refusal,
            got: got.into(),
            wanted: wanted.into(),
            fix: fix.into(),
            subject: certificate.subject().to_owned(),
            serial: certificate.serial_hex(),
            thumbprint: Some(certificate.thumbprint()),
            issuer: certificate.issuer().to_owned(),
        }
    }

    /// Makes a refusal where no certificate could be read.
    pub(crate) fn without_certificate(rule: Rule, got: impl Into<String>, wanted: &str, fix: &str) -> Self {
        Self {
            rule,
            severity: Severity::Refusal,
            got: got.into(),
            wanted: wanted.to_owned(),
            fix: fix.to_owned(),
            subject: String::new(),
            serial: String::new(),
            thumbprint: None,
            issuer: String::new(),
        }
    }

    /// The same finding with another severity.
    pub(crate) fn with_severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: got {}; wanted {}; fix: {}",
            self.rule, self.severity, self.got, self.wanted, self.fix
        )?;
        let Some(thumbprint) = self.thumbprint else { return Ok(()) };
        let named = |name: &str| if name.is_empty() { "(empty)".to_owned() } else { name.to_owned() };
        let (subject, issuer) = (named(&self.subject), named(&self.issuer));
        write!(f, " (subject {subject}, serial {}, thumbprint {thumbprint}, issuer {issuer})", self.serial)
    }
}
