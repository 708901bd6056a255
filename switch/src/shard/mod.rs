//! Shards: threads that hold the sessions of clients.
//!
//! Each is one current-thread runtime with its own listener on the shared address, so a session stays on one thread
//! from its first byte to its last. What the engine says to a shard comes in one bounded queue and is done in one loop:
//! an order is encoded once and given to every selected session as the same bytes.

mod chores;
mod drive;
mod handshake;
mod revocable;
mod session;
mod stranger;
mod table;
mod talk;
mod upgrade;
mod wheel;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use muster_pki::Role;
use muster_proto::ids::InstructionId;
use muster_proto::limits::SessionLimits;
use muster_proto::session::switch::{SwitchSession, SwitchSessionConfig};
use muster_proto::session::v1::CloseReason;
use muster_service::admission::{Entrance, Handshakes, Lobby, Newcomer, Spare};
use muster_service::credentials::{PathElement, ServerCredentials};
use muster_service::shutdown::Shutdown;
use rand::Rng as _;
use roaring::RoaringBitmap;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, broadcast, mpsc};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::handshake::{Admitted, Rejected};
use self::revocable::Revocable;
use self::session::{Ending, Session};
use self::table::Table;
use self::wheel::Wheel;
use crate::config::Config;
use crate::engine::{EngineHandle, SessionKey, ShardMessage};
use crate::refusals::Refusals;
use crate::registry::Registry;
use crate::wall::Wall;
use crate::{metrics, refusal};

/// Messages of the engine done in one go, before sessions get their turn.
const MESSAGES_PER_TURN: usize = 64;

/// Pings of different sessions are spread by this part of the interval, either way (promises.md: "60 s with jitter").
const PING_JITTER: f64 = 0.1;

/// What a shard is made of; everything in it was opened on the main thread.
#[derive(Debug)]
pub(crate) struct ShardParts {
    /// Its number, from 0.
    pub(crate) index: u16,
    /// Its runtime.
    pub(crate) runtime: Runtime,
    /// Its listener.
    pub(crate) listener: TcpListener,
    /// What the engine says.
    pub(crate) messages: mpsc::Receiver<ShardMessage>,
    /// What all shards share.
    pub(crate) common: Common,
}

/// What all shards share.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    /// Settings.
    pub(crate) config: Arc<Config>,
    /// The engine.
    pub(crate) engine: EngineHandle,
    /// The Switch's certificate, and who is trusted as a device.
    pub(crate) credentials: Arc<ServerCredentials>,
    /// Every session of the Switch.
    pub(crate) registry: Arc<Registry>,
    /// Connections of which no byte has come yet.
    pub(crate) lobby: Arc<Lobby>,
    /// Who was turned away lately.
    pub(crate) refusals: Arc<Refusals>,
    /// Tells whose certificates were revoked.
    pub(crate) revoked: broadcast::Sender<Arc<[PathElement]>>,
    /// The time of day.
    pub(crate) wall: Wall,
    /// The Switch stops: accept nothing, send everyone away.
    pub(crate) stop: CancellationToken,
    /// The process, which ends when a shard does so by itself.
    pub(crate) shutdown: Shutdown,
}

/// One shard, as its tasks see it.
#[derive(Debug)]
struct Shard {
    index: u16,
    config: Arc<Config>,
    limits: Arc<SessionLimits>,
    engine: EngineHandle,
    credentials: Arc<ServerCredentials>,
    registry: Arc<Registry>,
    refusals: Arc<Refusals>,
    wall: Wall,
    table: Table,
    revocable: Revocable,
    wheel: RefCell<Wheel>,
    tasks: TaskTracker,
    stopping: Cell<bool>,
    sent: RefCell<BTreeMap<InstructionId, RoaringBitmap>>,
    sent_some: Notify,
}

/// Starts a shard's thread. It ends when the Switch stops and its sessions are gone or `drain_timeout` is over.
///
/// # Errors
/// The system gave no thread.
pub(crate) fn spawn(parts: ShardParts) -> io::Result<JoinHandle<io::Result<()>>> {
    std::thread::Builder::new().name(format!("shard-{}", parts.index)).spawn(move || {
        let ShardParts { index, runtime, listener, messages, common } = parts;
        let _alarm = Alarm { index, stop: common.stop.clone(), shutdown: common.shutdown.clone() };
        let local = LocalSet::new();
        local.block_on(&runtime, serve(index, listener, messages, common))
    })
}

