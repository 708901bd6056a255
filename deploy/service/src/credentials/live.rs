//! Credentials in use, and how newer files take their place.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use muster_pki::{Certificate, Thumbprint, UnixTime};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::error::CredentialError;
use super::files::{Fingerprint, Material, Source};
use super::revocation::Revocation;
use super::store::CertificateStore;
use super::{Clock, DEBOUNCE, POLL_INTERVAL};
use crate::exit::describe;
use crate::health::{CertificateInUse, Component, Health, State};
use crate::metrics;
use crate::shutdown::Shutdown;

/// Makes a TLS configuration from validated files.
type Build<C> = Box<dyn Fn(&Material) -> Result<C, rustls::Error> + Send + Sync>;

/// A TLS configuration that follows its files.
pub(super) struct Live<C> {
    source: Source,
    build: Build<C>,
    current: ArcSwap<Current<C>>,
    seen: Mutex<Seen>,
    changes: watch::Sender<u64>,
    /// Rises with `changes`, and with each change of the revocation index.
    rechecks: watch::Sender<u64>,
}

struct Current<C> {
    material: Material,
    config: Arc<C>,
}

/// The files as last looked at, whether they were good or not.
struct Seen {
    fingerprint: Fingerprint,
    /// What the trust in use was read from.
    trust_in_use: Thumbprint,
    own_problem: Option<String>,
    trust_problem: Option<String>,
}

impl Seen {
    fn problems(&self) -> Vec<String> {
        self.own_problem.iter().chain(&self.trust_problem).cloned().collect()
    }
}

/// What a look at the files found.
#[must_use]
pub(super) struct Refreshed {
    reload: Reload,
    state: State,
    own: Option<Certificate>,
    /// A store has no certificate to show.
    lacks_own: bool,
}

/// What became of the files.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The same bytes as before.
    Unchanged,
    /// Newer files are in use.
    Swapped,
    /// Newer files are refused, wholly or in part; what they were to replace stays in use.
    Kept {
        /// What is wrong, one text for each part (own certificate; roots; each CRL).
        problems: Vec<String>,
    },
}

