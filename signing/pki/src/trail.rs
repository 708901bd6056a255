//! [`Trail`]: how a verdict was reached, certificate by certificate (C14). For logs and people; it decides nothing.

use std::fmt;

use rustls_pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::finding::Severity;
use crate::instant;
use crate::role::Role;
use crate::thumbprint::Thumbprint;
use crate::usage::ExtendedKeyUsage;
use crate::verdict::Verdict;

/// Of which checks the trail is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrailOf {
    /// Of none; refusals are logged with their findings all the same.
    #[default]
    Off,
    /// Of those that refuse.
    Refusals,
    /// Of every one.
    All,
}

impl TrailOf {
    /// Returns whether the trail of `verdict` is wanted.
    #[must_use]
    pub fn wants(self, verdict: &Verdict) -> bool {
        match self {
            Self::Off => false,
            Self::Refusals => !verdict.is_accepted(),
            Self::All => true,
        }
    }
}

/// What was looked at for one verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trail {
    /// The role that was asked for.
    pub purpose: &'static str,
    /// Whether it may play it.
    pub accepted: bool,
    /// Whether a path to a root was verified; then `elements` is that path, else what the peer showed.
    pub verified: bool,
    /// Leaf first.
    pub elements: Vec<TrailElement>,
    /// What belongs to no certificate, such as that there is none.
    pub other: Vec<String>,
}

/// One certificate of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrailElement {
    /// Its subject (RFC 4514), or why it cannot be read.
    pub subject: String,
    /// Its SHA-256.
    pub thumbprint: String,
    /// How its issuer signed it.
    pub signature: String,
    /// Its key's algorithm and length.
    pub key: String,
    /// Its Extended Key Usages; empty without the extension.
    pub extended_key_usage: Vec<String>,
    /// First moment of validity, RFC 3339.
    pub not_before: String,
    /// Last moment of validity, RFC 3339.
    pub not_after: String,
    /// What was found about it, refusals first; empty: all is well.
    pub status: Vec<String>,
}

impl Trail {
    /// Puts together how `verdict` on `chain` was reached.
    #[must_use]
    pub fn of(role: Role, chain: &[CertificateDer<'_>], verdict: &Verdict) -> Self {
        let verified = !verdict.path().is_empty();
        let elements: Vec<TrailElement> = if verified {
            verdict.path().iter().map(|certificate| TrailElement::of(certificate, verdict)).collect()
        } else {
            chain.iter().map(|der| TrailElement::read(der, verdict)).collect()
        };
        let shown = |thumbprint: Thumbprint| {
            elements.iter().any(|element| element.thumbprint == thumbprint.to_string())
        };
        let other = verdict
            .findings()
            .iter()
            .filter(|finding| !finding.thumbprint.is_some_and(shown))
            .map(ToString::to_string)
            .collect();
        Self { purpose: role.name(), accepted: verdict.is_accepted(), verified, elements, other }
    }
}

impl TrailElement {
    fn read(der: &CertificateDer<'_>, verdict: &Verdict) -> Self {
        match Certificate::from_der(der) {
            Ok(certificate) => Self::of(&certificate, verdict),
            Err(error) => Self {
                subject: format!("unreadable: {error}"),
                thumbprint: Thumbprint::of(der).to_string(),
                signature: String::new(),
                key: String::new(),
                extended_key_usage: Vec::new(),
                not_before: String::new(),
                not_after: String::new(),
                status: Vec::new(),
            },
        }
    }

    fn of(certificate: &Certificate, verdict: &Verdict) -> Self {
        let thumbprint = certificate.thumbprint();
        let about = |finding: &&crate::finding::Finding| {
            finding.thumbprint == Some(thumbprint) && finding.severity != Severity::Info
        };
        let usages = certificate.extended_key_usages().unwrap_or_default();
        Self {
            subject: certificate.subject().to_owned(),
            thumbprint: thumbprint.to_string(),
            signature: certificate.signature_algorithm(),
            key: certificate.key_algorithm(),
            extended_key_usage: usages.iter().map(ExtendedKeyUsage::to_string).collect(),
            not_before: time(certificate.not_before()),
            not_after: time(certificate.not_after()),
            status: verdict.findings().iter().filter(about).map(ToString::to_string).collect(),
        }
    }
}

impl fmt::Display for Trail {
    /// Writes one line for the verdict, one for each certificate, and one for each finding below it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.accepted { "accepted" } else { "refused" };
        let way = if self.verified { "the verified path" } else { "no path to a root; as shown" };
        write!(f, "{verdict} as {}, {way}:", self.purpose)?;
        for (index, element) in self.elements.iter().enumerate() {
            let usages = element.extended_key_usage.join("+");
            write!(
                f,
                "\n{index} {} · {} · signed {} · key {} · EKU {} · {} to {}",
                element.subject,
                element.thumbprint,
                element.signature,
                element.key,
                if usages.is_empty() { "none" } else { &usages },
                element.not_before,
                element.not_after,
            )?;
            element.status.iter().try_for_each(|finding| write!(f, "\n  {finding}"))?;
        }
        self.other.iter().try_for_each(|finding| write!(f, "\n- {finding}"))
    }
}

fn time(at: UnixTime) -> String {
    instant::text(at)
}
