//! `muster-load slow-readers`: one session in ten stops reading until the kernel takes nothing more for it; what the others notice.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::Common;
use super::bench::{Behaviour, Bench};
use super::subject::{QUESTION, Subject, To};
use crate::measure::unsent::{self, Unsent};
use crate::moment::Moment;
use crate::report::{Latencies, Progress};
use crate::server::admin;
use crate::told::sheet::{Column, Figure, Sheet};
use crate::told::svg::Scale;
use crate::worker::protocol::{Awaited, Sent};

/// One in so many reads nothing.
const SLOW_ONE_IN: u32 = 10;
/// Bytes of a message that fills what the kernel holds for slow readers; a question has at most 32 KiB of SQL.
const FILLER_BYTES: usize = 30_000;
/// Messages of a step: few, so that the server itself has little to keep when the kernel refuses.
const FILLERS: u32 = 2;
/// Beyond what the kernel holds for one socket, by default 4 MiB.
const FILLED_BYTES_MAX: u64 = 16 << 20;
/// Until the kernel has what a step wrote; what it has not taken by then it has refused.
const TAKING: Duration = Duration::from_millis(400);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// The Switch adds up what waits every ten seconds.
const TOLD: Duration = Duration::from_secs(14);
/// Until all who read have a message.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a message to a peer, until it is known how many an order has.
const MESSAGE_BYTES: usize = 1_024;

/// The metric of the Switch that shows what waits for slow clients.
const QUEUE_BYTES: &str = "muster_switch_queue_bytes";

/// What one server showed.
struct Measured {
    without: Latencies,
    with: Latencies,
    /// What the kernel holds for a slow reader when it takes no more, and how much was sent to it.
    held: u64,
    filled: u64,
    /// Slow readers for whom something waited in the kernel when the last round was over.
    slow_at_end: usize,
    /// What the server kept itself, by its own metric, at most.
    kept: Option<f64>,
    lost: u32,
}

/// Bytes of messages, as long at a peer as at the Switch.
#[derive(Debug, Clone, Copy)]
struct Bytes {
    message: usize,
    filler: usize,
}

/// Runs the scenario.
pub(crate) async fn run(common: &Common) -> anyhow::Result<Sheet> {
    ensure!(common.sessions >= SLOW_ONE_IN, "--sessions {}: one in ten is none", common.sessions);
    let bench = Bench::open(common).await?;
    let mut sheet = bench.sheet("slow-readers");
    sheet.figures.put("sessions", "sessions", "", Figure::Count(common.sessions.into()));
    let behaviour = Behaviour { slow_one_in: SLOW_ONE_IN, ..Behaviour::default() };
    let mut series = Vec::new();
    let mut bytes = Bytes { message: MESSAGE_BYTES, filler: FILLER_BYTES };
    for mut subject in bench.subjects(common, behaviour).await? {
        subject.connect().await?;
        let measured = measure(&mut subject, common.rounds, &mut bytes).await?;
        let mut column = subject.column();
        let slow = subject.fleet.one_in(SLOW_ONE_IN);
        column.put("slow_readers", "of these read nothing", "", Figure::Count(slow));
        measured.tell(&mut column);
        measured.judge(&subject, &mut sheet);
        series.push((format!("{}, all read", subject.name), measured.without.curve()));
        series.push((format!("{}, one in ten does not", subject.name), measured.with.curve()));
        subject.close(column, &mut sheet).await?;
    }
    sheet.lines(
        "From the submission until a device that reads has it",
        ("ms", "% of devices"),
        Scale::Logarithmic,
        series,
    );
    bench.close(&mut sheet).await?;
    Ok(sheet)
}

async fn measure(subject: &mut Subject, rounds: u32, bytes: &mut Bytes) -> anyhow::Result<Measured> {
    let slow = subject.fleet.one_in(SLOW_ONE_IN);
    let mut without = Latencies::new()?;
    for _ in 0..rounds {
        let pushed = subject.push(1, bytes.message).await?;
        if !subject.is_peer() {
            // Peers get messages as long as its orders, and fillers by as much longer.
            *bytes = Bytes { message: pushed.bytes, filler: pushed.bytes + FILLER_BYTES };
        }
        without.merge(&pushed.latencies.pairs());
    }
    // A server may end who reads nothing, and no other.
    subject.fleet.allow_losses(u32::try_from(slow)?);
    subject.fleet.pause(true).await?;
    let (held, filled) = fill(subject, slow, bytes.filler).await?;
    let refused_at = tokio::time::Instant::now();
    let mut with = Latencies::new()?;
    let mut kept = None;
    for _ in 0..rounds {
        with.merge(&push(subject, bytes.message, u64::from(subject.sessions) - slow).await?.pairs());
        kept = largest(kept, kept_by(subject).await?);
    }
    let slow_at_end = waiting(subject)?.len();
    while subject.place().admin.is_some() && kept == Some(0.0) && refused_at.elapsed() < TOLD {
        tokio::time::sleep(LOOK * 10).await;
        kept = largest(kept, kept_by(subject).await?);
    }
    // Who was ended while it read nothing learns that now, and is counted.
    subject.fleet.pause(false).await?;
    let lost = settle(subject, bytes.message).await?;
    Ok(Measured { without, with, held, filled, slow_at_end, kept, lost })
}

