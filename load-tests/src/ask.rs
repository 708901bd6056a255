//! `muster-load ask`: N simulated devices connect, one question is put to all of them, and the figures are told.
//!
//! Latency counts from the call that submits the order. A device that is lost, or an answer that does not come, fails
//! the run.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use muster_pki::Roots;
use muster_proto::common::v1::TargetState;
use muster_proto::operator::v1::watch_instruction_response::Update;
use muster_proto::operator::v1::{Instruction, ListClientsRequest, WatchInstructionRequest};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::dev_fleet::DevFleet;
use crate::history::Promise;
use crate::operator::Operator;
use crate::report::{self, Latencies, Quantiles};
use crate::simulated::{self, Shared, Told};
use crate::tls;

/// Handshakes under way at once: enough to keep the Switch busy, few enough that none waits for its deadline.
const CONNECTING_MAX: usize = 64;
/// All sessions together.
const CONNECT_DEADLINE: Duration = Duration::from_secs(180);
/// All answers together.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Idle time before memory is read, so that handshake buffers are given back.
const SETTLE: Duration = Duration::from_secs(2);
/// What devices tell and nobody has read yet.
const TOLD_MAX: usize = 4_096;

/// What to measure.
#[derive(Debug)]
pub struct AskOptions {
    /// How many devices.
    pub sessions: u32,
    /// Against which Switch.
    pub target: Target,
    /// Where to write what was promised.
    pub promises: Option<PathBuf>,
}

/// Against which Switch.
#[derive(Debug)]
pub enum Target {
    /// One that is started for this run.
    Own,
    /// One that runs.
    Running {
        /// Its home.
        home: PathBuf,
        /// Its operator API.
        operator: String,
        /// Its session address.
        switch: String,
        /// Its process.
        pid: Option<u32>,
    },
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct AskReport {
    /// Devices with a session.
    pub sessions: u32,
    /// Devices that were lost or never connected.
    pub dead_sessions: u32,
    /// All handshakes were full ones.
    pub resumed_share: f64,
    /// From the first connection's start to the last welcome.
    pub connect_seconds: f64,
    /// Sessions a second meanwhile.
    pub connects_per_second: f64,
    /// From TCP to welcome.
    pub connect: Quantiles,
    /// Growth of the Switch process' PSS, idle, divided by the sessions; absent where its process is not known.
    pub bytes_per_session: Option<u64>,
    /// From submission until a device holds the order.
    pub order_at_device: Quantiles,
    /// From submission until a device knows that its answer is on the Switch's disk.
    pub answer_acked: Quantiles,
    /// From submission until the operator saw every target accounted for.
    pub complete_seconds: f64,
    /// Targets that answered.
    pub answered: u64,
}

impl AskReport {
    /// Whether every session lived and every device answered.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.dead_sessions == 0 && self.answered == u64::from(self.sessions)
    }
}

impl fmt::Display for AskReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quantiles = |q: &Quantiles| {
            format!("p50 {:.1} ms, p99 {:.1} ms, last {:.1} ms", q.p50_ms, q.p99_ms, q.max_ms)
        };
        writeln!(
            f,
            "sessions            {} ({} dead), all full handshakes",
            self.sessions, self.dead_sessions
        )?;
        writeln!(
            f,
            "connected           in {:.2} s, {:.0} a second",
            self.connect_seconds, self.connects_per_second
        )?;
        writeln!(f, "  each              {}", quantiles(&self.connect))?;
        match self.bytes_per_session {
            Some(bytes) => writeln!(f, "memory a session    {bytes} bytes (PSS of the Switch, idle)")?,
            None => writeln!(f, "memory a session    not known; give --pid")?,
        }
        writeln!(f, "order at devices    {}", quantiles(&self.order_at_device))?;
        writeln!(f, "answer acked        {}", quantiles(&self.answer_acked))?;
        write!(
            f,
            "answered            {} of {}, complete after {:.3} s",
            self.answered, self.sessions, self.complete_seconds
        )
    }
}

