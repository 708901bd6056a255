//! [`Kept`]: what revocation remembers over restarts: fetched CRLs with their validators, the newest CRLs of files, the issuing CAs
//! that were met, and since when each issuer is configured.
//!
//! A folder with `state.json` and a file for each CRL, named after its URL's digest, or its scope if it came from a file. All of it can
//! be deleted: CRLs are fetched again, issuing CAs are met again, and the day of grace of issuers without any begins anew; but a
//! file whose CRL went back meanwhile is believed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use muster_pki::{Certificate, Loaded, RevocationIndex, Thumbprint, UnixTime, Validators};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Keeping;
use super::dues::Dues;
use crate::credentials::durable::replace;
use crate::credentials::files::{read, read_at_most};

/// Most issuers that it is remembered of since when they are configured; those that are at present are, whatever their number.
const CONFIGURED_SINCE_MAX: usize = 4_096;

/// Largest `state.json` that is read: some KiB for each of the URLs and issuers there are.
const STATE_BYTES_MAX: u64 = 16 << 20;

/// For how long the CRL of a file is kept that is gone.
const LIST_KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);

/// How the names of CRLs begin that came from files.
const LIST: &str = "file-";

/// The folder, and what `state.json` in it says.
#[derive(Debug, Default)]
pub(super) struct Kept {
    folder: Option<PathBuf>,
    /// It is another process that writes it.
    is_of_another: bool,
    state: State,
    /// The issuers for which one asked since when they are configured.
    asked: BTreeSet<String>,
    /// The CRLs of files that are kept as they are in use, or newer.
    compared: BTreeMap<Thumbprint, Thumbprint>,
    has_changed: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// Issuing CAs that were met in verified chains, in hex.
    #[serde(default)]
    met: Vec<String>,
    /// Since when each issuer is configured, by the SHA-256 of its name and key.
    configured_since: BTreeMap<String, u64>,
    /// Since when there is no room for further issuing CAs of chains.
    #[serde(default)]
    full_since: Option<u64>,
    /// Fetched CRLs, by URL.
    crls: BTreeMap<String, KeptCrl>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeptCrl {
    etag: Option<String>,
    last_modified: Option<String>,
    /// What was loaded from it.
    #[serde(skip)]
    loaded: Vec<Loaded>,
}

impl Kept {
    /// Reads the folder; [`Self::save`] makes it. One that cannot be read is begun anew, and says so.
    pub(super) fn open(keeping: &Keeping, now: UnixTime) -> Self {
        let (folder, is_of_another) = match keeping {
            Keeping::Nothing => return Self::default(),
            Keeping::In(folder) => (folder, false),
            Keeping::OfAnother(folder) => (folder, true),
        };
        let mut this = Self { folder: Some(folder.clone()), is_of_another, ..Self::default() };
        let path = folder.join("state.json");
        match read_at_most(&path, STATE_BYTES_MAX) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(state) => this.state = state,
                Err(error) => tracing::warn!(file = %path.display(), %error, "is damaged and begun anew"),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(file = %path.display(), %error, "cannot be read and is begun anew"),
        }
        // A time ahead of the clock would stretch the grace.
        let now = now.as_secs();
        let times = this.state.configured_since.values_mut().chain(&mut this.state.full_since);
        times.for_each(|time| *time = (*time).min(now));
        this
    }

    /// Adds the CRLs that were fetched before the start. One that is damaged or signed by nobody known is forgotten.
    pub(super) fn load_into(
        &mut self,
        index: &mut RevocationIndex,
        candidates: &[Certificate],
        now: UnixTime,
        dues: &mut Dues,
    ) {
        let unloaded = self.load_again(index, candidates, now, dues);
        let Some(folder) = self.written() else { return };
        for (url, problem) in unloaded {
            tracing::warn!(url, problem, "a CRL that was kept is fetched again");
            let _missing_is_fine = std::fs::remove_file(folder.join(file_name(&url)));
            self.state.crls.remove(&url);
            self.has_changed = true;
        }
    }

