//! [`Unfit`]: why a certificate is no candidate (S2, S3, S7, and the rules of certificates that peers judge by).

use std::fmt;

use rustls_pki_types::UnixTime;

use super::candidate::{Candidate, PrivateKey};
use crate::certificate::Certificate;
use crate::finding::Rule;
use crate::instant;
use crate::revocation::RevocationIndex;
use crate::usage::ExtendedKeyUsage;

/// One reason why a certificate may not be chosen, however few others there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// Its Extended Key Usage lacks the purpose (C3).
    Usage {
        /// The purpose: clientAuth (S2) or serverAuth (S7).
        wanted: ExtendedKeyUsage,
        /// What it has; empty without the extension.
        got: Vec<ExtendedKeyUsage>,
    },
    /// It expired (C9).
    Expired {
        /// Its last moment.
        at: UnixTime,
    },
    /// It becomes valid later (C9).
    NotYetValid {
        /// Its first moment.
        from: UnixTime,
    },
    /// Its private key is not at hand (C5).
    KeyMissing,
    /// The private key beside it is another's (C5).
    KeyForeign,
    /// It signed itself (C8).
    SelfSigned,
    /// It is a CA's (C8): a peer refuses it as a leaf.
    Authority,
    /// It was revoked (R2).
    Revoked,
    /// The CA above it was revoked (R8).
    IssuerRevoked {
        /// The CA's subject.
        subject: String,
    },
    /// Its issuer is not in `cert_issuer`, and no other's is either (S3, S7).
    IssuerNotListed,
    /// It has neither the host name nor the FQDN (S7).
    Name {
        /// The names that it has.
        got: Vec<String>,
    },
    /// Every peer would refuse it by another rule of certificates, such as C4, C6, C7 or C16.
    Refused {
        /// The rule.
        rule: Rule,
        /// What it has.
        got: String,
        /// What would put it right.
        fix: String,
    },
}

impl Unfit {
    /// Returns the rule behind it.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::Usage { .. } => "C3",
            Self::Expired { .. } | Self::NotYetValid { .. } => "C9",
            Self::KeyMissing | Self::KeyForeign => "C5",
            Self::SelfSigned | Self::Authority => "C8",
            Self::Revoked => "R2",
            Self::IssuerRevoked { .. } => "R8",
            Self::IssuerNotListed => "S3",
            Self::Name { .. } => "S7",
            Self::Refused { rule, .. } => rule.name(),
        }
    }

    /// Returns what would put it right.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::Usage { wanted, .. } => format!("reissue it with Extended Key Usage {wanted}"),
            Self::Expired { .. } => "renew it".to_owned(),
            Self::NotYetValid { .. } => "check this machine's clock, or wait".to_owned(),
            Self::KeyMissing => "put its private key beside it".to_owned(),
            Self::KeyForeign => "put back the private key that its request was made with".to_owned(),
            Self::SelfSigned => "have a CA issue it".to_owned(),
            Self::Authority => "issue an end-entity certificate from this CA".to_owned(),
            Self::Revoked => "enrol again with a new key".to_owned(),
            Self::IssuerRevoked { .. } => "enrol again at another CA".to_owned(),
            Self::IssuerNotListed => {
                "add its issuer to cert_issuer, or enrol at one that is listed".to_owned()
            }
            Self::Name { .. } => "reissue it with the host name and the FQDN as SAN dNSName".to_owned(),
            Self::Refused { fix, .. } => fix.clone(),
        }
    }
}

impl fmt::Display for Unfit {
    /// Writes the rule, what is wrong, and what would put it right.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.rule())?;
        match self {
            Self::Usage { wanted, got } if got.is_empty() => write!(f, "no {wanted}, no purpose at all")?,
            Self::Usage { wanted, got } => write!(f, "no {wanted}, but {}", list(got))?,
            Self::Expired { at } => write!(f, "expired at {}", instant::text(*at))?,
            Self::NotYetValid { from } => write!(f, "not valid before {}", instant::text(*from))?,
            Self::KeyMissing => f.write_str("no private key")?,
            Self::KeyForeign => f.write_str("the private key is another's")?,
            Self::SelfSigned => f.write_str("self-signed")?,
            Self::Authority => f.write_str("a CA certificate")?,
            Self::Revoked => f.write_str("revoked")?,
            Self::IssuerRevoked { subject } => write!(f, "its CA {subject} is revoked")?,
            Self::IssuerNotListed => f.write_str("issuer not in cert_issuer")?,
            Self::Name { got } if got.is_empty() => f.write_str("no name")?,
            Self::Name { got } => write!(f, "neither host name nor FQDN, but {}", list(got))?,
            Self::Refused { got, .. } => f.write_str(got)?,
        }
        write!(f, ": {}", self.fix())
    }
}

/// Returns everything that makes a candidate unfit for `usage` at `now`, whatever is configured (S2, S7).
pub(super) fn unfit(
    candidate: &Candidate,
    usage: &ExtendedKeyUsage,
    now: UnixTime,
    revocation: Option<&RevocationIndex>,
) -> Vec<Unfit> {
    let certificate = candidate.certificate();
    let mut unfit = Vec::new();
    let usages = certificate.extended_key_usages().unwrap_or_default();
    if !usages.contains(usage) {
        unfit.push(Unfit::Usage { wanted: usage.clone(), got: usages.to_vec() });
    }
    unfit.extend(validity(certificate, now));
    match candidate.private_key() {
        PrivateKey::Present => {}
        PrivateKey::Missing => unfit.push(Unfit::KeyMissing),
        PrivateKey::Foreign => unfit.push(Unfit::KeyForeign),
    }
    if certificate.is_self_signed() {
        unfit.push(Unfit::SelfSigned);
    } else if certificate.is_ca() {
        unfit.push(Unfit::Authority);
    }
    unfit.extend(revocation.and_then(|revocation| candidate.revoked(revocation)).map(|revoked| {
        if revoked == certificate {
            Unfit::Revoked
        } else {
            Unfit::IssuerRevoked { subject: revoked.subject().to_owned() }
        }
    }));
    unfit.extend(refused(candidate, &unfit));
    unfit
}

/// Returns what peers would refuse it for besides what selection found itself.
fn refused(candidate: &Candidate, found: &[Unfit]) -> Vec<Unfit> {
    let is_told = |rule: Rule| found.iter().any(|unfit| unfit.rule() == rule.name());
    let more = candidate.refusals().iter().filter(|finding| !is_told(finding.rule));
    more.map(|finding| Unfit::Refused {
        rule: finding.rule,
        got: finding.got.clone(),
        fix: finding.fix.clone(),
    })
    .collect()
}

fn validity(certificate: &Certificate, now: UnixTime) -> Option<Unfit> {
    if now > certificate.not_after() {
        return Some(Unfit::Expired { at: certificate.not_after() });
    }
    (now < certificate.not_before()).then(|| Unfit::NotYetValid { from: certificate.not_before() })
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}
