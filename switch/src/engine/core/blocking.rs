//! Devices that an operator keeps out, without a CRL: what `muster client block` stores, and what follows from it.
//!
//! A block is of a DeviceId, not of a certificate: a renewed one does not lift it, and a device that was never seen can have one.
//! Its open targets stay as they are, as those of a device that is away: nothing of them is known to have ended, and it
//! answers them if it is unblocked in time. The store refuses what a blocked device sends, on every road, and acks none of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_pki::DeviceId;
use muster_proto::operator::v1::{Block, BlockClientResponse, UnblockClientResponse};
use muster_proto::session::v1::CloseReason;
use roaring::RoaringBitmap;

use super::Core;
use crate::engine::store::Write;
use crate::engine::{EngineError, metrics};

/// The cause of transitions of targets whose device was blocked between the order's making and its submission.
pub(super) const BLOCKED: &str = "blocked";

/// What a device is told. Who blocked it and why is for operators.
const TOLD: &str = "an operator has blocked this device; ask whoever runs the Switch";

/// The longest reason (fleet.proto).
const REASON_BYTES_MAX: usize = 256;

/// Who is blocked, by name.
pub(crate) type BlockedDevices = BTreeMap<DeviceId, Block>;

impl Core {
    /// Blocks a device. Its session ends, and what is still on its way from there is not taken.
    pub(super) fn block(
        &mut self,
        device: &DeviceId,
        operator: String,
        reason: String,
        now_ms: i64,
    ) -> Result<BlockClientResponse, EngineError> {
        if reason.len() > REASON_BYTES_MAX {
            let got = reason.len();
            let problem =
                format!("a reason of {got} bytes, wanted at most {REASON_BYTES_MAX}; say it shorter");
            return Err(EngineError::InvalidArgument(problem));
        }
        if !self.blocked.contains_key(device) && self.blocked.len() >= self.blocked_max {
            metrics::blocked_full();
            return Err(EngineError::ResourceExhausted(format!(
                "{} devices are blocked, as many as `engine.blocked_max` allows; unblock some, or raise it",
                self.blocked.len()
            )));
        }
        let block = Block { device: device.to_string(), operator, at_ms: now_ms, reason };
        Arc::make_mut(&mut self.blocked).insert(device.clone(), block.clone());
        self.out.writes.push(Write::Blocked { device: device.clone(), block: Some(Box::new(block.clone())) });
        self.out.blocked = Some(Arc::clone(&self.blocked));
        let number = self.devices.number(device);
        let session = number.and_then(|number| Some((number, self.sessions.remove(&number)?)));
        if let Some((number, session)) = session {
            self.close(session, CloseReason::Revoked, TOLD);
            self.online.remove(number);
            self.out.writes.push(Write::LastSeen { number, at_ms: now_ms });
            self.out.presence.push((device.clone(), None));
        }
        Ok(BlockClientResponse { block: Some(block), was_online: session.is_some(), known: number.is_some() })
    }

    /// Lets a device in again.
    pub(super) fn unblock(&mut self, device: &DeviceId) -> Result<UnblockClientResponse, EngineError> {
        let Some(block) = Arc::make_mut(&mut self.blocked).remove(device) else {
            return Err(EngineError::NotFound(format!(
                "{device} is not blocked; `muster client list --blocked` shows who is"
            )));
        };
        self.out.writes.push(Write::Blocked { device: device.clone(), block: None });
        self.out.blocked = Some(Arc::clone(&self.blocked));
        Ok(UnblockClientResponse { block: Some(block) })
    }

    /// Refuses a session of a blocked device: the shard asks before its upgrade, and the block may have come since then.
    pub(super) fn refuse_blocked(&self, device: &DeviceId) -> Result<(), EngineError> {
        if self.blocked.contains_key(device) {
            return Err(EngineError::PermissionDenied(TOLD.to_owned()));
        }
        Ok(())
    }

    /// Returns who is blocked.
    pub(crate) fn blocked(&self) -> Arc<BlockedDevices> {
        Arc::clone(&self.blocked)
    }

    pub(super) fn is_blocked(&self, number: u32) -> bool {
        !self.blocked.is_empty()
            && self.devices.name(number).is_some_and(|device| self.blocked.contains_key(device))
    }

    /// Returns the numbers of those that are blocked; they are no targets of new instructions.
    pub(super) fn blocked_numbers(&self) -> RoaringBitmap {
        self.blocked.keys().filter_map(|device| self.devices.number(device)).collect()
    }
}
