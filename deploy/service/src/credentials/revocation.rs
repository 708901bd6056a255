//! [`Revocation`]: the one index of revoked certificates of a process, kept current from files and distribution points.
//!
//! ```text
//! CRL files (watched) ─────────┐   verified once, off the runtime        ┌─▶ Trust of every listener and connection
//! distribution points (HTTP) ──┼──▶ RevocationIndex, swapped whole ──────┤
//! kept from before the start ──┘   a bad CRL changes nothing, and alarms └─▶ Revocations: who was revoked since
//! ```
//! Nothing is fetched but from URLs of configured issuers, and of the CAs that verified chains lead over from there (R1); a signature is verified once, when a CRL is loaded (R7); what
//! a lapsed CRL means is the issuer's [`muster_pki::RevocationMode`] (R6).
//!
//! A CA that has ended stays: documents with a timestamp outlive it, and whom it revoked must stay known. **Limit:** RFC 5280 lets a
//! CA drop an entry when the revoked certificate has ended. What was dropped is not kept: a list does not tell whether the
//! certificate had ended or had been on hold, the lists of devices drop more entries than one has room for, and who comes later never
//! saw them. So a signature whose stamp is later than the revocation of its signer may count again after the signer's end. A
//! licence that distrusts the signer "after" the moment of the theft ends that for good.

mod changes;
mod complaints;
mod dues;
mod fetching;
pub mod http_get;
mod issuers;
mod kept;
mod lists;
mod met;
mod reissue;
mod served;
mod settings;
mod slots;
mod web;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use muster_pki::{
    Certificate, CertificateDer, CrlError, CrlSources, CrlUrl, Facts, Loaded, Policy, RevocationIndex, Role,
    Roots, Thumbprint, UnixTime, Validators, Verdict, check_with,
};
use tokio::sync::{Notify, watch};

pub use self::changes::{PathElement, Revocations};
use self::dues::Dues;
use self::issuers::{Issuers, remembered_max};
use self::kept::Kept;
use self::lists::load_file;
use self::met::Met;
use self::served::Served;
pub use self::settings::{FetchSettings, IssuerSettings, RevocationSettings};
pub use self::web::web_client;
use super::Clock;
use super::error::CredentialError;
use super::files::{FileBytes, read};
use super::live::Reload;
use super::trust_folder::TrustFolder;
use crate::exit::describe;
use crate::metrics;

/// Where the things are that say who may revoke, and who is revoked.
#[derive(Clone, Debug, Default)]
pub struct RevocationFiles {
    /// CRLs, PEM or DER. The file of an issuing CA's CRL may hold that CA's certificate beside it.
    pub crls: Vec<PathBuf>,
    /// The roots of all roles, PEM: each is a configured issuer.
    pub roots: Vec<PathBuf>,
    /// Our own certificate with the CAs behind it, PEM or PFX: these may sign CRLs if a root vouches for them.
    pub own: Option<PathBuf>,
    /// The trust store that servers are judged by: its CAs are configured issuers, as roots are.
    pub servers: Option<TrustFolder>,
    /// The folder that keeps fetched CRLs, and since when each issuer is configured.
    pub kept: Keeping,
}

/// What survives a restart.
#[derive(Clone, Debug, Default)]
pub enum Keeping {
    /// Nothing.
    #[default]
    Nothing,
    /// What is kept in this folder.
    In(PathBuf),
    /// What another process keeps in this folder: it is read and never written, for commands beside a program that runs.
    OfAnother(PathBuf),
}

