//! Signatures beside a file (G10): the file is hashed piece by piece, by whoever reads it.

use std::fmt;

use aws_lc_rs::digest::Context;
use muster_pki::{Certificate, Facts, Role, UnixTime};

use super::error::{EnvelopeError, SignError};
use super::structure::{self, Structure, form};
use super::{Anchors, ContentType, Judged, Signer, judge, signed_at};
use crate::algorithm::Hash;

/// Hashes a file, piece by piece.
#[derive(Clone)]
pub struct Digester {
    hash: Hash,
    context: Context,
}

impl Digester {
    /// Hashes as this signer signs.
    #[must_use]
    pub fn of(signer: &Signer) -> Self {
        Self::with(signer.key_type().hash())
    }

    fn with(hash: Hash) -> Self {
        Self { hash, context: hash.context() }
    }

    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.context.update(piece);
    }

    /// Ends the file.
    #[must_use]
    pub fn finish(self) -> ContentDigest {
        ContentDigest { hash: self.hash, value: self.context.finish().as_ref().to_vec() }
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digester").field("hash", &self.hash).finish_non_exhaustive()
    }
}

/// The digest of a whole file. Shown as lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentDigest {
    hash: Hash,
    value: Vec<u8>,
}

impl ContentDigest {
    /// Returns the algorithm's name, such as `SHA-256`.
    #[must_use]
    pub const fn algorithm(&self) -> &'static str {
        self.hash.name()
    }

    fn by(&self, hash: Hash) -> Result<Vec<u8>, EnvelopeError> {
        let is_same = self.hash == hash;
        is_same.then(|| self.value.clone()).ok_or_else(|| form("a digest of another algorithm"))
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.value))
    }
}

/// Signs a file by the digest that [`Digester::of`] the same signer made; the signature is kept beside it.
///
/// # Errors
/// The key does not sign, or the digest is of another algorithm than the signer's.
pub fn sign_detached(
    content: &ContentDigest,
    signer: &Signer,
    signing_time: UnixTime,
) -> Result<Vec<u8>, SignError> {
    let digest = |hash: Hash| {
        let mixed = || {
            let (wanted, got) = (hash.name(), content.algorithm());
            SignError::Encoding(format!("the file's digest is {got}, and this signer's is {wanted}"))
        };
        (content.hash == hash).then(|| content.value.clone()).ok_or_else(mixed)
    };
    structure::assemble(None, digest, ContentType::File, &[signer], signing_time)
}

/// A file's signature, read and not verified.
#[derive(Debug)]
pub struct Detached {
    structure: Structure,
    hash: Hash,
}

/// A file whose signature holds.
#[derive(Debug, Clone)]
pub struct VerifiedFile {
    /// Who signed it.
    pub signer: Certificate,
    /// The root that the signer chains to.
    pub root: Certificate,
    /// When, by the signer's own clock.
    pub signing_time: UnixTime,
    /// When at the latest, by a timestamp.
    pub stamped_at: Option<UnixTime>,
}

impl Detached {
    /// Reads a signature; it says how the file is hashed.
    ///
    /// # Errors
    /// It is not in the form that [`super::verify`] asks for, has the file inside, or is of another type.
    pub fn read(signature: &[u8]) -> Result<Self, EnvelopeError> {
        let structure = Structure::read(signature, ContentType::File)?;
        let hash = structure.signatures.first().map(|signature| signature.hash);
        Ok(Self { hash: hash.ok_or_else(|| form("no signature"))?, structure })
    }

    /// Returns what hashes the file as its signer did.
    #[must_use]
    pub fn digester(&self) -> Digester {
        Digester::with(self.hash)
    }

    /// Returns whether the signature holds, by the key of the certificate in it, over a file with this digest. Nobody is trusted by that.
    #[must_use]
    pub fn is_over(&self, content: &ContentDigest) -> bool {
        signed_at(&self.structure, |hash| content.by(hash)).is_ok()
    }

    /// Verifies that the signature is over a file with this digest, by a signer who may play `role`, as [`super::verify`] does.
    ///
    /// # Errors
    /// What is wrong; [`EnvelopeError::refusal`] gives the code for it.
    pub fn verify(
        &self,
        content: &ContentDigest,
        role: Role,
        anchors: &Anchors<'_>,
        facts: &Facts<'_>,
    ) -> Result<VerifiedFile, EnvelopeError> {
        let signed_at = signed_at(&self.structure, |hash| content.by(hash))?;
        let Judged { signers, roots, signing_time, stamped_at } =
            judge(&self.structure, &signed_at, role, anchors, facts)?;
        let signer = signers.into_iter().next().ok_or_else(|| form("no signature"))?;
        let root = roots.into_iter().next().ok_or_else(|| form("no root"))?;
        Ok(VerifiedFile { signer, root, signing_time, stamped_at })
    }
}

#[cfg(test)]
mod tests;
