//! Verification of content by its BLAKE3 root, 16 KiB at a time. Pure.
//!
//! The outboard holds the hash pairs of the tree above the groups, in pre-order, behind eight bytes of size in
//! little-endian order (as `bao-tree` writes it). It is as foreign as the content: it counts only as far as it hashes to the root.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use muster_proto::ids::Digest;

/// Bytes of a group: 16 chunks of BLAKE3.
pub(crate) const GROUP_BYTES: u64 = 16 * 1024;

/// Bytes of the size in front of an outboard.
const PREFIX_BYTES: usize = 8;

/// Bytes of a pair of hashes.
const PAIR_BYTES: usize = 64;

/// Why content is not what was signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LieError {
    /// The outboard has another length than one for the signed size.
    #[error("the outboard has {got} bytes, wanted {wanted}")]
    OutboardLength {
        /// Bytes that came.
        got: u64,
        /// Bytes of an outboard for the signed size.
        wanted: u64,
    },
    /// The outboard tells another size.
    #[error("the outboard is for {got} bytes, {wanted} were signed")]
    Size {
        /// What it tells.
        got: u64,
        /// What was signed.
        wanted: u64,
    },
    /// The outboard does not hash to the root.
    #[error("the outboard does not hash to the signed root {root}")]
    Outboard {
        /// The root.
        root: Digest,
    },
    /// A group does not hash to what the root says.
    #[error("bytes {first}..{end} are not the signed ones")]
    Group {
        /// The first byte of the group.
        first: u64,
        /// Behind its last byte.
        end: u64,
    },
}

/// The hashes of a content's groups, as its root proves them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupHashes {
    size: u64,
    /// One for each group; for content of at most one group, the root itself.
    groups: Vec<ChainingValue>,
}

/// Returns how many bytes the outboard of a content has.
pub(crate) fn outboard_bytes(size: u64) -> u64 {
    PREFIX_BYTES as u64 + (group_count(size) - 1) * PAIR_BYTES as u64
}

fn group_count(size: u64) -> u64 {
    size.div_ceil(GROUP_BYTES).max(1)
}

impl GroupHashes {
    /// Checks an outboard against the signed root and size.
    pub(crate) fn from_outboard(outboard: &[u8], root: Digest, size: u64) -> Result<Self, LieError> {
        let wanted = outboard_bytes(size);
        let length = || LieError::OutboardLength { got: outboard.len() as u64, wanted };
        if outboard.len() as u64 != wanted {
            return Err(length());
        }
        let (prefix, mut pairs) = outboard.split_first_chunk::<PREFIX_BYTES>().ok_or_else(length)?;
        let got = u64::from_le_bytes(*prefix);
        if got != size {
            return Err(LieError::Size { got, wanted: size });
        }
        let mut groups = Vec::new();
        let is_proven = walk(&mut pairs, root.as_bytes(), group_count(size), Place::Root, &mut groups);
        if is_proven { Ok(Self { size, groups }) } else { Err(LieError::Outboard { root }) }
    }

    /// Returns the size of the whole content.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Returns how many bytes the group that begins at `first` has.
    pub(crate) fn group_bytes(&self, first: u64) -> usize {
        usize::try_from(self.size.saturating_sub(first).min(GROUP_BYTES)).unwrap_or(0)
    }

