//! One batch after the other, without a thread: decided by the core, committed by the store, then let out.
//!
//! [`super::writer`] runs it on a thread of its own, and the simulation in virtual time, which ends it between any two of the three.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::core::{
    Command, Core, CoreConfig, DELETED_AT_ONCE, DELETED_BYTES_AT_ONCE, Moment, Output, SUBMISSIONS_KEPT_MS,
};
use super::damage::Damage;
use super::outgoing::Outgoing;
use super::reader::{Pool, Reader};
use super::shared::{Catalogue, Shared, SharedParts};
use super::store::{Store, StoreError};
use super::{EngineConfig, OpenError, ShardMessage, metrics};

/// Core, store and what lies between them and everybody else.
#[derive(Debug)]
pub(crate) struct Works {
    core: Core,
    store: Store,
    outgoing: Outgoing,
    shared: Arc<Shared>,
    /// The version of the attribute names that were published.
    last_names: u64,
}

/// What a batch asks for, and how many items it had.
#[derive(Debug)]
pub(crate) struct Decided {
    output: Output,
    items: usize,
}

impl Decided {
    /// Returns whether anything is to be put on disk.
    pub(crate) fn writes(&self) -> bool {
        !self.output.writes.is_empty()
    }
}

/// How long the writer sleeps at most: the time of day may go on by more than was slept, when a clock that jumped ahead is
/// believed in the end, and a store that is taken away is to be noticed by a Switch that has nothing to write.
const TICK: Duration = Duration::from_millis(500);

impl Works {
    /// Opens and loads the store.
    pub(crate) fn open(
        config: EngineConfig,
        shards: Vec<mpsc::Sender<ShardMessage>>,
    ) -> Result<(Self, Reader), OpenError> {
        let damage = Arc::new(Damage::default());
        let store = Store::open(&config.data_dir)?;
        let since = config.clock.now_ms().saturating_sub(SUBMISSIONS_KEPT_MS);
        let mut loaded = store.load(since, &damage)?;
        let connections = (0..config.readers.max(1)).map(|_| store.reading_connection());
        let connections = connections.collect::<Result<Vec<_>, _>>()?;
        let take = std::mem::take;
        let (definitions, licences) = (take(&mut loaded.definitions), take(&mut loaded.licences));
        let serials = [loaded.marks.licence_serial, loaded.marks.policy_serial];
        let catalogue =
            Catalogue::stored(definitions, licences, take(&mut loaded.policies), serials, &damage);
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
        let mut works =
            Self { core, store, outgoing: Outgoing::new(shards), shared: Arc::clone(&shared), last_names: 0 };
        works.publish();
        let reader = Reader::new(Pool::new(connections), shared, config.aggregates);
        Ok((works, reader))
    }

    /// Returns what every thread may look at.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Returns how many instructions have targets that have not ended.
    pub(crate) fn active(&self) -> usize {
        self.core.sizes().0
    }

    /// The Switch stops: what is known of sessions is noted with the next batch.
    pub(crate) fn handle_closing(&mut self) {
        self.core.note_online(self.shared.clock.now_ms());
    }

    /// Carries out a batch. Returns whether every message found room in its shard's mailbox.
    pub(crate) fn commit(&mut self, batch: &mut Vec<Command>) -> Result<bool, StoreError> {
        let decided = self.decide(batch)?;
        self.keep(&decided)?;
        self.let_out(decided)
    }

    /// Applies a batch to the core. Nothing of it is on disk yet, and nobody knows of it.
    pub(crate) fn decide(&mut self, batch: &mut Vec<Command>) -> Result<Decided, StoreError> {
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
        Ok(Decided { output: self.core.poll_output(now_ms), items })
    }

    /// Puts on disk what was decided. Still nobody knows of it.
    pub(crate) fn keep(&mut self, decided: &Decided) -> Result<(), StoreError> {
        if decided.writes() {
            let begin = Instant::now();
            self.store.commit(&decided.output.writes)?;
            metrics::committed(decided.items, begin.elapsed());
        }
        // Also without a write: the writer wakes every TICK, so a store that is gone is noticed within it.
        self.store.check_files()
    }

    /// Lets out what waited for the commit. Returns whether every message found room in its shard's mailbox.
    pub(crate) fn let_out(&mut self, decided: Decided) -> Result<bool, StoreError> {
        let wrote = decided.writes();
        self.release(decided.output);
        let delivered = self.outgoing.flush();
        if wrote {
            self.publish();
            self.shared.changed();
            self.store.checkpoint()?;
        }
        Ok(delivered)
    }

    /// Returns how long the writer may sleep if no command comes.
    pub(crate) fn until_next(&self) -> Duration {
        self.until_due().unwrap_or(TICK).min(TICK)
    }

    /// Returns how long the core has nothing to do by the time that is believed now.
    pub(crate) fn until_due(&self) -> Option<Duration> {
        let now = self.shared.clock.now_ms();
        let deletion = self.shared.clock.settled_ms().and_then(|_| self.core.next_deletion());
        let due = self.core.poll_timeout(now).into_iter().chain(deletion).min()?;
        Some(Duration::from_millis(u64::try_from(due.saturating_sub(now)).unwrap_or_default()))
    }

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
}
