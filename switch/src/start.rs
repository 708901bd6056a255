//! Starts the Switch: opens everything on the calling thread, then starts the threads that use it.
//!
//! The order matters. Certificates and roots are read first and every mistake is told at once; then addresses, store and
//! runtimes are opened, all before the first thread that might separate its descriptors from the others'.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use muster_service::admission::Lobby;
use muster_service::config::{Invalid, Validate as _};
use muster_service::health::Health;
use muster_service::listen::BindError;
use muster_service::shutdown::Shutdown;
use muster_service::{descriptors, exit, telemetry};
use tokio::runtime::Runtime;
use tokio::sync::{broadcast, mpsc};

use crate::config::Config;
use crate::control::{self, ControlParts, ShardThread};
use crate::credentials::{self, CredentialProblem, Loaded};
use crate::engine::{
    self, AggregateLimits, Engine, EngineConfig, EngineEnd, OpenError, StoreError, UnauthenticatedLimits,
};
use crate::layout::{Layout, Tables};
use crate::listen::Listeners;
use crate::refusals::Refusals;
use crate::registry::Registry;
use crate::shard::{self, Common, Descriptors, ShardParts, Way};
use crate::wall::Wall;
use crate::{metrics, quic_key};

/// Threads of the control runtime: the operator API waits for the store, it does not compute.
const CONTROL_THREADS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

/// Certificates that were turned away and are remembered: what a person can look through.
const REFUSALS_MAX: usize = 1_000;

/// Changes of revocation that wait for a shard; one that misses some looks at all its sessions.
const REVOKED_WAITING_MAX: usize = 64;

/// Why the Switch did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] Invalid),
    /// Certificates, keys or roots are missing or unfit; all findings.
    #[error("certificates and roots:{}", list(.0))]
    Credentials(Vec<CredentialProblem>),
    /// Addresses cannot be listened on; all of them.
    #[error("{}", lines(.0))]
    Listen(Vec<BindError>),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gave no runtime or thread.
    #[error("no thread could be started: {0}")]
    System(#[from] std::io::Error),
}

impl StartError {
    /// Returns the exit code that tells service managers whether a restart may help.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Credentials(_) => exit::CONFIG,
            Self::Listen(_) => exit::UNAVAILABLE,
            Self::Store(error) => error.exit_code(),
            Self::System(_) => exit::FAILURE,
        }
    }
}

/// Why a running Switch ended by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The store cannot promise anything any more: the disk is full, or an fsync failed. Nothing unpromised was acked.
    #[error("{says}")]
    Store {
        /// What is wrong with it, and what to do.
        says: String,
        /// Whether a restart may help.
        exit_code: u8,
    },
    /// The operator API ended.
    #[error("{0}")]
    OperatorApi(String),
    /// The admin listener ended.
    #[error("admin: {0}")]
    Admin(String),
    /// A thread panicked, or could not use what it was given.
    #[error("thread: {0}")]
    Thread(String),
}

impl Failure {
    /// Returns the exit code that tells service managers whether a restart may help: that of a start with the same
    /// problem.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store { exit_code, .. } => *exit_code,
            Self::OperatorApi(_) | Self::Admin(_) | Self::Thread(_) => exit::FAILURE,
        }
    }
}

impl From<EngineEnd> for Failure {
    fn from(end: EngineEnd) -> Self {
        match end {
            EngineEnd::Store { says, exit_code } => Self::Store { says, exit_code },
            EngineEnd::Closed | EngineEnd::Panicked => Self::Thread(end.to_string()),
        }
    }
}

/// A running Switch. Dropping it does not stop it; its [`Shutdown`] does.
#[derive(Debug)]
pub struct Running {
    session_addr: SocketAddr,
    operator_addr: SocketAddr,
    admin_addr: SocketAddr,
    control: JoinHandle<Result<(), Failure>>,
}

impl Running {
    /// Returns where clients connect.
    #[must_use]
    pub fn session_addr(&self) -> SocketAddr {
        self.session_addr
    }

    /// Returns where operators connect.
    #[must_use]
    pub fn operator_addr(&self) -> SocketAddr {
        self.operator_addr
    }

    /// Returns where metrics and health are read.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Blocks until the Switch has ended: after its [`Shutdown`] was triggered and it has drained, or because it failed.
    ///
    /// # Errors
    /// Why it ended by itself.
    pub fn wait(self) -> Result<(), Failure> {
        self.control.join().unwrap_or_else(|_| Err(Failure::Thread("the control thread panicked".to_owned())))
    }
}

