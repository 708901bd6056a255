//! Instructions that were taken on: what waits for a slot, what is downloaded for, what runs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use muster_endpoint::QueryError;
use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::ids::InstructionId;
use muster_proto::session::v1::Result as InstructionResult;

use super::rows::Collected;
use super::run::StepError;
use super::{Admission, Effect, FetchFailure, Instructions, Now, Opened, Plan, Refused, outcome, stops};
use crate::store::Entry;

/// How old the verification of an instruction may be when it gets its slot; an older one is made again. What is run was verified once more
/// behind the record of its start, however young this one is (signing.md G8: "at the time of running").
const VERIFIED_FOR: Duration = Duration::from_secs(1);

/// An instruction whose intent is on disk.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) entry: Entry,
    pub(super) definition: Vec<u8>,
    pub(super) verified: Option<(Instant, Plan)>,
    /// What was downloaded for it; `None`: nothing yet.
    pub(super) resources: Option<Vec<(String, PathBuf)>>,
}

/// What an instruction needs before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// It was not verified since the start of the client.
    Unknown,
    Download,
    Nothing,
}

impl Waiting {
    /// Makes one that was verified, or (`None`) is to be before anything else.
    pub(super) fn new(entry: Entry, definition: Vec<u8>, verified: Option<(Instant, Plan)>) -> Self {
        Self { entry, definition, verified, resources: None }
    }

    fn needs(&self) -> Need {
        match &self.verified {
            _ if self.resources.is_some() => Need::Nothing,
            None => Need::Unknown,
            Some((_, plan)) if plan.resources.is_empty() => Need::Nothing,
            Some(_) => Need::Download,
        }
    }
}

/// An instruction that has a slot: its start is being put on disk, or it runs.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) at_ms: i64,
    plan: Plan,
    /// Who stopped it and why; `None`: nobody did.
    pub(super) stopped: Option<String>,
    /// What it begins with once its start is on disk; `None`: it runs.
    recording: Option<Waiting>,
}

impl Started {
    pub(super) fn runs(&self) -> bool {
        self.recording.is_none()
    }
}

impl<A: Admission> Instructions<A> {
    /// The client stops: nothing starts any more, what runs may end. What has not started stays journaled as it is, and
    /// comes back by [`Self::handle_recovered`].
    pub(crate) fn handle_stopping(&mut self) {
        self.is_stopping = true;
    }

    /// What an instruction needs is here, or cannot be had.
    pub(crate) fn handle_fetched(
        &mut self,
        instruction: InstructionId,
        fetched: Result<Vec<(String, PathBuf)>, FetchFailure>,
        now: Now,
    ) {
        let Some(waiting) = self.fetching.remove(&instruction) else { return };
        if self.is_stopping {
            return;
        }
        match fetched {
            // A download may take hours, so everything is verified again, and a slot to run in may be taken by now.
            Ok(resources) => {
                let resources = Some(resources);
                self.waiting.push_front(Waiting { verified: None, resources, ..waiting });
            }
            Err(FetchFailure::NoCertificate) => self.wait_for_certificate(waiting, now),
            Err(FetchFailure::Failed(detail)) => {
                let is_late = now.wall_ms >= waiting.entry.expires_at_ms;
                let refusal = if is_late { Refusal::Expired } else { Refusal::Resource };
                let refused = Refused::new(refusal, detail);
                self.end(outcome::refused(instruction, &refused, now.wall_ms));
            }
        }
        self.advance(now);
    }

    /// Returns whether a download for the instruction is still wanted.
    pub(crate) fn is_fetching(&self, instruction: InstructionId) -> bool {
        self.fetching.contains_key(&instruction)
    }

    /// It ran.
    pub(crate) fn handle_finished(
        &mut self,
        instruction: InstructionId,
        answer: Result<Collected, StepError>,
        now: Now,
    ) {
        let Some(started) = self.running.remove(&instruction) else { return };
        let (result, parts) =
            outcome::finished(instruction, &started.plan, answer, started.at_ms, now.wall_ms);
        self.effects.push_back(Effect::RecordResult { result: Box::new(result), parts });
        self.advance(now);
    }

    /// The journal says that it has started or ended before: it does not run.
    pub(crate) fn handle_forbidden(&mut self, instruction: InstructionId, now: Now) {
        self.running.remove(&instruction);
        self.advance(now);
    }

