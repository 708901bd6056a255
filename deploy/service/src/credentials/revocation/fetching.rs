//! The task that fetches CRLs from distribution points, and follows CRL files.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use muster_pki::{CrlUrl, Fetch, FetchResponse, Fetched, UnixTime};
use rustls::ClientConfig;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::MissedTickBehavior;

use super::http_get::{GetError, get};
use super::slots::Slots;
use super::web::web_client;
use super::{FetchSettings, Revocation};
use crate::credentials::live::{Reload, notifications};
use crate::credentials::{DEBOUNCE, POLL_INTERVAL};
use crate::exit::describe;
use crate::health::{Component, Health};
use crate::metrics;
use crate::shutdown::Shutdown;

/// The longest sleep of the task, so that a clock that was set is noticed.
const WAKE: Duration = Duration::from_secs(20);

/// What distribution points are asked for.
const ACCEPT: &str = "application/pkix-crl, */*;q=0.5";

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
        let changed = Arc::clone(&self.look);
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
        let mut under_way = UnderWay::new(self.settings.fetching, self.https());
        loop {
            for url in std::mem::take(&mut *self.anew.lock().unwrap_or_else(PoisonError::into_inner)) {
                under_way.give_up(&url);
                fetches.retain(|fetch| *fetch.url() != url);
                self.note_fetch(url.as_str(), None);
            }
            self.add_new(&mut fetches);
            let now = self.clock.now();
            let sleep = under_way.begin(&mut fetches, now).map_or(WAKE, |due| until(due, now));
            tokio::select! {
                () = self.told.notified() => {}
                () = tokio::time::sleep(sleep) => {}
                answered = under_way.next() => {
                    if let Some((url, answer)) = answered
                        && let Some(fetch) = fetches.iter_mut().find(|fetch| *fetch.url() == url)
                    {
                        self.take(fetch, answer).await;
                        component.set(self.state());
                    }
                }
            }
        }
    }

    /// Has these URLs asked as if they never had been.
    pub(super) fn ask_anew<'a>(&self, urls: impl Iterator<Item = &'a CrlUrl>) {
        let mut anew = self.anew.lock().unwrap_or_else(PoisonError::into_inner);
        for url in urls {
            if !anew.contains(url) {
                anew.push(url.clone());
            }
        }
    }

    /// Begins with URLs that came, and ends those whose issuer is gone, with what was wrong with them.
    fn add_new(&self, fetches: &mut Vec<Fetch>) {
        let urls: Vec<CrlUrl> = {
            let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
            sources.iter().map(|(_issuer, url)| url.clone()).collect()
        };
        let gone = fetches.extract_if(.., |fetch| !urls.contains(fetch.url()));
        for fetch in gone {
            self.note_fetch(fetch.url().as_str(), None);
            self.writer().served.end(fetch.url().as_str());
        }
        let (now, limits) = (self.clock.now(), self.settings.fetching.limits());
        for url in urls {
            if !fetches.iter().any(|fetch| *fetch.url() == url) {
                let expected = self.expected(url.as_str());
                let is_expected =
                    |issuer_der: &[u8]| expected.iter().any(|issuer| issuer.subject_der() == issuer_der);
                let kept = self.writer().kept.resumed(url.as_str(), is_expected);
                let new = Fetch::new(url, limits, now, rand::random());
                fetches.push(match kept {
                    Some((validators, next_update)) => new.with_kept(validators, next_update),
                    None => new,
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
                    Ok(Fetched::NotModified) => {
                        self.writer().served.answers(&url);
                        None
                    }
                    Ok(Fetched::Redirected) => None,
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
        if fetch.failures() >= self.settings.fetching.alarm_after {
            let is_missed = self.is_missed(&url, now);
            self.note_fetch(&url, is_missed.then(|| format!("CRL from {url}: {problem}")));
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
        let made = web_client(Some(path), &self.clock);
        match made {
            Ok(config) => Some(config),
            Err(problem) => {
                tracing::warn!(problem, "https distribution points are not fetched");
                None
            }
        }
    }
}

/// The fetches that go on.
struct UnderWay {
    asking: JoinSet<Answer>,
    /// Those whose answer is wanted.
    asked: Vec<(CrlUrl, AbortHandle)>,
    slots: Slots<Id>,
    https: Option<Arc<ClientConfig>>,
}

impl UnderWay {
    fn new(settings: FetchSettings, https: Option<Arc<ClientConfig>>) -> Self {
        let slots = Slots::new(settings.parallel, settings.parallel_per_server);
        Self { asking: JoinSet::new(), asked: Vec::new(), slots, https }
    }

    /// Begins those that are due and find a place, the one that waited longest first. Returns when the next of the others is due;
    /// those without a place wait for the end of another.
    fn begin(&mut self, fetches: &mut [Fetch], now: UnixTime) -> Option<UnixTime> {
        fetches.sort_by_key(Fetch::poll_timeout);
        let (mut waiting, mut next) = (0_u32, None);
        for fetch in fetches {
            if !fetch.is_due(now) {
                next.get_or_insert(fetch.poll_timeout());
                continue;
            }
            let (server, has_failed) = (fetch.at().server().to_owned(), fetch.failures() > 0);
            if !self.slots.has_room(&server, has_failed) {
                waiting += 1;
                continue;
            }
            if let Some(request) = fetch.poll_fetch(now) {
                let (url, https) = (fetch.url().clone(), self.https.clone());
                let asked = url.clone();
                let task = self.asking.spawn(async move { (url, get(request, ACCEPT, https).await) });
                self.slots.take(task.id(), &server, has_failed);
                self.asked.push((asked, task));
            }
        }
        ::metrics::gauge!(metrics::CRL_FETCHES_WAITING).set(waiting);
        next
    }

    /// Waits for the end of one; for ever, if there is none. `None`: it panicked, or was given up.
    async fn next(&mut self) -> Option<Answer> {
        let (id, answer) = match self.asking.join_next_with_id().await {
            Some(Ok((id, answer))) => (id, Some(answer)),
            Some(Err(ended)) => (ended.id(), None),
            None => std::future::pending().await,
        };
        self.slots.give_back(&id);
        let place = self.asked.iter().position(|(_, task)| task.id() == id)?;
        self.asked.swap_remove(place);
        answer
    }

    /// Gives up asking a URL: an answer that is there already does not count either. Its place comes back when its task has ended.
    fn give_up(&mut self, url: &CrlUrl) {
        for (_, task) in self.asked.extract_if(.., |(asked, _)| asked == url) {
            task.abort();
        }
    }
}

fn until(due: UnixTime, now: UnixTime) -> Duration {
    Duration::from_secs(due.as_secs().saturating_sub(now.as_secs())).clamp(Duration::from_millis(100), WAKE)
}

/// Logs and counts what a look at the files found.
pub(super) fn report(reload: &Reload) {
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

#[cfg(test)]
mod tests {
    use muster_pki::FetchLimits;

    use super::*;

    const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));

    fn fetch(url: &str) -> Fetch {
        Fetch::new(url.parse().unwrap(), FetchLimits::default(), NOW, 0)
    }

    /// Distribution points of so many servers, so many of each.
    fn points(servers: usize, each: usize) -> Vec<Fetch> {
        let url = |server, number| format!("http://crl{server}.test/{number}.crl");
        (0..servers).flat_map(|server| (0..each).map(move |number| fetch(&url(server, number)))).collect()
    }

    /// Returns how many begin at `now`.
    fn begun(parallel: usize, parallel_per_server: usize, fetches: &mut [Fetch], now: UnixTime) -> usize {
        let settings = FetchSettings { parallel, parallel_per_server, ..FetchSettings::default() };
        let mut under_way = UnderWay::new(settings, None);
        under_way.begin(fetches, now);
        under_way.asking.len()
    }

    #[tokio::test]
    async fn r1_as_many_fetches_go_on_at_once_as_the_table_says() {
        for (parallel, per_server, wanted) in [(5, 2, 5), (16, 1, 3), (16, 2, 6), (1, 1, 1), (16, 16, 12)] {
            let begun = begun(parallel, per_server, &mut points(3, 4), NOW);

            assert_eq!(begun, wanted, "{parallel} in all, {per_server} of one server");
        }
    }

    #[tokio::test]
    async fn r1_of_those_that_failed_as_many_go_on_as_half_of_the_table() {
        let mut fetches = points(8, 1);
        for fetch in &mut fetches {
            assert!(fetch.poll_fetch(NOW).is_some());
            fetch.handle_failure(NOW, 0);
        }
        let later = UnixTime::since_unix_epoch(Duration::from_secs(NOW.as_secs() + 60));

        assert_eq!(begun(4, 4, &mut fetches, later), 2);
    }

    #[tokio::test]
    async fn r1_a_redirect_counts_as_a_fetch_of_the_server_that_it_leads_to() {
        let mut fetches = points(3, 1);
        for fetch in &mut fetches {
            assert!(fetch.poll_fetch(NOW).is_some());
            let location = Some("http://behind.test/a.crl".to_owned());
            let redirect = FetchResponse { status: 302, location, ..FetchResponse::default() };
            assert_eq!(fetch.handle_response(redirect, NOW, 0), Ok(Fetched::Redirected));
        }

        assert_eq!(begun(16, 1, &mut fetches, NOW), 1);
    }
}
