//! [`RevocationIndex`]: who is revoked, in O(1).
//!
//! A CRL's signature is verified once, when it is added; a look-up hashes a name and a serial number (R7). Fetching,
//! watching and the policies `hard`, `grace` and `soft` (R1, R6) are not here.

mod crl;

use std::collections::{BTreeMap, HashMap, HashSet};

use rustls_pki_types::UnixTime;

use self::crl::Crl;
use crate::certificate::Certificate;
use crate::instant;
use crate::pem::{self, PemError};

/// All CRLs that were added, by issuer. Which certificate may issue is the caller's to say, by the candidates it gives.
#[derive(Debug, Clone, Default)]
pub struct RevocationIndex {
    issuers: HashMap<Vec<u8>, Issuer>,
}

/// What one issuer name published: one CRL for each of its keys and distribution points.
type Issuer = BTreeMap<Scope, Entry>;

/// Authority key identifier and issuing distribution point of a CRL, as DER. CRLs of one scope replace each other.
type Scope = (Vec<u8>, Vec<u8>);

#[derive(Debug, Clone)]
struct Entry {
    number: Option<Number>,
    this_update: UnixTime,
    next_update: UnixTime,
    revoked: HashSet<Serial>,
}

/// A CRLNumber: its length first, so that comparing compares the numbers.
type Number = (usize, Vec<u8>);

/// A serial number without its own allocation; longer ones than this no certificate has (RFC 5280 §4.1.2.2: 20).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Serial {
    length: usize,
    bytes: [u8; 21],
}

/// Whether an issuer's CRLs can be relied on (R6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// All of them are within their time.
    Fresh,
    /// One of them should have been followed by a newer one.
    Stale {
        /// When the next one was due.
        next_update: UnixTime,
    },
    /// There is none.
    Missing,
}

impl RevocationIndex {
    /// Verifies the CRLs in `crl` (PEM or DER) and adds them, as [`Self::add`] does.
    ///
    /// # Errors
    /// As [`Self::add`]. The index is gone then; a caller that wants to keep the old one clones it or uses `add`.
    pub fn with_crl(mut self, crl: &[u8], issuers: &[Certificate], now: UnixTime) -> Result<Self, CrlError> {
        self.add(crl, issuers, now)?;
        Ok(self)
    }

    /// Verifies the CRLs in `crl` (PEM or DER) and adds them all, or none. One of the same issuer and scope is replaced.
    ///
    /// An expired CRL is added: what it revokes stays revoked, and [`Self::coverage`] says that it is stale.
    ///
    /// # Errors
    /// A CRL cannot be read, is of a kind that is not used (delta, indirect, without nextUpdate; R5), is signed by none of
    /// `issuers`, comes from the future, or is older than the one that is known.
    pub fn add(&mut self, crl: &[u8], issuers: &[Certificate], now: UnixTime) -> Result<(), CrlError> {
        let mut read = Vec::new();
        for der in ders(crl)? {
            let crl = Crl::read(&der, issuers, now)?;
            self.refuse_older(&crl)?;
            read.push(crl);
        }
        for crl in read {
            self.issuers.entry(crl.issuer_der).or_default().insert(crl.scope, crl.entry);
        }
        Ok(())
    }

    /// Returns whether the issuer with the name `issuer_der` revoked the certificate with this serial number.
    #[must_use]
    pub fn contains(&self, issuer_der: &[u8], serial: &[u8]) -> bool {
        let (Some(issuer), Some(serial)) = (self.issuers.get(issuer_der), Serial::new(serial)) else {
            return false;
        };
        issuer.values().any(|entry| entry.revoked.contains(&serial))
    }

    /// Returns whether the certificate is revoked by its issuer; its issuers are not looked at.
    #[must_use]
    pub fn is_revoked(&self, certificate: &Certificate) -> bool {
        self.contains(certificate.issuer_der(), certificate.serial())
    }

    /// Returns whether the CRLs of the issuer with the name `issuer_der` can be relied on at `now`.
    #[must_use]
    pub fn coverage(&self, issuer_der: &[u8], now: UnixTime) -> Coverage {
        let Some(issuer) = self.issuers.get(issuer_der) else { return Coverage::Missing };
        match issuer.values().map(|entry| entry.next_update).min() {
            Some(next_update) if next_update <= now => Coverage::Stale { next_update },
            Some(_) => Coverage::Fresh,
            None => Coverage::Missing,
        }
    }

    /// Returns whether no CRL was added; revocation is not configured then, and nothing warns of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.issuers.is_empty()
    }

    /// Returns the number of revoked certificates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.issuers.values().flat_map(BTreeMap::values).map(|entry| entry.revoked.len()).sum()
    }

    fn refuse_older(&self, crl: &Crl) -> Result<(), CrlError> {
        let known = self.issuers.get(&crl.issuer_der).and_then(|issuer| issuer.get(&crl.scope));
        let Some(known) = known else { return Ok(()) };
        let is_older = match (&crl.entry.number, &known.number) {
            (Some(new), Some(old)) => new < old,
            (Some(_) | None, None) => crl.entry.this_update < known.this_update,
            (None, Some(_)) => true,
        };
        if !is_older {
            return Ok(());
        }
        Err(CrlError::Older {
            issuer: crl.issuer.clone(),
            got: instant::text(crl.entry.this_update),
            known: instant::text(known.this_update),
        })
    }
}

impl Serial {
    fn new(serial: &[u8]) -> Option<Self> {
        let mut bytes = [0; 21];
        bytes.get_mut(..serial.len())?.copy_from_slice(serial);
        Some(Self { length: serial.len(), bytes })
    }
}

/// Why a CRL is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// It is not PEM, or holds no CRL.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// It is not valid DER.
    #[error("not readable: {0}; wanted an X.509 v2 CRL")]
    Encoding(String),
    /// A kind of CRL that is not used (R5).
    #[error(
        "CRL of {issuer}: {got}; wanted a complete CRL of the issuer itself, with nextUpdate; publish one"
    )]
    Unsupported {
        /// The issuer's name.
        issuer: String,
        /// What it is.
        got: String,
    },
    /// No candidate has the issuer's name and may sign CRLs.
    #[error(
        "CRL of {issuer}: no trusted CA of that name that may sign CRLs; add its certificate to the roots or intermediates"
    )]
    UnknownIssuer {
        /// The issuer's name.
        issuer: String,
    },
    /// The issuer's key did not make the signature, or the algorithm is refused (C16).
    #[error(
        "CRL of {issuer}: {problem}; wanted the issuer's signature with SHA-256 or better; fetch or publish it again"
    )]
    Signature {
        /// The issuer's name.
        issuer: String,
        /// What is wrong.
        problem: String,
    },
    /// thisUpdate lies in the future.
    #[error(
        "CRL of {issuer}: made at {this_update}, in the future; check the clocks of this machine and of the CA"
    )]
    Future {
        /// The issuer's name.
        issuer: String,
        /// When it says that it was made.
        this_update: String,
    },
    /// A newer one is known (R5).
    #[error("CRL of {issuer}: made at {got}, but one of {known} is known; wanted a newer one; publish again")]
    Older {
        /// The issuer's name.
        issuer: String,
        /// When this one was made.
        got: String,
        /// When the known one was made.
        known: String,
    },
}

fn ders(crl: &[u8]) -> Result<Vec<Vec<u8>>, PemError> {
    if crl.first() == Some(&0x30) && crl.len() <= pem::FILE_BYTES_MAX {
        return Ok(vec![crl.to_vec()]);
    }
    Ok(pem::crls(crl, "CRL")?.iter().map(|der| der.as_ref().to_vec()).collect())
}
