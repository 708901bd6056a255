//! Tables, JSON, JSON lines and CSV of the same rows.
//!
//! Rows go to standard output; notes, progress and errors to standard error, so that a pipe sees rows only.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use muster_proto::common::v1::{ColumnType, Value, value::Kind};
use serde_json::{Map, json};

use crate::exit::{Exit, Failure};
use crate::grid::{self, Form};

use muster_pki::text::escaped_json;
// A device's text must not drive the operator's terminal.
pub(crate) use muster_pki::text::printable;

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// A table that fits the terminal.
    #[default]
    Table,
    /// A table with every column, as wide as it needs to be.
    Wide,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Jsonl,
    /// CSV with a header (RFC 4180).
    Csv,
}

/// One cell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cell {
    /// What people read.
    pub(crate) text: String,
    /// What programs read.
    pub(crate) json: serde_json::Value,
}

/// Rows under named columns.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
    wide_only: Vec<usize>,
}

impl Table {
    /// Creates an empty table.
    pub(crate) fn new<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Self {
        Self {
            columns: columns.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
            wide_only: Vec::new(),
        }
    }

    /// Names columns that the plain table leaves out.
    pub(crate) fn wide_only(mut self, columns: &[&str]) -> Self {
        self.wide_only =
            columns.iter().filter_map(|name| self.columns.iter().position(|column| column == name)).collect();
        self
    }

    /// Adds a row with one cell a column.
    pub(crate) fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    /// The names of the columns.
    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows as JSON objects.
    pub(crate) fn objects(&self) -> Vec<serde_json::Value> {
        self.rows.iter().map(|row| self.object(row)).collect()
    }

    /// Prints the rows; as JSON they are an array.
    pub(crate) fn print(&self, format: Format) -> Result<(), Failure> {
        match format {
            Format::Table => {
                let (text, form) = self.grid(&self.wide_only, grid::terminal_width());
                print_line(&text)?;
                if form == Form::Fields {
                    note("\na field a line, since the terminal is narrow; -o wide shows columns");
                }
                Ok(())
            }
            Format::Wide => print_line(&self.grid(&[], None).0),
            Format::Json => print_json(&serde_json::Value::Array(self.objects())),
            Format::Jsonl => self.rows.iter().try_for_each(|row| print_json_line(&self.object(row))),
            Format::Csv => self.print_csv(),
        }
    }

    fn object(&self, row: &[Cell]) -> serde_json::Value {
        let pairs = self.columns.iter().zip(row).map(|(name, cell)| (name.clone(), cell.json.clone()));
        serde_json::Value::Object(pairs.collect::<Map<_, _>>())
    }

    fn grid(&self, left_out: &[usize], width: Option<usize>) -> (String, Form) {
        let kept: Vec<usize> = (0..self.columns.len()).filter(|at| !left_out.contains(at)).collect();
        let header: Vec<String> = kept.iter().map(|at| printable(&self.columns[*at])).collect();
        let shown = |row: &Vec<Cell>| kept.iter().map(|at| printable(&row[*at].text)).collect();
        let rows: Vec<Vec<String>> = self.rows.iter().map(shown).collect();
        grid::render(&header, &rows, width)
    }

    fn print_csv(&self) -> Result<(), Failure> {
        // A file gets the values as they are; a terminal must not be driven by them.
        let shown =
            |text: &str| if std::io::stdout().is_terminal() { printable(text) } else { text.to_owned() };
        let mut writer = csv::Writer::from_writer(Vec::new());
        let header = writer.write_record(self.columns.iter().map(|column| shown(column)));
        let rows = self
            .rows
            .iter()
            .try_for_each(|row| writer.write_record(row.iter().map(|cell| shown(&cell.text))));
        let failed = |error: String| Failure::new(Exit::Refused, format!("write CSV: {error}"));
        header.and(rows).map_err(|error| failed(error.to_string()))?;
        let bytes = writer.into_inner().map_err(|error| failed(error.to_string()))?;
        print_bytes(&bytes)
    }
}