/// Starts the Switch. Blocks until it listens; call it outside of any runtime's `block_on`, since the store is loaded
/// meanwhile.
///
/// When `shutdown` is triggered, the Switch drains; when the Switch fails, it triggers `shutdown` with the cause.
///
/// # Errors
/// Why it does not start; nothing is left running.
pub fn start(config: Config, shutdown: Shutdown) -> Result<Running, StartError> {
    config.validate()?;
    telemetry::metrics();
    metrics::describe();
    engine::describe_metrics();
    let descriptors_max = descriptors::raise_limit()?;
    let layout = Layout::of(&config, descriptors_max);
    layout.log(descriptors_max);
    let config = Config { shards: layout.shards, ..config };
    let health = Health::new();
    let wall = Wall::system(config.clock, metrics::CLOCK);
    let loaded = credentials::load(&config, Some(config.data_dir.join("revocation")), &wall.clock())
        .map_err(StartError::Credentials)?;
    let listeners = Listeners::open(&config).map_err(StartError::Listen)?;
    let session_addr = address(&listeners.sessions, config.listen);
    let operator_addr = listeners.operators.local_addr()?;
    let admin_addr = listeners.admin.local_addr()?;
    let runtime = muster_service::runtime("control", CONTROL_THREADS)?;
    let runtimes =
        (0..config.shards_in_all()).map(|_| shard_runtime()).collect::<std::io::Result<Vec<_>>>()?;

    let (senders, mailboxes) = mailboxes(&config);
    let engine = Engine::open(engine_config(&config, &loaded, &wall), senders)?;
    let quic =
        listeners.quic.map(|socket| Way::Quic { socket, key: quic_key::read_or_make(&config.data_dir) });
    let ways: Vec<Way> = listeners.sessions.into_iter().map(Way::Tcp).chain(quic).collect();
    let config = Arc::new(config);
    let stop = shutdown.token().child_token();
    let common = Common {
        registry: Registry::new(&config.sessions),
        lobby: Lobby::new(config.sessions.lobby()),
        wall,
        config,
        engine: engine.of_sessions(),
        credentials: loaded.sessions,
        refusals: Arc::new(Refusals::new(REFUSALS_MAX)),
        revoked: broadcast::Sender::new(REVOKED_WAITING_MAX),
        stop,
        shutdown,
    };
    let own = [listeners.operators.as_raw_fd(), listeners.admin.as_raw_fd()];
    let numbers: Vec<RawFd> = ways.iter().map(Way::as_raw_fd).collect();
    let parts = ways.into_iter().zip(runtimes).zip(mailboxes).zip(0..);
    let shards = parts.map(|(((way, runtime), messages), index)| {
        let later = numbers.iter().skip(usize::from(index) + 1);
        let descriptors = match layout.tables {
            Tables::Shared => Descriptors::Shared,
            Tables::Own => Descriptors::Own { others: own.iter().chain(later).copied().collect() },
        };
        shard::spawn(ShardParts { index, runtime, way, descriptors, messages, common: common.clone() })
    });
    let stop = common.stop.clone();
    let control = shards.collect::<Result<Vec<ShardThread>, _>>().and_then(|shards| {
        let parts = ControlParts {
            operators: listeners.operators,
            admin: listeners.admin,
            operator_credentials: loaded.operators,
            trust_digest: loaded.trust_digest,
            engine,
            common,
            health,
        };
        control::spawn(runtime, shards, parts)
    });
    // Threads that did start end by themselves.
    let control = control.inspect_err(|_| stop.cancel())?;
    tracing::info!(%session_addr, %operator_addr, %admin_addr, "the Switch listens");
    Ok(Running { session_addr, operator_addr, admin_addr, control })
}

fn address(listeners: &[std::net::TcpListener], asked: SocketAddr) -> SocketAddr {
    listeners.first().and_then(|listener| listener.local_addr().ok()).unwrap_or(asked)
}

fn shard_runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

type Mailboxes = (Vec<mpsc::Sender<engine::ShardMessage>>, Vec<mpsc::Receiver<engine::ShardMessage>>);

fn mailboxes(config: &Config) -> Mailboxes {
    let messages_max = usize::try_from(config.engine.shard_messages_max).unwrap_or(1).max(1);
    (0..config.shards_in_all()).map(|_| mpsc::channel(messages_max)).unzip()
}

fn engine_config(config: &Config, loaded: &Loaded, wall: &Wall) -> EngineConfig {
    let count = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    EngineConfig {
        batch_items_max: count(config.engine.batch_items_max),
        queue_items_max: count(config.engine.queue_items_max),
        disk_reserve_bytes: config.engine.disk_reserve,
        blocked_max: count(config.engine.blocked_max),
        stops_max: count(config.engine.stops_max),
        policy_asks_per_second: config.engine.policy_asks_per_second,
        unauthenticated: UnauthenticatedLimits {
            devices_max: config.engine.unauthenticated_max,
            new_per_minute: config.engine.unauthenticated_new_per_minute,
            events_per_minute: config.engine.unauthenticated_events_per_minute,
        },
        prepared_ttl: config.engine.prepared_ttl,
        aggregates: AggregateLimits {
            at_once_max: count(config.engine.aggregates_max),
            rows_max: config.engine.aggregate_rows_max.into(),
            memory_bytes: config.engine.aggregate_memory,
            answer_rows_max: count(config.engine.aggregate_answer_rows_max),
            deadline: config.engine.aggregate_deadline,
        },
        clock: engine::Clock::of(wall),
        ..EngineConfig::new(config.data_dir.clone(), config.tenant.clone(), Arc::clone(&loaded.trust))
    }
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Store(error) => Self::Store(error),
            OpenError::Thread(error) => Self::System(error),
        }
    }
}

fn list(problems: &[CredentialProblem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

fn lines(errors: &[BindError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
