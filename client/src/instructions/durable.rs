//! Writes that wait for room on a full disk, and what goes on meanwhile: what runs may be what fills it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Admission;
use super::delayed::Sort;
use super::shell::{Inbound, Outbound, Shell};
use crate::clock;
use crate::store::{StoreError, Tables};

/// Pause before a write is tried again that found the disk full.
const DISK_FULL_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5_000 });

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
                Some(inbound) = self.inbox.recv() => self.delay(inbound),
            }
        }
    }

    /// A stop of what runs keeps its turn, too: it may have been announced, and counts then.
    fn delay(&mut self, inbound: Inbound) {
        let sort = match &inbound {
            Inbound::Order { envelope, .. } | Inbound::Urgent(envelope) => {
                self.hear_urgent(envelope);
                if self.machine.is_stop(envelope) { Sort::Stop } else { Sort::Order }
            }
            Inbound::Document { .. } => Sort::Document,
            Inbound::LicenceNotice(_)
            | Inbound::Judged { .. }
            | Inbound::Unjudged
            | Inbound::Disconnected => Sort::Notice,
        };
        self.delayed.push(inbound, sort);
    }

    /// Ends what runs if this is its stop.
    pub(super) fn hear_urgent(&mut self, envelope: &[u8]) {
        if self.machine.handle_urgent(envelope, clock::now()) {
            self.end_stopped();
        }
    }

    /// Asks for another session if this one has brought more than there was room for; it is asked for again where the queue is full.
    pub(super) fn come_again(&mut self) {
        if self.delayed.is_short() && self.session.try_send(Outbound::Again).is_ok() {
            self.delayed.forget_short();
        }
    }

    fn end_stopped(&mut self) {
        while let Some(instruction) = self.machine.poll_end() {
            self.work.end_run(instruction);
        }
    }
}
