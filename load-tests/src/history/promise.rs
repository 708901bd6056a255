//! What fake clients and operators were told.

use serde::{Deserialize, Serialize};

/// What a fake client or operator was told; each writes its own log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum Promise {
    /// An operator: the instruction was accepted.
    Accepted {
        /// Its id.
        instruction: String,
    },
    /// An operator: the stop was accepted.
    StopAccepted {
        /// The id of what it stops.
        instruction: String,
    },
    /// An operator: the approval was accepted.
    ApprovalAccepted {
        /// The id of what was approved.
        instruction: String,
        /// By whom.
        operator: String,
    },
    /// An operator: the definition was imported.
    DefinitionImported {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
    },
    /// A client: the result was acked.
    ResultAcked {
        /// Whose.
        device: String,
        /// From where, hex.
        outbox_id: String,
        /// Which.
        sequence: u64,
    },
    /// A client: the event was acked, by either road.
    EventAcked {
        /// Whose.
        device: String,
        /// From where, hex.
        outbox_id: String,
        /// Which.
        sequence: u64,
    },
}

impl std::fmt::Display for Promise {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accepted { instruction } => write!(formatter, "instruction {instruction}"),
            Self::StopAccepted { instruction } => write!(formatter, "the stop of instruction {instruction}"),
            Self::ApprovalAccepted { instruction, operator } => {
                write!(formatter, "the approval of instruction {instruction} by {operator}")
            }
            Self::DefinitionImported { name, version } => write!(formatter, "definition {name} {version}"),
            Self::ResultAcked { device, outbox_id, sequence } => {
                write!(formatter, "result {sequence} of {device}, outbox {outbox_id}")
            }
            Self::EventAcked { device, outbox_id, sequence } => {
                write!(formatter, "event {sequence} of {device}, outbox {outbox_id}")
            }
        }
    }
}