    /// Checks the group that begins at `first`, a multiple of [`GROUP_BYTES`].
    pub(crate) fn check(&self, first: u64, bytes: &[u8]) -> Result<(), LieError> {
        let lie = LieError::Group { first, end: first.saturating_add(bytes.len() as u64) };
        let index = usize::try_from(first / GROUP_BYTES).unwrap_or(usize::MAX);
        let Some(wanted) = self.groups.get(index) else { return Err(lie) };
        if bytes.len() != self.group_bytes(first) {
            return Err(lie);
        }
        let got = if self.groups.len() == 1 {
            *blake3::hash(bytes).as_bytes()
        } else {
            blake3::Hasher::new().set_input_offset(first).update(bytes).finalize_non_root()
        };
        if got == *wanted { Ok(()) } else { Err(lie) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Inner,
}

/// Takes the pairs of a subtree of `count` groups whose hash must be `wanted`; returns whether all of them fit.
///
/// The depth is that of the tree: at most 50 for the largest size a `u64` can tell, and bounded by the outboard's
/// length, which the caller compared with the signed size.
fn walk(
    pairs: &mut &[u8],
    wanted: &ChainingValue,
    count: u64,
    place: Place,
    groups: &mut Vec<ChainingValue>,
) -> bool {
    if count == 1 {
        groups.push(*wanted);
        return true;
    }
    let Some((pair, rest)) = pairs.split_first_chunk::<PAIR_BYTES>() else { return false };
    *pairs = rest;
    let (mut left, mut right) = ([0; 32], [0; 32]);
    left.copy_from_slice(&pair[..32]);
    right.copy_from_slice(&pair[32..]);
    let got = match place {
        Place::Root => *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes(),
        Place::Inner => merge_subtrees_non_root(&left, &right, Mode::Hash),
    };
    // BLAKE3: the left subtree holds the largest power of two that leaves something for the right one.
    let left_count = count.div_ceil(2).next_power_of_two();
    got == *wanted
        && walk(pairs, &left, left_count, Place::Inner, groups)
        && walk(pairs, &right, count - left_count, Place::Inner, groups)
}

#[cfg(test)]
mod tests {
    use bao_tree::BlockSize;
    use bao_tree::io::outboard::PreOrderMemOutboard;
    use proptest::prelude::*;

    use super::*;

    const BLOCK: BlockSize = BlockSize::from_chunk_log(4);

    fn content(size: usize) -> (Vec<u8>, Vec<u8>, Digest) {
        let bytes: Vec<u8> = (0..size).map(|index| u8::try_from(index * 31 % 251).unwrap()).collect();
        let outboard = PreOrderMemOutboard::create(&bytes, BLOCK);
        let root = Digest::from(*outboard.root.as_bytes());
        (bytes, outboard.into_inner_with_prefix(), root)
    }

    fn check_all(hashes: &GroupHashes, bytes: &[u8]) -> Result<(), LieError> {
        for first in (0..bytes.len().max(1)).step_by(16 * 1024) {
            hashes.check(first as u64, &bytes[first..bytes.len().min(first + 16 * 1024)])?;
        }
        Ok(())
    }

    #[test]
    fn agrees_with_bao_tree_at_every_edge_of_a_group() {
        for size in [0, 1, 1024, 16383, 16384, 16385, 32768, 32769, 49153, 65536, 81920, 163_841, 500_000] {
            let (bytes, outboard, root) = content(size);

            let hashes = GroupHashes::from_outboard(&outboard, root, size as u64).unwrap();

            assert_eq!(outboard.len() as u64, outboard_bytes(size as u64), "{size}");
            assert_eq!(check_all(&hashes, &bytes), Ok(()), "{size}");
        }
    }

    proptest! {
        #[test]
        fn a_flipped_bit_of_the_content_is_found_in_its_group(size in 1_usize..200_000, at: usize, bit in 0_u32..8) {
            let (mut bytes, outboard, root) = content(size);
            let hashes = GroupHashes::from_outboard(&outboard, root, size as u64).unwrap();
            let at = at % size;
            bytes[at] ^= 1 << bit;

            let first = (at / 16384 * 16384) as u64;
            let end = (first + 16384).min(size as u64);
            prop_assert_eq!(check_all(&hashes, &bytes), Err(LieError::Group { first, end }));
        }

        #[test]
        fn a_flipped_bit_of_the_outboard_is_found(size in 16_385_usize..200_000, at: usize, bit in 0_u32..8) {
            let (_, mut outboard, root) = content(size);
            let at = at % outboard.len();
            outboard[at] ^= 1 << bit;

            prop_assert!(GroupHashes::from_outboard(&outboard, root, size as u64).is_err());
        }

        #[test]
        fn foreign_outboards_never_panic(outboard: Vec<u8>, size: u64) {
            let _answer = GroupHashes::from_outboard(&outboard, Digest::from([0; 32]), size);
        }
    }

    #[test]
    fn a_group_of_another_length_or_beyond_the_end_is_a_lie() {
        let (bytes, outboard, root) = content(40_000);
        let hashes = GroupHashes::from_outboard(&outboard, root, 40_000).unwrap();

        assert!(hashes.check(0, &bytes[..16_000]).is_err());
        assert!(hashes.check(49_152, &[]).is_err());
    }
}
