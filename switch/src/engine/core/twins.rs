//! Devices whose sessions take one another over: two machines that use one certificate or one key.
//!
//! A client that comes back takes its own session over, with the store that it has; one that lost its store comes with another
//! one, once. A store that was taken over from and comes back belongs to a machine that still runs.

use std::collections::HashMap;

use muster_pki::DeviceId;
use muster_proto::ids::OutboxId;
use roaring::RoaringBitmap;

use super::Core;

/// How long it is told after the last time that it was seen: the one who was sent away comes back after minutes.
const KEPT_MS: i64 = 24 * 60 * 60 * 1_000;

/// What was seen since the start.
#[derive(Debug, Default)]
pub(super) struct Twins {
    /// The store that lost its session to another one last, by device.
    displaced: HashMap<u32, OutboxId>,
    devices: RoaringBitmap,
    last: Option<(DeviceId, i64)>,
}

/// Devices that several machines are at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Twinned {
    devices: u64,
    last: DeviceId,
    at_ms: i64,
}

impl Core {
    /// Notes that a session with one store took over from one with another.
    pub(super) fn note_take_over(
        &mut self,
        number: u32,
        device: &DeviceId,
        stores: [OutboxId; 2],
        now_ms: i64,
    ) {
        let [from, to] = stores;
        if from == to {
            return;
        }
        let displaced = self.twins.displaced.insert(number, from);
        if displaced != Some(to) {
            return;
        }
        self.twins.last = Some((device.clone(), now_ms));
        if self.twins.devices.insert(number) {
            tracing::warn!(%device, "two machines take this device's session from one another");
        }
    }

    /// Returns the devices that several machines are at once, if there are any.
    pub(crate) fn twinned(&self) -> Option<Twinned> {
        let (last, at_ms) = self.twins.last.clone()?;
        Some(Twinned { devices: self.twins.devices.len(), last, at_ms })
    }
}

impl Twinned {
    /// Says what it means, and what to do; `None` once it is long ago.
    pub(crate) fn says(&self, now_ms: i64) -> Option<String> {
        let Self { devices, last, at_ms } = self;
        let what =
            if last.is_of_key() { "device key (device.key in data_dir)" } else { "certificate and key" };
        (now_ms.saturating_sub(*at_ms) < KEPT_MS).then(|| {
            format!(
                "two machines with one {what} take the session of {last} from one another ({devices} such devices since the \
                 start): give each machine its own, and do not copy data_dir or keys when a machine is cloned"
            )
        })
    }
}
