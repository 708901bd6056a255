//! [`EnvelopeError`] and [`SignError`].

use muster_pki::Refused;
use muster_pki::pem::PemError;
use muster_proto::common::v1::Refusal;

use super::{CERTIFICATES_MAX, ENVELOPE_BYTES_MAX};
use crate::algorithm::{Unusable, WANTED};
use crate::moment;
use crate::timestamp::TimestampError;

/// Why an envelope is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Refused before anything was hashed.
    #[error("an envelope of {0} bytes; wanted at most {ENVELOPE_BYTES_MAX}")]
    TooLarge(usize),
    /// Refused before anything was hashed.
    #[error("{0} certificates in the envelope; wanted at most {CERTIFICATES_MAX}")]
    TooManyCertificates(usize),
    /// Not CMS in strict DER, or bytes that nothing accounts for.
    #[error(
        "not a signed envelope in strict DER: {0}; sign it with muster-sign, or with `openssl cms -sign -cades -nosmimecap \
         -nodetach -binary -md sha256 -econtent_type OID -in FILE -signer CERT.pem -inkey KEY.pem -certfile CHAIN.pem \
         -outform DER -out FILE.cms`, where OID is 1.3.6.1.3.20263.1.1 for a definition, .2 for an order, .3 for a licence, .4 for a policy, \
         .5 for a pack's index, .7 for a licence request, and .6, without -nodetach, for a file"
    )]
    Form(String),
    /// Another type of document, or none of ours.
    #[error("the envelope holds {}; wanted {}", with_article(got), with_article(wanted))]
    ContentType {
        /// The type's name, or its OID.
        got: String,
        /// The type's name.
        wanted: &'static str,
    },
    /// A signature over other bytes, or by another key.
    #[error("the signature of {signer} does not verify: {problem}")]
    Signature {
        /// The subject of the certificate.
        signer: String,
        /// What differs.
        problem: &'static str,
    },
    /// An algorithm that is weak or unknown.
    #[error("{0}; wanted {WANTED}")]
    Algorithm(String),
    /// A time that cannot be.
    #[error(
        "signed at {}, which is outside the certificate's validity or after now ({}); set the signer's clock and sign again",
        moment::shown(*signed_at), moment::shown(*now)
    )]
    SigningTime {
        /// Unix seconds.
        signed_at: u64,
        /// Unix seconds.
        now: u64,
    },
    /// A certificate that no signer's chain needs.
    #[error(
        "the envelope holds the certificate {0}, which no signer's chain needs; include the chains without their root, and nothing else"
    )]
    UnusedCertificate(String),
    /// A timestamp that does not hold.
    #[error("{0}")]
    Timestamp(TimestampError),
    /// A timestamp, and nothing to verify it by.
    #[error(
        "the signature has a timestamp, and no roots of timestamp authorities are trusted here; put timestamps.pem beside the other roots and \
         name it as trust.timestamps (deploy/README.md, Timestamps)"
    )]
    NoTimestampRoots,
    /// A signer that may not play the role.
    #[error("the signer is not trusted: {0}")]
    Untrusted(Refused),
    /// A signer, or one above it, that is revoked.
    #[error("the signer is revoked: {0}")]
    Revoked(Refused),
}

impl EnvelopeError {
    /// Returns whether nothing is wrong but that an issuer of a signer, or of a timestamp authority, has no fresh CRL (R6 of trust.md):
    /// the same envelope may be accepted once there is one.
    #[must_use]
    pub fn lacks_only_a_crl(&self) -> bool {
        match self {
            Self::Untrusted(refused) | Self::Timestamp(TimestampError::Untrusted(refused)) => {
                refused.lacks_only_a_crl()
            }
            Self::TooLarge(_)
            | Self::TooManyCertificates(_)
            | Self::Form(_)
            | Self::ContentType { .. }
            | Self::Signature { .. }
            | Self::Algorithm(_)
            | Self::SigningTime { .. }
            | Self::UnusedCertificate(_)
            | Self::Timestamp(_)
            | Self::NoTimestampRoots
            | Self::Revoked(_) => false,
        }
    }

