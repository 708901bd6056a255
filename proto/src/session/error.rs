//! Why a half of a session would not take something to send.

use crate::frame::FrameError;

/// Why a half of a session would not take something to send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The outbound queue is full; what is queued has to be written first.
    #[error(
        "{queued} bytes wait to be written and {needed} more exceed {max}; try again when some are written"
    )]
    Busy {
        /// Bytes in the queue.
        queued: usize,
        /// Bytes of what was pushed.
        needed: usize,
        /// The queue's bound.
        max: usize,
    },
    /// The peer's credit does not cover it; an ack brings more.
    #[error("{needed} bytes need more than the credit of {available}; try again after the next ack")]
    NoCredit {
        /// Bytes of the encoded frame.
        needed: u64,
        /// What is left of the lane's credit.
        available: u64,
    },
    /// As many documents as a session may ask for have not come yet.
    #[error("{max} documents are asked for already; wait for one")]
    TooManyRequests {
        /// How many that is.
        max: usize,
    },
    /// Hello and Welcome have not been exchanged yet.
    #[error("the session is not established yet; wait for its welcome")]
    NotEstablished,
    /// The session has ended.
    #[error("the session is closed; it goes to the next one")]
    Closed,
    /// The peer would refuse it and close every session in which it comes.
    #[error("the peer would refuse it: {0}")]
    Invalid(FrameError),
}

impl PushError {
    /// Returns whether the same push may succeed later in this session.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Busy { .. }
            | Self::NoCredit { .. }
            | Self::TooManyRequests { .. }
            | Self::NotEstablished => true,
            Self::Closed | Self::Invalid(_) => false,
        }
    }
}
