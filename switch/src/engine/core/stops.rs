//! Stops: orders that end an instruction, and what is still owed of them.
//!
//! The Switch is not believed with a stop: it carries what an operator signed, to every target that had not ended, before anything
//! else that waits for that device, until no device may hold the order any more. What was never handed to a device is cancelled at
//! once; what may have reached one ends as the device says. A stop comes again with every session until the device has answered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_proto::common::v1::TargetState;
use muster_proto::ids::InstructionId;
use muster_signing::order::{self, Audience, Order};
use prost::Message as _;
use roaring::RoaringBitmap;

use super::issue::{NOT_BEFORE_MARGIN, new_id};
use super::ledgers::{Active, delivery};
use super::{Core, Moment, Reply};
use crate::engine::clock::millis;
use crate::engine::outgoing::To;
use crate::engine::store::{LoadedStop, StopRecord, Write, bitmap, bitmap_bytes};
use crate::engine::{DueOrder, EngineError, ShardMessage, Urgency, metrics};

/// The cause of transitions of targets that a stop ended before anything was sent to them.
pub(super) const STOPPED: &str = "stopped";

/// How long a connected device that has not answered a stop is left alone before it gets the stop again: the message may have found
/// no room on its way. A client knows a stop that it has.
const RESEND_AFTER_MS: i64 = 30_000;

/// The longest that this time grows to, twice what it was each time, as that of orders: who has the stop and takes its time is not to be told for ever.
const RESEND_AFTER_MS_MAX: i64 = 480_000;

/// How long a stop holds at least, for devices whose clocks are ahead.
const WINDOW_MIN: Duration = Duration::from_secs(600);

/// What to stop, and why.
#[derive(Debug, Clone)]
pub(crate) struct PrepareStop {
    pub(crate) instruction: InstructionId,
    pub(crate) reason: String,
    /// Who asks: the name in the operator's certificate.
    pub(crate) operator: String,
}

/// A signed stop whose signature was verified.
#[derive(Debug)]
pub(crate) struct StopSubmission {
    pub(crate) envelope: Bytes,
    /// The signed bytes.
    pub(crate) content: Vec<u8>,
    pub(crate) order: Order,
    pub(crate) operator: String,
}

/// What the core can be told of stops.
#[derive(Debug)]
pub(crate) enum StopCommand {
    /// Make the order that stops an instruction; `None`: there is nothing to stop.
    Draft(PrepareStop, Reply<Option<Vec<u8>>>),
    /// Take a signed stop.
    Submit(Box<StopSubmission>, Reply<InstructionId>),
}

/// The stops that devices may still have to get, by the position of the instruction.
#[derive(Debug, Default)]
pub(super) struct Stops {
    stopped: BTreeMap<i64, Stopped>,
    positions: HashMap<InstructionId, i64>,
    max: usize,
}

/// A stopped instruction.
#[derive(Debug)]
struct Stopped {
    instruction: InstructionId,
    /// The stop's own id.
    stop: InstructionId,
    /// The encoded stop, the same for all; empty: it is damaged.
    frame: Bytes,
    /// The targets that had brought no result, and have not since.
    owed: RoaringBitmap,
    /// When the signed window ends: no client believes it from then on.
    expires_at_ms: i64,
    /// When no target of the instruction can be open any more.
    until_ms: i64,
    resend_at_ms: i64,
    /// How long after that again.
    resend_after_ms: i64,
}

impl Stops {
    /// Makes them of what was stored.
    pub(super) fn new(loaded: Vec<LoadedStop>, max: usize) -> Self {
        let mut stops = Self { max, ..Self::default() };
        for stop in loaded {
            stops.insert(stop.position, Stopped::loaded(stop));
        }
        stops
    }

    /// Returns whether the instruction at a position was stopped: its order goes to nobody.
    pub(super) fn has(&self, position: i64) -> bool {
        self.stopped.contains_key(&position)
    }

    /// Returns whether an instruction was stopped by a stop that can be sent; a damaged one is to be made anew.
    fn is_sound(&self, instruction: InstructionId) -> bool {
        let stopped = self.positions.get(&instruction).and_then(|position| self.stopped.get(position));
        stopped.is_some_and(|stopped| !stopped.frame.is_empty())
    }

    /// Notes that a target has answered: it needs no stop any more.
    pub(super) fn answered(&mut self, instruction: InstructionId, number: u32) {
        let stopped = self.positions.get(&instruction).and_then(|position| self.stopped.get_mut(position));
        if let Some(stopped) = stopped {
            stopped.owed.remove(number);
        }
    }

    /// Returns when a connected device is to get its stop again.
    pub(super) fn next_timeout(&self, online: &RoaringBitmap) -> Option<i64> {
        let waiting = self.stopped.values().filter(|stopped| !stopped.owed.is_disjoint(online));
        waiting.map(|stopped| stopped.resend_at_ms).min()
    }

