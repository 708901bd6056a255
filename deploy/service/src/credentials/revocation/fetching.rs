//! The task that fetches CRLs from distribution points, and follows CRL files.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use muster_pki::{CrlUrl, Fetch, FetchResponse, Fetched, UnixTime};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::Revocation;
use super::http_get::{GetError, get};
use crate::credentials::files::{bytes_of, read};
use crate::credentials::live::{Reload, notifications};
use crate::credentials::provider::{VERSIONS, provider};
use crate::credentials::{DEBOUNCE, POLL_INTERVAL};
use crate::exit::describe;
use crate::health::{Component, Health};
use crate::metrics;
use crate::shutdown::Shutdown;

/// Fetches in progress at most: one slow server must not keep the others waiting, nor a crowd take the link.
const FETCHES_MAX: usize = 4;

/// The longest sleep of the task, so that a clock that was set is noticed.
const WAKE: Duration = Duration::from_secs(20);

/// From this many failures on, a distribution point that fails is an alarm; before, it is a hiccup.
const FAILURES_UNTIL_ALARM: u32 = 3;

/// One fetch on its way: which, and what came of it.
type Answer = (CrlUrl, Result<FetchResponse, GetError>);

impl Revocation {
    /// Follows files and distribution points in tasks of `shutdown`; component `revocation` of `health` says how they are.
    pub fn watch(self: &Arc<Self>, shutdown: &Shutdown, health: &Health) {
        let component = health.component("revocation");
        component.set(self.state());
        self.follow_files(shutdown, component.clone());
        if self.settings.fetch {
            let this = Arc::clone(self);
            let token = shutdown.token();
            shutdown.spawn("crl fetching", async move {
                token.run_until_cancelled(this.follow_urls(component)).await;
            });
        }
    }

