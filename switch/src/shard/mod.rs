//! Shards: threads that hold the sessions of clients.
//!
//! Each is one current-thread runtime with its own listener on the shared address, so a session stays on one thread
//! from its first byte to its last. What the engine says to a shard comes in one bounded queue; what is for many
//! is told session by session, a few in each turn: an order is encoded once and given to every selected session as the same bytes.

mod chores;
mod drive;
#[cfg(feature = "autobahn")]
pub mod echo;
mod handshake;
mod pace;
mod quic;
mod revocable;
mod session;
pub mod simulation;
mod stranger;
mod table;
mod talk;
mod thread;
mod upgrade;
mod wheel;
mod wire;
mod words;

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use muster_pki::Role;
use muster_proto::limits::SessionLimits;
use muster_proto::session::switch::{SwitchSession, SwitchSessionConfig};
use muster_proto::session::v1::CloseReason;
use muster_service::admission::{Entrance, Handshakes, Lobby, Newcomer, Spare};
use muster_service::credentials::{PathElement, ServerCredentials};
use muster_service::shutdown::Shutdown;
use rand::Rng as _;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::chores::Chores;
use self::drive::End;
use self::handshake::{Admitted, Rejected, Visitor};
use self::pace::Stride;
use self::revocable::Revocable;
use self::session::{Ending, Session};
use self::table::Table;
pub(crate) use self::thread::{Descriptors, ShardParts, Way, spawn};
use self::wheel::Wheel;
use self::words::Words;
use crate::config::Config;
use crate::engine::{SessionEngine, SessionKey, ShardMessage};
use crate::refusals::Refusals;
use crate::registry::{Registry, Room};
use crate::wall::Wall;
use crate::{metrics, refusal};

/// Messages of the engine done in one go, before sessions get their turn.
const MESSAGES_PER_TURN: usize = 64;

/// From one wave of sessions that are sent away to the next.
const WAVE_INTERVAL: Duration = Duration::from_millis(100);

/// Sessions of a wave at least.
const WAVE_SESSIONS_MIN: usize = 256;

/// Pings of different sessions are spread by this part of the interval, either way (promises.md: "60 s with jitter").
const PING_JITTER: f64 = 0.1;

/// What all shards share.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    /// Settings.
    pub(crate) config: Arc<Config>,
    /// The engine, as far as sessions need it.
    pub(crate) engine: SessionEngine,
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
    engine: SessionEngine,
    credentials: Arc<ServerCredentials>,
    registry: Arc<Registry>,
    refusals: Arc<Refusals>,
    wall: Wall,
    table: Table,
    revocable: Revocable,
    wheel: RefCell<Wheel>,
    tasks: TaskTracker,
    stopping: Cell<bool>,
    words: Words,
}

async fn serve(
    index: u16,
    way: Way,
    mut messages: mpsc::Receiver<ShardMessage>,
    common: Common,
) -> io::Result<()> {
    let Common { config, engine, credentials, registry, lobby, refusals, revoked, wall, stop, .. } = common;
    let unsent_bytes_max = config.sessions.unsent_bytes_max;
    wire::bound_unsent_bytes(usize::try_from(unsent_bytes_max).unwrap_or(usize::MAX));
    let table = match &way {
        Way::Tcp(_) => Table::new(Stride::TCP),
        Way::Quic { .. } => Table::new(Stride::QUIC),
    };
    let shard = Rc::new(Shard {
        index,
        limits: Arc::new(config.sessions.protocol()),
        config,
        engine,
        credentials,
        registry,
        refusals,
        wall,
        table,
        revocable: Revocable::default(),
        wheel: RefCell::new(Wheel::new(Instant::now())),
        tasks: TaskTracker::new(),
        stopping: Cell::new(false),
        words: Words::default(),
    });
    let (chores, done) = (Chores::default(), CancellationToken::new());
    let served = async {
        let mut over_quic = None;
        match way {
            Way::Tcp(listener) => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                chores.begin("accept", &stop, accept(Rc::clone(&shard), listener, lobby, stop.clone()));
            }
            Way::Quic { socket, key } => {
                let entrance = Rc::new(quic::entrance(&shard, socket, &key, stop.clone())?);
                over_quic = Some(Rc::clone(&entrance));
                chores.begin("accept", &stop, quic::accept(Rc::clone(&shard), entrance));
            }
        }
        chores::begin(&shard, &chores, revoked.subscribe(), &stop, &done);
        while let Some(()) = stop.run_until_cancelled(shard.listen_to_engine(&mut messages)).await.flatten() {
        }
        shard.drain(&mut messages).await;
        if let Some(entrance) = over_quic {
            quic::close(&entrance).await;
        }
        done.cancel();
        chores.end().await;
        Ok::<(), io::Error>(())
    };
    tokio::select! {
        biased;
        failed = chores.failed() => {
            tracing::error!(shard = index, error = %failed, "a shard cannot go on");
            Err(failed)
        }
        served = served => served,
    }
}

