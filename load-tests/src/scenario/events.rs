//! `muster-load events`: devices report events as fast as their credit lets them; how many are acked a second.

use std::time::Duration;

use super::Common;
use super::bench::{Behaviour, Bench};
use crate::measure::cpu;
use crate::moment::Moment;
use crate::report::Latencies;
use crate::told::sheet::{Figure, Sheet};
use crate::told::svg::{Chart, Scale};
use crate::worker::protocol::Awaited;

/// Until the last event of a round is acked.
const PATIENCE: Duration = Duration::from_secs(120);

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) common: Common,
    /// Events of each device and round.
    pub(crate) each: u32,
}

/// Runs the scenario.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Sheet> {
    let Options { common, each } = options;
    let bench = Bench::open(common).await?;
    let mut sheet = bench.sheet("events");
    let mut subject = bench.switch(common, Behaviour::default()).await?;
    subject.fleet.connect().await?;
    let wanted = u64::from(common.sessions) * u64::from(*each);
    let (mut rates, mut costs, mut latencies) = (Vec::new(), Vec::new(), Latencies::new()?);
    for _ in 0..common.rounds {
        subject.quiet().await?;
        subject.fleet.clear().await?;
        let (before, at) = (subject.cpu()?, Moment::now());
        subject.fleet.report(*each).await?;
        let counts = subject.fleet.wait("events acked", Awaited::Acks, wanted, PATIENCE).await?;
        anyhow::ensure!(counts.lost == 0, "{} sessions were lost", counts.lost);
        let acked = subject.fleet.acked(at).await?;
        subject.quiet().await?;
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        rates.push(wanted as f64 / (acked.quantiles().max_ms / 1_000.0));
        if let (Some(before), Some(after)) = (before, subject.cpu()?) {
            costs.push(cpu::micros_each(after.saturating_sub(before), wanted));
        }
        latencies.merge(&acked.pairs());
    }
    sheet.figures.put("sessions", "sessions", "", Figure::Count(common.sessions.into()));
    sheet.figures.put("events", "events of a round", "", Figure::Count(wanted));
    sheet.figures.rounds("events_per_second", "events committed and acked a second", "", &rates);
    sheet.figures.rounds("cpu_us", "CPU of the Switch for an event", "µs", &costs);
    sheet.figures.put(
        "latency",
        "from the report until its ack",
        "",
        Figure::Latencies(latencies.quantiles()),
    );
    sheet.charts.push(Chart::Lines {
        title: "From the report of an event until its ack".to_owned(),
        x: "ms".to_owned(),
        y: "% of events".to_owned(),
        scale: Scale::Linear,
        series: vec![("muster".to_owned(), latencies.curve())],
    });
    subject.close()?;
    bench.close()?;
    Ok(sheet)
}
