//! `muster-load ask`: N simulated devices connect, one question is put to all of them, and the figures are told.
//!
//! Latency counts from the call that submits the order. A device that is lost, or an answer that does not come, fails
//! the run. A peer's devices answer a message as long as the order with one as long as its name, which nobody stores.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use muster_proto::common::v1::TargetState;
use muster_proto::operator::v1::Instruction;

use crate::history::Promise;
use crate::moment::Moment;
use crate::report::Latencies;
use crate::scenario::Common;
use crate::scenario::bench::{Behaviour, Bench};
use crate::scenario::subject::{QUESTION, Subject, To, each};
use crate::simulated::OnOrder;
use crate::told::sheet::{Column, Figure, Sheet};
use crate::told::svg::Scale;
use crate::worker::protocol::{Awaited, Sent};

/// All answers together.
const ANSWER_DEADLINE: Duration = Duration::from_secs(120);
/// Bytes of a message to a peer, until it is known how many an order has.
const MESSAGE_BYTES: usize = 1_024;

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct AskOptions {
    pub(crate) common: Common,
    /// Where to write what was promised.
    pub(crate) promises: Option<PathBuf>,
}

/// One question put to all devices. Latencies count from the call that submits the order.
struct Round {
    /// Until a device holds the order.
    order_at_device: Latencies,
    /// Until a device knows that its answer is on the Switch's disk; nothing at a peer, which stores nothing.
    answer_acked: Option<Latencies>,
    /// Until the operator saw every target accounted for, or has every answer of a peer's devices.
    complete_seconds: f64,
    /// CPU time of the server for one of them; none where its process is not known.
    cpu_us_per_answer: Option<f64>,
    /// Targets that answered.
    answered: u64,
    /// The bytes of the order.
    bytes: usize,
}

/// Runs the scenario.
pub(crate) async fn run(options: &AskOptions) -> anyhow::Result<Sheet> {
    let AskOptions { common, promises: path } = options;
    let bench = Bench::open(common).await?;
    let mut sheet = bench.sheet("ask");
    let behaviour =
        Behaviour { on_order: OnOrder::Answer, keeps_promises: path.is_some(), ..Behaviour::default() };
    let (mut promises, mut series, mut bytes) = (Vec::new(), Vec::new(), MESSAGE_BYTES);
    sheet.figures.put("sessions", "sessions", "", Figure::Count(common.sessions.into()));
    for mut subject in bench.subjects(common, behaviour).await? {
        let mut column = subject.column();
        tell_connect(&mut subject, &mut column).await?;
        let mut rounds = Vec::new();
        for _ in 0..common.rounds {
            let round = if subject.is_peer() {
                ask_peer(&mut subject, bytes).await?
            } else {
                ask(&mut subject, &mut promises).await?
            };
            if !subject.is_peer() {
                bytes = round.bytes;
            }
            rounds.push(round);
        }
        let dead = subject.fleet.counts().await?.lost;
        column.put("dead_sessions", "  that died", "", Figure::Count(dead.into()));
        let median = median(&rounds, common.sessions).context("no round")?;
        tell(median, &rounds, &mut column);
        if median.answered != u64::from(common.sessions) {
            sheet
                .problems
                .push(format!("{}: {} of {} answered", subject.name, median.answered, common.sessions));
        }
        series.push((format!("{}, order", subject.name), median.order_at_device.curve()));
        series.extend(
            median.answer_acked.as_ref().map(|acked| (format!("{}, ack", subject.name), acked.curve())),
        );
        subject.close(column, &mut sheet).await?;
    }
    sheet.lines("From the submission, at devices", ("ms", "% of devices"), Scale::Linear, series);
    bench.close(&mut sheet).await?;
    if let Some(path) = path {
        write(path, &promises).with_context(|| path.display().to_string())?;
    }
    Ok(sheet)
}

/// Has all connect.
async fn tell_connect(subject: &mut Subject, column: &mut Column) -> anyhow::Result<()> {
    let (connected, bytes) = subject.connect_and_weigh().await?;
    let seconds = connected.took.as_secs_f64();
    column.put("workers", "  in so many processes", "", Figure::Count(subject.fleet.workers() as u64));
    column.put(
        "resumed_share",
        "  share of resumed handshakes",
        "",
        Figure::Number(connected.resumed_share()),
    );
    column.put("connect_seconds", "all connected after", "s", Figure::Number(seconds));
    let per_second = f64::from(subject.sessions) / seconds;
    column.put("connects_per_second", "  a second", "", Figure::Number(per_second));
    column.put("connect", "  each took", "", Figure::Latencies(connected.latencies.quantiles()));
    if let Some(bytes) = bytes {
        let words = "memory of a session (PSS), idle";
        column.put("bytes_per_session", words, "bytes", Figure::Count(bytes));
    }
    Ok(())
}

