//! Results that come after their target's end.
//!
//! What a client started ends with a result, also when the client was cut off until after the deadline, or was removed
//! meanwhile and came again under another number. The ledger's state is final; the result is kept beside it. Instructions that are complete are not in memory, so the writer
//! recalls from the store what a late result needs: it asks [`Core::to_recall`] before each command.

use muster_proto::common::v1::TargetState;
use muster_proto::ids::InstructionId;

use super::{Command, Core, ResultIn};
use crate::engine::store::{ENDED_WITHOUT_IT, Late};

/// Instructions whose late results are remembered from one batch to the next; those of a fleet that comes back after a
/// long outage are of few.
const REMEMBERED_MAX: usize = 64;

impl Core {
    /// Returns the instruction that the store must be asked about before the command is carried out.
    pub(crate) fn to_recall(&self, command: &Command) -> Option<InstructionId> {
        let Command::Result(result) = command else { return None };
        let ResultIn { number, result, .. } = &**result;
        let id = InstructionId::try_from(&result.instruction[..]).ok()?;
        if self.set_aside.contains_key(&id) || self.late.contains_key(&id) {
            return None;
        }
        let is_late = match self.positions.get(&id) {
            Some(position) => self
                .devices
                .numbers_of(*number)
                .any(|number| ended_without_it(self.state_of(*position, number))),
            None => true,
        };
        is_late.then_some(id)
    }

    /// Takes what the store knows of the instruction.
    pub(crate) fn recall(&mut self, id: InstructionId, late: Late) {
        self.late.insert(id, late);
    }

    /// Returns the position of an instruction that the device, whose time for it is up, may still bring this part of
    /// its result for, and the number that it had then; `None` if there is none.
    pub(super) fn late_position(&self, id: InstructionId, number: u32, part: u32) -> Option<(i64, u32)> {
        let late = self.late.get(&id)?;
        let ended = |number: u32| match self.positions.get(&id) {
            // The ledger in memory knows whose target has ended since.
            Some(position) => ended_without_it(self.state_of(*position, number)),
            None => late.unanswered.as_ref().is_none_or(|unanswered| unanswered.contains(number)),
        };
        let number = self.devices.numbers_of(number).find(|number| ended(*number))?;
        let stored = late.received.get(&number).map_or(0, |received| received.parts);
        (part >= stored).then_some((late.position, number))
    }

    /// Returns whether the results of an instruction that has ended, or is damaged, are deleted, so that one that comes now has no place beside
    /// them.
    pub(super) fn has_deleted(&self, id: InstructionId) -> bool {
        let is_aside_deleted = self.set_aside.get(&id).is_some_and(|aside| aside.is_deleted);
        is_aside_deleted || self.late.get(&id).is_some_and(|late| late.is_deleted)
    }

    /// Keeps the memory of what was recalled small. Only between batches: the store must have what was taken.
    pub(super) fn forget_late(&mut self) {
        if self.late.len() > REMEMBERED_MAX {
            self.late.clear();
        }
    }

    /// Returns the state of a target of an active instruction.
    pub(super) fn state_of(&self, position: i64, number: u32) -> Option<TargetState> {
        self.active.get(&position).and_then(|active| active.state_of(number))
    }
}

/// Returns whether a target may have ended without its device's result. One that was refused for its licence may have had its order
/// all the same, where the Switch ended before it noted that it was written.
fn ended_without_it(state: Option<TargetState>) -> bool {
    state.is_some_and(|state| ENDED_WITHOUT_IT.contains(&state))
}
