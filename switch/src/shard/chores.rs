//! What a shard does beside its sessions: tell the engine what was written, wake who is due, follow what is trusted.

use std::cell::OnceCell;
use std::io;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use muster_proto::common::v1::TargetState;
use muster_service::credentials::PathElement;
use tokio::sync::broadcast;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::session::Session;
use super::wheel::TICK;
use super::{Shard, pace, wire};
use crate::metrics;

/// How often the bytes that wait are added up; scrapers come every 15 s or less often.
const MEASURE_INTERVAL: Duration = Duration::from_secs(10);

/// How long words for the engine gather behind those that went: each message is a commit, and its fsync.
const GATHERED: Duration = Duration::from_millis(10);

/// Revoked certificates looked up in one go, before sessions get their turn.
const REVOKED_PER_TURN: usize = 1_024;

/// How long what has been told to end may take to do so.
const END: Duration = Duration::from_secs(2);

/// Tasks of a shard that go on for as long as it does. One that ends before it was told to, by a panic or by itself, is missed by every session:
/// it is the end of the shard.
#[derive(Debug, Clone, Default)]
pub(super) struct Chores {
    tasks: TaskTracker,
    failed: Rc<OnceCell<&'static str>>,
    has_failed: CancellationToken,
}

impl Chores {
    /// Begins one that goes on until a token is cancelled.
    pub(super) fn begin(
        &self,
        name: &'static str,
        until: &CancellationToken,
        work: impl Future<Output = ()> + 'static,
    ) {
        let (chores, until) = (self.clone(), until.clone());
        self.tasks.spawn_local(async move {
            let has_panicked = AssertUnwindSafe(work).catch_unwind().await.is_err();
            if has_panicked || !until.is_cancelled() {
                // The first is told; what it was for may be why others fail.
                chores.failed.set(name).unwrap_or_default();
                chores.has_failed.cancel();
            }
        });
    }

    /// Returns once one has failed, and says which.
    pub(super) async fn failed(&self) -> io::Error {
        self.has_failed.cancelled().await;
        let name = self.failed.get().copied().unwrap_or_default();
        io::Error::other(format!("`{name}` ended by itself: an error is told before this, or it is a bug"))
    }

    /// Waits until all have ended, who were told to.
    pub(super) async fn end(&self) {
        self.tasks.close();
        if tokio::time::timeout(END, self.tasks.wait()).await.is_err() {
            tracing::warn!("what a shard does beside its sessions did not end in time");
        }
    }
}

/// Begins all of it. What sessions that are sent away still need goes on until `done`, the rest until `stop`.
pub(super) fn begin(
    shard: &Rc<Shard>,
    chores: &Chores,
    revoked: broadcast::Receiver<Arc<[PathElement]>>,
    stop: &CancellationToken,
    done: &CancellationToken,
) {
    chores.begin("report", done, report(Rc::clone(shard), done.clone()));
    chores.begin("measure", done, measure(Rc::clone(shard), done.clone()));
    chores.begin("turn_wheel", done, turn_wheel(Rc::clone(shard), done.clone()));
    chores.begin("pace", done, tell_many(Rc::clone(shard), done.clone()));
    chores.begin("follow_trust", stop, follow_trust(Rc::clone(shard), stop.clone()));
    chores.begin("follow_revoked", stop, follow_revoked(Rc::clone(shard), revoked, stop.clone()));
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

/// Tells sessions what the engine says to many.
async fn tell_many(shard: Rc<Shard>, done: CancellationToken) {
    pace::run(&shard.table, |session| shard.tell(session), &done).await;
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
        metrics::unsent_bytes(shard.index, wire::unsent_bytes());
        metrics::untold(shard.index, shard.table.pace().untold());
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

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test]
    async fn a_chore_that_ends_before_its_time_or_panics_is_told_by_name() {
        let until = CancellationToken::new();
        let early = failure_of(&until, "early", ready(())).await;
        let panicked = failure_of(&until, "panicked", async { panic!("a test") }).await;
        until.cancel();
        let late = failure_of(&until, "late", async { panic!("a test") }).await;

        for (failed, name) in [(early, "early"), (panicked, "panicked"), (late, "late")] {
            let failed = failed.unwrap();
            assert!(failed.starts_with(&format!("`{name}` ended by itself")), "{failed}");
        }
    }

    #[tokio::test]
    async fn a_chore_that_ends_when_it_was_told_to_is_no_failure_and_one_that_does_not_is_not_waited_for() {
        let until = CancellationToken::new();
        let told = until.clone();
        assert_eq!(failure_of(&until, "idle", async move { told.cancelled().await }).await, None);
        until.cancel();
        assert_eq!(failure_of(&until, "ended", ready(())).await, None);

        let local = LocalSet::new();
        let within = local.run_until(async {
            let chores = Chores::default();
            chores.begin("endless", &until, pending());
            tokio::time::timeout(2 * END, chores.end()).await
        });

        assert_eq!(within.await, Ok(()));
    }

    async fn failure_of(
        until: &CancellationToken,
        name: &'static str,
        work: impl Future<Output = ()> + 'static,
    ) -> Option<String> {
        let local = LocalSet::new();
        let working = local.run_until(async {
            let chores = Chores::default();
            chores.begin(name, until, work);
            tokio::time::timeout(Duration::from_millis(200), chores.failed()).await
        });
        working.await.ok().map(|error| error.to_string())
    }
}
