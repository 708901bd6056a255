//! Results and events: stored once, acked as often as they come.

use muster_pki::DeviceId;
use muster_proto::frame::check_event;
use muster_proto::ids::{InstructionId, OutboxId, Sequence};
use muster_proto::limits::SEEN_RANGES_MAX;
use muster_proto::operator::v1::{DeviceResult, ExportedResult, LoggedEvent};
use muster_proto::relay::v1::{RefusedEvent, RelayEventsResponse, RelayRefusal, RelayedEvent};
use muster_proto::seen::{Fresh, gap_ranges};
use muster_proto::session::v1::{Event, Lane, Result as SessionResult};
use roaring::RoaringBitmap;

use super::outboxes::Road;
use super::parts::Part;
use super::{Core, EventIn, Moment, ResultIn};
use crate::engine::outgoing::Acked;
use crate::engine::store::Write;
use crate::engine::{EngineError, metrics};

/// Where a result falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Its target has yet to end.
    Open,
    /// Its instruction is damaged: the result is kept, the ledger cannot be.
    SetAside,
    /// Its target has expired, or ended with its device's removal: the result is kept, the state is final.
    Late,
}

/// Most events of one call of a Background Channel (relay.proto).
const RELAYED_MAX: usize = 1_000;

/// Characters shown of a name that is none: as many as one may have.
const DEVICE_SHOWN_MAX: usize = 253;

impl Core {
    /// Takes a result of a session.
    pub(super) fn result(&mut self, result: ResultIn, now_ms: i64) {
        let ResultIn { number, outbox, session, result, encoded_len } = result;
        if self.left_behind(number) {
            return;
        }
        let fresh = self.see((number, outbox), result.sequence, Road::Session, "results", now_ms);
        let sequence = (fresh != Fresh::Full).then_some(result.sequence);
        let credit_bytes = u64::from(encoded_len);
        self.out.acks.push(Acked { session, lane: Lane::Results, sequence, credit_bytes });
        // Whoever may relay an event can name any sequence in a gap, and a client with a restored store numbers anew: what
        // is stored of a result says better than its sequence whether a part came before. A sequence of 0 is none.
        if fresh != Fresh::Full && result.sequence > 0 {
            self.take_result(number, outbox, (result, credit_bytes), fresh, now_ms);
        }
    }

    /// Takes an event of a session, unless the disk is short; one that was stored before is acked all the same.
    pub(super) fn event(&mut self, event: EventIn, moment: Moment) {
        let EventIn { number, outbox, session, event, encoded_len } = event;
        if self.left_behind(number) {
            return;
        }
        let number_in_outbox = event.sequence;
        if self.is_short(moment) && !self.outboxes.contains(number, outbox, number_in_outbox) {
            return self.withhold(number, session);
        }
        if self.leaves_event(number, session, moment.now_ms) {
            return;
        }
        let fresh = self.take_event(number, outbox, event, Road::Session, moment.now_ms);
        let sequence = (fresh != Fresh::Full).then_some(number_in_outbox);
        let credit_bytes = u64::from(encoded_len);
        self.out.acks.push(Acked { session, lane: Lane::Events, sequence, credit_bytes });
    }

    /// Takes events of a Background Channel. One that is refused refuses no other: they are of many devices, and a call
    /// that is refused is repeated as it was.
    pub(super) fn relay(
        &mut self,
        events: Vec<RelayedEvent>,
        moment: Moment,
    ) -> Result<RelayEventsResponse, EngineError> {
        if events.len() > RELAYED_MAX {
            let problem = format!(
                "{} events in one call, wanted at most {RELAYED_MAX}; send the rest in another",
                events.len()
            );
            return Err(EngineError::InvalidArgument(problem));
        }
        if self.is_short(moment) {
            return Err(self.refuse_events(events.len(), moment));
        }
        let mut answer = RelayEventsResponse::default();
        for (index, relayed) in (0..).zip(events) {
            match self.take_relayed(relayed, moment.now_ms) {
                Ok(Fresh::New) => answer.accepted += 1,
                Ok(Fresh::Repeated | Fresh::Full) => {}
                Err(refused) => {
                    metrics::relay_refused(refused.label());
                    let cause = refused.cause().into();
                    answer.refused.push(RefusedEvent { index, cause, detail: refused.to_string() });
                }
            }
        }
        Ok(answer)
    }

    /// Takes one relayed event. The name in it is the Background Channel's word only, so it makes no device known.
    fn take_relayed(&mut self, relayed: RelayedEvent, now_ms: i64) -> Result<Fresh, Unrelayed> {
        let (device, outbox, event) = checked_event(relayed)?;
        if device.is_of_key() {
            // A Background Channel knows its devices by their certificates.
            let (device, what) = (device.to_string(), "no certificate is for such a name".to_owned());
            return Err(Unrelayed::Malformed { device, what });
        }
        let Some(number) = self.devices.number(&device) else { return Err(Unrelayed::UnknownDevice(device)) };
        if self.is_blocked(number) {
            return Err(Unrelayed::Blocked(device));
        }
        match self.take_event(number, outbox, event, Road::Background, now_ms) {
            Fresh::Full => Err(Unrelayed::OutboxFull(device)),
            fresh @ (Fresh::New | Fresh::Repeated) => Ok(fresh),
        }
    }

