//! The durable spool: events that clients posted and the Switch has not yet committed; and whom its operators keep out.
//!
//! One thread owns the connection. A batch is what queued during the fsync before it; posts are acked after the commit,
//! and spooled events are removed after the Switch's ack. A failed commit ends the thread, and with it the service: an
//! fsync that failed once is never retried as success (promises.md). A disk without room is no such failure: SQLite finds
//! it before anything is promised, the batch is undone and refused, and the next one may fit.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use muster_proto::relay::v1::{RelayedEvent, SyncDoorResponse};
use prost::Message as _;
use rusqlite::{Connection, OpenFlags, params};
use tokio::sync::{mpsc, oneshot, watch};

use self::tables::{is_disk_full, store_error};
use self::writer::Writer;
use crate::metrics;
use crate::posts::Place;

mod held;
mod tables;
mod writer;

/// Posts waiting for the writer; beyond it a post is told to come back.
const QUEUE_MAX: usize = 1_024;

/// What a spool may hold.
#[derive(Debug, Clone, Copy)]
pub struct SpoolBounds {
    /// Bytes of events that wait.
    pub bytes_max: u64,
    /// Of these, of one device.
    pub bytes_per_device_max: u64,
    /// How long an event waits whose device the Switch does not know, from when that was first said.
    pub refused_kept_for: Duration,
    /// Bytes set aside, beside those that wait; the oldest go first.
    pub set_aside_bytes_max: u64,
}

/// Why an event is read no more. It is kept for whoever wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hopeless {
    /// Its checksum is wrong.
    Damaged,
    /// The Switch will never take it.
    Malformed,
}

/// What became of events that were offered to the Switch, by their positions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// The Switch has them.
    pub taken: Vec<i64>,
    /// It may take them later.
    pub kept: Vec<i64>,
    /// It will never take them.
    pub hopeless: Vec<i64>,
}

/// Why events could not be spooled.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The spool holds all that it may.
    #[error(
        "the spool holds {held} bytes of at most {max}; the Switch has been away for too long, or raise `limits.spool_bytes_max`"
    )]
    Full {
        /// Bytes held.
        held: u64,
        /// The bound in force.
        max: u64,
    },
    /// The spool holds all that it may of one device.
    #[error(
        "the spool holds {held} bytes of this device, of at most {max}; the Switch has been away for too long, or does not \
         know the device, or raise `limits.spool_bytes_per_device_max`"
    )]
    DeviceFull {
        /// Bytes held.
        held: u64,
        /// The bound in force.
        max: u64,
    },
    /// The disk has no room.
    #[error("the disk under the spool {path} is full; free space there, the service then goes on by itself")]
    DiskFull {
        /// The database.
        path: PathBuf,
    },
    /// Too many posts wait already.
    #[error("too many posts are waiting; come back")]
    Busy,
    /// The writer has ended; the service is about to end, too.
    #[error("the spool's writer has ended")]
    Closed,
    /// A newer version wrote the database.
    #[error(
        "spool {path}: has layout {got}, this version knows layouts up to {wanted}; install the newer version again, or \
         move the file and those beside it (-wal, -shm) away: events that the Switch did not get yet are then lost"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its layout.
        got: i64,
        /// The newest that is known.
        wanted: i64,
    },
    /// SQLite did not take it.
    #[error("spool {path}: {source}{hint}")]
    Store {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
        /// What to do, or nothing.
        hint: &'static str,
    },
}

/// A spooled event and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Spooled {
    /// Ascending in the order of commitment.
    pub position: i64,
    /// The event.
    pub event: RelayedEvent,
}

type Reply = oneshot::Sender<Result<(), SpoolError>>;

enum Command {
    /// The place is given back when the events are in the store, also if nobody waits for the reply.
    Append {
        events: Vec<RelayedEvent>,
        place: Option<Place>,
        reply: Reply,
    },
    Settle {
        settled: Settled,
        now_ms: i64,
        reply: Reply,
    },
    SetAside {
        positions: Vec<i64>,
        now_ms: i64,
    },
    KeepDoor {
        record: Vec<u8>,
        reply: Reply,
    },
}

/// Whom operators keep out, as it stood in the store when that was opened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum KeptDoor {
    /// The Switch never told.
    None,
    /// As it told last.
    Told(SyncDoorResponse),
    /// It cannot be read, and was set aside.
    Damaged,
}

/// A handle to the spool.
#[derive(Debug, Clone)]
pub struct Spool {
    commands: mpsc::Sender<Command>,
    appended: watch::Receiver<u64>,
    path: PathBuf,
    door: Arc<KeptDoor>,
}

/// The writer's thread.
#[derive(Debug)]
pub struct SpoolWriter {
    thread: std::thread::JoinHandle<Result<(), SpoolError>>,
}

