//! `muster-load hold`: sessions stand for minutes with nothing but their heartbeats; then all have to answer.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::Common;
use super::bench::{Behaviour, Bench};
use super::subject::{PING_INTERVAL, QUESTION, Subject, To};
use crate::moment::Moment;
use crate::report::{Progress, memory_bytes};
use crate::simulated::OnOrder;
use crate::told::sheet::{Column, Figure, Sheet};
use crate::told::svg::Scale;
use crate::worker::protocol::{Awaited, Sent};

/// Between two readings of memory.
const EVERY: Duration = Duration::from_secs(1);
/// Until all have answered.
const PATIENCE: Duration = Duration::from_secs(120);
/// The jitter of pings: that long after its beginning every session has had one.
const JITTER: f64 = 1.1;

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) common: Common,
    pub(crate) lasts: Duration,
}

/// Runs the scenario.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Sheet> {
    let Options { common, lasts } = options;
    if common.home.is_some() && common.ping_interval.is_some() {
        bail!(
            "--ping-interval is for a Switch of this run's own: leave --home away, or say it in that Switch's configuration"
        );
    }
    let interval = common.ping_interval.unwrap_or(PING_INTERVAL);
    ensure!(
        *lasts > interval.mul_f64(JITTER),
        "--for {lasts:?}: sessions ping every {interval:?}, so not every one would have had a heartbeat"
    );
    let bench = Bench::open(common).await?;
    let mut sheet = bench.sheet("hold");
    sheet.figures.put("sessions", "sessions", "", Figure::Count(common.sessions.into()));
    let behaviour = Behaviour { on_order: OnOrder::Answer, ..Behaviour::default() };
    let mut subject = bench.switch(common, behaviour).await?;
    subject.ping_interval = interval;
    let (connected, bytes) = subject.connect_and_weigh().await?;
    let mut column = subject.column();
    column.put("connect_seconds", "all connected after", "s", Figure::Number(connected.took.as_secs_f64()));
    if let Some(bytes) = bytes {
        column.put("bytes_per_session", "memory of a session (PSS), idle", "bytes", Figure::Count(bytes));
    }
    let memory = hold(&mut subject, *lasts, interval, &mut column).await;
    match memory {
        Ok(memory) => {
            let series = vec![(subject.name.to_owned(), memory)];
            sheet.lines("Memory of the Switch", ("seconds", "bytes of PSS"), Scale::Linear, series);
            if let Err(error) = ask(&mut subject, &mut column).await {
                sheet.problems.push(format!("the question at the end: {error:#}"));
            }
        }
        Err(error) => sheet.problems.push(format!("{error:#}")),
    }
    subject.close(column, &mut sheet).await?;
    bench.close(&mut sheet).await?;
    Ok(sheet)
}

/// Lets heartbeats alone go on; gives the memory meanwhile.
async fn hold(
    subject: &mut Subject,
    lasts: Duration,
    interval: Duration,
    column: &mut Column,
) -> anyhow::Result<Vec<(f64, f64)>> {
    let pid = subject.pid.context("the process of the Switch is not known; give --pid")?;
    subject.quiet().await?;
    subject.fleet.clear().await?;
    let (before, started) = (subject.cpu()?, Instant::now());
    let mut progress = Progress::new("seconds held", u32::try_from(lasts.as_secs()).unwrap_or(u32::MAX));
    let mut memory = Vec::new();
    while started.elapsed() < lasts {
        #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
        memory.push((started.elapsed().as_secs_f64(), memory_bytes(pid)? as f64));
        tokio::time::sleep(EVERY.min(lasts.saturating_sub(started.elapsed()))).await;
        progress.show(u32::try_from(started.elapsed().as_secs()).unwrap_or(u32::MAX));
        // One that dies ends the run now, and not in an hour.
        subject.fleet.intact().await?;
    }
    drop(progress);
    let used = before.zip(subject.cpu()?).map(|(before, after)| after.saturating_sub(before));
    let held = started.elapsed().as_secs_f64();
    let counts = subject.fleet.intact().await?;
    column.put("seconds", "held with heartbeats alone", "s", Figure::Number(held));
    column.put("heartbeats", "  heartbeats", "", Figure::Count(counts.heartbeats));
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let heartbeats = counts.heartbeats as f64;
    if let Some(used) = used {
        let words = "  share of a core of the server";
        column.put("core_share_percent", words, "%", Figure::Number(used.as_secs_f64() / held * 100.0));
        let each = used.as_secs_f64() * 1e6 / heartbeats.max(1.0);
        column.put("heartbeat_cpu_us", "  CPU for each, with all else meanwhile", "µs", Figure::Number(each));
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let bytes = counts.heartbeat_bytes as f64;
    let words = "  bytes of frames for each, ping and pong";
    column.put("heartbeat_bytes", words, "bytes", Figure::Number(bytes / heartbeats.max(1.0)));
    let words = "  bytes of frames a second, all of them";
    column.put("heartbeat_bytes_per_second", words, "bytes", Figure::Number(bytes / held));
    let rounds = (held / interval.mul_f64(JITTER).as_secs_f64()).floor();
    let least = f64::from(subject.sessions) * rounds;
    ensure!(heartbeats >= least, "{heartbeats} heartbeats in {held:.0} s, at least {least} were due");
    if let (Some((_, first)), Some((_, last))) = (memory.first(), memory.last()) {
        let grown = (last - first) / f64::from(subject.sessions);
        column.put("grown_bytes_per_session", "  memory by which each grew", "bytes", Figure::Number(grown));
    }
    Ok(memory)
}

/// One question, which every session has to answer.
async fn ask(subject: &mut Subject, column: &mut Column) -> anyhow::Result<()> {
    let prepared = subject.prepare(1, To::All, subject.sessions, QUESTION).await?;
    subject.fleet.clear().await?;
    let at = Moment::now();
    let tags = subject.send(prepared, 0).await?;
    let all = u64::from(subject.sessions);
    let counts = subject.fleet.wait("answered", Awaited::Acks, all, PATIENCE).await?;
    let sent: Vec<Sent> = tags.into_iter().map(|tag| Sent { tag, at }).collect();
    let arrived = subject.fleet.arrived(&sent).await?;
    ensure!(counts.acks == all, "{} answers were acked, {all} wanted", counts.acks);
    column.put("push", "then a question to all", "", Figure::Latencies(arrived.standing.quantiles()));
    let answers = subject.fleet.acked(at).await?.quantiles();
    column.put("answers", "  and an answer of each, acked", "", Figure::Latencies(answers));
    Ok(())
}