    fn insert(&mut self, position: i64, stopped: Stopped) {
        self.positions.insert(stopped.instruction, position);
        self.stopped.insert(position, stopped);
    }

    fn forget(&mut self, now_ms: i64) {
        if self.stopped.values().all(|stopped| now_ms < stopped.until_ms) {
            return;
        }
        self.stopped.retain(|_, stopped| now_ms < stopped.until_ms);
        let stopped = &self.stopped;
        self.positions.retain(|_, position| stopped.contains_key(position));
    }
}

impl Stopped {
    /// Makes it of what was stored. Of a damaged record, which the store has told, nothing can be sent, and its order is not either.
    fn loaded(loaded: LoadedStop) -> Self {
        let LoadedStop { instruction, until_ms, record, answered, .. } = loaded;
        let read = record.and_then(|record| {
            let order = Order::decode(&record.order[..]).ok()?;
            let stop = InstructionId::try_from(&order.instruction[..]).ok()?;
            Some((stop, delivery(record.envelope), bitmap(&record.owed).ok()?, order.expires_at_ms))
        });
        let (stop, frame, owed, expires_at_ms) =
            read.unwrap_or_else(|| (instruction, Bytes::new(), RoaringBitmap::new(), 0));
        let owed = owed - answered;
        // Whoever is connected when the next look is due has it with its session, or gets it then.
        let (resend_at_ms, resend_after_ms) = (0, RESEND_AFTER_MS);
        Self { instruction, stop, frame, owed, expires_at_ms, until_ms, resend_at_ms, resend_after_ms }
    }
}

impl Core {
    /// Carries out one command.
    pub(super) fn handle_stop(&mut self, command: StopCommand, moment: Moment) {
        match command {
            StopCommand::Draft(prepare, reply) => {
                let draft = self.draft_stop(prepare, moment);
                self.answer(reply, draft);
            }
            StopCommand::Submit(submission, reply) => {
                let stopped = self.submit_stop(*submission, moment);
                self.answer(reply, stopped);
            }
        }
    }

    /// Makes the order that stops an instruction; `None`: it has ended, or was stopped before.
    fn draft_stop(&mut self, prepare: PrepareStop, moment: Moment) -> Result<Option<Vec<u8>>, EngineError> {
        let PrepareStop { instruction, reason, operator } = prepare;
        if self.stops.is_sound(instruction) {
            return Ok(None);
        }
        let Some(position) = self.positions.get(&instruction).copied() else {
            if self.set_aside.contains_key(&instruction) {
                return Err(EngineError::Damaged(format!(
                    "instruction {instruction} was set aside as damaged, so that nobody can tell whom to stop"
                )));
            }
            return Ok(None);
        };
        self.require_room_for_stop()?;
        let ends_ms = self.active.get(&position).map_or(0, Active::grace_until_ms);
        let not_before_ms = moment.now_ms.saturating_sub(millis(NOT_BEFORE_MARGIN));
        let latest_ms = not_before_ms.saturating_add(millis(order::WINDOW_MAX));
        let stop = Order {
            tenant: self.tenant.clone(),
            instruction: new_id(moment.now_ms).to_vec(),
            // It tells who looks later what held then; nothing is judged by it, since nothing runs.
            licence_serial: self.marks.licence_serial.max(1),
            audience: Some(Audience::default()),
            not_before_ms,
            expires_at_ms: ends_ms.max(moment.now_ms.saturating_add(millis(WINDOW_MIN))).min(latest_ms),
            sequence: self.marks.order_sequence + 1,
            operator,
            stops: instruction.to_vec(),
            reason,
            ..Order::default()
        };
        order::check(&stop).map_err(|error| EngineError::InvalidArgument(error.to_string()))?;
        self.marks.order_sequence += 1;
        Ok(Some(order::encode(&stop)))
    }

    /// Takes a signed stop. One of an instruction that was stopped before changes nothing. It is taken however short the disk is:
    /// it costs little, and what it ends would cost more.
    fn submit_stop(
        &mut self,
        submission: StopSubmission,
        moment: Moment,
    ) -> Result<InstructionId, EngineError> {
        let order = &submission.order;
        let wrong = |what: String| EngineError::InvalidArgument(format!("the stop {what}; prepare it again"));
        let instruction = order::stops(order).ok_or_else(|| wrong("names no instruction".to_owned()))?;
        let stop =
            InstructionId::try_from(&order.instruction[..]).map_err(|error| wrong(error.to_string()))?;
        if order.operator != submission.operator {
            return Err(EngineError::PermissionDenied(format!(
                "the stop was prepared for operator `{}`, the caller is `{}`; prepare your own",
                order.operator, submission.operator
            )));
        }
        if order.tenant != self.tenant {
            return Err(wrong(format!(
                "is for tenant `{}`, this Switch serves `{}`",
                order.tenant, self.tenant
            )));
        }
        if self.stops.is_sound(instruction) {
            return Ok(instruction);
        }
        if moment.now_ms < order.not_before_ms || moment.now_ms >= order.expires_at_ms {
            return Err(wrong("is not for this time".to_owned()));
        }
        let Some(position) = self.positions.get(&instruction).copied() else {
            return Err(EngineError::FailedPrecondition(format!(
                "instruction {instruction} has ended, or is not known here; there is nothing to stop"
            )));
        };
        self.require_room_for_stop()?;
        self.accept_stop(position, (instruction, stop), submission, moment.now_ms);
        Ok(instruction)
    }

