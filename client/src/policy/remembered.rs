//! Policies between the store and the [`Keeper`](super::Keeper).

use muster_signing::envelope;
use muster_signing::policy::Policy;

use super::keeper::{Kept, Memory, Trial};
use crate::store::StoredPolicies;

/// Returns what a store remembers. Policies were verified before they were kept, and stay in force when their signer's
/// certificate ends; the store finds what was damaged since.
pub(crate) fn remembered(stored: StoredPolicies) -> Memory {
    let trial = stored.trial.and_then(|(until_ms, envelope)| Some(Trial { kept: kept(envelope)?, until_ms }));
    Memory {
        current: stored.current.and_then(kept),
        trial,
        highest_serial: stored.highest_serial,
        rolled_back: stored.rolled_back,
    }
}

/// Returns what the store is to remember.
pub(super) fn stored(memory: &Memory) -> StoredPolicies {
    StoredPolicies {
        current: memory.current.as_ref().map(|kept| kept.envelope.clone()),
        trial: memory.trial.as_ref().map(|trial| (trial.until_ms, trial.kept.envelope.clone())),
        highest_serial: memory.highest_serial,
        rolled_back: memory.rolled_back,
    }
}

/// Returns the text that was signed.
pub(super) fn text(envelope: &[u8]) -> Option<String> {
    String::from_utf8(envelope::inspect(envelope).ok()?.content).ok()
}

fn kept(envelope: Vec<u8>) -> Option<Kept> {
    let policy = text(&envelope).map(|text| Policy::parse(&text));
    match policy {
        Some(Ok(policy)) => Some(Kept { envelope, policy }),
        Some(Err(error)) => {
            tracing::error!(%error, "the policy in the store cannot be read by this version; it is not followed");
            None
        }
        None => None,
    }
}
