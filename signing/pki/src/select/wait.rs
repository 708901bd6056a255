//! [`CertificateWait`]: a download job that waits for a certificate (S6).
//!
//! ```text
//!           handle_missing             certificate there
//!   idle ───────────────────▶ waiting ───────────────────▶ idle, StartElection
//!     ▲                         │ │
//!     └─ Failed: its own code ──┘ └─ deadline ─▶ idle, Failed: 0x209A
//! ```
//! Time is wall time, so that a pause, a sleeping machine and a restart count (the snapshot goes to disk). There is no way out
//! to the origin: whoever waits gets a certificate or fails.

use std::collections::VecDeque;
use std::time::Duration;

use rustls_pki_types::UnixTime;
use serde::{Deserialize, Serialize};

use super::failure::ErrorCode;

/// How often a waiting job has the store looked at: the source's 10 minutes. A watched store tells of an arrival at once.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// `p2p_client_cert_wait_period`: how long a job waits, unless configured otherwise: the source's 24 hours.
pub const WAIT_PERIOD_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// The wait of one client for its certificate. At most one job waits; the others are held back ([`Self::gate`]).
///
/// `J` names a job. After every `handle_*` the caller takes the events until there is none, and writes
/// [`Self::snapshot`] to disk.
#[derive(Debug, Clone)]
pub struct CertificateWait<J> {
    mode: WaitMode,
    period: Duration,
    waiting: Option<Waiting<J>>,
    /// At most one look and one end of a wait: nobody begins to wait before they were taken.
    events: VecDeque<Event<J>>,
}

/// Whether there is any hope of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitMode {
    /// The installed system: a certificate may still come.
    Installed,
    /// Provisioning mode (Windows PE): none will, a job fails at once.
    Provisioning,
}

/// Whether there is a certificate, by [`super::Chosen`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// There is one.
    Present,
    /// There is none.
    Missing,
}

/// Whether a job may wait.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// It waits; or it failed at once, which the events tell.
    Taken,
    /// Another one waits: it goes back to the queue.
    Held,
}

/// Whether a job may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// No other job waits for a certificate.
    Open,
    /// Another one does; no other download job runs meanwhile.
    Closed,
}

/// What the caller has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<J> {
    /// The job waits from here on (event `certificate.missing`).
    Missing {
        /// The job.
        job: J,
        /// When it fails.
        deadline: UnixTime,
    },
    /// Look at the certificate store, then call [`CertificateWait::handle_certificate`].
    LookForCertificate,
    /// A certificate is there (event `certificate.recovered`): the job starts with a new election.
    StartElection {
        /// The job.
        job: J,
        /// When.
        start: Start,
        /// How long it waited, by the wall clock.
        waited: Duration,
    },
    /// The job failed.
    Failed {
        /// The job.
        job: J,
        /// Its result: [`ErrorCode::CLIENT_CERT_MISSING`], or the code of what interrupted it.
        code: ErrorCode,
        /// Why.
        failure: Failure,
    },
}

/// When an election starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At once.
    Now,
    /// When the job, which is paused, is resumed.
    AtResume,
}

/// Why a job failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No certificate came until the deadline.
    Deadline,
    /// Provisioning mode does not wait.
    Provisioning,
    /// The service was stopped. A restart is not a stop: its jobs go on waiting.
    ServiceStopped,
    /// The job was cancelled.
    Cancelled,
    /// The job expired.
    Expired,
}

#[derive(Debug, Clone)]
struct Waiting<J> {
    job: J,
    started: UnixTime,
    deadline: UnixTime,
    next_retry: UnixTime,
    retries: u64,
    start: Start,
}

impl<J: Clone + PartialEq> CertificateWait<J> {
    /// Starts with no job waiting. `period` is `p2p_client_cert_wait_period`; zero fails every job at once.
    #[must_use]
    pub fn new(mode: WaitMode, period: Duration) -> Self {
        Self { mode, period, waiting: None, events: VecDeque::new() }
    }

