//! Timestamps beside the signatures of a document.

use muster_pki::{Certificate, Facts, RevocationIndex, Roots, UnixTime};
use muster_signing::envelope::{self, CLOCK_SKEW_SECONDS, EnvelopeError, Inspection};
use muster_signing::moment;
use muster_signing::timestamp::{ClaimedStamp, Request, Stamp, Token};

use crate::ToolError;

/// A document with its timestamps.
#[derive(Debug, Clone)]
pub struct Stamped {
    /// The envelope.
    pub envelope: Vec<u8>,
    /// What each timestamp proves, in the order of the signatures.
    pub stamps: Vec<Stamp>,
}

/// A timestamp that a document has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// What it claims.
    pub claimed: ClaimedStamp,
    /// Why it proves nothing here; `None`: it holds. By other roots it may hold all the same.
    pub problem: Option<String>,
}

/// Asks for a timestamp over each signature of an envelope, verifies what comes back by `roots`, and puts it in the place of
/// any that was there: whoever is to keep those asks [`existing_timestamps`] before. `nonce` gives random bytes; `ask` sends a request to the
/// authority and returns its answer, both in DER; `revocation` says who is revoked, and may look for the signers of CRLs among the
/// certificates that the token claims.
///
/// # Errors
/// It is no envelope; `ask` or `revocation` fails; the authority gives no timestamp that would be believed; or one by which the document
/// would be refused, such as after the end of its signer's certificate.
pub fn stamp_envelope<E: From<ToolError>>(
    envelope: &[u8],
    roots: &Roots,
    mut revocation: impl FnMut(&Token) -> Result<Option<RevocationIndex>, E>,
    now: UnixTime,
    mut nonce: impl FnMut() -> Result<[u8; 16], E>,
    mut ask: impl FnMut(&Request) -> Result<Vec<u8>, E>,
) -> Result<Stamped, E> {
    let refused = |error: EnvelopeError| E::from(ToolError::from(error));
    let inspection = envelope::inspect(envelope).map_err(refused)?;
    let (mut tokens, mut stamps) = (Vec::new(), Vec::new());
    for value in envelope::signature_values(envelope).map_err(refused)? {
        let request = Request::new(&value, nonce()?).map_err(ToolError::from)?;
        let answer = ask(&request)?;
        let token = request.token(&answer).map_err(ToolError::from)?;
        let index = revocation(&token)?;
        let facts = Facts { revocation: index.as_ref(), ..Facts::at(now) };
        let token = token.pruned(&value, roots, &facts).map_err(ToolError::from)?;
        let stamp = token.verify(&value, roots, &facts).map_err(ToolError::from)?;
        check_worth(&inspection, stamp.at, index.as_ref())
            .map_err(|problem| ToolError::UselessStamp { at: moment::shown(stamp.at.as_secs()), problem })?;
        stamps.push(stamp);
        tokens.push(token);
    }
    let envelope = envelope::with_timestamps(envelope, &tokens).map_err(ToolError::from)?;
    Ok(Stamped { envelope, stamps })
}

/// Returns the timestamps that an envelope has, and whether each holds by `roots`; in the order of the signatures.
///
/// # Errors
/// It is no envelope.
pub fn existing_timestamps(
    envelope: &[u8],
    roots: &Roots,
    revocation: Option<&RevocationIndex>,
    now: UnixTime,
) -> Result<Vec<Existing>, ToolError> {
    let inspection = envelope::inspect(envelope)?;
    let facts = Facts { revocation, ..Facts::at(now) };
    let values = envelope::signature_values(envelope)?;
    let each = values.iter().zip(envelope::timestamps(envelope)?);
    let judged = each.filter_map(|(value, token)| {
        let token = token?;
        let problem = match token.verify(value, roots, &facts) {
            Ok(stamp) => check_worth(&inspection, stamp.at, revocation).err(),
            Err(error) => Some(error.to_string()),
        };
        Some(Existing { claimed: token.claimed(), problem })
    });
    Ok(judged.collect())
}

/// Looks at what verifying asks of a document and the moment of its timestamp: whoever signed could do so then, and had done it.
fn check_worth(
    inspection: &Inspection,
    at: UnixTime,
    revocation: Option<&RevocationIndex>,
) -> Result<(), String> {
    let shown = |moment: UnixTime| moment::shown(moment.as_secs());
    // They are exactly the signers' chains.
    for certificate in &inspection.certificates {
        let subject = Certificate::subject(certificate);
        if at > certificate.not_after() {
            return Err(format!(
                "the certificate of {subject} had ended at {}",
                shown(certificate.not_after())
            ));
        }
        if !certificate.is_valid_at(at) {
            return Err(format!("the certificate of {subject} was not valid yet"));
        }
        let (issuer, serial) = (certificate.issuer_der(), certificate.serial());
        if revocation.is_some_and(|index| index.contains_at(issuer, serial, Some(at))) {
            return Err(format!("the certificate of {subject} was revoked"));
        }
    }
    for (signer, signed_at) in &inspection.signers {
        if signed_at.as_secs() > at.as_secs().saturating_add(CLOCK_SKEW_SECONDS) {
            return Err(format!(
                "{} says that it was signed later, at {}; set the clock of that machine, or ask another authority",
                signer.subject(),
                shown(*signed_at)
            ));
        }
    }
    Ok(())
}
