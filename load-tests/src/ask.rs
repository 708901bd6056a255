//! `muster-load ask`: N simulated devices connect, one question is put to all of them, and the figures are told.
//!
//! Latency counts from the call that submits the order. A device that is lost, or an answer that does not come, fails
//! the run.

mod fleet;
mod report;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use muster_pki::Roots;
use muster_proto::common::v1::TargetState;
use muster_proto::operator::v1::Instruction;

pub use self::report::{AskReport, Round};

use self::fleet::{ANSWER_DEADLINE, Fleet};
use crate::dev_fleet::DevFleet;
use crate::history::Promise;
use crate::operator::Operator;
use crate::report::{Progress, memory_bytes};
use crate::simulated::Shared;

/// Idle time before memory is read, so that handshake buffers are given back.
const SETTLE: Duration = Duration::from_secs(2);

/// What to measure.
#[derive(Debug)]
pub struct AskOptions {
    /// How many devices.
    pub sessions: u32,
    /// How often to put the question; the median is told.
    pub rounds: u32,
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

/// Runs the scenario.
///
/// # Errors
/// The fleet cannot be started, or a deadline passes.
pub async fn run(options: AskOptions) -> anyhow::Result<AskReport> {
    let (fleet, home, operator, switch, pid) = match options.target {
        Target::Running { home, operator, switch, pid } => (None, home, operator, switch, pid),
        Target::Own => {
            let starting = Progress::new("starting a Switch", 1);
            let fleet = tokio::task::spawn_blocking(|| DevFleet::start(0)).await??;
            drop(starting);
            let ready = fleet.ready.clone();
            let switch = host_and_port(&ready.switch)?;
            (Some(fleet), ready.home, ready.operator, switch, Some(ready.pid.dev))
        }
    };
    let measured = measure(options.sessions, options.rounds, &home, &operator, switch, pid).await;
    if let Some(mut fleet) = fleet {
        tokio::task::spawn_blocking(move || fleet.stop()).await??;
    }
    let (report, promises) = measured?;
    if let Some(path) = options.promises {
        write(&path, &promises).with_context(|| path.display().to_string())?;
    }
    Ok(report)
}

async fn measure(
    sessions: u32,
    rounds: u32,
    home: &Path,
    operator: &str,
    switch: String,
    pid: Option<u32>,
) -> anyhow::Result<(AskReport, Vec<Promise>)> {
    let operator = Operator::connect(home, operator).await?;
    let roots = Roots::from_pem(&std::fs::read(home.join("trust/orders.pem"))?, "trust/orders.pem")?;
    let mut fleet = Fleet::new(Shared::new(switch, roots));
    let prefix = format!("load-{:08x}", rand::random::<u32>());
    let memory_before = pid.map(memory_bytes).transpose()?;
    let (connect, connect_took) = fleet.connect(sessions, home, &prefix).await?;
    tokio::time::sleep(SETTLE).await;
    let memory_after = pid.map(memory_bytes).transpose()?;
    let (mut promises, mut measured) = (Vec::new(), Vec::new());
    for number in 0..rounds.max(1) {
        let key = format!("{prefix}-{number}");
        let asked = ask(&mut fleet, &operator, sessions, &prefix, &key, &mut promises).await?;
        measured.push(asked);
    }
    let dead_sessions = fleet.dead;
    fleet.stop().await;
    let per_session =
        |after: u64| memory_before.map(|before| after.saturating_sub(before) / u64::from(sessions));
    let complete = || measured.iter().map(|round| round.complete_seconds);
    let report = AskReport {
        sessions,
        dead_sessions,
        resumed_share: 0.0,
        connect_seconds: connect_took.as_secs_f64(),
        connects_per_second: f64::from(sessions) / connect_took.as_secs_f64(),
        connect,
        bytes_per_session: memory_after.and_then(per_session),
        rounds: rounds.max(1),
        complete_seconds_min: complete().fold(f64::INFINITY, f64::min),
        complete_seconds_max: complete().fold(0.0, f64::max),
        round: Round::median(&measured, sessions).context("no round")?.clone(),
    };
    Ok((report, promises))
}

/// Puts the question to all devices, and waits until each has answered.
async fn ask(
    fleet: &mut Fleet,
    operator: &Operator,
    sessions: u32,
    prefix: &str,
    key: &str,
    promises: &mut Vec<Promise>,
) -> anyhow::Result<Round> {
    let audience = format!("device.startsWith('{prefix}')");
    let prepared = operator.prepare("SELECT name, version FROM os", &audience).await?;
    if prepared.targets != u64::from(sessions) {
        bail!("the audience holds {} devices, {sessions} are connected", prepared.targets);
    }
    let envelope = operator.sign(&prepared.order)?;
    let submitted_at = Instant::now();
    let instruction = operator.submit(envelope, key).await?;
    promises.push(Promise::Accepted { instruction: instruction.clone() });
    let watching = async {
        let shown = tokio::time::timeout(ANSWER_DEADLINE, operator.complete(&instruction)).await;
        shown.map(|shown| (shown, Instant::now()))
    };
    let answers = fleet.answers(sessions, submitted_at, promises);
    let (watched, answers) = tokio::join!(watching, answers);
    let (order_at_device, answer_acked) = answers?;
    let (shown, completed_at) = watched.context("not every target answered in time")?;
    Ok(Round {
        order_at_device,
        answer_acked,
        complete_seconds: completed_at.duration_since(submitted_at).as_secs_f64(),
        answered: count(&shown?, TargetState::Answered),
    })
}

fn count(instruction: &Instruction, state: TargetState) -> u64 {
    instruction.states.iter().filter(|count| count.state() == state).map(|count| count.count).sum()
}

fn write(path: &Path, promises: &[Promise]) -> anyhow::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for promise in promises {
        writeln!(file, "{}", serde_json::to_string(promise)?)?;
    }
    Ok(file.into_inner()?.sync_all()?)
}

/// The `host:port` of `wss://host:port/…`.
fn host_and_port(url: &str) -> anyhow::Result<String> {
    let rest = url.split_once("://").map(|(_, rest)| rest).with_context(|| format!("`{url}` is no URL"))?;
    Ok(rest.split('/').next().unwrap_or(rest).to_owned())
}
