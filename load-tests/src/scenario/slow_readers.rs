//! `muster-load slow-readers`: one session in ten stops reading; what the others notice.

use std::time::Duration;

use super::Common;
use super::bench::{Behaviour, Bench};
use super::subject::Subject;
use crate::moment::Moment;
use crate::report::{Latencies, Quantiles};
use crate::told::sheet::{Column, Figure, Sheet};
use crate::told::svg::{Chart, Scale};
use crate::worker::protocol::{Awaited, Sent};

/// One in so many reads nothing.
const SLOW_ONE_IN: u32 = 10;
/// Large messages that fill what the system buffers for slow readers.
const FILLERS: u32 = 8;
/// Bytes of a large message; a question has at most 32 KiB of SQL.
const FILLER_BYTES: usize = 30_000;
/// Until all who read have a message.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one server showed.
struct Measured {
    without: Latencies,
    with: Latencies,
    lost: u32,
}

/// Runs the scenario.
pub(crate) async fn run(common: &Common) -> anyhow::Result<Sheet> {
    let bench = Bench::open(common).await?;
    let mut sheet = bench.sheet("slow-readers");
    let slow = u64::from(common.sessions.div_ceil(SLOW_ONE_IN));
    sheet.figures.put("sessions", "sessions", "", Figure::Count(common.sessions.into()));
    sheet.figures.put("slow_readers", "  of these read nothing", "", Figure::Count(slow));
    let behaviour = Behaviour { slow_one_in: SLOW_ONE_IN, ..Behaviour::default() };
    let mut series = Vec::new();
    for mut subject in bench.subjects(common, behaviour).await? {
        subject.fleet.connect().await?;
        let measured = measure(&mut subject, common.rounds).await?;
        let mut column = Column::default();
        if let Some(version) = &subject.version {
            column.put("version", "version", "", Figure::Text(version.clone()));
        }
        tell(&measured, &mut column);
        series.push((format!("{}, all read", subject.name), measured.without.curve()));
        series.push((format!("{}, one in ten does not", subject.name), measured.with.curve()));
        if subject.is_peer() {
            sheet.peers.push((subject.name, column));
        } else {
            sheet.figures.extend(column);
        }
        subject.close()?;
    }
    sheet.charts.push(Chart::Lines {
        title: "From the submission until a device that reads has it".to_owned(),
        x: "ms".to_owned(),
        y: "% of devices".to_owned(),
        scale: Scale::Logarithmic,
        series,
    });
    bench.close()?;
    Ok(sheet)
}

async fn measure(subject: &mut Subject, rounds: u32) -> anyhow::Result<Measured> {
    let sessions = u64::from(subject.sessions);
    // The workers count their slow readers each for itself.
    let slow = subject.fleet.one_in(SLOW_ONE_IN);
    let mut without = Latencies::new()?;
    for _ in 0..rounds {
        without.merge(&push(subject, "SELECT name, version FROM os", 1_024, sessions).await?.pairs());
    }
    subject.fleet.pause(true).await?;
    let filler = format!("SELECT '{}' AS filler", "x".repeat(FILLER_BYTES));
    for _ in 0..FILLERS {
        push(subject, &filler, FILLER_BYTES, sessions - slow).await?;
    }
    let mut with = Latencies::new()?;
    for _ in 0..rounds {
        with.merge(&push(subject, "SELECT name, version FROM os", 1_024, sessions - slow).await?.pairs());
    }
    let lost = subject.fleet.counts().await?.lost;
    Ok(Measured { without, with, lost })
}

/// One message to all; gives the latencies of those who got it.
async fn push(subject: &mut Subject, sql: &str, bytes: usize, readers: u64) -> anyhow::Result<Latencies> {
    let targets = u32::try_from(readers)?;
    let prepared = subject.prepare(1, targets, sql).await?;
    subject.fleet.clear().await?;
    subject.quiet().await?;
    let at = Moment::now();
    let sent: Vec<Sent> =
        subject.send(prepared, bytes).await?.into_iter().map(|tag| Sent { tag, at }).collect();
    let counts = subject.fleet.wait("had the message", Awaited::Arrivals, readers, PATIENCE).await?;
    let slow = u64::from(subject.sessions) - readers;
    anyhow::ensure!(
        u64::from(counts.lost) <= slow,
        "{}: {} sessions were lost, and only {slow} read nothing",
        subject.name,
        counts.lost
    );
    Ok(subject.fleet.arrived(&sent).await?.standing)
}

fn tell(measured: &Measured, column: &mut Column) {
    let (without, with): (Quantiles, Quantiles) = (measured.without.quantiles(), measured.with.quantiles());
    column.put("latency_without", "message at devices, all read", "", Figure::Latencies(without));
    column.put("latency_with", "  at the others, where one in ten does not", "", Figure::Latencies(with));
    let ratio = with.p99_ms / without.p99_ms.max(f64::MIN_POSITIVE);
    column.put("p99_with_by_without", "  p99 with ÷ p99 without", "×", Figure::Number(ratio));
    column.put("slow_ended", "slow readers whose session was ended", "", Figure::Count(measured.lost.into()));
}
