//! `muster-load connect`: what a connect costs the server, by full and by resumed handshakes, beside the handshake floor.

use anyhow::{Context as _, bail};

use super::Common;
use super::bench::{Behaviour, Bench, Floor};
use super::subject::{ConnectedAt, Subject};
use crate::report::Latencies;
use crate::tls::Resume;
use crate::told::sheet::{Column, Figure, Sheet};
use crate::told::svg::{Chart, Scale};

/// What is measured of one server.
struct Measured {
    subject: Subject,
    full: Rounds,
    resumed: Rounds,
}

/// The rounds of one kind of handshake.
#[derive(Default)]
struct Rounds {
    cpu_micros: Vec<f64>,
    per_second: Vec<f64>,
    per_core_second: Vec<f64>,
    latencies: Option<Latencies>,
    sessions: u64,
    by_ticket: u64,
}

/// Runs the scenario.
pub(crate) async fn run(common: &Common) -> anyhow::Result<Sheet> {
    let bench = Bench::open(common).await?;
    let mut sheet = bench.sheet("connect");
    let behaviour = Behaviour { resume: Resume::Last, ..Behaviour::default() };
    let mut measured: Vec<Measured> = bench
        .subjects(common, behaviour)
        .await?
        .into_iter()
        .map(|subject| Measured { subject, full: Rounds::default(), resumed: Rounds::default() })
        .collect();
    for one in &mut measured {
        one.subject.warm_up().await?;
    }
    let (mut full_floors, mut resumed_floors) = (Vec::new(), Vec::new());
    for _ in 0..common.rounds {
        full_floors.push(bench.floor(Floor::FullHandshake).await?.median);
        resumed_floors.push(bench.floor(Floor::ResumedHandshake).await?.median);
        for one in &mut measured {
            // Tickets of the round before would be used: devices forget them.
            one.subject.fleet.forget_tickets().await?;
            one.full.add(one.subject.connect().await?)?;
            one.subject.disconnect().await?;
            one.resumed.add(one.subject.connect().await?)?;
            one.subject.disconnect().await?;
        }
    }
    full_floors.push(bench.floor(Floor::FullHandshake).await?.median);
    sheet.problems.extend(bench.unsteady("a full handshake", &full_floors));
    sheet.figures.put("sessions", "sessions a round", "", Figure::Count(common.sessions.into()));
    sheet.figures.rounds("floor_full_us", "floor: server's half in memory", "µs", &full_floors);
    sheet.figures.rounds("floor_resumed_us", "floor: the same, resumed", "µs", &resumed_floors);
    let mut series = Vec::new();
    for Measured { subject, full, resumed } in measured {
        let mut column = Column::default();
        if let Some(version) = &subject.version {
            column.put("version", "version", "", Figure::Text(version.clone()));
        }
        full.tell(&mut column, &FULL, &full_floors);
        resumed.tell(&mut column, &RESUMED, &full.cpu_micros);
        if subject.is_peer() {
            sheet.peers.push((subject.name, column));
        } else {
            sheet.figures.extend(column);
        }
        for (kind, rounds) in [("full", &full), ("resumed", &resumed)] {
            let curve = rounds.latencies.as_ref().map(Latencies::curve).unwrap_or_default();
            series.push((format!("{}, {kind}", subject.name), curve));
        }
        subject.close()?;
    }
    sheet.charts.push(Chart::Lines {
        title: "From TCP to welcome".to_owned(),
        x: "ms".to_owned(),
        y: "% of sessions".to_owned(),
        scale: Scale::Logarithmic,
        series,
    });
    bench.close()?;
    Ok(sheet)
}

/// How one kind of handshake is told.
struct Words {
    /// CPU, rate, rate of a core, ratio, share, latencies.
    keys: [&'static str; 6],
    words: [&'static str; 6],
}

const FULL: Words = Words {
    keys: [
        "full_cpu_us",
        "full_per_second",
        "full_per_core_second",
        "full_cpu_by_floor",
        "full_resumed_share",
        "full_latency",
    ],
    words: [
        "CPU of the server for a full connect",
        "  connected a second",
        "  a core's worth of them a second",
        "  CPU ÷ floor",
        "  share of resumed handshakes",
        "  each took",
    ],
};

const RESUMED: Words = Words {
    keys: [
        "resumed_cpu_us",
        "resumed_per_second",
        "resumed_per_core_second",
        "resumed_cpu_by_full",
        "resumed_share",
        "resumed_latency",
    ],
    words: [
        "CPU of the server for a connect with tickets",
        "  connected a second",
        "  a core's worth of them a second",
        "  CPU ÷ that of a full connect",
        "  share of resumed handshakes",
        "  each took",
    ],
};

impl Rounds {
    fn add(&mut self, round: ConnectedAt) -> anyhow::Result<()> {
        let cpu = round.cpu_micros.context("the process of the Switch is not known; give --pid")?;
        if cpu <= 0.0 {
            bail!("the server used no CPU: is it the process that takes sessions?");
        }
        self.cpu_micros.push(cpu);
        self.per_second.push(round.per_second);
        self.per_core_second.push(1e6 / cpu);
        self.sessions += round.connected.full + round.connected.resumed;
        self.by_ticket += round.connected.resumed;
        match &mut self.latencies {
            Some(latencies) => latencies.merge(&round.connected.latencies.pairs()),
            None => self.latencies = Some(round.connected.latencies),
        }
        Ok(())
    }

    /// Tells them; ratios are of each round and what is at its place in `divisors`.
    fn tell(&self, column: &mut Column, Words { keys, words }: &Words, divisors: &[f64]) {
        let ratios: Vec<f64> =
            self.cpu_micros.iter().zip(divisors).map(|(cpu, divisor)| cpu / divisor).collect();
        let figures =
            [("µs", &self.cpu_micros), ("", &self.per_second), ("", &self.per_core_second), ("×", &ratios)];
        for ((key, words), (unit, rounds)) in keys.iter().zip(words).zip(figures) {
            column.rounds(key, words, unit, rounds);
        }
        let [.., share_key, latency_key] = keys;
        let [.., share_words, latency_words] = words;
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        let share = self.by_ticket as f64 / self.sessions.max(1) as f64;
        column.put(share_key, share_words, "", Figure::Number(share));
        if let Some(latencies) = &self.latencies {
            column.put(latency_key, latency_words, "", Figure::Latencies(latencies.quantiles()));
        }
    }
}
