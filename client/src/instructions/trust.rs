//! The roots and revocation lists that signatures are judged by, from files that may change while the client runs.

use std::io;
use std::path::{Path, PathBuf};

use muster_pki::{Certificate, CrlError, RevocationIndex, Roots, RootsError, UnixTime, pem};

use crate::config::TrustConfig;

/// Where they are.
#[derive(Debug, Clone)]
pub(crate) struct SigningFiles {
    /// Roots by role.
    pub(crate) trust: TrustConfig,
    /// Revocation lists of any issuer; those of others than the signers' are passed over.
    pub(crate) crls: Vec<PathBuf>,
}

/// Why they cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file cannot be read.
    #[error("{key}: {path}: {cause}")]
    File {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// A file holds no roots.
    #[error("{key}: {cause}")]
    Roots {
        /// The key of the configuration.
        key: &'static str,
        /// What is wrong.
        cause: RootsError,
    },
    /// Two roles share a root, so that one's signer could pass for the other's.
    #[error("{one} and {other} share the root {thumbprint}; every role needs roots of its own")]
    Shared {
        /// A key of the configuration.
        one: &'static str,
        /// Another.
        other: &'static str,
        /// The root.
        thumbprint: String,
    },
    /// A revocation list does not hold.
    #[error("crls: {path}: {cause}")]
    Crl {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: CrlError,
    },
}

/// What was read.
#[derive(Debug)]
pub(crate) struct SigningTrust {
    pub(crate) authors: Roots,
    pub(crate) orders: Roots,
    pub(crate) licences: Roots,
    pub(crate) revocation: RevocationIndex,
}

impl SigningFiles {
    /// Reads all of them.
    pub(crate) fn read(&self, now: UnixTime) -> Result<SigningTrust, TrustError> {
        let switch = roots("trust.switch", &self.trust.switch)?;
        let authors = roots("trust.authors", &self.trust.authors)?;
        let orders = roots("trust.orders", &self.trust.orders)?;
        let licences = roots("trust.licences", &self.trust.licences)?;
        let stores = [
            ("trust.switch", &switch),
            ("trust.authors", &authors),
            ("trust.orders", &orders),
            ("trust.licences", &licences),
        ];
        for (at, (one, store)) in stores.iter().enumerate() {
            for (other, with) in &stores[at + 1..] {
                if let Some(thumbprint) = store.overlaps(with) {
                    let thumbprint = thumbprint.to_string();
                    return Err(TrustError::Shared { one, other, thumbprint });
                }
            }
        }
        let issuers: Vec<Certificate> =
            [&authors, &orders, &licences].into_iter().flat_map(Roots::iter).cloned().collect();
        let revocation = self.revocation(&issuers, now)?;
        Ok(SigningTrust { authors, orders, licences, revocation })
    }

    fn revocation(&self, issuers: &[Certificate], now: UnixTime) -> Result<RevocationIndex, TrustError> {
        let mut index = RevocationIndex::default();
        for path in &self.crls {
            let bytes = read("crls", path)?;
            // A file may hold the certificate of the CA that signed its list, when that is no root.
            let beside = pem::read(&bytes, "CRL").map(|contents| contents.certificates).unwrap_or_default();
            let beside = beside.iter().filter_map(|der| Certificate::from_der(der).ok());
            let candidates: Vec<Certificate> = issuers.iter().cloned().chain(beside).collect();
            match index.add(&bytes, &candidates, now) {
                // The same key names the lists of servers' issuers.
                Ok(()) | Err(CrlError::UnknownIssuer { .. }) => {}
                Err(cause) => return Err(TrustError::Crl { path: path.clone(), cause }),
            }
        }
        Ok(index)
    }
}

fn roots(key: &'static str, path: &Path) -> Result<Roots, TrustError> {
    let bytes = read(key, path)?;
    Roots::from_pem(&bytes, &path.display().to_string()).map_err(|cause| TrustError::Roots { key, cause })
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TrustError> {
    std::fs::read(path).map_err(|cause| TrustError::File { key, path: path.to_owned(), cause })
}
