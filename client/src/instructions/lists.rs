//! Orders and licences that came before a CRL which they need (R6 of trust.md): judged again when the CRLs change, refused at a
//! deadline.
//!
//! Where documents come from, CRLs come later: who signed is known from the document only, and then it takes a moment to fetch them.

use std::time::Instant;

use muster_proto::ids::Digest;
use muster_proto::session::v1::InclusionProof;

use super::{Admission, Instructions, Now};

/// An order that cannot be opened yet.
#[derive(Debug)]
pub(super) struct Unopened {
    pub(super) order_digest: Digest,
    pub(super) envelope: Vec<u8>,
    pub(super) proof: Option<InclusionProof>,
    /// From then on it is refused.
    pub(super) deadline: Instant,
}

impl<A: Admission> Instructions<A> {
    /// The CRLs have changed: what was refused for want of one is judged again.
    pub(crate) fn handle_lists(&mut self, now: Now) {
        self.lists = self.lists.wrapping_add(1);
        self.judge_licence_again(now);
        self.open_again(|_| true, now);
        self.judge(now);
    }

    /// Refuses the orders whose CRL did not come in time.
    pub(super) fn handle_lists_timeout(&mut self, now: Now) {
        self.open_again(|unopened| unopened.deadline <= now.instant, now);
    }

    fn open_again(&mut self, is_meant: impl Fn(&Unopened) -> bool, now: Now) {
        let (again, kept) = std::mem::take(&mut self.unopened).into_iter().partition(is_meant);
        self.unopened = kept;
        let again: Vec<Unopened> = again;
        for Unopened { envelope, proof, deadline, .. } in again {
            self.open(&envelope, proof, deadline, now);
        }
    }
}
