//! `muster-load broadcast`: one signed order to all, and what it costs for each, beside a plain write to a socket.

use super::Common;
use super::bench::{Behaviour, Bench, Floor};
use super::subject::{Answering, Subject};
use crate::measure::tcp_floor::Write;
use crate::report::Latencies;
use crate::told::sheet::{Column, Figure, Sheet};
use crate::told::svg::Scale;

/// Bytes of a message to a peer, until it is known how many an order has.
const MESSAGE_BYTES: usize = 1_024;

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) common: Common,
    /// Messages to each at once, besides one alone.
    pub(crate) burst: u32,
}

/// What is measured of one server.
struct Measured {
    subject: Subject,
    one: Rounds,
    burst: Rounds,
}

#[derive(Default)]
struct Rounds {
    cpu_micros: Vec<f64>,
    ack_micros: Vec<f64>,
    prepare_micros: Vec<f64>,
    last_ms: Vec<f64>,
    by_floor: Vec<f64>,
    latencies: Option<Latencies>,
    /// Messages that came to a device once more.
    repeats: u64,
    /// Whether a round did not come to its end.
    failed: bool,
}

/// Runs the scenario.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Sheet> {
    let Options { common, burst } = options;
    let mut bench = Bench::open(common).await?;
    let mut sheet = bench.sheet("broadcast");
    let mut measured = Vec::new();
    let mut bytes = MESSAGE_BYTES;
    for mut subject in bench.subjects(common, Behaviour::default()).await? {
        subject.connect().await?;
        // The first one counts for nothing, but for how long it is: the Switch is the first, and peers get messages as long as its orders.
        bytes = subject.push(1, bytes).await?.bytes;
        measured.push(Measured { subject, one: Rounds::default(), burst: Rounds::default() });
    }
    let single = Floor::TcpWrite(Write { message_bytes: bytes, messages: 1 });
    for _ in 0..common.rounds {
        let floor = bench.floor(single).await?;
        for Measured { subject, one, .. } in &mut measured {
            one.add(subject, 1, bytes, floor).await?;
        }
    }
    let several = Floor::TcpWrite(Write { message_bytes: bytes, messages: *burst });
    let bursts = if *burst > 1 { common.rounds } else { 0 };
    for _ in 0..bursts {
        let floor = bench.floor(several).await?;
        for Measured { subject, burst: many, .. } in &mut measured {
            // What was measured before is told all the same.
            if !many.failed
                && let Err(error) = many.add(subject, *burst, bytes, floor).await
            {
                many.failed = true;
                sheet.problems.push(format!("a burst: {error:#}"));
            }
        }
    }
    sheet.figures.put("sessions", "sessions", "", Figure::Count(common.sessions.into()));
    sheet.figures.put("message_bytes", "bytes of a message", "", Figure::Count(bytes as u64));
    sheet.figures.put("burst", "messages of a burst", "", Figure::Count((*burst).into()));
    sheet.figures.rounds("floor_us", "floor: a message to a TCP socket", "µs", bench.floors(single));
    if bursts > 0 {
        let words = "floor: a message of a burst, all in one write";
        sheet.figures.rounds("burst_floor_us", words, "µs", bench.floors(several));
    }
    tell(&mut sheet, measured).await?;
    bench.close(&mut sheet).await?;
    Ok(sheet)
}

/// Each server's figures, and the charts of all.
async fn tell(sheet: &mut Sheet, measured: Vec<Measured>) -> anyhow::Result<()> {
    let mut series = Vec::new();
    for Measured { subject, one, burst } in measured {
        let mut column = subject.column();
        one.tell(&mut column, &ONE);
        burst.tell(&mut column, &BURST);
        let curve = one.latencies.as_ref().map(Latencies::curve).unwrap_or_default();
        series.push((subject.name.to_owned(), curve));
        subject.close(column, sheet).await?;
    }
    sheet.lines("From the submission until a device has it", ("ms", "% of devices"), Scale::Linear, series);
    sheet.bars("CPU for a message", "µs", "cpu_us");
    Ok(())
}

/// How rounds are told: CPU, that of the ack, that of the preparation, the last device, the ratio, latencies, repeats.
type Words = [(&'static str, &'static str); 7];

const ONE: Words = [
    ("cpu_us", "CPU of the server for a message"),
    ("ack_cpu_us", "  and for its ack, when all have it"),
    ("prepare_cpu_us", "  besides, for each device, to prepare the order"),
    ("last_ms", "  the last device has it after"),
    ("cpu_by_floor", "  CPU ÷ floor"),
    ("latency", "  each took"),
    ("repeats", "  came once more"),
];

const BURST: Words = [
    ("burst_cpu_us", "CPU of the server for a message of a burst"),
    ("burst_ack_cpu_us", "  and for its ack, when all have them"),
    ("burst_prepare_cpu_us", "  besides, for each device, to prepare the order"),
    ("burst_last_ms", "  the last device has the last after"),
    ("burst_cpu_by_floor", "  CPU ÷ floor"),
    ("burst_latency", "  each took"),
    ("burst_repeats", "  came once more"),
];

impl Rounds {
    async fn add(
        &mut self,
        subject: &mut Subject,
        count: u32,
        bytes: usize,
        floor: f64,
    ) -> anyhow::Result<()> {
        let pushed = subject.push_to(subject.sessions, count, bytes, Answering::Afterwards).await?;
        self.ack_micros.extend(pushed.ack_micros);
        self.repeats += pushed.repeats;
        self.last_ms.push(pushed.latencies.quantiles().max_ms);
        if let Some(cpu) = pushed.cpu_micros {
            self.cpu_micros.push(cpu);
            self.by_floor.push(cpu / floor);
        }
        if !subject.is_peer() {
            self.prepare_micros.extend(pushed.prepare_micros);
        }
        match &mut self.latencies {
            Some(latencies) => latencies.merge(&pushed.latencies.pairs()),
            None => self.latencies = Some(pushed.latencies),
        }
        Ok(())
    }

    fn tell(&self, column: &mut Column, words: &Words) {
        let [cpu, ack, prepare, last, ratio, latency, repeats] = words;
        let rounds = [
            (cpu, "µs", &self.cpu_micros),
            (ack, "µs", &self.ack_micros),
            (prepare, "µs", &self.prepare_micros),
            (last, "ms", &self.last_ms),
            (ratio, "×", &self.by_floor),
        ];
        for ((key, words), unit, rounds) in rounds {
            column.rounds(key, words, unit, rounds);
        }
        if let Some(latencies) = &self.latencies {
            column.put(latency.0, latency.1, "", Figure::Latencies(latencies.quantiles()));
            column.put(repeats.0, repeats.1, "", Figure::Count(self.repeats));
        }
    }
}
