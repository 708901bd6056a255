//! A client that runs: what [`start`] assembles and hands back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_endpoint::{HelperCommand, SqlValue};
use muster_pki::{DeviceId, Role};
use muster_proto::common::v1::NamedValue;
use muster_service::config::{Invalid, Validate};
use muster_service::credentials::{
    self, ClientCredentials, Clock, CredentialError, CredentialFiles, Deadlines, Own, RevocationFiles, Rules,
    Servers,
};
use muster_service::health::{Component, Health, State};
use muster_service::shutdown::Shutdown;
use nix::fcntl::{Flock, FlockArg};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::attributes;
use crate::background::{Poster, Road};
use crate::backoff::Backoff;
use crate::config::Config;
use crate::connection::{self, Connection, Link};
use crate::content::Content;
use crate::events::{self, PostError};
use crate::files::{self, Shared, WrongKind};
use crate::https::Https;
use crate::instructions::shell::{Shell, Workload};
use crate::instructions::{
    HeldLicence, Instructions, Limits, Memory, SignedAdmission, SigningFiles, TrustError, Work,
};
use crate::local;
use crate::status::{Status, StatusSource};
use crate::store::{Entry, Store, StoreError};
use crate::url::{ServiceUrl, UrlError};
use crate::{clock, value};

/// Orders and documents between the session and the instructions. The session waits for room, then the Switch does.
const INBOX_MAX: usize = 64;

/// By what name logs and metrics know certificate, roots and revocation lists.
const CREDENTIALS: &str = "device certificate";

/// Progress and requests towards the session; what does not fit is left out, since results tell more.
const OUTBOUND_MAX: usize = 256;

/// Why a client cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A key of the configuration is wrong.
    #[error("{}: {}", .0.key(), .0.problem())]
    Config(Invalid),
    /// An address is wrong.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A file or a folder of `data_dir` cannot be used.
    #[error("{path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// Something stands where a file or a folder of another kind belongs.
    #[error(transparent)]
    WrongKind(#[from] WrongKind),
    /// `data_dir` is a folder that others may enter, and nothing says that it is the client's.
    #[error(transparent)]
    Shared(#[from] Shared),
    /// Another client uses the same `data_dir`.
    #[error("{path}: another client runs in this data_dir; stop it, or give this one a data_dir of its own")]
    Taken {
        /// The lock.
        path: PathBuf,
    },
    /// The device's certificate or the servers' roots cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The certificate names no device, or another one than the configuration.
    #[error("tls.certificate: {0}")]
    Identity(String),
    /// The roots or lists that signatures are judged by cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The disk of `data_dir` is full.
    #[error(
        "{path}: the disk is full; free some space and start the client again, and keep every file there"
    )]
    DiskFull {
        /// The folder.
        path: PathBuf,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StartError {
    /// Whether there was no room for a file or for the store.
    fn is_full_disk(&self) -> bool {
        match self {
            Self::Store(error) => matches!(error, StoreError::DiskFull),
            Self::File { cause, .. } => cause.kind() == io::ErrorKind::StorageFull,
            Self::DiskFull { .. } => true,
            Self::Config(_)
            | Self::Url(_)
            | Self::WrongKind(_)
            | Self::Shared(_)
            | Self::Taken { .. }
            | Self::Credentials(_)
            | Self::Identity(_)
            | Self::Trust(_) => false,
        }
    }
}

/// Why a client ended on its own.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store broke: nothing can be promised any more.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task of the client panicked.
    #[error("a task ended with a panic: {0}")]
    Task(String),
}

/// A running client. Dropping it does not stop it; its [`Shutdown`] does.
#[derive(Debug)]
pub struct Running {
    device: DeviceId,
    socket: PathBuf,
    status: StatusSource,
    ended: watch::Receiver<Option<Result<(), Arc<RunError>>>>,
}