    /// Its sandbox cannot be had here, as was seen before its start was put on disk.
    pub(crate) fn handle_unconfined(&mut self, instruction: InstructionId, why: &QueryError, now: Now) {
        let Some(started) = self.running.remove(&instruction) else { return };
        self.end(match started.stopped {
            Some(by) => outcome::cancelled(instruction, &by, 0, now.wall_ms),
            None => {
                let refused = Refused::new(Refusal::Unsupported, why.to_string());
                outcome::refused(instruction, &refused, now.wall_ms)
            }
        });
        self.advance(now);
    }

    /// Its start is on disk. A full disk may have taken hours for that, so this is the moment at which everything has to hold (signing.md
    /// G8: "at the time of running"); what does not run any more ends here.
    pub(crate) fn handle_start_recorded(&mut self, instruction: InstructionId, now: Now) {
        let Some(started) = self.running.get_mut(&instruction) else {
            // The store turned out to be a copy meanwhile. The journal has ended all that it had by then.
            return self.end(outcome::restored(instruction, now.wall_ms));
        };
        let Some(waiting) = started.recording.take() else { return };
        match self.may_run(&waiting, now) {
            Ok(plan) => self.run(instruction, plan, waiting.resources.unwrap_or_default(), now),
            Err(result) => {
                self.running.remove(&instruction);
                self.end(*result);
                self.advance(now);
            }
        }
    }

    /// Returns what is run of an instruction whose start is on disk, or how it ends instead.
    fn may_run(&mut self, waiting: &Waiting, now: Now) -> Result<Plan, Box<InstructionResult>> {
        let instruction = waiting.entry.instruction;
        if let Some(by) = self.running.get(&instruction).and_then(|started| started.stopped.as_ref()) {
            return Err(Box::new(outcome::cancelled(instruction, by, 0, now.wall_ms)));
        }
        if now.wall_ms >= waiting.entry.expires_at_ms {
            return Err(Box::new(outcome::expired(instruction, now.wall_ms)));
        }
        // Whatever was found before: a licence, a policy or a CRL may have come since, and counts as soon as it is here.
        self.verify_again(waiting, now)
            .map_err(|refused| Box::new(outcome::refused(instruction, &refused, now.wall_ms)))
    }

    /// The only place that runs anything. It comes before whatever else is to be done, none of which it needs: a write among that may take
    /// as long as the one of its start.
    fn run(&mut self, instruction: InstructionId, plan: Plan, resources: Vec<(String, PathBuf)>, now: Now) {
        let started = Started { at_ms: now.wall_ms, plan: plan.clone(), stopped: None, recording: None };
        self.running.insert(instruction, started);
        self.effects.push_front(Effect::Run { instruction, plan: Box::new(plan), resources });
        self.effects.push_front(Effect::SendProgress { instruction, state: TargetState::Running });
    }

    /// Its task broke: it has ended, and its slot is free.
    pub(crate) fn handle_broken(&mut self, instruction: InstructionId, detail: &str, now: Now) {
        let started_at_ms = match self.running.remove(&instruction) {
            Some(started) => started.at_ms,
            None if self.fetching.remove(&instruction).is_some() && !self.is_stopping => 0,
            None => return,
        };
        self.end(outcome::failed(instruction, detail, started_at_ms, now.wall_ms));
        self.advance(now);
    }

    pub(super) fn verify(
        &mut self,
        opened: &Opened,
        definition: &[u8],
        entry: &Entry,
        now: Now,
    ) -> Result<Plan, Refused> {
        self.memory.time_floor_ms = self.floor.at(now);
        let Some(licence) = &self.licence else {
            let detail = match &self.licence_waiting {
                Some(waiting) => format!("the licence that came is not taken yet: {}", waiting.detail),
                None => "this device holds no licence; import one at the Switch".to_owned(),
            };
            return Err(Refused::new(Refusal::Unlicensed, detail));
        };
        let judge = |wall_ms| {
            let (licence, proof) = (&licence.envelope, entry.proof.as_ref());
            self.admission.admit(opened, definition, licence, proof, &self.memory, wall_ms)
        };
        let holds = |wall_ms| judge(wall_ms).is_ok();
        judge(now.wall_ms).map_err(|refused| self.blame_clock(refused, holds, now))
    }

