//! `muster-load storm`: the server is killed under its sessions and started again; when all are back, and what those notice
//! who are back already.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::Common;
use super::bench::{Behaviour, Bench};
use super::subject::{QUESTION, Subject, To};
use crate::moment::Moment;
use crate::report::{Latencies, Progress, memory_bytes, resident_bytes};
use crate::simulated::OnOrder;
use crate::tls::Resume;
use crate::told::sheet::{Column, Figure, Series, Sheet};
use crate::told::svg::Scale;
use crate::worker::fleet::Connected;
use crate::worker::protocol::{Counts, Sent};

/// Between two questions to those who have a session.
const EVERY: Duration = Duration::from_millis(250);
/// Questions before the server is killed.
const STEADY: u32 = 8;
/// Until all are back.
const PATIENCE: Duration = Duration::from_secs(300);
/// What the last question is waited for.
const LAST: Duration = Duration::from_secs(10);
/// Between two looks at the sessions.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of a message to a peer, until it is known how many an order has.
const MESSAGE_BYTES: usize = 1_024;

/// What questions showed, and how much memory the server had meanwhile.
struct Watched {
    latencies: Latencies,
    /// Bytes of one question.
    bytes: usize,
    /// Questions, and devices that had a session when one was to be sent and do not have it.
    questions: usize,
    missed: u64,
    /// Seconds since the beginning, bytes.
    memory: Vec<(f64, f64)>,
    /// Seconds since the beginning, sessions.
    standing: Vec<(f64, f64)>,
}

/// What a storm showed.
struct Storm {
    sessions: u32,
    counts: Counts,
    connect_seconds: f64,
    restart_seconds: f64,
    /// From when the server listened; none, if not all came back.
    back_seconds: Option<f64>,
    /// What came back, by which handshakes.
    returned: Connected,
    /// Resident: before, and at most since the restart.
    steady_bytes: u64,
    peak_bytes: u64,
    steady: Watched,
    storm: Watched,
}

/// Runs the scenario.
pub(crate) async fn run(common: &Common) -> anyhow::Result<Sheet> {
    if common.home.is_some() {
        bail!("storm kills the Switch, so it starts one of its own: leave --home away");
    }
    let mut bench = Bench::open(common).await?;
    let mut sheet = bench.sheet("storm");
    sheet.figures.put("sessions", "sessions", "", Figure::Count(common.sessions.into()));
    let behaviour =
        Behaviour { resume: Resume::Last, on_order: OnOrder::Answer, returns: true, ..Behaviour::default() };
    let (mut standing, mut memory) = (Vec::new(), Vec::new());
    let mut bytes = MESSAGE_BYTES;
    for mut subject in bench.subjects(common, behaviour).await? {
        let storm = measure(&mut bench, &mut subject, &mut bytes).await?;
        let mut column = subject.column();
        storm.tell(&mut column);
        let problems = storm.problems().into_iter().map(|problem| format!("{}: {problem}", subject.name));
        sheet.problems.extend(problems);
        let name = subject.name.to_owned();
        standing.push((name.clone(), [storm.steady.standing, storm.storm.standing].concat()));
        memory.push((name, [storm.steady.memory, storm.storm.memory].concat()));
        subject.close(column, &mut sheet).await?;
    }
    let draw = |sheet: &mut Sheet, title: &str, y: &str, series: Vec<Series>| {
        sheet.lines(title, ("seconds", y), Scale::Linear, series);
    };
    draw(&mut sheet, "Sessions through a restart", "sessions", standing);
    draw(&mut sheet, "Memory through a restart", "bytes of PSS", memory);
    bench.close(&mut sheet).await?;
    Ok(sheet)
}

async fn measure(bench: &mut Bench, subject: &mut Subject, bytes: &mut usize) -> anyhow::Result<Storm> {
    let sessions = subject.sessions;
    let connected = subject.connect().await?.connected;
    subject.memory().await?;
    let pid = subject.pid.context("the server has no process")?;
    let started = Instant::now();
    subject.fleet.clear().await?;
    let steady = watch(subject, started, *bytes, |number, _| number >= STEADY).await?;
    *bytes = steady.bytes;
    subject.fleet.intact().await?;
    let (steady_bytes, _) = resident_bytes(pid)?;

    // All of them lose their session, and try until the server is there again.
    subject.fleet.allow_losses(u32::MAX);
    subject.fleet.clear().await?;
    let killed_at = Moment::now();
    let listens_at = bench.restart(subject).await?;
    subject.reconnect().await?;
    let deadline = Instant::now() + PATIENCE;
    let storm =
        watch(subject, started, *bytes, |_, counts| counts.standing == sessions || Instant::now() > deadline)
            .await?;
    let counts = subject.fleet.counts().await?;
    let pid = subject.pid.context("the server has no process")?;
    let (returned, _) = subject.fleet.connecting().await?;
    let all_back = counts.standing == sessions;
    Ok(Storm {
        sessions,
        counts,
        connect_seconds: connected.took.as_secs_f64(),
        restart_seconds: listens_at.since(killed_at).as_secs_f64(),
        back_seconds: all_back.then(|| counts.last_connected.since(listens_at).as_secs_f64()),
        returned,
        steady_bytes,
        peak_bytes: resident_bytes(pid)?.1,
        steady,
        storm,
    })
}