/// Who is revoked, as of now.
#[derive(Debug)]
pub struct Revocation {
    files: RevocationFiles,
    settings: RevocationSettings,
    clock: Clock,
    current: ArcSwap<Current>,
    writer: Mutex<Writer>,
    sources: Mutex<CrlSources>,
    /// The CAs that servers are judged by, beyond the files.
    stores: Mutex<TrustStores>,
    /// Verified paths over CAs that nobody named, until the next look.
    met: Met,
    /// Wakes the following of files.
    look: Arc<Notify>,
    /// Wakes the fetching when a verified path told a new URL.
    told: Notify,
    /// Where issuers publish that have come, or come back: what is known of these URLs is no answer to the next request.
    anew: Mutex<Vec<CrlUrl>>,
    changes: watch::Sender<u64>,
}

/// A client's trust stores, whose CAs are configured issuers as roots are (R1).
#[derive(Clone, Debug, Default)]
struct TrustStores {
    /// What servers are judged by.
    followed: Option<TrustFolder>,
    /// What a policy is tried by, beside it (K4).
    tried: Option<TrustFolder>,
}

/// What verdicts are reached by.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) index: RevocationIndex,
    /// CAs that are configured by name: a path may lead over them though the peer does not send them (C2).
    pub(super) intermediates: Vec<CertificateDer<'static>>,
    /// Rises with each swap.
    pub(super) generation: u64,
    /// Certificates of CAs of chains that cannot be taken up: nobody need look at the files for them.
    untaken: Vec<Certificate>,
    /// Whether there is no room to remember another one.
    is_full: bool,
}

impl Current {
    fn of(index: RevocationIndex, issuers: &Issuers, generation: u64) -> Self {
        let (intermediates, untaken) = (issuers.intermediates(), issuers.untaken().to_vec());
        Self { index, intermediates, generation, untaken, is_full: issuers.is_full() }
    }

    /// Returns whether a look at the files may do something for a CA that is not configured.
    fn can_take_up(&self, authority: &Certificate) -> bool {
        !self.is_full && !self.untaken.contains(authority)
    }
}

/// What only the loading of files and fetched CRLs touches; they take turns.
#[derive(Debug)]
struct Writer {
    issuers: Issuers,
    /// The bytes of each file as last looked at.
    seen: BTreeMap<PathBuf, Thumbprint>,
    /// What is wrong at present, by file or URL.
    problems: BTreeMap<String, String>,
    kept: Kept,
    dues: Dues,
    served: Served,
}

impl Revocation {
    /// Reads the files, and what was kept before the start. Blocks on the disk.
    ///
    /// # Errors
    /// Everything that is wrong with the issuers' and CRL files. A kept CRL that is damaged is set aside: it is fetched again. One that
    /// is older than a kept one, or whose signer is not known yet, is complained of.
    pub fn load(
        files: RevocationFiles,
        settings: RevocationSettings,
        clock: Clock,
    ) -> Result<Arc<Self>, CredentialError> {
        let now = clock.now();
        let mut kept = Kept::open(&files.kept, now);
        let stores = TrustStores { followed: files.servers.clone(), tried: None };
        let met = met::all(kept.met().iter(), &[], remembered_max(settings.met_max), now);
        let issuers = Issuers::read(&files, &settings, &stores, &met, now)?;
        let mut index = RevocationIndex::default();
        issuers.set_rules(&mut index, &settings, &mut kept, now);
        let candidates = issuers.candidates(&[], now);
        let mut dues = Dues::default();
        kept.load_into(&mut index, &candidates, now, &mut dues);
        let (seen, problems, mut served) = (BTreeMap::new(), BTreeMap::new(), Served::default());
        kept.loaded().for_each(|(url, loaded)| served.note(url, loaded));
        let mut writer = Writer { issuers, seen, problems, kept, dues, served };
        writer.note_beyond(settings.met_max);
        let mut errors = Vec::new();
        for path in &files.crls {
            let bytes = read(path);
            writer.seen.insert(path.clone(), digest(&bytes));
            let Writer { issuers, kept, .. } = &mut writer;
            let (loaded, error) = load_file(&mut index, issuers, kept, (path, &bytes), now);
            writer.dues.note(&path.display().to_string(), &loaded);
            let each = error.map(CredentialError::into_each).unwrap_or_default();
            let (passing, bad): (Vec<_>, Vec<_>) = each.into_iter().partition(may_pass);
            errors.extend(bad);
            if let Some(problem) = CredentialError::of_all(passing).map(|error| describe(&error)) {
                tracing::warn!(problem, "a CRL is not in use");
                writer.problems.insert(path.display().to_string(), problem);
            }
        }
        if let Some(error) = CredentialError::of_all(errors) {
            return Err(error);
        }
        if writer.problems.is_empty() {
            writer.kept.end_lists_of_no_file(now);
        }
        let current = Current::of(index, &writer.issuers, 0);
        let this = Self::new(files, settings, clock, current, writer);
        this.record();
        Ok(Arc::new(this))
    }

