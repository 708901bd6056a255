//! The state of every target of an instruction, as a partition of the target bitmap.
//!
//! Pure. Every target is in exactly one of the ten states; states only move forward and a terminal one is final
//! (promises.md). Transitions are sets of devices, never a row per device; replaying the stored ones gives the ledger
//! again, or says why they don't add up.

use muster_proto::common::v1::TargetState;
use muster_proto::state::ALL;
use roaring::RoaringBitmap;

/// The ledger of one instruction.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ledger {
    targets: RoaringBitmap,
    /// By the index of the state in [`ALL`]; disjoint, their union is `targets`.
    states: [RoaringBitmap; ALL.len()],
}

/// Why stored transitions are not a ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LedgerDamage {
    /// A transition speaks of devices that are no targets.
    #[error("{0} devices entered `{1}` that are no targets")]
    Strangers(u64, &'static str),
    /// A transition does not move all of its devices forward.
    #[error("{0} devices entered `{1}` from a state that it cannot follow")]
    Backward(u64, &'static str),
    /// The states don't add up to the targets.
    #[error("the states add up to {counted}, the targets are {targets}")]
    Sum {
        /// Devices in any state.
        counted: u64,
        /// Devices that should be.
        targets: u64,
    },
    /// A device is in two states.
    #[error("a device is in two states")]
    Overlap,
}

impl Ledger {
    /// Makes a ledger whose targets have yet to enter their first state, as replaying needs it.
    pub(crate) fn empty(targets: RoaringBitmap) -> Self {
        Self { targets, states: Default::default() }
    }

    /// Makes the ledger of a new instruction: every target is queued.
    pub(crate) fn queued(targets: RoaringBitmap) -> Self {
        let mut ledger = Self::empty(targets);
        ledger.states[index(TargetState::Queued)] = ledger.targets.clone();
        ledger
    }

    /// Moves those of `devices` that may enter `state`, and returns them. Others, and strangers, stay as they are.
    #[must_use]
    pub(crate) fn advance(&mut self, devices: &RoaringBitmap, state: TargetState) -> RoaringBitmap {
        let mut moved = RoaringBitmap::new();
        // As in `unite`.
        if let (Some(number), 1) = (devices.min(), devices.len()) {
            if let Some(place) = self.states.iter().position(|held| held.contains(number))
                && ALL.get(place).is_some_and(|from| from.may_become(state))
            {
                self.states[place].remove(number);
                self.states[index(state)].insert(number);
                moved.insert(number);
            }
            return moved;
        }
        for (place, from) in ALL.iter().enumerate() {
            if from.may_become(state) {
                let leaving = &self.states[place] & devices;
                self.states[place] -= &leaving;
                moved |= leaving;
            }
        }
        self.states[index(state)] |= &moved;
        moved
    }

    /// Applies one stored transition, all of whose devices must move.
    ///
    /// # Errors
    /// [`LedgerDamage`]; the ledger is then of no use.
    pub(crate) fn replay(&mut self, devices: &RoaringBitmap, state: TargetState) -> Result<(), LedgerDamage> {
        let strangers = devices.len() - devices.intersection_len(&self.targets);
        if strangers > 0 {
            return Err(LedgerDamage::Strangers(strangers, state.name()));
        }
        let entered = if state == TargetState::Queued {
            let first = devices - &self.anywhere();
            self.states[index(state)] |= &first;
            first
        } else {
            self.advance(devices, state)
        };
        match devices.len() - entered.len() {
            0 => Ok(()),
            stuck => Err(LedgerDamage::Backward(stuck, state.name())),
        }
    }

    /// Checks that every target is in exactly one state, and nothing else is in any.
    ///
    /// # Errors
    /// [`LedgerDamage`] says what is wrong.
    pub(crate) fn check(&self) -> Result<(), LedgerDamage> {
        let together = self.anywhere();
        let counted = self.states.iter().map(RoaringBitmap::len).sum::<u64>();
        if counted != together.len() {
            return Err(LedgerDamage::Overlap);
        }
        if together != self.targets {
            return Err(LedgerDamage::Sum { counted, targets: self.targets.len() });
        }
        Ok(())
    }

    /// Returns the targets.
    pub(crate) fn targets(&self) -> &RoaringBitmap {
        &self.targets
    }

    /// Returns who is in a state.
    pub(crate) fn in_state(&self, state: TargetState) -> &RoaringBitmap {
        &self.states[index(state)]
    }

    /// Returns the state of one device; `None` if it is no target.
    pub(crate) fn state_of(&self, number: u32) -> Option<TargetState> {
        ALL.into_iter().find(|state| self.in_state(*state).contains(number))
    }

    /// Returns how many are in each state, states with none left out.
    pub(crate) fn counts(&self) -> Vec<(TargetState, u64)> {
        ALL.into_iter()
            .map(|state| (state, self.in_state(state).len()))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Returns whether every target is in a terminal state.
    pub(crate) fn is_complete(&self) -> bool {
        ALL.into_iter().all(|state| state.is_terminal() || self.in_state(state).is_empty())
    }

    fn anywhere(&self) -> RoaringBitmap {
        self.states.iter().fold(RoaringBitmap::new(), |all, state| all | state)
    }
}

/// Adds devices to others. Most that a fleet says is of one device, and a set of thousands is not made anew for each.
pub(super) fn unite(all: &mut RoaringBitmap, more: RoaringBitmap) {
    match more.min() {
        Some(one) if more.len() == 1 => {
            all.insert(one);
        }
        Some(_) | None => *all |= more,
    }
}

fn index(state: TargetState) -> usize {
    // `Unspecified` is never stored; it falls on `Queued`, which nothing can enter by `advance`.
    ALL.iter().position(|listed| *listed == state).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_transitions_keep_the_partition_and_replay_to_the_same_ledger(
            targets in proptest::collection::btree_set(0_u32..200, 1..100),
            steps in proptest::collection::vec((proptest::collection::btree_set(0_u32..220, 0..60), 0_usize..10), 0..40),
        ) {
            let targets: RoaringBitmap = targets.into_iter().collect();
            let mut ledger = Ledger::queued(targets.clone());
            let mut replayed = Ledger::empty(targets.clone());
            replayed.replay(&targets, TargetState::Queued).unwrap();

            for (devices, state) in steps {
                let before = ledger.clone();
                let moved = ledger.advance(&devices.into_iter().collect(), ALL[state]);
                replayed.replay(&moved, ALL[state]).unwrap();
                prop_assert_eq!(ledger.check(), Ok(()));
                for number in &targets {
                    let (from, to) = (before.state_of(number).unwrap(), ledger.state_of(number).unwrap());
                    prop_assert!(from == to || from.may_become(to));
                }
            }

            prop_assert_eq!(&ledger, &replayed);
            prop_assert_eq!(ledger.counts().iter().map(|(_, count)| count).sum::<u64>(), targets.len());
        }
    }

    #[test]
    fn a_terminal_state_is_final() {
        let mut ledger = Ledger::queued(set(&[1, 2]));

        let expired = ledger.advance(&set(&[1]), TargetState::Expired);
        let late = ledger.advance(&set(&[1]), TargetState::Answered);

        assert_eq!(expired, set(&[1]));
        assert!(late.is_empty());
        assert_eq!(ledger.state_of(1), Some(TargetState::Expired));
    }

    #[test]
    fn it_is_complete_when_the_last_target_is_terminal() {
        let mut ledger = Ledger::queued(set(&[1, 2]));
        assert!(!ledger.is_complete());

        let _moved = ledger.advance(&set(&[1, 2]), TargetState::Answered);

        assert!(ledger.is_complete());
    }

    #[test]
    fn transitions_that_lost_a_device_do_not_add_up() {
        let mut ledger = Ledger::empty(set(&[1, 2, 3]));

        ledger.replay(&set(&[1, 2]), TargetState::Queued).unwrap();

        assert_eq!(ledger.check(), Err(LedgerDamage::Sum { counted: 2, targets: 3 }));
    }

    #[test]
    fn refuses_a_replay_that_goes_back_or_speaks_of_strangers() {
        let mut ledger = Ledger::queued(set(&[1]));
        ledger.replay(&set(&[1]), TargetState::Running).unwrap();

        assert_eq!(ledger.replay(&set(&[1]), TargetState::Sent), Err(LedgerDamage::Backward(1, "sent")));
        assert_eq!(ledger.replay(&set(&[9]), TargetState::Failed), Err(LedgerDamage::Strangers(1, "failed")));
    }

    fn set(numbers: &[u32]) -> RoaringBitmap {
        numbers.iter().copied().collect()
    }
}
