//! Until when results are kept, and their deletion.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::write::cached;
use super::{KeptWrite, Store, StoreError, checksum, key, verify};
use crate::engine::damage::Damage;

/// How far the deletion of an instruction's results has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Not begun: all of them are there.
    Whole,
    /// Begun: some are gone, or will be in a moment.
    Begun,
    /// Done: none is left.
    Done,
}

/// Until when an instruction's results are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Milliseconds since 1970.
    pub(crate) until_ms: i64,
    pub(crate) stage: Stage,
}

/// Results that are not deleted to the last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadedKept {
    /// The position of their instruction.
    pub(crate) instruction: i64,
    pub(crate) kept: Kept,
}

/// The first results of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct First {
    /// The position of the last of them; `None`: there is none.
    pub(crate) last: Option<i64>,
    pub(crate) count: u64,
}

impl Stage {
    /// Returns whether results are missing, or may be.
    pub(crate) fn has_begun(self) -> bool {
        match self {
            Self::Whole => false,
            Self::Begun | Self::Done => true,
        }
    }

    fn number(self) -> i64 {
        match self {
            Self::Whole => 0,
            Self::Begun => 1,
            Self::Done => 2,
        }
    }

    fn of(number: i64) -> Option<Self> {
        [Self::Whole, Self::Begun, Self::Done].into_iter().find(|stage| stage.number() == number)
    }
}

impl Store {
    /// Returns the first results of an instruction, as many as have about so many bytes and no more than `count_max`.
    pub(crate) fn first_results(
        &self,
        instruction: i64,
        count_max: u64,
        bytes_max: u64,
    ) -> Result<First, StoreError> {
        first(self.connection(), instruction, count_max, bytes_max).map_err(|cause| self.error(&cause))
    }
}

fn first(
    connection: &Connection,
    instruction: i64,
    count_max: u64,
    bytes_max: u64,
) -> rusqlite::Result<First> {
    let sql = "SELECT position, length(record) FROM results WHERE instruction = ?1 ORDER BY position";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([instruction])?;
    let (mut first, mut bytes) = (First { last: None, count: 0 }, 0);
    while let Some(row) = rows.next()? {
        if first.count >= count_max || bytes >= bytes_max {
            break;
        }
        first.last = Some(row.get(0)?);
        first.count += 1;
        bytes += u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default();
    }
    Ok(first)
}

/// Loads what is not deleted to the last. Of a damaged row the results stay: nobody can say for how long they were to.
pub(super) fn load(connection: &Connection, damage: &Damage) -> rusqlite::Result<Vec<LoadedKept>> {
    let sql = "SELECT instruction, until_ms, stage, crc FROM kept WHERE stage < 2 ORDER BY until_ms";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut loaded = Vec::new();
    while let Some(row) = rows.next()? {
        let instruction: i64 = row.get(0)?;
        match read(instruction, row)? {
            Ok(kept) => loaded.push(LoadedKept { instruction, kept }),
            Err(what) => damage.note("kept", &instruction.to_string(), &what),
        }
    }
    Ok(loaded)
}

/// Returns until when the results of an instruction are kept; `None`: nobody said, they stay.
///
/// # Errors
/// The text says what is damaged; the outer error is SQLite's.
pub(crate) fn of(
    connection: &Connection,
    instruction: i64,
) -> rusqlite::Result<Result<Option<Kept>, String>> {
    let sql = "SELECT instruction, until_ms, stage, crc FROM kept WHERE instruction = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row([instruction], |row| read(instruction, row)).optional()?;
    Ok(found.transpose())
}

/// Returns the instructions whose results are deleted, or are being deleted. Of a damaged row the results stay.
pub(crate) fn deleted(connection: &Connection, damage: &Damage) -> rusqlite::Result<BTreeSet<i64>> {
    let sql = "SELECT instruction, until_ms, stage, crc FROM kept WHERE stage > 0";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut deleted = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let instruction: i64 = row.get(0)?;
        match read(instruction, row)? {
            Ok(_) => drop(deleted.insert(instruction)),
            Err(what) => damage.note("kept", &instruction.to_string(), &what),
        }
    }
    Ok(deleted)
}

/// Returns whether the deletion of an instruction's results has begun. A damaged row says nothing: they are rather kept.
pub(super) fn is_deleted(connection: &Connection, instruction: i64) -> rusqlite::Result<bool> {
    let kept = of(connection, instruction)?;
    Ok(kept.is_ok_and(|kept| kept.is_some_and(|kept| kept.stage.has_begun())))
}

/// Reads a row (instruction, `until_ms`, stage, crc).
fn read(instruction: i64, row: &Row<'_>) -> rusqlite::Result<Result<Kept, String>> {
    let (until_ms, stage): (i64, i64) = (row.get(1)?, row.get(2)?);
    let keys = [&key(instruction)[..], &key(until_ms), &key(stage)];
    let sound = verify("kept", &keys, &[], row.get(3)?);
    Ok(sound.and_then(|()| {
        let stage = Stage::of(stage).ok_or_else(|| format!("stage {stage}, wanted 0 to 2"))?;
        Ok(Kept { until_ms, stage })
    }))
}

/// Writes a row, or deletes results; returns how many bytes that is, about.
pub(super) fn write(transaction: &Transaction<'_>, write: &KeptWrite) -> rusqlite::Result<usize> {
    match write {
        KeptWrite::Until { instruction, until_ms, stage } => {
            let stage = stage.number();
            let crc = checksum("kept", &[&key(*instruction), &key(*until_ms), &key(stage)], &[]);
            cached(transaction, "INSERT OR REPLACE INTO kept VALUES (?1, ?2, ?3, ?4)")?.execute(params![
                instruction,
                until_ms,
                stage,
                crc
            ])?;
            Ok(32)
        }
        KeptWrite::Gone { instruction, last } => {
            let sql = "DELETE FROM results WHERE instruction = ?1 AND position <= ?2";
            let rows = cached(transaction, sql)?.execute(params![instruction, last])?;
            // A page of the table for each, and those that an index lost.
            Ok(rows.saturating_mul(4_096))
        }
    }
}
