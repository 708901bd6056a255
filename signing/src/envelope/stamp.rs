//! Timestamps beside the signatures of an envelope: the unsigned attribute id-aa-timeStampToken (RFC 3161 Appendix A).

use cms::signed_data::{SignerInfo, SignerInfos};
use der::asn1::{Any, ObjectIdentifier, SetOfVec};
use der::{Decode as _, Encode as _};
use x509_cert::attr::{Attribute, Attributes};

use super::error::{EnvelopeError, SignError};
use super::structure::{encode, form, signed_data};
use crate::timestamp::Token;

/// The countersignature of PKCS#9 (RFC 5652 §11.4), as Authenticode had it: whoever holds its key writes any time into it.
const LEGACY_COUNTERSIGNATURE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.6");

const TIME_STAMP_TOKEN: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.14");

/// Returns the value of each signature of an envelope, in the order of the envelope: what a timestamp authority is asked to
/// stamp. Nothing is verified.
///
/// # Errors
/// It is no envelope.
pub fn signature_values(envelope: &[u8]) -> Result<Vec<Vec<u8>>, EnvelopeError> {
    let data = signed_data(envelope)?;
    Ok(data.signer_infos.0.iter().map(|info| info.signature.as_bytes().to_vec()).collect())
}

/// Returns the timestamp of each signature that has one, in the order of [`signature_values`]. Nothing is verified.
///
/// # Errors
/// It is no envelope, or one of its signatures has unsigned attributes that are not exactly a timestamp.
pub fn timestamps(envelope: &[u8]) -> Result<Vec<Option<Token>>, EnvelopeError> {
    let data = signed_data(envelope)?;
    data.signer_infos.0.iter().map(|info| info.unsigned_attrs.as_ref().map(read).transpose()).collect()
}

/// Returns the envelope with a timestamp beside each signature, in the order of [`signature_values`], in the place of those
/// that are there. The signatures stay what they are; a digest of the envelope does not.
///
/// # Errors
/// It is no envelope, has another number of signatures, or would be too large.
pub fn with_timestamps(envelope: &[u8], tokens: &[Token]) -> Result<Vec<u8>, SignError> {
    let mut data =
        signed_data(envelope).map_err(|error: EnvelopeError| SignError::Encoding(error.to_string()))?;
    if data.signer_infos.0.len() != tokens.len() {
        return Err(SignError::Signers { got: tokens.len(), wanted: data.signer_infos.0.len() });
    }
    let stamped = data.signer_infos.0.iter().zip(tokens).map(|(info, token)| with_token(info, token));
    data.signer_infos = SignerInfos::try_from(stamped.collect::<Result<Vec<_>, SignError>>()?)?;
    encode(&data)
}

fn with_token(info: &SignerInfo, token: &Token) -> Result<SignerInfo, SignError> {
    let der = token.to_der().map_err(|error| SignError::Encoding(error.to_string()))?;
    let values = SetOfVec::try_from(vec![Any::from_der(&der)?])?;
    let attribute = Attribute { oid: TIME_STAMP_TOKEN, values };
    Ok(SignerInfo { unsigned_attrs: Some(SetOfVec::try_from(vec![attribute])?), ..info.clone() })
}

/// Reads the unsigned attributes of a signature that has any: one timestamp, and nothing else.
pub(super) fn read(attributes: &Attributes) -> Result<Token, EnvelopeError> {
    let attribute = match attributes.as_slice() {
        [attribute] => attribute,
        [] => {
            return Err(form(
                "a set of unsigned attributes with none in it; wanted a timestamp in it, or no set",
            ));
        }
        [_, ..] => return Err(form("several unsigned attributes; wanted a timestamp alone")),
    };
    if attribute.oid == LEGACY_COUNTERSIGNATURE {
        return Err(form(
            "a legacy countersignature; wanted an RFC 3161 timestamp (`muster-sign timestamp`), or none",
        ));
    }
    if attribute.oid != TIME_STAMP_TOKEN {
        let problem = format!("the unsigned attribute {}, which nothing here reads", attribute.oid);
        return Err(EnvelopeError::Form(problem));
    }
    match attribute.values.as_slice() {
        [token] => Ok(Token::read(&token.to_der()?)?),
        _ => Err(form("more than one timestamp of one signature")),
    }
}
