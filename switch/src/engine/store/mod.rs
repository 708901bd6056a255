//! What lies on disk: one SQLite database, one connection that writes, a checksum beside every record.
//!
//! It decides nothing: the core says what to write, as [`Write`]s, and gets back what was loaded, as
//! `Loaded`. Start reading at [`Store::commit`]; `schema` has the tables, `load` the start.

mod load;
mod recall;
mod record;
mod schema;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_pki::DeviceId;
use muster_proto::ids::{InstructionId, OutboxId};
use muster_proto::operator::v1::{Client, ExportedResult, LoggedEvent};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use prost::Message;
use roaring::RoaringBitmap;
use rusqlite::{CachedStatement, Connection, OpenFlags, Transaction, params};

pub(crate) use load::{Loaded, LoadedInstruction, LoadedMarks, replay};
pub(crate) use recall::Late;
pub(crate) use record::{
    CountsRecord, DocumentRecord, InstructionRecord, SubmissionRecord, TransitionRecord, checked, checksum,
    verify,
};

/// The writing connection.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Connection,
    /// Held as long as the store is open, so that no second Switch writes to it.
    _lock: Flock<File>,
    path: PathBuf,
    /// Bytes of records written since the last checkpoint.
    unchecked_bytes: usize,
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// SQLite says no.
    #[error("store: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The folder or the lock file cannot be made.
    #[error(
        "store at {path}: {error}; create the folder and give the Switch's user the right to write there"
    )]
    Folder {
        /// Where.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Another process holds it.
    #[error("store at {path} is held by another process; stop it, or set another data_dir")]
    Held {
        /// Where.
        path: PathBuf,
    },
    /// A later program wrote it.
    #[error(
        "store has version {version}, this program knows {today}; use the program that wrote it, or a later one"
    )]
    Later {
        /// The store's.
        version: i64,
        /// The program's.
        today: i64,
    },
    /// Something else wrote it.
    #[error("store is another program's (application_id {0:#x}); set another data_dir")]
    Foreign(i64),
}

/// A number that must never go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    /// The last session's epoch.
    Epoch,
    /// The last prepared order's sequence.
    OrderSequence,
    /// The last batch with transitions.
    Batch,
}

/// One row to be written.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    Mark {
        mark: Mark,
        value: u64,
    },
    Device {
        number: u32,
        device: DeviceId,
    },
    Facts {
        number: u32,
        facts: Box<Client>,
    },
    Seen {
        number: u32,
        outbox: OutboxId,
        used: i64,
        record: Vec<u8>,
    },
    /// The outbox is forgotten.
    SeenGone {
        number: u32,
        outbox: OutboxId,
    },
    Definition {
        position: i64,
        record: Box<DocumentRecord>,
    },
    Licence {
        position: i64,
        record: Box<DocumentRecord>,
    },
    Instruction {
        position: i64,
        id: InstructionId,
        record: Box<InstructionRecord>,
    },
    Submission {
        instruction: i64,
        created_at_ms: i64,
        record: Box<SubmissionRecord>,
    },
    Counts {
        instruction: i64,
        record: CountsRecord,
    },
    Transition {
        position: i64,
        instruction: i64,
        record: Box<TransitionRecord>,
    },
    Result {
        position: i64,
        instruction: i64,
        number: u32,
        record: Box<ExportedResult>,
    },
    Event {
        position: i64,
        number: u32,
        record: Box<LoggedEvent>,
    },
}

/// Bytes of records after which the WAL is copied into the database: about the 4 MB of SQLite's own default.
const CHECKPOINT_BYTES: usize = 4 << 20;

/// How long a statement waits for another connection's lock; readers hold none that matter in WAL mode.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Statements kept compiled: more than there are kinds of [`Write`].
const STATEMENTS: usize = 32;

