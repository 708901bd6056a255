//! [`CertificateStore`]: a folder of certificates with their keys, of which the rules of selection choose one (S1–S5, S7, N2, C5).
//!
//! ```text
//! FOLDER/web1.pfx               a PFX with certificate, CAs and key
//! FOLDER/web1.pem               PEM: certificate, CAs, and the key, or the key beside it …
//! FOLDER/web1.key               … under the same name
//! ```
//! Whoever brings a certificate puts its file there, under any name; nobody edits a configuration when one is renewed (N1).

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use muster_pki::select::{Candidate, Candidates, Chosen, Outcome, PrivateKey, Selection, Wanted};
use muster_pki::{
    Certificate, Identity, IdentityFiles, NamedBytes, RevocationIndex, Role, Thumbprint, UnixTime, pem,
};
use zeroize::Zeroizing;

use super::Rules;
use super::durable::replace;
use super::error::CredentialError;
use super::files::{bytes_of, read_at_most};
use super::judge::Judge;

/// Files of a store that are looked at; a machine has one to five certificates.
pub const STORE_FILES_MAX: usize = 200;
/// The largest file of a store: a PFX with a long chain has some 10 KiB.
pub const STORE_FILE_BYTES_MAX: u64 = 1 << 20;

/// Where certificates are, and which is preferred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// The folder.
    pub folder: PathBuf,
    /// A file with the password of PFX files and encrypted keys.
    pub password_file: Option<PathBuf>,
    /// Whom to prefer.
    pub selection: Selection,
    /// What the certificate is for.
    pub wanted: Wanted,
    /// Where the pinned certificate is remembered, so that its successor is found when it is gone (N2).
    pub remembered: Option<PathBuf>,
}

/// The store with its present choice (S4).
#[derive(Debug)]
pub struct CertificateStore {
    settings: StoreSettings,
    chosen: Mutex<Chosen>,
    /// Why there is none at present.
    problem: Mutex<Option<String>>,
}

/// What a folder holds.
#[derive(Debug)]
pub(super) struct Shelf {
    candidates: Candidates,
    /// By position among the candidates.
    identities: Vec<Option<Identity>>,
    fingerprint: Thumbprint,
}

impl CertificateStore {
    /// Opens a store; nothing is read yet but the remembered certificate.
    #[must_use]
    pub fn new(settings: StoreSettings) -> Self {
        let mut chosen = Chosen::of(settings.selection.clone(), settings.wanted.clone());
        let remembered =
            settings.remembered.as_ref().and_then(|path| read_at_most(path, STORE_FILE_BYTES_MAX).ok());
        let remembered = remembered.and_then(|bytes| pem::certificates(&bytes, "remembered").ok());
        if let Some(certificate) =
            remembered.and_then(|ders| ders.first().and_then(|der| Certificate::from_der(der).ok()))
        {
            chosen = chosen.with_pinned_certificate(certificate);
        }
        Self { settings, chosen: Mutex::new(chosen), problem: Mutex::default() }
    }

    /// Returns the folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.settings.folder
    }

    /// Returns whether a server's certificate is looked for.
    pub(super) fn is_of_server(&self) -> bool {
        matches!(self.settings.wanted, Wanted::Server(_))
    }

    /// Returns why there is no certificate at present: each one's reason (S6, S7).
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns what the watcher is to follow: the password's file, and something in the folder.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let inside = self.settings.folder.join("any");
        self.settings.password_file.iter().cloned().chain([inside]).collect()
    }

    /// Reads the folder and chooses. Blocks on the disk.
    ///
    /// # Errors
    /// The folder or the password cannot be read. A bad file in the folder is told in the outcome.
    pub fn look(&self, rules: &Rules) -> Result<Outcome, CredentialError> {
        let (shelf, revocation) = (self.shelf(&Judge::new(rules, self.role()))?, rules.revocation.current());
        Ok(self.choose(&shelf, rules.clock.now(), Some(&revocation.index)))
    }

    /// Judges a certificate with its key as one of this store would be, if it were the only one; `source` names it. Nothing is
    /// chosen by it.
    pub fn judge(&self, identity: &Identity, source: &str, rules: &Rules) -> Outcome {
        let (leaf, authorities) = (identity.leaf().clone(), identity.authorities().to_vec());
        let candidate = Candidate::new(leaf, authorities, PrivateKey::Present, source);
        let alone = [Judge::new(rules, self.role()).judged(candidate, identity)].into_iter().collect();
        let mut chosen = Chosen::of(self.settings.selection.clone(), self.settings.wanted.clone());
        chosen.handle_store(rules.clock.now(), &alone, Some(&rules.revocation.current().index))
    }

    fn role(&self) -> Role {
        if self.is_of_server() { Role::Switch } else { Role::Device }
    }

    pub(super) fn shelf(&self, judge: &Judge) -> Result<Shelf, CredentialError> {
        Shelf::read(&self.settings, judge)
    }

    /// Chooses, and returns the identity that goes with the choice; none: [`Self::problem`] says why.
    pub(super) fn take(
        &self,
        mut shelf: Shelf,
        now: UnixTime,
        revocation: Option<&RevocationIndex>,
    ) -> Option<Identity> {
        let outcome = self.choose(&shelf, now, revocation);
        self.tell(&outcome);
        shelf.identities.get_mut(outcome.choice()?.position())?.take()
    }

    fn choose(&self, shelf: &Shelf, now: UnixTime, revocation: Option<&RevocationIndex>) -> Outcome {
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = chosen.pinned_certificate().map(Certificate::thumbprint);
        let outcome = chosen.handle_store(now, &shelf.candidates, revocation);
        if let (Some(path), Some(pinned)) = (&self.settings.remembered, chosen.pinned_certificate())
            && Some(pinned.thumbprint()) != before
            && let Err(error) = replace(path, pinned.pem().as_bytes())
        {
            tracing::warn!(file = %path.display(), %error, "the pinned certificate is not remembered over a restart");
        }
        outcome
    }

    /// Logs what changed (N2), and notes why there is none.
    fn tell(&self, outcome: &Outcome) {
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.settings.folder.display();
        match outcome {
            Outcome::Kept { .. } => *problem = None,
            Outcome::Changed { choice, .. } => {
                // With what lost, and why; a report tells of a pinned thumbprint, too (N2).
                tracing::info!(%folder, %outcome, report = %choice.report(), "certificate chosen");
                *problem = None;
            }
            Outcome::Missing { missing, .. } => {
                let text = format!("{folder}: {missing}");
                if problem.as_ref() != Some(&text) {
                    tracing::error!(%folder, %outcome, "no certificate will do");
                }
                *problem = Some(text);
            }
        }
    }
}

