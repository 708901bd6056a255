//! The client's one store: journal, outbox, documents, and what must never go back.
//!
//! SQLite in WAL mode with `synchronous=FULL`, written by one thread. A batch is whatever queued during the previous
//! fsync; answers leave after the commit, so an answer means "on disk" (promises.md). An error of the disk ends the
//! thread and with it the client, except a full disk: that batch is rolled back and refused, and nothing was promised. What must not be
//! refused for want of somebody else's room, such as a look at what is there, has a transaction of its own ([`Store::alone`]).
//! Start reading at [`Store::open`] and [`tables::Tables`].

mod certificate_wait;
mod documents;
mod gap;
mod journal;
mod lasting;
mod name;
mod outbox;
mod parts;
mod policies;
mod stopped;
mod tables;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use journal::{Entry, JournalState, Recalled};
pub(crate) use name::SeenNumbers;
pub use outbox::OutboxCounts;
pub(crate) use outbox::{QueueLane, Queued, event_record};
pub(crate) use parts::{Parts, PartsFile};
pub(crate) use policies::{StoredPolicies, StoredPolicy};
pub(crate) use stopped::StopEntry;
pub(crate) use tables::Tables;

use crate::config::OutboxConfig;

/// Jobs that wait for the writer; a further one waits for room.
///
/// Everything the client writes passes here: at most a few for each running instruction and one for each caller of the
/// local socket.
const JOBS_MAX: usize = 256;

/// Jobs committed together, so that one answer never waits for an endless batch.
const BATCH_MAX: usize = 256;

/// The file's name in `data_dir`.
pub(crate) const FILE: &str = "client.db";

/// Why something could not be written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The file is damaged as a whole, or none of ours.
    #[error(
        "store {path}: {cause}; if the disk is sound, move the file away: the client then starts with an empty journal"
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        cause: String,
    },
    /// The file could not be opened or read, for a reason that lies outside of it.
    #[error("store {path}: {cause}; check the disk, and that the client may write there; keep the file")]
    Failing {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        cause: String,
    },
    /// The store was made by a newer version of this program.
    #[error(
        "store {path}: has layout {got}, this version knows layouts up to {wanted}; install the newer version again"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        got: i64,
        /// The newest that is known here.
        wanted: i64,
    },
    /// The disk is full. Nothing of the batch was written.
    #[error("the disk of the store is full; free some space, the client then goes on by itself")]
    DiskFull,
    /// The disk was full until the client stopped. What is lost by it is named.
    #[error(
        "the disk of the store was full until the client stopped; not written: {lost}; free some space before it starts again"
    )]
    Unwritten {
        /// What was to be written, and what follows from it.
        lost: String,
    },
    /// The disk or the file broke. The client ends.
    #[error("store: {0}")]
    Broken(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// A write whose effects nobody sees before they are on disk. Gives back what tells its caller, whatever became of it; with
/// no tables it does not run, since one before it broke the batch.
type Job = Box<dyn FnOnce(Option<&mut Tables>) -> (Answer, rusqlite::Result<()>) + Send>;

/// Tells a caller, after the commit, or why there was none.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

enum Request {
    Run(Job),
    Alone(Job),
    Close,
}

/// A handle on the writer thread.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    requests: mpsc::Sender<Request>,
    /// Counts what was ever appended to the outbox.
    appended: watch::Receiver<u64>,
    /// Why the thread ended, once it did.
    ended: watch::Receiver<Option<Arc<StoreError>>>,
}

impl Store {
    /// Opens or makes the store in a folder that exists, sets damaged records aside, and starts the writer.
    pub(crate) fn open(data_dir: &Path, limits: &OutboxConfig, now_ms: i64) -> Result<Self, StoreError> {
        let tables = Tables::open(&data_dir.join(FILE), limits.clone(), now_ms)?;
        let (requests, incoming) = mpsc::channel(JOBS_MAX);
        let (append, appended) = watch::channel(0);
        let (end, ended) = watch::channel(None);
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                let error = Writer { tables, incoming, append }.run();
                end.send_replace(Some(Arc::new(error)));
            })
            .map_err(|error| StoreError::Broken(error.to_string()))?;
        Ok(Self { requests, appended, ended })
    }

    /// Returns a counter that moves when something was appended to the outbox and is on disk.
    pub(crate) fn appended(&self) -> watch::Receiver<u64> {
        self.appended.clone()
    }

    /// Runs a job on the writer thread; when this returns `Ok`, its effects are on disk.
    pub(crate) async fn write<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables) -> rusqlite::Result<T> + Send + 'static,
    {
        self.run(Request::Run, job).await
    }

    /// As [`Self::write`], in a transaction of its own: on a full disk it is refused only if it needs room itself, and a look needs none.
    pub(crate) async fn alone<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables) -> rusqlite::Result<T> + Send + 'static,
    {
        self.run(Request::Alone, job).await
    }

    async fn run<T, F>(&self, request: fn(Job) -> Request, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables) -> rusqlite::Result<T> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |tables| {
            // A refused job must answer too, so the value waits here until the commit is known.
            let (value, outcome) = match tables.map(job).transpose() {
                Ok(value) => (value, Ok(())),
                Err(error) => (None, Err(error)),
            };
            let answer: Answer = Box::new(move |committed| {
                // A caller that went away does not need its answer.
                drop(tell.send(committed.and_then(|()| value.ok_or(StoreError::Closed))));
            });
            (answer, outcome)
        });
        if self.requests.send(request(job)).await.is_err() {
            return Err(self.failed().await);
        }
        match told.await {
            Ok(answer) => answer,
            // The writer ended before it came to this job, and is about to say why.
            Err(_) => Err(self.failed().await),
        }
    }

    /// Resolves with the cause when the writer has ended.
    pub(crate) async fn failed(&self) -> StoreError {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(error) => error.as_deref().cloned().unwrap_or(StoreError::Closed),
            Err(_) => StoreError::Closed,
        }
    }

    /// Writes what is queued and ends the thread.
    pub(crate) async fn close(&self) -> StoreError {
        // A writer that has ended already cannot be told.
        drop(self.requests.send(Request::Close).await);
        self.failed().await
    }
}

