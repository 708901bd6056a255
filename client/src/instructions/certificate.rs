//! Downloads while there is no certificate (S6): one waits, no other runs, and nobody is asked without one.
//!
//! [`CertificateWait`] decides; here is what its events mean for instructions. A job is an instruction that needs resources.
//! The wait is on disk, with its deadline by the wall clock, and goes on over restarts, also before a Welcome was judged.

use std::time::{Duration, Instant};

use muster_pki::UnixTime;
use muster_pki::select::{
    Admission as WaitAdmission, Availability, CertificateWait, ErrorCode, Event, Failure, WaitMode,
    WaitSnapshot,
};
use muster_proto::common::v1::Refusal;
use muster_proto::ids::InstructionId;
use serde::{Deserialize, Serialize};

use super::slots::Waiting;
use super::{Admission, Effect, Instructions, Now, Refused, outcome};

/// The code by which a job ends whose instruction's window is over; the instruction is answered as expired.
const EXPIRED: ErrorCode = ErrorCode::new(0x05B4);

/// The code by which a job ends whose instruction has ended by itself.
const CANCELLED: ErrorCode = ErrorCode::new(0x04C7);

/// A download job, by its instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Job(InstructionId);

impl TryFrom<String> for Job {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("{text:?} is no instruction"))
    }
}

impl From<Job> for String {
    fn from(job: Job) -> Self {
        job.0.to_string()
    }
}

/// The wait of a client's downloads, with what of it is on disk.
#[derive(Debug)]
pub(crate) struct DownloadWait {
    wait: CertificateWait<Job>,
    period: Duration,
    kept: Option<WaitSnapshot<Job>>,
}

/// What becomes known of a wait, for the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitNotice {
    /// A download waits from here on.
    Missing {
        /// Of this instruction.
        instruction: InstructionId,
        /// When it fails, milliseconds since 1970.
        deadline_ms: i64,
    },
    /// A certificate is there: the download starts.
    Recovered {
        /// Of this instruction.
        instruction: InstructionId,
        /// How long it waited, in milliseconds.
        waited_ms: i64,
    },
}

impl DownloadWait {
    /// Starts without a wait; `period` is how long one lasts.
    pub(crate) fn new(period: Duration) -> Self {
        Self { wait: CertificateWait::new(WaitMode::Installed, period), period, kept: None }
    }

    /// Goes on with what is on disk. What cannot be read is told and forgotten: the job then waits anew.
    pub(crate) fn restore(period: Duration, stored: Option<&[u8]>, now_ms: i64) -> Self {
        let Some(bytes) = stored else { return Self::new(period) };
        match serde_json::from_slice::<WaitSnapshot<Job>>(bytes) {
            Ok(snapshot) => {
                let kept = Some(snapshot.clone());
                let wait = CertificateWait::restore(WaitMode::Installed, period, snapshot, unix(now_ms));
                Self { wait, period, kept }
            }
            Err(error) => {
                tracing::error!(%error, "the stored wait for a certificate cannot be read; it begins anew");
                Self::new(period)
            }
        }
    }
}

impl<A: Admission> Instructions<A> {
    /// Takes over the wait of before a restart.
    pub(crate) fn with_download_wait(self, downloads: DownloadWait) -> Self {
        Self { downloads, ..self }
    }

    /// Tells whether there is a certificate: after every look, and when the store changed.
    pub(crate) fn handle_certificate(&mut self, availability: Availability, now: Now) {
        self.downloads.wait.handle_certificate(availability, unix(now.wall_ms));
        self.advance(now);
    }

    /// Returns the instruction whose download waits, and when it fails, milliseconds since 1970.
    pub(crate) fn download_waiting(&self) -> Option<(InstructionId, i64)> {
        self.downloads.wait.waiting().map(|(job, deadline)| (job.0, millis(deadline)))
    }

    /// A download found no certificate: it waits, or goes back to the queue behind the one that does.
    pub(super) fn wait_for_certificate(&mut self, waiting: Waiting, now: Now) {
        let job = Job(waiting.entry.instruction);
        self.waiting.push_front(Waiting { verified: None, resources: None, ..waiting });
        match self.downloads.wait.handle_missing(job, unix(now.wall_ms)) {
            WaitAdmission::Taken | WaitAdmission::Held => {}
        }
    }

    /// Returns when the wait is to be looked at.
    pub(super) fn download_timeout(&self, now: Now) -> Option<Instant> {
        let wait_ms = self.downloads.wait.poll_timeout().map(millis);
        let expiry_ms = self.download_waiting().and_then(|(instruction, _)| self.expiry_of(instruction));
        let at_ms = wait_ms.into_iter().chain(expiry_ms).min()?;
        let left = u64::try_from(at_ms.saturating_sub(now.wall_ms)).unwrap_or(0);
        Some(now.instant + Duration::from_millis(left))
    }

