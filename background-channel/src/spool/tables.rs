//! The spool's tables: their layout and the statements on them.

use std::path::Path;

use muster_proto::relay::v1::RelayedEvent;
use prost::Message as _;
use rusqlite::{Connection, params};

use super::SpoolError;

/// The layout that this version writes (`PRAGMA user_version`). A database without a number has the same tables.
const LAYOUT: i64 = 1;

/// It also finds the table of a database without a number.
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS event (
   position INTEGER PRIMARY KEY AUTOINCREMENT,
   device TEXT NOT NULL,
   outbox_id BLOB NOT NULL,
   sequence INTEGER NOT NULL,
   record BLOB NOT NULL,
   crc INTEGER NOT NULL,
   damaged INTEGER NOT NULL DEFAULT 0,
   UNIQUE (device, outbox_id, sequence)
 ) STRICT";

/// Whether the disk has no room: for the log, or for the index of the log in shared memory.
pub(super) fn is_disk_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        error.code == rusqlite::ErrorCode::DiskFull
            || error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE
    })
}

/// Leaves checkpoints to [`Writer::checkpoint`]; it is a setting of each connection.
pub(super) fn no_autocheckpoint(connection: &Connection) -> rusqlite::Result<()> {
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
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "user_version", LAYOUT)?;
        transaction.commit()?;
    }
    Ok(())
}

pub(super) fn held_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let held: i64 =
        connection.query_row("SELECT coalesce(sum(length(record)), 0) FROM event", [], |row| row.get(0))?;
    Ok(u64::try_from(held).unwrap_or(0))
}

/// Returns how many bytes it added: none for a repeat.
pub(super) fn append(connection: &Connection, event: &RelayedEvent) -> rusqlite::Result<u64> {
    let record = event.encode_to_vec();
    let sequence = event.event.as_ref().map_or(0, |event| event.sequence);
    let added = connection.execute(
        "INSERT INTO event (device, outbox_id, sequence, record, crc) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (device, outbox_id, sequence) DO NOTHING",
        params![
            event.device,
            event.outbox_id,
            i64::try_from(sequence).unwrap_or(i64::MAX),
            record,
            crc32c::crc32c(&record)
        ],
    )?;
    Ok(if added == 0 { 0 } else { record_size(event) })
}

pub(super) fn set_aside(connection: &Connection, position: i64) -> rusqlite::Result<()> {
    connection.execute("UPDATE event SET damaged = 1 WHERE position = ?1", [position]).map(drop)
}

/// Returns how many bytes it freed.
pub(super) fn remove(connection: &Connection, position: i64) -> rusqlite::Result<u64> {
    let mut statement =
        connection.prepare_cached("DELETE FROM event WHERE position = ?1 RETURNING length(record)")?;
    let mut rows = statement.query([position])?;
    let freed: i64 = rows.next()?.map_or(Ok(0), |row| row.get(0))?;
    Ok(u64::try_from(freed).unwrap_or(0))
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