    fn new(
        files: RevocationFiles,
        settings: RevocationSettings,
        clock: Clock,
        current: Current,
        writer: Writer,
    ) -> Self {
        let sources = Mutex::new(writer.issuers.sources());
        let stores = TrustStores { followed: files.servers.clone(), tried: None };
        Self {
            files,
            settings,
            clock,
            current: ArcSwap::from_pointee(current),
            writer: Mutex::new(writer),
            sources,
            stores: Mutex::new(stores),
            met: Met::default(),
            look: Arc::new(Notify::new()),
            told: Notify::new(),
            anew: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// Returns an index without issuers and CRLs, for programs that are given none.
    #[must_use]
    pub fn none(clock: Clock) -> Arc<Self> {
        let settings = RevocationSettings { fetch: false, ..RevocationSettings::default() };
        let current = Current::of(RevocationIndex::default(), &Issuers::default(), 0);
        let writer = Writer {
            issuers: Issuers::default(),
            seen: BTreeMap::new(),
            problems: BTreeMap::new(),
            kept: Kept::default(),
            dues: Dues::default(),
            served: Served::default(),
        };
        Arc::new(Self::new(RevocationFiles::default(), settings, clock, current, writer))
    }

    /// Takes the CAs of the trust store that servers are judged by as configured issuers (R1), in place of those of the one before.
    /// Blocks as [`Self::reload`].
    pub fn trust_servers(&self, followed: Option<TrustFolder>) {
        self.stores().followed = followed;
        fetching::report(&self.reload());
    }

    /// As [`Self::trust_servers`], beside it, of a policy that is tried (K4).
    pub fn try_servers(&self, tried: Option<TrustFolder>) {
        self.stores().tried = tried;
        fetching::report(&self.reload());
    }

    /// No policy is tried any more: its CAs go at the next look at the files, which comes at once where they are followed.
    pub fn end_trial(&self) {
        self.stores().tried = None;
        self.look.notify_one();
    }

    fn stores(&self) -> MutexGuard<'_, TrustStores> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what verdicts are reached by at present.
    pub(super) fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// Returns the index as it is at present, for signed documents. It shares the CRLs.
    #[must_use]
    pub fn index(&self) -> RevocationIndex {
        self.current.load().index.clone()
    }

    /// Returns a number that rises with each change.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.current.load().generation
    }

    /// Returns a receiver of that number.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Returns whether a certificate of this path is revoked by now. A few hash look-ups: call it after a session was put where
    /// [`Revocations`] finds it, since a CRL may have come between the check of the peer and then.
    #[must_use]
    pub fn is_any_revoked(&self, path: &[PathElement]) -> bool {
        let current = self.current.load();
        path.iter().any(|element| current.index.contains(element.issuer_der(), element.serial()))
    }

    /// Takes the distribution points that a verified path tells (R1), and the CAs on it that nobody named.
    pub(super) fn learn(&self, verdict: &Verdict) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !sources.learn(verdict).is_empty();
        let current = self.current.load();
        let is_over_unknown = sources.unknown(verdict).any(|authority| current.can_take_up(authority));
        drop(sources);
        if is_new {
            self.told.notify_one();
        }
        if is_over_unknown && self.met.push(verdict.path(), self.settings.met_max) {
            self.look.notify_one();
        }
    }