    fn take_result(
        &mut self,
        number: u32,
        outbox: OutboxId,
        (result, bytes): (SessionResult, u64),
        fresh: Fresh,
        now_ms: i64,
    ) {
        let Ok(id) = InstructionId::try_from(&result.instruction[..]) else {
            return metrics::dropped("malformed");
        };
        if !result.state().is_terminal() {
            return metrics::dropped("malformed");
        }
        let Some((position, place, number)) = self.place(id, number, result.part, fresh) else {
            // What came again has been counted, and was stored or dropped the first time.
            return if fresh == Fresh::New {
                metrics::dropped("late_or_unknown")
            };
        };
        if place != Place::Open && self.has_deleted(id) {
            return if fresh == Fresh::New {
                metrics::dropped("results_deleted")
            };
        }
        let Some(device) = self.devices.name(number).map(ToString::to_string) else {
            return metrics::dropped("unknown_device");
        };
        let part = Part { instruction: id, number, part: result.part, bytes };
        if self.is_stored(position, place, &part) {
            return if fresh == Fresh::New {
                metrics::repeated("results")
            };
        }
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
        self.stops.answered(id, number);
        if place == Place::Open && last {
            self.advance(position, &RoaringBitmap::from([number]), state, "result");
        }
        tracing::trace!(instruction = %id, number, now_ms, ?place, "result taken");
    }

    /// Returns the instruction's position, where a result of the device falls, and the number that the device had as its
    /// target; `None` if it has no place.
    fn place(&self, id: InstructionId, number: u32, part: u32, fresh: Fresh) -> Option<(i64, Place, u32)> {
        if let Some(position) = self.positions.get(&id)
            && self.state_of(*position, number).is_some_and(|state| !state.is_terminal())
        {
            return Some((*position, Place::Open, number));
        }
        if let Some(aside) = self.set_aside.get(&id) {
            // What is stored for a damaged instruction is known since the start only.
            return (fresh == Fresh::New).then_some((aside.position, Place::SetAside, number));
        }
        self.late_position(id, number, part).map(|(position, number)| (position, Place::Late, number))
    }

    fn take_event(&mut self, number: u32, outbox: OutboxId, event: Event, road: Road, now_ms: i64) -> Fresh {
        let fresh = self.see((number, outbox), event.sequence, road, "events", now_ms);
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
        outbox: (u32, OutboxId),
        sequence: u64,
        road: Road,
        lane: &'static str,
        now_ms: i64,
    ) -> Fresh {
        let Ok(sequence) = Sequence::try_from(sequence) else {
            metrics::dropped("malformed");
            return Fresh::Repeated;
        };
        let fresh = self.outboxes.insert(outbox, sequence, road, now_ms);
        match fresh {
            Fresh::New => {}
            Fresh::Repeated => metrics::repeated(lane),
            Fresh::Full => metrics::left_unacked("seen_full"),
        }
        fresh
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
        last: result.last,
        sandbox_missing: result.sandbox_missing,
    }
}

/// Why a relayed event is not taken.
#[derive(Debug, thiserror::Error)]
enum Unrelayed {
    #[error("device {0} never had a session here, or was removed: it becomes known when it connects")]
    UnknownDevice(DeviceId),
    #[error("event of `{device}`: {what}")]
    Malformed { device: String, what: String },
    #[error(
        "the outbox of device {0} has left more gaps than are remembered ({SEEN_RANGES_MAX}); it is taken when they close"
    )]
    OutboxFull(DeviceId),
    #[error("device {0} is blocked by an operator; it is taken when it is unblocked")]
    Blocked(DeviceId),
}

impl Unrelayed {
    fn cause(&self) -> RelayRefusal {
        match self {
            Self::UnknownDevice(_) => RelayRefusal::UnknownDevice,
            Self::Malformed { .. } => RelayRefusal::Malformed,
            Self::OutboxFull(_) => RelayRefusal::OutboxFull,
            Self::Blocked(_) => RelayRefusal::Blocked,
        }
    }

    /// Returns its name in metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::UnknownDevice(_) => "unknown_device",
            Self::Malformed { .. } => "malformed",
            Self::OutboxFull(_) => "outbox_full",
            Self::Blocked(_) => "blocked",
        }
    }
}

/// Checks an event that came by no session, so that no frame was checked, as one of a session.
fn checked_event(relayed: RelayedEvent) -> Result<(DeviceId, OutboxId, Event), Unrelayed> {
    let named = relayed.device.chars().take(DEVICE_SHOWN_MAX).collect::<String>();
    let wrong = |what: String| Unrelayed::Malformed { device: named.clone(), what };
    let device = relayed.device.parse().map_err(|error| wrong(format!("device: {error}")))?;
    let outbox = OutboxId::try_from(&relayed.outbox_id[..]).map_err(|error| wrong(error.to_string()))?;
    let event = relayed.event.ok_or_else(|| wrong("there is none".to_owned()))?;
    check_event(&event).map_err(|error| wrong(error.to_string()))?;
    Ok((device, outbox, event))
}
