//! Signing and verifying client policies.

use muster_pki::{Certificate, Facts, RevocationIndex, Role, UnixTime};
use muster_signing::envelope::{self, Anchors, ContentType, Signer};
use muster_signing::policy::Policy;

use crate::{ToolError, check_signer};

/// Checks an authored text and signs it; the envelope holds the text as it is.
///
/// # Errors
/// The text is no policy, or the signer is none that clients accept.
pub fn sign_policy(text: &str, signer: &Signer, now: UnixTime) -> Result<Vec<u8>, ToolError> {
    let policy = Policy::parse(text)?;
    if let Some(audience) = &policy.terms().audience {
        audience.check_types().map_err(|error| ToolError::Audience(error.to_string()))?;
    }
    check_signer(signer, now)?;
    Ok(envelope::sign(text.as_bytes(), ContentType::Policy, signer, now)?)
}

/// A policy whose signature holds.
#[derive(Debug, Clone)]
pub struct VerifiedPolicy {
    /// The policy.
    pub policy: Policy,
    /// The text that was signed.
    pub text: String,
    /// Who signed it.
    pub signer: Certificate,
    /// When, by the signer's own clock.
    pub signing_time: UnixTime,
    /// When at the latest, by a timestamp.
    pub stamped_at: Option<UnixTime>,
}

/// Verifies a policy as a Switch and its clients do.
///
/// # Errors
/// The signature does not hold, the signer is not trusted, or the text is no policy.
pub fn verify_policy(
    envelope: &[u8],
    anchors: &Anchors<'_>,
    revocation: Option<&RevocationIndex>,
    now: UnixTime,
) -> Result<VerifiedPolicy, ToolError> {
    let facts = Facts { revocation, ..Facts::at(now) };
    let verified = envelope::verify(envelope, ContentType::Policy, Role::Policy, anchors, &facts)?;
    let text = String::from_utf8(verified.content).map_err(|_| ToolError::NotText)?;
    let policy = Policy::parse(&text)?;
    let Some(signer) = verified.signers.into_iter().next() else { return Err(ToolError::NotText) };
    let (signing_time, stamped_at) = (verified.signing_time, verified.stamped_at);
    Ok(VerifiedPolicy { policy, text, signer, signing_time, stamped_at })
}
