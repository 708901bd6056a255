//! Assembles the service: store, spool, listeners, relay; and ends it in order.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use muster_pki::Role;
use muster_service::credentials::{
    self, ClientCredentials, Clock, CredentialError, CredentialFiles, Keeping, Own, RevocationFiles, Rules,
    ServerCredentials, Servers,
};
use muster_service::health::{Health, State};
use muster_service::listen::{self, BindError};
use muster_service::shutdown::{DrainOutcome, Shutdown};
use muster_service::wall::Wall;
use muster_service::{admin, telemetry};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::accept::Acceptor;
use crate::config::Config;
use crate::http::{self, Shared};
use crate::metrics;
use crate::posts::Posts;
use crate::relay;
use crate::relay::door::{Door, SERVER_CERTIFICATE, SERVICE_CERTIFICATE};
use crate::resources::{ResourceError, Resources};
use crate::spool::{Spool, SpoolError, SpoolWriter};

/// The pinned certificate as it was last seen, in `data_dir` (N2).
const REMEMBERED: &str = "pinned.pem";

/// How often the writer is looked at; its failure is found by the next post at the latest.
const WRITER_CHECK: Duration = Duration::from_millis(500);

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be made.
    #[error("data_dir {path}: {source}; make the folder, or change `data_dir`")]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another Background Channel serves from the folder.
    #[error(
        "data_dir {path}: another Background Channel runs on it; stop that one, or give this one a `data_dir` of its own"
    )]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// The resources cannot be opened.
    #[error("resources: {0}")]
    Resources(#[from] ResourceError),
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A certificate, key or root does not do.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// An address is taken.
    #[error(transparent)]
    Bind(#[from] BindError),
}

impl StartError {
    /// Whether it is only that the disk has no room, so that a later start may do.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::DataDir { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            Self::Resources(error) => matches!(error, ResourceError::DiskFull),
            Self::Spool(error) => error.is_disk_full(),
            Self::Taken { .. } | Self::Credentials(_) | Self::Bind(_) => false,
        }
    }
}

/// Why a running service ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A task or the store failed.
    #[error("{0}")]
    Failed(String),
    /// Connections were still open at the deadline.
    #[error("{tasks} tasks were still open after `limits.drain_timeout`")]
    NotDrained {
        /// How many.
        tasks: usize,
    },
}

/// A running Background Channel.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    admin_address: SocketAddr,
    shutdown: Shutdown,
    connections: TaskTracker,
    writer: SpoolWriter,
    drain_timeout: Duration,
    /// Nobody else serves from the folder as long as it is there.
    _lock: File,
}

/// Starts the service: opens the store, binds its addresses, and spawns its tasks on `shutdown`. The Switch need not
/// be there.
///
/// # Errors
/// Says what of configuration, credentials, addresses or store does not do.
pub async fn start(config: Config, shutdown: Shutdown) -> Result<Running, StartError> {
    let wall = Wall::system(config.clock, metrics::CLOCK);
    start_by(config, wall, shutdown).await
}

/// Starts the service as [`start`] does, by a clock of the caller's.
///
/// # Errors
/// As [`start`].
pub async fn start_by(config: Config, wall: Wall, shutdown: Shutdown) -> Result<Running, StartError> {
    let health = Health::new();
    let metrics = telemetry::metrics();
    let lock = lock(&config.data_dir)?;
    let (resources, spool, writer) = open_stores(&config)?;
    let (server, relay_credentials) =
        credentials(&config, Some(config.data_dir.join("revocation")), wall.clock())?;
    let listener = listen::bind(config.listen, "listen").await?;
    let admin_listener = listen::bind(config.admin_listen, "admin_listen").await?;
    let local = |listener: &TcpListener, asked| listener.local_addr().unwrap_or(asked);
    let (address, admin_address) =
        (local(&listener, config.listen), local(&admin_listener, config.admin_listen));
    wall.watch(&shutdown, &health);
    server.revocation().watch(&shutdown, &health);
    server.watch(&shutdown, &health, SERVER_CERTIFICATE);
    relay_credentials.watch(&shutdown, &health, SERVICE_CERTIFICATE);
    let connections = TaskTracker::new();
    let (resources, posts) = (Arc::new(resources), Arc::new(Posts::new(&config.limits)));
    let door = Arc::new(Door::new(spool.door()));
    let acceptor = Acceptor {
        door: Arc::clone(&door),
        wall: wall.clone(),
        credentials: server,
        router: http::router(Shared { resources, spool: spool.clone(), posts, wall: wall.clone() }),
        limits: config.limits.clone(),
        cancelled: shutdown.token(),
        connections: connections.clone(),
    };
    shutdown.spawn("accept", acceptor.run(listener));
    let target = relay::Target { address: config.relay.switch.clone(), credentials: relay_credentials };
    let (asked, every) = (target.clone(), config.relay.ask_every);
    let asking = relay::door::run(door, spool.clone(), asked, every, health.clone(), shutdown.token());
    shutdown.spawn("blocked devices", asking);
    let relaying = relay::run(spool, target, health.component("relay"), wall, shutdown.token());
    shutdown.spawn("relay", relaying);
    let (admin_health, failing) = (health.clone(), shutdown.clone());
    shutdown.spawn("admin", async move {
        let served = admin::serve(admin_listener, admin_health, metrics, failing.token()).await;
        if let Err(error) = served {
            failing.fail(format!("admin address: {error}"));
        }
    });
    health.component("service").set(State::Ready);
    tracing::info!(%address, %admin_address, "background channel serves");
    Ok(Running {
        address,
        admin_address,
        shutdown,
        connections,
        writer,
        drain_timeout: config.limits.drain_timeout,
        _lock: lock,
    })
}