impl Cell {
    /// A cell of text.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { json: json!(text), text }
    }

    /// A cell with a whole number.
    pub(crate) fn number(number: u64) -> Self {
        Self { text: number.to_string(), json: json!(number) }
    }

    /// A moment, in milliseconds since 1970; 0 is never.
    pub(crate) fn moment(at_ms: i64) -> Self {
        if at_ms == 0 {
            return Self { text: "-".to_owned(), json: serde_json::Value::Null };
        }
        Self::text(moment(at_ms))
    }

    /// Yes or no.
    pub(crate) fn flag(flag: Flag) -> Self {
        match flag {
            Flag::Yes => Self { text: "yes".to_owned(), json: json!(true) },
            Flag::No => Self { text: "no".to_owned(), json: json!(false) },
        }
    }

    /// A value of a result, read by its column's type.
    pub(crate) fn value(value: &Value, column: ColumnType) -> Self {
        match (&value.kind, column) {
            (None, _) => Self { text: String::new(), json: serde_json::Value::Null },
            (Some(Kind::Integer(seconds)), ColumnType::Datetime) => {
                Self::text(moment(seconds.saturating_mul(1000)))
            }
            (Some(Kind::Integer(number)), ColumnType::Boolean) => Self::flag(Flag::from(*number != 0)),
            (Some(Kind::Integer(number)), _) => Self { text: number.to_string(), json: json!(number) },
            (Some(Kind::Real(number)), _) if !number.is_finite() => Self::text(beyond_numbers(*number)),
            (Some(Kind::Real(number)), _) => Self { text: number.to_string(), json: json!(number) },
            (Some(Kind::Text(text)), _) => Self::text(text),
            (Some(Kind::Blob(bytes)), _) => Self::text(hex::encode(bytes)),
        }
    }
}

/// A real number that is none, in words: JSON has no number for it, and `null` would say that there is no value.
fn beyond_numbers(number: f64) -> &'static str {
    match (number.is_nan(), number.is_sign_negative()) {
        (true, _) => "NaN",
        (false, false) => "Infinity",
        (false, true) => "-Infinity",
    }
}

/// Yes or no, for [`Cell::flag`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flag {
    /// Yes.
    Yes,
    /// No.
    No,
}

impl From<bool> for Flag {
    fn from(flag: bool) -> Self {
        if flag { Self::Yes } else { Self::No }
    }
}

/// Names for columns that come after `taken` ones: a name that comes again, or is taken, has `_1`, `_2` … after it, but
/// never the name that another column has of its own.
pub(crate) fn distinct<'a>(taken: &[&str], names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let names: Vec<&str> = names.into_iter().collect();
    let mut used: BTreeSet<String> = taken.iter().map(|name| (*name).to_owned()).collect();
    let own: BTreeSet<&str> = names.iter().copied().collect();
    let free = |used: &BTreeSet<String>, name: &str| {
        (1_u64..)
            .map(|n| format!("{name}_{n}"))
            .find(|candidate| !used.contains(candidate) && !own.contains(candidate.as_str()))
    };
    names
        .iter()
        .map(|name| {
            let chosen = match used.contains(*name) {
                true => free(&used, name).unwrap_or_default(),
                false => (*name).to_owned(),
            };
            used.insert(chosen.clone());
            chosen
        })
        .collect()
}

/// Says that a listing ended at its limit, so that it is not taken for whole.
pub(crate) fn note_more(limit: u32) {
    note(&format!("only the first {limit}; there are more: --limit N"));
}

/// Prints named values: as JSON one object, else a row each.
pub(crate) fn print_pairs(pairs: Vec<(String, Cell)>, format: Format) -> Result<(), Failure> {
    if matches!(format, Format::Json | Format::Jsonl) {
        let object: Map<_, _> = pairs.into_iter().map(|(name, cell)| (name, cell.json)).collect();
        return match format {
            Format::Jsonl => print_json_line(&serde_json::Value::Object(object)),
            Format::Json | Format::Table | Format::Wide | Format::Csv => {
                print_json(&serde_json::Value::Object(object))
            }
        };
    }
    let mut table = Table::new(["field", "value"]);
    for (name, cell) in pairs {
        table.push(vec![Cell::text(name), cell]);
    }
    table.print(format)
}

/// Asks for the number of devices, as a person who means it types it.
///
/// # Errors
/// There is no terminal, or another number was typed; `what` says of what.
pub(crate) fn confirm_count(what: &str, devices: u64) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    let refuse = |why: &str| {
        Failure::usage(format!("{what} on {devices} devices; {why}")).with_next("the same command with --yes")
    };
    if !std::io::stdin().is_terminal() {
        return Err(refuse("no terminal to confirm it on"));
    }
    note(&format!("{what}. Type the number of devices to go on ({devices}):"));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|error| refuse(&error.to_string()))?;
    if line.trim() == devices.to_string() { Ok(()) } else { Err(refuse("the number typed was another")) }
}

/// A moment in UTC, as RFC 3339 with seconds.
pub(crate) fn moment(at_ms: i64) -> String {
    let since = std::time::Duration::from_millis(u64::try_from(at_ms).unwrap_or(0));
    // Humantime's range ends in the year 9999; what lies beyond is shown as a number.
    match std::time::UNIX_EPOCH.checked_add(since).filter(|_| since.as_secs() < 253_402_300_800) {
        Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
        None => format!("{at_ms} ms"),
    }
}

/// Whether a person looks at standard error, so that progress may be drawn there.
pub(crate) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

