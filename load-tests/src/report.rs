//! How measurements are told: quantiles, memory, tables.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::bail;
use hdrhistogram::Histogram;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;

/// Descriptors beside the sessions: listeners, stores, logs, runtimes.
pub(crate) const DESCRIPTORS_SPARE: u32 = 256;
/// Between two updates of a progress line.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Points of a curve at most.
const CURVE_POINTS: usize = 400;

/// Latencies in microseconds, up to ten minutes, three digits.
#[derive(Debug)]
pub struct Latencies(Histogram<u64>);

/// Quantiles of latencies, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
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

    /// The distribution as (microseconds, how many), ascending: what another process adds to its own.
    #[must_use]
    pub fn pairs(&self) -> Vec<(u64, u64)> {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }

    /// Adds another process' distribution.
    pub fn merge(&mut self, pairs: &[(u64, u64)]) {
        for (micros, count) in pairs {
            self.0.saturating_record_n(*micros, *count);
        }
    }

    /// How many were added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The distribution as a curve: milliseconds, and the share of all that took no longer, in percent.
    #[must_use]
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let whole = self.0.len().max(1) as f64;
        let mut below = 0;
        let steps = self.pairs().into_iter().map(|(micros, count)| {
            below += count;
            (milliseconds(micros), below as f64 / whole * 100.0)
        });
        let steps: Vec<_> = steps.collect();
        // More points than a chart has pixels tell nothing.
        let each = steps.len().div_ceil(CURVE_POINTS).max(1);
        let last = steps.last().copied();
        steps.into_iter().step_by(each).chain(last).collect()
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

/// The proportional set size of a process in bytes, without the pages of files (`/proc/PID/smaps_rollup`).
///
/// Those are the program's own, and their part of it changes whenever another process of the same program begins or ends.
///
/// # Errors
/// The process is gone or not ours.
pub fn memory_bytes(pid: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.ok_or_else(|| anyhow::anyhow!("no {name} in smaps_rollup of {pid}: it wants Linux 5.3"))
    };
    Ok((kib("Pss_Anon:")? + kib("Pss_Shmem:")?) * 1_024)
}

/// What a process has resident, and had at most since it began, in bytes (`/proc/PID/status`).
///
/// # Errors
/// The process is gone or not ours.
pub fn resident_bytes(pid: u32) -> anyhow::Result<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.ok_or_else(|| anyhow::anyhow!("no {name} in the status of {pid}"))
    };
    Ok((kib("VmRSS:")? * 1_024, kib("VmHWM:")? * 1_024))
}

/// Lets this process, and those it starts, have a descriptor for each session.
///
/// # Errors
/// The machine's hard limit is lower; the text says what to do.
pub fn allow_descriptors(sessions: u32) -> anyhow::Result<()> {
    let needed = u64::from(sessions) + u64::from(DESCRIPTORS_SPARE);
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

/// How many sessions one process may hold by this machine's hard limit of descriptors.
///
/// # Errors
/// The kernel does not tell the limit.
pub fn sessions_a_process() -> anyhow::Result<u32> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(u32::try_from(hard.saturating_sub(DESCRIPTORS_SPARE.into())).unwrap_or(u32::MAX))
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
    fn what_was_measured_in_several_processes_is_told_as_if_it_were_one() {
        let (mut one, mut two, mut both) =
            (Latencies::new().unwrap(), Latencies::new().unwrap(), Latencies::new().unwrap());
        for ms in 1..=1_000 {
            let latency = Duration::from_millis(ms);
            if ms % 3 == 0 {
                one.add(latency)
            } else {
                two.add(latency)
            }
            both.add(latency);
        }

        let mut merged = Latencies::new().unwrap();
        merged.merge(&one.pairs());
        merged.merge(&two.pairs());

        assert_eq!(merged.quantiles(), both.quantiles());
        assert_eq!(merged.pairs().iter().map(|(_, count)| count).sum::<u64>(), 1_000);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(memory_bytes(std::process::id()).unwrap() > 100_000);

        let touched = vec![1_u8; 32 << 20];
        std::hint::black_box(&touched);
        let (_, peak) = resident_bytes(std::process::id()).unwrap();
        drop(touched);
        assert!(peak > 32 << 20, "{peak}");
    }

    #[test]
    fn more_sessions_than_descriptors_are_refused_with_what_to_do() {
        let refused = allow_descriptors(u32::MAX).unwrap_err().to_string();

        assert!(refused.contains("ulimit -Hn"), "{refused}");
    }
}
