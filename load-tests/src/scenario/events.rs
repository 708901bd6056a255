//! `muster-load events`: devices report events as fast as their credit lets them; how many are acked a second.

use std::time::Duration;

use anyhow::ensure;

use super::Common;
use super::bench::{Behaviour, Bench};
use super::subject::each;
use crate::moment::Moment;
use crate::report::Latencies;
use crate::told::sheet::{Figure, Sheet};
use crate::told::svg::Scale;
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
    let Options { common, each: events } = options;
    let bench = Bench::open(common).await?;
    let mut sheet = bench.sheet("events");
    let mut subject = bench.switch(common, Behaviour::default()).await?;
    subject.connect().await?;
    let wanted = u64::from(common.sessions) * u64::from(*events);
    let (mut rates, mut costs, mut latencies) = (Vec::new(), Vec::new(), Latencies::new()?);
    for _ in 0..common.rounds {
        subject.quiet().await?;
        subject.fleet.clear().await?;
        let (before, at) = (subject.cpu()?, Moment::now());
        subject.fleet.report(*events).await?;
        subject.fleet.wait("events acked", Awaited::Acks, wanted, PATIENCE).await?;
        let after = subject.cpu_at_rest().await?;
        let acked = subject.fleet.acked(at).await?;
        // One that was acked twice, or of the round before, would make a rate of nothing.
        ensure!(acked.count() == wanted, "{} events were acked, {wanted} reported", acked.count());
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        rates.push(wanted as f64 / (acked.quantiles().max_ms / 1_000.0));
        costs.extend(each(before, after, wanted));
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
    let series = vec![("muster".to_owned(), latencies.curve())];
    sheet.lines("From the report of an event until its ack", ("ms", "% of events"), Scale::Linear, series);
    let column = subject.column();
    subject.close(column, &mut sheet).await?;
    bench.close(&mut sheet).await?;
    Ok(sheet)
}