impl Spool {
    /// Opens the database and starts its writer.
    ///
    /// # Errors
    /// The database cannot be opened.
    pub fn open(folder: &Path, bounds: SpoolBounds) -> Result<(Self, SpoolWriter), SpoolError> {
        let path = folder.join("spool.sqlite");
        let connection = tables::open(&path)?;
        let door = Arc::new(tables::door(&connection).map_err(|source| store_error(&path, source))?);
        if *door == KeptDoor::Damaged {
            metrics::damaged_record();
            tracing::error!(path = %path.display(), "whom operators block is damaged on disk; set aside");
        }
        let (commands, queue) = mpsc::channel(QUEUE_MAX);
        let (bump, appended) = watch::channel(0);
        let writer = Writer::new(connection, path.clone(), bounds, queue, bump)?;
        let thread = std::thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| store_error(&path, rusqlite::Error::ToSqlConversionFailure(error.into())))?;
        Ok((Self { commands, appended, path, door }, SpoolWriter { thread }))
    }

    /// Appends events; OK means that they are on disk. Repeats are kept once.
    ///
    /// # Errors
    /// The spool is full, busy, or its writer has ended.
    pub async fn append(&self, events: Vec<RelayedEvent>) -> Result<(), SpoolError> {
        self.append_holding(events, None).await
    }

    /// Appends events, and holds a place until they are on disk.
    pub(crate) async fn append_holding(
        &self,
        events: Vec<RelayedEvent>,
        place: Option<Place>,
    ) -> Result<(), SpoolError> {
        let (reply, replied) = oneshot::channel();
        self.commands.try_send(Command::Append { events, place, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SpoolError::Busy,
            mpsc::error::TrySendError::Closed(_) => SpoolError::Closed,
        })?;
        replied.await.map_err(|_| SpoolError::Closed)?
    }

    /// Removes what the Switch has, sets aside what it will never take, and drops what it has refused for too long, all in
    /// one commit. What was taken comes again if the process dies first, and the Switch knows it.
    ///
    /// # Errors
    /// The disk is full, or the writer has ended.
    pub async fn settle(&self, settled: Settled, now_ms: i64) -> Result<(), SpoolError> {
        let (reply, replied) = oneshot::channel();
        let command = Command::Settle { settled, now_ms, reply };
        self.commands.send(command).await.map_err(|_| SpoolError::Closed)?;
        replied.await.map_err(|_| SpoolError::Closed)?
    }

    /// Returns whom operators kept out when the store was opened.
    pub(crate) fn door(&self) -> &KeptDoor {
        &self.door
    }

    /// Keeps whom operators keep out; OK means that it is on disk.
    ///
    /// # Errors
    /// The disk is full, or the writer has ended.
    pub(crate) async fn keep_door(&self, told: &SyncDoorResponse) -> Result<(), SpoolError> {
        let (reply, replied) = oneshot::channel();
        let command = Command::KeepDoor { record: told.encode_to_vec(), reply };
        self.commands.send(command).await.map_err(|_| SpoolError::Closed)?;
        replied.await.map_err(|_| SpoolError::Closed)?
    }

    /// Changes whenever events were appended.
    #[must_use]
    pub fn appended(&self) -> watch::Receiver<u64> {
        self.appended.clone()
    }

    /// The first events above a position; none means that there are none. Blocks. A damaged record is passed over, and the
    /// writer told to set it aside.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn read(&self, after: i64, limit: usize, now_ms: i64) -> Result<Vec<Spooled>, SpoolError> {
        let failed = |source| store_error(&self.path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(failed)?;
        let mut after = after;
        loop {
            let page = page(&connection, after, limit).map_err(failed)?;
            if !page.damaged.is_empty() {
                // A writer that is busy or gone is told when they are found again.
                drop(self.commands.try_send(Command::SetAside { positions: page.damaged, now_ms }));
            }
            match page.last {
                Some(last) if page.found.is_empty() => after = last,
                Some(_) | None => return Ok(page.found),
            }
        }
    }
}

/// Rows of the spool, some of which may be damaged.
#[derive(Debug, Default)]
struct Page {
    found: Vec<Spooled>,
    damaged: Vec<i64>,
    last: Option<i64>,
}

fn page(connection: &Connection, after: i64, limit: usize) -> rusqlite::Result<Page> {
    let mut statement = connection.prepare_cached(
        "SELECT position, record, crc FROM event WHERE position > ?1 ORDER BY position LIMIT ?2",
    )?;
    let mut rows = statement.query(params![after, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut page = Page::default();
    while let Some(row) = rows.next()? {
        let (position, record, crc): (i64, Vec<u8>, u32) = (row.get(0)?, row.get(1)?, row.get(2)?);
        page.last = Some(position);
        match (crc32c::crc32c(&record) == crc, RelayedEvent::decode(record.as_slice())) {
            (true, Ok(event)) => page.found.push(Spooled { position, event }),
            _ => page.damaged.push(position),
        }
    }
    Ok(page)
}

impl SpoolError {
    /// Whether it is only that the disk has no room.
    pub(crate) fn is_disk_full(&self) -> bool {
        match self {
            Self::DiskFull { .. } => true,
            Self::Store { source, .. } => is_disk_full(source),
            Self::Full { .. } | Self::DeviceFull { .. } | Self::Busy | Self::Closed | Self::Newer { .. } => {
                false
            }
        }
    }
}

impl SpoolWriter {
    /// Waits for the writer to end, which it does when every [`Spool`] is dropped, or when a commit failed. Blocks.
    ///
    /// # Errors
    /// The commit that failed.
    pub fn join(self) -> Result<(), SpoolError> {
        self.thread.join().unwrap_or(Err(SpoolError::Closed))
    }

    /// Whether the writer has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

#[cfg(test)]
mod tests;