impl<C: Send + Sync + 'static> Live<C> {
    pub(super) fn load(source: Source, build: Build<C>) -> Result<Self, CredentialError> {
        let mut contents = source.read();
        let fingerprint = contents.fingerprint();
        let (own, own_problem) = match source.own(&mut contents, None) {
            Ok(own) => (own, None),
            Err(error) if source.may_wait(&error) => {
                tracing::error!(%error, "the chosen certificate is not shown");
                (None, Some(describe(&error)))
            }
            Err(error) => return Err(source.with_trust_problems(&mut contents, error)),
        };
        let material = Material { trust: source.trust(&mut contents)?, own };
        let config = Arc::new(build(&material)?);
        let trust_in_use = fingerprint.trust;
        let seen = Seen { fingerprint, trust_in_use, own_problem, trust_problem: None };
        let current = ArcSwap::from_pointee(Current { material, config });
        Ok(Self {
            source,
            build,
            current,
            seen: Mutex::new(seen),
            changes: watch::Sender::new(0),
            rechecks: watch::Sender::new(0),
        })
    }

    pub(super) fn config(&self) -> Arc<C> {
        Arc::clone(&self.current.load().config)
    }

    pub(super) fn material(&self) -> Material {
        self.current.load().material.clone()
    }

    pub(super) fn own(&self) -> Option<Certificate> {
        self.current.load().material.own.as_ref().map(|own| own.certificate.clone())
    }

    /// Returns whether a store has no certificate to show at present.
    pub(super) fn lacks_own(&self) -> bool {
        self.source.own.store().is_some() && self.current.load().material.own.is_none()
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn rechecks(&self) -> watch::Receiver<u64> {
        self.rechecks.subscribe()
    }

    /// Passes a change of the revocation index on.
    pub(super) fn recheck(&self) {
        self.rechecks.send_modify(|generation| *generation += 1);
    }

    pub(super) fn revocation(&self) -> &Arc<Revocation> {
        &self.source.rules.revocation
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.source.rules.clock
    }

    /// Looks at the files and swaps what is new and valid. The two halves (our own certificate; roots) stand alone: an
    /// expired certificate of ours must not keep a root from being loaded.
    pub(super) fn reload(&self) -> Reload {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut contents = self.source.read();
        let fingerprint = contents.fingerprint();
        let before = self.material();
        let mut material = before.clone();
        let known_problems = seen.problems();
        // What was refused is tried again: a certificate of tomorrow becomes valid without a change of its file.
        // The choice of a store changes with the time, too.
        let is_store = self.source.own.store().is_some();
        if is_store || fingerprint.own != seen.fingerprint.own || seen.own_problem.is_some() {
            let own = self.source.own(&mut contents, before.own.as_ref());
            seen.own_problem = put(own, &mut material.own);
        }
        // Roots that did not change are looked at again when another role's did: both may hold the same one.
        let is_trust_same =
            fingerprint.trust == seen.fingerprint.trust && fingerprint.others == seen.fingerprint.others;
        if !is_trust_same || seen.trust_problem.is_some() {
            let mut trust = Arc::clone(&material.trust);
            seen.trust_problem = put(self.source.trust(&mut contents), &mut trust);
            // The same roots as before go on with the verdicts that they gave.
            if seen.trust_problem.is_none() && fingerprint.trust != seen.trust_in_use {
                material.trust = trust;
            }
        }
        // Others' roots that may stay as they are bring nothing that is new here.
        let is_same = fingerprint.own == seen.fingerprint.own && fingerprint.trust == seen.fingerprint.trust;
        seen.fingerprint = fingerprint;
        if !material.is_same(&before) {
            match (self.build)(&material) {
                Ok(config) => {
                    if !Arc::ptr_eq(&material.trust, &before.trust) {
                        seen.trust_in_use = seen.fingerprint.trust;
                    }
                    self.current.store(Arc::new(Current { material, config: Arc::new(config) }));
                    self.changes.send_modify(|generation| *generation += 1);
                    self.recheck();
                }
                Err(error) => seen.own_problem = Some(error.to_string()),
            }
        }
        // Whoever else goes by the roots of any role looks at them, too.
        if !is_trust_same {
            self.recheck();
        }
        let problems = seen.problems();
        match (problems.is_empty(), is_same && problems == known_problems) {
            (_, true) => Reload::Unchanged,
            (true, false) => Reload::Swapped,
            (false, false) => Reload::Kept { problems },
        }
    }

    /// Reloads and returns the outcome with the state for the health component.
    pub(super) fn refresh(&self) -> Refreshed {
        let reload = self.reload();
        Refreshed { reload, state: self.state(), own: self.own(), lacks_own: self.lacks_own() }
    }

    /// Follows the files until `token` is cancelled: on notification, and by comparing every [`POLL_INTERVAL`]. `refresh` runs
    /// off the runtime.
    pub(super) fn watch(
        &self,
        shutdown: &Shutdown,
        token: CancellationToken,
        health: &Health,
        name: &'static str,
        refresh: impl Fn() -> Refreshed + Clone + Send + Sync + 'static,
    ) {
        let component = health.component(name);
        component.set(self.state());
        let mut told = Told::new(name, health);
        told.tell(self.own().as_ref());
        let changed = Arc::new(Notify::new());
        let watcher = notifications(&self.source.paths(), Arc::clone(&changed));
        let clock = self.clock().clone();
        shutdown.spawn("credentials", async move {
            let mut poll = tokio::time::interval(POLL_INTERVAL);
            poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    () = token.cancelled() => break,
                    () = changed.notified() => {
                        if token.run_until_cancelled(tokio::time::sleep(DEBOUNCE)).await.is_none() {
                            break;
                        }
                    }
                    _ = poll.tick() => {}
                    // What it was chosen for, and what readiness says, ends then.
                    () = tokio::time::sleep(until_end(told.end, clock.now())) => {}
                }
                // Files may lie on a slow disk.
                if let Ok(refreshed) = tokio::task::spawn_blocking(refresh.clone()).await {
                    told.tell(refreshed.own.as_ref());
                    report(&component, name, refreshed);
                }
            }
            drop(watcher);
        });
    }

    /// Returns the state for the health component.
    pub(super) fn state(&self) -> State {
        let mut complaints = self.seen.lock().unwrap_or_else(PoisonError::into_inner).problems();
        let store = self.source.own.store();
        let missing = store.and_then(CertificateStore::problem);
        let is_told = |missing: &String| complaints.iter().any(|told| told.contains(missing));
        let missing = missing.filter(|missing| !is_told(missing));
        complaints.extend(missing);
        let material = self.material();
        let now = self.source.rules.clock.now();
        complaints.extend(material.trust.ending_anchors(now));
        if let Some(own) = &material.own {
            complaints.extend(own.expiry_warnings(now));
            if material.trust.is_revoked(&own.certificate) {
                complaints.push(format!("certificate {} is revoked; replace it", own.certificate.subject()));
            }
        }
        let is_closed = store.is_some_and(CertificateStore::is_of_server)
            && material.own.as_ref().is_some_and(|own| now > own.certificate.not_after());
        if is_closed {
            return State::Failed(format!("the port is closed: {}", complaints.join("; ")));
        }
        if complaints.is_empty() { State::Ready } else { State::Degraded(complaints.join("; ")) }
    }
}

