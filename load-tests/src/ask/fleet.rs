//! The simulated devices of one run, and what they tell.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use muster_proto::session::v1::Lane;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::history::Promise;
use crate::report::{Latencies, Progress, Quantiles};
use crate::simulated::{self, AfterLoss, Shared, Told};
use crate::tls;

/// Handshakes under way at once: enough to keep the Switch busy, few enough that none waits for its deadline.
const CONNECTING_MAX: u32 = 64;
/// All sessions together.
const CONNECT_DEADLINE: Duration = Duration::from_secs(180);
/// All answers together.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// What devices tell and nobody has read yet.
const TOLD_MAX: usize = 4_096;

pub(super) struct Fleet {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    told: mpsc::Receiver<Told>,
    teller: mpsc::Sender<Told>,
    cancelled: CancellationToken,
    /// Sessions that were lost after they stood.
    pub(super) dead: u32,
}

impl Fleet {
    pub(super) fn new(shared: Shared) -> Self {
        let (teller, told) = mpsc::channel(TOLD_MAX);
        let cancelled = CancellationToken::new();
        Self { shared: Arc::new(shared), tasks: JoinSet::new(), told, teller, cancelled, dead: 0 }
    }

    /// Starts the devices, a bounded number of handshakes at once, and waits until each has a session.
    pub(super) async fn connect(
        &mut self,
        sessions: u32,
        home: &Path,
        prefix: &str,
    ) -> anyhow::Result<(Quantiles, Duration)> {
        let names: Vec<String> = (0..sessions).map(|n| format!("{prefix}-{n}")).collect();
        let (folder, roots) = (home.to_owned(), tls::server_roots(home)?);
        let progress = Progress::new("issuing certificates", sessions);
        let identities = tokio::task::spawn_blocking(move || tls::issue_devices(&folder, &names)).await??;
        drop(progress);
        let configs = identities
            .iter()
            .map(|identity| Ok((identity.name.clone(), tls::client(&roots, identity, &[])?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut progress = Progress::new("connected", sessions);
        let mut latencies = Latencies::new()?;
        let mut waiting = configs.into_iter();
        let (mut begun, mut connected) = (0, 0);
        let started = Instant::now();
        let deadline = tokio::time::Instant::now() + CONNECT_DEADLINE;
        while connected < sessions {
            while begun - connected < CONNECTING_MAX
                && let Some((name, config)) = waiting.next()
            {
                let (shared, told, cancelled) =
                    (Arc::clone(&self.shared), self.teller.clone(), self.cancelled.clone());
                self.tasks.spawn(simulated::run(shared, name, config, AfterLoss::End, told, cancelled));
                begun += 1;
            }
            let told = tokio::time::timeout_at(deadline, self.told.recv()).await;
            match told.with_context(|| format!("{connected} of {sessions} sessions in time"))? {
                Some(Told::Connected { took, .. }) => {
                    latencies.add(took);
                    connected += 1;
                    progress.show(connected);
                }
                Some(Told::Failed { device, problem }) => bail!("{device}: {problem}"),
                Some(Told::Ordered { .. } | Told::Acked { .. }) => {}
                None => bail!("the fleet has ended"),
            }
        }
        Ok((latencies.quantiles(), started.elapsed()))
    }

    /// Collects what the devices tell until each has its answer acked; gives when they had the order, and when the ack.
    pub(super) async fn answers(
        &mut self,
        sessions: u32,
        submitted_at: Instant,
        promises: &mut Vec<Promise>,
    ) -> anyhow::Result<(Quantiles, Quantiles)> {
        let (mut ordered, mut acked) = (Latencies::new()?, Latencies::new()?);
        let mut progress = Progress::new("answered", sessions);
        let deadline = tokio::time::Instant::now() + ANSWER_DEADLINE;
        let mut left = sessions.saturating_sub(self.dead);
        while left > 0 {
            match tokio::time::timeout_at(deadline, self.told.recv()).await {
                Ok(Some(Told::Ordered { at, .. })) => ordered.add(at.duration_since(submitted_at)),
                Ok(Some(Told::Acked { device, outbox_id, lane: Lane::Results, sequence, at })) => {
                    acked.add(at.duration_since(submitted_at));
                    promises.push(Promise::ResultAcked { device, outbox_id, sequence });
                    left -= 1;
                    progress.show(sessions - left);
                }
                Ok(Some(Told::Failed { .. })) => {
                    self.dead += 1;
                    left -= 1;
                }
                Ok(Some(Told::Connected { .. } | Told::Acked { .. })) => {}
                Ok(None) => bail!("the fleet has ended"),
                Err(_) => bail!("{left} of {sessions} answers were not acked within {ANSWER_DEADLINE:?}"),
            }
        }
        Ok((ordered.quantiles(), acked.quantiles()))
    }

    pub(super) async fn stop(mut self) {
        self.cancelled.cancel();
        // A device that tells something into a full queue must not wait for a reader.
        drop(self.told);
        while self.tasks.join_next().await.is_some() {}
    }
}
