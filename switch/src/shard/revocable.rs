//! Which sessions a revocation ends: those with the revoked certificate anywhere in their path (R3, R8 of trust.md).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};

use muster_service::credentials::PathElement;

/// The sessions of one shard by what may be revoked of them.
///
/// It keeps 64-bit hashes, 12 bytes for each certificate of a path: a chance hit costs one check of a session that passes it.
#[derive(Debug, Default)]
pub(super) struct Revocable {
    hasher: RandomState,
    /// (hash of issuer and serial number, slot).
    held: RefCell<BTreeSet<(u64, u32)>>,
}

impl Revocable {
    /// Notes the session in `slot`; returns what [`Self::remove`] wants.
    pub(super) fn insert(&self, path: &[PathElement], slot: u32) -> Box<[u64]> {
        let keys: Box<[u64]> = path.iter().map(|element| self.hasher.hash_one(element)).collect();
        self.held.borrow_mut().extend(keys.iter().map(|key| (*key, slot)));
        keys
    }

    /// Forgets the session in `slot`.
    pub(super) fn remove(&self, keys: &[u64], slot: u32) {
        let mut held = self.held.borrow_mut();
        for key in keys {
            held.remove(&(*key, slot));
        }
    }

    /// Returns the slots of the sessions that `revoked` stands above, or is.
    pub(super) fn find(&self, revoked: &PathElement) -> Vec<u32> {
        let key = self.hasher.hash_one(revoked);
        self.held.borrow().range((key, 0)..=(key, u32::MAX)).map(|(_, slot)| *slot).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_pki::authority::{Authority, Request};
    use muster_pki::{Role, UnixTime};

    use super::*;

    #[test]
    fn r8_a_revoked_ca_finds_every_session_below_it_and_a_leaf_its_own() {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let year = Duration::from_secs(365 * 86_400);
        let root = Authority::root("Root", year, now).unwrap();
        let below = |name| root.issue_authority(name, year, now).unwrap();
        let (one, other) = (below("One"), below("Other"));
        let leaf = |authority: &Authority, name: &str| {
            let request = Request {
                common_name: name.to_owned(),
                dns_names: vec![name.to_owned()],
                ip_addresses: Vec::new(),
                role: Role::Device,
                not_before: now,
                not_after: UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 86_400)),
                crl_url: None,
            };
            PathElement::of(&authority.issue(&request).unwrap().certificate)
        };
        let ca = |authority: &Authority| PathElement::of(authority.certificate());
        let revocable = Revocable::default();
        let (first, second, third) = (leaf(&one, "w1"), leaf(&one, "w2"), leaf(&other, "w3"));
        revocable.insert(&[first.clone(), ca(&one)], 7);
        let keys = revocable.insert(&[second, ca(&one)], 8);
        revocable.insert(&[third, ca(&other)], 9);

        assert_eq!(revocable.find(&ca(&one)), [7, 8]);
        assert_eq!(revocable.find(&first), [7]);
        revocable.remove(&keys, 8);

        assert_eq!(revocable.find(&ca(&one)), [7]);
        assert_eq!(revocable.find(&ca(&other)), [9]);
    }
}
