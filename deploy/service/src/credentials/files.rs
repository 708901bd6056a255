//! Reads the files once, and builds what they say from those bytes.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_pki::{CrlError, Role, Thumbprint};
use zeroize::Zeroizing;

use super::error::CredentialError;
use super::identity::Identity;
use super::trust::Trust;
use super::{Clock, CredentialFiles};

/// The largest file; a CRL with 100,000 entries has 4 MiB.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Which files there are and what they are for.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) own: Option<CredentialFiles>,
    pub(super) own_role: Role,
    pub(super) roots: Vec<(Role, PathBuf)>,
    pub(super) crls: Vec<PathBuf>,
    pub(super) clock: Clock,
}

/// Everything the files say, validated.
#[derive(Clone, Debug)]
pub(super) struct Material {
    pub(super) own: Option<Arc<Identity>>,
    pub(super) trust: Arc<Trust>,
}

impl Material {
    /// Returns whether both are the very same, not only alike.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let own = match (&self.own, &other.own) {
            (Some(own), Some(others)) => Arc::ptr_eq(own, others),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        own && Arc::ptr_eq(&self.trust, &other.trust)
    }
}

/// The bytes of all files at one moment.
pub(super) struct Contents {
    pub(super) certificate: Option<FileBytes>,
    pub(super) key: Option<FileBytes>,
    pub(super) roots: Vec<FileBytes>,
    pub(super) crls: Vec<FileBytes>,
}

/// A file as it was read, or why it was not.
pub(super) type FileBytes = Result<Zeroizing<Vec<u8>>, std::io::Error>;

/// A digest over the bytes of one half of the files, to tell whether anything changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) own: Thumbprint,
    pub(super) trust: Thumbprint,
}

impl Source {
    /// Reads every file.
    pub(super) fn read(&self) -> Contents {
        Contents {
            certificate: self.own.as_ref().map(|own| read(&own.certificate)),
            key: self.own.as_ref().map(|own| read(&own.key)),
            roots: self.roots.iter().map(|(_role, path)| read(path)).collect(),
            crls: self.crls.iter().map(|path| read(path)).collect(),
        }
    }

    /// Builds our own identity from `contents`.
    pub(super) fn own(&self, contents: &Contents) -> Result<Option<Arc<Identity>>, CredentialError> {
        let (Some(files), Some(certificate), Some(key)) = (&self.own, &contents.certificate, &contents.key)
        else {
            return Ok(None);
        };
        let certificate = bytes_of(&files.certificate, certificate)?;
        let key = bytes_of(&files.key, key)?;
        Identity::new(files, certificate, key, self.own_role, self.clock.now()).map(|own| Some(Arc::new(own)))
    }

    /// Builds roots and revocation from `contents`; CRLs may not go back behind those of `before`.
    pub(super) fn trust(
        &self,
        contents: &Contents,
        own: Option<&Identity>,
        before: Option<&Trust>,
    ) -> Result<Arc<Trust>, CredentialError> {
        let (mut roots, mut crls, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for ((role, path), bytes) in self.roots.iter().zip(&contents.roots) {
            match bytes_of(path, bytes) {
                Ok(bytes) => roots.push((*role, path.clone(), bytes)),
                Err(error) => errors.push(error),
            }
        }
        for (path, bytes) in self.crls.iter().zip(&contents.crls) {
            match bytes_of(path, bytes) {
                Ok(bytes) => crls.push((path.clone(), bytes)),
                Err(error) => errors.push(error),
            }
        }
        // What can be read is looked at, too, but for CRLs: their issuers may be in what cannot.
        let readable = if errors.is_empty() { crls.as_slice() } else { &[] };
        match Trust::new(&roots, readable, own, before, self.clock.now()) {
            Ok(trust) if errors.is_empty() => return Ok(Arc::new(trust)),
            Ok(_incomplete) => {}
            Err(error) => errors.extend(error.into_each()),
        }
        Err(CredentialError::of_all(errors).unwrap_or(CredentialError::Several(Vec::new())))
    }

    /// Adds what is wrong with roots and CRLs to a problem with our own certificate. A CRL whose issuer is unknown is
    /// passed over: our own chain may have it.
    pub(super) fn with_trust_problems(&self, contents: &Contents, own: CredentialError) -> CredentialError {
        let trust = self.trust(contents, None, None).err().map(CredentialError::into_each);
        let is_sure = |error: &CredentialError| {
            !matches!(error, CredentialError::Crl { source: CrlError::UnknownIssuer { .. }, .. })
        };
        let mut errors = own.into_each();
        errors.extend(trust.into_iter().flatten().filter(is_sure));
        CredentialError::of_all(errors).unwrap_or(CredentialError::Several(Vec::new()))
    }

    /// Returns every file, for the watcher.
    pub(super) fn paths(&self) -> Vec<&Path> {
        let own = self.own.iter().flat_map(|own| [own.certificate.as_path(), own.key.as_path()]);
        let roots = self.roots.iter().map(|(_role, path)| path.as_path());
        own.chain(roots).chain(self.crls.iter().map(PathBuf::as_path)).collect()
    }
}

impl Contents {
    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint {
            own: digest(self.certificate.iter().chain(&self.key)),
            trust: digest(self.roots.iter().chain(&self.crls)),
        }
    }
}

/// Reads a file of bounded size; one byte more than the bound says that it is larger.
fn read(path: &Path) -> FileBytes {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn bytes_of<'a>(path: &Path, bytes: &'a FileBytes) -> Result<&'a [u8], CredentialError> {
    match bytes {
        Ok(bytes) if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX => {
            Err(CredentialError::TooLarge { path: path.to_owned(), max: FILE_BYTES_MAX })
        }
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(CredentialError::Read {
            path: path.to_owned(),
            source: std::io::Error::new(error.kind(), error.to_string()),
        }),
    }
}

fn digest<'a>(files: impl Iterator<Item = &'a FileBytes>) -> Thumbprint {
    let each: Vec<String> = files
        .map(|file| match file {
            Ok(bytes) => Thumbprint::of(bytes).to_string(),
            Err(error) => error.to_string(),
        })
        .collect();
    Thumbprint::of(each.join("\n").as_bytes())
}
