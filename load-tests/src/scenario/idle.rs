//! `muster-load idle`: what an idle session costs in memory, after it connected and after traffic.

use crate::told::sheet::Sheet;
use crate::told::sheet::{Column, Figure};
use crate::told::svg::{Chart, Scale};

use super::Common;
use super::bench::{Behaviour, Bench};
use super::subject::Subject;

/// Steps of a plot.
const STEPS: [u32; 7] = [1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000];
/// Messages to each before memory is read once more.
const MESSAGES: u32 = 3;

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) common: Common,
    /// Whether memory is read at steps on the way.
    pub(crate) plots: bool,
}

/// Runs the scenario.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Sheet> {
    let bench = Bench::open(&options.common).await?;
    let mut sheet = bench.sheet("idle");
    let sessions = options.common.sessions;
    sheet.figures.put("sessions", "sessions", "", Figure::Count(sessions.into()));
    let mut series = Vec::new();
    let mut bytes = 1_024;
    for subject in bench.subjects(&options.common, Behaviour::default()).await? {
        let name = subject.name;
        let (column, points, message) = measure(subject, options.plots, bytes).await?;
        series.push((name.to_owned(), points));
        if name == "muster" {
            // Peers get messages as long as its orders.
            bytes = message;
            sheet.figures.extend(column);
        } else {
            sheet.peers.push((name, column));
        }
    }
    if options.plots {
        sheet.charts.push(Chart::Lines {
            title: "Memory of an idle session".to_owned(),
            x: "sessions".to_owned(),
            y: "bytes of PSS for each".to_owned(),
            scale: Scale::Logarithmic,
            series,
        });
    }
    let bars = std::iter::once(("muster", &sheet.figures))
        .chain(sheet.peers.iter().map(|(name, column)| (*name, column)));
    let bar = |(name, column): (&str, &Column)| {
        Some((name.to_owned(), column.figure("bytes_per_session")?.number()?))
    };
    sheet.charts.push(Chart::Bars {
        title: format!("Memory of one of {sessions} idle sessions"),
        y: "bytes of PSS for each".to_owned(),
        bars: bars.filter_map(bar).collect(),
    });
    bench.close()?;
    Ok(sheet)
}

async fn measure(
    mut subject: Subject,
    plots: bool,
    bytes: usize,
) -> anyhow::Result<(Column, Vec<(f64, f64)>, usize)> {
    let mut column = Column::default();
    if let Some(version) = &subject.version {
        column.put("version", "version", "", Figure::Text(version.clone()));
    }
    subject.warm_up().await?;
    let base = subject.memory().await?;
    let sessions = subject.sessions;
    let each = |memory: u64, sessions: u32| memory.saturating_sub(base) / u64::from(sessions.max(1));
    let mut points = Vec::new();
    let steps = STEPS.into_iter().filter(|step| plots && *step < sessions);
    let mut standing = 0;
    for step in steps.chain([sessions]) {
        subject.fleet.connect_more(step - standing, super::subject::CONNECT_DEADLINE).await?;
        standing = step;
        let bytes = each(subject.memory().await?, step);
        points.push((f64::from(step), number(bytes)));
        if step == sessions {
            column.put("bytes_per_session", "memory of a session (PSS), idle", "bytes", Figure::Count(bytes));
        }
    }
    let mut message = bytes;
    for _ in 0..MESSAGES {
        message = subject.push(1, bytes).await?.bytes;
    }
    let after = each(subject.memory().await?, sessions);
    column.put("bytes_per_session_after_traffic", "  after messages to each", "bytes", Figure::Count(after));
    column.put(
        "process_bytes",
        "memory of the process with all of them",
        "bytes",
        Figure::Count(base + after * u64::from(sessions)),
    );
    column.put("process_bytes_before", "  before the first", "bytes", Figure::Count(base));
    let lost = subject.fleet.counts().await?.lost;
    if lost > 0 {
        anyhow::bail!("{}: {lost} sessions died", subject.name);
    }
    subject.close()?;
    Ok((column, points, message))
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a session are far below 2^53")]
fn number(bytes: u64) -> f64 {
    bytes as f64
}
