//! Frames to bytes and back, with every limit of the wire checked before a frame is believed.
//!
//! | field | body | direction | bytes at most |
//! |---|---|---|---|
//! | 1 | `Hello` | client → Switch | 64 KiB |
//! | 2 | `Welcome` | Switch → client | 4 KiB |
//! | 3 | `Ping` | Switch → client | 4 KiB |
//! | 4 | `Pong` | client → Switch | 4 KiB |
//! | 5 | `OrderDelivery` | Switch → client | 256 KiB and its tag |
//! | 6 | `Progress` | client → Switch | 4 KiB |
//! | 7 | `Result` | client → Switch | 768 KiB |
//! | 8 | `Event` | client → Switch | 64 KiB |
//! | 9 | `Ack` | Switch → client | 32 KiB |
//! | 10 | `DocumentRequest` | client → Switch | 4 KiB |
//! | 11 | `Document` | Switch → client | 256 KiB and its tags |
//! | 12 | `LicenceNotice` | Switch → client | 4 KiB |
//! | 13 | `GoAway` | Switch → client | 4 KiB |
//! | 14 | `PolicyCheck` | client → Switch | 4 KiB |
//! | 15 | `PolicyNotice` | Switch → client | 4 KiB |
//! | 100 | `InclusionProof`, beside an order | Switch → client | 4 KiB |

mod check;
mod encoded;
pub mod item;
#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod tests;
mod walk;

use bytes::Bytes;
use prost::Message as _;

use crate::limits;
use crate::session::v1::{EventBatch, Frame};

pub use check::{check, check_event, check_event_batch};
pub use encoded::{Encoded, with_envelope, with_proof};

/// Why bytes are not a frame that may be acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame, or a part of it, is larger than its bound.
    #[error("{what} has {got} bytes, at most {max} are allowed")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its bytes.
        got: usize,
        /// Its bound.
        max: usize,
    },
    /// A list is longer than its bound.
    #[error("{what} has {got} items, at most {max} are allowed")]
    TooMany {
        /// Which list.
        what: &'static str,
        /// Its length.
        got: usize,
        /// Its bound.
        max: usize,
    },
    /// A field holds what it may not.
    #[error("{field} is {got}, wanted {wanted}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What it holds, cut short.
        got: String,
        /// What it should hold.
        wanted: &'static str,
    },
    /// The bytes break protobuf's encoding.
    #[error("not a protobuf frame: bad field at byte {at}")]
    Malformed {
        /// Where the first bad field begins.
        at: usize,
    },
    /// A message within the frame breaks protobuf's encoding or has text that is not UTF-8.
    #[error("not a protobuf frame: {0}")]
    Undecodable(prost::DecodeError),
    /// The frame has two bodies.
    #[error("two bodies in one frame, fields {first} and {second}; send each in a frame of its own")]
    TwoBodies {
        /// The field number of the first.
        first: u32,
        /// The field number of the second.
        second: u32,
    },
}

/// Encodes a frame.
#[must_use]
pub fn encode(frame: &Frame) -> Bytes {
    Bytes::from(frame.encode_to_vec())
}

/// Decodes a frame and checks it, so that what is returned holds every limit of [`limits`].
///
/// A frame whose body this version does not know has no body here; both halves ignore and count it.
///
/// # Errors
/// [`FrameError`]: what was wrong. The peer broke the protocol, so the session ends.
pub fn decode(bytes: &[u8]) -> Result<Frame, FrameError> {
    if bytes.len() > limits::FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { what: "a frame", got: bytes.len(), max: limits::FRAME_BYTES_MAX });
    }
    // A list of empty messages grows when it is decoded; the bounds of each body keep that small.
    walk::check_sizes(bytes)?;
    let frame = Frame::decode(bytes).map_err(FrameError::Undecodable)?;
    check(&frame)?;
    Ok(frame)
}

/// Decodes the body of `POST /Background/v1/events` and checks it with [`check_event_batch`].
///
/// # Errors
/// [`FrameError`]: what was wrong. Nothing of the batch may be acked.
pub fn decode_event_batch(bytes: &[u8]) -> Result<EventBatch, FrameError> {
    let (got, max) = (bytes.len(), limits::EVENT_BATCH_BYTES_MAX);
    if got > max {
        return Err(FrameError::TooLarge { what: "an EventBatch", got, max });
    }
    walk::check_batch_sizes(bytes)?;
    let batch = EventBatch::decode(bytes).map_err(FrameError::Undecodable)?;
    check_event_batch(&batch)?;
    Ok(batch)
}
