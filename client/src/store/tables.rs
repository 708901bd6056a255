//! The file: its layout, its checksums, and what happens to a damaged record.
//!
//! | table | key | holds |
//! |---|---|---|
//! | `meta` | name | `outbox` (id, next sequence, first never offered), `time_floor`, `restored_at`, `restored_here`, `epoch`, `licence`, `licence_serial`, policies, `certificate_wait`; second records `….again`, `version.…` |
//! | `journal` | instruction | order digest, definition digest, state, end of window, start, the delivered order |
//! | `refused` | order digest | orders that named no journal entry and were answered |
//! | `stopped` | instruction | until when it is remembered, digest of the stop, what its operator says |
//! | `outbox` | sequence | lane, instruction, time, encoded `Result` or `Event` |
//! | `definitions` | digest | envelope (its digest is its checksum) |
//! | `versions` | name | the highest version seen |
//! | `damaged` | – | what a checksum gave away |
//!
//! Every checksum is CRC-32C over the table's name, the key and all fields, so that a record moved elsewhere is damaged, too.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::outbox::{OutboxState, unsigned};
use super::{StoreError, is_full};
use crate::config::OutboxConfig;

/// The layout that this version writes (`PRAGMA user_version`).
const LAYOUT: i64 = 2;

/// Pages in the write-ahead log from which it is copied into the file: 4 MiB, as SQLite itself would do it.
const CHECKPOINT_PAGES: u32 = 1_000;

