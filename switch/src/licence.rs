//! Takes newer licences by itself (G6): from a watched file, and hourly from a URL.
//!
//! What comes is held to what `muster licence import` is, by the engine: signature, tenant, a serial that never goes back, and that it is valid
//! at present, since a web server may show an old one. It is kept in the store, so that it works offline and over a restart.
//! When to ask is [`Fetch`]'s to say, as for CRLs; here is the IO.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use muster_pki::{CrlUrl, Fetch, FetchError, FetchResponse, Fetched, UnixTime};
use muster_proto::limits::ENVELOPE_BYTES_MAX;
use muster_service::credentials::{WatchedFile, http_get, web_client};
use muster_service::exit::describe;
use muster_service::health::{Component, State};
use tokio_util::sync::CancellationToken;

use crate::config::LicenceRefresh;
use crate::engine::EngineHandle;
use crate::metrics::LICENCE_LOOKS;
use crate::wall::Wall;

/// The file's name in readiness.
pub(crate) const FILE: &str = "licence_file";

/// The URL's name in readiness.
pub(crate) const URL: &str = "licence_url";

/// What a server is asked for.
const ACCEPT: &str = "application/cms, application/octet-stream;q=0.9, */*;q=0.5";

/// The longest sleep, so that a clock that was set is noticed.
const WAKE: Duration = Duration::from_secs(20);

/// [`Fetch`] asks again at half the time until a document lapses, at most `every`; a licence is asked for every `every` however long it
/// is valid.
const NEVER_LAPSES: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Where licences come from, and where they go.
#[derive(Debug, Clone)]
pub(crate) struct Follower {
    /// Takes them.
    pub(crate) engine: EngineHandle,
    /// What they are judged by.
    pub(crate) wall: Wall,
    /// Says how it goes.
    pub(crate) component: Component,
    /// Ends it.
    pub(crate) stop: CancellationToken,
}

/// What came of one look.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look {
    /// The licence in use is the newest there is.
    Fine,
    /// Ask again at once, elsewhere.
    Redirected,
    /// Nothing was to be had.
    Unreached(String),
    /// What was to be had is none.
    Refused(String),
}

impl Follower {
    /// Asks a URL until told to end.
    pub(crate) async fn follow_url(self, url: CrlUrl, settings: LicenceRefresh) {
        let stop = self.stop.clone();
        self.component.set(State::Ready);
        stop.run_until_cancelled(self.ask_for_ever(url, settings)).await;
    }

    async fn ask_for_ever(&self, url: CrlUrl, settings: LicenceRefresh) {
        let mut fetch = Fetch::new(url, settings.limits(ENVELOPE_BYTES_MAX), self.wall.now(), rand::random());
        loop {
            let now = self.wall.now();
            let Some(request) = fetch.poll_fetch(now) else {
                tokio::time::sleep(until(fetch.poll_timeout(), now)).await;
                continue;
            };
            // Read each time: roots are renewed, too. An http URL needs none.
            let https = settings.https_roots.clone();
            let clock = self.wall.clock();
            let https = tokio::task::spawn_blocking(move || web_client(https.as_deref(), &clock)).await;
            let (https, rootless) = match https {
                Ok(Ok(config)) => (Some(config), None),
                Ok(Err(problem)) => (None, Some(problem)),
                Err(panicked) => (None, Some(panicked.to_string())),
            };
            let answer = http_get::get(request, ACCEPT, https).await;
            let look = match answer {
                Ok(response) => self.take(&mut fetch, response).await,
                Err(http_get::GetError::NoHttpsRoots) => {
                    fetch.handle_failure(self.wall.now(), rand::random());
                    Look::Unreached(rootless.unwrap_or_default())
                }
                Err(error) => {
                    fetch.handle_failure(self.wall.now(), rand::random());
                    Look::Unreached(describe(&error))
                }
            };
            self.tell(fetch.url().as_str(), &look, fetch.failures() >= settings.alarm_after);
        }
    }

    async fn take(&self, fetch: &mut Fetch, response: FetchResponse) -> Look {
        match fetch.handle_response(response, self.wall.now(), rand::random()) {
            Ok(Fetched::Crl(envelope)) => match self.import(envelope).await {
                Ok(()) => {
                    let now = self.wall.now();
                    fetch.handle_loaded(after(now, NEVER_LAPSES), now, rand::random());
                    Look::Fine
                }
                Err(problem) => {
                    fetch.handle_refused(self.wall.now(), rand::random());
                    Look::Refused(problem)
                }
            },
            Ok(Fetched::NotModified) => Look::Fine,
            Ok(Fetched::Redirected) => Look::Redirected,
            Err(error) => Look::Unreached(in_words(&error)),
        }
    }

