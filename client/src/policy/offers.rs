//! [`Offers`]: which of the Switch's offers are looked at. A Switch may offer anything, any number of times.

use std::collections::VecDeque;

use muster_proto::ids::Digest;

/// Offers that were refused and are remembered; the oldest is forgotten first, and would be looked at once more.
const REFUSED_MAX: usize = 64;

/// What was asked for, and what is not looked at again.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    asked: Option<Digest>,
    refused: VecDeque<Digest>,
}

impl Offers {
    /// Begins with a policy that was tried in vain before a restart.
    pub(crate) fn new(rolled_back: Option<Digest>) -> Self {
        Self { asked: None, refused: rolled_back.into_iter().collect() }
    }

    /// The Switch names a policy; returns whether it is to be asked for. `held`: it is followed or tried.
    pub(super) fn handle_notice(&mut self, digest: Digest, held: bool) -> bool {
        if held || self.asked == Some(digest) || self.refused.contains(&digest) {
            return false;
        }
        self.asked = Some(digest);
        true
    }

    /// A document came; returns whether it was asked for.
    pub(super) fn handle_document(&mut self, digest: Digest) -> bool {
        self.asked.take_if(|asked| *asked == digest).is_some()
    }

    /// There is another session: what was asked for in the last one does not come any more.
    pub(super) fn handle_session(&mut self) {
        self.asked = None;
    }

    /// It will not do, and is not asked for again.
    pub(super) fn refuse(&mut self, digest: Digest) {
        if self.refused.len() >= REFUSED_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k4_what_was_refused_or_rolled_back_is_not_asked_for_again() {
        let (one, other) = (Digest::from([1; 32]), Digest::from([2; 32]));
        let mut offers = Offers::new(Some(one));

        assert!(!offers.handle_notice(one, false));
        assert!(offers.handle_notice(other, false));
        assert!(!offers.handle_notice(other, false), "it is on its way");
        offers.handle_session();
        assert!(offers.handle_notice(other, false), "the last session did not bring it");
        assert!(offers.handle_document(other) && !offers.handle_document(other));
        offers.refuse(other);
        assert!(!offers.handle_notice(other, false));
        assert!(!offers.handle_notice(Digest::from([3; 32]), true), "it is held");
    }

    #[test]
    fn a_switch_that_offers_without_end_fills_no_memory() {
        let mut offers = Offers::default();
        for number in 0..1_000_u16 {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&number.to_be_bytes());
            offers.refuse(Digest::from(bytes));
        }

        assert_eq!(offers.refused.len(), REFUSED_MAX);
    }
}