    fn follow_files(self: &Arc<Self>, shutdown: &Shutdown, component: Component) {
        let this = Arc::clone(self);
        let changed = Arc::new(Notify::new());
        let watcher = notifications(&self.paths(), Arc::clone(&changed));
        let token = shutdown.token();
        shutdown.spawn("crl files", async move {
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
                }
                let reading = Arc::clone(&this);
                // Verifying a CRL takes 24 ms for 100,000 entries: too long for a runtime's thread (R7).
                if let Ok((reload, state)) =
                    tokio::task::spawn_blocking(move || (reading.reload(), reading.state())).await
                {
                    report(&reload);
                    component.set(state);
                }
            }
            drop(watcher);
        });
    }

    async fn follow_urls(self: Arc<Self>, component: Component) {
        let mut fetches: Vec<Fetch> = Vec::new();
        let mut asking: JoinSet<Answer> = JoinSet::new();
        let https = self.https();
        let mut begun = self.fetched_anew.load(Ordering::Relaxed);
        loop {
            let now_begun = self.fetched_anew.load(Ordering::Relaxed);
            if begun != now_begun {
                begun = now_begun;
                fetches.clear();
                asking = JoinSet::new();
            }
            self.add_new(&mut fetches);
            let now = self.clock.now();
            for fetch in &mut fetches {
                if asking.len() >= FETCHES_MAX {
                    break;
                }
                if let Some(request) = fetch.poll_fetch(now) {
                    let (url, https) = (fetch.url().clone(), https.clone());
                    asking.spawn(async move { (url, get(request, https).await) });
                }
            }
            let due = fetches.iter().map(Fetch::poll_timeout).min();
            let sleep = match due {
                Some(due) if asking.len() < FETCHES_MAX => until(due, now),
                Some(_) | None => WAKE,
            };
            tokio::select! {
                () = self.told.notified() => {}
                () = tokio::time::sleep(sleep) => {}
                Some(answered) = asking.join_next(), if !asking.is_empty() => {
                    if let Ok((url, answer)) = answered
                        && let Some(fetch) = fetches.iter_mut().find(|fetch| *fetch.url() == url)
                    {
                        self.take(fetch, answer).await;
                        component.set(self.state());
                    }
                }
            }
        }
    }

    /// Begins with URLs that came, and ends those whose issuer is gone.
    fn add_new(&self, fetches: &mut Vec<Fetch>) {
        let urls: Vec<CrlUrl> = {
            let sources = self.sources.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            sources.iter().map(|(_issuer, url)| url.clone()).collect()
        };
        fetches.retain(|fetch| urls.contains(fetch.url()));
        let now = self.clock.now();
        for url in urls {
            if !fetches.iter().any(|fetch| *fetch.url() == url) {
                let resumed = self.writer().kept.resumed(url.as_str());
                fetches.push(match resumed {
                    Some((validators, next_update)) => {
                        Fetch::resume(url, validators, next_update, now, rand::random())
                    }
                    None => Fetch::new(url, now, rand::random()),
                });
            }
        }
    }

    async fn take(self: &Arc<Self>, fetch: &mut Fetch, answer: Result<FetchResponse, GetError>) {
        let now = self.clock.now();
        let url = fetch.url().as_str().to_owned();
        let problem = match answer {
            Err(error) => {
                fetch.handle_failure(now, rand::random());
                Some(describe(&error))
            }
            Ok(response) => {
                let validators = response.validators.clone();
                match fetch.handle_response(response, now, rand::random()) {
                    Ok(Fetched::Crl(body)) => self.load_body(fetch, body, validators).await,
                    Ok(Fetched::NotModified | Fetched::Redirected) => None,
                    Err(error) => Some(describe(&error)),
                }
            }
        };
        let Some(problem) = problem else {
            if fetch.failures() == 0 {
                self.note_fetch(&url, None);
            }
            return;
        };
        ::metrics::counter!(metrics::CRL_FETCH_FAILURES_TOTAL).increment(1);
        tracing::warn!(url, problem, failures = fetch.failures(), "a CRL could not be fetched");
        if fetch.failures() >= FAILURES_UNTIL_ALARM {
            self.note_fetch(&url, Some(format!("CRL from {url}: {problem}")));
        }
    }

    async fn load_body(
        self: &Arc<Self>,
        fetch: &mut Fetch,
        body: Vec<u8>,
        validators: muster_pki::Validators,
    ) -> Option<String> {
        let (this, url) = (Arc::clone(self), fetch.url().as_str().to_owned());
        let loading = tokio::task::spawn_blocking(move || this.load_fetched(&url, &body, &validators));
        let now = self.clock.now();
        let problem = match loading.await {
            Ok(Ok(loaded)) => {
                let next_update = loaded.iter().map(|crl| crl.next_update).min().unwrap_or(now);
                fetch.handle_loaded(next_update, now, rand::random());
                let entries: usize = loaded.iter().map(|crl| crl.entries).sum();
                tracing::info!(url = %fetch.url(), entries, "a CRL was fetched and is in use");
                return None;
            }
            Ok(Err(error)) => describe(&error),
            Err(panicked) => panicked.to_string(),
        };
        ::metrics::counter!(metrics::CRL_REFUSED_TOTAL).increment(1);
        fetch.handle_refused(now, rand::random());
        Some(problem)
    }

    /// Returns what judges the servers of https distribution points: the web's rules, not ours.
    fn https(&self) -> Option<Arc<ClientConfig>> {
        let path = self.settings.https_roots.as_ref()?;
        let bytes = read(path);
        let made = bytes_of(path, &bytes).map_err(|error| describe(&error)).and_then(|bytes| {
            let roots = muster_pki::pem::certificates(bytes, &path.display().to_string())
                .map_err(|error| describe(&error))?;
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(roots);
            let builder = ClientConfig::builder_with_details(provider(), Arc::new(self.clock.clone()));
            let builder = builder.with_protocol_versions(VERSIONS).map_err(|error| describe(&error))?;
            Ok(Arc::new(builder.with_root_certificates(store).with_no_client_auth()))
        });
        match made {
            Ok(config) => Some(config),
            Err(problem) => {
                tracing::warn!(problem, "https distribution points are not fetched");
                None
            }
        }
    }
}

fn until(due: UnixTime, now: UnixTime) -> Duration {
    Duration::from_secs(due.as_secs().saturating_sub(now.as_secs())).clamp(Duration::from_millis(100), WAKE)
}

fn report(reload: &Reload) {
    match reload {
        Reload::Unchanged => {}
        Reload::Swapped => tracing::info!("newer CRLs are in use"),
        Reload::Kept { problems } => {
            ::metrics::counter!(metrics::CRL_REFUSED_TOTAL).increment(1);
            for problem in problems {
                tracing::error!(problem, "a CRL is refused, the one before stays in use");
            }
        }
    }
}
