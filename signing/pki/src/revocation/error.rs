//! Why a CRL is not used, and what is worth telling of one that is.

use std::fmt;

use rustls_pki_types::UnixTime;

use super::extension::Problem;
use super::{CRL_BYTES_MAX, CRLS_PER_ISSUER_MAX};
use crate::instant;
use crate::pem::PemError;

/// Why a CRL is not used. Each is an alarm: the old one stays (R4).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// It is not PEM, or holds no CRL.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// More bytes than are read.
    #[error(
        "{0} bytes; wanted a CRL of at most {CRL_BYTES_MAX} bytes; let the CA drop expired certificates, or publish one CRL for each distribution point"
    )]
    TooLarge(usize),
    /// It is not strict DER.
    #[error("not readable: {0}; wanted an X.509 CRL in strict DER")]
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
        "CRL of {issuer}: no trusted CA of that name that may sign CRLs; wanted the CRL of a CA that is among the roots or above a signer, or that `revocation.issuers` of a service's configuration names"
    )]
    UnknownIssuer {
        /// The issuer's name.
        issuer: String,
    },
    /// The issuer's key did not make the signature, or key or algorithm are refused (C16).
    #[error(
        "CRL of {issuer}: {problem}; wanted the issuer's signature with SHA-256 or better and RSA of at least 2048 bits, ECDSA or Ed25519; fetch or publish it again"
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
        /// When this one was made, and its number.
        got: String,
        /// When the known one was made, and its number.
        known: String,
    },
    /// One more than are kept.
    #[error(
        "CRL of {issuer}: there are {CRLS_PER_ISSUER_MAX} of its key already, each of another distribution point; wanted no more; publish one for all certificates"
    )]
    TooManyOfIssuer {
        /// The issuer's name.
        issuer: String,
    },
}

impl Problem {
    /// Puts the issuer's name in front.
    pub(super) fn of(self, issuer: &str) -> CrlError {
        match self {
            Self::Malformed(malformed) => CrlError::Encoding(malformed.to_string()),
            Self::Unsupported(got) => CrlError::Unsupported { issuer: issuer.to_owned(), got },
        }
    }
}

/// What is worth telling of a CRL that is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrlWarning {
    /// It has no CRLNumber, so that thisUpdate decides which of two is the newer one (R5).
    NoNumber,
    /// Its nextUpdate is over: what it revokes stays revoked, but it counts as stale (R6).
    Expired {
        /// When the next one was due.
        next_update: UnixTime,
    },
    /// Its CRLNumber went on, and its thisUpdate back: the clock of the CA did.
    Backdated {
        /// thisUpdate of the one before.
        before: UnixTime,
    },
}

impl fmt::Display for CrlWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNumber => f.write_str(
                "no CRLNumber, so thisUpdate decides which CRL is the newer one; let the CA number them (`crlnumber` of `openssl ca`)",
            ),
            Self::Expired { next_update } => {
                let due = instant::text(*next_update);
                write!(f, "expired: the next one was due at {due}; publish a new one")
            }
            Self::Backdated { before } => {
                let before = instant::text(*before);
                write!(f, "made before the one it follows ({before}); check the clock of the CA")
            }
        }
    }
}