impl Shelf {
    /// Returns a digest of everything that was read.
    pub(super) fn fingerprint(&self) -> Thumbprint {
        self.fingerprint
    }

    fn read(settings: &StoreSettings, judge: &Judge) -> Result<Self, CredentialError> {
        let password = match &settings.password_file {
            Some(path) => Some(password(path)?),
            None => None,
        };
        let password = password.as_ref().map(|text| text.as_str());
        let mut shelf = Self {
            candidates: Candidates::default(),
            identities: Vec::new(),
            fingerprint: Thumbprint::of(&[]),
        };
        let mut digests = vec![Thumbprint::of(password.unwrap_or_default().as_bytes()).to_string()];
        for path in certificate_files(&settings.folder)? {
            let source = path.display().to_string();
            let key_path = path.with_extension("key");
            let key = key_path.is_file().then(|| read_at_most(&key_path, STORE_FILE_BYTES_MAX));
            match (read_at_most(&path, STORE_FILE_BYTES_MAX), key.transpose()) {
                (Ok(bytes), Ok(key)) => {
                    digests.push(Thumbprint::of(&bytes).to_string());
                    digests.extend(key.as_ref().map(|key| Thumbprint::of(key).to_string()));
                    let key = key.as_ref().map(|key| (key_path.display().to_string(), key));
                    let key = key.as_ref().map(|(what, bytes)| NamedBytes { what, bytes });
                    shelf.put(NamedBytes { what: &source, bytes: &bytes }, key, password, judge);
                }
                (Err(error), _) | (Ok(_), Err(error)) => {
                    digests.push(error.to_string());
                    shelf.candidates.push_unread(source, error.to_string());
                }
            }
        }
        shelf.fingerprint = Thumbprint::of(digests.join("\n").as_bytes());
        Ok(shelf)
    }

    fn put(
        &mut self,
        certificate: NamedBytes<'_>,
        key: Option<NamedBytes<'_>>,
        password: Option<&str>,
        judge: &Judge,
    ) {
        let source = certificate.what;
        match Identity::read(&IdentityFiles { certificate, key, password }) {
            Ok(identity) => {
                let (leaf, authorities) = (identity.leaf().clone(), identity.authorities().to_vec());
                let candidate = Candidate::new(leaf, authorities, PrivateKey::Present, source);
                self.candidates.push(judge.judged(candidate, &identity));
                self.identities.push(Some(identity));
            }
            // Certificates without their key are told in the report as what they are (C5).
            Err(problem) => match leaf_alone(certificate.bytes) {
                Some((leaf, authorities)) => {
                    let key = if key.is_some() { PrivateKey::Foreign } else { PrivateKey::Missing };
                    self.candidates.push(Candidate::new(leaf, authorities, key, source));
                    self.identities.push(None);
                }
                None => self.candidates.push_unread(source, problem.to_string()),
            },
        }
    }
}

/// Returns the first certificate of a PEM file and those behind it.
fn leaf_alone(bytes: &[u8]) -> Option<(Certificate, Vec<Certificate>)> {
    let contents = pem::read(bytes, "store").ok()?;
    let mut certificates = contents.certificates.iter().filter_map(|der| Certificate::from_der(der).ok());
    let leaf = certificates.next()?;
    Some((leaf, certificates.collect()))
}

/// Returns the files of a store in its order, which decides ties (S1): by name. Keys stand beside certificates, and hidden
/// files are half-written ones.
fn certificate_files(folder: &Path) -> Result<Vec<PathBuf>, CredentialError> {
    let unreadable = |source| CredentialError::Read { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_key = path.extension().is_some_and(|extension| extension == "key");
        if !name.starts_with('.') && !is_key && path.is_file() {
            files.push(path);
        }
        if files.len() > STORE_FILES_MAX {
            return Err(CredentialError::CrowdedStore { folder: folder.to_owned(), max: STORE_FILES_MAX });
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a password: the file's one line, without its end.
pub(super) fn password(path: &Path) -> Result<Zeroizing<String>, CredentialError> {
    let bytes = super::files::read(path);
    password_of(path, bytes_of(path, &bytes)?).map(|text| Zeroizing::new(text.to_owned()))
}

/// Returns the password without the line end that editors put behind it.
pub(super) fn password_of<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a str, CredentialError> {
    let text = std::str::from_utf8(bytes).map_err(|_| CredentialError::Password { path: path.to_owned() })?;
    Ok(text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text)))
}