    fn verify_again(&mut self, waiting: &Waiting, now: Now) -> Result<Plan, Refused> {
        let opened = stops::order(self.admission.open(&waiting.entry.envelope, now.wall_ms)?)?;
        self.verify(&opened, &waiting.definition, &waiting.entry, now)
    }

    /// Goes on with whatever can: fills the slots, and again where the end of a wait for a certificate lets others in.
    pub(super) fn advance(&mut self, now: Now) {
        loop {
            self.settle_downloads(now);
            let waited = self.download_waiting().is_some();
            self.fill(now);
            self.settle_downloads(now);
            // Nothing begins to wait here, so this ends.
            if !waited || self.download_waiting().is_some() {
                return;
            }
        }
    }

    /// Fills the slots. Downloads have as many of their own: a source that is away must not keep what needs nothing of it from
    /// running.
    fn fill(&mut self, now: Now) {
        let mut at = 0;
        while self.may_start() {
            let is_next = |waiting: &Waiting| match waiting.needs() {
                _ if now.wall_ms >= waiting.entry.expires_at_ms => true,
                Need::Unknown => self.has_room_to_run() || self.has_room_to_fetch(),
                Need::Download => self.has_room_to_fetch(),
                Need::Nothing => self.has_room_to_run(),
            };
            let Some(next) = self.waiting.iter().skip(at).position(is_next) else { return };
            at += next;
            let Some(waiting) = self.waiting.remove(at) else { return };
            if let Some(stays) = self.advance_one(waiting, now) {
                self.waiting.insert(at, stays);
                at += 1;
            }
        }
    }

    /// Starts an instruction or its download, or ends it; gives it back if there is no room for what it turns out to need.
    fn advance_one(&mut self, mut waiting: Waiting, now: Now) -> Option<Waiting> {
        let instruction = waiting.entry.instruction;
        if now.wall_ms >= waiting.entry.expires_at_ms {
            self.end(outcome::expired(instruction, now.wall_ms));
            return None;
        }
        let fresh = waiting.verified.take().filter(|(at, _)| is_fresh(*at, now));
        let (verified_at, plan) = match fresh {
            Some(fresh) => fresh,
            None => match self.verify_again(&waiting, now) {
                Ok(plan) => (now.instant, plan),
                Err(refused) => {
                    self.end(outcome::refused(instruction, &refused, now.wall_ms));
                    return None;
                }
            },
        };
        if plan.resources.is_empty() {
            waiting.resources.get_or_insert_default();
        }
        match waiting.resources.take() {
            Some(resources) if self.has_room_to_run() => {
                let (resources, verified) = (Some(resources), Some((verified_at, plan.clone())));
                self.start(plan, Waiting { resources, verified, ..waiting }, now);
            }
            None if self.has_room_to_fetch() => {
                let expires_at_ms = waiting.entry.expires_at_ms;
                self.effects.push_back(Effect::Fetch { instruction, plan: Box::new(plan), expires_at_ms });
                self.fetching.insert(instruction, waiting);
            }
            resources => return Some(Waiting { resources, verified: Some((verified_at, plan)), ..waiting }),
        }
        None
    }

    fn has_room_to_run(&self) -> bool {
        self.running.len() < self.limits.parallel
    }

    /// While one waits for a certificate, no other download runs (S6).
    fn has_room_to_fetch(&self) -> bool {
        self.fetching.len() < self.limits.parallel && self.download_waiting().is_none()
    }

    /// Takes a slot, and has the mark put on disk before anything runs.
    fn start(&mut self, plan: Plan, waiting: Waiting, now: Now) {
        let (instruction, at_ms, sandbox) = (waiting.entry.instruction, now.wall_ms, plan.sandbox);
        self.effects.push_back(Effect::RecordStart { instruction, at_ms, sandbox });
        self.running.insert(instruction, Started { at_ms, plan, stopped: None, recording: Some(waiting) });
    }

    pub(super) fn end(&mut self, result: InstructionResult) {
        self.effects.push_back(Effect::RecordResult { result: Box::new(result), parts: None });
    }
}

/// Whether a verification of that time still counts.
fn is_fresh(at: Instant, now: Now) -> bool {
    now.instant.duration_since(at) <= VERIFIED_FOR
}
