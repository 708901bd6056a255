//! What becomes of an order: verified, taken on, started at most once, answered exactly once.
//!
//! [`Instructions`] decides and has no clock, disk or socket: `handle_*` tells it what happened, [`Instructions::poll_effect`]
//! says what to do next. The order of the effects is the promise: what must be on disk comes before what tells of it, and
//! the shell ([`shell`]) carries them out one by one. Dying between any two of them breaks no promise.
//!
//! ```text
//! order → verified → known? ── same bytes ──→ acked again
//!                      │   └── other bytes ─→ REPLAYED
//!                      ├ definition missing → asked for
//!                      └ admitted → RecordIntent → ACKED → waits for a slot → resources
//!                        → RecordStart → everything verified again → RUNNING → Run → RecordResult
//! ```
//! Each write may wait for a disk that is full, for hours: what has to hold at the time of running is looked at behind the last of them.
//! A stop ([`stops`]) ends an instruction wherever it is on this way. What a restart finds taken on waits until a Welcome has said whether the store is a copy ([`restored`]). Without a certificate,
//! what needs resources waits for one ([`certificate`]).

mod admission;
mod alarm;
mod arriving;
mod certificate;
mod confinement;
mod delayed;
mod due;
mod durable;
mod effect;
mod floor;
mod learning;
mod licence;
mod lists;
mod live;
mod outcome;
mod restored;
mod rows;
mod run;
pub(crate) mod shell;
mod signed;
mod slots;
mod stops;
mod trust;
mod typed;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use muster_pki::select::WAIT_PERIOD_DEFAULT;
use muster_proto::ids::{Digest, InstructionId};

pub(crate) use admission::{Admission, Memory, Opened, Plan, PlanResource, RefreshJob, Refused, Signed};
pub(crate) use alarm::LicenceAlarm;
pub(crate) use certificate::{DownloadWait, WaitNotice};
pub(crate) use confinement::Confinement;
pub(crate) use delayed::Delayed;
pub(crate) use due::Due;
pub(crate) use effect::Effect;
pub(crate) use floor::CLOCK_OFF_MS;
use floor::TimeFloor;
pub(crate) use licence::HeldLicence;
use licence::{WaitingLicence, WantedLicence};
pub(crate) use live::LiveTrust;
pub(crate) use restored::STOPS_WAIT;
pub(crate) use rows::{Collected, Room};
pub(crate) use signed::SignedAdmission;
pub use trust::TrustError;
pub(crate) use trust::{FOLDER, POLICY, shared_with_signers};
pub(crate) use work::{FetchFailure, Work};

use arriving::Arriving;
use lists::Unopened;
use restored::{Held, Hold};
use slots::{Started, Waiting};

/// Bounds of the machine.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Slots.
    pub(crate) parallel: usize,
    /// Instructions that wait, and orders that wait for a document.
    pub(crate) queued: usize,
    /// How long a document may take.
    pub(crate) document: Duration,
}

/// The time, both ways: the monotonic clock for deadlines, the wall clock for windows and certificates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Monotonic.
    pub(crate) instant: Instant,
    /// Milliseconds since 1970.
    pub(crate) wall_ms: i64,
}

/// The state of every instruction that is not ended.
#[derive(Debug)]
pub(crate) struct Instructions<A> {
    admission: A,
    limits: Limits,
    licence: Option<HeldLicence>,
    /// The highest licence serial ever held.
    licence_serial: u64,
    /// A licence that was asked for, and that orders wait for.
    licence_asked: Option<Digest>,
    /// The Switch did not have the licence that it was asked for any more, and has yet to tell of its next.
    licence_superseded: bool,
    /// A licence that has yet to come, whether orders wait for it or not.
    licence_wanted: Option<WantedLicence>,
    /// A licence that came before the CRL that it needs.
    licence_waiting: Option<WaitingLicence>,
    /// A licence that came and did not hold, such as one of a licensor whose root is not here yet.
    licence_refused: Option<WaitingLicence>,
    memory: Memory,
    floor: TimeFloor,
    /// What was taken on before a restart, until a Welcome has told whether the store is a copy.
    held: Vec<Held>,
    hold: Hold,
    /// Orders that need a CRL before anything of them counts.
    unopened: Vec<Unopened>,
    arriving: Vec<Arriving>,
    /// How often the CRLs have changed.
    lists: u64,
    waiting: VecDeque<Waiting>,
    fetching: BTreeMap<InstructionId, Waiting>,
    /// What has a slot, from the record of its start on.
    running: BTreeMap<InstructionId, Started>,
    /// What waits for a certificate.
    downloads: DownloadWait,
    effects: VecDeque<Effect>,
    is_stopping: bool,
}

impl<A: Admission> Instructions<A> {
    /// Makes the machine from what the store remembers.
    pub(crate) fn new(
        admission: A,
        limits: Limits,
        licence: Option<HeldLicence>,
        licence_serial: u64,
        memory: Memory,
        now: Instant,
    ) -> Self {
        Self {
            admission,
            limits,
            licence,
            licence_serial,
            licence_asked: None,
            licence_superseded: false,
            licence_wanted: None,
            licence_waiting: None,
            licence_refused: None,
            floor: TimeFloor::new(memory.time_floor_ms, now),
            memory,
            held: Vec::new(),
            hold: Hold::UntilJudged,
            unopened: Vec::new(),
            arriving: Vec::new(),
            lists: 0,
            waiting: VecDeque::new(),
            fetching: BTreeMap::new(),
            running: BTreeMap::new(),
            downloads: DownloadWait::new(WAIT_PERIOD_DEFAULT),
            effects: VecDeque::new(),
            is_stopping: false,
        }
    }

    /// Returns what to do next.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Returns what is to be ended at once, whatever else is to be done: it waits for no write.
    pub(crate) fn poll_end(&mut self) -> Option<InstructionId> {
        let is_end = |effect: &Effect| matches!(effect, Effect::EndRun { .. });
        let at = self.effects.iter().position(is_end)?;
        match self.effects.remove(at) {
            Some(Effect::EndRun { instruction }) => Some(instruction),
            Some(_) | None => None,
        }
    }

    /// Returns when [`Self::handle_timeout`] should next be called.
    pub(crate) fn poll_timeout(&self, now: Now) -> Option<Instant> {
        let documents = self.arriving.iter().map(|arriving| arriving.deadline);
        let lists = self.unopened.iter().map(|unopened| unopened.deadline);
        let waits = self.licence_timeout().into_iter().chain(self.download_timeout(now));
        documents.chain(lists).chain(waits).chain(self.hold.timeout()).min()
    }

    /// Returns the earliest time that it can be, milliseconds since 1970.
    pub(crate) fn time_floor_ms(&mut self, now: Now) -> i64 {
        self.floor.at(now)
    }

    /// Returns the job that reads again what signatures are judged by.
    pub(crate) fn refresh(&self) -> Option<RefreshJob> {
        self.admission.refresh()
    }

    /// Returns how many wait and how many run.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.held.len() + self.waiting.len() + self.fetching.len(), self.running.len())
    }
}

#[cfg(test)]
mod tests;
