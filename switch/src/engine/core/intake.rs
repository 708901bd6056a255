//! Results and events: stored once, acked as often as they come.

use muster_pki::DeviceId;
use muster_proto::ids::{InstructionId, OutboxId, Sequence};
use muster_proto::limits::{EVENT_BYTES_MAX, EVENT_FIELDS_MAX, NAME_BYTES_MAX};
use muster_proto::operator::v1::{DeviceResult, ExportedResult, LoggedEvent};
use muster_proto::relay::v1::RelayedEvent;
use muster_proto::seen::{Fresh, gap_ranges};
use muster_proto::session::v1::{Event, Lane, Result as SessionResult};
use prost::Message;
use roaring::RoaringBitmap;

use super::parts::Part;
use super::{Core, EventIn, Moment, ResultIn};
use crate::engine::outgoing::Acked;
use crate::engine::store::Write;
use crate::engine::{EngineError, metrics};

/// By which road an event came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Road {
    Session,
    Background,
}

/// Where a result falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Its target has yet to end.
    Open,
    /// Its instruction is damaged: the result is kept, the ledger cannot be.
    SetAside,
    /// Its target has expired: the result is kept, the state is final.
    Late,
}

/// Most events of one call of a Background Channel (relay.proto).
const RELAYED_MAX: usize = 1_000;

impl Core {
    /// Takes a result of a session.
    pub(super) fn result(&mut self, result: ResultIn, now_ms: i64) {
        let ResultIn { number, outbox, session, result, encoded_len } = result;
        let fresh = self.see(number, outbox, result.sequence, "results", now_ms);
        let sequence = (fresh != Fresh::Full).then_some(result.sequence);
        let credit_bytes = u64::from(encoded_len);
        self.out.acks.push(Acked { session, lane: Lane::Results, sequence, credit_bytes });
        // A gap may have named the sequence of a result that still waited; the ledger knows better. Of parts but the
        // last it cannot tell a repeat, and a sequence of 0 is none.
        let unanswered = fresh == Fresh::Repeated && result.last && result.sequence > 0;
        if fresh == Fresh::New || unanswered {
            self.take_result(number, outbox, (result, credit_bytes), fresh, now_ms);
        }
    }

    /// Takes an event of a session, unless the disk is short; one that was stored before is acked all the same.
    pub(super) fn event(&mut self, event: EventIn, moment: Moment) {
        let EventIn { number, outbox, session, event, encoded_len } = event;
        let number_in_outbox = event.sequence;
        if self.is_short(moment) && !self.outboxes.contains(number, outbox, number_in_outbox) {
            return self.withhold(number, session);
        }
        let fresh = self.take_event(number, outbox, event, Road::Session, moment.now_ms);
        let sequence = (fresh != Fresh::Full).then_some(number_in_outbox);
        let credit_bytes = u64::from(encoded_len);
        self.out.acks.push(Acked { session, lane: Lane::Events, sequence, credit_bytes });
    }

    /// Takes events of a Background Channel; returns how many were new.
    pub(super) fn relay(&mut self, events: Vec<RelayedEvent>, moment: Moment) -> Result<u32, EngineError> {
        let now_ms = moment.now_ms;
        if events.len() > RELAYED_MAX {
            let problem = format!(
                "{} events in one call, wanted at most {RELAYED_MAX}; send the rest in another",
                events.len()
            );
            return Err(EngineError::InvalidArgument(problem));
        }
        let checked: Vec<_> = events.into_iter().map(checked_event).collect::<Result<_, _>>()?;
        if self.is_short(moment) {
            return Err(self.refuse_events(checked.len(), moment));
        }
        let mut accepted = 0;
        for (device, outbox, event) in checked {
            let number = self.number_of(&device, now_ms);
            match self.take_event(number, outbox, event, Road::Background, now_ms) {
                Fresh::New => accepted += 1,
                Fresh::Repeated => {}
                // Refusing the call would make the Background Channel repeat it for ever: the device has left more
                // gaps than any client does.
                Fresh::Full => metrics::dropped("seen_full"),
            }
        }
        Ok(accepted)
    }

