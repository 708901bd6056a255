//! What aggregates may take: how many at once, and of each its time and memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::error::AggregateError;

/// The bounds of aggregates; each is a key of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AggregateLimits {
    /// How many run at once.
    pub(crate) at_once_max: usize,
    /// Rows that go in.
    pub(crate) rows_max: u64,
    /// Bytes of the table; the SELECT may take as much again.
    pub(crate) memory_bytes: u64,
    /// Rows of the answer.
    pub(crate) answer_rows_max: usize,
    /// From the beginning to the answer.
    pub(crate) deadline: Duration,
}

/// The aggregates that run.
#[derive(Debug)]
pub(crate) struct Aggregates {
    limits: AggregateLimits,
    running: AtomicUsize,
}

/// One of the places for aggregates, held as long as it runs.
#[derive(Debug)]
pub(super) struct Place<'a>(&'a AtomicUsize);

/// Why SQL is ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Its time, which is this long, is over.
    Deadline(Duration),
    /// Nobody waits for it any more.
    Gone,
    /// It takes too much memory.
    Memory,
    /// Nobody can tell how much it takes.
    Blind,
}

/// Looks after one aggregate.
///
/// SQLite bounds the pages of a table, and neither those of a sort nor those of a grouping; a heap limit of SQLite would be that of the store's
/// connections, too. So it is the growth of the whole process that ends a SELECT, while that runs.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    begin: Instant,
    allowed: Duration,
    memory_bytes: u64,
    resident_max: u64,
    next_look: Instant,
    stop: CancellationToken,
}

/// How often memory is looked at: what can be written meanwhile is little beside what is allowed.
const LOOK_EVERY: Duration = Duration::from_millis(4);

/// For an empty table.
const CHECK_DEADLINE: Duration = Duration::from_secs(5);
const CHECK_MEMORY_BYTES: u64 = 64 << 20;

impl Default for AggregateLimits {
    fn default() -> Self {
        Self {
            at_once_max: 2,
            rows_max: 1_000_000,
            memory_bytes: 256 << 20,
            answer_rows_max: 10_000,
            deadline: Duration::from_secs(20),
        }
    }
}

impl Aggregates {
    /// Makes the places.
    pub(crate) fn new(limits: AggregateLimits) -> Self {
        Self { limits, running: AtomicUsize::new(0) }
    }

    pub(super) fn limits(&self) -> &AggregateLimits {
        &self.limits
    }

    /// Takes a place; nobody waits for one, since a person would not know why.
    pub(super) fn enter(&self) -> Result<Place<'_>, AggregateError> {
        let most = self.limits.at_once_max;
        let more = |running: usize| (running < most).then_some(running + 1);
        match self.running.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(Place(&self.running)),
            Err(running) => Err(AggregateError::Busy(running)),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Watch {
    /// Begins to look after an aggregate.
    pub(super) fn begin(limits: &AggregateLimits, stop: &CancellationToken) -> Result<Self, AggregateError> {
        Self::of(limits.deadline, limits.memory_bytes, stop.clone())
    }

    /// Looks after SQL that is only prepared.
    pub(super) fn of_check() -> Result<Self, AggregateError> {
        Self::of(CHECK_DEADLINE, CHECK_MEMORY_BYTES, CancellationToken::new())
    }

    fn of(allowed: Duration, memory_bytes: u64, stop: CancellationToken) -> Result<Self, AggregateError> {
        let begin = Instant::now();
        let resident = resident_bytes().ok_or(Stopped::Blind)?;
        let resident_max = resident.saturating_add(memory_bytes.saturating_mul(2));
        Ok(Self { begin, allowed, memory_bytes, resident_max, next_look: begin, stop })
    }

    /// Bytes that the table may take.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Says why it has to end, if it has to.
    pub(super) fn look(&mut self) -> Result<(), Stopped> {
        let now = Instant::now();
        if now.duration_since(self.begin) >= self.allowed {
            return Err(Stopped::Deadline(self.allowed));
        }
        if self.stop.is_cancelled() {
            return Err(Stopped::Gone);
        }
        if now >= self.next_look {
            self.next_look = now + LOOK_EVERY;
            if resident_bytes().ok_or(Stopped::Blind)? > self.resident_max {
                return Err(Stopped::Memory);
            }
        }
        Ok(())
    }
}

/// Returns the memory that the process has.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_run_at_once_than_may_and_a_place_is_free_again_after_it() {
        let aggregates = Aggregates::new(AggregateLimits { at_once_max: 2, ..AggregateLimits::default() });

        let first = aggregates.enter().unwrap();
        let _second = aggregates.enter().unwrap();
        assert!(matches!(aggregates.enter(), Err(AggregateError::Busy(2))));
        drop(first);

        aggregates.enter().unwrap();
    }

    #[test]
    fn the_process_tells_its_memory() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
