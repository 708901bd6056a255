//! `muster-load broadcast`: one signed order to all, and what it costs for each, beside a plain write to a socket.

use super::Common;
use super::bench::{Behaviour, Bench, Floor};
use super::subject::Subject;
use crate::report::Latencies;
use crate::told::sheet::{Column, Figure, Sheet};
use crate::told::svg::{Chart, Scale};

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
    let bench = Bench::open(common).await?;
    let mut sheet = bench.sheet("broadcast");
    let mut measured = Vec::new();
    for mut subject in bench.subjects(common, Behaviour::default()).await? {
        subject.fleet.connect().await?;
        measured.push(Measured { subject, one: Rounds::default(), burst: Rounds::default() });
    }
    let (mut floors, mut bytes) = (Vec::new(), 1_024);
    for _ in 0..common.rounds {
        let floor = bench.floor(Floor::TcpWrite).await?.median;
        floors.push(floor);
        for Measured { subject, one, .. } in &mut measured {
            // The Switch is the first: peers get messages as long as its orders.
            bytes = one.add(subject, 1, bytes, floor).await?;
        }
    }
    let bursts = if *burst > 1 { common.rounds } else { 0 };
    for _ in 0..bursts {
        let floor = bench.floor(Floor::TcpWrite).await?.median;
        floors.push(floor);
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
    floors.push(bench.floor(Floor::TcpWrite).await?.median);
    sheet.problems.extend(bench.unsteady("a write to a socket", &floors));
    sheet.figures.put("sessions", "sessions", "", Figure::Count(common.sessions.into()));
    sheet.figures.put("message_bytes", "bytes of a message", "", Figure::Count(bytes as u64));
    sheet.figures.put("burst", "messages of a burst", "", Figure::Count((*burst).into()));
    sheet.figures.rounds("floor_us", "floor: 1 KiB to a TCP socket", "µs", &floors);
    tell(&mut sheet, measured)?;
    bench.close()?;
    Ok(sheet)
}

/// Each server's figures, and the charts of all.
fn tell(sheet: &mut Sheet, measured: Vec<Measured>) -> anyhow::Result<()> {
    let mut series = Vec::new();
    for Measured { subject, one, burst } in measured {
        let mut column = Column::default();
        if let Some(version) = &subject.version {
            column.put("version", "version", "", Figure::Text(version.clone()));
        }
        one.tell(
            &mut column,
            ["cpu_us", "last_ms", "cpu_by_floor", "latency", "repeats"],
            [
                "CPU of the server for a message",
                "  the last device has it after",
                "  CPU ÷ floor",
                "  each took",
                "  came once more",
            ],
        );
        burst.tell(
            &mut column,
            ["burst_cpu_us", "burst_last_ms", "burst_cpu_by_floor", "burst_latency", "burst_repeats"],
            [
                "CPU of the server for a message of a burst",
                "  the last device has the last after",
                "  CPU ÷ floor",
                "  each took",
                "  came once more",
            ],
        );
        let curve = one.latencies.as_ref().map(Latencies::curve).unwrap_or_default();
        series.push((subject.name.to_owned(), curve));
        if subject.is_peer() {
            sheet.peers.push((subject.name, column));
        } else {
            sheet.figures.extend(column);
        }
        subject.close()?;
    }
    sheet.charts.push(Chart::Lines {
        title: "From the submission until a device has it".to_owned(),
        x: "ms".to_owned(),
        y: "% of devices".to_owned(),
        scale: Scale::Linear,
        series,
    });
    let columns = std::iter::once(("muster", &sheet.figures))
        .chain(sheet.peers.iter().map(|(name, column)| (*name, column)));
    let bar = |(name, column): (&str, &Column)| Some((name.to_owned(), column.figure("cpu_us")?.number()?));
    let bars = columns.filter_map(bar).collect();
    sheet.charts.push(Chart::Bars { title: "CPU for a message".to_owned(), y: "µs".to_owned(), bars });
    Ok(())
}

impl Rounds {
    /// One round; gives the bytes of a message.
    async fn add(
        &mut self,
        subject: &mut Subject,
        count: u32,
        bytes: usize,
        floor: f64,
    ) -> anyhow::Result<usize> {
        let pushed = subject.push(count, bytes).await?;
        self.repeats += pushed.repeats;
        self.last_ms.push(pushed.latencies.quantiles().max_ms);
        if let Some(cpu) = pushed.cpu_micros {
            self.cpu_micros.push(cpu);
            self.by_floor.push(cpu / floor);
        }
        match &mut self.latencies {
            Some(latencies) => latencies.merge(&pushed.latencies.pairs()),
            None => self.latencies = Some(pushed.latencies),
        }
        Ok(pushed.bytes)
    }

    fn tell(&self, column: &mut Column, keys: [&'static str; 5], words: [&'static str; 5]) {
        let [cpu, last, ratio, latency, repeats] = keys;
        let [cpu_words, last_words, ratio_words, latency_words, repeats_words] = words;
        column.rounds(cpu, cpu_words, "µs", &self.cpu_micros);
        column.rounds(last, last_words, "ms", &self.last_ms);
        column.rounds(ratio, ratio_words, "×", &self.by_floor);
        if let Some(latencies) = &self.latencies {
            column.put(latency, latency_words, "", Figure::Latencies(latencies.quantiles()));
        }
        column.put(repeats, repeats_words, "", Figure::Count(self.repeats));
    }
}
