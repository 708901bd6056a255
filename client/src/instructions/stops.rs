//! Stops: an operator ends an instruction, whatever has become of it here.
//!
//! What runs is ended before anything is written, since it may be what fills the disk; its end is its answer, and a client that dies in
//! between answers as interrupted and is told of the stop again. Then the stop is put on disk: what had not started never starts, nor does
//! an order that comes later, and is answered as cancelled in the same write. What has ended keeps its own answer.

use muster_proto::common::v1::Refusal;
use muster_proto::ids::{Digest, InstructionId};

use super::admission::{Claimed, OpenedStop, Signed};
use super::{Admission, Effect, Instructions, Now, Opened, Refused, outcome};
use crate::store::StopEntry;

impl<A: Admission> Instructions<A> {
    /// A stop came whose envelope holds.
    pub(super) fn handle_stop(&mut self, stop: &OpenedStop, digest: Digest, now: Now) {
        self.memory.time_floor_ms = self.floor.at(now);
        let instruction = stop.stops;
        if let Err(refused) = self.admission.admit_stop(stop, &self.memory, now.wall_ms) {
            return self.refuse_stop(instruction, digest, refused);
        }
        let detail = detail(stop);
        let is_fetching = self.fetching.contains_key(&instruction);
        self.let_go(instruction);
        let result = Box::new(outcome::cancelled(instruction, &detail, 0, now.wall_ms));
        let expires_at_ms = stop.expires_at_ms;
        let entry = StopEntry { instruction, digest, expires_at_ms, detail: detail.clone() };
        if is_fetching {
            self.effects.push_back(Effect::StopFetching);
        }
        if let Some(started) = self.running.get_mut(&instruction) {
            started.stopped = Some(detail);
            // What has yet to be recorded is ended instead of run.
            if started.runs() {
                self.effects.push_front(Effect::EndRun { instruction });
            }
        }
        self.effects.push_back(Effect::RecordStop { stop: Box::new(entry), result });
        self.advance(now);
    }

    /// An order came while a write waits for room on the disk, or in a session that nothing else is taken from. Returns whether it is the stop
    /// of something that was taken on and has not ended, which is then stopped, once; nothing else comes of it here.
    pub(crate) fn handle_urgent(&mut self, envelope: &[u8], now: Now) -> bool {
        let Some(Claimed::Stop(instruction)) = self.admission.claimed(envelope) else { return false };
        if !self.awaits_stop(instruction) {
            return false;
        }
        let Ok(Signed::Stop(stop)) = self.admission.open(envelope, now.wall_ms) else { return false };
        self.memory.time_floor_ms = self.floor.at(now);
        // What is claimed may be anything; what was verified says whom it stops.
        if stop.stops != instruction || self.admission.admit_stop(&stop, &self.memory, now.wall_ms).is_err() {
            return false;
        }
        self.handle_stop(&stop, muster_signing::envelope::digest(envelope), now);
        true
    }

    /// Returns whether something would be stopped that is not yet: what there may be has a bound, and each of it is stopped once.
    fn awaits_stop(&self, instruction: InstructionId) -> bool {
        if let Some(started) = self.running.get(&instruction) {
            return started.stopped.is_none();
        }
        self.waiting.iter().any(|waiting| waiting.entry.instruction == instruction)
            || self.held.iter().any(|(entry, _)| entry.instruction == instruction)
            || self.arriving.iter().any(|arriving| arriving.instruction() == instruction)
    }

    /// Returns whether an order says that it is a stop; nothing of that is verified.
    pub(crate) fn is_stop(&self, envelope: &[u8]) -> bool {
        matches!(self.admission.claimed(envelope), Some(Claimed::Stop(_)))
    }

    /// What ran was ended by its stop: nothing of it runs any more.
    pub(crate) fn handle_ended(&mut self, instruction: InstructionId, now: Now) {
        let Some(started) = self.running.remove(&instruction) else { return };
        let detail = started.stopped.unwrap_or_else(|| "stopped by an operator".to_owned());
        self.end(outcome::cancelled(instruction, &detail, started.at_ms, now.wall_ms));
        self.advance(now);
    }

    /// A stop does not verify, or its window is not open: it is reported, and its instruction goes on.
    pub(super) fn refuse_stop(&mut self, instruction: InstructionId, digest: Digest, refused: Refused) {
        self.effects.push_back(Effect::ReportStop { digest, instruction, refused });
    }

    /// Forgets an instruction that has not started.
    fn let_go(&mut self, instruction: InstructionId) {
        self.arriving.retain(|arriving| arriving.instruction() != instruction);
        self.held.retain(|(entry, _)| entry.instruction != instruction);
        self.waiting.retain(|waiting| waiting.entry.instruction != instruction);
        self.fetching.remove(&instruction);
    }
}

/// Returns what an order has that runs something; the journal holds no other.
pub(super) fn order(signed: Signed) -> Result<Opened, Refused> {
    match signed {
        Signed::Order(opened) => Ok(*opened),
        Signed::Stop(_) => {
            let detail = "the order is a stop, and runs nothing".to_owned();
            Err(Refused::new(Refusal::Unsupported, detail))
        }
    }
}

fn detail(stop: &OpenedStop) -> String {
    let (operator, reason) = (&stop.order.operator, &stop.order.reason);
    match reason.as_str() {
        "" => format!("stopped by {operator}"),
        reason => format!("stopped by {operator}: {reason}"),
    }
}
