//! [`TrustFolder`]: the files behind a client's trust store (T1, T2, T5, T9, T10).
//!
//! ```text
//! cainfo.pem      the server's certificate, saved at install, and what people add   ┐
//! cainfo-ss.pem   site servers                                                      ├─▶ cainfo-merged.pem ─▶ TrustStore
//! ca_file         what the policy names                                             ┘      + ca_path, the system's CAs
//! ```

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use muster_pki::trust_store::{
    AppendError, Appended, FileProblem, INPUT_BYTES_MAX, Input, Inputs, MERGED_FILE, Merged, RebuildReason,
    SERVER_FILE, SITE_SERVERS_FILE, TrustSettings, TrustStore, TrustStoreError, YesNo, append, merge,
    rebuild_reason,
};
use muster_pki::{Certificate, NamedBytes, Roots, pem};

use super::durable;
use super::files::{FILE_BYTES_MAX, read_at_most};

/// Where systems keep their CAs as one PEM file; the first that is there counts.
pub(super) const SYSTEM_STORES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Files of the policy's folder that are read.
const CA_PATH_FILES_MAX: usize = 1_000;

/// A folder of trust files, and how servers are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustFolder {
    folder: PathBuf,
    settings: TrustSettings,
    /// The merged file, where it is not the usual one.
    merged: Option<PathBuf>,
    /// A file of roots that count as well, as they were installed.
    roots: Option<PathBuf>,
    /// CAs that a policy brought with it, and what reports call them.
    authorities: Vec<(String, Vec<Certificate>)>,
}

/// Which file of the folder a certificate is saved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// `cainfo.pem`: Switches and Background Channels.
    Server,
    /// `cainfo-ss.pem`: site servers.
    SiteServer,
}

/// What a look at the inputs did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Why the merged file was written anew; `None`: it stays as it was.
    pub reason: Option<RebuildReason>,
    /// Certificates in it.
    pub certificates: usize,
    /// What was left out, with file and line, however long ago that was.
    pub problems: Vec<String>,
    /// Whether the inputs are as the merged file is.
    pub inputs: Accepted,
}

/// Whether the inputs of a trust store were put to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// They were, but for blocks that cannot be read.
    Yes,
    /// A whole input is refused, and what was trusted before it still is.
    No,
}

