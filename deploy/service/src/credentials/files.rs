//! Reads the files once, and builds what they say from those bytes.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use muster_pki::trust_store::TrustStore;
use muster_pki::{Role, Thumbprint};
use zeroize::Zeroizing;

use super::error::CredentialError;
use super::identity::{Identity, OwnFiles};
use super::judge::Judge;
use super::store::{CertificateStore, Shelf};
use super::trust::Trust;
use super::trust_folder::{Accepted, TrustFolder, TrustFolderError};
use super::{Own, Rules};

/// The largest file; a CRL with 100,000 entries has 4 MiB.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// Which files there are and what they are for.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) own: Own,
    pub(super) own_role: Role,
    pub(super) roots: Vec<(Role, PathBuf)>,
    /// Servers that are trusted by a client's trust store.
    pub(super) servers: Option<TrustFolder>,
    pub(super) rules: Rules,
    /// Whether peers were judged by the files before: what is refused from then on replaces nothing.
    pub(super) begun: AtomicBool,
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
    pub(super) password: Option<FileBytes>,
    pub(super) shelf: Option<Result<Shelf, CredentialError>>,
    pub(super) roots: Vec<FileBytes>,
    /// The roots of roles that are others' business, and may not be among ours.
    pub(super) others: Vec<FileBytes>,
    pub(super) servers: Option<Result<ReadServers, TrustFolderError>>,
}

/// A client's trust store as it was read.
pub(super) struct ReadServers {
    store: TrustStore,
    /// What of its inputs is not in it.
    problems: Vec<String>,
    inputs: Accepted,
}

/// A file as it was read, or why it was not.
pub type FileBytes = Result<Zeroizing<Vec<u8>>, std::io::Error>;

/// A digest over the bytes of one half of the files, to tell whether anything changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) own: Thumbprint,
    pub(super) trust: Thumbprint,
    pub(super) others: Thumbprint,
}

impl Source {
    /// Reads every file.
    pub(super) fn read(&self) -> Contents {
        let files = self.own.files();
        Contents {
            certificate: files.map(|own| read(&own.certificate)),
            key: files.map(|own| read(&own.key)),
            password: files.and_then(|own| own.password_file.as_deref()).map(read),
            shelf: self.own.store().map(|store| store.shelf(&self.judge())),
            roots: self.roots.iter().map(|(_role, path)| read(path)).collect(),
            others: self.others().map(|(_role, path)| read(path)).collect(),
            servers: self.servers.as_ref().map(read_servers),
        }
    }

    /// Builds our own identity from `contents`. A store keeps the one `before` as long as its choice is the same. Where no
    /// certificate will do, a client has none (S3) and the store says why, see [`CertificateStore::problem`]; for a server that
    /// is an error (S7).
    pub(super) fn own(
        &self,
        contents: &mut Contents,
        before: Option<&Arc<Identity>>,
    ) -> Result<Option<Arc<Identity>>, CredentialError> {
        let own = self.newest(contents, before)?;
        if let Some(own) = &own {
            self.judge().settle(&own.certificate);
        }
        Ok(own)
    }

    fn newest(
        &self,
        contents: &mut Contents,
        before: Option<&Arc<Identity>>,
    ) -> Result<Option<Arc<Identity>>, CredentialError> {
        match &self.own {
            Own::None => Ok(None),
            Own::Files(files) => {
                let (Some(certificate), Some(key)) = (&contents.certificate, &contents.key) else {
                    return Ok(None);
                };
                let files = OwnFiles { files, certificate, key, password: contents.password.as_ref() };
                Identity::new(&files, &self.judge()).map(|own| Some(Arc::new(own)))
            }
            Own::Store(store) => {
                let Some(shelf) = contents.shelf.take() else { return Ok(before.cloned()) };
                let (now, revocation) = (self.rules.clock.now(), self.rules.revocation.current());
                let Some(chosen) = store.take(shelf?, now, Some(&revocation.index)) else {
                    return match store.problem().filter(|_| store.is_of_server()) {
                        Some(problem) if before.is_some() => {
                            Err(CredentialError::NoServerCertificate(problem))
                        }
                        Some(problem) => Err(CredentialError::PortClosed(problem)),
                        None => Ok(None),
                    };
                };
                let is_same = |own: &&Arc<Identity>| own.certificate == *chosen.leaf();
                if let Some(same) = before.filter(is_same) {
                    return Ok(Some(Arc::clone(same)));
                }
                let path = store.folder();
                Identity::of(chosen, path, path, &self.judge()).map(|own| Some(Arc::new(own)))
            }
        }
    }

    fn judge(&self) -> Judge {
        Judge::new(&self.rules, self.own_role)
    }

    /// Returns whether a client may go on without its own certificate until a better one is put into its store (S6).
    pub(super) fn may_wait(&self, error: &CredentialError) -> bool {
        let is_client = self.own.store().is_some_and(|store| !store.is_of_server());
        is_client
            && matches!(
                error,
                CredentialError::OwnCertificate { .. }
                    | CredentialError::OtherDevice { .. }
                    | CredentialError::Key { .. }
            )
    }

