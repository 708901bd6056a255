//! [`Fetch`]: when one URL is fetched, and what follows from each answer (R1). The IO is the caller's.
//!
//! ```text
//! poll_fetch ──▶ request ──▶ handle_response ──▶ Crl ──▶ handle_loaded   fetched again before nextUpdate
//!     ▲                            │               └──▶ handle_refused  its validators are forgotten, backoff
//!     │                            ├──▶ NotModified                     as after loading
//!     │                            └──▶ Redirected                      at once, three times at most
//!     └────── due ◀──────────── handle_failure                          backoff
//! ```
//!
//! Times are wall-clock, since nextUpdate is. A clock that goes back never delays a fetch by more than
//! [`FetchLimits::refresh_max`].

use std::time::Duration;

use rustls_pki_types::UnixTime;

use super::limits::FetchLimits;
use super::url::{CrlUrl, CrlUrlError};

/// Longest validator that is kept; an entity tag has some 40 bytes.
const VALIDATOR_BYTES_MAX: usize = 256;

/// What to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// Where, by GET.
    pub url: CrlUrl,
    /// The headers `If-None-Match` and `If-Modified-Since`.
    pub validators: Validators,
    /// Most bytes of the body; one that announces or sends more is broken off.
    pub body_bytes_max: usize,
    /// How long it may take in all.
    pub timeout: Duration,
}

/// What a server said of the CRL that it gave: with it, it answers 304 as long as there is no other (RFC 9110 §8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// The header `ETag`, sent as `If-None-Match`.
    pub etag: Option<String>,
    /// The header `Last-Modified`, sent as `If-Modified-Since`.
    pub last_modified: Option<String>,
}

/// What a server answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchResponse {
    /// The status code.
    pub status: u16,
    /// `ETag` and `Last-Modified`.
    pub validators: Validators,
    /// The header `Location`.
    pub location: Option<String>,
    /// The header `Retry-After`, where it is a number of seconds.
    pub retry_after: Option<Duration>,
    /// The body; empty if the status is not 200.
    pub body: Vec<u8>,
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// A CRL: load it, and say how it went by [`Fetch::handle_loaded`] or [`Fetch::handle_refused`].
    Crl(Vec<u8>),
    /// The one that is loaded is still the newest.
    NotModified,
    /// [`Fetch::poll_fetch`] has the next request at once.
    Redirected,
}

/// Why an answer is none. Each is an alarm once it goes on; the fetch is tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Nothing was asked, or it was answered before.
    #[error("an answer to no request; wanted one answer to each")]
    Unasked,
    /// A status that has no CRL.
    #[error("{url}: status {status}; wanted 200 with a CRL; look at the server that publishes it")]
    Status {
        /// Where.
        url: CrlUrl,
        /// The status code.
        status: u16,
    },
    /// 304 to a request without validators.
    #[error("{url}: status 304 to an unconditional request; wanted the CRL; look at proxies between")]
    Unconditional {
        /// Where.
        url: CrlUrl,
    },
    /// A body with more bytes than are read.
    #[error(
        "{url}: {got} bytes; wanted a CRL of at most {max}; let the CA drop expired certificates, or raise `revocation.fetching.body_max`"
    )]
    TooLarge {
        /// Where.
        url: CrlUrl,
        /// How many.
        got: usize,
        /// The bound in force.
        max: usize,
    },
    /// A redirect to nowhere.
    #[error("{url}: a redirect without a Location; look at the server that publishes the CRL")]
    NoLocation {
        /// From where.
        url: CrlUrl,
    },
    /// A redirect to what is never fetched.
    #[error("{url}: a redirect to {target}")]
    Location {
        /// From where.
        url: CrlUrl,
        /// What is wrong with where to.
        target: CrlUrlError,
    },
    /// A redirect too many.
    #[error("{url}: more than {max} redirects; put the last of them into the distribution point")]
    TooManyRedirects {
        /// The last.
        url: CrlUrl,
        /// The bound in force.
        max: u8,
    },
}

/// When and how one URL is fetched. Its `random` arguments are evenly distributed, one fresh number a call.
#[derive(Debug, Clone)]
pub struct Fetch {
    url: CrlUrl,
    limits: FetchLimits,
    state: State,
    validators: Validators,
    /// nextUpdate of the CRL that the validators are of.
    next_update: Option<UnixTime>,
    failures: u32,
}

