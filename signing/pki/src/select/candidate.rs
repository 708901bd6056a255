//! [`Candidates`]: what a certificate store holds, in its order.

use rustls_pki_types::UnixTime;

use crate::certificate::Certificate;
use crate::finding::{Finding, Severity};
use crate::revocation::RevocationIndex;
use crate::thumbprint::Thumbprint;

/// One certificate of the store, what stands above it, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    certificate: Certificate,
    issuers: Vec<Certificate>,
    private_key: PrivateKey,
    source: String,
    refusals: Vec<Finding>,
}

/// Whether a certificate's private key is at hand (C5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrivateKey {
    /// It is, and belongs to the certificate.
    Present,
    /// There is none.
    Missing,
    /// There is one, of another certificate.
    Foreign,
}

impl Candidate {
    /// Takes a certificate with the CAs above it in any order; `source` is its path, or what else tells people where it is.
    #[must_use]
    pub fn new(
        certificate: Certificate,
        issuers: Vec<Certificate>,
        private_key: PrivateKey,
        source: impl Into<String>,
    ) -> Self {
        Self { certificate, issuers, private_key, source: source.into(), refusals: Vec::new() }
    }

    /// Adds what [`crate::check()`] finds of it: one that every peer would refuse is no candidate, so that it takes no other's place
    /// (C4, C6, C7, C16 and whatever else selection does not ask for itself).
    #[must_use]
    pub fn with_findings(mut self, findings: impl IntoIterator<Item = Finding>) -> Self {
        self.refusals.extend(findings.into_iter().filter(|finding| finding.severity == Severity::Refusal));
        self
    }

    /// Returns the certificate itself.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Returns the CAs above it, as they were given.
    #[must_use]
    pub fn issuers(&self) -> &[Certificate] {
        &self.issuers
    }

    /// Returns whether its key is at hand.
    #[must_use]
    pub fn private_key(&self) -> PrivateKey {
        self.private_key
    }

    /// Returns why peers would refuse it, as far as that was looked at.
    pub(super) fn refusals(&self) -> &[Finding] {
        &self.refusals
    }

    /// Returns where it comes from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns the certificate whose revocation brings this one down: itself (R2), or a CA above it without which no way
    /// leads up (R8; of two cross-signed ways one that holds is enough, R5).
    pub(super) fn revoked(&self, revocation: &RevocationIndex) -> Option<&Certificate> {
        let mut reached = vec![&self.certificate];
        let mut revoked = None;
        let mut at = 0;
        while let Some(below) = reached.get(at).copied() {
            at += 1;
            if revocation.is_revoked(below) {
                revoked = revoked.or(Some(below));
                continue;
            }
            let above: Vec<&Certificate> =
                self.issuers.iter().filter(|above| above.subject_der() == below.issuer_der()).collect();
            if above.iter().all(|above| *above == below) {
                return None; // The end of the chain, a root or below one: this way holds.
            }
            let new: Vec<&Certificate> = above.into_iter().filter(|above| !reached.contains(above)).collect();
            reached.extend(new);
        }
        revoked
    }
}

/// A store's certificates in its order, which decides ties (S1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidates {
    readable: Vec<Candidate>,
    unread: Vec<Unread>,
}

/// A file of the store that gave no certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Its path, or what else tells people where it is.
    pub source: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Candidates {
    /// Adds the next certificate in store order.
    pub fn push(&mut self, candidate: Candidate) {
        self.readable.push(candidate);
    }

    /// Adds a file that could not be read, so that the answer tells of it.
    pub fn push_unread(&mut self, source: impl Into<String>, problem: impl Into<String>) {
        self.unread.push(Unread { source: source.into(), problem: problem.into() });
    }

    /// Returns the certificates in store order.
    pub fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.readable.iter()
    }

    /// Returns the files that could not be read.
    #[must_use]
    pub fn unread(&self) -> &[Unread] {
        &self.unread
    }

    /// Returns whether the certificate is in the store, whatever is wrong with it.
    #[must_use]
    pub fn contains(&self, thumbprint: Thumbprint) -> bool {
        self.iter().any(|candidate| candidate.certificate.thumbprint() == thumbprint)
    }

    /// Returns when the next certificate becomes valid after `now`.
    pub(super) fn next_not_before(&self, now: UnixTime) -> Option<UnixTime> {
        self.iter().map(|candidate| candidate.certificate.not_before()).filter(|from| *from > now).min()
    }
}

impl FromIterator<Candidate> for Candidates {
    fn from_iter<I: IntoIterator<Item = Candidate>>(candidates: I) -> Self {
        Self { readable: candidates.into_iter().collect(), unread: Vec::new() }
    }
}
