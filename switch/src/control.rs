//! The control thread: operator API, admin, health, and the order in which the Switch stops.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use muster_pki::Thumbprint;
use muster_service::credentials::{POLL_INTERVAL, PathElement, Revocation, Revocations, ServerCredentials};
use muster_service::health::{Component, Health, State};
use muster_service::metrics::CREDENTIALS_STALE;
use muster_service::{admin, telemetry};
use tokio::runtime::Runtime;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinError;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::credentials;
use crate::doors::Doors;
use crate::engine::{EngineEnd, EngineHandle, EngineStatus};
use crate::gate::Gate;
use crate::licence::{self, Follower};
use crate::metrics;
use crate::operator::{self, Api, ApiParts};
use crate::shard::Common;
use crate::start::Failure;
use crate::wall::Wall;

/// What threads may take beyond `drain_timeout` to notice that it is over.
const JOIN_GRACE: Duration = Duration::from_secs(5);

/// The name of the roots for signed documents in readiness and metrics.
const TRUST: &str = "document_roots";

/// How often readiness looks at what changes without a commit, such as the end of a licence.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// What the control thread is made of.
#[derive(Debug)]
pub(crate) struct ControlParts {
    /// The listener of the operator API.
    pub(crate) operators: TcpListener,
    /// The listener of metrics and health.
    pub(crate) admin: TcpListener,
    /// The Switch's certificate, and who is trusted as operator and service.
    pub(crate) operator_credentials: Arc<ServerCredentials>,
    /// What the engine's trust for signed documents was made of.
    pub(crate) trust_digest: Thumbprint,
    /// The engine. It is closed here, and its store read: in the table of descriptors that it was opened in.
    pub(crate) engine: EngineHandle,
    /// What all threads share.
    pub(crate) common: Common,
    /// How the parts are.
    pub(crate) health: Health,
}

/// A thread that holds sessions.
pub(crate) type ShardThread = JoinHandle<io::Result<()>>;

/// Starts the control thread. It ends last, with what the Switch ended of.
///
/// # Errors
/// The system gave no thread.
pub(crate) fn spawn(
    runtime: Runtime,
    shards: Vec<ShardThread>,
    parts: ControlParts,
) -> io::Result<JoinHandle<Result<(), Failure>>> {
    std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        let ended = runtime.block_on(Box::pin(supervise(shards, parts)));
        // Threads of exports that nobody reads any more must not hold up the end.
        runtime.shutdown_timeout(JOIN_GRACE);
        ended
    })
}

async fn supervise(shards: Vec<ShardThread>, parts: ControlParts) -> Result<(), Failure> {
    let ControlParts { operators, admin, operator_credentials, trust_digest, engine, common, health } = parts;
    let Common { config, credentials, registry, refusals, revoked, wall, stop, shutdown, .. } = common;
    credentials.revocation().watch(&shutdown, &health);
    credentials.watch(&shutdown, &health, "session_credentials");
    operator_credentials.watch(&shutdown, &health, "operator_credentials");
    let (tasks, done) = (TaskTracker::new(), CancellationToken::new());
    let api = Api::new(ApiParts {
        gate: Gate::new(config.grants.clone()),
        config: Arc::clone(&config),
        engine: engine.clone(),
        registry,
        refusals,
        doors: Doors::default(),
        credentials,
        health: health.clone(),
        started_at_ms: wall.now_ms(),
        stop: stop.clone(),
        tasks: tasks.clone(),
    });
    let trust_health = health.component(TRUST);
    trust_health.set(State::Ready);
    let trust_changes = operator_credentials.rechecks();
    let revocation = Arc::clone(operator_credentials.revocation());
    tasks.spawn(tell_revoked(revocation.revocations(), revoked, done.clone()));
    let mut operators =
        tasks.spawn(operator::serve(operators, operator_credentials, wall.clone(), api, stop.clone()));
    let mut admin = tasks.spawn(serve_admin(admin, health.clone(), done.clone()));
    tasks.spawn(follow_trust(
        Arc::clone(&config),
        revocation,
        engine.clone(),
        trust_digest,
        trust_changes,
        trust_health,
        done.clone(),
    ));
    follow_licence(&tasks, &config, &engine, &wall, &health, &stop);
    tasks.spawn(follow_health(engine.clone(), wall, health.clone(), done.clone()));

    let failure = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        end = engine.failed() => Some(Failure::from(end)),
        ended = &mut operators => Some(Failure::OperatorApi(ending(ended))),
        ended = &mut admin => Some(Failure::Admin(ending(ended))),
    };
    if let Some(failure) = &failure {
        // Whatever else lives in the process ends with the Switch.
        shutdown.fail(failure.to_string());
    }
    stop.cancel();
    tracing::info!("the Switch drains");
    let threads = join(shards, config.shutdown.drain_timeout + JOIN_GRACE).await;
    if !operators.is_finished() && timeout(config.shutdown.drain_timeout, operators).await.is_err() {
        tracing::warn!("operator calls were still in progress after drain_timeout");
    }
    let closed = tokio::task::spawn_blocking(move || engine.close()).await;
    done.cancel();
    tasks.close();
    if timeout(JOIN_GRACE, tasks.wait()).await.is_err() {
        tracing::warn!(tasks = tasks.len(), "exports or admin requests were still in progress at the end");
    }
    let closed = closed.map_err(|error| Failure::Thread(error.to_string())).and_then(closing);
    tracing::info!("the Switch has stopped");
    failure.map_or(Ok(()), Err).and(threads).and(closed)
}