    /// Adds the kept CRLs, and returns those that do not load. They stay on the disk, as the issuer of each may come back; until
    /// then nothing is known of them, so that the next fetch asks for all of it.
    pub(super) fn load_again(
        &mut self,
        index: &mut RevocationIndex,
        candidates: &[Certificate],
        now: UnixTime,
        dues: &mut Dues,
    ) -> Vec<(String, String)> {
        let Some(folder) = &self.folder else { return Vec::new() };
        // Those of files that are gone from the index are compared again.
        self.compared.clear();
        let mut unloaded = Vec::new();
        for (url, kept) in &mut self.state.crls {
            let path = folder.join(file_name(url));
            let loaded = match read(&path) {
                Ok(bytes) => index.load(&bytes, candidates, now).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match loaded {
                Ok(loaded) => {
                    dues.note(url, &loaded);
                    kept.loaded = loaded;
                }
                Err(problem) => {
                    kept.loaded.clear();
                    unloaded.push((url.clone(), problem));
                }
            }
        }
        unloaded
    }

    /// Returns what was loaded of the fetched CRLs, by URL.
    pub(super) fn loaded(&self) -> impl Iterator<Item = (&str, &[Loaded])> {
        self.state.crls.iter().map(|(url, kept)| (url.as_str(), kept.loaded.as_slice()))
    }

    /// Returns since when `issuer` is configured; `now`, if it was not before.
    pub(super) fn configured_since(&mut self, issuer: &Certificate, now: UnixTime) -> UnixTime {
        let key = Thumbprint::of(&[issuer.subject_der(), issuer.spki_der()].concat()).to_string();
        self.asked.insert(key.clone());
        let since = self.state.configured_since.entry(key).or_insert_with(|| {
            self.has_changed = true;
            now.as_secs()
        });
        UnixTime::since_unix_epoch(Duration::from_secs(*since))
    }

    /// Forgets since when others than those just asked for were configured, if there are too many of them.
    pub(super) fn bound_configured_since(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        if self.state.configured_since.len() > CONFIGURED_SINCE_MAX.max(asked.len()) {
            self.state.configured_since.retain(|key, _| asked.contains(key));
            self.has_changed = true;
        }
    }

    /// Returns since when there is no room for further issuing CAs; `now`, if there was before.
    pub(super) fn full_since(&mut self, is_full: bool, now: UnixTime) -> Option<UnixTime> {
        let since = is_full.then(|| self.state.full_since.unwrap_or(now.as_secs()));
        self.has_changed |= since != self.state.full_since;
        self.state.full_since = since;
        since.map(|since| UnixTime::since_unix_epoch(Duration::from_secs(since)))
    }

    /// Returns the issuing CAs that were met before the start. One that cannot be read is met again.
    pub(super) fn met(&self) -> Vec<Certificate> {
        let ders = self.state.met.iter().filter_map(|text| hex::decode(text).ok());
        ders.filter_map(|der| Certificate::from_der(&der).ok()).collect()
    }

    /// Keeps the issuing CAs that were met.
    pub(super) fn set_met<'a>(&mut self, met: impl Iterator<Item = &'a Certificate>) {
        let met: Vec<String> = met.map(|certificate| hex::encode(certificate.der())).collect();
        if met != self.state.met {
            self.state.met = met;
            self.has_changed = true;
        }
    }

    /// Keeps a CRL that was fetched and loaded.
    pub(super) fn put(&mut self, url: &str, body: &[u8], validators: &Validators) {
        let Some(folder) = self.written() else { return };
        // The validators go last: with them, but without the CRL, the server would say that there is nothing new.
        let kept =
            std::fs::create_dir_all(&folder).and_then(|()| replace(&folder.join(file_name(url)), body));
        if let Err(error) = kept {
            tracing::warn!(url, %error, "the CRL is in use, and not kept over a restart");
            return;
        }
        let Validators { etag, last_modified } = validators.clone();
        self.state.crls.insert(url.to_owned(), KeptCrl { etag, last_modified, loaded: Vec::new() });
        self.has_changed = true;
        self.save();
    }

