//! What is said to a simulated Switch, and what it says.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_pki::Roots;
use muster_proto::ids::InstructionId;
use muster_proto::relay::v1::{RelayEventsResponse, RelayedEvent};
use muster_service::wall::Reading;

/// The clocks of the Switch's machine, turned by hand.
#[derive(Debug, Clone)]
pub struct Hands(Arc<Mutex<Reading>>);

/// Whom the Switch believes.
#[derive(Debug, Clone)]
pub struct Signers {
    /// Roots of definitions' authors.
    pub authors: Roots,
    /// Roots of operators' order signers.
    pub orders: Roots,
    /// Roots of licensors.
    pub licences: Roots,
}

/// When the Switch dies in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dies {
    /// It does not.
    Never,
    /// What was decided is not on disk.
    BeforeCommit,
    /// It is on disk, and nobody was told.
    AfterCommit,
}

/// What a shard gets first of what one commit lets out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// Answers to connects.
    Answers,
    /// Orders, acks and closes.
    Messages,
}

/// What an operator or a Background Channel asks.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Make an order to be signed.
    Prepare {
        /// The definition's name.
        definition: String,
        /// How long clients may start it, milliseconds.
        gather_ms: u64,
        /// Who asks.
        operator: String,
    },
    /// Take a signed order.
    Submit {
        /// The order.
        envelope: Vec<u8>,
        /// By which a repeat is known.
        idempotency_key: String,
        /// Who asks.
        operator: String,
    },
    /// Make a stop to be signed.
    PrepareStop {
        /// What to stop.
        instruction: InstructionId,
        /// Who asks.
        operator: String,
    },
    /// Take a signed stop.
    SubmitStop {
        /// The stop.
        envelope: Vec<u8>,
        /// Who asks.
        operator: String,
    },
    /// Take a definition.
    ImportDefinition(Vec<u8>),
    /// Take a licence.
    ImportLicence(Vec<u8>),
    /// Take events that devices posted.
    Relay(Vec<RelayedEvent>),
}

/// What is answered. Whatever it says is on disk.
#[derive(Debug)]
pub enum Answer {
    /// The bytes to sign.
    Prepared(Vec<u8>),
    /// The order was accepted.
    Accepted(InstructionId),
    /// The stop to sign; `None`: there is nothing to stop.
    StopPrepared(Option<Vec<u8>>),
    /// The stop was accepted.
    StopAccepted(InstructionId),
    /// The document is held.
    Imported,
    /// The events were taken, but for those that are named.
    Relayed(RelayEventsResponse),
    /// The order waits here no more: prepare another.
    NotPrepared,
    /// Nothing was done; says why.
    Refused(String),
}

impl Hands {
    /// Makes clocks that stand.
    #[must_use]
    pub fn new(wall_ms: i64) -> Self {
        Self(Arc::new(Mutex::new(Reading { wall_ms, passed: Duration::ZERO })))
    }

    /// Turns both.
    pub fn set(&self, wall_ms: i64, passed: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Reading { wall_ms, passed };
    }

    pub(super) fn read(&self) -> Reading {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