struct Writer {
    tables: Tables,
    incoming: mpsc::Receiver<Request>,
    append: watch::Sender<u64>,
}

impl Writer {
    /// Commits batch after batch; returns why it ended.
    fn run(mut self) -> StoreError {
        let (mut batch, mut alone) = (Vec::new(), Vec::new());
        loop {
            let Some(first) = self.incoming.blocking_recv() else { return StoreError::Closed };
            let mut closing = Self::take(first, &mut batch, &mut alone);
            while !closing && batch.len() + alone.len() < BATCH_MAX {
                let Ok(next) = self.incoming.try_recv() else { break };
                closing = Self::take(next, &mut batch, &mut alone);
            }
            if let Err(error) = self.commit_all(&mut batch, &mut alone) {
                tracing::error!(%error, "the store broke");
                return error;
            }
            if closing {
                return StoreError::Closed;
            }
        }
    }

    /// Puts a request where it belongs; returns whether it was the last.
    fn take(request: Request, batch: &mut Vec<Job>, alone: &mut Vec<Job>) -> bool {
        match request {
            Request::Run(job) => batch.push(job),
            Request::Alone(job) => alone.push(job),
            Request::Close => return true,
        }
        false
    }

    /// Commits the batch, and then what has a transaction of its own.
    fn commit_all(&mut self, batch: &mut Vec<Job>, alone: &mut Vec<Job>) -> Result<(), StoreError> {
        if !batch.is_empty() {
            self.commit(batch)?;
        }
        for job in alone.drain(..) {
            self.commit(&mut vec![job])?;
        }
        Ok(())
    }

    fn commit(&mut self, batch: &mut Vec<Job>) -> Result<(), StoreError> {
        let mut answers = Vec::with_capacity(batch.len());
        match self.apply(batch, &mut answers) {
            Ok(()) => {
                for answer in answers {
                    answer(Ok(()));
                }
                let appended = self.tables.appended();
                self.append.send_if_modified(|known| std::mem::replace(known, appended) != appended);
                self.checkpoint()
            }
            Err(error) if is_full(&error) => {
                self.tables.roll_back().map_err(|error| StoreError::Broken(error.to_string()))?;
                metrics::counter!(crate::metrics::STORE_FULL).increment(1);
                for answer in answers {
                    answer(Err(StoreError::DiskFull));
                }
                Ok(())
            }
            Err(error) => {
                let broken = StoreError::Broken(error.to_string());
                for answer in answers {
                    answer(Err(broken.clone()));
                }
                Err(broken)
            }
        }
    }

    /// The log holds everything until a checkpoint succeeds, so one that finds the disk full is tried again after the
    /// next commit. Any other error ends the writer.
    fn checkpoint(&self) -> Result<(), StoreError> {
        match self.tables.checkpoint() {
            Err(error) if !is_full(&error) => Err(StoreError::Broken(format!("checkpoint: {error}"))),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn apply(&mut self, batch: &mut Vec<Job>, answers: &mut Vec<Answer>) -> rusqlite::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut broke = self.tables.begin().err();
        for job in batch.drain(..) {
            let tables = if broke.is_none() { Some(&mut self.tables) } else { None };
            let (answer, outcome) = job(tables);
            answers.push(answer);
            broke = broke.or(outcome.err());
        }
        broke.map_or_else(|| self.tables.commit(), Err)
    }
}

/// SQLite tells a full disk in two ways: the second where the index of its log had to grow.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
        || error.sqlite_error().map(|error| error.extended_code) == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod tests;