impl Shard {
    /// Does what the engine says; `None` when the engine is gone.
    async fn listen_to_engine(&self, messages: &mut mpsc::Receiver<ShardMessage>) -> Option<()> {
        let mut batch = Vec::new();
        if messages.recv_many(&mut batch, MESSAGES_PER_TURN).await == 0 {
            return None;
        }
        let batch = batch.into_iter().map(|message| self.words.unwritten(message));
        self.table.handle(batch, |session| self.tell(session));
        Some(())
    }

    /// Sends everyone away, and hears the engine meanwhile, for as long as `drain_timeout` allows.
    async fn drain(&self, messages: &mut mpsc::Receiver<ShardMessage>) {
        self.stopping.set(true);
        self.tasks.close();
        let drained = async {
            let acks = async {
                while let Some(()) = self.listen_to_engine(messages).await {}
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                () = self.end_all() => {}
                () = acks => {}
            }
        };
        if tokio::time::timeout(self.config.shutdown.drain_timeout, drained).await.is_err() {
            tracing::warn!(
                shard = self.index,
                sessions = self.table.len(),
                "sessions were still open after drain_timeout"
            );
        }
    }

    /// Tells every client when to come back, each at its own moment, and waits until all are gone. They are told in waves, so that whoever
    /// takes them in, where there are several Switches, does not meet all of them at once.
    async fn end_all(&self) {
        let sessions = self.table.all();
        let limits = &self.config.shutdown;
        let waves = limits.send_away_within.min(limits.drain_timeout / 2).div_duration_f64(WAVE_INTERVAL);
        for (number, wave) in sessions.chunks(wave_sessions(sessions.len(), waves)).enumerate() {
            if number > 0 {
                tokio::time::sleep(WAVE_INTERVAL).await;
            }
            wave.iter().for_each(|session| session.end(&self.farewell()));
        }
        drop(sessions);
        self.tasks.wait().await;
    }

    /// Writes what waits for a session as far as its socket takes it at once; the rest is its task's, which is woken.
    fn tell(&self, session: &Session) {
        if session.tell() {
            self.written(session);
        }
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
        let now = Instant::now();
        for (instruction, since) in written {
            metrics::pushed(now.duration_since(since));
            self.words.note_written(instruction, identity.number, now);
        }
    }
}

/// Returns how many sessions are sent away in one wave, so that there are so many waves at most.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a shard has far fewer than 2⁵² sessions"
)]
fn wave_sessions(sessions: usize, waves: f64) -> usize {
    ((sessions as f64 / waves.max(1.0)).ceil() as usize).max(WAVE_SESSIONS_MIN)
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
                Some(Ok(admitted)) => settle(&shard_of_task, *admitted),
                Some(Err(rejected)) => rejected.tell(metrics::Listener::Sessions, address),
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

/// Makes the session of an admitted client.
fn settle(shard: &Rc<Shard>, admitted: Admitted) {
    let Admitted { wire, visitor, room, path } = admitted;
    metrics::handshake(visitor.listener, "ok");
    let half = SwitchSession::new(shard.session_config(), Instant::now());
    let queue_bytes_max = shard.limits.outbound_bytes_max;
    let Some(session) = shard.table.insert(visitor.device.clone(), wire, half, queue_bytes_max) else {
        return;
    };
    let keys = shard.revocable.insert(&path, session.slot);
    // Roots or CRLs may have changed since the certificate was checked, seconds ago if the upgrade was slow; whoever follows the
    // changes asked the sessions that were there.
    session.ask_recheck();
    metrics::sessions(shard.index, shard.table.len());
    if shard.stopping.get() {
        session.end(&shard.farewell());
    }
    shard.tasks.spawn_local(run(Rc::clone(shard), session, visitor, room, keys));
}

/// Runs a session. Its future is what each session's task costs, so it holds little.
async fn run(shard: Rc<Shard>, session: Rc<Session>, visitor: Visitor, mut room: Room, keys: Box<[u64]>) {
    let running = AssertUnwindSafe(drive::run(&shard, &session, &visitor, &mut room));
    // What is wrong with one session ends that one alone, and leaves nothing of it behind.
    let end = running.catch_unwind().await.unwrap_or(End::Failed);
    drop(session.take_wire());
    shard.revocable.remove(&keys, session.slot);
    if session.identity().is_none() {
        // The engine may know the session by its slot alone, so the slot is not free before the engine was told.
        Box::pin(talk::farewell(&shard, &session)).await;
    }
    if let (Some(identity), true) = (session.identity(), shard.table.remove(&session)) {
        shard.words.forget(identity.number);
    }
    metrics::sessions(shard.index, shard.table.len());
    metrics::session_ended(end.label());
    if let Some(identity) = session.identity() {
        let key = SessionKey { shard: shard.index, slot: session.slot, epoch: identity.epoch };
        shard.registry.remove(&session.device, key);
        Box::pin(talk::farewell(&shard, &session)).await;
    }
    tracing::debug!(device = %session.device, end = end.label(), "session ended");
}
