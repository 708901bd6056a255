//! [`Digests`]: by what a member is known.

use aws_lc_rs::digest::{Context, SHA256};
use muster_proto::ids::Digest;

/// Size and digests of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// Bytes.
    pub size: u64,
    /// The BLAKE3 root, by which definitions and the Background Channel name a resource.
    pub root: Digest,
    /// The SHA-256, by which a definition's envelope is known, and for people who check by hand.
    pub sha256: Digest,
}

impl Digests {
    /// Returns those of bytes that are at hand.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = MemberHasher::default();
        hasher.update(bytes);
        hasher.finish()
    }
}

/// Makes [`Digests`], piece by piece.
#[derive(Clone)]
pub struct MemberHasher {
    size: u64,
    blake3: blake3::Hasher,
    sha256: Context,
}

impl Default for MemberHasher {
    fn default() -> Self {
        Self { size: 0, blake3: blake3::Hasher::new(), sha256: Context::new(&SHA256) }
    }
}

impl MemberHasher {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.size = self.size.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        self.blake3.update(piece);
        self.sha256.update(piece);
    }

    /// Ends the member.
    #[must_use]
    pub fn finish(self) -> Digests {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.sha256.finish().as_ref());
        let root = Digest::from(*self.blake3.finalize().as_bytes());
        Digests { size: self.size, root, sha256: Digest::from(sha256) }
    }
}

impl std::fmt::Debug for MemberHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemberHasher").field("size", &self.size).finish_non_exhaustive()
    }
}