    /// Returns the CRL of a file that was kept last of this scope, where it has not been compared with what is in use.
    pub(super) fn list_to_compare(&self, scope: Thumbprint) -> Option<Zeroizing<Vec<u8>>> {
        let folder = self.folder.as_ref().filter(|_| !self.compared.contains_key(&scope))?;
        read(&folder.join(list_name(scope))).ok()
    }

    /// Keeps a CRL that was loaded from a file, as DER: should the file go back while nothing runs, it is noticed.
    pub(super) fn put_list(&mut self, scope: Thumbprint, list: &[u8]) {
        let Some(folder) = self.written() else { return };
        let (path, digest) = (folder.join(list_name(scope)), Thumbprint::of(list));
        let is_kept = match self.compared.get(&scope) {
            Some(kept) => *kept == digest,
            None => read(&path).is_ok_and(|kept| kept.as_slice() == list),
        };
        if !is_kept && let Err(error) = std::fs::create_dir_all(&folder).and_then(|()| replace(&path, list)) {
            tracing::warn!(file = %path.display(), %error, "a CRL of a file is in use, and not kept over a restart");
            return;
        }
        self.compared.insert(scope, digest);
    }

    /// Drops the CRLs of files that none of the files has any more, a month after they were kept: a file that is away for a while may
    /// come back older. Call it when all of them were loaded.
    pub(super) fn end_lists_of_no_file(&self, now: UnixTime) {
        let Some(entries) = self.written().and_then(|folder| std::fs::read_dir(folder).ok()) else {
            return;
        };
        let names: BTreeSet<String> = self.compared.keys().map(|scope| list_name(*scope)).collect();
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let kept = entry.metadata().and_then(|data| data.modified()).ok();
            let kept =
                kept.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |time| time.as_secs());
            let is_old = kept.saturating_add(LIST_KEPT.as_secs()) < now.as_secs();
            if name.starts_with(LIST) && !names.contains(&name) && is_old {
                let _missing_is_fine = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Returns validators and due time of the CRL of `url` that was loaded at the start, if it is of an issuer that publishes there.
    pub(super) fn resumed(
        &self,
        url: &str,
        is_expected: impl Fn(&[u8]) -> bool,
    ) -> Option<(Validators, UnixTime)> {
        let kept = self.state.crls.get(url)?;
        let validators = Validators { etag: kept.etag.clone(), last_modified: kept.last_modified.clone() };
        let expected = kept.loaded.iter().filter(|crl| is_expected(&crl.issuer_der));
        Some((validators, expected.map(|crl| crl.next_update).min()?))
    }

    /// Returns the folder, if it is ours to write.
    fn written(&self) -> Option<PathBuf> {
        self.folder.clone().filter(|_| !self.is_of_another)
    }

    /// Writes `state.json` if anything changed.
    pub(super) fn save(&mut self) {
        let Some(folder) = self.written().filter(|_| self.has_changed) else { return };
        let path = folder.join("state.json");
        let written = serde_json::to_vec_pretty(&self.state)
            .map_err(std::io::Error::other)
            .and_then(|bytes| std::fs::create_dir_all(&folder).and_then(|()| replace(&path, &bytes)));
        match written {
            Ok(()) => self.has_changed = false,
            Err(error) => tracing::warn!(file = %path.display(), %error, "cannot be written"),
        }
    }
}

fn list_name(scope: Thumbprint) -> String {
    format!("{LIST}{}.crl", scope.to_string().replace(':', ""))
}

fn file_name(url: &str) -> String {
    format!("{}.crl", Thumbprint::of(url.as_bytes()).to_string().replace(':', ""))
}