    /// Tells the wait what time it is.
    pub(super) fn handle_download_timeout(&mut self, now: Now) {
        self.downloads.wait.handle_timeout(unix(now.wall_ms));
    }

    /// Does what the wait wants done, and keeps it on disk.
    pub(super) fn settle_downloads(&mut self, now: Now) {
        self.reconcile_downloads(now);
        let mut notice = None;
        while let Some(event) = self.downloads.wait.poll_event() {
            match event {
                Event::Missing { job, deadline } => {
                    self.stop_fetching();
                    self.effects.push_back(Effect::LookForCertificate);
                    notice = Some(WaitNotice::Missing { instruction: job.0, deadline_ms: millis(deadline) });
                }
                Event::LookForCertificate => self.effects.push_back(Effect::LookForCertificate),
                Event::StartElection { job, waited, .. } => {
                    let waited_ms = i64::try_from(waited.as_millis()).unwrap_or(i64::MAX);
                    notice = Some(WaitNotice::Recovered { instruction: job.0, waited_ms });
                }
                Event::Failed { job, code, failure } => self.end_download(job, code, failure, now),
            }
        }
        let snapshot = self.downloads.wait.snapshot();
        if snapshot != self.downloads.kept || notice.is_some() {
            self.downloads.kept.clone_from(&snapshot);
            // It has strings and numbers only, which always have a text.
            let stored = snapshot.and_then(|snapshot| serde_json::to_vec(&snapshot).ok());
            self.effects.push_back(Effect::RecordWait { stored, notice });
        }
    }

    /// Ends the wait of an instruction that has ended, or whose window has.
    fn reconcile_downloads(&mut self, now: Now) {
        let Some((instruction, _)) = self.download_waiting() else { return };
        let job = Job(instruction);
        match self.expiry_of(instruction) {
            None => self.downloads.wait.handle_cancelled(&job, CANCELLED),
            Some(expires_at_ms) if now.wall_ms >= expires_at_ms => {
                self.downloads.wait.handle_expired(&job, EXPIRED);
            }
            Some(_) => {}
        }
    }

    /// No other download job runs while one waits: what came of them stays, and they go on from there.
    fn stop_fetching(&mut self) {
        for (_, waiting) in std::mem::take(&mut self.fetching).into_iter().rev() {
            self.waiting.push_front(Waiting { verified: None, resources: None, ..waiting });
        }
        self.effects.push_back(Effect::StopFetching);
    }

    fn end_download(&mut self, job: Job, code: ErrorCode, failure: Failure, now: Now) {
        let instruction = job.0;
        let result = match failure {
            Failure::Deadline | Failure::Provisioning => {
                let period = muster_service::config::human::duration::format(self.downloads.period);
                let detail = format!(
                    "ERROR_CLIENT_CERT_MISSING ({code}): this device has no valid certificate, and none came within {period} \
                     (resources.certificate_wait); nothing was fetched without one; put a certificate into its tls.store and \
                     issue it again"
                );
                let refused = Refused::new(Refusal::Resource, detail);
                outcome::refused(instruction, &refused, now.wall_ms)
            }
            Failure::Expired => outcome::expired(instruction, now.wall_ms),
            // Whatever ended it has its own answer; a service that was stopped goes on at its next start.
            Failure::Cancelled | Failure::ServiceStopped => return,
        };
        let (waiting, held) = (self.waiting.len(), self.held.len());
        self.waiting.retain(|waiting| waiting.entry.instruction != instruction);
        self.held.retain(|(entry, _)| entry.instruction != instruction);
        if (self.waiting.len(), self.held.len()) != (waiting, held) {
            self.end(result);
        }
    }

    /// Returns when the window of an instruction ends that has not started; `None`: it has, or is not known.
    fn expiry_of(&self, instruction: InstructionId) -> Option<i64> {
        let waiting = self.waiting.iter().chain(self.fetching.values()).map(|waiting| &waiting.entry);
        let mut entries = waiting.chain(self.held.iter().map(|(entry, _)| entry));
        entries.find(|entry| entry.instruction == instruction).map(|entry| entry.expires_at_ms)
    }
}

fn unix(ms: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(ms).unwrap_or(0) / 1_000))
}

fn millis(at: UnixTime) -> i64 {
    i64::try_from(at.as_secs().saturating_mul(1_000)).unwrap_or(i64::MAX)
}
