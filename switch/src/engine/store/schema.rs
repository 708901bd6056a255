//! The tables, and how an older store becomes one of today.

use std::path::Path;

use rusqlite::Connection;

use super::StoreError;

/// `PRAGMA application_id` of a Switch's store: "MuSw".
const APPLICATION_ID: i64 = 0x4d75_5377;

/// What turns version n into version n + 1. An entry is never changed once a store may have it.
///
/// Each record is a protobuf message beside a CRC32C over the table's name, its key columns and itself. Positions are
/// given by the core, ascending, and never reused.
const MIGRATIONS: [&str; 10] = ["
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
", "
-- When a device's last session ended; `facts` has when it began.
CREATE TABLE last_seen (number INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, crc INTEGER NOT NULL);
-- One row: who had a session at a time, for a Switch that is killed.
CREATE TABLE online (id INTEGER PRIMARY KEY CHECK (id = 0), at_ms INTEGER NOT NULL, record BLOB NOT NULL,
    crc INTEGER NOT NULL);
", "
-- Devices that an operator removed, and when. Their row in `devices` stays: it names what they left.
CREATE TABLE removed (number INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, crc INTEGER NOT NULL);
", "
-- Whether a `Hello` has named the outbox; of those from before it is taken for granted, since the client's is among them.
-- Not under the checksum, as `used`.
ALTER TABLE seen ADD COLUMN greeted INTEGER NOT NULL DEFAULT 1;
", "
-- Client policies: the position is the serial, which a damaged record shows as well.
CREATE TABLE policies (position INTEGER PRIMARY KEY, record BLOB NOT NULL, crc INTEGER NOT NULL);
-- The serial of the policy that a device says it follows; without a row it follows none.
CREATE TABLE policy_followed (number INTEGER PRIMARY KEY, serial INTEGER NOT NULL, crc INTEGER NOT NULL);
-- Devices that an operator keeps out, known or not; by whom, when and why.
CREATE TABLE blocked (device TEXT PRIMARY KEY, record BLOB NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
", "
-- Stops, by the position of the instruction that they end, and until when they hold.
CREATE TABLE stops (instruction INTEGER PRIMARY KEY, until_ms INTEGER NOT NULL, record BLOB NOT NULL, crc INTEGER NOT NULL);
", "
-- What others than the operator signed of an instruction, by its position.
CREATE TABLE approvals (instruction INTEGER PRIMARY KEY, record BLOB NOT NULL, crc INTEGER NOT NULL);
", "
-- Until when the results of an instruction are kept, by its position, and how far their deletion has come: 0 not begun, 1 begun, 2 done.
CREATE TABLE kept (instruction INTEGER PRIMARY KEY, until_ms INTEGER NOT NULL, stage INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE INDEX kept_still ON kept (until_ms) WHERE stage < 2;
", "
-- The highest sequence that came over sessions, 8 bytes, the first the highest; under the checksum. Those from before have none:
-- it is not known of them.
ALTER TABLE seen ADD COLUMN by_session BLOB;
"];

/// Sets up the writing connection and brings the tables up to date.
pub(super) fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |cause: rusqlite::Error| StoreError::of(path, &cause);
    refuse_others(connection, path)?;
    set_up(connection).map_err(failed)?;
    migrate(connection).map_err(failed)
}

/// Nothing is changed of a database that is not a Switch's of a known layout.
fn refuse_others(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |cause: rusqlite::Error| StoreError::of(path, &cause);
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let application = number("application_id").map_err(failed)?;
    let tables = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
    if application != APPLICATION_ID && (application != 0 || tables.map_err(failed)? > 0) {
        return Err(StoreError::Foreign { path: path.to_owned(), got: application, wanted: APPLICATION_ID });
    }
    match number("user_version").map_err(failed)? {
        layout if layout > today() => {
            Err(StoreError::Newer { path: path.to_owned(), got: layout, wanted: today() })
        }
        _ => Ok(()),
    }
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: a commit returns after its fsync (promises.md, "point of durability").
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cell_size_check", "ON")?;
    // Checkpoints run where a failed fsync is seen: SQLite's own, after a commit, keeps its error to itself.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let layout: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let transaction = connection.transaction()?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(layout).unwrap_or_default()) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", today())?;
    transaction.commit()
}

fn today() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}