/// Sends to slow readers until the kernel takes no more; gives the bytes that it holds for one, and how many were sent to each.
async fn fill(subject: &mut Subject, slow: u64, bytes: usize) -> anyhow::Result<(u64, u64)> {
    let filler = format!("SELECT '{}' AS filler", "x".repeat(FILLER_BYTES));
    let step = u64::from(FILLERS) * bytes as u64;
    let mut progress = Progress::new("KiB sent to each that reads nothing", u32::MAX);
    let mut filled = 0;
    while filled < FILLED_BYTES_MAX {
        let before: u64 = waiting(subject)?.values().sum();
        let prepared = subject.prepare(FILLERS, To::Slow, u32::try_from(slow)?, &filler).await?;
        subject.send(prepared, bytes).await?;
        filled += step;
        progress.show(u32::try_from(filled >> 10).unwrap_or(u32::MAX));
        let deadline = tokio::time::Instant::now() + TAKING;
        // What a reader's kernel has taken waits nowhere: half of a step is enough to see that it still goes.
        while waiting(subject)?.values().sum::<u64>() < before + step * slow / 2 {
            if tokio::time::Instant::now() > deadline && filled > 2 * step {
                let waits = waiting(subject)?;
                ensure!(!waits.is_empty(), "{}: nothing waits for those who read nothing", subject.name);
                return Ok((waits.values().sum::<u64>() / waits.len() as u64, filled));
            }
            if tokio::time::Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    anyhow::bail!("{}: the kernel still takes more after {FILLED_BYTES_MAX} bytes to each", subject.name)
}

/// What waits in the kernel for the server's sessions.
fn waiting(subject: &Subject) -> anyhow::Result<Unsent> {
    let address = &subject.place().sessions;
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    unsent::of_port(port.with_context(|| format!("{address}: no port"))?)
}

/// What the Switch keeps for its clients; nothing at a peer, and where its metrics are not known.
async fn kept_by(subject: &Subject) -> anyhow::Result<Option<f64>> {
    match &subject.place().admin {
        Some(admin) => Ok(Some(admin::metric(admin, QUEUE_BYTES).await?.iter().sum())),
        None => Ok(None),
    }
}

fn largest(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    [one, other].into_iter().flatten().reduce(f64::max)
}

/// One message to all; gives the latencies of those who read.
async fn push(subject: &mut Subject, bytes: usize, readers: u64) -> anyhow::Result<Latencies> {
    let prepared = subject.prepare(1, To::All, u32::try_from(readers)?, QUESTION).await?;
    subject.fleet.clear().await?;
    let at = Moment::now();
    let sent: Vec<Sent> =
        subject.send(prepared, bytes).await?.into_iter().map(|tag| Sent { tag, at }).collect();
    subject.fleet.wait("had the message", Awaited::Arrivals, readers, PATIENCE).await?;
    let arrived = subject.fleet.arrived(&sent).await?.standing;
    ensure!(arrived.count() == readers, "{} had the message, {readers} read", arrived.count());
    Ok(arrived)
}

/// Sends one more message, until everybody has it or is known to be gone; gives how many are.
async fn settle(subject: &mut Subject, bytes: usize) -> anyhow::Result<u32> {
    let prepared = subject.prepare(1, To::All, 0, QUESTION).await?;
    subject.fleet.clear().await?;
    let at = Moment::now();
    let sent: Vec<Sent> =
        subject.send(prepared, bytes).await?.into_iter().map(|tag| Sent { tag, at }).collect();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let lost = subject.fleet.intact().await?.lost;
        let reached = subject.fleet.arrived(&sent).await?.standing.count();
        if reached + u64::from(lost) >= u64::from(subject.sessions) {
            return Ok(lost);
        }
        ensure!(
            tokio::time::Instant::now() < deadline,
            "{}: {reached} of {} have the last message and {lost} are known to be gone after {PATIENCE:?}",
            subject.name,
            subject.sessions
        );
        tokio::time::sleep(LOOK * 10).await;
    }
}

impl Measured {
    fn tell(&self, column: &mut Column) {
        let words = "bytes that the kernel held for each of them when it refused";
        column.put("held_bytes", words, "bytes", Figure::Count(self.held));
        column.put("filled_bytes", "  of so many that were sent", "bytes", Figure::Count(self.filled));
        if let Some(kept) = self.kept {
            let words = "  and the server kept for all of them, by its metric";
            column.put("queue_bytes", words, "bytes", Figure::Number(kept));
        }
        let words = "  for so many of them when the rounds were over";
        column.put("slow_at_end", words, "", Figure::Count(self.slow_at_end as u64));
        let (without, with) = (self.without.quantiles(), self.with.quantiles());
        column.put("latency_without", "message at devices, all read", "", Figure::Latencies(without));
        column.put("latency_with", "  at the others, where one in ten does not", "", Figure::Latencies(with));
        let ratio = with.p99_ms / without.p99_ms.max(f64::MIN_POSITIVE);
        column.put("p99_with_by_without", "  p99 with ÷ p99 without", "×", Figure::Number(ratio));
        column.put("slow_ended", "slow readers whose session was ended", "", Figure::Count(self.lost.into()));
    }

    /// A run in which nobody was slow shows nothing.
    fn judge(&self, subject: &Subject, sheet: &mut Sheet) {
        if self.slow_at_end == 0 {
            sheet
                .problems
                .push(format!("{}: nobody was slow any more before the rounds were over", subject.name));
        }
        if self.kept == Some(0.0) {
            sheet.problems.push(format!(
                "{}: {QUEUE_BYTES} shows that nothing waited, though the kernel took no more",
                subject.name
            ));
        }
    }
}