    /// Takes the distribution points that the certificate of a document's signer tells, if its path to `roots` holds: nobody shows
    /// it in a handshake; or held at `signed_at`, if a timestamp is said to prove that moment. Call it before the signature is judged,
    /// since mode `hard` accepts nobody before there is a CRL.
    pub fn learn_signer(
        &self,
        role: Role,
        chain: &[CertificateDer<'_>],
        roots: &Roots,
        signed_at: Option<UnixTime>,
    ) {
        if !self.settings.fetch {
            return;
        }
        let current = self.current.load();
        let facts = Facts { revocation: Some(&current.index), signed_at, ..Facts::at(self.clock.now()) };
        self.learn(&check_with(&Policy::default(), role, chain, roots, &facts));
    }

    /// Returns the URLs that CRLs are fetched from at present.
    #[must_use]
    pub fn distribution_points(&self) -> Vec<String> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.iter().map(|(_issuer, url)| url.as_str().to_owned()).collect()
    }

    /// Returns who is revoked from now on, change by change (R3).
    #[must_use]
    pub fn revocations(self: &Arc<Self>) -> Revocations {
        Revocations::new(Arc::clone(self), self.changes.subscribe())
    }

    /// Reads the files again and puts to use what changed and is good. Blocks on the disk, and for most of a second on a CRL
    /// of a million entries.
    pub fn reload(&self) -> Reload {
        let now = self.clock.now();
        let mut writer = self.writer();
        let before = writer.problems.clone();
        let mut index = self.current.load().index.clone();
        let has_new_issuers = self.reload_issuers(&mut writer, &mut index, now);
        writer.kept.save();
        let mut has_loaded = false;
        for path in &self.files.crls {
            let bytes = read(path);
            let seen = digest(&bytes);
            let name = path.display().to_string();
            // What was refused is tried again: its issuer may be known by now, and its time may have come. With other
            // issuers everything is: the lists of one that was gone for a while went with it.
            let is_same = writer.seen.get(path) == Some(&seen) && !has_new_issuers;
            if is_same && !writer.problems.contains_key(&name) {
                continue;
            }
            writer.seen.insert(path.clone(), seen);
            let Writer { issuers, kept, .. } = &mut *writer;
            let (loaded, error) = load_file(&mut index, issuers, kept, (path, &bytes), now);
            writer.dues.note(&name, &loaded);
            let problem = error.as_ref().map(|error| describe(error));
            let is_news = !is_same || problem.as_ref() != writer.problems.get(&name);
            has_loaded |= is_news && (problem.is_none() || !loaded.is_empty());
            match problem {
                None => drop(writer.problems.remove(&name)),
                Some(problem) => drop(writer.problems.insert(name, problem)),
            }
        }
        if has_loaded || has_new_issuers {
            self.publish(index, &writer);
        }
        let problems: Vec<String> = writer.problems.values().cloned().collect();
        if !has_loaded && !has_new_issuers && writer.problems == before {
            Reload::Unchanged
        } else if problems.is_empty() {
            Reload::Swapped
        } else {
            Reload::Kept { problems }
        }
    }

