//! Which orders were submitted under which idempotency key, for as long as somebody may try again.

use std::collections::{HashMap, VecDeque};

use muster_proto::ids::{Digest, InstructionId};

/// How long an idempotency key is known: an order's longest window and a day.
pub(crate) const KEPT_MS: i64 = 8 * 24 * 3_600 * 1_000;

/// Operator and idempotency key.
type Key = (String, String);

/// The submissions of the last [`KEPT_MS`].
#[derive(Debug, Default)]
pub(super) struct Submissions {
    known: HashMap<Key, (Digest, InstructionId)>,
    /// In the order of acceptance.
    by_age: VecDeque<(i64, Key)>,
}

impl Submissions {
    /// Returns what was submitted under a key.
    pub(super) fn get(&self, key: &Key) -> Option<&(Digest, InstructionId)> {
        self.known.get(key)
    }

    /// Returns whether an order was submitted, under whichever key. Looks at all of them: for errors only.
    pub(super) fn has(&self, id: InstructionId) -> bool {
        self.known.values().any(|(_, submitted)| *submitted == id)
    }

    /// Adds a submission, and forgets those that are too old.
    pub(super) fn insert(&mut self, key: Key, digest: Digest, id: InstructionId, now_ms: i64) {
        let too_old = now_ms.saturating_sub(KEPT_MS);
        while self.by_age.front().is_some_and(|(at_ms, _)| *at_ms < too_old) {
            if let Some((_, old)) = self.by_age.pop_front() {
                self.known.remove(&old);
            }
        }
        self.known.insert(key.clone(), (digest, id));
        self.by_age.push_back((now_ms, key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_forgotten_after_its_time() {
        let mut submissions = Submissions::default();
        let key = |name: &str| ("anna".to_owned(), name.to_owned());
        let (digest, id) = (Digest::from([1; 32]), InstructionId::from([1; 16]));

        submissions.insert(key("first"), digest, id, 0);
        submissions.insert(key("second"), digest, id, KEPT_MS);
        assert!(submissions.get(&key("first")).is_some());
        submissions.insert(key("third"), digest, id, KEPT_MS + 1);

        assert_eq!(submissions.get(&key("first")), None);
        assert!(submissions.get(&key("second")).is_some());
        assert_eq!((submissions.known.len(), submissions.by_age.len()), (2, 2));
    }
}
