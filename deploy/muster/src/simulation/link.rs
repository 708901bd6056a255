//! A connection between a device and the Switch: in order each way, at a pace of its own, and not for ever.

use super::rng::Rng;

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) device: usize,
    /// The session's place at the Switch.
    pub(super) slot: u32,
    /// What is on its way arrives. Nobody is told when it does not.
    pub(super) carries: bool,
    /// Whether each side still takes it for open.
    pub(super) device_open: bool,
    pub(super) switch_open: bool,
    /// When the session at the Switch is looked at next.
    pub(super) due_at: Option<u64>,
    slowness_ms: u64,
    to_switch_at: u64,
    to_device_at: u64,
}

/// To whom something is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    ToSwitch,
    ToDevice,
}

impl Link {
    pub(super) fn new(device: usize, slot: u32, rng: &mut Rng) -> Self {
        Self {
            device,
            slot,
            carries: true,
            device_open: true,
            switch_open: true,
            due_at: None,
            slowness_ms: [1, 10, 80, 600][rng.place(4)],
            to_switch_at: 0,
            to_device_at: 0,
        }
    }

    /// Returns when what is sent now arrives: never before what was sent earlier.
    pub(super) fn arrival(&mut self, way: Way, now: u64, rng: &mut Rng) -> u64 {
        let latest = match way {
            Way::ToSwitch => &mut self.to_switch_at,
            Way::ToDevice => &mut self.to_device_at,
        };
        *latest = (*latest).max(now + rng.below(self.slowness_ms + 1));
        *latest
    }
}
