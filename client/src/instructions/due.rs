//! What a client does at times of its own, whatever comes meanwhile: deadlines, roots that are read again, what is forgotten.

use std::time::Duration;

use tokio::time::Instant;

use super::Admission;
use super::shell::Shell;
use crate::clock;
use crate::store::StoreError;

/// How often what is out of date is forgotten, and the time floor written.
const UPKEEP: Duration = Duration::from_secs(3_600);

/// How often roots are read again.
const REFRESH: Duration = Duration::from_secs(30);

/// When each is due, and how long after that again.
#[derive(Debug)]
pub(crate) struct Due {
    upkeep: Instant,
    upkeep_every: Duration,
    refresh: Instant,
    refresh_every: Duration,
}

impl Due {
    /// The upkeep begins with the client; roots were just read.
    pub(super) fn every(upkeep_every: Duration, refresh_every: Duration) -> Self {
        let now = Instant::now();
        Self { upkeep: now, upkeep_every, refresh: now + refresh_every, refresh_every }
    }
}

impl Default for Due {
    fn default() -> Self {
        Self::every(UPKEEP, REFRESH)
    }
}

impl<A: Admission> Shell<A> {
    /// Returns when [`Self::handle_due`] should next be called.
    pub(super) fn poll_timeout(&self) -> Instant {
        let next = self.due.upkeep.min(self.due.refresh);
        self.machine.poll_timeout(clock::now()).map_or(next, |at| next.min(at.into()))
    }

    /// Does what is due, each at most once.
    pub(super) async fn handle_due(&mut self) -> Result<(), StoreError> {
        if self.poll_timeout() <= Instant::now() {
            self.machine.handle_timeout(clock::now());
        }
        if self.due.upkeep <= Instant::now() {
            self.upkeep().await?;
            self.due.upkeep = Instant::now() + self.due.upkeep_every;
        }
        self.refresh_if_due();
        Ok(())
    }

    /// Reads roots again when it is time.
    pub(super) fn refresh_if_due(&mut self) {
        if self.due.refresh <= Instant::now() {
            self.refresh();
            self.due.refresh = Instant::now() + self.due.refresh_every;
        }
    }

    /// Reads roots again, unless the last reading has not ended yet.
    fn refresh(&mut self) {
        if !self.work.is_refreshing()
            && let Some(job) = self.machine.refresh()
        {
            self.work.refresh(job);
        }
    }

    async fn upkeep(&mut self) -> Result<(), StoreError> {
        let now = clock::now();
        let (now_ms, floor_ms) = (now.wall_ms, self.machine.time_floor_ms(now));
        let remember_ms = i64::try_from(self.remember.as_millis()).unwrap_or(i64::MAX);
        let forgotten = self
            .durable(move |tables| {
                tables.raise_time_floor(floor_ms)?;
                tables.drop_beyond_bounds(now_ms)?;
                tables.forget_ended(remember_ms, now_ms)
            })
            .await;
        match forgotten {
            // The client stops; the next one begins with the same.
            Err(StoreError::DiskFull) => Ok(()),
            Err(error) => Err(error),
            Ok(forgotten) => {
                tracing::debug!(forgotten, "upkeep");
                Ok(())
            }
        }
    }
}
