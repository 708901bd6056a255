//! The spool's tables: their layout and the statements on them.

use std::collections::BTreeMap;
use std::path::Path;

use muster_proto::relay::v1::{RelayedEvent, SyncDoorResponse};
use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{Hopeless, KeptDoor, SpoolError};

/// The layout that this version writes (`PRAGMA user_version`). A database without a number has the tables of 1.
pub(super) const LAYOUT: i64 = 3;

/// Layout 1. It also finds the table of a database without a number.
pub(super) const SCHEMA_1: &str = "CREATE TABLE IF NOT EXISTS event (
   position INTEGER PRIMARY KEY AUTOINCREMENT,
   device TEXT NOT NULL,
   outbox_id BLOB NOT NULL,
   sequence INTEGER NOT NULL,
   record BLOB NOT NULL,
   crc INTEGER NOT NULL,
   damaged INTEGER NOT NULL DEFAULT 0,
   UNIQUE (device, outbox_id, sequence)
 ) STRICT";

/// Layout 2: what will never be relayed has a table of its own, and a refusal has a time. `damaged` stays, since taking a
/// column away writes every row anew; it is 0 in all of them.
pub(super) const SCHEMA_2: &str = "ALTER TABLE event ADD COLUMN refused_at_ms INTEGER;
 CREATE TABLE set_aside (
   position INTEGER PRIMARY KEY,
   device TEXT NOT NULL,
   record BLOB NOT NULL,
   crc INTEGER NOT NULL,
   cause TEXT NOT NULL,
   at_ms INTEGER NOT NULL
 ) STRICT;
 INSERT INTO set_aside (position, device, record, crc, cause, at_ms)
   SELECT position, device, record, crc, 'unknown', 0 FROM event WHERE damaged <> 0;
 DELETE FROM event WHERE damaged <> 0";

/// Layout 3: whom the Switch's operators keep out, as it was told last; at most one row.
const SCHEMA_3: &str = "CREATE TABLE door (
   id INTEGER PRIMARY KEY CHECK (id = 1),
   record BLOB NOT NULL,
   crc INTEGER NOT NULL
 ) STRICT";

/// An event that waits no more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) device: String,
    pub(super) bytes: u64,
}

/// Whether the disk has no room: for the log, or for the index of the log in shared memory.
pub(super) fn is_disk_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        error.code == rusqlite::ErrorCode::DiskFull
            || error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE
    })
}

/// Leaves checkpoints to the writer; it is a setting of each connection.
fn no_autocheckpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "wal_autocheckpoint", 0)
}

/// Opens the database and brings its tables up to date; one of a newer layout is left as it is.
pub(super) fn open(path: &Path) -> Result<Connection, SpoolError> {
    let failed = |source| store_error(path, source);
    let mut connection = Connection::open(path).map_err(failed)?;
    let layout: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    if layout > LAYOUT {
        return Err(SpoolError::Newer { path: path.to_owned(), got: layout, wanted: LAYOUT });
    }
    prepare(&mut connection, layout).map_err(failed)?;
    Ok(connection)
}

fn prepare(connection: &mut Connection, layout: i64) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    no_autocheckpoint(connection)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    if layout < LAYOUT {
        let transaction = connection.transaction()?;
        if layout < 1 {
            transaction.execute_batch(SCHEMA_1)?;
        }
        if layout < 2 {
            transaction.execute_batch(SCHEMA_2)?;
        }
        transaction.execute_batch(SCHEMA_3)?;
        transaction.pragma_update(None, "user_version", LAYOUT)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Bytes of the events that wait, by device.
pub(super) fn held_bytes(connection: &Connection) -> rusqlite::Result<BTreeMap<String, u64>> {
    let mut statement =
        connection.prepare("SELECT device, sum(length(record)) FROM event GROUP BY device")?;
    let rows = statement.query_map([], |row| gone(row).map(|held| (held.device, held.bytes)))?;
    rows.collect()
}

/// Returns how many bytes it added: none for a repeat.
pub(super) fn append(connection: &Connection, event: &RelayedEvent) -> rusqlite::Result<u64> {
    let record = event.encode_to_vec();
    let sequence = event.event.as_ref().map_or(0, |event| event.sequence);
    let mut statement = connection.prepare_cached(
        "INSERT INTO event (device, outbox_id, sequence, record, crc) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (device, outbox_id, sequence) DO NOTHING",
    )?;
    let added = statement.execute(params![
        event.device,
        event.outbox_id,
        i64::try_from(sequence).unwrap_or(i64::MAX),
        record,
        crc32c::crc32c(&record)
    ])?;
    Ok(if added == 0 { 0 } else { record_size(event) })
}

/// Moves an event to those that are read no more; `None` if it is not there.
pub(super) fn set_aside(
    connection: &Connection,
    position: i64,
    why: Hopeless,
    now_ms: i64,
) -> rusqlite::Result<Option<Gone>> {
    let cause = match why {
        Hopeless::Damaged => "damaged",
        Hopeless::Malformed => "malformed",
    };
    let mut statement = connection.prepare_cached(
        "INSERT INTO set_aside (position, device, record, crc, cause, at_ms)
         SELECT position, device, record, crc, ?2, ?3 FROM event WHERE position = ?1",
    )?;
    statement.execute(params![position, cause, now_ms])?;
    remove(connection, position)
}

/// Deletes the oldest of what was set aside until the rest is within the bound; returns how many.
pub(super) fn trim_set_aside(connection: &Connection, bytes_max: u64) -> rusqlite::Result<u64> {
    let deleted = connection.execute(
        "DELETE FROM set_aside WHERE position IN (
           SELECT position FROM (
             SELECT position, sum(length(record)) OVER (ORDER BY position DESC) AS with_newer FROM set_aside)
           WHERE with_newer > ?1)",
        [i64::try_from(bytes_max).unwrap_or(i64::MAX)],
    )?;
    Ok(u64::try_from(deleted).unwrap_or(u64::MAX))
}

