//! Signing and verifying files beside their signature (G10).

use muster_pki::{Facts, RevocationIndex, Role, UnixTime};
use muster_signing::envelope::{Anchors, ContentDigest, Detached, Signer, VerifiedFile, sign_detached};

use crate::{ToolError, check_signer};

/// Signs a file by its digest, which [`muster_signing::envelope::Digester::of`] the signer made.
///
/// # Errors
/// The signer is none that would be accepted, or cannot sign.
pub fn sign_file(content: &ContentDigest, signer: &Signer, now: UnixTime) -> Result<Vec<u8>, ToolError> {
    check_signer(signer, now)?;
    Ok(sign_detached(content, signer, now)?)
}

/// Verifies a file by its digest, which [`Detached::digester`] made. The signer is judged as an author is (G5); whose files those
/// are say the roots that are given.
///
/// # Errors
/// The signature does not hold, or the signer is not trusted.
pub fn verify_file(
    signature: &Detached,
    content: &ContentDigest,
    anchors: &Anchors<'_>,
    revocation: Option<&RevocationIndex>,
    now: UnixTime,
) -> Result<VerifiedFile, ToolError> {
    let facts = Facts { revocation, ..Facts::at(now) };
    Ok(signature.verify(content, Role::Author, anchors, &facts)?)
}