#[derive(Debug, Clone)]
enum State {
    Waiting { due: UnixTime },
    Asking { at: CrlUrl, redirects: u8 },
    Asked { at: CrlUrl, redirects: u8, is_conditional: Conditional, since: UnixTime },
    Loading { validators: Validators, since: UnixTime },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conditional {
    Yes,
    No,
}

impl Fetch {
    /// Begins to fetch `url`, first within some seconds.
    #[must_use]
    pub fn new(url: CrlUrl, limits: FetchLimits, now: UnixTime, random: u32) -> Self {
        let due = after(now, scaled(limits.start_spread, random));
        Self {
            url,
            limits,
            state: State::Waiting { due },
            validators: Validators::default(),
            next_update: None,
            failures: 0,
        }
    }

    /// Begins with the CRL that was kept from before the start: it was loaded, these are its validators, and then the next one
    /// is due.
    #[must_use]
    pub fn with_kept(self, validators: Validators, next_update: UnixTime) -> Self {
        Self { validators: validators.bounded(), next_update: Some(next_update), ..self }
    }

    /// Returns the URL that was configured or told, before any redirect.
    #[must_use]
    pub const fn url(&self) -> &CrlUrl {
        &self.url
    }

    /// Returns whom the next request goes to: a redirect may lead to another server.
    #[must_use]
    pub const fn at(&self) -> &CrlUrl {
        match &self.state {
            State::Asking { at, .. } => at,
            State::Waiting { .. } | State::Asked { .. } | State::Loading { .. } => &self.url,
        }
    }

    /// Returns whether [`Self::poll_fetch`] has a request, and it is time for it.
    #[must_use]
    pub fn is_due(&self, now: UnixTime) -> bool {
        now >= self.poll_timeout() || self.has_clock_gone_back(now)
    }

    /// Returns the validators of the CRL that is loaded, to keep with it.
    #[must_use]
    pub const fn validators(&self) -> &Validators {
        &self.validators
    }

    /// Returns how many fetches failed since the last that did not: worth an alarm from the third on.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Returns the next request if it is time for one.
    pub fn poll_fetch(&mut self, now: UnixTime) -> Option<FetchRequest> {
        let (at, redirects) = match &self.state {
            State::Asking { at, redirects } => (at.clone(), *redirects),
            State::Waiting { .. } | State::Asked { .. } | State::Loading { .. } => {
                if !self.is_due(now) {
                    return None;
                }
                (self.url.clone(), 0)
            }
        };
        let validators = self.validators.clone();
        let is_conditional = if validators.is_empty() { Conditional::No } else { Conditional::Yes };
        self.state = State::Asked { at: at.clone(), redirects, is_conditional, since: now };
        let FetchLimits { body_bytes_max, timeout, .. } = self.limits;
        Some(FetchRequest { url: at, validators, body_bytes_max, timeout })
    }

    /// Returns when [`Self::poll_fetch`] should next be called.
    #[must_use]
    pub fn poll_timeout(&self) -> UnixTime {
        match &self.state {
            State::Waiting { due } => *due,
            State::Asking { .. } => UnixTime::since_unix_epoch(Duration::ZERO),
            State::Asked { since, .. } | State::Loading { since, .. } => {
                after(*since, self.limits.timeout.saturating_mul(2))
            }
        }
    }

    /// Takes the answer to the last request.
    ///
    /// # Errors
    /// It has no CRL. The fetch is tried again; there is nothing else to call.
    pub fn handle_response(
        &mut self,
        response: FetchResponse,
        now: UnixTime,
        random: u32,
    ) -> Result<Fetched, FetchError> {
        let State::Asked { at, redirects, is_conditional, .. } = &self.state else {
            return Err(FetchError::Unasked);
        };
        let (url, redirects, is_conditional) = (at.clone(), *redirects, *is_conditional);
        let retry_after = response.retry_after;
        let answer = match (response.status, is_conditional) {
            (200, _) if response.body.len() > self.limits.body_bytes_max => {
                let (got, max) = (response.body.len(), self.limits.body_bytes_max);
                Err(FetchError::TooLarge { url, got, max })
            }
            (200, _) => {
                let validators = response.validators.bounded();
                self.state = State::Loading { validators, since: now };
                return Ok(Fetched::Crl(response.body));
            }
            (304, Conditional::Yes) => {
                self.succeed(now, random);
                return Ok(Fetched::NotModified);
            }
            (304, Conditional::No) => Err(FetchError::Unconditional { url }),
            (301 | 302 | 303 | 307 | 308, _) => {
                let location = response.location.as_deref();
                follow(&url, redirects, self.limits.redirects_max, location)
            }
            (status, _) => Err(FetchError::Status { url, status }),
        };
        match answer {
            Ok(at) => {
                self.state = State::Asking { at, redirects: redirects + 1 };
                Ok(Fetched::Redirected)
            }
            Err(error) => {
                self.fail(retry_after, now, random);
                Err(error)
            }
        }
    }

