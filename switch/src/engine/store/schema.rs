//! The tables, and how an older store becomes one of today.

use rusqlite::Connection;

use super::StoreError;

/// `PRAGMA application_id` of a Switch's store: "MuSw".
const APPLICATION_ID: i64 = 0x4d75_5377;

/// What turns version n into version n + 1. An entry is never changed once a store may have it.
///
/// Each record is a protobuf message beside a CRC32C over the table's name, its key columns and itself. Positions are
/// given by the core, ascending, and never reused.
const MIGRATIONS: [&str; 2] = ["
CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE devices (number INTEGER PRIMARY KEY, device TEXT NOT NULL, crc INTEGER NOT NULL);
CREATE INDEX devices_by_name ON devices (device);
CREATE TABLE facts (number INTEGER PRIMARY KEY, record BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE seen (number INTEGER NOT NULL, outbox_id BLOB NOT NULL, record BLOB NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY (number, outbox_id)) WITHOUT ROWID;
CREATE TABLE definitions (position INTEGER PRIMARY KEY, record BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE licences (position INTEGER PRIMARY KEY, record BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE instructions (position INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, record BLOB NOT NULL,
    crc INTEGER NOT NULL);
CREATE TABLE submissions (instruction INTEGER PRIMARY KEY, created_at_ms INTEGER NOT NULL, record BLOB NOT NULL,
    crc INTEGER NOT NULL);
CREATE TABLE counts (instruction INTEGER PRIMARY KEY, record BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE transitions (position INTEGER PRIMARY KEY, instruction INTEGER NOT NULL, record BLOB NOT NULL,
    crc INTEGER NOT NULL);
CREATE INDEX transitions_by_instruction ON transitions (instruction, position);
CREATE TABLE results (position INTEGER PRIMARY KEY, instruction INTEGER NOT NULL, number INTEGER NOT NULL,
    record BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE INDEX results_by_instruction ON results (instruction, position);
CREATE TABLE events (position INTEGER PRIMARY KEY, number INTEGER NOT NULL, record BLOB NOT NULL,
    crc INTEGER NOT NULL);
CREATE INDEX events_by_device ON events (number, position);
", "
-- When the outbox was last used, ascending. Not under the checksum: it only says which outbox is forgotten first.
ALTER TABLE seen ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
"];

/// Sets up the writing connection and brings the tables up to date.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), StoreError> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: a commit returns after its fsync (promises.md, "point of durability").
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cell_size_check", "ON")?;
    // Checkpoints run where a failed fsync is seen: SQLite's own, after a commit, keeps its error to itself.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    migrate(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let today = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > today {
        return Err(StoreError::Later { version, today });
    }
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if version > 0 && application != APPLICATION_ID {
        return Err(StoreError::Foreign(application));
    }
    let transaction = connection.transaction()?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or_default()) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", today)?;
    transaction.commit()?;
    Ok(())
}
