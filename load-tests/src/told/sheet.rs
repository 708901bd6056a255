//! The figures of one run: of the Switch, of peers beside it, and what went wrong.

use std::fmt;

use serde_json::{Map, Value, json};

use super::machine::Machine;
use super::svg::{Chart, Scale};
use crate::measure::spread::Spread;
use crate::report::Quantiles;

/// A figure as it was measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Figure {
    Count(u64),
    Number(f64),
    Rounds(Spread),
    Latencies(Quantiles),
    Text(String),
}

/// A figure, its name in JSON, and its words for people.
#[derive(Debug, Clone)]
struct Row {
    key: &'static str,
    words: &'static str,
    unit: &'static str,
    figure: Figure,
}

/// The figures of one server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Column(Vec<Row>);

/// A curve and its name.
pub(crate) type Series = (String, Vec<(f64, f64)>);

/// What a run tells.
#[derive(Debug)]
pub(crate) struct Sheet {
    pub(crate) scenario: &'static str,
    pub(crate) machine: Machine,
    pub(crate) figures: Column,
    /// By name, each with its version.
    pub(crate) peers: Vec<(&'static str, Column)>,
    pub(crate) charts: Vec<Chart>,
    /// Why the run counts for nothing; none, if it does.
    pub(crate) problems: Vec<String>,
}

impl Column {
    /// Adds a figure.
    pub(crate) fn put(&mut self, key: &'static str, words: &'static str, unit: &'static str, figure: Figure) {
        self.0.push(Row { key, words, unit, figure });
    }

    /// Adds the sum of rounds, if there was one.
    pub(crate) fn rounds(
        &mut self,
        key: &'static str,
        words: &'static str,
        unit: &'static str,
        rounds: &[f64],
    ) {
        if let Some(spread) = Spread::of(rounds) {
            self.put(key, words, unit, Figure::Rounds(spread));
        }
    }

    /// Adds all figures of another column.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The figure under a key.
    pub(crate) fn figure(&self, key: &str) -> Option<&Figure> {
        self.0.iter().find(|row| row.key == key).map(|row| &row.figure)
    }

    fn json(&self) -> Map<String, Value> {
        self.0.iter().map(|row| (row.key.to_owned(), row.figure.json())).collect()
    }
}

impl Figure {
    /// What ratios are made of: the median of rounds, the 99th percentile of latencies. The last of thousands is an accident.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
            Self::Count(count) => Some(*count as f64),
            Self::Number(number) => Some(*number),
            Self::Rounds(spread) => Some(spread.median),
            Self::Latencies(quantiles) => Some(quantiles.p99_ms),
            Self::Text(_) => None,
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Count(count) => json!(count),
            Self::Number(number) => json!(rounded(*number)),
            Self::Rounds(Spread { median, min, max, rounds }) => {
                json!({ "median": rounded(*median), "min": rounded(*min), "max": rounded(*max), "rounds": rounds })
            }
            Self::Latencies(quantiles) => json!(quantiles),
            Self::Text(text) => json!(text),
        }
    }

    fn words(&self, unit: &str) -> String {
        match self {
            Self::Count(count) => format!("{count} {unit}"),
            Self::Number(number) => format!("{} {unit}", short(*number)),
            Self::Rounds(Spread { median, min, max, rounds }) => {
                format!("{} {unit} ({} to {} in {rounds} rounds)", short(*median), short(*min), short(*max))
            }
            Self::Latencies(Quantiles { count, p50_ms, p99_ms, max_ms }) => {
                format!("p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, last {max_ms:.1} ms of {count}")
            }
            Self::Text(text) => text.clone(),
        }
    }
}

impl Sheet {
    /// An empty one.
    pub(crate) fn new(scenario: &'static str, machine: Machine) -> Self {
        let (figures, peers, charts, problems) = (Column::default(), Vec::new(), Vec::new(), Vec::new());
        Self { scenario, machine, figures, peers, charts, problems }
    }

