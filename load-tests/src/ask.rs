//! `muster-load ask`: N simulated devices connect, one question is put to all of them, and the figures are told.
//!
//! Latency counts from the call that submits the order. A device that is lost, or an answer that does not come, fails
//! the run.

mod report;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use muster_proto::common::v1::TargetState;
use muster_proto::operator::v1::Instruction;

pub(crate) use self::report::{AskReport, Round};

use crate::history::Promise;
use crate::measure::cpu;
use crate::moment::Moment;
use crate::scenario::Common;
use crate::scenario::bench::{Behaviour, Bench};
use crate::scenario::subject::Subject;
use crate::simulated::OnOrder;
use crate::worker::protocol::{Awaited, Sent};

/// All answers together.
const ANSWER_DEADLINE: Duration = Duration::from_secs(120);

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct AskOptions {
    pub(crate) common: Common,
    /// Where to write what was promised.
    pub(crate) promises: Option<PathBuf>,
}

/// Runs the scenario.
pub(crate) async fn run(options: &AskOptions) -> anyhow::Result<AskReport> {
    let AskOptions { common, promises: path } = options;
    let bench = Bench::open(common).await?;
    let behaviour =
        Behaviour { on_order: OnOrder::Answer, keeps_promises: path.is_some(), ..Behaviour::default() };
    let mut subject = bench.switch(common, behaviour).await?;
    let memory_before = memory(&subject).await?;
    let connected = subject.connect().await?;
    let memory_after = memory(&subject).await?;
    let (mut promises, mut measured) = (Vec::new(), Vec::new());
    for _ in 0..common.rounds.max(1) {
        measured.push(ask(&mut subject, &mut promises).await?);
    }
    let dead_sessions = subject.fleet.counts().await?.lost;
    let sessions = common.sessions;
    let each = |(before, after): (u64, u64)| after.saturating_sub(before) / u64::from(sessions);
    let complete = || measured.iter().map(|round| round.complete_seconds);
    let (full, resumed) = (connected.connected.full, connected.connected.resumed);
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let resumed_share = resumed as f64 / (full + resumed).max(1) as f64;
    let report = AskReport {
        sessions,
        workers: subject.fleet.workers(),
        dead_sessions,
        resumed_share,
        connect_seconds: connected.connected.took.as_secs_f64(),
        connects_per_second: connected.per_second,
        connect: connected.connected.latencies.quantiles(),
        bytes_per_session: memory_before.zip(memory_after).map(each),
        rounds: common.rounds.max(1),
        complete_seconds_min: complete().fold(f64::INFINITY, f64::min),
        complete_seconds_max: complete().fold(0.0, f64::max),
        round: Round::median(&measured, sessions).context("no round")?.clone(),
    };
    subject.close()?;
    bench.close()?;
    if let Some(path) = path {
        write(path, &promises).with_context(|| path.display().to_string())?;
    }
    Ok(report)
}

async fn memory(subject: &Subject) -> anyhow::Result<Option<u64>> {
    match subject.pid {
        Some(_) => subject.memory().await.map(Some),
        None => Ok(None),
    }
}

/// Puts the question to all devices, and waits until each has answered.
async fn ask(subject: &mut Subject, promises: &mut Vec<Promise>) -> anyhow::Result<Round> {
    let sessions = subject.sessions;
    let prepared = subject.prepare(1, sessions, "SELECT name, version FROM os").await?;
    subject.fleet.clear().await?;
    subject.quiet().await?;
    let (before, at) = (subject.cpu()?, Moment::now());
    let tags = subject.send(prepared, 0).await?;
    let Some(tag) = tags.first().copied() else { bail!("the Switch accepted no order") };
    let instruction = muster_proto::ids::InstructionId::from(tag).to_string();
    promises.push(Promise::Accepted { instruction: instruction.clone() });
    let operator = subject.operator()?.clone();
    let watching = async {
        let shown = tokio::time::timeout(ANSWER_DEADLINE, operator.complete(&instruction)).await;
        shown.map(|shown| (shown, Moment::now()))
    };
    let answering = subject.fleet.wait("answered", Awaited::Acks, sessions.into(), ANSWER_DEADLINE);
    let (watched, answered) = tokio::join!(watching, answering);
    let counts = answered?;
    let (shown, completed_at) = watched.context("not every target answered in time")?;
    subject.quiet().await?;
    let used = before.zip(subject.cpu()?).map(|(before, after)| after.saturating_sub(before));
    if counts.lost > 0 {
        bail!("{} sessions were lost", counts.lost);
    }
    let order_at_device = subject.fleet.arrived(&[Sent { tag, at }]).await?.standing.quantiles();
    let answer_acked = subject.fleet.acked(at).await?.quantiles();
    promises.extend(subject.fleet.promises().await?);
    let complete_seconds = completed_at.since(at).as_secs_f64();
    Ok(Round {
        order_at_device,
        answer_acked,
        complete_seconds,
        answers_per_second: f64::from(sessions) / complete_seconds,
        cpu_us_per_answer: used.map(|used| cpu::micros_each(used, sessions.into())),
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