impl Store {
    /// Opens or makes the store in a folder.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        let failed = |path: &Path, error| StoreError::Folder { path: path.to_owned(), error };
        std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        let lock_path = folder.join("switch.lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(|error| failed(&lock_path, error))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            let held = errno == Errno::EWOULDBLOCK;
            if held { StoreError::Held { path: folder.to_owned() } } else { failed(&lock_path, errno.into()) }
        })?;
        let path = folder.join("switch.db");
        let mut connection = Connection::open(&path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        schema::prepare(&mut connection)?;
        Ok(Self { connection, _lock: lock, path, unchecked_bytes: 0 })
    }

    /// Opens one more connection, which only reads.
    pub(crate) fn reading_connection(&self) -> Result<Connection, StoreError> {
        let connection = Connection::open_with_flags(
            &self.path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(connection)
    }

    /// Returns the connection, for loading.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Writes a batch. When it returns, everything is on disk; after an error nothing may be said to be.
    pub(crate) fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        for write in writes {
            self.unchecked_bytes += write_one(&transaction, write)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Copies the WAL into the database when it has grown. An error is as bad as one of [`Self::commit`].
    pub(crate) fn checkpoint(&mut self) -> Result<(), StoreError> {
        if self.unchecked_bytes < CHECKPOINT_BYTES {
            return Ok(());
        }
        self.unchecked_bytes = 0;
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        Ok(())
    }
}

impl Mark {
    /// Returns the mark's name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::OrderSequence => "order_sequence",
            Self::Batch => "batch",
        }
    }
}

/// Encodes a bitmap for a record.
pub(crate) fn bitmap_bytes(bitmap: &RoaringBitmap) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(bitmap.serialized_size());
    // Writing to memory has no error to give; a cut bitmap would be found by its checksum's reader.
    if bitmap.serialize_into(&mut bytes).is_err() {
        bytes.clear();
    }
    bytes
}

/// Decodes a bitmap of a record.
pub(crate) fn bitmap(bytes: &[u8]) -> Result<RoaringBitmap, String> {
    RoaringBitmap::deserialize_from(bytes).map_err(|error| format!("not a bitmap: {error}"))
}

/// Returns the bytes of an integer key under a checksum.
pub(crate) fn key(number: impl Into<i64>) -> [u8; 8] {
    number.into().to_le_bytes()
}

