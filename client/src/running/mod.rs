//! A client that runs: what [`start`] assembles and hands back.
//!
//! [`prepared`] opens and checks, [`recovered`] goes on with what the store remembers, [`Owner`] holds the tasks.

mod credentials;
mod error;
mod lock;
mod prepared;
mod recovered;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use muster_pki::DeviceId;
use muster_proto::common::v1::NamedValue;
use muster_service::config::Validate;
use muster_service::shutdown::Shutdown;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use credentials::{check as check_credentials, check_key, rules_of_command};
use error::in_file;
pub use error::{RunError, StartError};
use prepared::{Opened, Prepared};
use recovered::{policies, recover};

use crate::config::Config;
use crate::events::{self, PostError};
use crate::identity::Identity;
use crate::status::{Status, StatusSource};
use crate::store::{Store, StoreError};
use crate::{local, value};

/// A running client. Dropping it does not stop it; its [`Shutdown`] does.
#[derive(Debug)]
pub struct Running {
    identity: Identity,
    socket: PathBuf,
    status: StatusSource,
    ended: watch::Receiver<Option<Result<(), Arc<RunError>>>>,
}

impl Running {
    /// Returns the device's identity, as its certificate tells it; `None` as long as there is none (S6).
    #[must_use]
    pub fn device(&self) -> Option<DeviceId> {
        self.identity.known().map(|known| known.device.clone())
    }

    /// Returns the path of the local socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns how the client is.
    ///
    /// # Errors
    /// The store broke.
    pub async fn status(&self) -> Result<Status, StoreError> {
        self.status.read().await
    }

    /// Appends an event; it is on disk when this returns its sequence.
    ///
    /// # Errors
    /// The event breaks a bound of the protocol, or it could not be stored.
    pub async fn post_event(&self, name: &str, fields: Vec<NamedValue>) -> Result<u64, PostError> {
        events::post(&self.status.store, name, fields).await
    }

    /// Waits until the client has stopped: `Ok` after a shutdown, the cause if it could not go on.
    ///
    /// # Errors
    /// The store broke, or a task panicked.
    pub async fn wait(mut self) -> Result<(), Arc<RunError>> {
        match self.ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or(Ok(())),
            Err(_) => Err(Arc::new(RunError::Task("the client's own task".to_owned()))),
        }
    }
}

/// Starts the client: locks its folder, opens its store, checks its credentials, and spawns its tasks on `shutdown`.
///
/// Returns as soon as everything local is in order; the Switch need not be there, and neither need a certificate in a `tls.store`. If the store breaks later, the
/// client calls [`Shutdown::fail`].
///
/// # Errors
/// Says what is wrong with configuration, credentials or store.
pub async fn start(config: Config, shutdown: Shutdown) -> Result<Running, StartError> {
    let path = config.data_dir.clone();
    start_in(config, shutdown)
        .await
        .map_err(|error| if error.is_full_disk() { StartError::DiskFull { path } } else { error })
}

async fn start_in(config: Config, shutdown: Shutdown) -> Result<Running, StartError> {
    config.validate().map_err(StartError::Config)?;
    muster_endpoint::arrange_groups();
    let opened = Opened::open(&config)?;
    // Where and as whom the client connects may be a policy's to say.
    let policies = policies(&config, &opened.store).await?;
    let mut prepared = Prepared::of(opened, policies, &config, &shutdown)?;
    let (identity, store) = (prepared.identity.clone(), prepared.store.clone());
    let recovered = recover(&store).await?;
    let socket = config.socket();
    let listener = local::listen(&socket).map_err(in_file(&socket))?;
    announce(&store).await?;
    let stop = shutdown.token().child_token();
    let (tasks, status) = prepared.spawn(&config, recovered, listener, &stop);
    let (end, ended) = watch::channel(None);
    let owner = Owner { tasks, store, stop, shutdown: shutdown.clone() };
    let lock = prepared.lock;
    shutdown.spawn("client", async move {
        let outcome = owner.run().await.map_err(Arc::new);
        drop(lock);
        end.send_replace(Some(outcome));
    });
    let device = identity.known().map(|known| known.device.to_string());
    tracing::info!(device, switch = config.switch, "client started");
    Ok(Running { identity, socket, status, ended })
}

/// The tasks of a client; each ends with an error only if the store broke.
type Tasks = JoinSet<Result<(), StoreError>>;

async fn announce(store: &Store) -> Result<(), StartError> {
    let fields = vec![value::text("version", env!("CARGO_PKG_VERSION"))];
    match events::post(store, "client.started", fields).await {
        Ok(_) => Ok(()),
        Err(PostError::Store(error)) => Err(StartError::Store(error)),
        Err(error @ (PostError::Invalid(_) | PostError::Twice(_))) => {
            Err(StartError::Identity(error.to_string()))
        }
    }
}

/// Owns the tasks of a client until all have ended.
struct Owner {
    tasks: Tasks,
    store: Store,
    stop: CancellationToken,
    shutdown: Shutdown,
}

impl Owner {
    async fn run(mut self) -> Result<(), RunError> {
        let mut outcome = Ok(());
        loop {
            let ended = tokio::select! {
                ended = self.tasks.join_next() => ended,
                error = self.store.failed(), if !self.stop.is_cancelled() => {
                    self.fail(&mut outcome, RunError::Store(error));
                    continue;
                }
            };
            match ended {
                None => break,
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => self.fail(&mut outcome, RunError::Store(error)),
                Some(Err(error)) => self.fail(&mut outcome, RunError::Task(error.to_string())),
            }
        }
        let closed = self.store.close().await;
        if outcome.is_ok() && !matches!(closed, StoreError::Closed) {
            outcome = Err(RunError::Store(closed));
        }
        outcome
    }

    /// The first cause counts; the others follow from it. A client that was told to stop ends in any case, and says
    /// what it could not do before.
    fn fail(&self, outcome: &mut Result<(), RunError>, error: RunError) {
        if outcome.is_ok() {
            if !self.stop.is_cancelled() {
                self.shutdown.fail(error.to_string());
            }
            *outcome = Err(error);
        }
        self.stop.cancel();
    }
}

/// How long a stopping client may take to write what it knows; for [`Shutdown::drain`].
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