/// Ends the process when a shard's thread ends before it was told to: half of the sessions gone is worse than a restart.
struct Alarm {
    index: u16,
    stop: CancellationToken,
    shutdown: Shutdown,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            self.shutdown.fail(format!("shard {} ended by itself", self.index));
        }
    }
}

async fn serve(
    index: u16,
    listener: TcpListener,
    mut messages: mpsc::Receiver<ShardMessage>,
    common: Common,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let Common { config, engine, credentials, registry, lobby, refusals, revoked, wall, stop, .. } = common;
    let drain_timeout = config.shutdown.drain_timeout;
    let shard = Rc::new(Shard {
        index,
        limits: Arc::new(config.sessions.protocol()),
        config,
        engine,
        credentials,
        registry,
        refusals,
        wall,
        table: Table::default(),
        revocable: Revocable::default(),
        wheel: RefCell::new(Wheel::new(Instant::now())),
        tasks: TaskTracker::new(),
        stopping: Cell::new(false),
        sent: RefCell::new(BTreeMap::new()),
        sent_some: Notify::new(),
    });
    let helpers = TaskTracker::new();
    let done = CancellationToken::new();
    helpers.spawn_local(accept(Rc::clone(&shard), listener, lobby, stop.clone()));
    chores::begin(&shard, &helpers, revoked.subscribe(), &stop, &done);
    while let Some(()) = stop.run_until_cancelled(shard.listen_to_engine(&mut messages)).await.flatten() {}

    shard.send_all_away();
    shard.tasks.close();
    let drained = async {
        let acks = async {
            while let Some(()) = shard.listen_to_engine(&mut messages).await {}
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = shard.tasks.wait() => {}
            () = acks => {}
        }
    };
    if tokio::time::timeout(drain_timeout, drained).await.is_err() {
        tracing::warn!(
            shard = index,
            sessions = shard.table.len(),
            "sessions were still open after drain_timeout"
        );
    }
    done.cancel();
    helpers.close();
    helpers.wait().await;
    Ok(())
}

impl Shard {
    /// Does what the engine says; `None` when the engine is gone.
    async fn listen_to_engine(&self, messages: &mut mpsc::Receiver<ShardMessage>) -> Option<()> {
        let mut batch = Vec::new();
        if messages.recv_many(&mut batch, MESSAGES_PER_TURN).await == 0 {
            return None;
        }
        for message in batch {
            self.table.handle(message);
        }
        Some(())
    }

    /// Tells every client when to come back: each at its own moment, so that they do not all come at once.
    fn send_all_away(&self) {
        self.stopping.set(true);
        self.table.for_each(|session| session.end(&self.farewell()));
    }

    /// Has a session's task woken at a deadline, or before.
    fn schedule(&self, session: &Session, deadline: Instant) {
        session.schedule(&mut self.wheel.borrow_mut(), deadline);
    }

    fn farewell(&self) -> Ending {
        let reconnect_after =
            self.config.shutdown.reconnect_spread.mul_f64(rand::rng().random_range(0.0..1.0));
        Ending { reason: CloseReason::Shutdown, reconnect_after, detail: "the Switch stops".to_owned() }
    }

    fn session_config(&self) -> SwitchSessionConfig {
        let jitter = rand::rng().random_range(1.0 - PING_JITTER..1.0 + PING_JITTER);
        SwitchSessionConfig {
            limits: Arc::clone(&self.limits),
            ping_interval: self.limits.ping_interval.mul_f64(jitter),
        }
    }

    /// Notes that everything given to a session is in its socket.
    fn written(&self, session: &Session) {
        let written = session.take_written();
        let Some(identity) = session.identity() else { return };
        if written.is_empty() {
            return;
        }
        let mut sent = self.sent.borrow_mut();
        for (instruction, since) in written {
            metrics::pushed(since.elapsed());
            sent.entry(instruction).or_default().insert(identity.number);
        }
        self.sent_some.notify_one();
    }
}

