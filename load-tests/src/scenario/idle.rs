//! `muster-load idle`: what an idle session costs in memory, after it connected and after traffic.

use anyhow::ensure;

use super::Common;
use super::bench::{Behaviour, Bench};
use super::subject::{Answering, GROWTH_SESSIONS_MIN, Subject, growth};
use crate::told::sheet::{Column, Figure, Sheet};
use crate::told::svg::Scale;

/// Steps of a plot.
const STEPS: [u32; 7] = [1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000];
/// Messages to each before memory is read once more.
const MESSAGES: u32 = 3;
/// Bytes of a message to a peer, until it is known how many an order has.
const MESSAGE_BYTES: usize = 1_024;

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) common: Common,
    /// Whether memory is read at steps on the way.
    pub(crate) plots: bool,
}

/// Runs the scenario.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Sheet> {
    let sessions = options.common.sessions;
    ensure!(
        sessions >= GROWTH_SESSIONS_MIN,
        "--sessions {sessions}: the memory of so few is lost in that of the process; measure {GROWTH_SESSIONS_MIN} at least"
    );
    let bench = Bench::open(&options.common).await?;
    let mut sheet = bench.sheet("idle");
    sheet.figures.put("sessions", "sessions", "", Figure::Count(sessions.into()));
    let mut series = Vec::new();
    let mut bytes = MESSAGE_BYTES;
    for mut subject in bench.subjects(&options.common, Behaviour::default()).await? {
        let mut column = subject.column();
        let mut points = Vec::new();
        let measured = measure(&mut subject, options.plots, &mut bytes, &mut column, &mut points).await;
        if let Err(error) = measured {
            // What was read before is told all the same.
            sheet.problems.push(format!("{}: {error:#}", subject.name));
        }
        series.push((subject.name.to_owned(), points));
        subject.close(column, &mut sheet).await?;
    }
    if options.plots {
        sheet.lines("Memory against sessions", ("sessions", "bytes of PSS"), Scale::Linear, series);
    }
    sheet.bars("Memory of an idle session", "bytes of PSS for each", "bytes_per_session");
    bench.close(&mut sheet).await?;
    Ok(sheet)
}

/// Reads memory with a tenth of the sessions, all of which had messages, and with all; `bytes` are those of a message, which peers
/// get as long as the Switch's orders are.
async fn measure(
    subject: &mut Subject,
    plots: bool,
    bytes: &mut usize,
    column: &mut Column,
    points: &mut Vec<(f64, f64)>,
) -> anyhow::Result<()> {
    let sessions = subject.sessions;
    let tenth = sessions / 10;
    subject.connect_more(tenth).await?;
    traffic(subject, tenth, bytes).await?;
    let base = subject.memory().await?;
    points.push((f64::from(tenth), number(base)));
    let each = |memory: u64| growth((tenth, base), (sessions, memory));
    let steps = STEPS.into_iter().filter(|step| plots && *step > tenth && *step < sessions);
    let (mut standing, mut memory) = (tenth, base);
    for step in steps.chain([sessions]) {
        subject.connect_more(step - standing).await?;
        standing = step;
        memory = subject.memory().await?;
        points.push((f64::from(step), number(memory)));
    }
    let idle = each(memory)?;
    column.put("bytes_per_session", "memory of a session (PSS), idle", "bytes", Figure::Count(idle));
    traffic(subject, sessions, bytes).await?;
    let after = subject.memory().await?;
    column.put(
        "bytes_per_session_after_traffic",
        "  after messages to each",
        "bytes",
        Figure::Count(each(after)?),
    );
    column.put("process_bytes", "memory of the process with all of them", "bytes", Figure::Count(after));
    column.put("process_bytes_tenth", "  with a tenth of them", "bytes", Figure::Count(base));
    Ok(())
}

/// Some messages to each of those who have a session.
async fn traffic(subject: &mut Subject, standing: u32, bytes: &mut usize) -> anyhow::Result<()> {
    for _ in 0..MESSAGES {
        let pushed = subject.push_to(standing, 1, *bytes, Answering::AtOnce).await?;
        if !subject.is_peer() {
            *bytes = pushed.bytes;
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a process are far below 2^53")]
fn number(bytes: u64) -> f64 {
    bytes as f64
}
