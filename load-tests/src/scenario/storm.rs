//! `muster-load storm`: the Switch is killed under its sessions and started again; when all are back, and what those notice
//! who are back already.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::Common;
use super::bench::{Behaviour, Bench};
use super::subject::Subject;
use crate::moment::Moment;
use crate::report::{Latencies, Progress, memory_bytes};
use crate::simulated::OnOrder;
use crate::tls::Resume;
use crate::told::sheet::{Figure, Sheet};
use crate::told::svg::{Chart, Scale};
use crate::worker::protocol::{Awaited, Sent};

/// Between two questions to those who have a session.
const EVERY: Duration = Duration::from_millis(250);
/// Questions before the Switch is killed.
const STEADY: u32 = 8;
/// Until all are back.
const PATIENCE: Duration = Duration::from_secs(300);
/// What the last question is waited for.
const LAST: Duration = Duration::from_secs(2);
/// Between two looks at the sessions, and two attempts to reach a Switch that starts.
const LOOK: Duration = Duration::from_millis(20);

/// What questions showed, and how much memory the Switch had meanwhile.
struct Watched {
    latencies: Latencies,
    /// Seconds since the beginning, bytes.
    memory: Vec<(f64, f64)>,
    /// Seconds since the beginning, sessions.
    standing: Vec<(f64, f64)>,
}

/// Runs the scenario.
pub(crate) async fn run(common: &Common) -> anyhow::Result<Sheet> {
    if common.home.is_some() {
        bail!("storm kills the Switch, so it starts one of its own: leave --home away");
    }
    let mut bench = Bench::open(common).await?;
    let mut sheet = bench.sheet("storm");
    let sessions = common.sessions;
    let behaviour =
        Behaviour { resume: Resume::Last, on_order: OnOrder::Answer, returns: true, ..Behaviour::default() };
    let mut subject = bench.switch(common, behaviour).await?;
    subject.warm_up().await?;
    let connected = subject.connect().await?;
    let connect_seconds = connected.connected.took.as_secs_f64();
    let memory_steady = subject.memory().await?;
    let started = Instant::now();
    let steady = watch(&mut subject, started, |number, _| number >= STEADY).await?;

    subject.fleet.clear().await?;
    let (killed, begun) = (Instant::now(), started.elapsed());
    let own = bench.own.as_mut().context("no Switch of its own")?;
    own.kill()?;
    own.restart().await?;
    let listens = Instant::now();
    bench.place = own.place();
    reconnect(&mut subject, &bench.place).await?;
    let mut back = None;
    let storm = watch(&mut subject, started, |_, standing| {
        if standing == sessions && back.is_none() {
            back = Some(listens.elapsed());
        }
        back.is_some() || listens.elapsed() > PATIENCE
    })
    .await?;
    let counts = subject.fleet.counts().await?;

    let storm = Storm {
        sessions,
        standing: counts.standing,
        failed: counts.failed,
        connect_seconds,
        killed_at: begun,
        restart: listens.duration_since(killed),
        back,
        memory_steady,
        steady,
        storm,
    };
    storm.tell(&mut sheet);
    subject.close()?;
    bench.close()?;
    Ok(sheet)
}

/// What a storm showed.
struct Storm {
    sessions: u32,
    standing: u32,
    failed: u32,
    connect_seconds: f64,
    killed_at: Duration,
    restart: Duration,
    /// From when the Switch listened; none, if not all came back.
    back: Option<Duration>,
    memory_steady: u64,
    steady: Watched,
    storm: Watched,
}

