//! [`Roots`]: the trusted roots of one role.

use std::sync::Arc;

use rustls_pki_types::{TrustAnchor, UnixTime};

use crate::certificate::{Certificate, CertificateError};
use crate::pem::{self, PemError};
use crate::thumbprint::Thumbprint;

/// One role's trust store. Clones share the certificates.
#[derive(Debug, Clone, Default)]
pub struct Roots(Arc<Store>);

#[derive(Debug, Default)]
struct Store {
    certificates: Vec<Certificate>,
    anchors: Vec<TrustAnchor<'static>>,
    skipped: Vec<String>,
}

impl Roots {
    /// Reads all certificates of a PEM file as roots; `what` names the file in errors.
    ///
    /// A bad block is left out and told by [`Self::skipped`]; duplicates are dropped, the first position is kept.
    ///
    /// # Errors
    /// It holds no usable certificate.
    pub fn from_pem(bytes: &[u8], what: &str) -> Result<Self, RootsError> {
        let contents = pem::read(bytes, what)?;
        if contents.certificates.is_empty() {
            // Says what stands there instead.
            pem::certificates(bytes, what)?;
        }
        let mut store = Store { skipped: contents.skipped, ..Store::default() };
        let mut last = None;
        for der in &contents.certificates {
            if let Err(error) = Certificate::from_der(der).and_then(|certificate| store.add(certificate)) {
                store.skipped.push(error.to_string());
                last = Some(error);
            }
        }
        match last {
            Some(problem) if store.certificates.is_empty() => {
                Err(RootsError::Certificate { what: what.to_owned(), problem })
            }
            Some(_) | None => Ok(Self(Arc::new(store))),
        }
    }

    /// Takes certificates as roots; duplicates are dropped.
    ///
    /// # Errors
    /// One of them cannot be a trust anchor.
    pub fn from_certificates(
        certificates: impl IntoIterator<Item = Certificate>,
    ) -> Result<Self, CertificateError> {
        let mut store = Store::default();
        certificates.into_iter().try_for_each(|certificate| store.add(certificate))?;
        Ok(Self(Arc::new(store)))
    }

    /// Returns the roots in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Certificate> {
        self.0.certificates.iter()
    }

    /// Returns whether there is no root at all; nothing is accepted then.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.certificates.is_empty()
    }

    /// Returns the number of roots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.certificates.len()
    }

    /// Returns what was wrong with the blocks of the file that were left out.
    #[must_use]
    pub fn skipped(&self) -> &[String] {
        &self.0.skipped
    }

    /// Returns whether `certificate` is one of the roots.
    #[must_use]
    pub fn contains(&self, certificate: &Certificate) -> bool {
        self.iter().any(|root| root == certificate)
    }

    /// Returns a root of `self` that `other` trusts as well: the same certificate, or the same name with the same key.
    ///
    /// Roles have separate roots; where two overlap, what one role's CA issues may pass as the other's.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> Option<Thumbprint> {
        let is_same = |a: &Certificate, b: &Certificate| {
            a == b || (a.spki_der() == b.spki_der() && a.subject_der() == b.subject_der())
        };
        self.iter().find(|root| other.iter().any(|theirs| is_same(root, theirs))).map(Certificate::thumbprint)
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.0.anchors
    }

    /// Returns the root that webpki's anchor was made of. Of a root that was renewed with its old key, webpki cannot tell
    /// which one it took, so the one that is valid at `now` counts.
    pub(crate) fn of_anchor(&self, anchor: &TrustAnchor<'_>, now: UnixTime) -> Option<&Certificate> {
        let is_same = |known: &TrustAnchor<'_>| {
            known.subject == anchor.subject
                && known.subject_public_key_info == anchor.subject_public_key_info
                && known.name_constraints == anchor.name_constraints
        };
        let all = || self.0.anchors.iter().zip(&self.0.certificates).filter(|(known, _)| is_same(known));
        let valid = all().find(|(_, root)| root.is_valid_at(now));
        valid.or_else(|| all().next()).map(|(_, root)| root)
    }
}

impl Store {
    fn add(&mut self, certificate: Certificate) -> Result<(), CertificateError> {
        if self.certificates.contains(&certificate) {
            return Ok(());
        }
        let anchor = webpki::anchor_from_trusted_cert(certificate.certificate_der())
            .map_err(|error| CertificateError::Anchor { problem: error.to_string() })?
            .to_owned();
        self.anchors.push(anchor);
        self.certificates.push(certificate);
        Ok(())
    }
}

/// Why a file gives no roots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootsError {
    /// It is not PEM, or holds no certificate.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// None of its certificates can be read.
    #[error("{what}: {problem}")]
    Certificate {
        /// The file.
        what: String,
        /// What is wrong with the last of them.
        problem: CertificateError,
    },
}
