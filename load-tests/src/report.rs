//! How measurements are told: quantiles, memory, tables.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::bail;
use hdrhistogram::Histogram;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;

/// Descriptors beside the sessions: listeners, stores, logs, runtimes.
const DESCRIPTORS_SPARE: u64 = 256;
/// Between two updates of a progress line.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Latencies in microseconds, up to ten minutes, three digits.
#[derive(Debug)]
pub struct Latencies(Histogram<u64>);

/// Quantiles of latencies, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Quantiles {
    /// How many were measured.
    pub count: u64,
    /// The median.
    pub p50_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The last.
    pub max_ms: f64,
}

impl Latencies {
    /// Creates an empty collection.
    ///
    /// # Errors
    /// Never for these bounds.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, 600_000_000, 3)?))
    }

    /// Adds one; above ten minutes it counts as ten minutes.
    pub fn add(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// The quantiles so far.
    #[must_use]
    pub fn quantiles(&self) -> Quantiles {
        let at = |quantile: f64| milliseconds(self.0.value_at_quantile(quantile));
        Quantiles {
            count: self.0.len(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: milliseconds(self.0.max()),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "at most ten minutes in microseconds, far below 2^53")]
fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1_000.0
}

/// The proportional set size of a process in bytes (`/proc/PID/smaps_rollup`).
///
/// # Errors
/// The process is gone or not ours.
pub fn memory_bytes(pid: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find(|line| line.starts_with("Pss:"));
    let kib =
        line.and_then(|line| line.split_whitespace().nth(1)).and_then(|number| number.parse::<u64>().ok());
    Ok(kib.ok_or_else(|| anyhow::anyhow!("no Pss in smaps_rollup of {pid}"))? * 1_024)
}

/// Lets this process, and those it starts, have a descriptor for each session.
///
/// # Errors
/// The machine's hard limit is lower; the text says what to do.
pub fn allow_descriptors(sessions: u32) -> anyhow::Result<()> {
    let needed = u64::from(sessions) + DESCRIPTORS_SPARE;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < needed {
        bail!(
            "{sessions} sessions need {needed} file descriptors, the hard limit is {hard}; raise it \
             (`ulimit -Hn {needed}` as root, LimitNOFILE= in a unit) or ask for fewer sessions"
        );
    }
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard)?;
    }
    Ok(())
}

/// A line that counts up on standard error, where that is a terminal; it is wiped when it is dropped.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    of: u32,
    shown_at: Option<Instant>,
}

impl Progress {
    /// Shows the line at nothing.
    #[must_use]
    pub fn new(what: &'static str, of: u32) -> Self {
        let mut progress = Self { what, of, shown_at: None };
        progress.show(0);
        progress
    }

    /// Shows how far it is, at most ten times a second.
    pub fn show(&mut self, done: u32) {
        let recent = self.shown_at.is_some_and(|at| at.elapsed() < PROGRESS_EVERY);
        if !recent && std::io::stderr().is_terminal() {
            self.shown_at = Some(Instant::now());
            self.put(&format!("{}: {done} of {}", self.what, self.of));
        }
    }

    fn put(&self, text: &str) {
        // A terminal that is gone shows nothing.
        drop(write!(std::io::stderr(), "\r\x1b[K{text}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown_at.is_some() {
            self.put("");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_told_in_milliseconds() {
        let mut latencies = Latencies::new().unwrap();
        (1..=100).for_each(|ms| latencies.add(Duration::from_millis(ms)));

        let quantiles = latencies.quantiles();

        assert_eq!(quantiles.count, 100);
        assert!((quantiles.p50_ms - 50.0).abs() < 0.1, "{quantiles:?}");
        assert!((quantiles.max_ms - 100.0).abs() < 0.2, "{quantiles:?}");
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(memory_bytes(std::process::id()).unwrap() > 100_000);
    }

    #[test]
    fn more_sessions_than_descriptors_are_refused_with_what_to_do() {
        let refused = allow_descriptors(u32::MAX).unwrap_err().to_string();

        assert!(refused.contains("ulimit -Hn"), "{refused}");
    }
}