    /// Verifies and adds a CRL that was fetched from `url`, and keeps it on disk. Returns the lists of those who publish there.
    /// Blocks as [`Self::reload`].
    ///
    /// A list of another CA is used, as any list that its signer made, but it is not what this distribution point is for.
    pub(super) fn load_fetched(
        &self,
        url: &str,
        body: &[u8],
        validators: &Validators,
    ) -> Result<Vec<Loaded>, CredentialError> {
        let now = self.clock.now();
        let expected = self.expected(url);
        if expected.is_empty() {
            // Its issuer went while it was fetched.
            return Ok(Vec::new());
        }
        let mut writer = self.writer();
        let mut index = self.current.load().index.clone();
        let candidates = writer.issuers.candidates(&[], now);
        let problem = match index.load(body, &candidates, now) {
            Ok(loaded) => {
                let is_expected =
                    |crl: &Loaded| expected.iter().any(|issuer| *issuer.subject_der() == crl.issuer_der);
                let (own, others): (Vec<_>, Vec<_>) = loaded.into_iter().partition(is_expected);
                if !own.is_empty() {
                    writer.problems.remove(url);
                    writer.dues.note(url, &own);
                    writer.served.note(url, &own);
                    writer.kept.put(url, body, validators);
                    self.publish(index, &writer);
                    return Ok(own);
                }
                self.publish(index, &writer);
                let found = others.into_iter().map(|crl| crl.issuer).collect();
                let expected = expected.iter().map(|issuer| issuer.subject().to_owned()).collect();
                CredentialError::CrlOfAnother { url: url.to_owned(), found, expected }
            }
            Err(source) => CredentialError::Crl { path: PathBuf::from(url), source },
        };
        writer.problems.insert(url.to_owned(), describe(&problem));
        Err(problem)
    }

    /// Returns who publishes at `url`; nobody: it is not fetched.
    fn expected(&self, url: &str) -> Vec<Certificate> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.issuers_of(url).cloned().collect()
    }

    /// Returns whether `url`, which fails, is missed by anybody who publishes there: of CAs that have ended, the last list may be gone;
    /// and a CA may have moved, so that certificates tell another URL that serves its list.
    fn is_missed(&self, url: &str, now: UnixTime) -> bool {
        let publishers: Vec<(Certificate, bool)> = {
            let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
            let issuers = sources.issuers_of(url);
            issuers.map(|issuer| (issuer.clone(), sources.is_left(issuer, url))).collect()
        };
        let mut writer = self.writer();
        writer.served.fails(url);
        publishers.iter().any(|(issuer, is_left)| {
            let has_moved = *is_left && writer.served.has_whole_of(issuer, now);
            !has_moved && !writer.issuers.has_ended(issuer, now)
        })
    }

    /// Notes that a URL fails (`Some`), or does no more.
    pub(super) fn note_fetch(&self, url: &str, problem: Option<String>) {
        let mut writer = self.writer();
        match problem {
            Some(problem) => drop(writer.problems.insert(url.to_owned(), problem)),
            None => drop(writer.problems.remove(url)),
        }
    }

    fn publish(&self, index: RevocationIndex, writer: &Writer) {
        let generation = self.current.load().generation + 1;
        self.current.store(Arc::new(Current::of(index, &writer.issuers, generation)));
        self.record();
        self.changes.send_replace(generation);
    }

    fn record(&self) {
        let current = self.current.load();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        ::metrics::gauge!(metrics::CRL_ENTRIES).set(current.index.len() as f64);
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns every file, for the watcher.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let issuers = self.settings.issuers.iter().map(|issuer| &issuer.certificates);
        let files = self.files.crls.iter().chain(&self.files.roots).chain(&self.files.own);
        let servers = self.files.servers.iter().map(TrustFolder::merged_file);
        files.chain(issuers).cloned().chain(servers).collect()
    }
}

/// Returns whether a CRL that is refused is no reason not to start: a newer one is kept, and the file is what it is over a restart; or
/// its signer is to be met yet, as it was before the start.
fn may_pass(error: &CredentialError) -> bool {
    let CredentialError::Crl { source, .. } = error else { return false };
    matches!(source, CrlError::Older { .. } | CrlError::UnknownIssuer { .. })
}

fn digest(bytes: &FileBytes) -> Thumbprint {
    match bytes {
        Ok(bytes) => Thumbprint::of(bytes),
        Err(error) => Thumbprint::of(error.to_string().as_bytes()),
    }
}