/// Tells every shard whom a new CRL revokes (R3 of trust.md). What two CRLs have in common is looked for here, once.
async fn tell_revoked(
    mut revocations: Revocations,
    revoked: broadcast::Sender<Arc<[PathElement]>>,
    done: CancellationToken,
) {
    while let Some(Some(newly)) = done.run_until_cancelled(revocations.next()).await {
        if !newly.is_empty() {
            tracing::info!(certificates = newly.len(), "certificates were revoked; their sessions end");
            // Without a shard there is nobody to tell.
            let _shards = revoked.send(newly.into());
        }
    }
}

/// Waits until every shard has ended.
async fn join(shards: Vec<ShardThread>, limit: Duration) -> Result<(), Failure> {
    let joined = tokio::task::spawn_blocking(move || {
        let ended: Vec<_> = shards.into_iter().map(JoinHandle::join).collect();
        ended.into_iter().try_for_each(|ended| match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::Thread(error.to_string())),
            Err(_) => Err(Failure::Thread("a shard panicked; its log line says where".to_owned())),
        })
    });
    match timeout(limit, joined).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(error)) => Err(Failure::Thread(error.to_string())),
        Err(_) => Err(Failure::Thread("a shard did not end".to_owned())),
    }
}

async fn serve_admin(listener: TcpListener, health: Health, done: CancellationToken) -> Result<(), String> {
    let listener = tokio::net::TcpListener::from_std(listener).map_err(|error| error.to_string())?;
    admin::serve(listener, health, telemetry::metrics(), done).await.map_err(|error| error.to_string())
}

/// Returns what the engine's end says of a stop: what it could not commit last was promised to nobody, and is told.
fn closing(end: EngineEnd) -> Result<(), Failure> {
    match end {
        EngineEnd::Closed => Ok(()),
        EngineEnd::Store { .. } | EngineEnd::Panicked => Err(Failure::from(end)),
    }
}

/// Says why a part ended that ought not to.
fn ending<E: ToString>(ended: Result<Result<(), E>, JoinError>) -> String {
    match ended {
        Ok(Ok(())) => "ended without being told to".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    }
}

/// Looks for newer licences where the configuration says.
fn follow_licence(
    tasks: &TaskTracker,
    config: &Config,
    engine: &EngineHandle,
    wall: &Wall,
    health: &Health,
    stop: &CancellationToken,
) {
    let follower = |component: &'static str| Follower {
        engine: engine.clone(),
        wall: wall.clone(),
        component: health.component(component),
        stop: stop.clone(),
    };
    if let Some(path) = config.licence_file.clone() {
        tasks.spawn(follower(licence::FILE).follow_file(path));
    }
    // What is none was refused when the configuration was read.
    if let Some(url) = config.licence_url.as_ref().and_then(|url| url.parse().ok()) {
        tasks.spawn(follower(licence::URL).follow_url(url, config.licence_refresh.clone()));
    }
}