impl Storm {
    fn tell(&self, column: &mut Column) {
        let mut put = |key, words, unit, number| column.put(key, words, unit, Figure::Number(number));
        put("connect_seconds", "all connected, before", "s", self.connect_seconds);
        put(
            "restart_seconds",
            "from the kill until it listens for sessions again",
            "s",
            self.restart_seconds,
        );
        if let Some(back) = self.back_seconds {
            put("back_seconds", "from then until all are back", "s", back);
            put("back_by_connect", "  ÷ the time that connecting took", "×", back / self.connect_seconds);
        }
        let returned = Figure::Latencies(self.returned.latencies.quantiles());
        column.put("return_latency", "  each took, from the attempt that succeeded", "", returned);
        let share = Figure::Number(self.returned.resumed_share());
        column.put("resumed_share", "  share of resumed handshakes", "", share);
        column.put("lost_sessions", "sessions that ended", "", Figure::Count(self.counts.lost.into()));
        let failed = Figure::Count(self.counts.failed.into());
        column.put("failed_attempts", "attempts that gave no session", "", failed);
        column.put("steady_bytes", "memory before (resident)", "bytes", Figure::Count(self.steady_bytes));
        let words = "  its peak until all are back, by the kernel";
        column.put("peak_bytes", words, "bytes", Figure::Count(self.peak_bytes));
        #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
        let by_steady = self.peak_bytes as f64 / self.steady_bytes.max(1) as f64;
        column.put("peak_by_steady", "  peak ÷ before", "×", Figure::Number(by_steady));
        let (before, during) = (self.steady.latencies.quantiles(), self.storm.latencies.quantiles());
        column.put("push_before", "message at devices, before", "", Figure::Latencies(before));
        column.put("push_during", "  at those already back, meanwhile", "", Figure::Latencies(during));
        column.put(
            "questions",
            "  of so many messages meanwhile",
            "",
            Figure::Count(self.storm.questions as u64),
        );
        if during.count > 0 {
            let ratio = during.p99_ms / before.p99_ms.max(f64::MIN_POSITIVE);
            column.put("push_p99_by_before", "  p99 ÷ p99 before", "×", Figure::Number(ratio));
        }
    }

    /// Why it counts for nothing.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.back_seconds.is_none() {
            let standing = self.counts.standing;
            problems.push(format!("{standing} of {} sessions are back after {PATIENCE:?}", self.sessions));
        }
        if self.counts.lost != self.sessions {
            problems.push(format!(
                "{} sessions ended, of {} that the kill ended",
                self.counts.lost, self.sessions
            ));
        }
        for (watched, when) in [(&self.steady, "before"), (&self.storm, "after")] {
            if watched.missed > 0 {
                problems.push(format!(
                    "{} times a device that had a session did not get a message, {when} the kill",
                    watched.missed
                ));
            }
        }
        problems
    }
}

/// Puts a question to all at each tick until it is enough, and tells when devices had it whose session stood: each of them,
/// however late.
async fn watch(
    subject: &mut Subject,
    started: Instant,
    bytes: usize,
    is_enough: impl Fn(u32, &Counts) -> bool,
) -> anyhow::Result<Watched> {
    let (mut memory, mut standing) = (Vec::new(), Vec::new());
    let pid = subject.pid.context("the server has no process")?;
    let mut progress = Progress::new("sessions", subject.sessions);
    let mut sent = Vec::new();
    let (first, first_tick) = (Moment::now(), tokio::time::Instant::now());
    for number in 0.. {
        // Whatever the last one took: each question has its moment.
        let due = EVERY * number;
        let prepared = subject.prepare(1, To::All, 0, QUESTION).await?;
        while first_tick.elapsed() < due {
            tokio::time::sleep(LOOK.min(due.saturating_sub(first_tick.elapsed()))).await;
        }
        let at = first.plus(due);
        sent.extend(subject.send(prepared, bytes).await?.into_iter().map(|tag| Sent { tag, at }));
        let counts = subject.fleet.counts().await?;
        let seconds = started.elapsed().as_secs_f64();
        standing.push((seconds, f64::from(counts.standing)));
        #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
        memory.push((seconds, memory_bytes(pid)? as f64));
        progress.show(counts.standing);
        if is_enough(number, &counts) {
            break;
        }
    }
    drop(progress);
    let deadline = Instant::now() + LAST;
    loop {
        let arrived = subject.fleet.arrived(&sent).await?;
        let missed = arrived.reaches.iter().map(|reach| reach.expected.saturating_sub(reach.reached)).sum();
        if missed == 0 || Instant::now() > deadline {
            let (latencies, bytes) = (arrived.standing, arrived.bytes);
            return Ok(Watched { latencies, bytes, questions: sent.len(), missed, memory, standing });
        }
        tokio::time::sleep(LOOK).await;
    }
}
