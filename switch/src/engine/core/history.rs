//! Whether devices remember more than the store: evidence that it is an older copy of itself.
//!
//! Epochs are given by this store alone, and are on disk before a device is told. So no device can come with a later one
//! than the store remembers, unless the store was brought back from a copy, the device is of another Switch, or it lies.
//! What a device says is counted and told, once for each device, and nothing else: no number is taken over, no session
//! refused. One device may lie, so people are told how many say so, and which was the first. A device that is known by a key is
//! no witness, since anyone can make keys. A client that was another device before (a new key, a certificate in place of a key,
//! another one's certificate) brings the epoch of that device, and is known by its outbox.

use std::collections::HashMap;

use muster_pki::DeviceId;
use muster_proto::ids::OutboxId;
use muster_proto::session::v1::Hello;
use roaring::RoaringBitmap;

use super::Core;
use crate::engine::metrics;

/// What devices told of the store's past since the start.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The last epoch that was given before the start.
    at_start: u64,
    /// Numbers of devices that had a session since the start.
    came: RoaringBitmap,
    /// Of these, those that were given a later epoch than the store remembers.
    ahead: RoaringBitmap,
    /// The first of them.
    first: Option<DeviceId>,
    /// The outbox that each device named last since the start; one a device.
    named: HashMap<u32, OutboxId>,
    /// Which device named an outbox last.
    stores: HashMap<OutboxId, u32>,
}

/// Devices that were given a later epoch than the store remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// How many, since the start.
    pub(crate) devices: u64,
    /// Of so many that came since the start.
    pub(crate) came: u64,
    /// The first of them.
    pub(crate) first: DeviceId,
}

impl History {
    /// Begins with the last epoch that the store remembers.
    pub(super) fn new(at_start: u64) -> Self {
        Self { at_start, ..Self::default() }
    }

    /// Returns the store that a device named last.
    pub(super) fn store_of(&self, number: u32) -> Option<OutboxId> {
        self.named.get(&number).copied()
    }

    /// Notes which store a device has; returns whether the store had a session since the start, as whichever device.
    fn note_store(&mut self, number: u32, outbox: OutboxId) -> bool {
        let had_one = self.stores.insert(outbox, number).is_some();
        let before = self.named.insert(number, outbox).filter(|before| *before != outbox);
        if let Some(before) = before.filter(|before| self.stores.get(before) == Some(&number)) {
            self.stores.remove(&before);
        }
        had_one
    }
}

impl Core {
    /// Holds the epoch that a device was given last against those that the store remembers. To be called before the
    /// device gets its next.
    pub(super) fn compare_epochs(&mut self, number: u32, device: &DeviceId, hello: &Hello) {
        let last_epoch = hello.last_epoch;
        let numbers: RoaringBitmap = self.devices.numbers_of(number).collect();
        let history = &mut self.history;
        let outbox = OutboxId::try_from(&hello.outbox_id[..]).ok();
        let store_came = outbox.is_some_and(|outbox| history.note_store(number, outbox));
        if device.is_of_key() {
            return;
        }
        // The epochs given since the start may have passed what the older copy had forgotten; a device that comes for the
        // first time has none of these, unless its store was another device's.
        let came_before = store_came || !history.came.is_disjoint(&numbers);
        let latest = if came_before { self.marks.epoch } else { history.at_start };
        history.came.insert(number);
        if last_epoch <= latest || !history.ahead.is_disjoint(&numbers) {
            return;
        }
        history.ahead.insert(number);
        history.first.get_or_insert_with(|| device.clone());
        let devices = history.ahead.len();
        metrics::devices_ahead(devices);
        // At 1, 2, 4, … devices: once for one that lies, a few times for a fleet.
        if devices.is_power_of_two() {
            tracing::error!(
                %device,
                devices,
                last_epoch,
                remembered = latest,
                "a device was given a later epoch than the store remembers: the store is an older copy, or the device is \
                 of another Switch"
            );
        }
    }

    /// Returns the devices that remember more than the store, if there are any.
    pub(crate) fn ahead(&self) -> Option<Ahead> {
        let first = self.history.first.clone()?;
        Some(Ahead { devices: self.history.ahead.len(), came: self.history.came.len(), first })
    }
}

impl Ahead {
    /// Says what it means, and what to do.
    pub(crate) fn says(&self) -> String {
        let Self { devices, came, first } = self;
        format!(
            "{devices} of the {came} devices that came since the start (first: {first}) had sessions that this store does \
             not know of: it is an older copy, and misses the instructions, results, events, definitions and licences of \
             the time after it. If the newest data_dir still exists, stop the Switch and put it back; else import licence \
             and definitions again, and issue again what is missing. If only those devices are wrong, as after a move from \
             another Switch, there is nothing to do. Told until the next start"
        )
    }
}
