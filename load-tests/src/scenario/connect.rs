//! `muster-load connect`: what a connect costs the server, by full and by resumed handshakes, beside the handshake floor.

use anyhow::{Context as _, bail};

use super::Common;
use super::bench::{Behaviour, Bench, Floor};
use super::subject::{ConnectedAt, Subject};
use crate::report::Latencies;
use crate::tls::Resume;
use crate::told::sheet::{Column, Figure, Sheet};
use crate::told::svg::Scale;
use crate::worker::fleet::{HANDSHAKES_AT_ONCE, share};

/// Sessions that come and go before the first round.
const WARM_UP: u32 = 50;

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
    let mut bench = Bench::open(common).await?;
    let mut sheet = bench.sheet("connect");
    let behaviour = Behaviour { resume: Resume::Last, ..Behaviour::default() };
    let mut measured: Vec<Measured> = bench
        .subjects(common, behaviour)
        .await?
        .into_iter()
        .map(|subject| Measured { subject, full: Rounds::default(), resumed: Rounds::default() })
        .collect();
    for one in &mut measured {
        // Lazily built tables count for nobody.
        one.subject.connect_more(WARM_UP.min(common.sessions)).await?;
        one.subject.disconnect().await?;
    }
    let mut full_floors = Vec::new();
    for _ in 0..common.rounds {
        full_floors.push(bench.floor(Floor::FullHandshake).await?);
        bench.floor(Floor::ResumedHandshake).await?;
        for one in &mut measured {
            // Tickets of the round before would be used: devices forget them.
            one.subject.fleet.forget_tickets().await?;
            one.full.add(one.subject.connect().await?)?;
            one.subject.disconnect().await?;
            one.resumed.add(one.subject.connect().await?)?;
            one.subject.disconnect().await?;
        }
    }
    let resumed_floors = bench.floors(Floor::ResumedHandshake);
    sheet.figures.put("sessions", "sessions a round", "", Figure::Count(common.sessions.into()));
    let at_once = u64::from(HANDSHAKES_AT_ONCE);
    sheet.figures.put(
        "at_once",
        "  under way at once: the next begins when one has ended",
        "",
        Figure::Count(at_once),
    );
    sheet.figures.rounds("floor_full_us", "floor: server's half in memory", "µs", &full_floors);
    sheet.figures.rounds("floor_resumed_us", "floor: the same, resumed", "µs", resumed_floors);
    let mut series = Vec::new();
    for Measured { subject, full, resumed } in measured {
        let mut column = subject.column();
        full.tell(&mut column, &FULL, &full_floors);
        if full.by_ticket > 0 {
            sheet.problems.push(format!("{}: {} full connects were resumed", subject.name, full.by_ticket));
        }
        if resumed.by_ticket == resumed.sessions {
            resumed.tell(&mut column, &RESUMED, &full.cpu_micros);
        } else {
            // What is no resumption is not told as one. A peer that has none has no figure; the Switch has to have them.
            let share = Figure::Number(resumed.share());
            column.put("resumed_share", "share of resumed handshakes, where all had tickets", "", share);
            if !subject.is_peer() {
                let (by_ticket, sessions) = (resumed.by_ticket, resumed.sessions);
                sheet.problems.push(format!("{by_ticket} of {sessions} connects with tickets were resumed"));
            }
        }
        for (kind, rounds) in [("full", &full), ("resumed", &resumed)] {
            let curve = rounds.latencies.as_ref().map(Latencies::curve).unwrap_or_default();
            series.push((format!("{}, {kind}", subject.name), curve));
        }
        subject.close(column, &mut sheet).await?;
    }
    sheet.lines("From TCP to welcome", ("ms", "% of sessions"), Scale::Logarithmic, series);
    bench.close(&mut sheet).await?;
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

    /// The share of resumed handshakes.
    fn share(&self) -> f64 {
        share(self.by_ticket, self.sessions)
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
        column.put(share_key, share_words, "", Figure::Number(self.share()));
        if let Some(latencies) = &self.latencies {
            column.put(latency_key, latency_words, "", Figure::Latencies(latencies.quantiles()));
        }
    }
}