    /// Adds the figures of a server: those of the Switch are the sheet's own.
    pub(crate) fn add(&mut self, name: &'static str, is_peer: bool, column: Column) {
        if is_peer {
            self.peers.push((name, column));
        } else {
            self.figures.extend(column);
        }
    }

    /// Draws a curve for each series.
    pub(crate) fn lines(&mut self, title: &str, (x, y): (&str, &str), scale: Scale, series: Vec<Series>) {
        let (title, x, y) = (title.to_owned(), x.to_owned(), y.to_owned());
        self.charts.push(Chart::Lines { title, x, y, scale, series });
    }

    /// Draws one figure of each server beside the others.
    pub(crate) fn bars(&mut self, title: &str, y: &str, key: &str) {
        let columns = std::iter::once(("muster", &self.figures))
            .chain(self.peers.iter().map(|(name, column)| (*name, column)));
        let bar = |(name, column): (&str, &Column)| Some((name.to_owned(), column.figure(key)?.number()?));
        let bars = columns.filter_map(bar).collect();
        self.charts.push(Chart::Bars { title: title.to_owned(), y: y.to_owned(), bars });
    }

    /// Whether the run counts.
    pub(crate) fn is_valid(&self) -> bool {
        self.problems.is_empty()
    }

    /// The Switch's figure divided by a peer's.
    fn ratio(&self, key: &str, peer: &Column) -> Option<f64> {
        let (own, other) = (self.figures.figure(key)?.number()?, peer.figure(key)?.number()?);
        (other > 0.0).then(|| own / other)
    }

    /// One object: the Switch's figures at the top, peers' and ratios below names of their own.
    pub(crate) fn json(&self) -> Value {
        let mut all = self.figures.json();
        all.insert("scenario".to_owned(), json!(self.scenario));
        all.insert("machine".to_owned(), json!(self.machine));
        all.insert("problems".to_owned(), json!(self.problems));
        if !self.peers.is_empty() {
            let (mut peers, mut ratios) = (Map::new(), Map::new());
            for (name, column) in &self.peers {
                peers.insert((*name).to_owned(), Value::Object(column.json()));
                let of = |row: &Row| Some((row.key.to_owned(), json!(rounded(self.ratio(row.key, column)?))));
                ratios.insert((*name).to_owned(), Value::Object(column.0.iter().filter_map(of).collect()));
            }
            all.insert("peers".to_owned(), Value::Object(peers));
            all.insert("ratios".to_owned(), Value::Object(ratios));
        }
        Value::Object(all)
    }

    /// Rows of words and values: the Switch's, below each the peers' of the same key.
    pub(crate) fn rows(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        for row in &self.figures.0 {
            rows.push((row.words.to_owned(), row.figure.words(row.unit)));
            for (name, column) in &self.peers {
                if let Some(figure) = column.figure(row.key) {
                    let ratio = self.ratio(row.key, column);
                    let what = if matches!(figure, Figure::Latencies(_)) { ", of p99" } else { "" };
                    let ratio = ratio
                        .map(|ratio| format!("; Switch ÷ {name} = {}{what}", short(ratio)))
                        .unwrap_or_default();
                    rows.push((format!("  {name}"), format!("{}{ratio}", figure.words(row.unit))));
                }
            }
        }
        for (name, column) in &self.peers {
            for row in column.0.iter().filter(|row| self.figures.figure(row.key).is_none()) {
                rows.push((format!("{name}: {}", row.words), row.figure.words(row.unit)));
            }
        }
        rows
    }
}

impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.scenario, self.machine.line())?;
        let rows = self.rows();
        let width = rows.iter().map(|(words, _)| words.chars().count()).max().unwrap_or_default();
        for (words, value) in rows {
            writeln!(f, "{words:<width$}  {}", value.trim_end())?;
        }
        match &self.problems[..] {
            [] => write!(f, "the run counts"),
            problems => write!(f, "THE RUN COUNTS FOR NOTHING: {}", problems.join("; ")),
        }
    }
}