/// Runs the scenario.
///
/// # Errors
/// The fleet cannot be started, or a deadline passes.
pub async fn run(options: AskOptions) -> anyhow::Result<AskReport> {
    let (fleet, home, operator, switch, pid) = match options.target {
        Target::Running { home, operator, switch, pid } => (None, home, operator, switch, pid),
        Target::Own => {
            let fleet = tokio::task::spawn_blocking(|| DevFleet::start(0)).await??;
            let ready = fleet.ready.clone();
            let switch = host_and_port(&ready.switch)?;
            (Some(fleet), ready.home, ready.operator, switch, Some(ready.pid.dev))
        }
    };
    let measured = measure(options.sessions, &home, &operator, switch, pid).await;
    if let Some(mut fleet) = fleet {
        tokio::task::spawn_blocking(move || fleet.stop()).await??;
    }
    let (report, promises) = measured?;
    if let Some(path) = options.promises {
        let mut file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
        for promise in promises {
            writeln!(file, "{}", serde_json::to_string(&promise)?)?;
        }
        file.sync_all()?;
    }
    Ok(report)
}

async fn measure(
    sessions: u32,
    home: &Path,
    operator: &str,
    switch: String,
    pid: Option<u32>,
) -> anyhow::Result<(AskReport, Vec<Promise>)> {
    let operator = Operator::connect(home, operator).await?;
    let roots = Roots::from_pem(&std::fs::read(home.join("trust/orders.pem"))?, "trust/orders.pem")?;
    let mut fleet = Fleet::new(Arc::new(Shared::new(switch, roots)));
    let prefix = format!("load-{:08x}", rand::random::<u32>());
    let memory_before = pid.map(report::memory_bytes).transpose()?;
    let (connect, connect_took) = fleet.connect(sessions, home, &prefix).await?;
    tokio::time::sleep(SETTLE).await;
    let memory_after = pid.map(report::memory_bytes).transpose()?;
    wait_until_known(&operator, sessions, &prefix).await?;
    let audience = format!("device.startsWith('{prefix}')");
    let prepared = operator.prepare("SELECT name, version FROM os", &audience).await?;
    if prepared.targets != u64::from(sessions) {
        bail!("the audience holds {} devices, {sessions} are connected", prepared.targets);
    }
    let submitted_at = Instant::now();
    let instruction = operator.submit(&prepared.order, &prefix).await?;
    let mut promises = vec![Promise::Accepted { instruction: instruction.clone() }];
    let watching = tokio::time::timeout(ANSWER_DEADLINE, complete(&operator, &instruction));
    let answers = fleet.answers(sessions, submitted_at, &mut promises);
    let (watched, answers) = tokio::join!(watching, answers);
    let (shown, completed_at) = watched.context("not every target answered in time")??;
    let (order_at_device, answer_acked) = answers?;
    let dead_sessions = fleet.dead;
    fleet.stop().await;
    let per_session =
        |after: u64| memory_before.map(|before| after.saturating_sub(before) / u64::from(sessions));
    let report = AskReport {
        sessions,
        dead_sessions,
        resumed_share: 0.0,
        connect_seconds: connect_took.as_secs_f64(),
        connects_per_second: f64::from(sessions) / connect_took.as_secs_f64(),
        connect,
        bytes_per_session: memory_after.and_then(per_session),
        order_at_device,
        answer_acked,
        complete_seconds: completed_at.duration_since(submitted_at).as_secs_f64(),
        answered: count(&shown, TargetState::Answered),
    };
    Ok((report, promises))
}

/// The simulated devices of one run.
struct Fleet {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    told: mpsc::Receiver<Told>,
    teller: mpsc::Sender<Told>,
    cancelled: CancellationToken,
    dead: u32,
}

impl Fleet {
    fn new(shared: Arc<Shared>) -> Self {
        let (teller, told) = mpsc::channel(TOLD_MAX);
        Self { shared, tasks: JoinSet::new(), told, teller, cancelled: CancellationToken::new(), dead: 0 }
    }

