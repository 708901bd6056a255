//! What is said of actions.
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use prost::Message;

use super::{ContentMessage, Request};
use crate::action::{Action, Deed};

/// An action: of a unit if `verb` is given, else of a file, which is put if it has a content, else removed.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ActionRequest {
    #[prost(string, tag = "1")]
    pub(crate) verb: String,
    #[prost(string, tag = "2")]
    pub(crate) unit: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) path: Vec<u8>,
    #[prost(message, optional, tag = "4")]
    pub(crate) content: Option<ContentMessage>,
    #[prost(uint32, tag = "5")]
    pub(crate) mode: u32,
    /// The folder where actions on one file take turns.
    #[prost(bytes = "vec", tag = "6")]
    pub(crate) locks: Vec<u8>,
}

impl Request {
    /// The request of an action, with the layers that the client could not apply.
    pub(crate) fn of_action(action: &Action, locks: &Path, missing: Vec<String>) -> Self {
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let request = match &action.deed {
            Deed::Service { verb, unit } => {
                ActionRequest { verb: verb.name().to_owned(), unit: unit.clone(), ..ActionRequest::default() }
            }
            Deed::Put { content, path, mode } => ActionRequest {
                path: bytes(path),
                content: Some(content.into()),
                mode: *mode,
                locks: bytes(locks),
                ..ActionRequest::default()
            },
            Deed::Remove { path } => {
                ActionRequest { path: bytes(path), locks: bytes(locks), ..ActionRequest::default() }
            }
        };
        Self {
            run_time_ms: u64::try_from(action.run_time.as_millis()).unwrap_or(u64::MAX),
            rows: 1,
            bytes: ROW_BYTES_MAX,
            missing,
            action: Some(request),
            ..Self::default()
        }
    }
}

/// Bytes of an action's row at most.
pub(crate) const ROW_BYTES_MAX: u32 = 16 * 1024;
