//! The servers that are loaded: a Switch of this run's own, one that runs already, or (in [`crate::peer::server`]) a peer.

pub(crate) mod admin;
pub(crate) mod launch;
pub(crate) mod own;
pub(crate) mod running;

use std::path::PathBuf;

/// Where a Switch is, and what is needed to load it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The home with its development CA and the operator's certificates.
    pub(crate) home: PathBuf,
    /// `host:port` of sessions.
    pub(crate) sessions: String,
    /// `host:port` of the operator API.
    pub(crate) operator: String,
    /// `host:port` of its metrics, where it is known.
    pub(crate) admin: Option<String>,
    /// Its process, where it is known.
    pub(crate) pid: Option<u32>,
}
