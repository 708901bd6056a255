//! Owns the tasks of a process and ends them in order: cancel, drain within a deadline, exit.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal as unix_signal};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::metrics;

/// The end of a process, seen by all its tasks. Clones are the same shutdown.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tracker: TaskTracker,
    failure: Arc<OnceLock<String>>,
}

impl Shutdown {
    /// Makes a shutdown that nobody triggered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the token that is cancelled when the process is to end.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Returns the tracker that [`Self::drain`] waits for, for tasks spawned on another runtime.
    #[must_use]
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// Waits until the process is to end. It never resolves otherwise.
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }

    /// Spawns a task that [`Self::drain`] waits for, in a span with its `name`.
    ///
    /// A task that panics ends the process: half a process serves nobody.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let guard = PanicGuard { shutdown: self.clone(), name };
        let task = async move {
            task.await;
            drop(guard);
        };
        self.tracker.spawn(task.instrument(tracing::info_span!("task", name)));
    }

    /// Asks every task to end.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// Asks every task to end because of a fault; the first reason is kept.
    pub fn fail(&self, reason: impl Into<String>) {
        let reason = reason.into();
        tracing::error!(reason, "the process ends because of a fault");
        // A later reason is a consequence of the first.
        drop(self.failure.set(reason));
        self.token.cancel();
    }

    /// Returns the fault that ended the process, if one did.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Triggers the end and waits until every task has ended, at most `timeout`.
    pub async fn drain(&self, timeout: Duration) -> DrainOutcome {
        self.token.cancel();
        self.tracker.close();
        match tokio::time::timeout(timeout, self.tracker.wait()).await {
            Ok(()) => DrainOutcome::Drained,
            Err(_elapsed) => DrainOutcome::TimedOut { tasks: self.tracker.len() },
        }
    }
}

/// How a drain ended.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainOutcome {
    /// Every task ended.
    Drained,
    /// This many tasks were still running at the deadline.
    TimedOut {
        /// Tasks left.
        tasks: usize,
    },
}

/// The signal that asked the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, as systemd and Kubernetes send it.
    Terminate,
    /// SIGINT, as Ctrl-C sends it.
    Interrupt,
}

/// Waits for SIGTERM or SIGINT. The call installs the handlers, inside a runtime: make it before anything listens, so that
/// whoever sees the service answer can stop it in order.
///
/// # Errors
/// The future returns the operating system's error when the handlers cannot be installed.
pub fn signal() -> impl Future<Output = std::io::Result<Signal>> {
    let installed = unix_signal(SignalKind::terminate())
        .and_then(|terminate| Ok((terminate, unix_signal(SignalKind::interrupt())?)));
    async move {
        let (mut terminate, mut interrupt) = installed?;
        tokio::select! {
            biased;
            _ = terminate.recv() => Ok(Signal::Terminate),
            _ = interrupt.recv() => Ok(Signal::Interrupt),
        }
    }
}

/// Lives as long as its task; dropped while unwinding, it ends the process in order.
struct PanicGuard {
    shutdown: Shutdown,
    name: &'static str,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            ::metrics::counter!(metrics::TASKS_PANICKED_TOTAL).increment(1);
            self.shutdown.fail(format!("task {} panicked", self.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drains_tasks_that_watch_the_token() {
        let shutdown = Shutdown::new();
        let token = shutdown.token();
        shutdown.spawn("watcher", async move { token.cancelled().await });

        let outcome = shutdown.drain(Duration::from_secs(10)).await;

        assert_eq!(outcome, DrainOutcome::Drained);
    }

    #[tokio::test(start_paused = true)]
    async fn tells_how_many_tasks_outlived_the_deadline() {
        let shutdown = Shutdown::new();
        shutdown.spawn("stuck", std::future::pending());

        let outcome = shutdown.drain(Duration::from_secs(5)).await;

        assert_eq!(outcome, DrainOutcome::TimedOut { tasks: 1 });
    }

    #[tokio::test]
    async fn a_panicking_task_ends_the_process() {
        let shutdown = Shutdown::new();

        shutdown.spawn("writer", async { panic!("on purpose") });
        shutdown.cancelled().await;

        assert_eq!(shutdown.failure(), Some("task writer panicked"));
    }
}