    fn take_result(
        &mut self,
        number: u32,
        outbox: OutboxId,
        (result, bytes): (SessionResult, u64),
        fresh: Fresh,
        now_ms: i64,
    ) {
        let Some(device) = self.devices.name(number).map(ToString::to_string) else {
            return metrics::dropped("unknown_device");
        };
        let Ok(id) = InstructionId::try_from(&result.instruction[..]) else {
            return metrics::dropped("malformed");
        };
        if !result.state().is_terminal() {
            return metrics::dropped("malformed");
        }
        let (position, place) = match self.place(id, number, result.part) {
            Some((position, place)) if fresh == Fresh::New || place == Place::Open => (position, place),
            // What came again has been counted, and was stored or dropped the first time.
            _ if fresh != Fresh::New => return,
            _ => return metrics::dropped("late_or_unknown"),
        };
        let part = Part { instruction: id, number, part: result.part, bytes };
        let result = match self.check_part(position, place, &part) {
            Ok(()) => result,
            Err(error) => {
                metrics::dropped(error.label());
                if place != Place::Open {
                    return;
                }
                tracing::warn!(instruction = %id, device, %error, "a result is not taken; its target fails");
                let due = error.due();
                error.into_failure(&result, due)
            }
        };
        let (state, last) = (result.state(), result.last);
        self.marks.result += 1;
        let record = ExportedResult {
            instruction: id.to_string(),
            outbox_id: outbox.to_vec(),
            sequence: result.sequence,
            result: Some(device_result(device, result)),
        };
        let write = Write::Result {
            position: self.marks.result,
            instruction: position,
            number,
            record: Box::new(record),
        };
        self.out.writes.push(write);
        metrics::result_stored();
        self.part_taken(position, place, &part);
        if place == Place::Open && last {
            self.advance(position, &RoaringBitmap::from([number]), state, "result");
        }
        tracing::trace!(instruction = %id, number, now_ms, ?place, "result taken");
    }

    /// Returns the instruction's position and where a result of the device falls; `None` if it has no place.
    fn place(&self, id: InstructionId, number: u32, part: u32) -> Option<(i64, Place)> {
        if let Some(position) = self.positions.get(&id)
            && self.state_of(*position, number).is_some_and(|state| !state.is_terminal())
        {
            return Some((*position, Place::Open));
        }
        if let Some(aside) = self.set_aside.get(&id) {
            return Some((aside.position, Place::SetAside));
        }
        self.late_position(id, number, part).map(|position| (position, Place::Late))
    }

    fn take_event(&mut self, number: u32, outbox: OutboxId, event: Event, road: Road, now_ms: i64) -> Fresh {
        let fresh = self.see(number, outbox, event.sequence, "events", now_ms);
        if fresh != Fresh::New {
            return fresh;
        }
        let Some(device) = self.devices.name(number).map(ToString::to_string) else {
            metrics::dropped("unknown_device");
            return fresh;
        };
        // What the client dropped never comes; without this the set would keep a hole for ever.
        self.outboxes.drop_ranges(number, outbox, gap_ranges(&event));
        self.marks.event += 1;
        let record = LoggedEvent {
            position: u64::try_from(self.marks.event).unwrap_or_default(),
            device,
            outbox_id: outbox.to_vec(),
            event: Some(event),
            committed_at_ms: now_ms,
            road: road.name().to_owned(),
        };
        self.out.writes.push(Write::Event { position: self.marks.event, number, record: Box::new(record) });
        metrics::event_stored(road.name());
        fresh
    }

    /// Adds a sequence to what was seen of an outbox.
    fn see(
        &mut self,
        number: u32,
        outbox: OutboxId,
        sequence: u64,
        lane: &'static str,
        now_ms: i64,
    ) -> Fresh {
        let Ok(sequence) = Sequence::try_from(sequence) else {
            metrics::dropped("malformed");
            return Fresh::Repeated;
        };
        let fresh = self.outboxes.insert(number, outbox, sequence, now_ms);
        match fresh {
            Fresh::New => {}
            Fresh::Repeated => metrics::repeated(lane),
            Fresh::Full => metrics::dropped("seen_full"),
        }
        fresh
    }
}

impl Road {
    fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Background => "background",
        }
    }
}

fn device_result(device: String, result: SessionResult) -> DeviceResult {
    DeviceResult {
        device,
        state: result.state,
        refusal: result.refusal,
        detail: result.detail,
        columns: result.columns,
        rows: result.rows,
        truncated: result.truncated,
        started_at_ms: result.started_at_ms,
        finished_at_ms: result.finished_at_ms,
        part: result.part,
        sandbox_missing: result.sandbox_missing,
    }
}

/// Checks an event that came by no session, so that no frame was checked.
fn checked_event(relayed: RelayedEvent) -> Result<(DeviceId, OutboxId, Event), EngineError> {
    let wrong = |what: String| EngineError::InvalidArgument(format!("event of `{}`: {what}", relayed.device));
    let device = relayed.device.parse().map_err(|error| wrong(format!("device: {error}")))?;
    let outbox = OutboxId::try_from(&relayed.outbox_id[..]).map_err(|error| wrong(error.to_string()))?;
    let event = relayed.event.clone().ok_or_else(|| wrong("there is none".to_owned()))?;
    Sequence::try_from(event.sequence).map_err(|error| wrong(error.to_string()))?;
    let length = event.encoded_len();
    if length > EVENT_BYTES_MAX {
        return Err(wrong(format!("{length} bytes, at most {EVENT_BYTES_MAX}")));
    }
    if event.fields.len() > EVENT_FIELDS_MAX {
        return Err(wrong(format!("{} fields, at most {EVENT_FIELDS_MAX}", event.fields.len())));
    }
    if event.name.is_empty() || event.name.len() > NAME_BYTES_MAX {
        return Err(wrong(format!("a name of {} bytes, wanted 1 to {NAME_BYTES_MAX}", event.name.len())));
    }
    Ok((device, outbox, event))
}
