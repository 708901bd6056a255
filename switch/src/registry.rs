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
    /// Sessions of which no `Hello` was answered yet.
    ungreeted: DashMap<DeviceId, u32>,
    ungreeted_per_device_max: u32,
}

/// Room for one session; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    registry: Arc<Registry>,
    /// Whose it is, until its `Hello` was answered.
    ungreeted: Option<DeviceId>,
}

/// Why there is no room for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRoom {
    /// The Switch holds all the sessions it may.
    #[error("the Switch holds all the sessions it may (`sessions.sessions_max`)")]
    Full,
    /// The device has begun too many.
    #[error(
        "this device has begun as many sessions as it may without a Hello (`sessions.ungreeted_per_device_max`)"
    )]
    DeviceFull,
}

impl Registry {
    /// Makes an empty one that admits so many sessions, of one device so many without a `Hello`.
    pub(crate) fn new(sessions_max: u32, ungreeted_per_device_max: u32) -> Arc<Self> {
        Arc::new(Self {
            devices: DashMap::new(),
            admitted: AtomicU32::new(0),
            sessions_max,
            ungreeted: DashMap::new(),
            ungreeted_per_device_max,
        })
    }

    /// Takes room for one more session.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn admit(self: &Arc<Self>, device: &DeviceId) -> Result<Room, NoRoom> {
        let mut ungreeted = self.ungreeted.entry(device.clone()).or_default();
        if *ungreeted >= self.ungreeted_per_device_max {
            return Err(NoRoom::DeviceFull);
        }
        *ungreeted += 1;
        drop(ungreeted);
        let more = |held: u32| (held < self.sessions_max).then_some(held + 1);
        if self.admitted.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            self.greeted(device);
            return Err(NoRoom::Full);
        }
        Ok(Room { registry: Arc::clone(self), ungreeted: Some(device.clone()) })
    }

    /// Counts one session of a device less among those without a `Hello`.
    fn greeted(&self, device: &DeviceId) {
        if let Entry::Occupied(mut held) = self.ungreeted.entry(device.clone()) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
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

impl Room {
    /// Notes that the session's `Hello` was answered.
    pub(crate) fn greet(&mut self) {
        if let Some(device) = self.ungreeted.take() {
            self.registry.greeted(&device);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.greet();
        self.registry.admitted.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::ids::Epoch;

    #[test]
    fn a_late_goodbye_of_a_superseded_session_changes_nothing() {
        let registry = Registry::new(10, 1);
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
        let (registry, device) = (Registry::new(1, 4), "w701.acme.local".parse().unwrap());
        let first = registry.admit(&device);

        let refused = registry.admit(&device);
        drop(first);
        let again = registry.admit(&device);

        assert_eq!(refused.unwrap_err(), NoRoom::Full);
        assert!(again.is_ok());
    }

    #[test]
    fn a_device_has_few_sessions_without_a_hello_and_takes_no_room_of_others() {
        let registry = Registry::new(10, 2);
        let (device, other) = ("w701.acme.local".parse().unwrap(), "w702.acme.local".parse().unwrap());
        let mut greeted = registry.admit(&device).unwrap();
        let second = registry.admit(&device).unwrap();

        let refused = registry.admit(&device);
        let others = registry.admit(&other);
        greeted.greet();
        let third = registry.admit(&device);

        assert_eq!(refused.unwrap_err(), NoRoom::DeviceFull);
        assert!(others.is_ok() && third.is_ok());
        drop((greeted, second, third, others));
        assert!(registry.ungreeted.is_empty(), "nothing is kept of devices that are gone");
    }

    fn session(epoch: u64) -> SessionKey {
        SessionKey { shard: 0, slot: 0, epoch: Epoch(epoch) }
    }
}
