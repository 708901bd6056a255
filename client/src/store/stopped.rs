//! Instructions that an operator stopped: they never start from there on, also those whose orders have yet to come.

use muster_proto::common::v1::TargetState;
use muster_proto::ids::{Digest, InstructionId};
use muster_proto::session::v1::{Event, Result as InstructionResult};
use muster_signing::order::WINDOW_MAX;
use rusqlite::{OptionalExtension, params};

use super::journal::{JournalState, UNPROVEN_RESULTS_MAX};
use super::outbox::QueueLane;
use super::tables::{Tables, checksum};

/// Stopped instructions that are remembered; those whose windows end first go first. Each took an operator's signature.
const STOPPED_MAX: i64 = 10_000;

/// In which time at most [`UNPROVEN_RESULTS_MAX`] refused orders and stops may have been, for a further one to be told by an event.
const REFUSALS_MS: i64 = 3_600_000;

/// A stop that was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StopEntry {
    /// The instruction that it ends.
    pub(crate) instruction: InstructionId,
    /// SHA-256 of the stop's envelope.
    pub(crate) digest: Digest,
    /// The end of the stop's window, milliseconds since 1970.
    pub(crate) expires_at_ms: i64,
    /// Who stopped it and why, for people.
    pub(crate) detail: String,
}

impl Tables {
    /// Stops an instruction for good, and answers it with `cancelled` unless it has started: then its end is its answer, or it has one.
    /// All of it is written at once. A stop of what was stopped before changes nothing; `false` says so.
    pub(crate) fn record_stop(
        &mut self,
        stop: &StopEntry,
        cancelled: InstructionResult,
        now_ms: i64,
    ) -> rusqlite::Result<bool> {
        if self.stopped(stop.instruction)?.is_some() {
            return Ok(false);
        }
        // The order may come after the stop's own end, and its window may be the longest there is.
        let window_ms = i64::try_from(WINDOW_MAX.as_millis()).unwrap_or(i64::MAX);
        let until_ms = stop.expires_at_ms.max(now_ms.saturating_add(window_ms));
        let (instruction, digest) = (stop.instruction.to_vec(), stop.digest.to_vec());
        let crc = row_checksum(&instruction, &digest, until_ms, &stop.detail);
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO stopped VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![instruction, digest, until_ms, stop.detail, crc])?;
        self.connection
            .prepare_cached(
                "DELETE FROM stopped WHERE instruction IN (SELECT instruction FROM stopped WHERE instruction <> ?1 ORDER BY until_ms DESC LIMIT -1 OFFSET ?2)",
            )?
            .execute(params![instruction, STOPPED_MAX - 1])?;
        match self.recall(stop.instruction)?.map(|recalled| recalled.state) {
            Some(JournalState::Started | JournalState::Done) => {}
            // An order that could not be opened was refused without being taken on, and its answer waits: a second one has no place.
            None if self.has_answer(stop.instruction)? => {}
            Some(JournalState::Intent) | None => {
                self.record_result(cancelled, now_ms)?;
            }
        }
        Ok(true)
    }

    /// Returns whether a result of an instruction waits to be sent.
    fn has_answer(&self, instruction: InstructionId) -> rusqlite::Result<bool> {
        self.connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM outbox WHERE lane = ?1 AND instruction = ?2)")?
            .query_row(params![QueueLane::Results.number(), instruction.as_bytes().as_slice()], |row| {
                row.get(0)
            })
    }

    /// Returns who stopped an instruction and why; `None`: nobody did. A damaged record stops all the same: the key stands there.
    pub(crate) fn stopped(&self, instruction: InstructionId) -> rusqlite::Result<Option<String>> {
        let found = self
            .connection
            .prepare_cached("SELECT stop, until_ms, detail, crc FROM stopped WHERE instruction = ?1")?
            .query_row([instruction.as_bytes().as_slice()], |row| {
                let (digest, until_ms): (Vec<u8>, i64) = (row.get(0)?, row.get(1)?);
                let (detail, crc): (String, i64) = (row.get(2)?, row.get(3)?);
                let is_sound = crc == row_checksum(instruction.as_bytes(), &digest, until_ms, &detail);
                Ok(if is_sound { detail } else { "stopped by an operator".to_owned() })
            });
        found.optional()
    }

    /// Reports a stop that is not believed, or an order that cannot be read, once: its digest is remembered among the refused orders. A
    /// Switch in the wrong hands can make up any number of them, so that beyond a bound they are not told, and counted.
    pub(crate) fn report_refused(
        &mut self,
        digest: Digest,
        event: Event,
        now_ms: i64,
    ) -> rusqlite::Result<()> {
        if self.is_refused(digest)? {
            return Ok(());
        }
        let lately: i64 = self
            .connection
            .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM refused WHERE at_ms > ?1 LIMIT ?2)")?
            .query_row([now_ms.saturating_sub(REFUSALS_MS), UNPROVEN_RESULTS_MAX], |row| row.get(0))?;
        if lately >= UNPROVEN_RESULTS_MAX {
            metrics::counter!(crate::metrics::ORDERS_UNANSWERED).increment(1);
            return Ok(());
        }
        self.remember_refused(digest, now_ms)?;
        self.append_event(event, now_ms).map(drop)
    }

    /// Forgets stops that ended before `before_ms`.
    pub(super) fn forget_stopped(&mut self, before_ms: i64) -> rusqlite::Result<usize> {
        self.connection.execute("DELETE FROM stopped WHERE until_ms < ?1", [before_ms])
    }
}

/// Makes the answer to a started instruction that was stopped out of one that says it was interrupted.
pub(super) fn cancelled(interrupted: InstructionResult, detail: &str) -> InstructionResult {
    let detail = format!("{detail}; the client ended before it could say how far it had come");
    InstructionResult { state: TargetState::Cancelled.into(), detail, ..interrupted }
}

fn row_checksum(instruction: &[u8], digest: &[u8], until_ms: i64, detail: &str) -> i64 {
    checksum("stopped", &[instruction, digest, &until_ms.to_be_bytes(), detail.as_bytes()])
}
