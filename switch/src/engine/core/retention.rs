//! Results that have been kept long enough (`time_to_live.keep` of a definition).
//!
//! They are deleted from the end of their time on, some at a time, so that nobody waits for it. An instruction, its targets and what became of
//! each stay. A stage beside the time says what readers may believe: as long as the deletion has not begun, every result is there; once it is
//! done, there never will be one again.

use std::collections::BTreeSet;

use super::Core;
use crate::engine::metrics;
use crate::engine::store::kept::{First, LoadedKept, Stage};
use crate::engine::store::{KeptWrite, Mark, Write};

/// What is kept, and until when.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// By when their time is up, then by the position of their instruction.
    due: BTreeSet<(i64, i64)>,
    /// Those whose deletion has begun. Nothing more is stored of them.
    begun: BTreeSet<i64>,
    /// When the next results may be deleted.
    next_at_ms: i64,
}

/// Results that are deleted in one batch at most.
pub(crate) const DELETED_AT_ONCE: u64 = 500;

/// Their bytes, about.
pub(crate) const DELETED_BYTES_AT_ONCE: u64 = 4 << 20;

/// Between two batches: 10,000 results a second, and time for what people wait for.
const DELETE_EVERY_MS: i64 = 50;

impl Retention {
    pub(super) fn new(loaded: &[LoadedKept]) -> Self {
        let due = loaded.iter().map(|loaded| (loaded.kept.until_ms, loaded.instruction)).collect();
        let begun = loaded.iter().filter(|loaded| loaded.kept.stage.has_begun());
        Self { due, begun: begun.map(|loaded| loaded.instruction).collect(), next_at_ms: 0 }
    }

    /// Returns when results should next be deleted, milliseconds since 1970.
    pub(super) fn next_timeout(&self) -> Option<i64> {
        self.due.first().map(|(until_ms, _)| (*until_ms).max(self.next_at_ms))
    }
}

impl Core {
    /// Notes until when the results of a new instruction are kept.
    pub(super) fn keep_results(&mut self, instruction: i64, until_ms: i64) {
        self.retention.due.insert((until_ms, instruction));
        let write = KeptWrite::Until { instruction, until_ms, stage: Stage::Whole };
        self.out.writes.push(Write::Kept(write));
    }

    /// Returns the instruction whose results are to be deleted now.
    pub(crate) fn results_due(&self, now_ms: i64) -> Option<i64> {
        let (_, instruction) = self.retention.due.first()?;
        let is_due = self.retention.next_timeout().is_some_and(|at| now_ms >= at);
        // An instruction that has yet to end takes results; it ends before its time is up, in the same batch at the latest.
        (is_due && !self.active.contains_key(instruction)).then_some(*instruction)
    }

    /// Returns when results should next be deleted, milliseconds since 1970.
    pub(crate) fn next_deletion(&self) -> Option<i64> {
        self.retention.next_timeout()
    }

    /// Deletes the first results of an instruction whose time is up.
    pub(crate) fn delete_results(&mut self, instruction: i64, first: First, now_ms: i64) {
        let Some((until_ms, _)) = self.retention.due.iter().find(|(_, due)| *due == instruction).copied()
        else {
            return;
        };
        self.retention.next_at_ms = now_ms.saturating_add(DELETE_EVERY_MS);
        let has_begun = !self.retention.begun.insert(instruction);
        self.refuse_results(instruction);
        if let Some(last) = first.last {
            self.out.writes.push(Write::Kept(KeptWrite::Gone { instruction, last }));
            // The table's last position may go with them, and is not to be given again.
            let value = u64::try_from(self.marks.result).unwrap_or_default();
            self.out.writes.push(Write::Mark { mark: Mark::Result, value });
            metrics::results_deleted(first.count);
        }
        // What came in the batch in which the deletion began is stored, and the look did not see it. From the next batch on nothing is.
        let is_done = has_begun && first.last.is_none();
        if is_done || !has_begun {
            let stage = if is_done { Stage::Done } else { Stage::Begun };
            self.out.writes.push(Write::Kept(KeptWrite::Until { instruction, until_ms, stage }));
        }
        if is_done {
            self.retention.due.remove(&(until_ms, instruction));
            self.retention.begun.remove(&instruction);
            tracing::info!(
                instruction,
                "the results of an instruction have been kept long enough, and are deleted"
            );
        }
    }

    /// Stores no result of an instruction any more.
    fn refuse_results(&mut self, instruction: i64) {
        for late in self.late.values_mut().filter(|late| late.position == instruction) {
            late.is_deleted = true;
            late.received.clear();
        }
        for aside in self.set_aside.values_mut().filter(|aside| aside.position == instruction) {
            aside.is_deleted = true;
        }
    }
}