/// Why a trust folder is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TrustFolderError {
    /// Reading or writing failed.
    #[error("{}: {source}; see that it is there and the client's user may write it", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A whole input is refused, and there is no merged file of before.
    #[error("{}", .0.join("; "))]
    Refused(Vec<String>),
    /// The merged file cannot be read.
    #[error(transparent)]
    Merged(#[from] TrustStoreError),
    /// A certificate cannot be appended.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// An input as it was found.
enum Found {
    Absent,
    Bytes(Vec<u8>),
    Unusable(FileProblem),
}

impl TrustFolder {
    /// Names a folder; an absolute path.
    #[must_use]
    pub fn new(folder: PathBuf, settings: TrustSettings) -> Self {
        Self { folder, settings, merged: None, roots: None, authorities: Vec::new() }
    }

    /// Merges into another file of the folder: a policy that is only tried must not touch what the followed one goes by (K4).
    #[must_use]
    pub fn merged_into(self, name: &str) -> Self {
        Self { merged: Some(self.folder.join(name)), ..self }
    }

    /// Trusts the roots of a PEM file as well: those that were installed, beside what a policy adds.
    #[must_use]
    pub fn with_roots(self, path: PathBuf) -> Self {
        Self { roots: Some(path), ..self }
    }

    /// Trusts these CAs as well; `origin` names them in reports.
    #[must_use]
    pub fn with_authorities(mut self, origin: &str, authorities: Vec<Certificate>) -> Self {
        self.authorities.push((origin.to_owned(), authorities));
        self
    }

    /// Returns how servers are verified.
    #[must_use]
    pub fn settings(&self) -> &TrustSettings {
        &self.settings
    }

    /// Returns the merged file.
    #[must_use]
    pub fn merged_file(&self) -> PathBuf {
        self.merged.clone().unwrap_or_else(|| self.folder.join(MERGED_FILE))
    }

    /// Returns the inputs and the merged file, for the watcher.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let own = [SERVER_FILE, SITE_SERVERS_FILE].map(|name| self.folder.join(name));
        own.into_iter()
            .chain(self.settings.ca_file().map(Path::to_path_buf))
            .chain(self.roots.clone())
            .collect()
    }

    /// Rebuilds the merged file if an input changed (T2), or in any case with `always` (`muster-client trust rebuild`).
    ///
    /// An input that is refused as a whole leaves the merged file as it is: its anchors are in there. Without a merged file the
    /// other inputs are taken.
    ///
    /// # Errors
    /// The folder cannot be read or written, or nothing can be trusted at all.
    pub fn rebuild(&self, always: bool) -> Result<Rebuilt, TrustFolderError> {
        let merged_path = self.merged_file();
        let names = [SERVER_FILE, SITE_SERVERS_FILE].map(|name| self.folder.join(name).display().to_string());
        let [server_name, site_name] = &names;
        let policy_name = self.settings.ca_file().map(|path| path.display().to_string()).unwrap_or_default();
        let server = look(Path::new(server_name), Expected::No);
        let site = look(Path::new(site_name), Expected::No);
        let policy = match self.settings.ca_file() {
            Some(path) => look(path, Expected::Yes),
            None => Found::Absent,
        };
        let inputs = Inputs {
            server: server.as_input(server_name),
            site_servers: site.as_input(site_name),
            policy: policy.as_input(&policy_name),
        };
        let known = match read_at_most(&merged_path, FILE_BYTES_MAX) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(TrustFolderError::Io { path: merged_path, source }),
        };
        let reason = rebuild_reason(known.as_ref().map(|bytes| bytes.as_slice()), &inputs);
        let reason = if always { Some(reason.unwrap_or(RebuildReason::InputsChanged)) } else { reason };
        let (merged, mut problems) = match merge(&inputs) {
            Ok(merged) => (merged, Vec::new()),
            Err(error) => {
                let refused: Vec<String> = error.refused().iter().map(ToString::to_string).collect();
                // A policy that is only tried is followed by its whole trust, or not at all (K4).
                if self.merged.is_some() && error.refused().iter().any(|one| one.what() == policy_name) {
                    return Err(TrustFolderError::Refused(refused));
                }
                if known.is_some() {
                    return self.kept(refused);
                }
                (error.into_rest(), refused)
            }
        };
        if merged.certificates().is_empty() && known.is_some() && !self.trusts_others() {
            let kept = self.kept(vec![self.emptied()])?;
            if kept.certificates > 0 {
                return Ok(kept);
            }
        }
        problems.extend(merged.problems().iter().map(ToString::to_string));
        problems.extend(self.empty_sources());
        if reason.is_some() {
            self.write(&merged)?;
        }
        let certificates = merged.certificates().len();
        Ok(Rebuilt { reason, certificates, problems, inputs: Accepted::Yes })
    }

    /// Goes on with the merged file that is there.
    fn kept(&self, problems: Vec<String>) -> Result<Rebuilt, TrustFolderError> {
        let certificates = self.read_merged()?.anchors().len();
        Ok(Rebuilt { reason: None, certificates, problems, inputs: Accepted::No })
    }

    /// Returns whether somebody is trusted whom no input of the merged file names.
    fn trusts_others(&self) -> bool {
        let Self { settings, roots, authorities, .. } = self;
        let is_system = settings.use_system_ca_store() == YesNo::Yes;
        is_system || roots.is_some() || settings.ca_path().is_some() || !authorities.is_empty()
    }

    /// Says which sources beside the merged file are named, and give nobody to trust.
    fn empty_sources(&self) -> impl Iterator<Item = String> {
        let folder = self.settings.ca_path().filter(|folder| {
            // One that cannot be read is told where its CAs are wanted.
            let read = folder_of_authorities(folder);
            read.is_ok_and(|files| files.iter().all(|(_file, authorities)| authorities.is_empty()))
        });
        let folder = folder.map(|folder| {
            let folder = folder.display();
            format!("{folder}: no CA in any file of ca_path, wanted PEM files of CAs; put them there, or leave ca_path empty")
        });
        let is_wanted = self.settings.use_system_ca_store() == YesNo::Yes;
        let is_missing = is_wanted && system_store().is_none();
        let system = is_missing.then(|| {
            let places = SYSTEM_STORES.join(", ");
            format!(
                "use_system_ca_store: none of {places} is there; install the system's CAs, or set use_system_ca_store = \"no\""
            )
        });
        folder.into_iter().chain(system)
    }

    /// Says that the inputs would leave nobody trusted, which cuts the device off from whoever could mend it.
    fn emptied(&self) -> String {
        let (folder, merged) = (self.folder.display(), self.merged_file());
        format!(
            "{folder}: no certificate in {SERVER_FILE}, in {SITE_SERVERS_FILE} or in a ca_file, wanted at least one, or no server is \
             trusted; whom {} names stays trusted; put a certificate back, or delete that file as well",
            merged.display()
        )
    }

    /// Reads what is trusted: the merged file, then the policy's folder and the system's CAs.
    ///
    /// # Errors
    /// The merged file cannot be read.
    pub fn store(&self) -> Result<TrustStore, TrustFolderError> {
        let mut store = self.named()?;
        if self.settings.use_system_ca_store() == YesNo::Yes
            && let Some(path) = system_store()
        {
            store = store.with_authorities(&path.display().to_string(), authorities(path)?);
        }
        Ok(store)
    }

    /// Reads the CAs among what is trusted.
    ///
    /// # Errors
    /// As [`Self::store`].
    pub fn authorities(&self) -> Result<Roots, TrustFolderError> {
        Ok(self.store()?.roots().clone())
    }

    /// Reads what people named: all of [`Self::store`] but the system's CAs. These are configured issuers (R1); nobody chose the
    /// system's one by one, and an alarm for each of them without a CRL would be no alarm.
    ///
    /// # Errors
    /// The merged file cannot be read.
    pub(super) fn named(&self) -> Result<TrustStore, TrustFolderError> {
        let mut store = self.read_merged()?;
        if let Some(path) = &self.roots {
            store = store.with_authorities(&path.display().to_string(), installed_roots(path)?);
        }
        for (origin, authorities) in &self.authorities {
            store = store.with_authorities(origin, authorities.iter().cloned());
        }
        if let Some(folder) = self.settings.ca_path() {
            for (origin, authorities) in folder_of_authorities(folder)? {
                store = store.with_authorities(&origin, authorities);
            }
        }
        Ok(store)
    }

    /// Appends a server's certificate (T7); what stands in the file stays byte for byte (T1).
    ///
    /// # Errors
    /// The file cannot be read, written, or appended to.
    pub fn save(
        &self,
        file: Saved,
        certificate: &Certificate,
        note: &str,
    ) -> Result<Appended, TrustFolderError> {
        let name = match file {
            Saved::Server => SERVER_FILE,
            Saved::SiteServer => SITE_SERVERS_FILE,
        };
        std::fs::create_dir_all(&self.folder)
            .map_err(|source| TrustFolderError::Io { path: self.folder.clone(), source })?;
        let path = self.folder.join(name);
        let bytes = match look(&path, Expected::No) {
            Found::Absent => Vec::new(),
            Found::Bytes(bytes) => bytes,
            Found::Unusable(problem) => {
                return Err(TrustFolderError::Refused(vec![format!("{} {problem}", path.display())]));
            }
        };
        let appended =
            append(NamedBytes { what: &path.display().to_string(), bytes: &bytes }, certificate, note)?;
        if let Appended::Changed(content) = &appended {
            durable::replace(&path, content).map_err(|source| TrustFolderError::Io { path, source })?;
        }
        Ok(appended)
    }

    fn read_merged(&self) -> Result<TrustStore, TrustFolderError> {
        let path = self.merged_file();
        let bytes = read_at_most(&path, FILE_BYTES_MAX)
            .map_err(|source| TrustFolderError::Io { path: path.clone(), source })?;
        Ok(TrustStore::read(NamedBytes { what: &path.display().to_string(), bytes: &bytes })?)
    }

    fn write(&self, merged: &Merged) -> Result<(), TrustFolderError> {
        let path = self.merged_file();
        durable::replace(&path, merged.text().as_bytes())
            .map_err(|source| TrustFolderError::Io { path, source })
    }
}

