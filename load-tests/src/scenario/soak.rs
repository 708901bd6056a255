//! `muster-load soak`: minutes of everything at once; memory must stay flat.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::Common;
use super::bench::{Behaviour, Bench};
use super::subject::{QUESTION, Subject, To};
use crate::measure::spread::Spread;
use crate::report::{Progress, memory_bytes};
use crate::simulated::OnOrder;
use crate::tls::Resume;
use crate::told::sheet::{Figure, Sheet};
use crate::told::svg::Scale;
use crate::worker::protocol::Awaited;

/// Between two rounds of the mix.
const EVERY: Duration = Duration::from_secs(1);
/// A question to all in so many rounds.
const QUESTION_EVERY: u32 = 5;
/// An event of each device in so many rounds.
const EVENT_EVERY: u32 = 10;
/// The share of sessions that come and go in each round: one in so many.
const CHURN_ONE_IN: u32 = 100;
/// Memory may differ by so much between the second quarter and the last.
const FLAT: f64 = 1.03;
/// A Switch with few sessions has so little memory that pages of its store would count.
const SPARE_BYTES: f64 = (1 << 20) as f64;
/// In less, nothing is warm: whether memory is flat is not judged.
const JUDGED: Duration = Duration::from_secs(120);
/// What one round waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) common: Common,
    pub(crate) lasts: Duration,
}

/// What was done.
#[derive(Default)]
struct Done {
    questions: u64,
    events: u64,
    comings: u64,
}

/// Runs the scenario.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Sheet> {
    let Options { common, lasts } = options;
    let bench = Bench::open(common).await?;
    let mut sheet = bench.sheet("soak");
    let behaviour = Behaviour { resume: Resume::Last, on_order: OnOrder::Answer, ..Behaviour::default() };
    let mut subject = bench.switch(common, behaviour).await?;
    let pid = subject.pid.context("the process of the Switch is not known; give --pid")?;
    subject.connect().await?;
    let (mut memory, mut done) = (Vec::new(), Done::default());
    let started = Instant::now();
    let seconds = u32::try_from(lasts.as_secs()).unwrap_or(u32::MAX);
    let mut progress = Progress::new("seconds of the mix", seconds);
    let mut ticks = tokio::time::interval(EVERY);
    for number in 0.. {
        ticks.tick().await;
        if started.elapsed() >= *lasts {
            break;
        }
        progress.show(u32::try_from(started.elapsed().as_secs()).unwrap_or(u32::MAX));
        round(&mut subject, number, &mut done).await?;
        #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
        memory.push((started.elapsed().as_secs_f64(), memory_bytes(pid)? as f64));
    }
    drop(progress);
    sheet.figures.put("sessions", "sessions", "", Figure::Count(common.sessions.into()));
    sheet.figures.put("seconds", "seconds", "", Figure::Count(seconds.into()));
    sheet.figures.put("questions", "questions answered by all", "", Figure::Count(done.questions));
    sheet.figures.put("events", "events acked", "", Figure::Count(done.events));
    sheet.figures.put("comings", "sessions that came and went", "", Figure::Count(done.comings));
    let lost = subject.fleet.counts().await?.lost;
    sheet.figures.put("dead_sessions", "sessions that died", "", Figure::Count(lost.into()));
    judge(&mut sheet, &memory, *lasts);
    let series = vec![("muster".to_owned(), memory)];
    sheet.lines("Memory of the Switch", ("seconds", "bytes of PSS"), Scale::Linear, series);
    let column = subject.column();
    subject.close(column, &mut sheet).await?;
    bench.close(&mut sheet).await?;
    Ok(sheet)
}

/// Some sessions come and go, now and then all answer a question, now and then each reports an event.
async fn round(subject: &mut Subject, number: u32, done: &mut Done) -> anyhow::Result<()> {
    subject.fleet.clear().await?;
    let all = u64::from(subject.sessions);
    let churned = subject.sessions.div_ceil(CHURN_ONE_IN);
    subject.fleet.disconnect(churned).await?;
    subject.fleet.connect_more(churned, PATIENCE).await?;
    done.comings += u64::from(churned);
    let mut acks = 0;
    if number.is_multiple_of(QUESTION_EVERY) {
        let prepared = subject.prepare(1, To::All, subject.sessions, QUESTION).await?;
        subject.send(prepared, 0).await?;
        acks += all;
        done.questions += 1;
    }
    if number.is_multiple_of(EVENT_EVERY) {
        subject.fleet.report(1).await?;
        acks += all;
        done.events += all;
    }
    let counts = subject.fleet.wait("answers and events acked", Awaited::Acks, acks, PATIENCE).await?;
    ensure!(counts.acks == acks, "{} answers and events were acked, {acks} wanted", counts.acks);
    Ok(())
}

/// Memory of the second quarter, when all is warm, against that of the last.
fn judge(sheet: &mut Sheet, memory: &[(f64, f64)], lasts: Duration) {
    let quarter = memory.len() / 4;
    let bytes = |range: std::ops::Range<usize>| {
        let bytes: Vec<f64> = memory.get(range).unwrap_or_default().iter().map(|(_, bytes)| *bytes).collect();
        Spread::of(&bytes)
    };
    let (second, last) = (bytes(quarter..2 * quarter), bytes(memory.len() - quarter..memory.len()));
    let (Some(second), Some(last)) = (second, last) else {
        sheet.problems.push("too short to tell whether memory is flat".to_owned());
        return;
    };
    let growth = last.median / second.median.max(1.0);
    sheet.figures.put(
        "second_quarter_bytes",
        "memory in the second quarter",
        "bytes",
        Figure::Rounds(second),
    );
    sheet.figures.put("last_quarter_bytes", "  in the last", "bytes", Figure::Rounds(last));
    sheet.figures.put("memory_growth", "  last ÷ second", "×", Figure::Number(growth));
    if lasts < JUDGED {
        let words = format!("not judged in less than {} s", JUDGED.as_secs());
        sheet.figures.put("memory_is_flat", "  whether it is flat", "", Figure::Text(words));
    } else if last.median > second.median * FLAT + SPARE_BYTES {
        sheet.problems.push(format!("memory grew to {growth:.2} of what it was: it is not flat"));
    }
}