    /// Builds what peers are judged by from `contents`.
    pub(super) fn trust(&self, contents: &mut Contents) -> Result<Arc<Trust>, CredentialError> {
        let mut errors = Vec::new();
        let roots = files_of(self.roots.iter(), &contents.roots, &mut errors);
        // One that cannot be read may hold any root: nothing is put to use that could not be compared with it.
        let others = files_of(self.others(), &contents.others, &mut errors);
        let (servers, left_out) = match (contents.servers.take(), &self.servers) {
            (Some(Ok(read)), Some(_))
                if read.inputs == Accepted::No && self.begun.load(Ordering::Relaxed) =>
            {
                errors.push(TrustFolderError::Refused(read.problems).into());
                (None, Vec::new())
            }
            (Some(Ok(read)), Some(folder)) => (Some((read.store, folder.settings().clone())), read.problems),
            (Some(Err(error)), _) => {
                errors.push(error.into());
                (None, Vec::new())
            }
            (Some(Ok(_)) | None, _) => (None, Vec::new()),
        };
        // What can be read is looked at, too: everything that is wrong is told at once.
        match Trust::new(&roots, &others, servers, &self.rules) {
            Ok(trust) if errors.is_empty() => {
                if let Some(folder) = &self.servers {
                    let file = folder.merged_file();
                    for problem in &left_out {
                        tracing::warn!(file = %file.display(), problem, "left out of the trust store");
                    }
                    trust.record_end_of_anchors(&file);
                }
                self.begun.store(true, Ordering::Relaxed);
                return Ok(Arc::new(trust.with_left_out(left_out)));
            }
            Ok(_incomplete) => {}
            Err(error) => errors.extend(error.into_each()),
        }
        Err(CredentialError::of_all(errors).unwrap_or(CredentialError::Several(Vec::new())))
    }

    /// Returns the roles of [`Rules::roles`] that are not ours.
    fn others(&self) -> impl Iterator<Item = &(Role, PathBuf)> {
        let is_ours = |role: &Role| self.roots.iter().any(|(ours, _path)| ours == role);
        self.rules.roles.iter().filter(move |(role, _path)| !is_ours(role))
    }

    /// Adds what is wrong with roots to a problem with our own certificate.
    pub(super) fn with_trust_problems(
        &self,
        contents: &mut Contents,
        own: CredentialError,
    ) -> CredentialError {
        let trust = self.trust(contents).err().map(CredentialError::into_each);
        let mut errors = own.into_each();
        errors.extend(trust.into_iter().flatten());
        CredentialError::of_all(errors).unwrap_or(CredentialError::Several(Vec::new()))
    }

    /// Returns every file, for the watcher.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let own = self.own.files().into_iter().flat_map(|own| {
            [Some(own.certificate.as_path()), Some(own.key.as_path()), own.password_file.as_deref()]
        });
        let store = self.own.store().into_iter().flat_map(CertificateStore::paths);
        let roots = self.roots.iter().chain(self.others()).map(|(_role, path)| path.as_path());
        let servers = self.servers.iter().flat_map(TrustFolder::paths);
        own.flatten().chain(roots).map(Path::to_path_buf).chain(store).chain(servers).collect()
    }
}

impl Contents {
    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint {
            own: match &self.shelf {
                Some(Ok(shelf)) => shelf.fingerprint(),
                Some(Err(error)) => Thumbprint::of(error.to_string().as_bytes()),
                None => digest(self.certificate.iter().chain(&self.key).chain(&self.password)),
            },
            trust: match &self.servers {
                None => digest(self.roots.iter()),
                Some(Ok(read)) => {
                    let anchors = read.store.anchors().iter();
                    let anchors = anchors.map(|anchor| anchor.certificate().thumbprint().to_string());
                    let each: Vec<String> = anchors.chain(read.problems.iter().cloned()).collect();
                    Thumbprint::of(each.join("\n").as_bytes())
                }
                Some(Err(error)) => Thumbprint::of(error.to_string().as_bytes()),
            },
            others: digest(self.others.iter()),
        }
    }
}

/// Roots of a role, with their file and its bytes.
type RootsFile<'a> = (Role, PathBuf, &'a [u8]);

/// Pairs files with their bytes, and tells those that were not read.
fn files_of<'a>(
    files: impl Iterator<Item = &'a (Role, PathBuf)>,
    contents: &'a [FileBytes],
    errors: &mut Vec<CredentialError>,
) -> Vec<RootsFile<'a>> {
    let mut read = Vec::new();
    for ((role, path), bytes) in files.zip(contents) {
        match bytes_of(path, bytes) {
            Ok(bytes) => read.push((*role, path.clone(), bytes)),
            Err(error) => errors.push(error),
        }
    }
    read
}

/// Brings a trust store up to its inputs (T2), and reads it.
fn read_servers(folder: &TrustFolder) -> Result<ReadServers, TrustFolderError> {
    let rebuilt = folder.rebuild(false)?;
    if let Some(reason) = rebuilt.reason {
        let file = folder.merged_file();
        tracing::info!(file = %file.display(), %reason, certificates = rebuilt.certificates, "trust store rebuilt");
    }
    Ok(ReadServers { store: folder.store()?, problems: rebuilt.problems, inputs: rebuilt.inputs })
}

/// Reads a file of bounded size; one byte more than the bound says that it is larger.
pub(super) fn read(path: &Path) -> FileBytes {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file of at most so many bytes; a larger one, or one without an end, is not read beyond them.
///
/// # Errors
/// It is larger, or the system does not give it.
pub fn read_at_most(path: &Path, max: u64) -> FileBytes {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)?.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max {
        return Err(std::io::Error::other(format!("more than {max} bytes")));
    }
    Ok(bytes)
}

pub(super) fn bytes_of<'a>(path: &Path, bytes: &'a FileBytes) -> Result<&'a [u8], CredentialError> {
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