/// Takes connections in.
async fn accept(
    shard: Rc<Shard>,
    listener: tokio::net::TcpListener,
    lobby: Arc<Lobby>,
    stop: CancellationToken,
) {
    let entrance = Rc::new(entrance(&shard, lobby, stop));
    while let Some(newcomer) = entrance.newcomer(&listener).await {
        let (shard_of_task, entrance, address) = (Rc::clone(&shard), Rc::clone(&entrance), newcomer.address);
        shard.tasks.spawn_local(async move {
            // These futures are some kilobytes; boxed, they are gone before the session begins, which has a task of its own.
            let admitted = Box::pin(admit(Rc::clone(&shard_of_task), entrance, newcomer)).await;
            match admitted {
                Some(Ok(admitted)) => {
                    let tasks = shard_of_task.tasks.clone();
                    tasks.spawn_local(settle(shard_of_task, admitted));
                }
                Some(Err(rejected)) => {
                    metrics::handshake(metrics::Listener::Sessions, rejected.label());
                    tracing::debug!(%address, %rejected, "no session");
                }
                None => {}
            }
        });
    }
}

fn entrance(shard: &Shard, lobby: Arc<Lobby>, stop: CancellationToken) -> Entrance {
    let shards = u32::from(shard.config.shard_count());
    let limits = &shard.config.sessions;
    let (refusals, wall) = (Arc::clone(&shard.refusals), shard.wall.clone());
    Entrance {
        lobby,
        // Rounded so that a source's share is less than the whole, also of one shard.
        handshakes: Handshakes::new(
            limits.handshakes_max.div_ceil(shards),
            (limits.handshakes_per_source_max / shards).max(1),
        ),
        tls_deadline: limits.tls_deadline,
        credentials: Arc::clone(&shard.credentials),
        roles: &[Role::Device],
        answer: Some(upgrade::denied),
        spare: Spare::new(),
        stop,
        tell: Box::new(move |why, address| {
            let now_ms = wall.now_ms();
            refusal::turned_away(&refusals, metrics::Listener::Sessions, why, address, now_ms);
        }),
    }
}

/// Lets a connection in, and upgrades it: until then it is counted among the handshakes. `None` if it was turned away, or
/// the Switch stops.
async fn admit(
    shard: Rc<Shard>,
    entrance: Rc<Entrance>,
    newcomer: Newcomer,
) -> Option<Result<Box<Admitted>, Rejected>> {
    let arrived = entrance.admit_anyone(newcomer).await?;
    Box::pin(entrance.stop.run_until_cancelled(handshake::admit(&shard, arrived))).await
}

/// Runs the session of an admitted client. Its future is what each session's task costs, so it holds little.
async fn settle(shard: Rc<Shard>, mut admitted: Box<Admitted>) {
    metrics::handshake(metrics::Listener::Sessions, "ok");
    let half = SwitchSession::new(shard.session_config(), Instant::now());
    let Some(session) =
        shard.table.insert(admitted.visitor.device.clone(), half, shard.limits.outbound_bytes_max)
    else {
        return;
    };
    let keys = shard.revocable.insert(&std::mem::take(&mut admitted.path), session.slot);
    // Roots or CRLs may have changed since the certificate was checked, seconds ago if the upgrade was slow; whoever follows the
    // changes asked the sessions that were there.
    session.ask_recheck();
    metrics::sessions(shard.index, shard.table.len());
    if shard.stopping.get() {
        session.end(&shard.farewell());
    }
    let end = drive::run(&shard, &session, admitted).await;
    shard.revocable.remove(&keys, session.slot);
    if session.identity().is_none() {
        // The engine may know the session by its slot alone, so the slot is not free before the engine was told.
        Box::pin(talk::farewell(&shard, &session)).await;
    }
    shard.table.remove(&session);
    metrics::sessions(shard.index, shard.table.len());
    metrics::session_ended(end.label());
    if let Some(identity) = session.identity() {
        let key = SessionKey { shard: shard.index, slot: session.slot, epoch: identity.epoch };
        shard.registry.remove(&session.device, key);
        Box::pin(talk::farewell(&shard, &session)).await;
    }
    tracing::debug!(device = %session.device, end = end.label(), "session ended");
}
