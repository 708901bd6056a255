//! Asking an authority: TimeStampReq and TimeStampResp (RFC 3161 §2.4).

use der::asn1::{OctetString, Uint};
use der::{Decode as _, Encode as _};
use muster_pki::text::is_misleading;

use super::asn1::{MessageImprint, StatusInfo, TimeStampRequest, TimeStampResponse};
use super::{TOKEN_BYTES_MAX, TimestampError, Token};
use crate::algorithm::Hash;

/// A question to a timestamp authority, for one signature.
#[derive(Debug, Clone)]
pub struct Request {
    message: TimeStampRequest,
    der: Vec<u8>,
}

impl Request {
    /// The type of the request's body over HTTP (RFC 3161 §3.4).
    pub const CONTENT_TYPE: &'static str = "application/timestamp-query";

    /// The type of the answer's body over HTTP (RFC 3161 §3.4).
    pub const ANSWER_TYPE: &'static str = "application/timestamp-reply";

    /// Asks for a stamp over a signature's value, by its SHA-256. `nonce` is random: it ties the answer to this request.
    ///
    /// # Errors
    /// The request has no DER.
    pub fn new(signature: &[u8], nonce: [u8; 16]) -> Result<Self, TimestampError> {
        let message_imprint = MessageImprint {
            hash_algorithm: Hash::Sha256.identifier(),
            hashed_message: OctetString::new(Hash::Sha256.of(signature).as_ref())?,
        };
        let message = TimeStampRequest {
            version: 1,
            message_imprint,
            nonce: Uint::new(&nonce)?,
            certificates_wanted: true,
        };
        Ok(Self { der: message.to_der()?, message })
    }

    /// Reads the nonce of a request that was written to a file, so that [`Self::new`] makes the same request again.
    ///
    /// # Errors
    /// It is no request of ours.
    pub fn nonce_of(der: &[u8]) -> Result<[u8; 16], TimestampError> {
        let message = TimeStampRequest::from_der(der)?;
        let bytes = message.nonce.as_bytes();
        let mut nonce = [0; 16];
        let front = nonce.len().checked_sub(bytes.len());
        let room = front.and_then(|front| nonce.get_mut(front..));
        let room = room.ok_or_else(|| TimestampError::Form("a nonce of more than 16 bytes".to_owned()))?;
        room.copy_from_slice(bytes);
        Ok(nonce)
    }

    /// Returns the request as it is sent, in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Takes the token out of the authority's answer (DER). It answers this request; who signed it is not verified yet.
    ///
    /// # Errors
    /// The authority declines, the answer is none, or it is one to another request.
    pub fn token(&self, answer: &[u8]) -> Result<Token, TimestampError> {
        if answer.len() > TOKEN_BYTES_MAX {
            return Err(TimestampError::TooLarge(answer.len()));
        }
        let answer = TimeStampResponse::from_der(answer)?;
        let Some(token) = answer.token.filter(|_| answer.status.is_granted()) else {
            return Err(TimestampError::Declined(answer.status.text()));
        };
        let token = Token::read(&token.to_der()?)?;
        if token.info().message_imprint.hashed_message != self.message.message_imprint.hashed_message {
            return Err(TimestampError::Imprint);
        }
        if token.info().nonce.as_ref() != Some(&self.message.nonce) {
            return Err(TimestampError::Nonce);
        }
        Ok(token)
    }
}

/// PKIFailureInfo (RFC 3161 §2.4.2): the bits that an authority may set.
const FAILURES: [(usize, &str); 8] = [
    (0, "it does not know the algorithm SHA-256"),
    (2, "it does not accept such a request"),
    (5, "it finds the request malformed"),
    (14, "its clock is out of order"),
    (15, "it does not know the policy"),
    (16, "it does not know an extension"),
    (17, "it has not the information that was asked for"),
    (25, "it cannot serve now"),
];

impl StatusInfo {
    /// granted (0), or grantedWithMods (1).
    const fn is_granted(&self) -> bool {
        self.status <= 1
    }

    /// Returns what the authority says, in one line.
    fn text(&self) -> String {
        let told = self.texts.iter().flatten().cloned();
        let bits: Vec<bool> = self.failure.iter().flat_map(|bits| bits.bits()).collect();
        let failures = FAILURES.iter().filter(|(bit, _)| bits.get(*bit) == Some(&true));
        let parts: Vec<String> = told.chain(failures.map(|(_, text)| (*text).to_owned())).collect();
        let parts = if parts.is_empty() { vec!["it gives no reason".to_owned()] } else { parts };
        let text = format!("status {}, {}", self.status, parts.join("; "));
        // The authority's words are not ours: no hidden characters, and not a page of them.
        text.chars().filter(|c| !is_misleading(*c)).take(512).collect()
    }
}
