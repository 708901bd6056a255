//! Logs on standard error and metrics as Prometheus text, each set up once a process.
//!
//! Whatever comes from outside may hold control characters; [`escape_controls`] makes sure that none
//! reaches a terminal or forges a second line.

use std::io::{self, Write};
use std::sync::OnceLock;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use muster_pki::text::is_misleading;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How logs are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `pretty`: a line for people; `json`: an object a line, for collectors. Default `pretty`.
    pub format: LogFormat,
    /// What is written, as `level` or `target=level`, separated by commas. Default `info`.
    ///
    /// The syntax is that of tracing's `EnvFilter`: `info,muster_switch=debug`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Pretty, filter: "info".to_owned() }
    }
}

impl LogConfig {
    /// Checks the filter's syntax.
    ///
    /// # Errors
    /// Returns the parser's complaint, for key `filter`.
    pub fn validate(&self) -> Result<(), crate::config::Invalid> {
        self.parsed_filter().map(drop).map_err(|error| {
            crate::config::Invalid::new(
                "filter",
                format!("got `{}`, wanted `info` or `info,muster_switch=debug`: {error}", self.filter),
            )
        })
    }

    fn parsed_filter(&self) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
        EnvFilter::builder().parse(&self.filter)
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line an event.
    Pretty,
    /// One JSON object an event.
    Json,
}

/// Why telemetry was not set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be parsed.
    #[error("log filter `{filter}`: {source}; wanted a form such as `info,muster_switch=debug`")]
    Filter {
        /// The filter as configured.
        filter: String,
        /// The parser's complaint.
        source: tracing_subscriber::filter::ParseError,
    },
    /// This process has a subscriber already.
    #[error("logging was set up before in this process")]
    AlreadySet,
}

/// Starts writing logs to standard error, for the rest of the process.
///
/// # Errors
/// Returns [`TelemetryError`] when the filter is wrong or a subscriber is already there.
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    // What is counted before a recorder is there is lost.
    drop(metrics());
    let filter = config
        .parsed_filter()
        .map_err(|source| TelemetryError::Filter { filter: config.filter.clone(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Escaping);
    let set = match config.format {
        LogFormat::Pretty => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    set.map_err(|_already| TelemetryError::AlreadySet)
}

/// Returns the handle that renders the process's metrics, and installs the recorder at the first call.
///
/// Should another recorder be installed already, the handle renders nothing of it.
pub fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = builder().unwrap_or_default().build_recorder();
            let handle = recorder.handle();
            if ::metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another metrics recorder is installed; /metrics stays empty");
            }
            handle
        })
        .clone()
}

/// Upper bounds for latencies, from a loopback answer to the longest deadline.
const SECONDS_BUCKETS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];
/// Upper bounds for sizes, from a heartbeat to the largest frame.
const BYTES_BUCKETS: [f64; 7] = [64.0, 512.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0];

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES_BUCKETS)
}

/// Writes `text` with every control character but the final line feed as a JSON-style escape.
///
/// Covered is what [misleads](is_misleading): C0 and C1 controls, delete, and the characters that reorder text or look like nothing.
/// The result of JSON stays JSON.
#[must_use]
pub fn escape_controls(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\n' {
            escaped.push_str("\\n");
        } else if character == '\t' {
            escaped.push_str("\\t");
        } else if is_misleading(character) {
            // Beyond the first 65,536 characters JSON writes two halves.
            for half in character.encode_utf16(&mut [0; 2]) {
                escaped.push_str(&format!("\\u{half:04x}"));
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Makes writers to standard error that escape control characters.
#[derive(Clone, Copy, Debug)]
struct Escaping;

impl<'a> MakeWriter<'a> for Escaping {
    type Writer = EscapingWriter<io::Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapingWriter(io::stderr())
    }
}

/// Takes one whole event a call, as tracing-subscriber writes them.
#[derive(Debug)]
struct EscapingWriter<W>(W);

impl<W: Write> Write for EscapingWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let body = text.strip_suffix('\n').unwrap_or(&text);
        let mut line = escape_controls(body);
        line.push('\n');
        self.0.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_could_forge_a_line_or_drive_a_terminal() {
        let escaped = escape_controls("a\x1b[2Jb\nc\u{9b}d\u{202e}e ü");

        assert_eq!(escaped, "a\\u001b[2Jb\\nc\\u009bd\\u202ee ü");
        // JSON stays JSON beyond the first 65,536 characters, too.
        assert_eq!(escape_controls("\u{e0041}\u{200b}"), "\\udb40\\udc41\\u200b");
    }

    #[test]
    fn an_event_is_one_line() {
        let mut bytes = Vec::new();

        EscapingWriter(&mut bytes).write_all(b"first\nERROR forged\n").unwrap();

        assert_eq!(bytes, b"first\\nERROR forged\n");
    }

    #[test]
    fn refuses_a_wrong_filter_and_names_it() {
        let config = LogConfig { filter: "muster=loud".to_owned(), ..LogConfig::default() };

        let error = config.validate().unwrap_err().to_string();

        assert!(error.contains("muster=loud"), "{error}");
    }

    #[test]
    fn renders_what_was_counted() {
        let handle = metrics();

        ::metrics::counter!("muster_test_counted_total").increment(3);

        assert!(handle.render().contains("muster_test_counted_total 3"));
    }
}