    /// Starts the devices, a bounded number of handshakes at once, and waits until each has a session.
    async fn connect(
        &mut self,
        sessions: u32,
        home: &Path,
        prefix: &str,
    ) -> anyhow::Result<(Quantiles, Duration)> {
        let names: Vec<String> = (0..sessions).map(|n| format!("{prefix}-{n}")).collect();
        let (folder, roots) = (home.to_owned(), tls::server_roots(home)?);
        let identities = tokio::task::spawn_blocking(move || tls::issue_devices(&folder, &names)).await??;
        let configs = identities
            .iter()
            .map(|identity| Ok((identity.name.clone(), tls::client(&roots, identity, &[])?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let places = Arc::new(Semaphore::new(CONNECTING_MAX));
        let started = Instant::now();
        let mut latencies = Latencies::new()?;
        let mut waiting = configs.into_iter();
        let mut connected = 0;
        let deadline = tokio::time::Instant::now() + CONNECT_DEADLINE;
        while connected < sessions {
            while let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                let Some((name, config)) = waiting.next() else { break };
                // The place is given back when the device tells that it is connected.
                place.forget();
                let (shared, told, cancelled) =
                    (Arc::clone(&self.shared), self.teller.clone(), self.cancelled.clone());
                self.tasks.spawn(simulated::run(shared, name, config, told, cancelled));
            }
            let told = tokio::time::timeout_at(deadline, self.told.recv()).await;
            match told.with_context(|| format!("{connected} of {sessions} sessions in time"))? {
                Some(Told::Connected { took }) => {
                    latencies.add(took);
                    connected += 1;
                    places.add_permits(1);
                }
                Some(Told::Failed { device, problem }) => bail!("{device}: {problem}"),
                Some(Told::Ordered { .. } | Told::Acked { .. }) => {}
                None => bail!("the fleet has ended"),
            }
        }
        Ok((latencies.quantiles(), started.elapsed()))
    }

    /// Collects what the devices tell until each has its answer acked.
    async fn answers(
        &mut self,
        sessions: u32,
        submitted_at: Instant,
        promises: &mut Vec<Promise>,
    ) -> anyhow::Result<(Quantiles, Quantiles)> {
        let (mut ordered, mut acked) = (Latencies::new()?, Latencies::new()?);
        let deadline = tokio::time::Instant::now() + ANSWER_DEADLINE;
        let mut left = sessions;
        while left > 0 {
            match tokio::time::timeout_at(deadline, self.told.recv()).await {
                Ok(Some(Told::Ordered { at })) => ordered.add(at.duration_since(submitted_at)),
                Ok(Some(Told::Acked { device, outbox_id, sequence, at })) => {
                    acked.add(at.duration_since(submitted_at));
                    promises.push(Promise::ResultAcked { device, outbox_id, sequence });
                    left -= 1;
                }
                Ok(Some(Told::Failed { .. })) => {
                    self.dead += 1;
                    left -= 1;
                }
                Ok(Some(Told::Connected { .. })) => {}
                Ok(None) => bail!("the fleet has ended"),
                Err(_) => bail!("{left} of {sessions} answers were not acked within {ANSWER_DEADLINE:?}"),
            }
        }
        Ok((ordered.quantiles(), acked.quantiles()))
    }

    async fn stop(mut self) {
        self.cancelled.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// The Switch commits a device before it counts as a target; the last welcome says that it has.
async fn wait_until_known(operator: &Operator, sessions: u32, prefix: &str) -> anyhow::Result<()> {
    let request = ListClientsRequest {
        audience: format!("device.startsWith('{prefix}')"),
        page_size: 1,
        page_token: String::new(),
    };
    let page = operator.clients().list_clients(request).await?.into_inner();
    if page.clients.is_empty() {
        bail!("the Switch knows none of the {sessions} devices");
    }
    Ok(())
}

async fn complete(operator: &Operator, instruction: &str) -> anyhow::Result<(Instruction, Instant)> {
    let request = WatchInstructionRequest { instruction: instruction.to_owned() };
    let mut updates = operator.instructions().watch_instruction(request).await?.into_inner();
    let mut last = None;
    while let Some(response) = updates.message().await? {
        if let Some(Update::Instruction(shown)) = response.update {
            if shown.complete {
                return Ok((shown, Instant::now()));
            }
            last = Some(shown);
        }
    }
    bail!("the watch ended before the instruction was complete: {last:?}")
}

fn count(instruction: &Instruction, state: TargetState) -> u64 {
    instruction.states.iter().filter(|count| count.state() == state).map(|count| count.count).sum()
}

/// The `host:port` of `wss://host:port/…`, on IPv4: the fleet listens there.
pub(crate) fn host_and_port(url: &str) -> anyhow::Result<String> {
    let rest = url.split_once("://").map(|(_, rest)| rest).with_context(|| format!("`{url}` is no URL"))?;
    Ok(rest.split('/').next().unwrap_or(rest).to_owned())
}
