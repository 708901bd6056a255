//! The Switch: sessions, audiences, instructions, ledger, results, events, operator API.
//!
//! Two halves. The **engine** is one thread that owns the store and everything that must be decided once. The **shell**
//! around it holds the sockets: shards (threads that hold sessions with clients), the operator API, the admin address.
//! They speak by bounded messages of ids and bytes.
//!
//! Start reading at [`start()`], then `shard` for a client's way in and `operator` for an operator's.

mod config;
mod control;
mod credentials;
mod doors;
mod engine;
mod gate;
mod layout;
mod licence;
mod listen;
mod metrics;
mod operator;
mod program;
mod quic_key;
mod refusal;
mod refusals;
mod registry;
mod shard;
mod start;
mod wall;

pub use config::{
    ClientCertificate, ClockLimits, Config, EngineLimits, Grant, GrantKind, GrantRole, LicenceRefresh,
    OperatorLimits, SessionLimits, ShutdownLimits, TrustConfig,
};
pub use credentials::CredentialProblem;
pub use engine::StoreError;
pub use program::Program;
#[cfg(feature = "autobahn")]
pub use shard::echo;
#[doc(hidden)]
pub use shard::simulation;
pub use start::{Failure, Running, StartError, start};
