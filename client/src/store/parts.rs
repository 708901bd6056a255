//! Results in parts: their rows on the way to the outbox, and the outbox's records of them.
//!
//! The rows of an instruction that still runs are nobody's yet, and a client that ends has none of them to tell. So they wait in a file without
//! a name, which is gone with the client, and go into the outbox all at once, with the end of the instruction.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use muster_proto::ids::InstructionId;
use muster_proto::session::v1::Result as InstructionResult;
use prost::Message as _;
use rusqlite::{OptionalExtension as _, params};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt as _;

use super::outbox::QueueLane;
use super::tables::Tables;

/// A file that parts are being written to.
#[derive(Debug)]
pub(crate) struct PartsFile {
    file: File,
    parts: Vec<Part>,
}

/// Where a part lies, and what its bytes have to be.
#[derive(Debug, Clone, Copy)]
struct Part {
    offset: u64,
    length: usize,
    crc: u32,
}

impl PartsFile {
    /// Makes the file in a folder, and takes its name away at once.
    pub(crate) async fn make(folder: &Path) -> io::Result<Self> {
        let path = folder.join(format!("rows-{:016x}", rand::random::<u64>()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path).await?;
        tokio::fs::remove_file(&path).await?;
        Ok(Self { file, parts: Vec::new() })
    }

    /// Adds a part: encoded rows of a `Result`, with their tags.
    pub(crate) async fn add(&mut self, rows: &[u8]) -> io::Result<()> {
        self.file.write_all(rows).await?;
        let offset = self.parts.last().map_or(0, |part| part.offset + part.length as u64);
        self.parts.push(Part { offset, length: rows.len(), crc: crc32c::crc32c(rows) });
        Ok(())
    }

    /// Returns what was written.
    pub(crate) async fn finish(mut self) -> io::Result<Parts> {
        self.file.flush().await?;
        Ok(Parts { file: Arc::new(self.file.into_std().await), parts: self.parts.into() })
    }
}

/// The rows of a result in parts, on disk.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    file: Arc<std::fs::File>,
    parts: Arc<[Part]>,
}

impl Parts {
    /// Returns how many bytes the rows have.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.length as u64).sum()
    }

    /// Returns how many parts there are.
    pub(crate) fn count(&self) -> usize {
        self.parts.len()
    }

    /// Reads all of it once, so that what cannot be read is known before any of it is in the outbox.
    fn verify(&self) -> io::Result<()> {
        self.parts.iter().try_for_each(|part| self.read(part).map(drop))
    }

    fn read(&self, part: &Part) -> io::Result<Vec<u8>> {
        let mut rows = vec![0; part.length];
        self.file.read_exact_at(&mut rows, part.offset)?;
        if crc32c::crc32c(&rows) == part.crc {
            return Ok(rows);
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "other bytes were read than were written"))
    }

    /// Changes a byte of what was written.
    #[cfg(test)]
    pub(crate) fn damage(&self) {
        self.file.write_all_at(&[0xff], 100).unwrap();
    }
}

impl Tables {
    /// Appends a result with the rows of all its parts, each a record of its own, and returns the first one's number. `result` is what
    /// every part says. Rows that have no room or cannot be read are told as [`Tables::append_result`] tells it.
    pub(super) fn append_parts(
        &mut self,
        result: InstructionResult,
        parts: &Parts,
        now_ms: i64,
    ) -> rusqlite::Result<u64> {
        let heads = (result.encoded_len() as u64 + PART_NUMBERS_BYTES).saturating_mul(parts.count() as u64);
        if parts.bytes().saturating_add(heads) > self.results_room() {
            return self.append_result(self.without_room(result), now_ms);
        }
        if let Err(error) = parts.verify() {
            let detail =
                format!("it ran, but its rows could not be read back from this device's disk: {error}");
            return self.append_result(without_rows(result, detail), now_ms);
        }
        let mut first = None;
        for (number, part) in parts.parts.iter().enumerate() {
            let last = number + 1 == parts.count();
            let sequence = self.take_sequence()?;
            let head = InstructionResult {
                sequence,
                part: u32::try_from(number).unwrap_or(u32::MAX),
                last,
                // Known at the end of all rows, and told with it.
                truncated: last && result.truncated,
                sandbox_missing: if last { result.sandbox_missing.clone() } else { Vec::new() },
                ..result.clone()
            };
            // Fields of a message may come in any order: the rows stay encoded as they are.
            let mut record = head.encode_to_vec();
            record.extend(self.rows_of(parts, part)?);
            self.insert(sequence, QueueLane::Results, &result.instruction, now_ms, &record)?;
            first.get_or_insert(sequence);
        }
        Ok(first.unwrap_or_default())
    }

    /// Reads what could be read a moment ago. If it cannot any more, nothing of the batch is written, and the client ends.
    fn rows_of(&self, parts: &Parts, part: &Part) -> rusqlite::Result<Vec<u8>> {
        parts.read(part).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
    }

    /// Returns which part of its result a record is that cannot be read, so that what takes its place is due there: as its neighbours tell, else as it
    /// tells itself.
    pub(super) fn part_of(
        &self,
        instruction: InstructionId,
        sequence: u64,
        record: &[u8],
    ) -> rusqlite::Result<u32> {
        let sequence = i64::try_from(sequence).unwrap_or(i64::MAX);
        let neighbour = |order: &str| -> rusqlite::Result<Option<InstructionResult>> {
            let found: Option<Vec<u8>> = self
                .connection
                .prepare_cached(&format!(
                    "SELECT record FROM outbox WHERE lane = 1 AND instruction = ?1 AND sequence {order} LIMIT 1"
                ))?
                .query_row(params![instruction.as_bytes().as_slice(), sequence], |row| row.get(0))
                .optional()?;
            Ok(found.and_then(|record| InstructionResult::decode(&record[..]).ok()))
        };
        if let Some(before) = neighbour("< ?2 ORDER BY sequence DESC")?
            && !before.last
        {
            return Ok(before.part.saturating_add(1));
        }
        if let Some(after) = neighbour("> ?2 ORDER BY sequence")?
            && after.part > 0
        {
            return Ok(after.part - 1);
        }
        Ok(InstructionResult::decode(record).map_or(0, |result| result.part))
    }
}

/// Bytes that a part's own numbers add to a result at most: `sequence`, `part`, `last`.
const PART_NUMBERS_BYTES: u64 = 32;

/// Makes the answer of what ran and whose rows cannot be told.
pub(super) fn without_rows(result: InstructionResult, detail: String) -> InstructionResult {
    InstructionResult {
        rows: Vec::new(),
        columns: Vec::new(),
        truncated: true,
        state: muster_proto::common::v1::TargetState::Failed.into(),
        detail,
        ..result
    }
}