/// Returns how many bytes the row has, about.
fn write_one(transaction: &Transaction<'_>, write: &Write) -> Result<usize, StoreError> {
    match write {
        Write::Mark { mark, value } => {
            let value = i64::try_from(*value).unwrap_or(i64::MAX);
            let crc = checksum("marks", &[mark.name().as_bytes(), &key(value)], &[]);
            cached(transaction, "INSERT OR REPLACE INTO marks VALUES (?1, ?2, ?3)")?.execute(params![
                mark.name(),
                value,
                crc
            ])?;
            Ok(32)
        }
        Write::Device { number, device } => {
            let crc = checksum("devices", &[&key(*number), device.as_str().as_bytes()], &[]);
            cached(transaction, "INSERT INTO devices VALUES (?1, ?2, ?3)")?.execute(params![
                number,
                device.as_str(),
                crc
            ])?;
            Ok(64)
        }
        Write::Facts { number, facts } => {
            let sql = "INSERT OR REPLACE INTO facts VALUES (?1, ?2, ?3)";
            write_keyed(transaction, sql, "facts", i64::from(*number), facts.as_ref())
        }
        Write::Seen { number, outbox, used, record } => {
            let crc = checksum("seen", &[&key(*number), outbox.as_bytes()], record);
            cached(transaction, "INSERT OR REPLACE INTO seen VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![number, outbox.as_bytes(), record, crc, used])?;
            Ok(record.len() + 32)
        }
        Write::SeenGone { number, outbox } => {
            let sql = "DELETE FROM seen WHERE number = ?1 AND outbox_id = ?2";
            cached(transaction, sql)?.execute(params![number, outbox.as_bytes()])?;
            Ok(32)
        }
        Write::Definition { position, record } => {
            let sql = "INSERT INTO definitions VALUES (?1, ?2, ?3)";
            write_keyed(transaction, sql, "definitions", *position, record.as_ref())
        }
        Write::Licence { position, record } => write_keyed(
            transaction,
            "INSERT INTO licences VALUES (?1, ?2, ?3)",
            "licences",
            *position,
            record.as_ref(),
        ),
        Write::Counts { instruction, record } => {
            let sql = "INSERT OR REPLACE INTO counts VALUES (?1, ?2, ?3)";
            write_keyed(transaction, sql, "counts", *instruction, record)
        }
        Write::Instruction { .. }
        | Write::Submission { .. }
        | Write::Transition { .. }
        | Write::Result { .. }
        | Write::Event { .. } => write_logged(transaction, write),
    }
}

/// Writes the rows that are only ever added.
fn write_logged(transaction: &Transaction<'_>, write: &Write) -> Result<usize, StoreError> {
    match write {
        Write::Instruction { position, id, record } => {
            let record = record.encode_to_vec();
            let crc = checksum("instructions", &[&key(*position), id.as_bytes()], &record);
            cached(transaction, "INSERT INTO instructions VALUES (?1, ?2, ?3, ?4)")?.execute(params![
                position,
                id.as_bytes(),
                record,
                crc
            ])?;
            Ok(record.len())
        }
        Write::Submission { instruction, created_at_ms, record } => {
            let keys = (*instruction, *created_at_ms);
            let sql = "INSERT INTO submissions VALUES (?1, ?2, ?3, ?4)";
            write_two_keys(transaction, sql, "submissions", keys, record.as_ref())
        }
        Write::Transition { position, instruction, record } => {
            let keys = (*position, *instruction);
            let sql = "INSERT INTO transitions VALUES (?1, ?2, ?3, ?4)";
            write_two_keys(transaction, sql, "transitions", keys, record.as_ref())
        }
        Write::Result { position, instruction, number, record } => {
            let record = record.encode_to_vec();
            let crc = checksum("results", &[&key(*position), &key(*instruction), &key(*number)], &record);
            cached(transaction, "INSERT INTO results VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
                position,
                instruction,
                number,
                record,
                crc
            ])?;
            Ok(record.len())
        }
        Write::Event { position, number, record } => {
            let keys = (*position, i64::from(*number));
            write_two_keys(
                transaction,
                "INSERT INTO events VALUES (?1, ?2, ?3, ?4)",
                "events",
                keys,
                record.as_ref(),
            )
        }
        Write::Mark { .. }
        | Write::Device { .. }
        | Write::Facts { .. }
        | Write::Seen { .. }
        | Write::SeenGone { .. }
        | Write::Definition { .. }
        | Write::Licence { .. }
        | Write::Counts { .. } => Ok(0),
    }
}

fn write_keyed(
    transaction: &Transaction<'_>,
    sql: &str,
    table: &str,
    number: i64,
    record: &impl Message,
) -> Result<usize, StoreError> {
    let record = record.encode_to_vec();
    let crc = checksum(table, &[&key(number)], &record);
    cached(transaction, sql)?.execute(params![number, record, crc])?;
    Ok(record.len())
}

fn write_two_keys(
    transaction: &Transaction<'_>,
    sql: &str,
    table: &str,
    (first, second): (i64, i64),
    record: &impl Message,
) -> Result<usize, StoreError> {
    let record = record.encode_to_vec();
    let crc = checksum(table, &[&key(first), &key(second)], &record);
    cached(transaction, sql)?.execute(params![first, second, record, crc])?;
    Ok(record.len())
}

fn cached<'a>(transaction: &'a Transaction<'_>, sql: &str) -> Result<CachedStatement<'a>, StoreError> {
    Ok(transaction.prepare_cached(sql)?)
}