/// Notes that the Switch refused an event, and removes it if it did so already at `before_ms` or earlier. Only the first
/// refusal is written.
pub(super) fn refuse(
    connection: &Connection,
    position: i64,
    now_ms: i64,
    before_ms: i64,
) -> rusqlite::Result<Option<Gone>> {
    let mut statement = connection.prepare_cached("SELECT refused_at_ms FROM event WHERE position = ?1")?;
    let found: Option<Option<i64>> = statement.query_row([position], |row| row.get(0)).optional()?;
    match found {
        Some(None) => {
            let mut statement =
                connection.prepare_cached("UPDATE event SET refused_at_ms = ?2 WHERE position = ?1")?;
            statement.execute([position, now_ms])?;
            Ok(None)
        }
        Some(Some(first_ms)) if first_ms <= before_ms => remove(connection, position),
        Some(Some(_)) | None => Ok(None),
    }
}

/// Deletes an event; `None` if it is not there.
pub(super) fn remove(connection: &Connection, position: i64) -> rusqlite::Result<Option<Gone>> {
    let mut statement = connection
        .prepare_cached("DELETE FROM event WHERE position = ?1 RETURNING device, length(record)")?;
    statement.query_row([position], gone).optional()
}

/// Replaces whom operators keep out.
pub(super) fn keep_door(connection: &Connection, record: &[u8]) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("INSERT OR REPLACE INTO door (id, record, crc) VALUES (1, ?1, ?2)")?;
    statement.execute(params![record, crc32c::crc32c(record)]).map(drop)
}

/// Returns whom operators keep out; `None` if that was never told. What is damaged is set aside.
pub(super) fn door(connection: &Connection) -> rusqlite::Result<KeptDoor> {
    let found: Option<(Vec<u8>, u32)> = connection
        .query_row("SELECT record, crc FROM door", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((record, crc)) = found else { return Ok(KeptDoor::None) };
    if crc32c::crc32c(&record) == crc
        && let Ok(told) = SyncDoorResponse::decode(record.as_slice())
    {
        return Ok(KeptDoor::Told(told));
    }
    // Events have positive positions, so that it never takes the place of one; the oldest of what is set aside goes first.
    connection.execute_batch(
        "BEGIN IMMEDIATE;
         INSERT INTO set_aside (position, device, record, crc, cause, at_ms)
           SELECT min(0, coalesce((SELECT min(position) FROM set_aside), 0)) - 1, '', record, crc, 'damaged', 0 FROM door;
         DELETE FROM door;
         COMMIT",
    )?;
    Ok(KeptDoor::Damaged)
}

fn gone(row: &Row<'_>) -> rusqlite::Result<Gone> {
    let bytes: i64 = row.get(1)?;
    Ok(Gone { device: row.get(0)?, bytes: u64::try_from(bytes).unwrap_or(0) })
}

pub(super) fn record_size(event: &RelayedEvent) -> u64 {
    u64::try_from(event.encoded_len()).unwrap_or(u64::MAX)
}

pub(super) fn store_error(path: &Path, source: rusqlite::Error) -> SpoolError {
    let hint = match source.sqlite_error_code() {
        _ if is_disk_full(&source) => {
            "; the disk is full: free space there, then start the service again; nothing that was acked is lost"
        }
        Some(rusqlite::ErrorCode::CannotOpen) => {
            "; does the folder exist, and may the service's user write it?"
        }
        _ => "",
    };
    SpoolError::Store { path: path.to_owned(), source, hint }
}