fn tell(round: &Round, rounds: &[Round], column: &mut Column) {
    column.put(
        "order_at_device",
        "order at devices",
        "",
        Figure::Latencies(round.order_at_device.quantiles()),
    );
    if let Some(acked) = &round.answer_acked {
        column.put("answer_acked", "answer committed and acked", "", Figure::Latencies(acked.quantiles()));
    }
    column.put("answered", "devices that answered", "", Figure::Count(round.answered));
    let seconds = || rounds.iter().map(|round| round.complete_seconds);
    let mut put = |key, words, unit, number| column.put(key, words, unit, Figure::Number(number));
    put("complete_seconds", "  all accounted for after, median", "s", round.complete_seconds);
    put("complete_seconds_min", "  the shortest", "s", seconds().fold(f64::INFINITY, f64::min));
    put("complete_seconds_max", "  the longest", "s", seconds().fold(0.0, f64::max));
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let per_second = round.answered as f64 / round.complete_seconds;
    put("answers_per_second", "  answers a second", "", per_second);
    if let Some(cpu) = round.cpu_us_per_answer {
        put("cpu_us_per_answer", "  CPU of the server for each", "µs", cpu);
    }
    column.put("rounds", "rounds", "", Figure::Count(rounds.len() as u64));
}

/// Puts the question to all devices of the Switch, and waits until each has answered.
async fn ask(subject: &mut Subject, promises: &mut Vec<Promise>) -> anyhow::Result<Round> {
    let sessions = subject.sessions;
    let prepared = subject.prepare(1, To::All, sessions, QUESTION).await?;
    subject.fleet.clear().await?;
    let before = subject.cpu_at_rest().await?;
    let at = Moment::now();
    let tags = subject.send(prepared, 0).await?;
    let Some(tag) = tags.first().copied() else { bail!("the Switch accepted no order") };
    let instruction = muster_proto::ids::InstructionId::from(tag).to_string();
    promises.push(Promise::Accepted { instruction: instruction.clone() });
    let operator = subject.operator()?.clone();
    let watching = async {
        let shown = tokio::time::timeout(ANSWER_DEADLINE, operator.complete(&instruction)).await;
        let shown = shown.context("not every target answered in time")??;
        anyhow::Ok((shown, Moment::now()))
    };
    let answering = subject.fleet.wait("answered", Awaited::Acks, sessions.into(), ANSWER_DEADLINE);
    // Who is lost ends it now: the Switch would wait for the answer.
    let ((shown, completed_at), _) = tokio::try_join!(watching, answering)?;
    let after = subject.cpu_at_rest().await?;
    let arrived = subject.fleet.arrived(&[Sent { tag, at }]).await?;
    let answer_acked = subject.fleet.acked(at).await?;
    let (orders, acks) = (arrived.standing.count(), answer_acked.count());
    ensure!(
        (orders, acks) == (sessions.into(), sessions.into()),
        "{orders} devices had the order and {acks} answers were acked, where {sessions} were asked"
    );
    promises.extend(subject.fleet.promises().await?);
    Ok(Round {
        order_at_device: arrived.standing,
        answer_acked: Some(answer_acked),
        complete_seconds: completed_at.since(at).as_secs_f64(),
        cpu_us_per_answer: each(before, after, sessions.into()),
        answered: count(&shown, TargetState::Answered),
        bytes: arrived.bytes,
    })
}

/// Sends a message to all devices of a peer, and waits until each answer is there.
async fn ask_peer(subject: &mut Subject, bytes: usize) -> anyhow::Result<Round> {
    let sessions = u64::from(subject.sessions);
    let prepared = subject.prepare(1, To::All, 0, QUESTION).await?;
    subject.fleet.clear().await?;
    let before = subject.cpu_at_rest().await?;
    let (answers, at) = (subject.answers(), Moment::now());
    let tags = subject.send(prepared, bytes).await?;
    subject.wait_for_answers(answers + sessions, ANSWER_DEADLINE).await?;
    let completed_at = Moment::now();
    let after = subject.cpu_at_rest().await?;
    let sent: Vec<Sent> = tags.into_iter().map(|tag| Sent { tag, at }).collect();
    let arrived = subject.fleet.arrived(&sent).await?;
    Ok(Round {
        answered: arrived.standing.count(),
        order_at_device: arrived.standing,
        answer_acked: None,
        complete_seconds: completed_at.since(at).as_secs_f64(),
        cpu_us_per_answer: each(before, after, sessions),
        bytes: arrived.bytes,
    })
}

/// Of several rounds the median by the time until complete, or the first in which somebody did not answer: a
/// median hides no failure. `None` without a round.
fn median(rounds: &[Round], sessions: u32) -> Option<&Round> {
    if let Some(failed) = rounds.iter().find(|round| round.answered != u64::from(sessions)) {
        return Some(failed);
    }
    let mut sorted: Vec<&Round> = rounds.iter().collect();
    sorted.sort_by(|a, b| a.complete_seconds.total_cmp(&b.complete_seconds));
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn round(complete_seconds: f64, answered: u64) -> Round {
        Round {
            order_at_device: Latencies::new().unwrap(),
            answer_acked: None,
            complete_seconds,
            cpu_us_per_answer: None,
            answered,
            bytes: 0,
        }
    }

    #[test]
    fn the_median_round_is_told_unless_one_failed() {
        let good = [round(3.0, 5), round(1.0, 5), round(2.0, 5)];
        let failed = [round(3.0, 5), round(1.0, 4), round(2.0, 5)];

        assert!((median(&good, 5).unwrap().complete_seconds - 2.0).abs() < 1e-9);
        assert_eq!(median(&failed, 5).unwrap().answered, 4);
        assert!(median(&[], 5).is_none());
    }
}