    /// Says that there was no answer: no connection, a timeout, a body that was broken off.
    pub fn handle_failure(&mut self, now: UnixTime, random: u32) {
        self.fail(None, now, random);
    }

    /// Says that the CRL was loaded, and when the next one is due.
    pub fn handle_loaded(&mut self, next_update: UnixTime, now: UnixTime, random: u32) {
        if let State::Loading { validators, .. } = &mut self.state {
            self.validators = std::mem::take(validators);
            self.next_update = Some(next_update);
            self.succeed(now, random);
        }
    }

    /// Says that the CRL was not loaded. Its validators are forgotten: with them, the server would say that it is still the
    /// newest, and nobody would see it again.
    pub fn handle_refused(&mut self, now: UnixTime, random: u32) {
        self.validators = Validators::default();
        self.next_update = None;
        self.fail(None, now, random);
    }

    /// Half of the time until nextUpdate leaves room for failures.
    fn succeed(&mut self, now: UnixTime, random: u32) {
        self.failures = 0;
        let left =
            self.next_update.map_or(0, |next_update| next_update.as_secs().saturating_sub(now.as_secs()));
        let wait = Duration::from_secs(left / 2).max(self.limits.retry_min).min(self.limits.refresh_max);
        self.state = State::Waiting { due: after(now, jittered(wait, random)) };
    }

    fn fail(&mut self, retry_after: Option<Duration>, now: UnixTime, random: u32) {
        self.failures = self.failures.saturating_add(1);
        // Doubling ends long before the shift could be too wide.
        let doubled = self.limits.retry_min.saturating_mul(1 << (self.failures - 1).min(16));
        let asked = retry_after.unwrap_or_default().min(self.limits.refresh_max);
        let wait = jittered(doubled.min(self.limits.retry_max), random).max(asked);
        self.state = State::Waiting { due: after(now, wait) };
    }

    /// No due time lies further ahead than the longest wait, unless the clock went back since.
    fn has_clock_gone_back(&self, now: UnixTime) -> bool {
        let FetchLimits { refresh_max, retry_max, start_spread, timeout, .. } = self.limits;
        let longest = refresh_max.max(retry_max).max(start_spread).max(timeout.saturating_mul(2));
        self.poll_timeout() > after(now, longest)
    }
}

impl Validators {
    /// Leaves out what cannot stand in a header, or is longer than any validator.
    fn bounded(self) -> Self {
        let is_header = |value: &String| {
            (1..=VALIDATOR_BYTES_MAX).contains(&value.len())
                && value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
        };
        Self { etag: self.etag.filter(is_header), last_modified: self.last_modified.filter(is_header) }
    }

    const fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }
}

fn follow(from: &CrlUrl, redirects: u8, max: u8, location: Option<&str>) -> Result<CrlUrl, FetchError> {
    let url = from.clone();
    if redirects >= max {
        return Err(FetchError::TooManyRedirects { url, max });
    }
    let Some(location) = location else { return Err(FetchError::NoLocation { url }) };
    from.redirect(location).map_err(|target| FetchError::Location { url, target })
}

/// Returns 75 % to 100 % of `wait`: never more, so that a refresh stays before nextUpdate.
fn jittered(wait: Duration, random: u32) -> Duration {
    wait * 3 / 4 + scaled(wait / 4, random)
}

/// Returns the part of `whole` that `random` is of all 32-bit numbers.
fn scaled(whole: Duration, random: u32) -> Duration {
    whole.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Whole seconds, rounded up: nothing is due before its time.
fn after(now: UnixTime, wait: Duration) -> UnixTime {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().saturating_add(seconds)))
}
