//! The writer thread: batches in, one commit for each, then what the batch promised.
//!
//! A batch is what queued during the previous fsync; nobody waits for it to fill. Replies, acks and orders leave after
//! the commit. The thread's own runtime has a timer and no descriptors.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::core::{
    Command, Core, CoreConfig, DELETED_AT_ONCE, DELETED_BYTES_AT_ONCE, Moment, Output, SUBMISSIONS_KEPT_MS,
};
use super::damage::Damage;
use super::outgoing::Outgoing;
use super::reader::{Pool, Reader};
use super::shared::{Catalogue, Shared, SharedParts};
use super::store::{Store, StoreError};
use super::{EngineConfig, EngineEnd, OpenError, ShardMessage, metrics};

/// Whether the writer lives, and why it doesn't.
#[derive(Debug)]
pub(crate) struct Life {
    close: CancellationToken,
    ended: watch::Receiver<Option<EngineEnd>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Everything the thread owns.
#[derive(Debug)]
struct Writer {
    core: Core,
    store: Store,
    outgoing: Outgoing,
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Command>,
    close: CancellationToken,
    batch_items_max: usize,
    /// The version of the attribute names that were published.
    last_names: u64,
}

/// How long the writer sleeps at most: the time of day may go on by more than was slept, when a clock that jumped ahead is
/// believed in the end, and a store that is taken away is to be noticed by a Switch that has nothing to write.
const TICK: Duration = Duration::from_millis(500);

/// How soon a full mailbox is tried again.
const RETRY: Duration = Duration::from_millis(5);

/// What [`start`] gives: what every thread may look at, the way to read, and the thread's life.
pub(super) type Started = (Arc<Shared>, Reader, Arc<Life>);

/// Opens and loads the store, and starts the thread.
pub(super) fn start(
    config: EngineConfig,
    shards: Vec<mpsc::Sender<ShardMessage>>,
    queue: mpsc::Receiver<Command>,
) -> Result<Started, OpenError> {
    let damage = Arc::new(Damage::default());
    let store = Store::open(&config.data_dir)?;
    let since = config.clock.now_ms().saturating_sub(SUBMISSIONS_KEPT_MS);
    let mut loaded = store.load(since, &damage)?;
    let connections = (0..config.readers.max(1)).map(|_| store.reading_connection());
    let connections = connections.collect::<Result<Vec<_>, _>>()?;
    let take = std::mem::take;
    let (definitions, licences) = (take(&mut loaded.definitions), take(&mut loaded.licences));
    let serials = [loaded.marks.licence_serial, loaded.marks.policy_serial];
    let catalogue = Catalogue::stored(definitions, licences, take(&mut loaded.policies), serials, &damage);
    let shared = Arc::new(Shared::new(SharedParts {
        clock: config.clock,
        damage,
        data_dir: config.data_dir,
        disk_reserve_bytes: config.disk_reserve_bytes,
        set_aside: loaded.set_aside.iter().map(|(_, id, why)| (*id, why.clone())).collect(),
        trust: config.trust,
    }));
    shared.set_catalogue(Arc::new(catalogue.clone()));
    let core = CoreConfig {
        tenant: config.tenant,
        prepared_ttl: config.prepared_ttl,
        disk_reserve_bytes: config.disk_reserve_bytes,
        blocked_max: config.blocked_max,
        stops_max: config.stops_max,
        policy_asks_per_second: config.policy_asks_per_second,
        unauthenticated: config.unauthenticated,
    };
    let core = Core::new(core, loaded, catalogue);
    shared.set_blocked(core.blocked());
    let (active, devices) = core.sizes();
    tracing::info!(devices, active_instructions = active, "store loaded");
    let close = CancellationToken::new();
    let mut writer = Writer {
        core,
        store,
        outgoing: Outgoing::new(shards),
        shared: Arc::clone(&shared),
        queue,
        close: close.clone(),
        batch_items_max: config.batch_items_max.max(1),
        last_names: 0,
    };
    writer.publish();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (ending, ended) = watch::channel(None);
    let body = move || {
        let end = runtime.block_on(writer.run());
        ending.send_replace(Some(end));
    };
    let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(body)?;
    let reader = Reader::new(Pool::new(connections), Arc::clone(&shared), config.aggregates);
    Ok((shared, reader, Arc::new(Life { close, ended, thread: Mutex::new(Some(thread)) })))
}

impl Life {
    /// Returns why the writer ended, when it does.
    pub(super) async fn failed(&self) -> EngineEnd {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        end.unwrap_or(EngineEnd::Panicked)
    }

    /// Lets the writer commit what is queued, waits for its end and returns why it ended.
    pub(super) fn close(&self) -> EngineEnd {
        self.close.cancel();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the writer's thread panicked");
        }
        self.ended.borrow().clone().unwrap_or(EngineEnd::Panicked)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.close.cancel();
    }
}