impl Found {
    fn as_input<'a>(&'a self, what: &'a str) -> Input<'a> {
        match self {
            Self::Absent => Input::Absent,
            Self::Bytes(bytes) => Input::File(NamedBytes { what, bytes }),
            Self::Unusable(problem) => Input::Unusable { what, problem },
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Yes,
    No,
}

/// Reads an input, if nobody but its owner could have written it (T10).
fn look(path: &Path, expected: Expected) -> Found {
    if !path.is_absolute() {
        return Found::Unusable(FileProblem::Relative);
    }
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return match expected {
                Expected::Yes => Found::Unusable(FileProblem::Missing),
                Expected::No => Found::Absent,
            };
        }
        Err(error) => return Found::Unusable(FileProblem::Unreadable(error.to_string())),
    };
    if !metadata.is_file() {
        return Found::Unusable(FileProblem::NotAFile);
    }
    // Whoever may replace the file may write it. Sticky folders such as /tmp are no exception: the owner can be anyone.
    let folder = path.parent().and_then(|folder| std::fs::metadata(folder).ok());
    let modes = [Some(metadata.mode()), folder.map(|folder| folder.mode())];
    if let Some(problem) = modes.into_iter().flatten().find_map(FileProblem::of_mode) {
        return Found::Unusable(problem);
    }
    let max = u64::try_from(INPUT_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(max + 1).read_to_end(&mut bytes)) {
        Ok(_) => Found::Bytes(bytes),
        Err(error) => Found::Unusable(FileProblem::Unreadable(error.to_string())),
    }
}

