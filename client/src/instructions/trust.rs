//! The roots and revocation lists that signatures are judged by: what their files say. [`super::live`] follows them.

use std::fs::File;
use std::io::{self, Read};
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

/// What signatures are judged by.
#[derive(Debug)]
pub(crate) struct SigningTrust {
    pub(super) roots: SigningRoots,
    pub(super) revocation: RevocationIndex,
}

/// The roots of everyone who signs.
#[derive(Debug, Clone)]
pub(super) struct SigningRoots {
    pub(super) authors: Roots,
    pub(super) orders: Roots,
    pub(super) licences: Roots,
}

/// The bytes of all files at one moment.
#[derive(Debug)]
pub(super) struct Contents {
    /// Of the four files of roots, in the order of [`SigningFiles::roots`].
    roots: Vec<FileBytes>,
    /// Of the revocation lists, in the order of the configuration.
    pub(super) crls: Vec<FileBytes>,
}

/// A file as it was read, or why it was not.
#[derive(Debug)]
pub(super) struct FileBytes {
    key: &'static str,
    path: PathBuf,
    bytes: io::Result<Vec<u8>>,
}

/// What came of a file of revocation lists.
#[derive(Debug, Default)]
pub(super) struct Added {
    /// Lists that were taken.
    pub(super) lists: usize,
    /// Why the file, or a list in it, was not.
    pub(super) problem: Option<TrustError>,
}

/// Tells whether a file changed since it was last looked at: BLAKE3 of its bytes, or why they cannot be read.
pub(super) type Fingerprint = Result<blake3::Hash, io::ErrorKind>;

impl SigningFiles {
    /// Reads all of them. Blocks on the disk.
    pub(super) fn read(&self) -> Contents {
        let roots = [
            ("trust.switch", &self.trust.switch),
            ("trust.authors", &self.trust.authors),
            ("trust.orders", &self.trust.orders),
            ("trust.licences", &self.trust.licences),
        ];
        Contents {
            roots: roots.map(|(key, path)| FileBytes::read(key, path)).into(),
            crls: self.crls.iter().map(|path| FileBytes::read("crls", path)).collect(),
        }
    }
}

impl Contents {
    /// Returns the fingerprints of the roots.
    pub(super) fn roots_fingerprint(&self) -> Vec<Fingerprint> {
        self.roots.iter().map(FileBytes::fingerprint).collect()
    }

    /// Reads the roots of every role; no two may share one.
    pub(super) fn roots(&self) -> Result<SigningRoots, TrustError> {
        let mut stores = Vec::new();
        for file in &self.roots {
            stores.push((file.key, file.roots()?));
        }
        for (at, (one, store)) in stores.iter().enumerate() {
            for (other, with) in &stores[at + 1..] {
                if let Some(thumbprint) = store.overlaps(with) {
                    let thumbprint = thumbprint.to_string();
                    return Err(TrustError::Shared { one, other, thumbprint });
                }
            }
        }
        // In the order of `SigningFiles::read`; the servers' were needed for the comparison only.
        let mut stores = stores.into_iter().skip(1).map(|(_, store)| store);
        let mut next = || stores.next().unwrap_or_default();
        Ok(SigningRoots { authors: next(), orders: next(), licences: next() })
    }
}

impl SigningRoots {
    /// Returns every root, whatever its role.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Certificate> {
        [&self.authors, &self.orders, &self.licences].into_iter().flat_map(Roots::iter)
    }
}

impl FileBytes {
    fn read(key: &'static str, path: &Path) -> Self {
        // One byte beyond the bound is enough for the reader of PEM to refuse it.
        let bytes_max = pem::FILE_BYTES_MAX as u64 + 1;
        let read = || {
            let mut bytes = Vec::new();
            File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        Self { key, path: path.to_owned(), bytes: read() }
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.bytes.as_ref().map(|bytes| blake3::hash(bytes)).map_err(io::Error::kind)
    }

    fn roots(&self) -> Result<Roots, TrustError> {
        Roots::from_pem(self.bytes()?, &self.path.display().to_string())
            .map_err(|cause| TrustError::Roots { key: self.key, cause })
    }

    /// Verifies the revocation lists of the file and adds them. Each stands alone: one that is refused does not keep the
    /// others out, and those of issuers that sign nothing for this device are passed over.
    pub(super) fn add_to(&self, index: &mut RevocationIndex, roots: &SigningRoots, now: UnixTime) -> Added {
        let mut added = Added::default();
        if let Err(error) = self.add_each(index, roots, now, &mut added) {
            added.problem = Some(error);
        }
        added
    }

    fn add_each(
        &self,
        index: &mut RevocationIndex,
        roots: &SigningRoots,
        now: UnixTime,
        added: &mut Added,
    ) -> Result<(), TrustError> {
        let refused = |cause| TrustError::Crl { path: self.path.clone(), cause };
        let bytes = self.bytes()?;
        // A file may hold the certificate of the CA that signed its list, when that is no root.
        let beside = pem::read(bytes, "CRL").map(|contents| contents.certificates).unwrap_or_default();
        let beside = beside.iter().filter_map(|der| Certificate::from_der(der).ok());
        let candidates: Vec<Certificate> = roots.iter().cloned().chain(beside).collect();
        let mut outcome = Ok(());
        for list in lists(bytes).map_err(refused)? {
            match index.add(&list, &candidates, now) {
                Ok(()) => added.lists += 1,
                // The same key of the configuration names the lists of servers' issuers.
                Err(error @ CrlError::UnknownIssuer { .. }) => {
                    tracing::debug!(%error, path = %self.path.display(), "a list is passed over");
                }
                Err(cause) => outcome = outcome.and(Err(refused(cause))),
            }
        }
        outcome
    }

    fn bytes(&self) -> Result<&[u8], TrustError> {
        self.bytes.as_deref().map_err(|error| TrustError::File {
            key: self.key,
            path: self.path.clone(),
            cause: io::Error::new(error.kind(), error.to_string()),
        })
    }
}

/// Returns the lists of a file one by one, as DER.
fn lists(bytes: &[u8]) -> Result<Vec<Vec<u8>>, CrlError> {
    /// A DER sequence begins with it; PEM does not.
    const SEQUENCE: u8 = 0x30;
    if bytes.first() == Some(&SEQUENCE) {
        return Ok(vec![bytes.to_vec()]);
    }
    Ok(pem::crls(bytes, "CRL")?.iter().map(|der| der.to_vec()).collect())
}
