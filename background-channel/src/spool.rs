//! The durable spool: events that clients posted and the Switch has not yet committed.
//!
//! One thread owns the connection. A batch is what queued during the fsync before it; posts are acked after the commit,
//! and spooled events are removed after the Switch's ack. A failed commit ends the thread, and with it the service: an
//! fsync that failed once is never retried as success (promises.md). A disk without room is no such failure: SQLite finds
//! it before anything is promised, the batch is undone and refused, and the next one may fit.

use std::path::{Path, PathBuf};

use muster_proto::relay::v1::RelayedEvent;
use prost::Message as _;
use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot, watch};

use self::tables::{is_disk_full, no_autocheckpoint, record_size, set_aside, store_error};
use crate::metrics;

mod tables;

/// Posts waiting for the writer; beyond it a post is told to come back.
const QUEUE_MAX: usize = 1_024;
/// Posts and removals committed together.
const BATCH_MAX: usize = 1_000;

/// Bytes of records after which the write-ahead log is copied into the database: SQLite's own default is about 4 MB.
const CHECKPOINT_BYTES: u64 = 4 << 20;
/// Commits after which it is: one writes a page or two even for a small event, or for none.
const CHECKPOINT_COMMITS: u32 = 500;

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

enum Command {
    Append { events: Vec<RelayedEvent>, reply: oneshot::Sender<Result<(), SpoolError>> },
    Remove { positions: Vec<i64> },
}

/// A handle to the spool.
#[derive(Debug, Clone)]
pub struct Spool {
    commands: mpsc::Sender<Command>,
    appended: watch::Receiver<u64>,
    path: PathBuf,
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
    pub fn open(folder: &Path, bytes_max: u64) -> Result<(Self, SpoolWriter), SpoolError> {
        let path = folder.join("spool.sqlite");
        let connection = tables::open(&path)?;
        let held = tables::held_bytes(&connection).map_err(|source| store_error(&path, source))?;
        let (commands, queue) = mpsc::channel(QUEUE_MAX);
        let (bump, appended) = watch::channel(0);
        let writer = Writer {
            connection,
            path: path.clone(),
            bytes_max,
            held,
            unchecked: Unchecked::default(),
            room: Room::default(),
            queue,
            bump,
        };
        let thread = std::thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| store_error(&path, rusqlite::Error::ToSqlConversionFailure(error.into())))?;
        Ok((Self { commands, appended, path }, SpoolWriter { thread }))
    }

    /// Appends events; OK means that they are on disk. Repeats are kept once.
    ///
    /// # Errors
    /// The spool is full, busy, or its writer has ended.
    pub async fn append(&self, events: Vec<RelayedEvent>) -> Result<(), SpoolError> {
        let (reply, replied) = oneshot::channel();
        self.commands.try_send(Command::Append { events, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SpoolError::Busy,
            mpsc::error::TrySendError::Closed(_) => SpoolError::Closed,
        })?;
        replied.await.map_err(|_| SpoolError::Closed)?
    }

    /// Removes events that the Switch has committed. They come again if the process dies first, and the Switch knows them.
    pub async fn remove(&self, positions: Vec<i64>) {
        // The writer has ended only if the service is ending.
        drop(self.commands.send(Command::Remove { positions }).await);
    }

    /// Changes whenever events were appended.
    #[must_use]
    pub fn appended(&self) -> watch::Receiver<u64> {
        self.appended.clone()
    }

    /// The first events above a position. Blocks. A damaged record is set aside and counted.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn read(&self, after: i64, limit: usize) -> Result<Vec<Spooled>, SpoolError> {
        let failed = |source| store_error(&self.path, source);
        let connection = Connection::open(&self.path).map_err(failed)?;
        no_autocheckpoint(&connection).map_err(failed)?;
        let mut statement = connection
            .prepare("SELECT position, record, crc FROM event WHERE position > ?1 AND damaged = 0 ORDER BY position LIMIT ?2")
            .map_err(failed)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement
            .query_map(params![after, limit], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, u32>(2)?))
            })
            .map_err(failed)?;
        let mut found = Vec::new();
        for row in rows {
            let (position, record, crc) = row.map_err(failed)?;
            match (crc32c::crc32c(&record) == crc, RelayedEvent::decode(record.as_slice())) {
                (true, Ok(event)) => found.push(Spooled { position, event }),
                _ => {
                    metrics::damaged_record();
                    tracing::error!(position, path = %self.path.display(), "spooled event is damaged; set aside");
                    set_aside(&connection, position).map_err(failed)?;
                }
            }
        }
        Ok(found)
    }

    /// Sets events aside that the Switch will never take: they stay on disk and are read no more. Blocks.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn set_aside(&self, positions: &[i64]) -> Result<(), SpoolError> {
        let failed = |source| store_error(&self.path, source);
        let connection = Connection::open(&self.path).map_err(failed)?;
        no_autocheckpoint(&connection).map_err(failed)?;
        positions.iter().try_for_each(|position| set_aside(&connection, *position)).map_err(failed)
    }
}