    /// Goes on waiting after a restart, with the deadline that was set before it, and looks for a certificate at once.
    #[must_use]
    pub fn restore(mode: WaitMode, period: Duration, snapshot: WaitSnapshot<J>, now: UnixTime) -> Self {
        let mut restored = Self::new(mode, period);
        restored.waiting = Some(snapshot.into());
        if mode == WaitMode::Provisioning {
            restored.fail(ErrorCode::CLIENT_CERT_MISSING, Failure::Provisioning);
        }
        if restored.passes(now) {
            restored.look();
        }
        if let Some(waiting) = restored.waiting.as_mut() {
            // The clock may have been set back meanwhile.
            waiting.next_retry = waiting.next_retry.min(later(now, RETRY_INTERVAL));
        }
        restored
    }

    /// Returns what has to survive a restart; `None`: no job waits.
    #[must_use]
    pub fn snapshot(&self) -> Option<WaitSnapshot<J>> {
        self.waiting.as_ref().map(WaitSnapshot::from)
    }

    /// Tells that a job found no certificate, while certificate authentication is on (P10).
    pub fn handle_missing(&mut self, job: J, now: UnixTime) -> Admission {
        if let Some(waiting) = &self.waiting {
            // The same job asks again: its deadline stays.
            return if waiting.job == job { Admission::Taken } else { Admission::Held };
        }
        if !self.events.is_empty() {
            return Admission::Held;
        }
        let deadline = later(now, self.period);
        let next_retry = later(now, RETRY_INTERVAL);
        let start = Start::Now;
        self.waiting =
            Some(Waiting { job: job.clone(), started: now, deadline, next_retry, retries: 0, start });
        match self.mode {
            WaitMode::Provisioning => self.fail(ErrorCode::CLIENT_CERT_MISSING, Failure::Provisioning),
            WaitMode::Installed => {
                self.events.push_back(Event::Missing { job, deadline });
                self.passes(now);
            }
        }
        Admission::Taken
    }

    /// Tells whether there is a certificate: after every look, and whenever the store changes.
    pub fn handle_certificate(&mut self, availability: Availability, now: UnixTime) {
        if !self.passes(now) || availability == Availability::Missing {
            return;
        }
        let Some(Waiting { job, started, start, .. }) = self.waiting.take() else { return };
        let waited = Duration::from_secs(now.as_secs().saturating_sub(started.as_secs()));
        self.drop_look();
        self.events.push_back(Event::StartElection { job, start, waited });
    }

    /// Tells that the time of [`Self::poll_timeout`] may have come, and that the machine woke or its clock was set.
    pub fn handle_timeout(&mut self, now: UnixTime) {
        if !self.passes(now) {
            return;
        }
        let Some(waiting) = self.waiting.as_mut() else { return };
        // The second: the clock was set back, and the look that is due is far away by it.
        let is_due = now >= waiting.next_retry || later(now, RETRY_INTERVAL * 2) < waiting.next_retry;
        if is_due {
            waiting.retries = waiting.retries.saturating_add(1);
            waiting.next_retry = later(now, RETRY_INTERVAL);
            // A clock that is set back again and again must not make the wait endless.
            if waiting.retries >= retries_max(self.period) {
                return self.fail(ErrorCode::CLIENT_CERT_MISSING, Failure::Deadline);
            }
            self.look();
        }
    }

    /// Tells that a job was paused. If it waits, it goes on waiting, and its election starts when it is resumed.
    pub fn handle_paused(&mut self, job: &J) {
        self.set_start(job, Start::AtResume);
    }

    /// Tells that a job was resumed.
    pub fn handle_resumed(&mut self, job: &J) {
        self.set_start(job, Start::Now);
    }

    /// Tells that the service stops, with the code that its jobs fail by. Not called for a restart.
    pub fn handle_stopped(&mut self, code: ErrorCode) {
        self.fail(code, Failure::ServiceStopped);
    }

    /// Tells that a job was cancelled, with the code that it fails by; another one than the waiting one is ignored.
    pub fn handle_cancelled(&mut self, job: &J, code: ErrorCode) {
        self.interrupt(job, code, Failure::Cancelled);
    }

