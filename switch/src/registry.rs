//! Which device has its session where, for every thread of the Switch.
//!
//! The engine decides which session of a device counts; this only shows it. An entry is replaced by a later epoch and
//! removed by its own, so that late goodbyes of superseded sessions change nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use muster_pki::DeviceId;

use crate::engine::SessionKey;

/// The sessions of the whole Switch.
#[derive(Debug)]
pub(crate) struct Registry {
    devices: DashMap<DeviceId, SessionKey>,
    admitted: AtomicU32,
    sessions_max: u32,
}

/// Room for one session; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Room(Arc<Registry>);

impl Registry {
    /// Makes an empty one that admits so many sessions.
    pub(crate) fn new(sessions_max: u32) -> Arc<Self> {
        Arc::new(Self { devices: DashMap::new(), admitted: AtomicU32::new(0), sessions_max })
    }

    /// Takes room for one more session, if there is any.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Room> {
        let more = |held: u32| (held < self.sessions_max).then_some(held + 1);
        self.admitted
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .ok()
            .map(|_| Room(Arc::clone(self)))
    }

    /// Notes a session, unless a later one of the device is known.
    pub(crate) fn insert(&self, device: DeviceId, session: SessionKey) {
        match self.devices.entry(device) {
            Entry::Occupied(mut held) => {
                if held.get().epoch < session.epoch {
                    held.insert(session);
                }
            }
            Entry::Vacant(free) => {
                free.insert(session);
            }
        }
    }

    /// Forgets a session, if it is still the device's.
    pub(crate) fn remove(&self, device: &DeviceId, session: SessionKey) {
        self.devices.remove_if(device, |_, held| *held == session);
    }

    /// Returns how many devices have a session.
    pub(crate) fn sessions(&self) -> u64 {
        u64::try_from(self.devices.len()).unwrap_or(u64::MAX)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.admitted.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::ids::Epoch;

    #[test]
    fn a_late_goodbye_of_a_superseded_session_changes_nothing() {
        let registry = Registry::new(10);
        let device: DeviceId = "w701.acme.local".parse().unwrap();
        registry.insert(device.clone(), session(1));
        registry.insert(device.clone(), session(2));

        registry.remove(&device, session(1));

        assert_eq!(registry.sessions(), 1);
        registry.remove(&device, session(2));
        assert_eq!(registry.sessions(), 0);
    }

    #[test]
    fn room_comes_back_when_a_session_ends() {
        let registry = Registry::new(1);
        let first = registry.admit();

        let refused = registry.admit();
        drop(first);
        let again = registry.admit();

        assert!(refused.is_none());
        assert!(again.is_some());
    }

    fn session(epoch: u64) -> SessionKey {
        SessionKey { shard: 0, slot: 0, epoch: Epoch(epoch) }
    }
}
