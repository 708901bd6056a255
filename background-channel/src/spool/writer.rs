//! The spool's only writer: the thread that owns its connection.

use std::collections::BTreeMap;
use std::path::PathBuf;

use muster_proto::relay::v1::RelayedEvent;
use rusqlite::{Connection, Transaction};
use tokio::sync::{mpsc, watch};

use super::held::{Changed, Held, Pending};
use super::tables::{self, is_disk_full, store_error};
use super::{Command, Hopeless, Settled, SpoolBounds, SpoolError};
use crate::metrics;

/// Commands committed together.
const BATCH_MAX: usize = 1_000;

/// Bytes of records after which the write-ahead log is copied into the database: SQLite's own default is about 4 MB.
pub(super) const CHECKPOINT_BYTES: u64 = 4 << 20;
/// Commits after which it is: one writes a page or two even for a small event, or for none.
const CHECKPOINT_COMMITS: u32 = 500;

pub(super) struct Writer {
    connection: Connection,
    path: PathBuf,
    bounds: SpoolBounds,
    pub(super) held: Held,
    pub(super) unchecked: Unchecked,
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
    /// Which commands did not fit the spool's bounds, and why; one for each command.
    refused: Vec<Option<SpoolError>>,
    /// Bytes held after it.
    changed: Changed,
    /// Bytes of events that it added.
    added: u64,
    /// Bytes that it wrote beside events.
    kept: u64,
    lost: Lost,
}

/// Events that leave the spool without having reached the Switch.
#[derive(Debug, Default)]
struct Lost {
    damaged: Vec<i64>,
    malformed: u64,
    /// Refused for too long.
    dropped: u64,
    /// Set aside before, and the oldest when others were.
    forgotten: u64,
}

