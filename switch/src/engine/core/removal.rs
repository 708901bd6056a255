//! Devices that an operator takes out of the fleet.
//!
//! What a removed device brought stays, under its name and its number, which nobody gets again. Its targets end, so that
//! every ledger stays a partition. If it connects again it is a new device; only what was seen of its outboxes is the old
//! one's, since the client sends from there what was not acked. A result among that is kept beside the target that the
//! device was under its former number (see `late`).

use muster_pki::DeviceId;
use muster_proto::common::v1::TargetState;
use muster_proto::operator::v1::RemoveClientResponse;
use muster_proto::session::v1::CloseReason;
use roaring::RoaringBitmap;

use super::Core;
use crate::engine::store::Write;
use crate::engine::{EngineError, metrics};

/// The cause of transitions of targets whose device was removed.
pub(super) const REMOVED: &str = "removed";

impl Core {
    /// Removes a device.
    pub(super) fn remove(
        &mut self,
        device: &DeviceId,
        now_ms: i64,
    ) -> Result<RemoveClientResponse, EngineError> {
        let number = self.devices.number(device).ok_or_else(|| {
            EngineError::NotFound(format!(
                "no device {device}; `muster client list` shows those that are known"
            ))
        })?;
        let session = self.sessions.remove(&number);
        if let Some(session) = session {
            // It may come back at once: what keeps a device out is its certificate's revocation.
            self.close(session, CloseReason::Shutdown, "an operator removed this device");
            self.online.remove(number);
            self.out.presence.push((device.clone(), None));
        }
        let open = |state: TargetState| !state.is_terminal();
        let waiting = self.active.iter().filter(|(_, active)| active.state_of(number).is_some_and(open));
        let positions: Vec<i64> = waiting.map(|(position, _)| *position).collect();
        for position in &positions {
            self.advance(*position, &RoaringBitmap::from([number]), TargetState::Cancelled, REMOVED);
        }
        self.devices.remove(device, number);
        self.policies.forget(number);
        self.out.writes.push(Write::DeviceRemoved { number, at_ms: now_ms });
        metrics::device_removed();
        Ok(RemoveClientResponse {
            device: device.to_string(),
            was_online: session.is_some(),
            cancelled_targets: u64::try_from(positions.len()).unwrap_or(u64::MAX),
        })
    }

    /// Returns whether what came is of a session that goes on for a moment after its device was removed or blocked. It gets no ack,
    /// so that the client sends it again when it is known, or let in, again.
    pub(super) fn left_behind(&self, number: u32) -> bool {
        if self.is_blocked(number) {
            metrics::left_unacked("blocked_device");
            return true;
        }
        let removed = !self.devices.is_here(number);
        if removed {
            metrics::left_unacked("removed_device");
        }
        removed
    }
}