impl Writer {
    /// Runs until it is closed or a commit fails; returns why.
    async fn run(&mut self) -> EngineEnd {
        let mut batch = Vec::with_capacity(self.batch_items_max);
        let mut delivered = true;
        loop {
            let sleep = self.until_next(delivered);
            let closing = tokio::select! {
                biased;
                () = self.close.cancelled() => true,
                received = self.queue.recv_many(&mut batch, self.batch_items_max) => received == 0,
                () = tokio::time::sleep(sleep) => false,
            };
            if closing {
                self.queue.close();
                self.queue.recv_many(&mut batch, usize::MAX).await;
                self.core.note_online(self.shared.clock.now_ms());
            }
            match self.commit(&mut batch) {
                Ok(all) => delivered = all,
                Err(error) => {
                    tracing::error!(%error, "the store cannot be written; ending");
                    return EngineEnd::from(&error);
                }
            }
            if closing {
                return EngineEnd::Closed;
            }
        }
    }

    /// Carries out a batch. Returns whether every message found room in its shard's mailbox.
    fn commit(&mut self, batch: &mut Vec<Command>) -> Result<bool, StoreError> {
        let now_ms = self.shared.clock.now_ms();
        let looks = self.core.awaits_disk() || batch.iter().any(Command::needs_disk);
        let disk_free_bytes = if looks { self.shared.disk_free_bytes() } else { u64::MAX };
        let items = batch.len();
        for command in batch.drain(..) {
            if let Some(id) = self.core.to_recall(&command)
                && let Some(late) = self.store.recall(id, &self.shared.damage)?
            {
                self.core.recall(id, late);
            }
            self.core.handle(command, Moment { now_ms, disk_free_bytes });
        }
        self.core.release_events(Moment { now_ms, disk_free_bytes });
        self.core.handle_timeout(now_ms);
        // One wrong reading at the start would delete what nobody can bring back.
        if let Some(settled_ms) = self.shared.clock.settled_ms()
            && let Some(instruction) = self.core.results_due(settled_ms)
        {
            let first = self.store.first_results(instruction, DELETED_AT_ONCE, DELETED_BYTES_AT_ONCE)?;
            self.core.delete_results(instruction, first, settled_ms);
        }
        let output = self.core.poll_output(now_ms);
        let wrote = !output.writes.is_empty();
        if wrote {
            let begin = Instant::now();
            self.store.commit(&output.writes)?;
            metrics::committed(items, begin.elapsed());
        }
        // Also without a write: the writer wakes every TICK, so a store that is gone is noticed within it.
        self.store.check_files()?;
        self.release(output);
        let delivered = self.outgoing.flush();
        if wrote {
            self.publish();
            self.shared.changed();
            self.store.checkpoint()?;
        }
        Ok(delivered)
    }

    /// Lets out what waited for the commit.
    fn release(&mut self, output: Output) {
        for (device, address) in output.presence {
            self.shared.set_presence(device, address);
        }
        // Before the sessions are told to close, so that who comes back at once is refused.
        if let Some(blocked) = output.blocked {
            self.shared.set_blocked(blocked);
        }
        if let Some(catalogue) = output.catalogue {
            self.shared.set_catalogue(catalogue);
        }
        for (to, message) in &output.messages {
            self.outgoing.push(*to, message);
        }
        for ack in output.acks {
            self.outgoing.push_ack(ack);
        }
        for reply in output.replies {
            reply.send();
        }
    }

    fn publish(&mut self) {
        let (active, devices) = self.core.sizes();
        self.shared.set_sizes(active, devices);
        metrics::sizes(active, devices);
        metrics::policy_behind(self.core.devices_behind());
        metrics::unauthenticated(self.core.unauthenticated_devices());
        if let Some(ahead) = self.core.ahead() {
            self.shared.set_ahead(ahead);
        }
        if let Some(twinned) = self.core.twinned() {
            self.shared.set_twinned(twinned);
        }
        let names = self.core.attribute_names_version();
        if names != self.last_names {
            self.last_names = names;
            self.shared.set_attributes(self.core.attribute_names());
        }
    }

    fn until_next(&self, delivered: bool) -> Duration {
        if !delivered {
            return RETRY;
        }
        let now = self.shared.clock.now_ms();
        let deletion = self.shared.clock.settled_ms().and_then(|_| self.core.next_deletion());
        let due = self.core.poll_timeout(now).into_iter().chain(deletion).min();
        let due = due.map_or(i64::MAX, |at| at.saturating_sub(now));
        Duration::from_millis(u64::try_from(due).unwrap_or_default()).min(TICK)
    }
}
