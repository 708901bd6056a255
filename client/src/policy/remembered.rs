//! Policies between the store and the [`Keeper`](super::Keeper).

use muster_signing::envelope;
use muster_signing::policy::Policy;

use super::keeper::{Kept, Memory, Trial, Unreadable};
use crate::store::{StoredPolicies, StoredPolicy};

/// Returns what a store remembers. Policies were verified before they were kept, and stay in force when their signer's
/// certificate ends; the store finds what was damaged since. What was followed and cannot be read is not forgotten: a device that took
/// itself for one without a policy would run what its policy forbids.
pub(crate) fn remembered(stored: StoredPolicies) -> Memory {
    // The one that was tried first has no one before it.
    let is_first = stored.highest_serial == 0 || stored.trial.is_some() || stored.rolled_back.is_some();
    let current = match stored.current {
        StoredPolicy::Envelope(envelope) => kept(envelope).map(Some),
        StoredPolicy::None if is_first => Ok(None),
        StoredPolicy::None | StoredPolicy::Lost => {
            let problem = "its record in the store was damaged or is gone".to_owned();
            Err(Unreadable { envelope: None, problem })
        }
    };
    let (current, unreadable) = match current {
        Ok(current) => (current, None),
        Err(unreadable) => {
            tracing::error!(
                problem = unreadable.problem,
                "the policy that this device follows cannot be read; until a later one is followed nothing is run"
            );
            (None, Some(unreadable))
        }
    };
    let trial = stored.trial.and_then(|(until_ms, envelope)| match kept(envelope) {
        Ok(kept) => Some(Trial { kept, until_ms }),
        Err(Unreadable { problem, .. }) => {
            tracing::error!(problem, "the policy that was tried cannot be read; it is tried no more");
            None
        }
    });
    let StoredPolicies { highest_serial, rolled_back, .. } = stored;
    Memory { current, unreadable, trial, highest_serial, rolled_back }
}

/// Returns what the store is to remember. What cannot be read here stays as it is: another version may read it.
pub(super) fn stored(memory: &Memory) -> StoredPolicies {
    let unreadable = |unreadable: &Unreadable| match &unreadable.envelope {
        Some(envelope) => StoredPolicy::Envelope(envelope.clone()),
        None => StoredPolicy::Lost,
    };
    let followed = memory.current.as_ref().map(|kept| StoredPolicy::Envelope(kept.envelope.clone()));
    StoredPolicies {
        current: followed.or_else(|| memory.unreadable.as_ref().map(unreadable)).unwrap_or_default(),
        trial: memory.trial.as_ref().map(|trial| (trial.until_ms, trial.kept.envelope.clone())),
        highest_serial: memory.highest_serial,
        rolled_back: memory.rolled_back,
    }
}

/// Returns the text that was signed.
pub(super) fn text(envelope: &[u8]) -> Option<String> {
    String::from_utf8(envelope::inspect(envelope).ok()?.content).ok()
}

fn kept(envelope: Vec<u8>) -> Result<Kept, Unreadable> {
    let problem = match text(&envelope).map(|text| Policy::parse(&text)) {
        Some(Ok(policy)) => return Ok(Kept { envelope, policy }),
        Some(Err(error)) => error.to_string(),
        None => "its record in the store holds no signed text".to_owned(),
    };
    Err(Unreadable { envelope: Some(envelope), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreadable(stored: &StoredPolicies) -> Option<Unreadable> {
        remembered(stored.clone()).unreadable
    }

    #[test]
    fn a_policy_that_was_followed_and_is_gone_is_not_taken_for_none() {
        let none = StoredPolicies::default();
        let lost = StoredPolicies { current: StoredPolicy::Lost, ..StoredPolicies::default() };
        let emptied = StoredPolicies { highest_serial: 3, ..StoredPolicies::default() };
        let garbage = StoredPolicy::Envelope(b"no envelope".to_vec());
        let garbled = StoredPolicies { current: garbage, highest_serial: 3, ..StoredPolicies::default() };

        assert_eq!(unreadable(&none), None);
        for stored in [lost, emptied, garbled.clone()] {
            assert!(unreadable(&stored).is_some(), "{stored:?}");
        }
        assert_eq!(stored(&remembered(garbled.clone())), garbled, "what cannot be read stays");
    }

    #[test]
    fn a_first_policy_that_is_tried_or_was_tried_in_vain_followed_none() {
        let rolled_back = Some(muster_proto::ids::Digest::from([1; 32]));
        let in_vain = StoredPolicies { highest_serial: 3, rolled_back, ..StoredPolicies::default() };
        let tried = StoredPolicies {
            highest_serial: 3,
            trial: Some((1, b"no envelope".to_vec())),
            ..StoredPolicies::default()
        };

        assert_eq!((unreadable(&in_vain), unreadable(&tried)), (None, None));
    }
}
