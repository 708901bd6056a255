//! The roots that signatures are judged by: what their files say. [`super::live`] follows them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use muster_pki::{Roots, RootsError, pem};
use muster_service::credentials::TrustFolderError;

use crate::config::TrustConfig;
use crate::profile;

/// What the trust store is called beside the files of roots.
pub(crate) const FOLDER: &str = "trust.folder";

/// What the CAs are called that a policy adds to those of servers.
pub(crate) const POLICY: &str = "the CAs of the policy";

/// What the roots of timestamp authorities are called.
const TIMESTAMPS: &str = "trust.timestamps";

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
    #[error(
        "{one} and {other} share the root {thumbprint}; every role needs roots of its own: take it out of one of them"
    )]
    Shared {
        /// A key of the configuration, or the CAs of a policy.
        one: &'static str,
        /// Another.
        other: &'static str,
        /// The root.
        thumbprint: String,
    },
    /// The trust store that stands in for the servers' roots cannot be read.
    #[error("{FOLDER}: {0}")]
    Folder(String),
}

/// The roots of everyone who signs.
#[derive(Debug, Clone)]
pub(super) struct SigningRoots {
    pub(super) authors: Roots,
    pub(super) orders: Roots,
    /// Of the Switch's own keys; empty: it has none that counts.
    pub(super) switch_orders: Roots,
    pub(super) licences: Roots,
    /// Empty: no policy is ever taken.
    pub(super) policies: Roots,
    /// `None`: no timestamp is believed.
    pub(super) timestamps: Option<Roots>,
}

/// The bytes of all files at one moment.
#[derive(Debug)]
pub(super) struct Contents {
    /// Of every file of roots that is named.
    roots: Vec<FileBytes>,
    /// The CAs of the trust store, where one stands in for the servers' roots.
    servers: Option<Result<Roots, TrustFolderError>>,
}

/// A file as it was read, or why it was not.
#[derive(Debug)]
struct FileBytes {
    key: &'static str,
    path: PathBuf,
    bytes: io::Result<Vec<u8>>,
}

/// Tells whether a file changed since it was last looked at: BLAKE3 of its bytes, or why they cannot be read.
pub(super) type Fingerprint = Result<blake3::Hash, io::ErrorKind>;

impl Contents {
    /// Reads all of them. Blocks on the disk.
    pub(super) fn read(trust: &TrustConfig) -> Self {
        let roots = [
            ("trust.switch", &trust.switch),
            ("trust.authors", &trust.authors),
            ("trust.orders", &trust.orders),
            ("trust.switch_orders", &trust.switch_orders),
            ("trust.licences", &trust.licences),
            ("trust.policies", &trust.policies),
            (TIMESTAMPS, &trust.timestamps),
        ];
        // A trust store may stand in for the servers' roots, and nobody need sign policies, nor a Switch orders, nor give
        // timestamps; the others are never left out.
        let may_lack = ["trust.switch", "trust.switch_orders", "trust.policies", TIMESTAMPS];
        let is_named =
            |(key, path): &(&str, &PathBuf)| !path.as_os_str().is_empty() || !may_lack.contains(key);
        Self {
            roots: roots.into_iter().filter(is_named).map(|(key, path)| FileBytes::read(key, path)).collect(),
            servers: profile::folder(trust).map(|folder| folder.authorities()),
        }
    }

    /// Returns the fingerprints of the roots.
    pub(super) fn roots_fingerprint(&self) -> Vec<Fingerprint> {
        let servers = self.servers.iter().map(|servers| match servers {
            Ok(roots) => {
                let each: Vec<String> = roots.iter().map(|root| root.thumbprint().to_string()).collect();
                Ok(blake3::hash(each.join("\n").as_bytes()))
            }
            Err(_) => Err(io::ErrorKind::Other),
        });
        self.roots.iter().map(FileBytes::fingerprint).chain(servers).collect()
    }

    /// Reads the roots of every role; no two may share one.
    pub(super) fn roots(&self) -> Result<SigningRoots, TrustError> {
        let mut stores = Vec::new();
        for file in &self.roots {
            stores.push((file.key, file.roots()?));
        }
        match &self.servers {
            Some(Ok(roots)) => stores.push((FOLDER, roots.clone())),
            Some(Err(error)) => return Err(TrustError::Folder(error.to_string())),
            None => {}
        }
        for (at, (one, store)) in stores.iter().enumerate() {
            for (other, with) in &stores[at + 1..] {
                if let Some(thumbprint) = store.overlaps(with) {
                    let thumbprint = thumbprint.to_string();
                    return Err(TrustError::Shared { one, other, thumbprint });
                }
            }
        }
        // The servers' were needed for the comparison only.
        let of = |wanted: &str| {
            let found = stores.iter().find(|(key, _)| *key == wanted);
            found.map(|(_, store)| store.clone()).unwrap_or_default()
        };
        Ok(SigningRoots {
            authors: of("trust.authors"),
            orders: of("trust.orders"),
            switch_orders: of("trust.switch_orders"),
            licences: of("trust.licences"),
            policies: of("trust.policies"),
            timestamps: stores.iter().find(|(key, _)| *key == TIMESTAMPS).map(|(_, store)| store.clone()),
        })
    }
}

/// Returns which file of signers' roots has a CA of servers, too; these come from `one`. What cannot be read is told where it is used.
pub(crate) fn shared_with_signers(
    trust: &TrustConfig,
    one: &'static str,
    servers: &Roots,
) -> Option<TrustError> {
    let contents = Contents::read(trust);
    let signers = contents.roots.iter().filter(|file| file.key != "trust.switch");
    signers.filter_map(|file| Some((file.key, file.roots().ok()?))).find_map(|(other, roots)| {
        let thumbprint = roots.overlaps(servers)?.to_string();
        Some(TrustError::Shared { one, other, thumbprint })
    })
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

    fn fingerprint(&self) -> Fingerprint {
        self.bytes.as_ref().map(|bytes| blake3::hash(bytes)).map_err(io::Error::kind)
    }

    fn roots(&self) -> Result<Roots, TrustError> {
        Roots::from_pem(self.bytes()?, &self.path.display().to_string())
            .map_err(|cause| TrustError::Roots { key: self.key, cause })
    }

    fn bytes(&self) -> Result<&[u8], TrustError> {
        self.bytes.as_deref().map_err(|error| TrustError::File {
            key: self.key,
            path: self.path.clone(),
            cause: io::Error::new(error.kind(), error.to_string()),
        })
    }
}
