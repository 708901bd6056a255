//! Devices without a certificate (C1 of trust.md), and how much of the Switch they may take: anyone can make keys.
//!
//! They are devices like others, with names that no certificate has. All of them together have a bound for what stays on
//! disk, and rates for what comes: whoever makes a thousand keys has no more of it than who makes one.

use std::time::Duration;

use muster_pki::DeviceId;
use muster_proto::session::v1::CloseReason;
use muster_signing::definition::Kind;
use roaring::RoaringBitmap;

use super::ledgers::Active;
use super::{Core, Digest};
use crate::engine::outgoing::To;
use crate::engine::{EngineError, SessionKey, ShardMessage, metrics};

/// What devices without a certificate may take together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnauthenticatedLimits {
    /// Known at once.
    pub(crate) devices_max: u32,
    /// Seen for the first time, in a minute.
    pub(crate) new_per_minute: u32,
    /// Events stored, in a minute.
    pub(crate) events_per_minute: u32,
}

/// What they have taken in this minute.
#[derive(Debug)]
pub(super) struct Unauthenticated {
    limits: UnauthenticatedLimits,
    new: Minute,
    events: Minute,
}

/// How much of something there was since a minute began.
#[derive(Debug, Default)]
struct Minute {
    began_at_ms: i64,
    count: u32,
}

const MINUTE_MS: i64 = 60_000;

impl Unauthenticated {
    pub(super) fn new(limits: UnauthenticatedLimits) -> Self {
        Self { limits, new: Minute::default(), events: Minute::default() }
    }
}

impl Minute {
    /// Counts one more; `None` if there were as many as may be.
    fn take(&mut self, most: u32, now_ms: i64) -> Option<()> {
        // A clock that was set back begins a new one, too.
        if !(self.began_at_ms..self.began_at_ms.saturating_add(MINUTE_MS)).contains(&now_ms) {
            *self = Self { began_at_ms: now_ms, count: 0 };
        }
        self.count = self.count.checked_add(1).filter(|count| *count <= most)?;
        Some(())
    }
}

impl Core {
    /// Refuses a device without a certificate that is not known yet, where there are enough of them.
    pub(super) fn refuse_unknown_key(&mut self, device: &DeviceId, now_ms: i64) -> Result<(), EngineError> {
        if !device.is_of_key() || self.devices.number(device).is_some() {
            return Ok(());
        }
        let Unauthenticated { limits, new, .. } = &mut self.unauthenticated;
        if self.devices.unauthenticated().len() >= limits.devices_max.into() {
            metrics::unauthenticated_refused("devices");
            return Err(EngineError::ResourceExhausted(format!(
                "{} devices without a certificate are known, as many as `engine.unauthenticated_max` allows; remove some \
                 (`muster client remove`), or raise it",
                limits.devices_max
            )));
        }
        new.take(limits.new_per_minute, now_ms).ok_or_else(|| {
            metrics::unauthenticated_refused("new");
            EngineError::ResourceExhausted(format!(
                "{} devices without a certificate came for the first time in this minute, as many as \
                 `engine.unauthenticated_new_per_minute` allows; this one may come later",
                limits.new_per_minute
            ))
        })
    }

    /// Returns whether an event is left with its client, since devices without a certificate have sent enough in this minute. Its
    /// session ends, for a client sends again what was not acked in its next one.
    pub(super) fn leaves_event(&mut self, number: u32, session: SessionKey, now_ms: i64) -> bool {
        if !self.devices.unauthenticated().contains(number) {
            return false;
        }
        let Unauthenticated { limits, events, .. } = &mut self.unauthenticated;
        if events.take(limits.events_per_minute, now_ms).is_some() {
            return false;
        }
        metrics::left_unacked("unauthenticated_events");
        let message = ShardMessage::Close {
            session,
            reason: CloseReason::Shutdown,
            reconnect_after: Duration::from_secs(60),
            detail: "devices without a certificate have sent as many events as they may in a minute \
                     (`engine.unauthenticated_events_per_minute`)"
                .to_owned(),
        };
        self.out.messages.push((To::Shard(session.shard), message));
        true
    }

    /// Refuses to make an action for devices without a certificate: whoever asks for them by name is told, and leaves them
    /// out by name.
    pub(super) fn refuse_action(&self, kind: Kind, targets: &RoaringBitmap) -> Result<(), EngineError> {
        let without = targets.intersection_len(self.devices.unauthenticated());
        if kind == Kind::Question || without == 0 {
            return Ok(());
        }
        Err(EngineError::FailedPrecondition(format!(
            "{without} of the audience's devices are unauthenticated (no certificate), and an action is never sent to one; \
             add `authenticated == true` to the audience"
        )))
    }

    /// Returns whom the order of an instruction may be sent to: a device without a certificate gets questions only, and
    /// what nobody knows to be one is none, whatever a ledger says.
    pub(super) fn may_be_sent(&self, active: &Active, targets: RoaringBitmap) -> RoaringBitmap {
        let without = self.devices.unauthenticated();
        if targets.is_disjoint(without) {
            return targets;
        }
        let digest = Digest::try_from(&active.definition_digest[..]).ok();
        let held = digest.and_then(|digest| self.catalogue.definition_by_digest(digest));
        if held.is_some_and(|held| held.document.kind() == Kind::Question) {
            return targets;
        }
        metrics::unauthenticated_refused("action");
        targets - without
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_so_many_and_the_next_one_as_many_again() {
        let mut minute = Minute::default();
        let mut take = |now_ms| minute.take(2, now_ms).is_some();

        assert!(take(1_000_000) && take(1_000_001));
        assert!(!take(1_059_999));
        assert!(take(1_060_000) && take(1_060_000) && !take(1_060_000));
        assert!(take(1_000), "the clock was set back");
    }
}
