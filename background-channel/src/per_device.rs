//! [`PerDevice`]: how many of something each device has, and no more than it may.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use muster_pki::DeviceId;

/// Counts by device. A device that has none takes no memory.
#[derive(Debug)]
pub(crate) struct PerDevice {
    max: u32,
    counts: Mutex<BTreeMap<DeviceId, u32>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    of: Arc<PerDevice>,
    device: DeviceId,
}

impl PerDevice {
    pub(crate) fn new(max: u32) -> Arc<Self> {
        Arc::new(Self { max, counts: Mutex::new(BTreeMap::new()) })
    }

    /// One more for a device; `None` if it has all that it may.
    pub(crate) fn enter(self: &Arc<Self>, device: &DeviceId) -> Option<Counted> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(device).copied().unwrap_or(0);
        if count >= self.max {
            return None;
        }
        counts.insert(device.clone(), count + 1);
        Some(Counted { of: Arc::clone(self), device: device.clone() })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.of.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.device) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(counts.remove(&self.device)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_no_more_than_it_may_and_takes_nothing_from_another() {
        let (one, other) = ("a.test".parse::<DeviceId>().unwrap(), "b.test".parse::<DeviceId>().unwrap());
        let counts = PerDevice::new(2);

        let held = (counts.enter(&one), counts.enter(&one));
        let third = counts.enter(&one);
        let others = counts.enter(&other);
        drop(held);
        let after = counts.enter(&one);

        assert!(third.is_none() && others.is_some() && after.is_some());
        drop((others, after));
        assert!(counts.counts.lock().unwrap().is_empty());
    }
}