/// Keeps readiness up to date: without a valid licence the Switch serves, but issues nothing.
async fn follow_health(engine: EngineHandle, wall: Wall, health: Health, done: CancellationToken) {
    let (store, licence) = (health.component("store"), health.component("licence"));
    let (clock, copy) = (health.component("clock"), health.component("store_copy"));
    health.component("sessions").set(State::Ready);
    health.component("operators").set(State::Ready);
    let look = async {
        loop {
            let reader = engine.reader();
            match tokio::task::spawn_blocking(move || reader.status()).await {
                Ok(status) => {
                    let now_ms = wall.now_ms();
                    metrics::licence(&status, now_ms);
                    tell_licence(&licence, licence_state(&status, now_ms));
                    store.set(store_state(&status));
                    copy.set(status.older_copy.map_or(State::Ready, State::Degraded));
                }
                Err(error) => store.set(State::Degraded(error.to_string())),
            }
            clock.set(wall.state());
            tokio::time::sleep(HEALTH_INTERVAL).await;
        }
    };
    tokio::select! {
        biased;
        () = done.cancelled() => {}
        error = engine.failed() => store.set(State::Failed(error.to_string())),
        () = look => {}
    }
}

/// Reads the roots and CRLs for signed documents again when they change.
async fn follow_trust(
    config: Arc<Config>,
    revocation: Arc<Revocation>,
    engine: EngineHandle,
    mut known: Thumbprint,
    mut changes: watch::Receiver<u64>,
    component: Component,
    done: CancellationToken,
) {
    let mut told = Vec::new();
    loop {
        let (read, revocation) = (config.clone(), Arc::clone(&revocation));
        match tokio::task::spawn_blocking(move || credentials::trust(&read, &revocation)).await {
            Ok(Ok((trust, digest))) => {
                if std::mem::replace(&mut known, digest) != digest {
                    engine.set_trust(trust);
                    tracing::info!("changed roots or CRLs for signed documents are in use");
                }
                tell_trust(&component, &mut told, Vec::new());
            }
            Ok(Err(problems)) => {
                let problems = problems.iter().map(ToString::to_string).collect();
                tell_trust(&component, &mut told, problems);
            }
            Err(error) => tracing::warn!(%error, "roots and CRLs were not read"),
        }
        tokio::select! {
            biased;
            () = done.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(POLL_INTERVAL) => {}
        }
    }
}

/// Tells what is wrong with the roots for signed documents: in the log what was not told before, in readiness and metric as long as
/// it stands.
fn tell_trust(component: &Component, told: &mut Vec<String>, problems: Vec<String>) {
    for problem in problems.iter().filter(|problem| !told.contains(problem)) {
        tracing::warn!(problem, "changed roots of signed documents are refused, the old ones stay in use");
    }
    let state = if problems.is_empty() { State::Ready } else { State::Degraded(problems.join("; ")) };
    component.set(state);
    let stale = if problems.is_empty() { 0.0 } else { 1.0 };
    ::metrics::gauge!(CREDENTIALS_STALE, "credentials" => TRUST).set(stale);
    *told = problems;
}

/// Of a Switch that has had none: whoever sets it up imports it next.
const NEVER_LICENSED: &str = "no licence: import one with `muster licence import FILE`";

fn licence_state(status: &EngineStatus, now_ms: i64) -> State {
    if status.licence_serial == 0 {
        if !status.licence_problem.is_empty() {
            return State::Degraded(status.licence_problem.clone());
        }
        return State::Degraded(NEVER_LICENSED.to_owned());
    }
    let serial = status.licence_serial;
    if status.licence_expires_at_ms <= now_ms {
        return State::Degraded(format!("licence {serial} has expired: import its successor"));
    }
    if !status.licence_problem.is_empty() {
        return State::Degraded(format!("licence {serial}: {}", status.licence_problem));
    }
    if status.is_licence_overdue(now_ms) {
        return State::Degraded(format!(
            "licence {serial} should have had a successor by now (refresh_by) and goes on working: import it, or look at \
             licence_url and at who issues it, since whoever keeps the newer one away may keep away what it revokes"
        ));
    }
    State::Ready
}