/// Returns the roots of an installed file. It was good enough without a policy, so nothing more is asked of it here.
fn installed_roots(path: &Path) -> Result<Vec<Certificate>, TrustFolderError> {
    let failed = |source| TrustFolderError::Io { path: path.to_owned(), source };
    let bytes = read_at_most(path, FILE_BYTES_MAX).map_err(failed)?;
    let roots = Roots::from_pem(&bytes, &path.display().to_string());
    let roots = roots.map_err(|error| TrustFolderError::Refused(vec![error.to_string()]))?;
    Ok(roots.iter().cloned().collect())
}

/// Returns the file of the system's CAs, if there is one.
fn system_store() -> Option<&'static Path> {
    SYSTEM_STORES.iter().map(Path::new).find(|path| path.is_file())
}

fn folder_of_authorities(folder: &Path) -> Result<Vec<(String, Vec<Certificate>)>, TrustFolderError> {
    let failed = |source| TrustFolderError::Io { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)?.take(CA_PATH_FILES_MAX) {
        let path = entry.map_err(failed)?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    files.iter().map(|path| Ok((path.display().to_string(), authorities(path)?))).collect()
}

/// Returns the certificates of a PEM file; what is none is passed over.
fn authorities(path: &Path) -> Result<Vec<Certificate>, TrustFolderError> {
    match look(path, Expected::Yes) {
        Found::Bytes(bytes) => {
            let contents = pem::read(&bytes, &path.display().to_string()).ok();
            let ders = contents.iter().flat_map(|contents| &contents.certificates);
            Ok(ders.filter_map(|der| Certificate::from_der(der).ok()).collect())
        }
        Found::Unusable(problem) => {
            Err(TrustFolderError::Refused(vec![format!("{} {problem}", path.display())]))
        }
        Found::Absent => Ok(Vec::new()),
    }
}