/// A bar over so many bytes where a person looks.
pub(crate) fn bar(bytes: u64, what: &'static str) -> ProgressBar {
    if !is_watched() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(bytes).with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {msg}") {
        bar.set_style(style);
    }
    bar
}

/// Prints one JSON document, indented.
pub(crate) fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print_line(&json_text(value, Layout::Indented))
}

/// Prints a JSON document on one line.
pub(crate) fn print_json_line(value: &serde_json::Value) -> Result<(), Failure> {
    print_line(&json_text(value, Layout::Line))
}

/// How a JSON document is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Indented,
    Line,
}

/// Spells what would mislead whoever looks at it as escapes, which mean the same to a program.
fn json_text(value: &serde_json::Value, layout: Layout) -> String {
    escaped_json(&match layout {
        Layout::Indented => format!("{value:#}"),
        Layout::Line => value.to_string(),
    })
}

/// Prints a text of several lines, of which nothing drives the terminal or hides.
pub(crate) fn print_text(text: &str) -> Result<(), Failure> {
    print_line(&printable_lines(text))
}

fn printable_lines(text: &str) -> String {
    let shown = |line: &str| line.split('\t').map(printable).collect::<Vec<_>>().join("\t");
    text.lines().map(shown).collect::<Vec<_>>().join("\n")
}

/// Prints a line of output.
pub(crate) fn print_line(line: &str) -> Result<(), Failure> {
    print_bytes(format!("{line}\n").as_bytes())
}

fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        // `muster … | head` closes the pipe; that is no error of ours.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new(Exit::Refused, format!("write to standard output: {error}"))),
    }
}

/// Prints a line for the person, on standard error.
pub(crate) fn note(line: &str) {
    // Nobody can be told that standard error is closed.
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_a_device_never_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n\u{202e}"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}");
        assert_eq!(printable("\u{61c}\u{ad}\u{2060}\u{e0041}"), "\u{fffd}".repeat(4));
        let table = Table::new(["a\u{1b}]0;title\u{7}"]);
        assert!(!table.grid(&[], None).0.contains('\u{1b}'));
    }

    #[test]
    fn json_of_a_device_shows_nothing_that_misleads_and_means_the_same() {
        let mut table = Table::new(["na\u{200b}me"]);
        table.push(vec![Cell::text("a\u{202e}b\u{2066}\u{e0041}\u{1b}[2J\n\u{9b}")]);
        let value = serde_json::Value::Array(table.objects());

        for layout in [Layout::Indented, Layout::Line] {
            let text = json_text(&value, layout);

            let is_raw = |c: char| c != '\n' && muster_pki::text::is_misleading(c);
            assert!(!text.contains(is_raw), "{text:?}");
            assert_eq!(text.contains('\n'), layout == Layout::Indented);
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        }
        assert_eq!(printable_lines("a\n\tb\u{202e}\r\nc\u{1b}"), "a\n\tb\u{fffd}\nc\u{fffd}");
    }

    #[test]
    fn a_number_that_json_does_not_have_is_named_in_every_format_and_is_no_null() {
        for (number, name) in
            [(f64::INFINITY, "Infinity"), (f64::NEG_INFINITY, "-Infinity"), (f64::NAN, "NaN")]
        {
            let cell = Cell::value(&Value { kind: Some(Kind::Real(number)) }, ColumnType::Real);

            assert_eq!((cell.text.as_str(), &cell.json), (name, &json!(name)));
        }
    }

    #[test]
    fn a_datetime_is_shown_in_utc_and_a_null_as_nothing() {
        let value = Value { kind: Some(Kind::Integer(0)) };

        assert_eq!(Cell::value(&value, ColumnType::Datetime).text, "1970-01-01T00:00:00Z");
        assert_eq!(Cell::value(&Value { kind: None }, ColumnType::Text).json, serde_json::Value::Null);
    }

    #[test]
    fn no_two_columns_have_one_name_and_a_name_of_its_own_is_kept() {
        let names = |given: &[&str]| distinct(&["device"], given.iter().copied());

        assert_eq!(names(&["a", "b"]), ["a", "b"]);
        assert_eq!(names(&["a", "a", "a"]), ["a", "a_1", "a_2"]);
        assert_eq!(names(&["a", "a", "a_1"]), ["a", "a_2", "a_1"]);
        assert_eq!(names(&["device", "device_1", "device"]), ["device_2", "device_1", "device_3"]);
    }

    #[test]
    fn the_plain_table_leaves_out_what_only_the_wide_one_shows() {
        let mut table = Table::new(["name", "thumbprint"]).wide_only(&["thumbprint"]);
        table.push(vec![Cell::text("a"), Cell::text("ff")]);

        assert!(!table.grid(&table.wide_only, None).0.contains("ff"));
        assert!(table.grid(&[], None).0.contains("ff"));
    }
}
