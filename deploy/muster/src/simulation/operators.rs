//! Operators: each asks until it knows what became of it, with the same key for the same order.

use muster_load_tests::history::Promise;
use muster_proto::ids::InstructionId;
use muster_proto::order::v1::Order;
use muster_switch::simulation::{Answer, Ask};
use prost::Message as _;

use super::organisation::{DEFINITION, OPERATOR};
use super::world::{Caller, Step, World};

/// Attempts of one operator at most, so that a seed ends.
const ATTEMPTS_MAX: u32 = 200;

/// How long devices have for the last question: those that have no session find out by its silence.
const LAST_GATHER_MS: u64 = 400_000;

/// Something that an operator wants.
#[derive(Debug)]
pub(super) struct Job {
    stage: Stage,
    gather_ms: u64,
    attempts: u32,
    /// Whether it is the question that every device is to answer.
    is_last: bool,
    /// Whether an answer is waited for.
    is_asking: bool,
}

#[derive(Debug, Clone)]
enum Stage {
    Prepare,
    Submit { instruction: InstructionId, envelope: Vec<u8>, key: String },
    PrepareStop { instruction: InstructionId },
    SubmitStop { instruction: InstructionId, envelope: Vec<u8> },
    Done,
}

impl Job {
    pub(super) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }
}

impl World {
    /// An operator begins to ask the fleet something.
    pub(super) fn issue(&mut self) {
        let gather_ms = self.rng.between(60_000, 400_000);
        self.begin_job(Stage::Prepare, gather_ms);
    }

    /// An operator asks what every device is to answer, since nothing goes wrong any more.
    pub(super) fn ask_last(&mut self) {
        self.begin_job(Stage::Prepare, LAST_GATHER_MS);
        if let Some(job) = self.jobs.last_mut() {
            job.is_last = true;
        }
    }

    /// An operator begins to stop something that was accepted.
    pub(super) fn stop(&mut self) {
        if self.truth.accepted.is_empty() {
            return;
        }
        let instruction = self.truth.accepted[self.rng.place(self.truth.accepted.len())];
        self.begin_job(Stage::PrepareStop { instruction }, 0);
    }

    fn begin_job(&mut self, stage: Stage, gather_ms: u64) {
        self.jobs.push(Job { stage, gather_ms, attempts: 0, is_last: false, is_asking: false });
        self.schedule(0, Step::Job(self.jobs.len() - 1));
    }

    /// Makes the next attempt.
    pub(super) fn job(&mut self, number: usize) {
        let job = &mut self.jobs[number];
        if job.is_asking || job.is_done() {
            return;
        }
        job.attempts += 1;
        if job.attempts > ATTEMPTS_MAX {
            let stage = format!("{:?}", job.stage);
            self.truth
                .broken
                .push(format!("operator {number} gets nowhere: {}", &stage[..stage.len().min(80)]));
            return;
        }
        let operator = OPERATOR.to_owned();
        let ask = match job.stage.clone() {
            Stage::Prepare => {
                Ask::Prepare { definition: DEFINITION.to_owned(), gather_ms: job.gather_ms, operator }
            }
            Stage::Submit { envelope, key, .. } => Ask::Submit { envelope, idempotency_key: key, operator },
            Stage::PrepareStop { instruction } => Ask::PrepareStop { instruction, operator },
            Stage::SubmitStop { envelope, .. } => Ask::SubmitStop { envelope, operator },
            Stage::Done => return,
        };
        job.is_asking = true;
        if !self.ask(ask, Caller::Job(number)) {
            self.ask_again(number);
        }
    }

    /// No answer came, or none that says anything: whether it was done is not known.
    pub(super) fn ask_again(&mut self, number: usize) {
        self.jobs[number].is_asking = false;
        self.totals.asked_again += 1;
        let after = if self.is_calm { self.rng.between(5_000, 15_000) } else { self.rng.between(200, 5_000) };
        self.schedule(after, Step::Job(number));
    }

    pub(super) fn job_answered(&mut self, number: usize, answer: Answer) {
        // The answer is lost on its way.
        if !self.is_calm && self.rng.chance(15) {
            self.note(|_| format!("operator {number} hears nothing"));
            return self.ask_again(number);
        }
        self.jobs[number].is_asking = false;
        let stage = self.jobs[number].stage.clone();
        let next = match (stage, answer) {
            (Stage::Prepare, Answer::Prepared(order)) => self.sign(&order),
            (Stage::Submit { instruction, .. }, Answer::Accepted(id)) => {
                self.accepted(number, instruction, id);
                Stage::Done
            }
            (Stage::Submit { instruction, .. }, Answer::NotPrepared) => {
                self.note(|world| format!("{} is not known any more", world.called(instruction)));
                self.truth.denied.insert(instruction);
                Stage::Prepare
            }
            (Stage::PrepareStop { instruction }, Answer::StopPrepared(Some(stop))) => {
                let envelope = self.organisation.sign_order(&stop, self.wall_ms());
                Stage::SubmitStop { instruction, envelope }
            }
            (Stage::PrepareStop { .. }, Answer::StopPrepared(None)) => Stage::Done,
            (Stage::SubmitStop { instruction, .. }, Answer::StopAccepted(_)) => {
                self.note(|world| format!("the stop of {} is accepted", world.called(instruction)));
                self.totals.stops += 1;
                let instruction = instruction.to_string();
                self.promises.push(Promise::StopAccepted { instruction });
                Stage::Done
            }
            (Stage::Prepare, Answer::Refused(why)) => {
                // Such as for want of devices: nobody is known yet.
                self.note(|_| format!("operator {number} is refused: {why}"));
                return self.ask_again(number);
            }
            // It ended meanwhile.
            (Stage::PrepareStop { .. } | Stage::SubmitStop { .. }, Answer::Refused(why)) => {
                self.note(|_| format!("the stop of operator {number} is refused: {why}"));
                Stage::Done
            }
            // The Switch's clock is behind: it takes the order once that is set right.
            (Stage::Submit { .. }, Answer::Refused(why)) if why.contains("set the signer's clock") => {
                self.note(|_| format!("operator {number} waits for the Switch's clock"));
                return self.ask_again(number);
            }
            (stage, answer) => {
                let stage = format!("{stage:?}");
                let stage = stage.split_whitespace().next().unwrap_or_default().to_owned();
                self.truth.broken.push(format!("operator {number} at {stage} is answered {answer:?}"));
                Stage::Done
            }
        };
        let is_done = matches!(next, Stage::Done);
        self.jobs[number].stage = next;
        if !is_done {
            let after = self.rng.below(2_000);
            self.schedule(after, Step::Job(number));
        }
    }

    fn sign(&mut self, order: &[u8]) -> Stage {
        let decoded = Order::decode(order).unwrap();
        let instruction = InstructionId::try_from(&decoded.instruction[..]).unwrap();
        self.truth.prepared.push(instruction);
        let envelope = self.organisation.sign_order(order, self.wall_ms());
        Stage::Submit { instruction, envelope, key: format!("key {}", self.truth.prepared.len()) }
    }

    fn accepted(&mut self, number: usize, wanted: InstructionId, got: InstructionId) {
        self.note(|world| format!("{} of operator {number} is accepted", world.called(wanted)));
        if wanted != got {
            self.truth.broken.push(format!("operator {number} submitted {wanted}, and {got} was accepted"));
        }
        self.truth.accepted.push(wanted);
        if self.jobs[number].is_last {
            self.truth.last = Some(wanted);
        }
        self.promises.push(Promise::Accepted { instruction: wanted.to_string() });
    }
}
