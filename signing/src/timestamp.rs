//! Timestamps (RFC 3161): an authority with roots of its own says that a signature existed at a moment, so that the
//! signature outlives its certificate (`spec/signing.md`, Envelope).
//!
//! [`Request`] asks an authority for a stamp over a signature's value, [`Request::token`] takes its answer, and
//! [`crate::envelope::with_timestamps`] puts the [`Token`] beside the signature. Nothing here opens a socket, and verifying needs
//! none: the token carries the authority's chain.

mod asn1;
mod error;
mod exchange;
#[cfg(test)]
pub(crate) mod stamper;
mod token;

pub use self::error::TimestampError;
pub use self::exchange::Request;
pub use self::token::{ClaimedStamp, Stamp, TOKEN_BYTES_MAX, Token};

#[cfg(test)]
mod tests;
