//! Writes that wait for room on a full disk, and what goes on meanwhile: what runs may be what fills it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Admission;
use super::shell::{Inbound, Shell};
use crate::clock;
use crate::store::{StoreError, Tables};

/// Pause before a write is tried again that found the disk full.
const DISK_FULL_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5_000 });

/// Most that is taken out of the inbox while a write waits, as many as that has room for. Beyond it the session waits, then the Switch does.
const DELAYED_MAX: usize = 64;

/// Losses that the last error names; the log has all.
const LOSSES_TOLD: usize = 8;

impl<A: Admission> Shell<A> {
    /// The disk stayed full until the client had to stop: nothing more can be written, and what is lost by it is told.
    pub(super) fn give_up(&mut self, first: Option<String>) -> Result<(), StoreError> {
        let rest = std::iter::from_fn(|| self.machine.poll_effect());
        let losses: Vec<String> = first.into_iter().chain(rest.filter_map(|effect| effect.loss())).collect();
        for loss in &losses {
            tracing::error!(loss, "not written: the disk of the store is full, and the client stops");
        }
        let more = losses.len().saturating_sub(LOSSES_TOLD);
        let mut lost = losses.into_iter().take(LOSSES_TOLD).collect::<Vec<_>>().join(", ");
        if more > 0 {
            lost.push_str(&format!(", and {more} more, which the log names"));
        }
        if lost.is_empty() { Ok(()) } else { Err(StoreError::Unwritten { lost }) }
    }

    /// Writes, and waits for room on a full disk: nothing goes on before it is written. Once the client stops, a full disk
    /// is told.
    pub(super) async fn durable<T, F>(&mut self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables) -> rusqlite::Result<T> + Clone + Send + 'static,
    {
        loop {
            match self.store.write(job.clone()).await {
                Err(StoreError::DiskFull) if !self.stop.is_cancelled() => {
                    tracing::error!("the disk of the store is full; instructions wait for room");
                    self.pause().await;
                }
                other => return other,
            }
        }
    }

    /// Lets some time pass before the next attempt. Stops still end what runs, and roots are still read; all else that comes keeps its
    /// turn.
    async fn pause(&mut self) {
        let until = Instant::now() + DISK_FULL_PAUSE;
        self.end_stopped();
        self.refresh_if_due();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = sleep_until(until) => return,
                Some(inbound) = self.inbox.recv(), if self.delayed.len() < DELAYED_MAX => self.delay(inbound),
            }
        }
    }

    fn delay(&mut self, inbound: Inbound) {
        match &inbound {
            Inbound::Order { envelope, .. } if self.machine.handle_urgent(envelope, clock::now()) => {
                self.end_stopped();
            }
            Inbound::Order { .. }
            | Inbound::Document { .. }
            | Inbound::LicenceNotice(_)
            | Inbound::Judged { .. }
            | Inbound::Disconnected => self.delayed.push_back(inbound),
        }
    }

    fn end_stopped(&mut self) {
        while let Some(instruction) = self.machine.poll_end() {
            self.work.end_run(instruction);
        }
    }
}