    /// Tells that a job expired, with the code that it fails by; another one than the waiting one is ignored.
    pub fn handle_expired(&mut self, job: &J, code: ErrorCode) {
        self.interrupt(job, code, Failure::Expired);
    }

    /// Returns whether a download job may run.
    #[must_use]
    pub fn gate(&self, job: &J) -> Gate {
        match &self.waiting {
            Some(waiting) if waiting.job != *job => Gate::Closed,
            Some(_) | None => Gate::Open,
        }
    }

    /// Returns the job that waits, and when it fails.
    #[must_use]
    pub fn waiting(&self) -> Option<(&J, UnixTime)> {
        self.waiting.as_ref().map(|waiting| (&waiting.job, waiting.deadline))
    }

    /// Takes the next thing to do.
    pub fn poll_event(&mut self) -> Option<Event<J>> {
        self.events.pop_front()
    }

    /// Returns when [`Self::handle_timeout`] should next be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        self.waiting.as_ref().map(|waiting| waiting.next_retry.min(waiting.deadline))
    }

    /// Returns whether a job waits and its deadline is still to come; fails the job if it is not.
    fn passes(&mut self, now: UnixTime) -> bool {
        if self.waiting.as_ref().is_some_and(|waiting| now >= waiting.deadline) {
            self.fail(ErrorCode::CLIENT_CERT_MISSING, Failure::Deadline);
        }
        self.waiting.is_some()
    }

    fn look(&mut self) {
        if !self.events.contains(&Event::LookForCertificate) {
            self.events.push_back(Event::LookForCertificate);
        }
    }

    /// A look that nobody took is of no use once the wait is over.
    fn drop_look(&mut self) {
        self.events.retain(|event| *event != Event::LookForCertificate);
    }

    fn set_start(&mut self, job: &J, start: Start) {
        if let Some(waiting) = self.waiting.as_mut().filter(|waiting| waiting.job == *job) {
            waiting.start = start;
        }
    }

    fn interrupt(&mut self, job: &J, code: ErrorCode, failure: Failure) {
        if self.waiting.as_ref().is_some_and(|waiting| waiting.job == *job) {
            self.fail(code, failure);
        }
    }

    fn fail(&mut self, code: ErrorCode, failure: Failure) {
        let Some(waiting) = self.waiting.take() else { return };
        self.drop_look();
        self.events.push_back(Event::Failed { job: waiting.job, code, failure });
    }
}

/// A wait as it is kept on disk. Times are wall times in seconds after 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitSnapshot<J> {
    job: J,
    started_unix_seconds: u64,
    deadline_unix_seconds: u64,
    next_retry_unix_seconds: u64,
    retries: u64,
    start: Start,
}

impl<J> WaitSnapshot<J> {
    /// Returns the job that waits.
    #[must_use]
    pub fn job(&self) -> &J {
        &self.job
    }
}

impl<J: Clone> From<&Waiting<J>> for WaitSnapshot<J> {
    fn from(waiting: &Waiting<J>) -> Self {
        Self {
            job: waiting.job.clone(),
            started_unix_seconds: waiting.started.as_secs(),
            deadline_unix_seconds: waiting.deadline.as_secs(),
            next_retry_unix_seconds: waiting.next_retry.as_secs(),
            retries: waiting.retries,
            start: waiting.start,
        }
    }
}

impl<J> From<WaitSnapshot<J>> for Waiting<J> {
    fn from(snapshot: WaitSnapshot<J>) -> Self {
        Self {
            job: snapshot.job,
            started: at(snapshot.started_unix_seconds),
            deadline: at(snapshot.deadline_unix_seconds),
            next_retry: at(snapshot.next_retry_unix_seconds),
            retries: snapshot.retries,
            start: snapshot.start,
        }
    }
}

/// Looks that fit into the period. With the clock running on, the deadline comes with the last of them or before it.
fn retries_max(period: Duration) -> u64 {
    period.as_secs().div_ceil(RETRY_INTERVAL.as_secs()).max(1)
}

fn later(now: UnixTime, by: Duration) -> UnixTime {
    at(now.as_secs().saturating_add(by.as_secs()))
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}
