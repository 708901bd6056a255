//! Timestamps beside the signatures of a document.

use muster_pki::{Facts, RevocationIndex, Roots, UnixTime};
use muster_signing::envelope::{self, EnvelopeError};
use muster_signing::timestamp::{Request, Stamp, Token};

use crate::ToolError;

/// A document with its timestamps.
#[derive(Debug, Clone)]
pub struct Stamped {
    /// The envelope.
    pub envelope: Vec<u8>,
    /// What each timestamp proves, in the order of the signatures.
    pub stamps: Vec<Stamp>,
}

/// Asks for a timestamp over each signature of an envelope, verifies what comes back by `roots`, and puts it in the place of
/// any that was there. `nonce` gives random bytes; `ask` sends a request to the authority and returns its answer, both in DER;
/// `revocation` says who is revoked, and may look for the signers of CRLs among the certificates that the token claims.
///
/// # Errors
/// It is no envelope; `ask` or `revocation` fails; or the authority gives no timestamp that would be believed.
pub fn stamp_envelope<E: From<ToolError>>(
    envelope: &[u8],
    roots: &Roots,
    mut revocation: impl FnMut(&Token) -> Result<Option<RevocationIndex>, E>,
    now: UnixTime,
    mut nonce: impl FnMut() -> Result<[u8; 16], E>,
    mut ask: impl FnMut(&Request) -> Result<Vec<u8>, E>,
) -> Result<Stamped, E> {
    let refused = |error: EnvelopeError| E::from(ToolError::from(error));
    let (mut tokens, mut stamps) = (Vec::new(), Vec::new());
    for value in envelope::signature_values(envelope).map_err(refused)? {
        let request = Request::new(&value, nonce()?).map_err(ToolError::from)?;
        let answer = ask(&request)?;
        let token = request.token(&answer).map_err(ToolError::from)?;
        let index = revocation(&token)?;
        let facts = Facts { revocation: index.as_ref(), ..Facts::at(now) };
        let token = token.pruned(&value, roots, &facts).map_err(ToolError::from)?;
        stamps.push(token.verify(&value, roots, &facts).map_err(ToolError::from)?);
        tokens.push(token);
    }
    let envelope = envelope::with_timestamps(envelope, &tokens).map_err(ToolError::from)?;
    Ok(Stamped { envelope, stamps })
}
