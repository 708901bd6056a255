//! Which device has its session where, for every thread of the Switch.
//!
//! The engine decides which session of a device counts; this only shows it. An entry is replaced by a later epoch and
//! removed by its own, so that late goodbyes of superseded sessions change nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use muster_pki::DeviceId;

use crate::config::SessionLimits;
use crate::engine::SessionKey;
use crate::metrics;

/// The sessions of the whole Switch.
#[derive(Debug)]
pub(crate) struct Registry {
    devices: DashMap<DeviceId, SessionKey>,
    admitted: AtomicU32,
    sessions_max: u32,
    /// Of those admitted, how many have no certificate.
    unauthenticated: AtomicU32,
    unauthenticated_max: u32,
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
    /// Whether it is one of those that devices without a certificate may have.
    is_unauthenticated: bool,
}

/// Why there is no room for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRoom {
    /// The Switch holds all the sessions it may.
    #[error("the Switch holds all the sessions it may (`sessions.sessions_max`)")]
    Full,
    /// Devices without a certificate hold all the sessions they may.
    #[error("devices without a certificate hold all the sessions they may (`sessions.unauthenticated_max`)")]
    UnauthenticatedFull,
    /// The device has begun too many.
    #[error(
        "this device has begun as many sessions as it may without a Hello (`sessions.ungreeted_per_device_max`)"
    )]
    DeviceFull,
}

impl Registry {
    /// Makes an empty one that admits as many sessions as may be.
    pub(crate) fn new(limits: &SessionLimits) -> Arc<Self> {
        Arc::new(Self {
            devices: DashMap::new(),
            admitted: AtomicU32::new(0),
            sessions_max: limits.sessions_max,
            unauthenticated: AtomicU32::new(0),
            unauthenticated_max: limits.unauthenticated_max,
            ungreeted: DashMap::new(),
            ungreeted_per_device_max: limits.ungreeted_per_device_max,
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
        let is_unauthenticated = device.is_of_key();
        if is_unauthenticated && !take(&self.unauthenticated, self.unauthenticated_max) {
            self.greeted(device);
            return Err(NoRoom::UnauthenticatedFull);
        }
        if !take(&self.admitted, self.sessions_max) {
            if is_unauthenticated {
                self.unauthenticated.fetch_sub(1, Ordering::AcqRel);
            }
            self.greeted(device);
            return Err(NoRoom::Full);
        }
        metrics::unauthenticated_sessions(self.unauthenticated.load(Ordering::Acquire));
        Ok(Room { registry: Arc::clone(self), ungreeted: Some(device.clone()), is_unauthenticated })
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

    /// Returns which bound on sessions is reached, so that further devices are told to come back later; for `muster doctor`.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let full = |taken: &AtomicU32, max: u32, whose: &str, key: &str| {
            (taken.load(Ordering::Acquire) >= max).then(|| {
                format!("{whose} hold all the {max} sessions they may: further ones are told to come back later; raise `{key}`")
            })
        };
        let without = full(
            &self.unauthenticated,
            self.unauthenticated_max,
            "devices without a certificate",
            "sessions.unauthenticated_max",
        );
        full(&self.admitted, self.sessions_max, "devices", "sessions.sessions_max")
            .into_iter()
            .chain(without)
            .collect()
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
        if self.is_unauthenticated {
            let before = self.registry.unauthenticated.fetch_sub(1, Ordering::AcqRel);
            metrics::unauthenticated_sessions(before.saturating_sub(1));
        }
    }
}

/// Counts one more, if there may be one.
fn take(held: &AtomicU32, most: u32) -> bool {
    let more = |held: u32| (held < most).then_some(held + 1);
    held.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_proto::ids::Epoch;

    #[test]
    fn a_late_goodbye_of_a_superseded_session_changes_nothing() {
        let registry = registry(10, 1);
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
        let (registry, device) = (registry(1, 4), "w701.acme.local".parse().unwrap());
        let first = registry.admit(&device);

        let refused = registry.admit(&device);
        drop(first);
        let again = registry.admit(&device);

        assert_eq!(refused.unwrap_err(), NoRoom::Full);
        assert!(again.is_ok());
    }

    #[test]
    fn a_device_has_few_sessions_without_a_hello_and_takes_no_room_of_others() {
        let registry = registry(10, 2);
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

    #[test]
    fn c1_devices_without_a_certificate_have_a_part_of_the_sessions_and_no_more() {
        let registry = registry(3, 4);
        let keys = [1, 2, 3].map(|key: u8| DeviceId::of_key(&[key]));
        let held = [registry.admit(&keys[0]), registry.admit(&keys[1])];
        assert!(held.iter().all(Result::is_ok));

        let third = registry.admit(&keys[2]).unwrap_err();
        let certified = registry.admit(&"w701.acme.local".parse().unwrap());
        drop(held);
        let full = [registry.admit(&keys[0]), registry.admit(&keys[1])];
        let beyond_all = registry.admit(&"w702.acme.local".parse().unwrap()).unwrap_err();

        assert_eq!((third, beyond_all), (NoRoom::UnauthenticatedFull, NoRoom::Full));
        assert!(certified.is_ok() && full.iter().all(Result::is_ok));
        drop((certified, full));
        assert_eq!(registry.unauthenticated.load(Ordering::Acquire), 0);
        assert!(registry.ungreeted.is_empty());
    }

    fn registry(sessions_max: u32, ungreeted_per_device_max: u32) -> Arc<Registry> {
        let limits = SessionLimits {
            sessions_max,
            unauthenticated_max: 2,
            ungreeted_per_device_max,
            ..SessionLimits::default()
        };
        Registry::new(&limits)
    }

    fn session(epoch: u64) -> SessionKey {
        SessionKey { shard: 0, slot: 0, epoch: Epoch(epoch) }
    }
}
