//! What a device does with its session: as `connection::session` does.

use std::collections::VecDeque;
use std::time::Duration;

use muster_proto::ids::{Digest, InstructionId};
use muster_proto::numbers::Standing;
use muster_proto::session::client::{ClientEvent, ClientSession};
use muster_proto::session::v1::{Event, Lane, Result as InstructionResult, SequenceRange, Welcome};
use prost::Message as _;

use super::{Device, Moment, Note, Stopped, broken};
use crate::connection::{Asks, ExpectedStops};
use crate::instructions::shell::Inbound;
use crate::store::{QueueLane, Queued, SeenNumbers, Tables};

/// Bytes of a lane that are held in memory, as in `connection::drain`.
const HELD_BYTES: usize = 256 * 1024;

/// A session, from the connection to its end.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) protocol: ClientSession,
    pub(super) asks: Asks,
    pub(super) stops: ExpectedStops,
    pub(super) results: LaneDrain,
    pub(super) events: LaneDrain,
    pub(super) appended: u64,
}

/// How a lane flows into a session: as `connection::drain`, without a thread to wait for.
#[derive(Debug)]
pub(super) struct LaneDrain {
    lane: QueueLane,
    taken: u64,
    held: VecDeque<Queued>,
    pub(super) is_empty: bool,
}

impl Device {
    /// As `connection::session` does.
    pub(super) fn hear(&mut self, at: Moment) -> Result<(), Stopped> {
        while let Some(event) = self.session.as_mut().and_then(|session| session.protocol.poll_event()) {
            match event {
                ClientEvent::Welcome(welcome) => self.welcomed(&welcome, at)?,
                ClientEvent::Order { envelope, proof } => {
                    if let Some(session) = &mut self.session {
                        session.stops.handle_order();
                    }
                    self.inbox.push_back(Inbound::Order { envelope, proof });
                }
                ClientEvent::Acked { lane, ranges } => self.acked(lane, ranges)?,
                ClientEvent::Document(document) => {
                    if let Ok(digest) = Digest::try_from(&document.digest[..]) {
                        let (kind, envelope) = (document.kind(), document.envelope);
                        self.inbox.push_back(Inbound::Document { kind, digest, envelope });
                    }
                }
                ClientEvent::LicenceNotice(digest) => self.inbox.push_back(Inbound::LicenceNotice(digest)),
                ClientEvent::PolicyNotice { .. } => {}
                ClientEvent::GoAway { reason, reconnect_after, .. } => {
                    self.part(reason.name().to_owned(), reconnect_after);
                }
                ClientEvent::Closed { reason } => self.part(reason.name().to_owned(), Duration::ZERO),
            }
        }
        Ok(())
    }

    fn welcomed(&mut self, welcome: &Welcome, at: Moment) -> Result<(), Stopped> {
        let Welcome { epoch, time_ms: switch_ms, stops_due, .. } = *welcome;
        let seen = SeenNumbers { highest: welcome.highest_sequence, by_session: welcome.highest_by_session };
        let now_ms = at.wall_ms;
        let (standing, restored_at_ms) = self.write("welcome", move |tables| {
            tables.keep_epoch(epoch)?;
            Ok((tables.welcomed(seen, switch_ms, now_ms)?, tables.restored_at_ms(now_ms)?))
        })?;
        match standing {
            Standing::Own => {}
            Standing::Claimed => {
                self.notes.push(Note::Renewed);
                self.part("renewed".to_owned(), Duration::ZERO);
                return Ok(());
            }
            Standing::Copy => {
                self.inbox.push_back(Inbound::Judged { standing, restored_at_ms, switch_ms, stops_due: 0 });
                self.notes.push(Note::Renewed);
                self.part("renewed".to_owned(), Duration::ZERO);
                return Ok(());
            }
        }
        if let Some(session) = &mut self.session {
            session.stops = ExpectedStops::new(stops_due, at.instant);
        }
        self.inbox.push_back(Inbound::Judged { standing, restored_at_ms, switch_ms, stops_due });
        if let Ok(digest) = Digest::try_from(&welcome.licence_digest[..]) {
            self.inbox.push_back(Inbound::LicenceNotice(digest));
        }
        self.notes.push(Note::Welcomed);
        Ok(())
    }

    /// Deletes what was acked, and notes it: from here on it is somebody else's to keep.
    pub(super) fn acked(&mut self, lane: Lane, ranges: Vec<SequenceRange>) -> Result<(), Stopped> {
        let queue = match lane {
            Lane::Results => QueueLane::Results,
            Lane::Events => QueueLane::Events,
            Lane::Unspecified => return Ok(()),
        };
        let outbox = self.tables.outbox_id();
        let mut after = 0;
        while let Some(queued) = self.tables.queued(queue, after, 1, 0).map_err(broken)?.first() {
            after = queued.sequence;
            if ranges.iter().any(|range| (range.first..=range.last).contains(&after)) {
                let result = InstructionResult::decode(&queued.record[..]).ok();
                let result = result.filter(|_| lane == Lane::Results).and_then(|result| {
                    Some((InstructionId::try_from(&result.instruction[..]).ok()?, result.state()))
                });
                self.notes.push(Note::Acked(lane, outbox, after, result));
            }
        }
        self.write("ack", move |tables| tables.acked(queue, &ranges))
    }
}

impl Session {
    /// Moves what there is credit for into the protocol's half.
    pub(super) fn drain(&mut self, tables: &mut Tables, now_ms: i64) -> rusqlite::Result<()> {
        while self.protocol.credit(Lane::Results) > 0 {
            let Some(queued) = self.results.peek(tables, now_ms)? else { break };
            let Ok(result) = InstructionResult::decode(&queued.record[..]) else { break };
            if self.protocol.push_result(result).is_err() {
                break;
            }
            self.results.held.pop_front();
        }
        while self.protocol.credit(Lane::Events) > 0 {
            let Some(queued) = self.events.peek(tables, now_ms)? else { break };
            let Ok(event) = Event::decode(&queued.record[..]) else { break };
            if self.protocol.push_event(event).is_err() {
                break;
            }
            self.events.held.pop_front();
        }
        Ok(())
    }
}

impl LaneDrain {
    pub(super) fn new(lane: QueueLane) -> Self {
        Self { lane, taken: 0, held: VecDeque::new(), is_empty: false }
    }

    fn peek(&mut self, tables: &mut Tables, now_ms: i64) -> rusqlite::Result<Option<&Queued>> {
        if self.held.is_empty() && !self.is_empty {
            let queued = tables.queued(self.lane, self.taken, HELD_BYTES, now_ms)?;
            self.is_empty = queued.is_empty();
            if let Some(last) = queued.last() {
                self.taken = last.sequence;
            }
            self.held.extend(queued);
        }
        Ok(self.held.front())
    }
}
