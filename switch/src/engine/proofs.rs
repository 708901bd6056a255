//! Proofs that a device is in an order's audience, made when asked for.
//!
//! A proof is up to 1 KiB and an audience up to 100,000 devices, so only the tree is kept (64 bytes a device), and
//! instructions for the same devices share one.

use muster_pki::DeviceId;
use muster_proto::session::v1::InclusionProof;
use muster_signing::merkle::Tree;

/// The Merkle tree over an audience, and which device number is which leaf.
#[derive(Debug)]
pub(crate) struct Proofs {
    tree: Tree,
    /// (device number, leaf), by number.
    leaves: Vec<(u32, u32)>,
}

impl Proofs {
    /// Builds the tree. `members` may be in any order; leaves are sorted by DeviceId.
    pub(crate) fn new(mut members: Vec<(DeviceId, u32)>) -> Self {
        members.sort();
        let (devices, numbers): (Vec<DeviceId>, Vec<u32>) = members.into_iter().unzip();
        let mut leaves: Vec<(u32, u32)> = numbers.into_iter().zip(0..).collect();
        leaves.sort_unstable();
        Self { tree: Tree::new(&devices), leaves }
    }

    /// Returns the tree's root, 32 bytes.
    pub(crate) fn root(&self) -> [u8; 32] {
        self.tree.root()
    }

    /// Returns the proof of a device; `None` if it isn't in the audience.
    pub(crate) fn proof(&self, number: u32) -> Option<InclusionProof> {
        let found = self.leaves.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let (_, leaf) = self.leaves.get(found)?;
        self.tree.proof(usize::try_from(*leaf).ok()?)
    }
}
