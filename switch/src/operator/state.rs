//! What every service of the operator API holds, and how they read what operators send.

use std::sync::Arc;

use muster_pki::DeviceId;
use muster_proto::ids::{IdError, InstructionId};
use muster_service::credentials::ServerCredentials;
use muster_service::health::Health;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Status};

use crate::config::{Config, OperatorLimits};
use crate::doors::Doors;
use crate::engine::{EngineError, EngineHandle, Reader};
use crate::gate::{Caller, Entry, Gate};
use crate::refusals::Refusals;
use crate::registry::Registry;

/// The state of the services; clones are cheap and share it.
#[derive(Debug, Clone)]
pub(crate) struct Api(Arc<ApiParts>);

/// What the services need.
#[derive(Debug)]
pub(crate) struct ApiParts {
    /// Settings.
    pub(crate) config: Arc<Config>,
    /// The engine.
    pub(crate) engine: EngineHandle,
    /// Who may do what.
    pub(crate) gate: Gate,
    /// Sessions held.
    pub(crate) registry: Arc<Registry>,
    /// Who was turned away lately.
    pub(crate) refusals: Arc<Refusals>,
    /// What Background Channels say of themselves.
    pub(crate) doors: Doors,
    /// The certificates in use.
    pub(crate) credentials: Arc<ServerCredentials>,
    /// How the parts of the Switch are.
    pub(crate) health: Health,
    /// When the Switch started, milliseconds since 1970.
    pub(crate) started_at_ms: i64,
    /// The Switch stops: streams that wait for more end.
    pub(crate) stop: CancellationToken,
    /// Owns the threads of exports.
    pub(crate) tasks: TaskTracker,
}

impl Api {
    /// Makes the state.
    pub(crate) fn new(parts: ApiParts) -> Self {
        Self(Arc::new(parts))
    }

    /// Returns the limits of the operator API.
    pub(super) fn limits(&self) -> &OperatorLimits {
        &self.0.config.operators
    }

    /// Returns what it is made of.
    pub(super) fn parts(&self) -> &ApiParts {
        &self.0
    }

    /// Passes a call through the gate.
    ///
    /// # Errors
    /// The status for the caller, if the call is denied.
    pub(super) fn admit<T>(&self, request: &Request<T>, entry: Entry<'_>) -> Result<Caller, Status> {
        Ok(self.0.gate.admit(request.extensions().get::<Caller>(), entry)?.clone())
    }

    /// Reads from the store on a thread that may block.
    ///
    /// # Errors
    /// The status of the reader's error.
    pub(super) async fn read<T, R>(&self, read: R) -> Result<T, Status>
    where
        T: Send + 'static,
        R: FnOnce(&Reader) -> Result<T, EngineError> + Send + 'static,
    {
        let reader = self.0.engine.reader();
        match tokio::task::spawn_blocking(move || read(&reader)).await {
            Ok(read) => Ok(read?),
            Err(_) => Err(EngineError::Closed.into()),
        }
    }
}

/// Reads a device's name as operators type it.
pub(super) fn device_id(text: &str) -> Result<DeviceId, Status> {
    text.to_ascii_lowercase()
        .parse()
        .map_err(|error: muster_pki::DeviceIdError| Status::invalid_argument(error.to_string()))
}

/// Reads an instruction's id.
pub(super) fn instruction_id(text: &str) -> Result<InstructionId, Status> {
    text.parse().map_err(|error: IdError| Status::invalid_argument(error.to_string()))
}

/// Returns the size of a page: what was asked for, within the bound, or the default.
pub(super) fn page_size(asked: u32, default: u32, most: u32) -> u32 {
    if asked == 0 { default } else { asked.min(most) }
}
