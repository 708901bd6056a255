//! Events when the disk is short: below `disk_reserve` none is taken, for what is left is for results already promised.
//!
//! An event that is not taken gets no ack, and its session no credit for more. It stays in the client's outbox, which
//! is sent again in the next session only; so when there is space again, the sessions that wait are told to come back.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_proto::session::v1::CloseReason;

use super::{Core, Moment};
use crate::engine::outgoing::To;
use crate::engine::{EngineError, SessionKey, ShardMessage, metrics};

/// What waits for space on the disk.
#[derive(Debug, Default)]
pub(super) struct Withheld {
    is_short: bool,
    /// Sessions with an event that was not taken, by their device's number.
    sessions: BTreeMap<u32, SessionKey>,
    /// When the next of them are told.
    release_at_ms: i64,
}

/// Sessions that are told to come back at once, so that a fleet does not come as one herd.
const RELEASED_MAX: usize = 500;

/// How long the next of them wait.
const RELEASE_EVERY_MS: i64 = 500;

/// The part of the reserve that must be free on top of it until events are taken again, so that it does not flap.
const MARGIN_DIVISOR: u64 = 16;

impl Core {
    /// Returns whether what sessions wait for depends on the disk, so that somebody has to look how much there is.
    pub(crate) fn awaits_disk(&self) -> bool {
        self.withheld.is_short || !self.withheld.sessions.is_empty()
    }

    /// Returns whether the disk is too short for events; the log says when that changes.
    pub(super) fn is_short(&mut self, moment: Moment) -> bool {
        let (free, reserve) = (moment.disk_free_bytes, self.disk_reserve_bytes);
        let margin = if self.withheld.is_short { reserve / MARGIN_DIVISOR } else { 0 };
        let is_short = free < reserve.saturating_add(margin);
        if is_short && !self.withheld.is_short {
            tracing::warn!(
                free,
                reserve,
                "the disk is short: events are not taken until there is space; free some"
            );
        }
        if !is_short && self.withheld.is_short {
            tracing::info!(free, reserve, "the disk has space again: events are taken");
        }
        self.withheld.is_short = is_short;
        is_short
    }

    /// Leaves an event of a session with its client.
    pub(super) fn withhold(&mut self, number: u32, session: SessionKey) {
        metrics::events_withheld("session", 1);
        self.withheld.sessions.insert(number, session);
    }

    /// Refuses events of a Background Channel, which keeps them and tries again.
    pub(super) fn refuse_events(&self, count: usize, moment: Moment) -> EngineError {
        metrics::events_withheld("background", count);
        EngineError::ResourceExhausted(format!(
            "the store's disk has {} bytes free, events are taken above disk_reserve = {} only; free some space or move \
             data_dir to a larger disk",
            moment.disk_free_bytes, self.disk_reserve_bytes
        ))
    }

    /// Tells sessions whose events were not taken to come back, once there is space.
    pub(crate) fn release_events(&mut self, moment: Moment) {
        if !self.awaits_disk() || self.is_short(moment) || moment.now_ms < self.withheld.release_at_ms {
            return;
        }
        self.withheld.release_at_ms = moment.now_ms.saturating_add(RELEASE_EVERY_MS);
        for _ in 0..RELEASED_MAX {
            let Some((number, session)) = self.withheld.sessions.pop_first() else { return };
            if self.sessions.get(&number) != Some(&session) {
                continue;
            }
            let message = ShardMessage::Close {
                session,
                reason: CloseReason::Shutdown,
                reconnect_after: Duration::ZERO,
                detail: "the Switch's disk has space again: send your events again".to_owned(),
            };
            self.out.messages.push((To::Shard(session.shard), message));
        }
    }
}