impl<C> fmt::Debug for Live<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Live").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Puts what loaded in its place, or returns why it did not load.
fn put<T>(loaded: Result<T, CredentialError>, place: &mut T) -> Option<String> {
    match loaded {
        Ok(new) => {
            *place = new;
            None
        }
        Err(error) => Some(describe(&error)),
    }
}

/// Tells which certificate is in use, and until when (N3).
struct Told {
    name: &'static str,
    health: Health,
    thumbprint: Option<String>,
    end: Option<UnixTime>,
}

impl Told {
    fn new(name: &'static str, health: &Health) -> Self {
        Self { name, health: health.clone(), thumbprint: None, end: None }
    }

    fn tell(&mut self, own: Option<&Certificate>) {
        let name = self.name;
        let thumbprint = own.map(|own| own.thumbprint().to_string());
        let info = |thumbprint: String| ::metrics::gauge!(metrics::CREDENTIALS_INFO, "credentials" => name, "thumbprint" => thumbprint);
        if thumbprint != self.thumbprint {
            if let Some(before) = self.thumbprint.take() {
                info(before).set(0.0);
            }
            self.health.show_certificate(name, own.map(CertificateInUse::of));
        }
        self.end = own.map(Certificate::not_after);
        let end = own.map_or(0, |own| own.not_after().as_secs());
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 seconds")]
        ::metrics::gauge!(metrics::CREDENTIALS_NOT_AFTER_SECONDS, "credentials" => name).set(end as f64);
        if let Some(thumbprint) = &thumbprint {
            info(thumbprint.clone()).set(1.0);
        }
        self.thumbprint = thumbprint;
    }
}

/// Returns how long to wait for the moment after a certificate's end; where it is over or far, as long as for any other look.
fn until_end(end: Option<UnixTime>, now: UnixTime) -> Duration {
    let left = end.and_then(|end| (end.as_secs() + 1).checked_sub(now.as_secs())).filter(|left| *left > 0);
    left.map_or(POLL_INTERVAL, Duration::from_secs).min(POLL_INTERVAL)
}

fn report(component: &Component, name: &'static str, refreshed: Refreshed) {
    match &refreshed.reload {
        Reload::Unchanged => {}
        Reload::Swapped => {
            // What is missing was told by the store.
            let told = if refreshed.lacks_own {
                "the files as they are now are in use, and give no certificate to show"
            } else {
                "renewed files are in use"
            };
            tracing::info!(credentials = name, "{told}");
            ::metrics::counter!(metrics::CREDENTIALS_RELOADED_TOTAL, "credentials" => name).increment(1);
            ::metrics::gauge!(metrics::CREDENTIALS_STALE, "credentials" => name).set(0.0);
        }
        Reload::Kept { problems } => {
            for problem in problems {
                tracing::warn!(
                    credentials = name,
                    problem,
                    "new files are refused, the old ones stay in use"
                );
            }
            ::metrics::counter!(metrics::CREDENTIALS_REFUSED_TOTAL, "credentials" => name).increment(1);
            ::metrics::gauge!(metrics::CREDENTIALS_STALE, "credentials" => name).set(1.0);
        }
    }
    component.set(refreshed.state);
}

/// A file that is followed: looked at when its folder changes, and now and then where that is not told.
#[derive(Debug)]
pub struct WatchedFile {
    changed: Arc<Notify>,
    _watcher: Option<RecommendedWatcher>,
}

impl WatchedFile {
    /// Begins to follow a file, which need not be there yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let changed = Arc::new(Notify::new());
        let watcher = notifications(&[path.to_owned()], Arc::clone(&changed));
        Self { changed, _watcher: watcher }
    }

    /// Waits until it is worth a look: something changed beside it and has settled, or [`POLL_INTERVAL`] is over.
    pub async fn changed(&self) {
        if tokio::time::timeout(POLL_INTERVAL, self.changed.notified()).await.is_ok() {
            tokio::time::sleep(DEBOUNCE).await;
        }
    }
}

/// Watches the folders, since files are replaced by renaming. Polling remains where that is not possible.
pub(super) fn notifications(paths: &[PathBuf], changed: Arc<Notify>) -> Option<RecommendedWatcher> {
    let made = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own reading of the files must not wake us again.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            changed.notify_one();
        }
    });
    let mut watcher = match made {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "credential files are compared every 30 s only");
            return None;
        }
    };
    let mut folders: Vec<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
    folders.sort_unstable();
    folders.dedup();
    for folder in folders {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            tracing::warn!(%error, folder = %folder.display(), "credential files are compared every 30 s only");
        }
    }
    Some(watcher)
}
