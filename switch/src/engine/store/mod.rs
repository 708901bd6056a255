//! What lies on disk: one SQLite database, one connection that writes, a checksum beside every record.
//!
//! It decides nothing: the core says what to write, as [`Write`]s, and gets back what was loaded, as
//! `Loaded`. Start reading at [`Store::commit`]; `schema` has the tables, `load` the start.

pub(crate) mod approvals;
mod blocked;
mod error;
mod files;
pub(crate) mod kept;
mod load;
mod online;
mod recall;
mod record;
mod schema;
mod seen;
mod stops;
mod write;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use roaring::RoaringBitmap;
use rusqlite::{Connection, OpenFlags};

pub use error::StoreError;
use files::Files;
pub(crate) use load::{Loaded, LoadedDocuments, LoadedInstruction, LoadedMarks, replay};
pub(crate) use recall::{ENDED_WITHOUT_IT, Late, Received};
pub(crate) use record::{
    ApprovalsRecord, CountsRecord, DocumentRecord, InstructionRecord, StopRecord, SubmissionRecord,
    TransitionRecord, checked, checksum, verify,
};
pub(crate) use stops::LoadedStop;
pub(crate) use write::{KeptWrite, PolicyWrite, Write};

/// The writing connection.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Connection,
    /// Held as long as the store is open, so that no second Switch writes to it.
    _lock: Flock<File>,
    path: PathBuf,
    files: Files,
    /// Bytes of records written since the last checkpoint.
    unchecked_bytes: usize,
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
    /// The highest serial of a licence (G6 of signing.md).
    LicenceSerial,
    /// The highest serial of a policy (K1 of trust.md).
    PolicySerial,
    /// The last position of a result, as of the last deletion: the table's own may be gone.
    Result,
}

/// The file that says who has the store.
const LOCK: &str = "switch.lock";

/// Bytes of records after which the WAL is copied into the database: about the 4 MB of SQLite's own default.
const CHECKPOINT_BYTES: usize = 4 << 20;

/// How long a statement waits for another connection's lock; readers hold none that matter in WAL mode.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Statements kept compiled: more than there are kinds of [`Write`].
const STATEMENTS: usize = 32;

impl Store {
    /// Opens or makes the store in a folder.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder).map_err(|cause| StoreError::folder(folder, cause))?;
        let lock = lock(folder)?;
        let path = folder.join("switch.db");
        let connection = Self::open_database(&path);
        let mut connection = connection.map_err(|cause| StoreError::of(&path, &cause))?;
        schema::prepare(&mut connection, &path)?;
        let files = Files::of(&path, &folder.join(LOCK))?;
        Ok(Self { connection, _lock: lock, path, files, unchecked_bytes: 0 })
    }

    fn open_database(path: &Path) -> rusqlite::Result<Connection> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(connection)
    }

    /// Opens one more connection, which only reads.
    pub(crate) fn reading_connection(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).and_then(|connection| {
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.set_prepared_statement_cache_capacity(STATEMENTS);
            Ok(connection)
        });
        connection.map_err(|cause| self.error(&cause))
    }

    /// Returns the connection, for loading.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Writes a batch. When it returns, everything is on disk; after an error nothing may be said to be.
    pub(crate) fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let written = write::all(&mut self.connection, writes);
        self.unchecked_bytes += written.map_err(|cause| self.error(&cause))?;
        Ok(())
    }

    /// Looks whether what was written is where a restart would look for it. To be called after [`Self::commit`] and
    /// before anything is acked.
    pub(crate) fn check_files(&self) -> Result<(), StoreError> {
        self.files.check()
    }

    /// Copies the WAL into the database when it has grown. An error is as bad as one of [`Self::commit`].
    pub(crate) fn checkpoint(&mut self) -> Result<(), StoreError> {
        if self.unchecked_bytes < CHECKPOINT_BYTES {
            return Ok(());
        }
        self.unchecked_bytes = 0;
        let copied = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        copied.map_err(|cause| self.error(&cause))
    }

    /// Says where SQLite's error happened and what to do.
    fn error(&self, cause: &rusqlite::Error) -> StoreError {
        StoreError::of(&self.path, cause)
    }
}

/// Takes the lock of a folder, and writes into it who has it.
fn lock(folder: &Path) -> Result<Flock<File>, StoreError> {
    let path = folder.join(LOCK);
    let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
    let file = file.map_err(|cause| StoreError::folder(&path, cause))?;
    let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(mut file, errno)| {
        if errno != Errno::EWOULDBLOCK {
            return StoreError::folder(&path, errno.into());
        }
        let mut holder = String::new();
        let process = file.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse::<u32>().ok());
        let holder = process.map(|process| format!(" (process {process})")).unwrap_or_default();
        StoreError::Held { path: folder.to_owned(), holder: format!("another Switch{holder}") }
    })?;
    // It only helps whoever is refused; a full disk is no reason not to start.
    let told = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
    if let Err(error) = told {
        tracing::warn!(path = %path.display(), %error, "the lock does not say who holds it");
    }
    Ok(lock)
}

impl Mark {
    /// Returns the mark's name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::OrderSequence => "order_sequence",
            Self::Batch => "batch",
            Self::LicenceSerial => "licence_serial",
            Self::PolicySerial => "policy_serial",
            Self::Result => "result",
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
