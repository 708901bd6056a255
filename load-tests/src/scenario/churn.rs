//! `muster-load churn`: sessions come and go at a rate, while others stand.

use std::time::Duration;

use anyhow::ensure;

use super::Common;
use super::bench::{Behaviour, Bench};
use super::subject::Subject;
use crate::measure::cpu;
use crate::report::{Latencies, Progress};
use crate::tls::Resume;
use crate::told::sheet::{Column, Figure, Sheet};
use crate::told::svg::{Chart, Scale};
use crate::worker::protocol::Awaited;

/// Until the last of a second's sessions stands.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) common: Common,
    pub(crate) per_second: u32,
    pub(crate) seconds: u32,
}

/// Runs the scenario.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Sheet> {
    let Options { common, per_second, seconds } = options;
    ensure!(*per_second <= common.sessions, "--rate {per_second}: at most as many as there are sessions");
    let bench = Bench::open(common).await?;
    let mut sheet = bench.sheet("churn");
    sheet.figures.put("sessions", "sessions", "", Figure::Count(common.sessions.into()));
    sheet.figures.put("rate", "  that come and go a second", "", Figure::Count((*per_second).into()));
    sheet.figures.put("seconds", "  for so many seconds", "", Figure::Count((*seconds).into()));
    let mut series = Vec::new();
    let behaviour = Behaviour { resume: Resume::Last, ..Behaviour::default() };
    for mut subject in bench.subjects(common, behaviour).await? {
        subject.fleet.connect().await?;
        let (column, curve) = measure(&mut subject, *per_second, *seconds).await?;
        series.push((subject.name.to_owned(), curve));
        if subject.is_peer() {
            sheet.peers.push((subject.name, column));
        } else {
            sheet.figures.extend(column);
        }
        subject.close()?;
    }
    sheet.charts.push(Chart::Lines {
        title: "From when a session was to begin until its welcome".to_owned(),
        x: "ms".to_owned(),
        y: "% of sessions".to_owned(),
        scale: Scale::Logarithmic,
        series,
    });
    bench.close()?;
    Ok(sheet)
}

async fn measure(
    subject: &mut Subject,
    per_second: u32,
    seconds: u32,
) -> anyhow::Result<(Column, Vec<(f64, f64)>)> {
    let mut column = Column::default();
    if let Some(version) = &subject.version {
        column.put("version", "version", "", Figure::Text(version.clone()));
    }
    let memory_before = subject.memory().await?;
    let (mut latencies, mut full, mut resumed) = (Latencies::new()?, 0, 0);
    let before = subject.cpu()?;
    let mut progress = Progress::new("seconds of churn", seconds);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    for number in 0..seconds {
        second.tick().await;
        progress.show(number);
        subject.fleet.clear().await?;
        subject.fleet.disconnect(per_second).await?;
        subject.fleet.connect_at_rate(per_second, per_second).await?;
        let all = u64::from(subject.sessions);
        let waited = subject.fleet.wait("connected", Awaited::Standing, all, PATIENCE).await;
        let (took, more_full, more_resumed, problems) = subject.fleet.connecting().await?;
        let counts = waited.map_err(|error| error.context(problems.join("\n")))?;
        ensure!(counts.failed + counts.lost == 0, "{}: {}", subject.name, problems.join("\n"));
        latencies.merge(&took.pairs());
        (full, resumed) = (full + more_full, resumed + more_resumed);
    }
    drop(progress);
    if let (Some(before), Some(after)) = (before, subject.cpu()?) {
        let used = cpu::micros_each(after.saturating_sub(before), full + resumed);
        column.put(
            "cpu_us",
            "CPU of the server for one that comes and one that goes",
            "µs",
            Figure::Number(used),
        );
    }
    let memory = subject.memory().await?;
    column.put("latency", "  from when it was to begin", "", Figure::Latencies(latencies.quantiles()));
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let (share, growth) =
        (resumed as f64 / (full + resumed).max(1) as f64, memory as f64 / memory_before.max(1) as f64);
    column.put("resumed_share", "  share of resumed handshakes", "", Figure::Number(share));
    column.put("memory_by_before", "memory after ÷ before", "×", Figure::Number(growth));
    Ok((column, latencies.curve()))
}