/// Six digits are more than any of it is worth.
fn rounded(number: f64) -> f64 {
    if number == 0.0 || !number.is_finite() {
        return 0.0;
    }
    let scale = 10_f64.powf(5.0 - number.abs().log10().floor());
    (number * scale).round() / scale
}

/// A number with three digits that count.
fn short(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        size if size >= 1.0 => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::cores::Cores;
    use crate::tls::Suite;
    use crate::told::machine::Switch;

    fn sheet() -> Sheet {
        let cores = Cores { server: None, load: Vec::new() };
        let switch = Switch { pid: Some(std::process::id()), suite: Suite::X25519 };
        let mut sheet = Sheet::new("idle", Machine::this(&cores, true, &switch));
        sheet.figures.put("bytes_per_session", "memory", "bytes", Figure::Count(5_000));
        sheet.figures.rounds("cpu", "CPU", "µs", &[3.0, 1.0, 2.0]);
        let mut peer = Column::default();
        peer.put("bytes_per_session", "memory", "bytes", Figure::Count(20_000));
        peer.put("version", "version", "", Figure::Text("2.9".to_owned()));
        sheet.peers.push(("nats", peer));
        sheet
    }

    #[test]
    fn json_has_the_switchs_figures_at_the_top_and_ratios_by_peer() {
        let json = sheet().json();

        assert_eq!(json["bytes_per_session"], 5_000);
        assert_eq!(json["cpu"], json!({ "median": 2.0, "min": 1.0, "max": 3.0, "rounds": 3 }));
        assert_eq!(json["peers"]["nats"]["bytes_per_session"], 20_000);
        assert_eq!(json["ratios"]["nats"], json!({ "bytes_per_session": 0.25 }));
        assert_eq!(json["problems"], json!([]));
        let machine = &json["machine"];
        assert_eq!((&machine["suite"], &machine["shards"]), (&json!("x25519"), &json!(0)));
        assert!(machine["date"].as_str().is_some_and(|date| date.ends_with('Z')), "{machine}");
        assert!(machine["commit"].is_string() && machine["switch_build"] != "unknown", "{machine}");
    }

    #[test]
    fn latencies_are_compared_by_what_many_had_and_not_by_the_last() {
        let quantiles =
            |p99_ms, max_ms| Figure::Latencies(Quantiles { count: 100, p50_ms: 1.0, p99_ms, max_ms });
        let (mut sheet, mut peer) = (sheet(), Column::default());
        sheet.figures.put("latency", "each took", "", quantiles(10.0, 1_000.0));
        peer.put("latency", "each took", "", quantiles(20.0, 20.0));
        sheet.peers = vec![("nats", peer)];

        assert_eq!(sheet.json()["ratios"]["nats"], json!({ "latency": 0.5 }));
        assert!(sheet.to_string().contains("Switch ÷ nats = 0.500, of p99"), "{sheet}");
    }

    #[test]
    fn the_table_tells_a_peer_below_the_switch_and_why_a_run_counts_for_nothing() {
        let mut sheet = sheet();
        sheet.problems.push("3 sessions died".to_owned());

        let told = sheet.to_string();

        assert!(
            told.contains("memory         5000 bytes\n  nats         20000 bytes; Switch ÷ nats = 0.250\n"),
            "{told}"
        );
        assert!(told.contains("CPU            2.00 µs (1.00 to 3.00 in 3 rounds)"), "{told}");
        assert!(told.ends_with("COUNTS FOR NOTHING: 3 sessions died"), "{told}");
    }

    #[test]
    fn numbers_have_as_many_digits_as_count() {
        assert_eq!([1234.5, 12.34, 1.234, 0.1234].map(short), ["1234", "12.3", "1.23", "0.123"]);
        assert!((rounded(1234.56789) - 1234.57).abs() < 1e-9);
    }
}