impl Running {
    /// Returns the device's identity, as its certificate tells it.
    #[must_use]
    pub fn device(&self) -> &DeviceId {
        &self.device
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
/// Returns as soon as everything local is in order; the Switch need not be there. If the store breaks later, the
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
    let prepared = Prepared::open(&config, &shutdown)?;
    let Prepared { device, store, .. } = &prepared;
    let (device, store) = (device.clone(), store.clone());
    let recovered = recover(&store).await?;
    let socket = config.socket();
    let listener = local::listen(&socket).map_err(in_file(&socket))?;
    announce(&store).await?;
    let stop = shutdown.token().child_token();
    let (tasks, status) = prepared.spawn(&config, recovered, listener, &stop)?;
    let (end, ended) = watch::channel(None);
    let owner = Owner { tasks, store, stop, shutdown: shutdown.clone() };
    let lock = prepared.lock;
    shutdown.spawn("client", async move {
        let outcome = owner.run().await.map_err(Arc::new);
        drop(lock);
        end.send_replace(Some(outcome));
    });
    tracing::info!(%device, switch = config.switch, "client started");
    Ok(Running { device, socket, status, ended })
}

/// What is opened and checked before anything runs.
struct Prepared {
    lock: Flock<File>,
    credentials: Arc<ClientCredentials>,
    /// What of certificate, roots and revocation lists somebody has to look after.
    certificate: Component,
    device: DeviceId,
    attributes: BTreeMap<String, SqlValue>,
    admission: SignedAdmission,
    store: Store,
    https: Option<Https>,
    content: Content,
    helper: HelperCommand,
}

impl Prepared {
    fn open(config: &Config, shutdown: &Shutdown) -> Result<Self, StartError> {
        files::expect_kinds(&config.data_dir)?;
        files::expect_own(&config.data_dir)?;
        files::make_private_dir(&config.data_dir).map_err(in_file(&config.data_dir))?;
        let lock = lock(&config.data_dir)?;
        let credentials = credentials(config, Some(config.data_dir.join("revocation")))?;
        let device = device(config, &credentials)?;
        let attributes = attributes::collect(&device);
        let files = SigningFiles { trust: config.trust.clone(), crls: config.crls.clone() };
        let admission = SignedAdmission::load(files, device.clone(), config.tenant.clone(), &attributes)?;
        let store = Store::open(&config.data_dir, &config.outbox, clock::wall_ms())?;
        let https = https(config, &credentials, shutdown)?;
        let content = Content::open(&config.data_dir, config.resources.clone(), https.clone())
            .map_err(in_file(&config.data_dir))?;
        let helper = helper(config).map_err(in_file(&config.helper.program))?;
        let health = Health::new();
        credentials.revocation().watch(shutdown, &health);
        credentials.watch(shutdown, &health, CREDENTIALS);
        let certificate = health.component(CREDENTIALS);
        if let State::Degraded(problem) | State::Failed(problem) = certificate.state() {
            tracing::warn!(problem, "this device's credentials need somebody");
        }
        Ok(Self {
            lock,
            credentials,
            certificate,
            device,
            attributes,
            admission,
            store,
            https,
            content,
            helper,
        })
    }

    /// Joins the parts by bounded channels, and spawns one task for each.
    fn spawn(
        &self,
        config: &Config,
        recovered: Recovered,
        listener: UnixListener,
        stop: &CancellationToken,
    ) -> Result<(Tasks, StatusSource), StartError> {
        let down = Link::Down { since: Instant::now(), reason: "not yet connected".to_owned() };
        let (link_sender, link) = watch::channel(down);
        let (workload_sender, workload) = watch::channel(Workload::default());
        let (inbox_sender, inbox) = mpsc::channel(INBOX_MAX);
        let (outbound_sender, outbound) = mpsc::channel(OUTBOUND_MAX);
        let mut tasks = Tasks::new();
        let shell = Shell {
            machine: machine(config, self.admission.clone(), recovered),
            store: self.store.clone(),
            content: self.content.clone(),
            helper: self.helper.clone(),
            inbox,
            session: outbound_sender,
            workload: workload_sender,
            remember: config.instructions.remember,
            work: Work::default(),
            stop: stop.clone(),
        };
        tasks.spawn(shell.run());
        let connection = Connection {
            url: ServiceUrl::parse(&config.switch, "wss")?,
            credentials: Arc::clone(&self.credentials),
            files: connection::Files {
                certificate: config.tls.certificate.clone(),
                key: config.tls.key.clone(),
                roots: config.trust.switch.clone(),
            },
            config: config.session.clone(),
            store: self.store.clone(),
            attributes: attributes::named(&self.attributes),
            inbox: inbox_sender,
            outbound,
            workload: workload.clone(),
            link: link_sender,
            stop: stop.clone(),
        };
        tasks.spawn(connection.run());
        if let Some(https) = &self.https {
            tasks.spawn(self.poster(config, https, link.clone(), stop).run());
        }
        let (device, switch) = (self.device.to_string(), config.switch.clone());
        let (store, certificate) = (self.store.clone(), self.certificate.clone());
        let status = StatusSource { device, switch, store, link, workload, certificate };
        let serving = local::serve(listener, status.clone(), stop.clone());
        tasks.spawn(async move {
            serving.await;
            Ok(())
        });
        Ok((tasks, status))
    }

