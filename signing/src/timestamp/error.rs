//! [`TimestampError`].

use muster_pki::Refused;

use super::TOKEN_BYTES_MAX;
use crate::algorithm::Unusable;
use crate::moment;

/// Why a timestamp is not given, or not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// Refused before anything was read.
    #[error("a timestamp of {0} bytes; wanted at most {TOKEN_BYTES_MAX}")]
    TooLarge(usize),
    /// No answer or token of RFC 3161, in DER.
    #[error(
        "no RFC 3161 timestamp in strict DER: {0}; ask another timestamp authority (`muster-sign timestamp`)"
    )]
    Form(String),
    /// The authority gives none.
    #[error("the timestamp authority refused the request: {0}")]
    Declined(String),
    /// It is over something else, or the answer to another request.
    #[error(
        "the timestamp is over another signature than this one; ask for a new one (`muster-sign timestamp`)"
    )]
    Imprint,
    /// It answers another request.
    #[error("the timestamp answers another request: its nonce is not the one that was sent; ask again")]
    Nonce,
    /// An algorithm that is weak or unknown.
    #[error("{0}; ask another timestamp authority")]
    Algorithm(String),
    /// A signature over other bytes, or by another key.
    #[error("the signature of the timestamp authority {authority} does not verify: {problem}")]
    Signature {
        /// The subject of its certificate.
        authority: String,
        /// What differs.
        problem: &'static str,
    },
    /// The moment is ahead of this machine's clock.
    #[error("the timestamp is of {}, after now ({}); set this machine's clock", moment::shown(*at), moment::shown(*now))]
    Future {
        /// Unix seconds.
        at: u64,
        /// Unix seconds.
        now: u64,
    },
    /// A certificate that the authority's chain does not need.
    #[error(
        "the timestamp holds the certificate {0}, which its authority's chain does not need; stamp again with muster-sign"
    )]
    UnusedCertificate(String),
    /// The authority may not give timestamps here.
    #[error("the timestamp authority is not trusted: {0}")]
    Untrusted(Refused),
    /// The authority, or one above it, is revoked: whoever has its key may write any time.
    #[error("the certificate {0} of the timestamp authority is revoked; stamp again at another authority")]
    Revoked(String),
}

impl From<der::Error> for TimestampError {
    fn from(error: der::Error) -> Self {
        Self::Form(error.to_string())
    }
}

impl From<Unusable> for TimestampError {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Algorithm(_) => Self::Algorithm(unusable.to_string()),
            Unusable::Form(problem) => Self::Form(problem),
        }
    }
}