    /// Returns the stable code that a client answers with.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::TooLarge(_) | Self::TooManyCertificates(_) => Refusal::TooLarge,
            Self::Form(_)
            | Self::ContentType { .. }
            | Self::Signature { .. }
            | Self::Algorithm(_)
            | Self::SigningTime { .. }
            | Self::UnusedCertificate(_) => Refusal::BadSignature,
            Self::Untrusted(_) | Self::NoTimestampRoots => Refusal::UntrustedSigner,
            Self::Revoked(_) => Refusal::SignerRevoked,
            Self::Timestamp(error) => match error {
                TimestampError::TooLarge(_) => Refusal::TooLarge,
                TimestampError::Untrusted(_) => Refusal::UntrustedSigner,
                TimestampError::Revoked(_) => Refusal::SignerRevoked,
                TimestampError::Form(_)
                | TimestampError::Declined(_)
                | TimestampError::Imprint
                | TimestampError::Nonce
                | TimestampError::Algorithm(_)
                | TimestampError::Signature { .. }
                | TimestampError::Future { .. }
                | TimestampError::UnusedCertificate(_) => Refusal::BadSignature,
            },
        }
    }
}

/// A noun as it stands in a sentence.
pub(super) fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// A number that may be less, and not 0.
pub(super) fn up_to(most: usize) -> String {
    if most == 1 { "1".to_owned() } else { format!("1 to {most}") }
}

impl From<der::Error> for EnvelopeError {
    fn from(error: der::Error) -> Self {
        Self::Form(error.to_string())
    }
}

impl From<Unusable> for EnvelopeError {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Algorithm(problem) => Self::Algorithm(problem),
            Unusable::Form(problem) => Self::Form(problem),
        }
    }
}

impl From<TimestampError> for EnvelopeError {
    fn from(error: TimestampError) -> Self {
        Self::Timestamp(error)
    }
}

/// Why something cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// A PEM file that is none.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The certificate cannot be used.
    #[error("the signer's certificate: {0}")]
    Certificate(String),
    /// The key cannot be used.
    #[error(
        "the signer's key is of no supported type; wanted ECDSA P-256 or P-384, or RSA of 2048 to 8192 bits, in PKCS#8, SEC 1 or PKCS#1"
    )]
    Key,
    /// They do not belong together.
    #[error(
        "the key is not the one of certificate {0}; give the key that the certificate was issued for, and the leaf first"
    )]
    Mismatch(String),
    /// A key that lives elsewhere did not sign.
    #[error("{0}")]
    Remote(String),
    /// More bytes than an envelope may have.
    #[error("the envelope would have {0} bytes; wanted at most {ENVELOPE_BYTES_MAX}")]
    TooLarge(usize),
    /// The wrong number of signers.
    #[error("{got} signers; wanted {}, each once", up_to(*wanted))]
    Signers {
        /// How many there are.
        got: usize,
        /// How many there may be.
        wanted: usize,
    },
    /// A second signature of one signer.
    #[error("{0} has signed it already; another person's signature is wanted")]
    SignedBefore(String),
    /// More certificates than an envelope may have.
    #[error(
        "the envelope would have {0} certificates; wanted at most {CERTIFICATES_MAX}: let signers have a CA in common"
    )]
    Certificates(usize),
    /// A time that no envelope can hold.
    #[error("the time of signing is out of range")]
    Time,
    /// The library refused, without saying why.
    #[error("the key does not sign")]
    Unspecified,
    /// A structure that has no DER.
    #[error("the envelope has no DER: {0}")]
    Encoding(String),
}

impl From<der::Error> for SignError {
    fn from(error: der::Error) -> Self {
        Self::Encoding(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_and_numbers_are_told_as_people_say_them() {
        let got = "order".to_owned();
        let other = EnvelopeError::ContentType { got, wanted: "definition" }.to_string();

        assert_eq!(other, "the envelope holds an order; wanted a definition");
        assert_eq!((up_to(1), up_to(8)), ("1".to_owned(), "1 to 8".to_owned()));
    }
}