impl Running {
    /// Where clients and operators connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics and health are read.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_address
    }

    /// Waits until the shutdown is triggered or the store fails, then drains and closes the store.
    ///
    /// # Errors
    /// Says what failed, or that connections outlived the deadline.
    pub async fn wait(self) -> Result<(), RunError> {
        while !self.writer.is_finished() {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                () = tokio::time::sleep(WRITER_CHECK) => {}
            }
        }
        let drained = self.shutdown.drain(self.drain_timeout).await;
        self.connections.close();
        let closed = tokio::time::timeout(self.drain_timeout, self.connections.wait()).await;
        if closed.is_err() {
            return Err(RunError::NotDrained { tasks: self.connections.len() });
        }
        if let DrainOutcome::TimedOut { tasks } = drained {
            return Err(RunError::NotDrained { tasks });
        }
        let writer = self.writer;
        let joined = tokio::task::spawn_blocking(move || writer.join()).await;
        match (joined, self.shutdown.failure()) {
            (Ok(Ok(())), None) => Ok(()),
            (Ok(Err(error)), _) => Err(RunError::Failed(error.to_string())),
            (Err(error), _) => Err(RunError::Failed(error.to_string())),
            (Ok(Ok(())), Some(reason)) => Err(RunError::Failed(reason.to_owned())),
        }
    }
}

/// Makes the folder, and this process its only owner: opening the store removes what other uploads left behind.
fn lock(folder: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::DataDir { path: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let path = folder.join("background-channel.lock");
    let file = File::options().write(true).create(true).truncate(false).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::Taken { path: folder.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn open_stores(config: &Config) -> Result<(Resources, Spool, SpoolWriter), StartError> {
    let folder: &Path = &config.data_dir;
    let resources = Resources::open(folder.join("resources"), config.limits.resource_bytes_max)?;
    let (spool, writer) = Spool::open(folder, config.limits.spool())?;
    Ok((resources, spool, writer))
}

/// Reads what the service shows and whom it trusts; `kept` is the folder of what revocation remembers over restarts, `None` for a
/// mere check.
pub(crate) fn credentials(
    config: &Config,
    kept: Option<PathBuf>,
    clock: Clock,
) -> Result<(Arc<ServerCredentials>, Arc<ClientCredentials>), CredentialError> {
    let (tls, service, trust) = (&config.tls, &config.relay, &config.trust);
    // A mere check remembers nothing.
    let remembered = kept.as_ref().map(|_| config.data_dir.join(REMEMBERED));
    let files = RevocationFiles {
        crls: config.crls.clone(),
        roots: vec![trust.devices.clone(), trust.operators.clone(), trust.servers.clone()],
        own: tls.file(),
        servers: None,
        kept: kept.map_or(Keeping::Nothing, Keeping::In),
    };
    let (rules, unruly) = Rules::load(config.certificates, &config.revocation, files, clock);
    let own = tls.own(remembered);
    let client_roles = vec![(Role::Device, trust.devices.clone()), (Role::Operator, trust.operators.clone())];
    let alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let server = credentials::server(own, client_roles, alpn, Role::Switch, rules.clone());
    let own = Own::Files(CredentialFiles {
        certificate: service.certificate.clone(),
        key: service.key.clone(),
        password_file: service.password_file.clone(),
    });
    let servers = Servers::Roots(trust.servers.clone());
    let relay = credentials::client(own, servers, vec![b"h2".to_vec()], Role::Service, rules);
    match (server, relay, unruly) {
        (Ok(server), Ok(relay), None) => Ok((server, relay)),
        (server, relay, unruly) => {
            let errors = [server.err(), relay.err(), unruly];
            Err(CredentialError::Several(errors.into_iter().flatten().collect()))
        }
    }
}
