//! The client: connection, verification, journal, outbox, content.
//!
//! [`start`] assembles it. `instructions` decides what becomes of an order, `store` keeps what was
//! promised, `connection` holds the session, `content` gets resources, `background` is the other road of events,
//! `policy` moves the client where the fleet's administrators want it,
//! [`local`] answers to this machine's users. SQL runs in helper processes of `muster-endpoint`.

mod answer;
mod attributes;
mod background;
mod backoff;
pub mod cli;
mod clock;
mod config;
mod connection;
mod content;
mod events;
mod files;
mod https;
mod identity;
mod instructions;
mod key;
pub mod local;
mod metrics;
mod policy;
mod profile;
mod program;
mod running;
#[doc(hidden)]
pub mod simulation;
mod status;
mod store;
mod url;
mod value;

pub use backoff::Backoff;
pub use config::{
    Config, EventsConfig, HelperConfig, InstructionsConfig, OutboxConfig, PolicyConfig, ResourcesConfig,
    SessionConfig, TlsConfig, TransportChoice, TrustConfig, socket_in,
};
#[cfg(feature = "autobahn")]
pub use connection::autobahn;
pub use content::{ContentError, LieError};
pub use events::PostError;
pub use files::{Shared, WrongKind};
pub use https::HttpsError;
pub use instructions::TrustError;
pub use key::{DeviceIdentity, KeyError};
pub use muster_service::credentials::DialError;
pub use policy::PolicyStatus;
pub use program::Program;
pub use running::{DRAIN_TIMEOUT, RunError, Running, StartError, start};
pub use status::Status;
pub use store::{OutboxCounts, StoreError};
pub use url::{ServiceUrl, UrlError};
