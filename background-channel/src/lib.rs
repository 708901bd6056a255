//! The Background Channel: resources by BLAKE3 root over HTTPS, and a durable spool of the events that clients post.
//!
//! It serves while the Switch is away: content needs nothing but this process, and events are acked from its own
//! spool and relayed later. It runs nothing and signs nothing; clients verify all that they take from it.
//!
//! Start reading at [`start()`]; `http` has the routes, `resources` and `spool` what lies on disk, `relay` the road to
//! the Switch.

mod accept;
mod config;
mod error_body;
mod http;
mod metrics;
mod posts;
mod program;
mod range;
mod relay;
mod resources;
mod spool;
mod start;
mod unread;

pub use config::{Config, Limits, RelayConfig, TrustConfig};
pub use program::Program;
pub use resources::{BLOCK_SIZE, Put, ResourceError, ResourceInfo, Resources, Root};
pub use spool::{Settled, Spool, SpoolBounds, SpoolError, SpoolWriter, Spooled};
pub use start::{RunError, Running, StartError, start, start_by};