impl Storm {
    fn tell(&self, sheet: &mut Sheet) {
        sheet.figures.put("sessions", "sessions", "", Figure::Count(self.sessions.into()));
        sheet.figures.put(
            "connect_seconds",
            "all connected, before",
            "s",
            Figure::Number(self.connect_seconds),
        );
        let restart = self.restart.as_secs_f64();
        sheet.figures.put(
            "restart_seconds",
            "from the kill until it listens again",
            "s",
            Figure::Number(restart),
        );
        match self.back {
            Some(back) => {
                let back = back.as_secs_f64();
                sheet.figures.put("back_seconds", "from then until all are back", "s", Figure::Number(back));
                let ratio = back / self.connect_seconds;
                sheet.figures.put(
                    "back_by_connect",
                    "  ÷ the time that connecting took",
                    "×",
                    Figure::Number(ratio),
                );
            }
            None => sheet
                .problems
                .push(format!("{} of {} sessions are back after {PATIENCE:?}", self.standing, self.sessions)),
        }
        self.tell_cost(sheet);
        let chart = |title: &str, y: &str, curves: [&[(f64, f64)]; 2]| Chart::Lines {
            title: title.to_owned(),
            x: format!("seconds; killed at {:.1}", self.killed_at.as_secs_f64()),
            y: y.to_owned(),
            scale: Scale::Linear,
            series: vec![("muster".to_owned(), curves.concat())],
        };
        sheet.charts.push(chart(
            "Sessions through a restart",
            "sessions",
            [&self.steady.standing, &self.storm.standing],
        ));
        sheet.charts.push(chart(
            "Memory through a restart",
            "bytes of PSS",
            [&self.steady.memory, &self.storm.memory],
        ));
    }

    /// Memory, and what those noticed who were back.
    fn tell_cost(&self, sheet: &mut Sheet) {
        sheet.figures.put("steady_bytes", "memory before (PSS)", "bytes", Figure::Count(self.memory_steady));
        let peak = self.storm.memory.iter().map(|(_, bytes)| *bytes).fold(0.0, f64::max);
        sheet.figures.put("peak_bytes", "  its peak until all are back", "bytes", Figure::Number(peak));
        #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
        let by_steady = peak / self.memory_steady.max(1) as f64;
        sheet.figures.put("peak_by_steady", "  peak ÷ before", "×", Figure::Number(by_steady));
        let (before, during) = (self.steady.latencies.quantiles(), self.storm.latencies.quantiles());
        sheet.figures.put("push_before", "order at devices, before", "", Figure::Latencies(before));
        sheet.figures.put("push_during", "  at those already back, meanwhile", "", Figure::Latencies(during));
        if during.count > 0 {
            let ratio = during.p99_ms / before.p99_ms.max(f64::MIN_POSITIVE);
            sheet.figures.put("push_p99_by_before", "  p99 ÷ p99 before", "×", Figure::Number(ratio));
        }
        sheet.figures.put(
            "failed_attempts",
            "attempts that gave no session",
            "",
            Figure::Count(self.failed.into()),
        );
    }
}

/// Reaches the operator API of a Switch that starts.
async fn reconnect(subject: &mut Subject, place: &crate::server::Place) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match subject.reconnect_operator(place).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Puts a question to all at each tick until it is enough, and tells when devices had it whose session stood.
async fn watch(
    subject: &mut Subject,
    started: Instant,
    mut is_enough: impl FnMut(u32, u32) -> bool,
) -> anyhow::Result<Watched> {
    let mut watched = Watched { latencies: Latencies::new()?, memory: Vec::new(), standing: Vec::new() };
    let pid = subject.pid.context("the Switch has no process")?;
    let mut progress = Progress::new("sessions", subject.sessions);
    let mut sent = Vec::new();
    let (first, first_tick) = (Moment::now(), tokio::time::Instant::now());
    for number in 0.. {
        // Whatever the last one took: each question has its moment.
        let due = EVERY * number;
        let prepared = subject.prepare(1, 0, "SELECT name, version FROM os").await?;
        // Looked at more often than asked, so that the moment at which all are back is known well.
        while first_tick.elapsed() < due {
            is_enough(number, subject.fleet.counts().await?.standing);
            tokio::time::sleep(LOOK.min(due.saturating_sub(first_tick.elapsed()))).await;
        }
        let at = first.plus(due);
        sent.extend(subject.send(prepared, 0).await?.into_iter().map(|tag| Sent { tag, at }));
        let standing = subject.fleet.counts().await?.standing;
        let seconds = started.elapsed().as_secs_f64();
        watched.standing.push((seconds, f64::from(standing)));
        #[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
        watched.memory.push((seconds, memory_bytes(pid)? as f64));
        progress.show(standing);
        if is_enough(number, standing) {
            break;
        }
    }
    // The last question reaches everybody.
    let wanted = u64::from(subject.sessions);
    drop(subject.fleet.wait("had the last question", Awaited::Arrivals, wanted, LAST).await);
    tokio::time::sleep(EVERY).await;
    watched.latencies = subject.fleet.arrived(&sent).await?.standing;
    Ok(watched)
}