    /// Follows a file until told to end. A file that is not there is none yet.
    pub(crate) async fn follow_file(self, path: PathBuf) {
        let stop = self.stop.clone();
        self.component.set(State::Ready);
        stop.run_until_cancelled(self.watch_for_ever(path)).await;
    }

    async fn watch_for_ever(&self, path: PathBuf) {
        let (name, mut known) = (path.display().to_string(), None);
        let watched = WatchedFile::new(&path);
        loop {
            let file = path.clone();
            let read = tokio::task::spawn_blocking(move || read(&file)).await;
            let read = read.unwrap_or_else(|panicked| Err(panicked.to_string()));
            // What was judged once is judged again when it changes, or when it may have become valid.
            let is_due =
                known.as_ref() != Some(&read) || matches!(self.component.state(), State::Degraded(_));
            if is_due {
                let look = match &read {
                    Ok(None) => Look::Fine,
                    Ok(Some(envelope)) => {
                        self.import(envelope.clone()).await.map_or_else(Look::Refused, |()| Look::Fine)
                    }
                    Err(problem) => Look::Unreached(problem.clone()),
                };
                self.tell(&name, &look, true);
                known = Some(read);
            }
            watched.changed().await;
        }
    }

    /// Takes a licence as `muster licence import` does; the one that is held already changes nothing.
    async fn import(&self, envelope: Vec<u8>) -> Result<(), String> {
        let reader = self.engine.reader();
        let held =
            tokio::task::spawn_blocking(move || reader.licence()).await.map_err(|error| error.to_string())?;
        if held.as_ref().is_some_and(|held: &Bytes| held[..] == envelope[..]) {
            return Ok(());
        }
        let imported = self.engine.import_licence(envelope).await.map_err(|error| error.to_string())?;
        let serial = imported.serial;
        counter!(LICENCE_LOOKS, "outcome" => "taken").increment(1);
        tracing::info!(serial, "a newer licence was taken and is in use");
        Ok(())
    }

    fn tell(&self, from: &str, look: &Look, is_lasting: bool) {
        let (outcome, problem) = match look {
            Look::Redirected => return,
            Look::Fine => {
                counter!(LICENCE_LOOKS, "outcome" => "fine").increment(1);
                self.component.set(State::Ready);
                return;
            }
            Look::Unreached(problem) => ("unreached", problem),
            Look::Refused(problem) => ("refused", problem),
        };
        counter!(LICENCE_LOOKS, "outcome" => outcome).increment(1);
        let state = State::Degraded(format!("licence from {from}: {problem}"));
        if self.component.state() == state {
            return;
        }
        tracing::warn!(from, problem, "no newer licence; the one that is held stays in use");
        // A server that is away once is none of anybody's business; one that shows what is no licence is.
        if is_lasting || outcome == "refused" {
            self.component.set(state);
        }
    }
}

/// Reads a licence's file; `None`: there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    use std::io::Read as _;

    let mut bytes = Vec::new();
    let most = u64::try_from(ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    match std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Says what an answer without a licence is; [`FetchError`]'s own words are of CRLs.
fn in_words(error: &FetchError) -> String {
    match error {
        FetchError::Status { url, status } => {
            format!(
                "{url}: status {status}; wanted 200 with the licence (DER), or 304; look at the server that publishes it"
            )
        }
        FetchError::Unconditional { url } => {
            format!(
                "{url}: status 304 to an unconditional request; wanted the licence; look at proxies between"
            )
        }
        FetchError::TooLarge { url, got, max } => {
            format!("{url}: {got} bytes; wanted a licence of at most {max}")
        }
        FetchError::Unasked => "an answer to no request".to_owned(),
        FetchError::NoLocation { .. } | FetchError::Location { .. } | FetchError::TooManyRedirects { .. } => {
            describe(error)
        }
    }
}

fn until(due: UnixTime, now: UnixTime) -> Duration {
    Duration::from_secs(due.as_secs().saturating_sub(now.as_secs())).clamp(Duration::from_millis(100), WAKE)
}

fn after(now: UnixTime, wait: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().saturating_add(wait.as_secs())))
}