impl SpoolError {
    /// Whether it is only that the disk has no room.
    pub(crate) fn is_disk_full(&self) -> bool {
        match self {
            Self::DiskFull { .. } => true,
            Self::Store { source, .. } => is_disk_full(source),
            Self::Full { .. } | Self::Busy | Self::Closed | Self::Newer { .. } => false,
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

struct Writer {
    connection: Connection,
    path: PathBuf,
    bytes_max: u64,
    held: u64,
    unchecked: Unchecked,
    room: Room,
    queue: mpsc::Receiver<Command>,
    bump: watch::Sender<u64>,
}

/// Whether the disk took the last batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Room {
    #[default]
    Enough,
    None,
}

/// What a transaction did.
#[derive(Debug)]
struct Done {
    /// Which commands did not fit the spool's bound, and why; one for each command.
    refused: Vec<Option<SpoolError>>,
    /// Bytes held after it.
    held: u64,
    /// Bytes that it added.
    added: u64,
}

/// What was committed since the last checkpoint.
#[derive(Debug, Default)]
struct Unchecked {
    bytes: u64,
    commits: u32,
}

impl Writer {
    fn run(mut self) -> Result<(), SpoolError> {
        let mut batch = Vec::new();
        while let Some(first) = self.queue.blocking_recv() {
            batch.push(first);
            while batch.len() < BATCH_MAX
                && let Ok(next) = self.queue.try_recv()
            {
                batch.push(next);
            }
            self.commit(std::mem::take(&mut batch))?;
        }
        Ok(())
    }

    /// Commits a batch and only then replies. One that the disk has no room for is undone and refused as a whole.
    fn commit(&mut self, batch: Vec<Command>) -> Result<(), SpoolError> {
        match self.write(&batch) {
            Ok(done) => {
                self.note_room(Room::Enough);
                self.held = done.held;
                self.unchecked.bytes += done.added;
                self.unchecked.commits += 1;
                metrics::spool_bytes(self.held);
                for (command, refused) in batch.into_iter().zip(done.refused) {
                    reply(command, refused);
                }
                self.bump.send_modify(|generation| *generation += 1);
            }
            Err(error) if is_disk_full(&error) => {
                self.note_room(Room::None);
                metrics::disk_full();
                // An event whose removal is undone is relayed again, and the Switch knows it.
                for command in batch {
                    reply(command, Some(SpoolError::DiskFull { path: self.path.clone() }));
                }
                // A log that was copied is written from its beginning again, so that removals fit on a full disk.
                self.unchecked.commits = CHECKPOINT_COMMITS;
            }
            Err(error) => return Err(store_error(&self.path, error)),
        }
        match self.checkpoint() {
            Err(error) if !is_disk_full(&error) => Err(store_error(&self.path, error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Runs a batch as one transaction.
    fn write(&mut self, batch: &[Command]) -> rusqlite::Result<Done> {
        let transaction = self.connection.transaction()?;
        let mut done = Done { refused: Vec::with_capacity(batch.len()), held: self.held, added: 0 };
        for command in batch {
            let mut refused = None;
            match command {
                Command::Append { events, .. } => {
                    let size: u64 = events.iter().map(record_size).sum();
                    if done.held.saturating_add(size) > self.bytes_max {
                        refused = Some(SpoolError::Full { held: done.held, max: self.bytes_max });
                    } else {
                        for event in events {
                            let added = tables::append(&transaction, event)?;
                            done.held += added;
                            done.added += added;
                        }
                    }
                }
                Command::Remove { positions } => {
                    for position in positions {
                        done.held = done.held.saturating_sub(tables::remove(&transaction, *position)?);
                    }
                }
            }
            done.refused.push(refused);
        }
        transaction.commit()?;
        Ok(done)
    }

    /// Tells once that the disk is full, and once that it is not.
    fn note_room(&mut self, room: Room) {
        if room == self.room {
            return;
        }
        self.room = room;
        let path = self.path.display();
        match room {
            Room::None => tracing::error!(%path, "the disk is full; events are refused until there is room"),
            Room::Enough => tracing::info!(%path, "the disk has room; events are taken again"),
        }
    }

    /// Copies the write-ahead log into the database when enough has gathered. A failed fsync ends the writer: SQLite's
    /// own checkpoint, after a commit, keeps its error to itself.
    fn checkpoint(&mut self) -> rusqlite::Result<()> {
        if self.unchecked.bytes < CHECKPOINT_BYTES && self.unchecked.commits < CHECKPOINT_COMMITS {
            return Ok(());
        }
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        self.unchecked = Unchecked::default();
        Ok(())
    }
}

/// Answers whoever waits for a command; a client that went away asks again.
fn reply(command: Command, refused: Option<SpoolError>) {
    if let Command::Append { reply, .. } = command {
        drop(reply.send(refused.map_or(Ok(()), Err)));
    }
}

#[cfg(test)]
mod tests;