    fn poster(
        &self,
        config: &Config,
        https: &Https,
        link: watch::Receiver<Link>,
        stop: &CancellationToken,
    ) -> Poster {
        let (base, cap) = (config.session.reconnect_base, config.session.reconnect_cap);
        Poster {
            https: Https { silence: config.events.request_timeout, ..https.clone() },
            store: self.store.clone(),
            link,
            after: config.events.background_after,
            backoff: Backoff::new(base, cap, rand::random()),
            road: Road::default(),
            stop: stop.clone(),
        }
    }
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

fn in_file(path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |cause| StartError::File { path, cause }
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

/// How long another owner of the folder is waited for: a helper that was being made when its client was killed holds a
/// copy of the client's descriptors, the lock among them, until it becomes another program.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks at the lock.
const LOCK_AGAIN: Duration = Duration::from_millis(20);

/// Makes this process the only owner of its folder. Called before anything is served, so it may block.
fn lock(data_dir: &Path) -> Result<Flock<File>, StartError> {
    let path = data_dir.join("client.lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|cause| StartError::File { path: path.clone(), cause })?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    let mut attempt = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    loop {
        match attempt {
            Ok(lock) => return Ok(lock),
            Err(_) if Instant::now() >= deadline => return Err(StartError::Taken { path }),
            Err((file, _)) => {
                std::thread::sleep(LOCK_AGAIN);
                attempt = Flock::lock(file, FlockArg::LockExclusiveNonblock);
            }
        }
    }
}

/// Reads what the client shows and whom it trusts; `kept` is the folder of what revocation remembers over restarts, `None` for a
/// mere check.
pub(crate) fn credentials(
    config: &Config,
    kept: Option<PathBuf>,
) -> Result<Arc<ClientCredentials>, CredentialError> {
    let (tls, trust) = (&config.tls, &config.trust);
    let files = RevocationFiles {
        crls: config.crls.clone(),
        roots: vec![
            trust.switch.clone(),
            trust.authors.clone(),
            trust.orders.clone(),
            trust.licences.clone(),
        ],
        own: Some(tls.certificate.clone()),
        kept,
    };
    let (rules, unruly) = Rules::load(config.certificates, &config.revocation, files, Clock::system());
    let own = Own::Files(CredentialFiles {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        password_file: tls.password_file.clone(),
    });
    let servers = Servers::Roots(trust.switch.clone());
    let made = credentials::client(own, servers, vec![b"http/1.1".to_vec()], Role::Device, rules);
    match (made, unruly) {
        (Ok(made), None) => Ok(made),
        (made, unruly) => Err(CredentialError::Several([made.err(), unruly].into_iter().flatten().collect())),
    }
}

fn device(config: &Config, credentials: &ClientCredentials) -> Result<DeviceId, StartError> {
    let own = credentials.own().ok_or_else(|| StartError::Identity("there is none".to_owned()))?;
    let device = DeviceId::from_certificate(&own).map_err(|error| StartError::Identity(error.to_string()))?;
    let name = &config.computer_name;
    if !name.is_empty() && !name.eq_ignore_ascii_case(device.as_str()) {
        let problem = format!(
            "is for {device}, but computer_name is {name:?}; leave computer_name out, or get a certificate for that name"
        );
        return Err(StartError::Identity(problem));
    }
    Ok(device)
}

fn https(
    config: &Config,
    credentials: &Arc<ClientCredentials>,
    shutdown: &Shutdown,
) -> Result<Option<Https>, UrlError> {
    if config.background_channel.is_empty() {
        return Ok(None);
    }
    Ok(Some(Https {
        base: ServiceUrl::parse(&config.background_channel, "https")?,
        credentials: Arc::clone(credentials),
        dial: Deadlines { connect: config.session.connect_timeout, tls: config.session.tls_timeout },
        silence: config.resources.stall_timeout,
        tracker: shutdown.tracker().clone(),
    }))
}

fn helper(config: &Config) -> io::Result<HelperCommand> {
    let program = match &config.helper.program {
        program if program.as_os_str().is_empty() => std::env::current_exe()?,
        program => program.clone(),
    };
    Ok(HelperCommand { program, arguments: config.helper.arguments.iter().map(Into::into).collect() })
}

/// What the store remembers of instructions.
struct Recovered {
    licence: Option<Vec<u8>>,
    licence_serial: u64,
    memory: Memory,
    intents: Vec<(Entry, Option<Vec<u8>>)>,
}

/// Reports what was interrupted, and returns what may still start once a Welcome says that the store is no copy.
async fn recover(store: &Store) -> Result<Recovered, StoreError> {
    let now_ms = clock::wall_ms();
    store
        .write(move |tables| {
            let mut intents = Vec::new();
            for entry in tables.recover(now_ms)? {
                let definition = tables.definition(entry.definition, now_ms)?;
                intents.push((entry, definition));
            }
            let versions = tables.versions(now_ms)?;
            Ok(Recovered {
                licence: tables.licence(now_ms)?,
                licence_serial: tables.licence_serial(now_ms)?,
                memory: Memory {
                    versions,
                    time_floor_ms: tables.time_floor_ms(now_ms)?,
                    restored_at_ms: tables.restored_at_ms(now_ms)?,
                },
                intents,
            })
        })
        .await
}

fn machine(
    config: &Config,
    admission: SignedAdmission,
    recovered: Recovered,
) -> Instructions<SignedAdmission> {
    let limits = Limits {
        parallel: config.instructions.parallel,
        queued: config.instructions.queued,
        document: config.instructions.definition_timeout,
    };
    let licence = recovered.licence.map(|envelope| HeldLicence {
        digest: muster_signing::envelope::digest(&envelope),
        envelope,
        serial: recovered.licence_serial,
    });
    let mut machine = Instructions::new(
        admission,
        limits,
        licence,
        recovered.licence_serial,
        recovered.memory,
        Instant::now(),
    );
    for (entry, definition) in recovered.intents {
        machine.handle_recovered(entry, definition);
    }
    machine
}

/// How long a stopping client may take to write what it knows; for [`Shutdown::drain`].
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
