//! What a shard does beside its sessions: tell the engine what was written, wake who is due, follow what is trusted.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_proto::common::v1::TargetState;
use muster_service::credentials::PathElement;
use tokio::sync::broadcast;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::session::Session;
use super::wheel::TICK;
use super::{Shard, pace};
use crate::metrics;

/// How often the bytes that wait are added up; scrapers come every 15 s or less often.
const MEASURE_INTERVAL: Duration = Duration::from_secs(10);

/// How long words for the engine gather behind those that went: each message is a commit, and its fsync.
const GATHERED: Duration = Duration::from_millis(10);

/// Revoked certificates looked up in one go, before sessions get their turn.
const REVOKED_PER_TURN: usize = 1_024;

/// Begins all of it. What sessions that are sent away still need goes on until `done`, the rest until `stop`.
pub(super) fn begin(
    shard: &Rc<Shard>,
    chores: &TaskTracker,
    revoked: broadcast::Receiver<Arc<[PathElement]>>,
    stop: &CancellationToken,
    done: &CancellationToken,
) {
    chores.spawn_local(report(Rc::clone(shard), done.clone()));
    chores.spawn_local(measure(Rc::clone(shard), done.clone()));
    chores.spawn_local(turn_wheel(Rc::clone(shard), done.clone()));
    chores.spawn_local(pace::run(Rc::clone(shard), done.clone()));
    chores.spawn_local(follow_trust(Rc::clone(shard), stop.clone()));
    chores.spawn_local(follow_revoked(Rc::clone(shard), revoked, stop.clone()));
}

/// Tells the engine which orders were written, and how far clients have come; what gathers meanwhile goes in one message.
async fn report(shard: Rc<Shard>, done: CancellationToken) {
    loop {
        let more = done.run_until_cancelled(shard.words.some()).await;
        for ((instruction, state), numbers) in shard.words.take(Instant::now()) {
            let told = if state == TargetState::Sent {
                shard.engine.sent(instruction, numbers).await
            } else {
                shard.engine.progress(instruction, state, numbers).await
            };
            if let Err(error) = told {
                tracing::debug!(%error, %instruction, "targets have come farther than the engine knows");
            }
        }
        done.run_until_cancelled(tokio::time::sleep(GATHERED)).await;
        if more.is_none() {
            return;
        }
    }
}

/// Wakes the sessions whose deadlines are over.
async fn turn_wheel(shard: Rc<Shard>, done: CancellationToken) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut due = Vec::new();
    while done.run_until_cancelled(ticks.tick()).await.is_some() {
        shard.wheel.borrow_mut().handle_timeout(Instant::now(), &mut due);
        for (slot, tick) in due.drain(..) {
            if let Some(session) = shard.table.at(slot) {
                session.is_due(tick);
            }
        }
    }
}

/// Keeps the gauges of what waits up to date.
async fn measure(shard: Rc<Shard>, done: CancellationToken) {
    loop {
        let mut bytes = 0_usize;
        shard.table.for_each(|session| bytes = bytes.saturating_add(session.waiting_bytes()));
        metrics::queue_bytes(shard.index, bytes);
        if done.run_until_cancelled(tokio::time::sleep(MEASURE_INTERVAL)).await.is_none() {
            return;
        }
    }
}

/// Has the sessions of newly revoked certificates checked again, which ends them, and no others (R3 of trust.md).
async fn follow_revoked(
    shard: Rc<Shard>,
    mut revoked: broadcast::Receiver<Arc<[PathElement]>>,
    stop: CancellationToken,
) {
    while let Some(told) = stop.run_until_cancelled(revoked.recv()).await {
        match told {
            Ok(newly) => {
                for chunk in newly.chunks(REVOKED_PER_TURN) {
                    let slots = chunk.iter().flat_map(|element| shard.revocable.find(element));
                    slots.filter_map(|slot| shard.table.at(slot)).for_each(|session| session.ask_recheck());
                    tokio::task::yield_now().await;
                }
            }
            // Some were missed: look at everyone.
            Err(broadcast::error::RecvError::Lagged(_)) => shard.table.for_each(Session::ask_recheck),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Has every live session's certificate checked again when roots change.
async fn follow_trust(shard: Rc<Shard>, stop: CancellationToken) {
    let mut changes = shard.credentials.changes();
    while stop.run_until_cancelled(changes.changed()).await.is_some_and(|changed| changed.is_ok()) {
        shard.table.for_each(Session::ask_recheck);
    }
}