    fn accept_stop(
        &mut self,
        position: i64,
        (instruction, stop): (InstructionId, InstructionId),
        submission: StopSubmission,
        now_ms: i64,
    ) {
        let Some(active) = self.active.get(&position) else { return };
        let owed = active.unanswered();
        let expires_at_ms = submission.order.expires_at_ms;
        // However short the window is that an operator signed, the order stays stopped.
        let until_ms = expires_at_ms.max(active.grace_until_ms());
        let frame = delivery(submission.envelope.clone());
        let record = StopRecord {
            envelope: submission.envelope,
            order: submission.content,
            created_at_ms: now_ms,
            owed: bitmap_bytes(&owed),
        };
        let resend_at_ms = now_ms.saturating_add(RESEND_AFTER_MS);
        let resend_after_ms = RESEND_AFTER_MS;
        let stopped = Stopped {
            instruction,
            stop,
            frame,
            owed,
            expires_at_ms,
            until_ms,
            resend_at_ms,
            resend_after_ms,
        };
        self.stops.insert(position, stopped);
        self.out.writes.push(Write::Stop { instruction: position, until_ms, record: Box::new(record) });
        metrics::stop_accepted();
        self.cancel_unsent(position);
        self.send_stop(position, now_ms);
    }

    /// Ends the targets of a stopped instruction that were never handed their order: they have no session, and it was written to none;
    /// or it lacks approvals.
    fn cancel_unsent(&mut self, position: i64) {
        let Some(active) = self.active.get(&position) else { return };
        let unsent = active.unsent(&self.online);
        self.advance(position, &unsent, TargetState::Cancelled, STOPPED);
    }

    fn send_stop(&mut self, position: i64, now_ms: i64) {
        let Some(stopped) = self.stops.stopped.get(&position) else { return };
        // One that was removed and came back may run it still, under another number.
        let gone = &stopped.owed - self.devices.all();
        let back = gone.iter().filter_map(|number| self.devices.number(self.devices.name(number)?));
        let targets = (&stopped.owed | back.collect::<RoaringBitmap>()) & &self.online;
        if targets.is_empty() || now_ms >= stopped.expires_at_ms {
            return;
        }
        let message = ShardMessage::Order {
            instruction: stopped.stop,
            frame: stopped.frame.clone(),
            targets: Arc::new(targets),
            proofs: None,
            urgency: Urgency::Stop,
        };
        self.out.messages.push((To::All, message));
    }

    /// Returns the stops that a device has yet to answer, oldest first; also of what it was a target of before it was removed.
    pub(super) fn due_stops(&self, number: u32, now_ms: i64) -> Vec<DueOrder> {
        let numbers: RoaringBitmap = self.devices.numbers_of(number).collect();
        let is_due =
            |stopped: &&Stopped| now_ms < stopped.expires_at_ms && !stopped.owed.is_disjoint(&numbers);
        let due = |stopped: &Stopped| DueOrder {
            instruction: stopped.stop,
            frame: stopped.frame.clone().into(),
            urgency: Urgency::Stop,
        };
        self.stops.stopped.values().filter(is_due).map(due).collect()
    }

    /// Goes on with stopped instructions: sends again what was not answered, and ends whoever left before its order was written.
    pub(super) fn handle_stops(&mut self, now_ms: i64) {
        self.stops.forget(now_ms);
        let positions: Vec<i64> = self.stops.stopped.keys().copied().collect();
        for position in positions {
            self.cancel_unsent(position);
            let Some(stopped) = self.stops.stopped.get_mut(&position) else { continue };
            if now_ms >= stopped.resend_at_ms && !stopped.owed.is_disjoint(&self.online) {
                stopped.resend_after_ms = stopped.resend_after_ms.saturating_mul(2).min(RESEND_AFTER_MS_MAX);
                stopped.resend_at_ms = now_ms.saturating_add(stopped.resend_after_ms);
                self.send_stop(position, now_ms);
            }
        }
    }

    fn require_room_for_stop(&self) -> Result<(), EngineError> {
        if self.stops.stopped.len() < self.stops.max {
            return Ok(());
        }
        metrics::stops_full();
        Err(EngineError::ResourceExhausted(format!(
            "{} stops wait for devices that are away, as many as `engine.stops_max` allows; raise it",
            self.stops.stopped.len()
        )))
    }
}
