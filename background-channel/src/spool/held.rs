//! [`Held`]: how many bytes the spool holds, of all and of each device.

use std::collections::BTreeMap;

/// Bytes of the events that wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Held {
    all: u64,
    /// Only of devices that have any.
    by_device: BTreeMap<String, u64>,
}

/// What a transaction makes of [`Held`], should it be committed.
#[derive(Debug)]
pub(super) struct Pending<'a> {
    before: &'a Held,
    all: u64,
    /// Of devices that it touched.
    by_device: BTreeMap<String, u64>,
}

/// The outcome of a [`Pending`], apart from what it was made of.
#[derive(Debug, Default)]
pub(super) struct Changed {
    all: u64,
    by_device: BTreeMap<String, u64>,
}

impl Held {
    pub(super) fn new(by_device: BTreeMap<String, u64>) -> Self {
        Self { all: by_device.values().sum(), by_device }
    }

    pub(super) fn all(&self) -> u64 {
        self.all
    }

    pub(super) fn pending(&self) -> Pending<'_> {
        Pending { before: self, all: self.all, by_device: BTreeMap::new() }
    }

    /// The transaction was committed.
    pub(super) fn handle_commit(&mut self, changed: Changed) {
        self.all = changed.all;
        for (device, bytes) in changed.by_device {
            if bytes == 0 {
                self.by_device.remove(&device);
            } else {
                self.by_device.insert(device, bytes);
            }
        }
    }
}

impl Pending<'_> {
    pub(super) fn all(&self) -> u64 {
        self.all
    }

    pub(super) fn of(&self, device: &str) -> u64 {
        let before = || self.before.by_device.get(device);
        self.by_device.get(device).or_else(before).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, device: &str, bytes: u64) {
        self.all = self.all.saturating_add(bytes);
        let held = self.of(device).saturating_add(bytes);
        self.by_device.insert(device.to_owned(), held);
    }

    pub(super) fn free(&mut self, device: &str, bytes: u64) {
        self.all = self.all.saturating_sub(bytes);
        let held = self.of(device).saturating_sub(bytes);
        self.by_device.insert(device.to_owned(), held);
    }

    pub(super) fn into_changed(self) -> Changed {
        Changed { all: self.all, by_device: self.by_device }
    }
}
