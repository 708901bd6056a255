//! `muster-load churn`: sessions come and go at a rate, while others stand.

use std::time::Duration;

use anyhow::ensure;

use super::Common;
use super::bench::{Behaviour, Bench};
use super::subject::{Subject, each};
use crate::report::Latencies;
use crate::tls::Resume;
use crate::told::sheet::{Column, Figure, Sheet};
use crate::told::svg::Scale;
use crate::worker::protocol::Awaited;

/// Beyond the time that the schedule takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Devices that are free to come, of those of so many seconds.
const SPARE_SECONDS: u32 = 2;
/// The share of the rate that a server has to reach; below, what is measured is another rate.
const REACHED: f64 = 0.95;

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) common: Common,
    pub(crate) per_second: u32,
    pub(crate) seconds: u32,
}

/// What one server showed.
struct Measured {
    latencies: Latencies,
    per_second: f64,
    memory_by_before: f64,
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
    let spare = per_second.saturating_mul(SPARE_SECONDS);
    let behaviour = Behaviour { resume: Resume::Last, spare, ..Behaviour::default() };
    for mut subject in bench.subjects(common, behaviour).await? {
        subject.connect().await?;
        let mut column = subject.column();
        let measured = measure(&mut subject, options, &mut column).await?;
        column.put("per_second", "sessions that came a second", "", Figure::Number(measured.per_second));
        let words = "memory after ÷ before";
        column.put("memory_by_before", words, "×", Figure::Number(measured.memory_by_before));
        if measured.per_second < f64::from(*per_second) * REACHED {
            sheet.problems.push(format!(
                "{}: {:.1} sessions came a second where --rate is {per_second}",
                subject.name, measured.per_second
            ));
        }
        series.push((subject.name.to_owned(), measured.latencies.curve()));
        subject.close(column, &mut sheet).await?;
    }
    sheet.lines(
        "From when a session was to begin until its welcome",
        ("ms", "% of sessions"),
        Scale::Logarithmic,
        series,
    );
    bench.close(&mut sheet).await?;
    Ok(sheet)
}

/// One schedule for all of it: who comes late waits in the latencies, and moves nobody else's moment.
async fn measure(subject: &mut Subject, options: &Options, column: &mut Column) -> anyhow::Result<Measured> {
    let Options { per_second, seconds, .. } = options;
    let memory_before = subject.memory().await?;
    let count = per_second * seconds;
    subject.fleet.clear().await?;
    let before = subject.cpu()?;
    let begun = subject.fleet.churn(count, *per_second).await?;
    let within = Duration::from_secs((*seconds).into()) + PATIENCE;
    let counts = subject.fleet.wait("came and went", Awaited::Connected, count.into(), within).await?;
    let after = subject.cpu_at_rest().await?;
    let (connected, _) = subject.fleet.connecting().await?;
    if let Some(used) = each(before, after, count.into()) {
        let words = "CPU of the server for one that comes and one that goes";
        column.put("cpu_us", words, "µs", Figure::Number(used));
    }
    let quantiles = connected.latencies.quantiles();
    column.put("latency", "  from when it was to begin", "", Figure::Latencies(quantiles));
    let share = connected.resumed_share();
    column.put("resumed_share", "  share of resumed handshakes", "", Figure::Number(share));
    let memory = subject.memory().await?;
    #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
    let memory_by_before = memory as f64 / memory_before.max(1) as f64;
    let took = counts.last_connected.since(begun).as_secs_f64();
    let per_second = f64::from(count) / took.max(f64::from(*seconds));
    Ok(Measured { latencies: connected.latencies, per_second, memory_by_before })
}