/// What the write-ahead log is cut to after it was larger, in bytes.
const LOG_BYTES_KEPT: i64 = 16 << 20;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS journal (
  instruction BLOB PRIMARY KEY, order_digest BLOB NOT NULL, definition BLOB NOT NULL, state INTEGER NOT NULL, expires_at_ms INTEGER NOT NULL,
  started_at_ms INTEGER NOT NULL, delivery BLOB NOT NULL, crc INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused (order_digest BLOB PRIMARY KEY, at_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stopped (
  instruction BLOB PRIMARY KEY, stop BLOB NOT NULL, until_ms INTEGER NOT NULL, detail TEXT NOT NULL, crc INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (
  sequence INTEGER PRIMARY KEY, lane INTEGER NOT NULL, instruction BLOB NOT NULL, at_ms INTEGER NOT NULL,
  record BLOB NOT NULL, crc INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS outbox_by_lane ON outbox (lane, sequence);
CREATE TABLE IF NOT EXISTS definitions (digest BLOB PRIMARY KEY, envelope BLOB NOT NULL, used_at_ms INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS versions (name TEXT PRIMARY KEY, version TEXT NOT NULL, crc INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS damaged (found_at_ms INTEGER NOT NULL, source TEXT NOT NULL, key BLOB NOT NULL, bytes BLOB NOT NULL) STRICT;
";

/// The open file, owned by the writer thread.
pub(crate) struct Tables {
    pub(super) connection: Connection,
    pub(super) limits: OutboxConfig,
    pub(super) outbox: OutboxState,
    /// Pages in the write-ahead log after the last commit.
    log_pages: Arc<AtomicU32>,
}

impl Tables {
    /// Opens or makes the file, and looks at every record once.
    pub(crate) fn open(path: &Path, limits: OutboxConfig, now_ms: i64) -> Result<Self, StoreError> {
        let unusable = |error: rusqlite::Error| refused(path, &error);
        let mut connection = Connection::open(path).map_err(unusable)?;
        let layout = prepare(&connection).map_err(unusable)?;
        if layout > LAYOUT {
            return Err(StoreError::Newer { path: path.to_owned(), got: layout, wanted: LAYOUT });
        }
        let log_pages = count_log_pages(&mut connection).map_err(unusable)?;
        let mut tables = Self { connection, limits, outbox: OutboxState::default(), log_pages };
        tables.examine(now_ms).map_err(unusable)?;
        Ok(tables)
    }

    fn examine(&mut self, now_ms: i64) -> rusqlite::Result<()> {
        self.begin()?;
        self.load_outbox(now_ms)?;
        self.examine_outbox(now_ms)?;
        self.examine_journal(now_ms)?;
        self.commit()
    }

    pub(crate) fn begin(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch("BEGIN IMMEDIATE")
    }

    pub(crate) fn commit(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch("COMMIT")
    }

    /// Copies the write-ahead log into the file when it has grown. After an error nothing more may be promised.
    pub(crate) fn checkpoint(&self) -> rusqlite::Result<()> {
        if self.log_pages.load(Ordering::Relaxed) < CHECKPOINT_PAGES {
            return Ok(());
        }
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    }

    /// Forgets the open transaction and everything remembered of it.
    pub(super) fn roll_back(&mut self) -> rusqlite::Result<()> {
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        self.recall_name(0)?;
        self.count_outbox()
    }

    /// Returns a value of `meta`; a damaged one is set aside and none.
    pub(super) fn meta(&self, name: &str, now_ms: i64) -> rusqlite::Result<Option<Vec<u8>>> {
        let found = self
            .connection
            .prepare_cached("SELECT value, crc FROM meta WHERE name = ?1")?
            .query_row([name], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?)))
            .optional()?;
        let Some((value, crc)) = found else { return Ok(None) };
        if crc == checksum("meta", &[name.as_bytes(), &value]) {
            return Ok(Some(value));
        }
        self.set_aside("meta", name.as_bytes(), &value, now_ms)?;
        self.connection.execute("DELETE FROM meta WHERE name = ?1", [name])?;
        Ok(None)
    }

    pub(super) fn set_meta(&self, name: &str, value: &[u8]) -> rusqlite::Result<()> {
        let crc = checksum("meta", &[name.as_bytes(), value]);
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO meta (name, value, crc) VALUES (?1, ?2, ?3)")?
            .execute(params![name, value, crc])?;
        Ok(())
    }

    /// Keeps the bytes of a damaged record for people, and counts it.
    pub(super) fn set_aside(
        &self,
        source: &str,
        key: &[u8],
        bytes: &[u8],
        now_ms: i64,
    ) -> rusqlite::Result<()> {
        tracing::error!(source, key = hex::encode(key), "a stored record is damaged; it was set aside");
        metrics::counter!(crate::metrics::RECORDS_DAMAGED).increment(1);
        self.connection.execute(
            "INSERT INTO damaged (found_at_ms, source, key, bytes) VALUES (?1, ?2, ?3, ?4)",
            params![now_ms, source, key, bytes],
        )?;
        Ok(())
    }

    /// Lets the file grow no more, as on a full disk.
    #[cfg(test)]
    pub(crate) fn fill(&self) -> rusqlite::Result<()> {
        self.connection.query_row("PRAGMA max_page_count = 1", [], |_| Ok(()))
    }

    /// Takes back what [`Self::fill`] did.
    #[cfg(test)]
    pub(crate) fn empty(&self) -> rusqlite::Result<()> {
        self.connection.query_row("PRAGMA max_page_count = 1000000", [], |_| Ok(()))
    }

    /// Returns how many records were ever set aside.
    pub(crate) fn damaged(&self) -> rusqlite::Result<u64> {
        self.connection.query_row("SELECT count(*) FROM damaged", [], |row| unsigned(row, 0))
    }
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tables").field("outbox", &self.outbox).finish_non_exhaustive()
    }
}

/// Tells a file that is beyond use from a disk that is: whoever moves a sound file away loses what was promised.
fn refused(path: &Path, error: &rusqlite::Error) -> StoreError {
    let (path, cause) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        _ if is_full(error) => StoreError::DiskFull,
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => StoreError::Unusable { path, cause },
        _ => StoreError::Failing { path, cause },
    }
}

/// Sets the pragmas, makes the tables, and returns the file's layout.
fn prepare(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Checkpoints run where a failed fsync is seen: SQLite's own, after a commit, keeps its error to itself.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    let layout: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if layout < LAYOUT {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        connection.execute_batch(SCHEMA)?;
        connection.pragma_update(None, "user_version", LAYOUT)?;
        connection.execute_batch("COMMIT")?;
    }
    Ok(layout)
}

/// Has every commit tell how long the log is now. Comes after the pragmas: one of them takes the place of the hook.
fn count_log_pages(connection: &mut Connection) -> rusqlite::Result<Arc<AtomicU32>> {
    let pages = Arc::new(AtomicU32::new(0));
    let told = Arc::clone(&pages);
    connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
        told.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }))?;
    Ok(pages)
}

/// Returns CRC-32C over a table's name and fields, each preceded by its length so that fields cannot trade bytes.
pub(super) fn checksum(table: &str, fields: &[&[u8]]) -> i64 {
    let mut crc = crc32c::crc32c(table.as_bytes());
    for field in fields {
        crc = crc32c::crc32c_append(crc, &(field.len() as u64).to_be_bytes());
        crc = crc32c::crc32c_append(crc, field);
    }
    i64::from(crc)
}
