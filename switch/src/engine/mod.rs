//! The engine: one thread that owns the store and everything that must be decided once.
//!
//! It owns a pure [`Core`](core::Core) (device numbers, ledgers, seen sets, definitions, licence, prepared orders) and
//! the one database connection that writes. It takes what queued during the last fsync as one batch, applies each item
//! to the core, commits what the core wants stored in one transaction, and only then lets replies and messages out. A
//! commit that fails ends the engine: its cause is told by [`EngineHandle::failed`].
//!
//! It holds no socket and speaks no protocol; the shell around it does. Start reading at [`EngineHandle`], then
//! `writer` for the loop, `works` for what a batch goes through, `core` for the decisions and `store` for what lies on disk.

mod audience;
mod clock;
mod config;
mod core;
mod damage;
mod error;
mod handle;
mod ledger;
mod message;
mod metrics;
mod outgoing;
mod proofs;
mod reader;
mod shared;
mod standing;
mod store;
mod trust;
mod works;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use clock::Clock;
pub(crate) use config::EngineConfig;
pub(crate) use core::{
    Command, Draft, EventIn, ImportCommand, ImportedLicence, PrepareStop, ResultIn, StopCommand,
    UnauthenticatedLimits,
};
pub(crate) use error::{EngineEnd, EngineError, OpenError};
pub(crate) use handle::{Engine, EngineHandle, SessionEngine};
pub(crate) use message::{
    Connect, Connected, DueOrder, Prepare, Prepared, SessionKey, ShardMessage, Urgency,
};
pub(crate) use metrics::describe as describe_metrics;
pub(crate) use metrics::unauthenticated_refused;
pub(crate) use proofs::Proofs;
pub(crate) use reader::{AggregateLimits, Cursor, EngineStatus, Page, Reader};
pub(crate) use shared::{verify_definition, verify_licence, verify_order, verify_stop};
pub use store::StoreError;
pub(crate) use trust::Trust;
pub(crate) use works::Works;
