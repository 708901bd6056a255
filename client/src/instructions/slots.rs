//! Instructions that were taken on: what waits for a slot, what is downloaded for, what runs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use muster_endpoint::Answer;
use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::ids::InstructionId;
use muster_proto::session::v1::Result as InstructionResult;

use super::run::StepError;
use super::{Admission, Effect, Instructions, Now, Opened, Plan, Refused, outcome};
use crate::store::Entry;

/// How old the verification of an instruction may be when it starts; an older one is made again (signing.md G8: "at the
/// time of running").
const VERIFIED_FOR: Duration = Duration::from_secs(1);

/// An instruction whose intent is on disk.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) entry: Entry,
    pub(super) definition: Vec<u8>,
    pub(super) verified: Option<(Instant, Plan)>,
}

/// An instruction that runs.
#[derive(Debug)]
pub(super) struct Started {
    at_ms: i64,
    plan: Plan,
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
        fetched: Result<Vec<(String, PathBuf)>, String>,
        now: Now,
    ) {
        let Some(waiting) = self.fetching.remove(&instruction) else { return };
        if self.is_stopping {
            return;
        }
        match fetched {
            _ if now.wall_ms >= waiting.entry.expires_at_ms => {
                self.end(outcome::expired(instruction, now.wall_ms));
            }
            // A download may take hours, so everything is verified again.
            Ok(resources) => match self.verify_again(&waiting, now) {
                Ok(plan) => self.start(instruction, plan, resources, now),
                Err(refused) => self.end(outcome::refused(instruction, &refused, now.wall_ms)),
            },
            Err(detail) => {
                let refused = Refused { refusal: Refusal::Resource, detail };
                self.end(outcome::refused(instruction, &refused, now.wall_ms));
            }
        }
        self.advance(now);
    }

    /// It ran.
    pub(crate) fn handle_finished(
        &mut self,
        instruction: InstructionId,
        answer: Result<Answer, StepError>,
        now: Now,
    ) {
        let Some(started) = self.running.remove(&instruction) else { return };
        let result = outcome::finished(instruction, &started.plan, answer, started.at_ms, now.wall_ms);
        self.end(result);
        self.advance(now);
    }

    /// The journal says that it has started or ended before: it does not run.
    pub(crate) fn handle_forbidden(&mut self, instruction: InstructionId, now: Now) {
        self.running.remove(&instruction);
        self.effects.retain(|effect| !effect.runs(instruction));
        self.advance(now);
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
            let detail = "this device holds no licence; import one at the Switch".to_owned();
            return Err(Refused { refusal: Refusal::Unlicensed, detail });
        };
        self.admission.admit(
            opened,
            definition,
            &licence.envelope,
            entry.proof.as_ref(),
            &self.memory,
            now.wall_ms,
        )
    }

    fn verify_again(&mut self, waiting: &Waiting, now: Now) -> Result<Plan, Refused> {
        let opened = self.admission.open(&waiting.entry.envelope, now.wall_ms)?;
        self.verify(&opened, &waiting.definition, &waiting.entry, now)
    }

    /// Fills the slots.
    pub(super) fn advance(&mut self, now: Now) {
        while self.may_start() && self.running.len() + self.fetching.len() < self.limits.parallel {
            let Some(mut waiting) = self.waiting.pop_front() else { return };
            let instruction = waiting.entry.instruction;
            if now.wall_ms >= waiting.entry.expires_at_ms {
                self.end(outcome::expired(instruction, now.wall_ms));
                continue;
            }
            let fresh =
                waiting.verified.take().filter(|(at, _)| now.instant.duration_since(*at) <= VERIFIED_FOR);
            let plan = match fresh {
                Some((_, plan)) => Ok(plan),
                None => self.verify_again(&waiting, now),
            };
            match plan {
                Err(refused) => self.end(outcome::refused(instruction, &refused, now.wall_ms)),
                Ok(plan) if plan.resources.is_empty() => self.start(instruction, plan, Vec::new(), now),
                Ok(plan) => {
                    let expires_at_ms = waiting.entry.expires_at_ms;
                    self.effects.push_back(Effect::Fetch {
                        instruction,
                        plan: Box::new(plan),
                        expires_at_ms,
                    });
                    self.fetching.insert(instruction, waiting);
                }
            }
        }
    }

    /// The only place that starts anything: the mark is on disk first.
    fn start(&mut self, instruction: InstructionId, plan: Plan, resources: Vec<(String, PathBuf)>, now: Now) {
        let at_ms = now.wall_ms;
        self.effects.push_back(Effect::RecordStart { instruction, at_ms });
        self.effects.push_back(Effect::SendProgress { instruction, state: TargetState::Running });
        self.effects.push_back(Effect::Run { instruction, plan: Box::new(plan.clone()), resources });
        self.running.insert(instruction, Started { at_ms, plan });
    }

    pub(super) fn end(&mut self, result: InstructionResult) {
        self.effects.push_back(Effect::RecordResult { result: Box::new(result) });
    }
}