/// Logs what becomes of the licence once, not each time that it is looked at.
fn tell_licence(component: &Component, state: State) {
    if let State::Degraded(problem) = &state
        && component.state() != state
    {
        if problem == NEVER_LICENSED {
            tracing::info!(problem, "the licence");
        } else {
            tracing::warn!(problem, "the licence");
        }
    }
    component.set(state);
}

/// Below the reserve sessions and results go on, so the Switch is degraded and stays in service.
fn store_state(status: &EngineStatus) -> State {
    let (free, reserve) = (status.disk_free_bytes, status.disk_reserve_bytes);
    if free >= reserve {
        return State::Ready;
    }
    let folder = status.data_dir.display();
    State::Degraded(format!(
        "{free} bytes are free in {folder}, below [engine] disk_reserve = {reserve}: orders and imports are refused, events \
         wait at their clients; free space there, or lower disk_reserve"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_whose_last_commit_failed_is_a_failure_with_the_stores_exit_code() {
        let end = EngineEnd::Store { says: "the disk is full".to_owned(), exit_code: 69 };

        assert_eq!(closing(EngineEnd::Closed), Ok(()));
        assert_eq!(closing(end).unwrap_err().exit_code(), 69);
        assert!(closing(EngineEnd::Panicked).is_err());
    }

    #[test]
    fn below_the_reserve_the_store_is_degraded_and_says_where_and_how_much() {
        let status = |free| EngineStatus {
            disk_free_bytes: free,
            disk_reserve_bytes: 1000,
            data_dir: "/srv/store".into(),
            ..EngineStatus::default()
        };

        let short = store_state(&status(999));

        assert_eq!(store_state(&status(1000)), State::Ready);
        let State::Degraded(reason) = short else { panic!("{short:?}") };
        for said in ["999 bytes", "/srv/store", "disk_reserve = 1000", "free space"] {
            assert!(reason.contains(said), "{reason}");
        }
    }

    #[test]
    fn is_degraded_without_a_licence_and_after_its_end() {
        let none = EngineStatus::default();
        let held = EngineStatus { licence_serial: 7, licence_expires_at_ms: 1000, ..EngineStatus::default() };

        assert_eq!(licence_state(&none, 0), State::Degraded(NEVER_LICENSED.to_owned()));
        let lost = EngineStatus { licence_problem: "licence 3 is damaged".to_owned(), ..none };
        assert_eq!(licence_state(&lost, 0), State::Degraded("licence 3 is damaged".to_owned()));
        assert_eq!(licence_state(&held, 999), State::Ready);
        assert!(matches!(licence_state(&held, 1000), State::Degraded(_)));
    }

    #[test]
    fn g6_is_degraded_when_refresh_by_has_lapsed_and_not_before() {
        let held = EngineStatus {
            licence_serial: 7,
            licence_expires_at_ms: 1000,
            licence_refresh_by_ms: 800,
            ..EngineStatus::default()
        };

        let State::Degraded(reason) = licence_state(&held, 801) else { panic!("not degraded") };

        assert!(reason.contains("licence 7") && reason.contains("goes on working"), "{reason}");
        assert_eq!(licence_state(&held, 800), State::Ready);
        let silent = EngineStatus { licence_refresh_by_ms: 0, ..held };
        assert_eq!(licence_state(&silent, 999), State::Ready);
    }

    #[test]
    fn g6_is_degraded_while_the_licences_signers_do_not_count() {
        let licence_problem = "SIGNER_REVOKED: licence: R2".to_owned();
        let fallen = EngineStatus {
            licence_serial: 7,
            licence_expires_at_ms: 1000,
            licence_problem,
            ..EngineStatus::default()
        };

        let State::Degraded(reason) = licence_state(&fallen, 1) else { panic!("not degraded") };

        assert_eq!(reason, "licence 7: SIGNER_REVOKED: licence: R2");
    }
}