/// What was committed since the last checkpoint.
#[derive(Debug, Default)]
pub(super) struct Unchecked {
    pub(super) bytes: u64,
    pub(super) commits: u32,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        path: PathBuf,
        bounds: SpoolBounds,
        queue: mpsc::Receiver<Command>,
        bump: watch::Sender<u64>,
    ) -> Result<Self, SpoolError> {
        let held = tables::held_bytes(&connection).map_err(|source| store_error(&path, source))?;
        let held = Held::new(held);
        metrics::spool_bytes(held.all());
        let (unchecked, room) = (Unchecked::default(), Room::default());
        Ok(Self { connection, path, bounds, held, unchecked, room, queue, bump })
    }

    pub(super) fn run(mut self) -> Result<(), SpoolError> {
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
    pub(super) fn commit(&mut self, batch: Vec<Command>) -> Result<(), SpoolError> {
        match self.write(&batch) {
            Ok(done) => {
                self.note_room(Room::Enough);
                self.held.handle_commit(done.changed);
                self.unchecked.bytes += done.added.saturating_add(done.kept);
                self.unchecked.commits += 1;
                metrics::spool_bytes(self.held.all());
                self.tell_lost(&done.lost);
                for (command, refused) in batch.into_iter().zip(done.refused) {
                    reply(command, refused);
                }
                if done.added > 0 {
                    self.bump.send_modify(|generation| *generation += 1);
                }
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
        let mut transaction = self.connection.transaction()?;
        let (mut pending, mut lost) = (self.held.pending(), Lost::default());
        let (mut added, mut kept) = (0, 0);
        let mut refused = Vec::with_capacity(batch.len());
        for command in batch {
            refused.push(match command {
                Command::Append { events, .. } => {
                    match append(&mut transaction, events, &mut pending, &self.bounds)? {
                        Ok(bytes) => {
                            added += bytes;
                            None
                        }
                        Err(full) => Some(full),
                    }
                }
                Command::Settle { settled, now_ms, .. } => {
                    settle(&transaction, settled, *now_ms, &mut pending, &self.bounds, &mut lost)?;
                    None
                }
                Command::SetAside { positions, now_ms } => {
                    let why = Hopeless::Damaged;
                    let moved = set_aside(&transaction, positions, why, *now_ms, &mut pending)?;
                    lost.damaged.extend(moved);
                    None
                }
                Command::KeepDoor { record, .. } => {
                    tables::keep_door(&transaction, record)?;
                    kept += u64::try_from(record.len()).unwrap_or(u64::MAX);
                    None
                }
            });
        }
        if lost.malformed > 0 || !lost.damaged.is_empty() {
            lost.forgotten = tables::trim_set_aside(&transaction, self.bounds.set_aside_bytes_max)?;
        }
        let changed = pending.into_changed();
        transaction.commit()?;
        Ok(Done { refused, changed, added, kept, lost })
    }

    fn tell_lost(&self, lost: &Lost) {
        let path = self.path.display();
        for position in &lost.damaged {
            metrics::damaged_record();
            tracing::error!(position, %path, "spooled event is damaged; set aside");
        }
        if lost.dropped > 0 {
            metrics::dropped_events("refused", lost.dropped);
            let (events, waited) = (lost.dropped, self.bounds.refused_kept_for);
            tracing::warn!(
                events,
                ?waited,
                "events dropped: the Switch has not known their device for `limits.refused_kept_for`"
            );
        }
        if lost.forgotten > 0 {
            metrics::dropped_events("set_aside", lost.forgotten);
            tracing::warn!(
                events = lost.forgotten,
                "the oldest events set aside dropped, to make room for others"
            );
        }
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

/// Appends the events of one post, or none of them. The bounds hold after it, so that repeats, which take no room, fit a
/// full spool.
fn append(
    transaction: &mut Transaction<'_>,
    events: &[RelayedEvent],
    pending: &mut Pending<'_>,
    bounds: &SpoolBounds,
) -> rusqlite::Result<Result<u64, SpoolError>> {
    let savepoint = transaction.savepoint()?;
    let mut by_device: BTreeMap<&str, u64> = BTreeMap::new();
    for event in events {
        *by_device.entry(&event.device).or_default() += tables::append(&savepoint, event)?;
    }
    by_device.retain(|_, bytes| *bytes > 0);
    let (added, held, max): (u64, _, _) = (by_device.values().sum(), pending.all(), bounds.bytes_max);
    if added > 0 && held.saturating_add(added) > max {
        // Dropped, a savepoint is rolled back.
        return Ok(Err(SpoolError::Full { held, max }));
    }
    let max = bounds.bytes_per_device_max;
    for (device, bytes) in &by_device {
        let held = pending.of(device);
        if held.saturating_add(*bytes) > max {
            return Ok(Err(SpoolError::DeviceFull { held, max }));
        }
    }
    savepoint.commit()?;
    by_device.into_iter().for_each(|(device, bytes)| pending.add(device, bytes));
    Ok(Ok(added))
}

/// Acts on what the Switch said of a batch.
fn settle(
    transaction: &Transaction<'_>,
    settled: &Settled,
    now_ms: i64,
    pending: &mut Pending<'_>,
    bounds: &SpoolBounds,
    lost: &mut Lost,
) -> rusqlite::Result<()> {
    for position in &settled.taken {
        if let Some(gone) = tables::remove(transaction, *position)? {
            pending.free(&gone.device, gone.bytes);
        }
    }
    let malformed = set_aside(transaction, &settled.hopeless, Hopeless::Malformed, now_ms, pending)?;
    lost.malformed += u64::try_from(malformed.len()).unwrap_or(u64::MAX);
    let kept_for = i64::try_from(bounds.refused_kept_for.as_millis()).unwrap_or(i64::MAX);
    for position in &settled.kept {
        if let Some(gone) = tables::refuse(transaction, *position, now_ms, now_ms.saturating_sub(kept_for))? {
            pending.free(&gone.device, gone.bytes);
            lost.dropped += 1;
        }
    }
    Ok(())
}

/// Takes events out of those that wait; returns the positions of those that were there.
fn set_aside(
    transaction: &Transaction<'_>,
    positions: &[i64],
    why: Hopeless,
    now_ms: i64,
    pending: &mut Pending<'_>,
) -> rusqlite::Result<Vec<i64>> {
    let mut moved = Vec::new();
    for position in positions {
        if let Some(gone) = tables::set_aside(transaction, *position, why, now_ms)? {
            pending.free(&gone.device, gone.bytes);
            moved.push(*position);
        }
    }
    Ok(moved)
}

/// Answers whoever waits for a command; a client that went away asks again.
fn reply(command: Command, refused: Option<SpoolError>) {
    match command {
        Command::Append { place, reply, .. } => {
            drop(place);
            drop(reply.send(refused.map_or(Ok(()), Err)));
        }
        Command::Settle { reply, .. } | Command::KeepDoor { reply, .. } => {
            drop(reply.send(refused.map_or(Ok(()), Err)));
        }
        Command::SetAside { .. } => {}
    }
}
