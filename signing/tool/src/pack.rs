//! Signing the index of a pack (G9).

use muster_pki::UnixTime;
use muster_signing::envelope::{self, ContentType, Signer};
use muster_signing::pack::Index;

use crate::{ToolError, check_signer};

/// Signs the index of a pack; the envelope is its first member.
///
/// # Errors
/// The signer is none that would be accepted, or the index does not fit an envelope.
pub fn sign_pack_index(index: &Index, signer: &Signer, now: UnixTime) -> Result<Vec<u8>, ToolError> {
    check_signer(signer, now)?;
    Ok(envelope::sign(index.to_text()?.as_bytes(), ContentType::Pack, signer, now)?)
}
