//! Merkle tree hash over the sorted DeviceIds of an audience (RFC 9162 §2.1), so that nobody can widen it.
//!
//! A leaf's data is the DeviceId's text. An order carries the root and the count; each session gets its own inclusion
//! proof behind the shared frame.

use aws_lc_rs::digest::{Context, SHA256};
use muster_pki::DeviceId;
use muster_proto::limits::PROOF_HASHES_MAX;
use muster_proto::session::v1::InclusionProof;

/// A SHA-256 hash.
type Hash = [u8; 32];

/// Computes the root over the devices, which are sorted and without repetition.
#[must_use]
pub fn root(sorted: &[DeviceId]) -> Hash {
    Tree::new(sorted).root()
}

/// A tree, built once, that gives every device's proof; 64 bytes a device.
#[derive(Debug, Clone)]
pub struct Tree {
    /// Leaves first, the root alone at the end. The last hash of an odd row goes up as it is, which gives the tree of
    /// RFC 9162 §2.1.1: its left half is the largest power of two below the count.
    rows: Vec<Vec<Hash>>,
}

impl Tree {
    /// Builds the tree over the devices, which are sorted and without repetition.
    #[must_use]
    pub fn new(sorted: &[DeviceId]) -> Self {
        debug_assert!(sorted.is_sorted_by(|a, b| a < b), "the leaves are sorted and differ");
        let mut row: Vec<Hash> = sorted.iter().map(leaf_hash).collect();
        let mut rows = Vec::new();
        while row.len() > 1 {
            let above = row.chunks(2).map(|pair| match pair {
                [left, right] => node_hash(left, right),
                [alone] => *alone,
                _ => Hash::default(),
            });
            let above = above.collect();
            rows.push(std::mem::replace(&mut row, above));
        }
        rows.push(row);
        Self { rows }
    }

    /// Returns the root; of no devices at all, the hash of nothing.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.rows.last().and_then(|row| row.first()).copied().unwrap_or_else(|| hash(&[]))
    }

    /// Returns the number of devices.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.first().map_or(0, Vec::len)
    }

    /// Returns whether there is no device.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the proof of the device at `index` among the sorted ones; `None` beyond the last.
    #[must_use]
    pub fn proof(&self, index: usize) -> Option<InclusionProof> {
        if index >= self.len() {
            return None;
        }
        let mut hashes = Vec::new();
        let mut at = index;
        for row in &self.rows {
            if let Some(sibling) = row.get(at ^ 1) {
                hashes.push(sibling.to_vec());
            }
            at >>= 1;
        }
        Some(InclusionProof { leaf_index: u64::try_from(index).ok()?, hashes })
    }
}

/// Returns whether `proof` shows that `device` is one of the `count` devices under `root` (RFC 9162 §2.1.3.2).
#[must_use]
pub fn verify(device: &DeviceId, proof: &InclusionProof, root: &Hash, count: u64) -> bool {
    if proof.leaf_index >= count || proof.hashes.len() > PROOF_HASHES_MAX {
        return false;
    }
    let mut at = proof.leaf_index;
    let mut last = count - 1;
    let mut hash = leaf_hash(device);
    for sibling in &proof.hashes {
        let Ok(sibling) = Hash::try_from(sibling.as_slice()) else { return false };
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(&sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, &sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

fn leaf_hash(device: &DeviceId) -> Hash {
    hash(&[&[0], device.as_str().as_bytes()])
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    hash(&[&[1], left, right])
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut hash = Hash::default();
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_of_every_size_up_to_70_has_a_proof_that_holds_for_it_alone() {
        for size in 1..=70 {
            let devices = devices(size);
            let tree = Tree::new(&devices);
            let root = tree.root();
            let count = size as u64;
            assert_eq!(root, by_the_book(&devices), "{size} devices");

            for (index, device) in devices.iter().enumerate() {
                let proof = tree.proof(index).unwrap();

                assert!(verify(device, &proof, &root, count), "{index} of {size}");
                for other in devices.iter().filter(|other| *other != device) {
                    assert!(
                        !verify(other, &proof, &root, count),
                        "{other} by the proof of {index} of {size}"
                    );
                }
            }
            assert_eq!(tree.proof(size), None);
        }
    }

    #[test]
    fn a_changed_proof_does_not_hold() {
        let devices = devices(21);
        let tree = Tree::new(&devices);
        let root = tree.root();
        for (index, device) in devices.iter().enumerate() {
            let good = tree.proof(index).unwrap();

            let mut shorter = good.clone();
            shorter.hashes.pop();
            let mut longer = good.clone();
            longer.hashes.push(vec![0; 32]);
            let mut moved = good.clone();
            moved.leaf_index ^= 1;
            let mut cut = good.clone();
            cut.hashes[0].pop();
            let mut flipped = good.clone();
            flipped.hashes[0][31] ^= 1;

            for bad in [shorter, longer, moved, cut, flipped] {
                assert!(!verify(device, &bad, &root, 21), "{index}: {bad:?}");
            }
            assert!(!verify(device, &good, &root, 0));
            assert!(!verify(device, &good, &[0; 32], 21));
        }
    }

    #[test]
    fn the_root_of_nothing_is_the_hash_of_nothing() {
        let empty = hex::encode(root(&[]));

        assert_eq!(empty, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert!(Tree::new(&[]).is_empty());
        assert!(!Tree::new(&devices(1)).is_empty() && Tree::new(&devices(2)).len() == 2);
    }

    #[test]
    fn a_proof_has_at_most_32_hashes_and_none_for_who_is_not_counted() {
        let device = &devices(1)[0];
        let proof = |hashes: usize| InclusionProof { leaf_index: 0, hashes: vec![vec![7; 32]; hashes] };
        let root_of =
            |hashes: usize| (0..hashes).fold(leaf_hash(device), |hash, _| node_hash(&hash, &[7; 32]));

        assert!(verify(device, &proof(32), &root_of(32), 1 << 32));
        assert!(!verify(device, &proof(33), &root_of(33), 1 << 33));
        // The index is that of a leaf: beyond the last one there is none, whatever its hashes come to.
        let tree = Tree::new(&devices(4));
        for leaf_index in [4, 5, u64::MAX] {
            let beyond = InclusionProof { leaf_index, ..tree.proof(0).unwrap() };
            assert!(!verify(device, &beyond, &tree.root(), 4), "{leaf_index}");
        }
    }

    fn devices(count: usize) -> Vec<DeviceId> {
        (0..count).map(|number| format!("pc-{number:03}").parse().unwrap()).collect()
    }

    /// RFC 9162 §2.1.1 word by word, as the judge of the rows above.
    fn by_the_book(devices: &[DeviceId]) -> Hash {
        match devices {
            [] => hash(&[]),
            [device] => leaf_hash(device),
            more => {
                let left = more.len().next_power_of_two() / 2;
                node_hash(&by_the_book(&more[..left]), &by_the_book(&more[left..]))
            }
        }
    }
}
