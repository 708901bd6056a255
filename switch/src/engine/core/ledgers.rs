//! What becomes of an instruction: transitions, expiry, and orders that are sent again.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use muster_proto::common::v1::TargetState;
use muster_proto::frame;
use muster_proto::ids::InstructionId;
use muster_proto::operator::v1::StateCount;
use muster_proto::order::v1::Order;
use muster_proto::session::v1::{Frame, OrderDelivery, frame::Body};
use muster_proto::state::ALL;
use prost::Message;
use roaring::RoaringBitmap;

use super::Core;
use super::approvals::Unapproved;
use crate::engine::ledger::{Ledger, unite};
use crate::engine::outgoing::To;
use crate::engine::proofs::Proofs;
use crate::engine::store::{
    ApprovalsRecord, CountsRecord, InstructionRecord, LoadedInstruction, Received, TransitionRecord, Write,
    bitmap_bytes,
};
use crate::engine::{DueOrder, ShardMessage, Urgency, metrics};

/// An instruction with targets that are not terminal.
#[derive(Debug)]
pub(super) struct Active {
    id: InstructionId,
    ledger: Ledger,
    /// What is stored of the results of which the last part has yet to come, by device.
    pub(super) received: HashMap<u32, Received>,
    pub(super) definition_digest: Vec<u8>,
    /// The encoded order, the same for all.
    frame: Bytes,
    root: Vec<u8>,
    /// Made when first needed: after a restart, nobody may ever ask.
    /// `None`: a device's record is damaged, so that the signed root cannot be had again.
    proofs: OnceLock<Option<Arc<Proofs>>>,
    expires_at_ms: i64,
    grace_until_ms: i64,
    /// What it lacks; then it goes to nobody.
    unapproved: Option<Box<Unapproved>>,
    /// When those who are connected but still queued get the order again.
    resend_at_ms: i64,
    /// How long after that again.
    resend_after_ms: i64,
}

/// What devices entered, as one stored transition. Ordered so that the transitions of a batch replay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entered {
    instruction: i64,
    progress: u8,
    state: i32,
    cause: &'static str,
}

/// How long a connected target stays queued before it gets the order again. It is queued because its order found no
/// room, or because it connected in the same moment; a client knows an order that it has.
const RESEND_AFTER_MS: i64 = 1_000;

/// The longest that this time grows to, twice what it was each time: orders for a whole fleet may take longer than it, and must not be made
/// late by their own repetitions.
const RESEND_AFTER_MS_MAX: i64 = 30_000;

/// How much longer a target in `SENT` may say that it had taken the order before its end: word of it is under way.
const SENT_GRACE_MS: i64 = 5_000;

/// Grace from which on a target in `SENT` keeps its state as long as one that runs: it may run, cut off, and somebody may want to stop it.
/// What is over sooner is over before anybody has typed a stop, and whoever asked is told at once.
const LONG_GRACE_MS: i64 = 90_000;

impl Active {
    pub(super) fn new(
        id: InstructionId,
        ledger: Ledger,
        order: &Order,
        record: &InstructionRecord,
        approvals: Option<ApprovalsRecord>,
        proofs: Option<Arc<Proofs>>,
    ) -> Self {
        let (envelope, unapproved) = Unapproved::of(record, approvals);
        let audience = order.audience.clone().unwrap_or_default();
        Self {
            id,
            ledger,
            received: HashMap::new(),
            definition_digest: order.definition_digest.clone(),
            frame: delivery(envelope),
            root: audience.members_root,
            proofs: proofs.map(|proofs| OnceLock::from(Some(proofs))).unwrap_or_default(),
            expires_at_ms: order.expires_at_ms,
            grace_until_ms: record.grace_until_ms,
            unapproved,
            resend_at_ms: record.created_at_ms + RESEND_AFTER_MS,
            resend_after_ms: RESEND_AFTER_MS,
        }
    }

    pub(super) fn loaded(loaded: LoadedInstruction) -> Self {
        // The record's checksum held, so the order in it is what was decoded when it was accepted.
        let order = Order::decode(&loaded.record.order[..]).unwrap_or_default();
        let active = Self::new(loaded.id, loaded.ledger, &order, &loaded.record, loaded.approvals, None);
        Self { received: loaded.received, ..active }
    }

    pub(super) fn state_of(&self, number: u32) -> Option<TargetState> {
        self.ledger.state_of(number)
    }

    /// Returns until when a target that was reached in time may answer, milliseconds since 1970.
    pub(super) fn grace_until_ms(&self) -> i64 {
        self.grace_until_ms
    }

    /// Returns the targets that may hold the order and have brought no result: those that have not ended, and those that were removed,
    /// since they may come back.
    pub(super) fn unanswered(&self) -> RoaringBitmap {
        let without =
            ALL.into_iter().filter(|state| !state.is_terminal() || *state == TargetState::Cancelled);
        without.fold(RoaringBitmap::new(), |all, state| all | self.ledger.in_state(state))
    }

    /// Returns what it lacks before it goes to anybody; `None`: nothing.
    pub(super) fn unapproved(&self) -> Option<&Unapproved> {
        self.unapproved.as_deref()
    }

    /// Takes the approvals that there are now; returns whether they are enough.
    pub(super) fn take_approvals(&mut self, record: ApprovalsRecord, now_ms: i64) -> bool {
        let envelope = record.envelope.clone();
        let is_approved = self.unapproved.as_mut().is_some_and(|unapproved| unapproved.take(record));
        if is_approved {
            self.unapproved = None;
            self.frame = delivery(envelope);
            self.resend_after_ms = RESEND_AFTER_MS;
            self.resend_at_ms = now_ms.saturating_add(RESEND_AFTER_MS);
        }
        is_approved
    }

    /// Returns the targets whose order was written to no session.
    pub(super) fn queued(&self) -> &RoaringBitmap {
        self.ledger.in_state(TargetState::Queued)
    }

    /// Returns the targets to which the order is not on its way: they have no session, and it was written to none; or it lacks approvals.
    pub(super) fn unsent(&self, online: &RoaringBitmap) -> RoaringBitmap {
        if self.unapproved.is_some() { self.queued().clone() } else { self.queued() - online }
    }

    /// Returns those who end now.
    fn overdue(&self, now_ms: i64) -> RoaringBitmap {
        let over = self.ends().into_iter().filter(|(_, end)| now_ms >= *end);
        over.fold(RoaringBitmap::new(), |all, (state, _)| all | self.ledger.in_state(state))
    }

    /// Returns when the next target ends, or gets its order again.
    fn next_timeout(&self, online: &RoaringBitmap, now_ms: i64) -> Option<i64> {
        let end = self.ends().into_iter().filter(|(state, _)| !self.ledger.in_state(*state).is_empty());
        let end = end.map(|(_, end)| end).min();
        let may_be_sent = now_ms < self.expires_at_ms && self.unapproved.is_none();
        let unsent = may_be_sent && !self.ledger.in_state(TargetState::Queued).is_disjoint(online);
        end.into_iter().chain(unsent.then_some(self.resend_at_ms)).min()
    }

    /// Returns until when a target may stay in each state.
    fn ends(&self) -> [(TargetState, i64); 4] {
        let is_long = self.grace_until_ms.saturating_sub(self.expires_at_ms) >= LONG_GRACE_MS;
        let sent_until_ms =
            if is_long { self.grace_until_ms } else { self.expires_at_ms.saturating_add(SENT_GRACE_MS) };
        [
            (TargetState::Queued, self.expires_at_ms),
            (TargetState::Sent, sent_until_ms),
            (TargetState::Acked, self.grace_until_ms),
            (TargetState::Running, self.grace_until_ms),
        ]
    }
}

/// Returns the encoded frame of an order without a proof.
pub(super) fn delivery(envelope: Bytes) -> Bytes {
    frame::encode(&Frame { body: Some(Body::Order(OrderDelivery { envelope })), proof: None })
}

impl Core {
    /// Puts a new instruction among the active, every target queued, and sends its order to all shards.
    pub(super) fn activate(&mut self, position: i64, active: Active) {
        let everyone = active.ledger.targets().clone();
        let entered = Entered {
            instruction: position,
            progress: 0,
            state: TargetState::Queued.into(),
            cause: "submitted",
        };
        self.entered.insert(entered, everyone.clone());
        metrics::targets_entered(TargetState::Queued.name(), everyone.len());
        self.positions.insert(active.id, position);
        self.active.insert(position, active);
        let connected = &everyone & &self.online;
        self.send_order(position, connected);
    }

    /// Notes that an order was written to sessions.
    pub(super) fn sent(&mut self, instruction: InstructionId, numbers: &RoaringBitmap) {
        if let Some(position) = self.positions.get(&instruction) {
            self.advance(*position, numbers, TargetState::Sent, "written");
        }
    }

    /// Notes what clients say of themselves short of their results.
    pub(super) fn progress(
        &mut self,
        instruction: InstructionId,
        state: TargetState,
        numbers: &RoaringBitmap,
    ) {
        let position = self.positions.get(&instruction).copied();
        if let (Some(position), TargetState::Acked | TargetState::Running) = (position, state) {
            self.advance(position, numbers, state, "progress");
        }
    }

    /// Moves those who may; an instruction whose last target became terminal is active no longer.
    pub(super) fn advance(
        &mut self,
        position: i64,
        devices: &RoaringBitmap,
        state: TargetState,
        cause: &'static str,
    ) {
        let Some(active) = self.active.get_mut(&position) else { return };
        let moved = active.ledger.advance(devices, state);
        if moved.is_empty() {
            return;
        }
        metrics::targets_entered(state.name(), moved.len());
        if state.is_terminal() {
            active.received.retain(|number, _| !moved.contains(*number));
        }
        let entered =
            Entered { instruction: position, progress: state.progress(), state: state.into(), cause };
        unite(self.entered.entry(entered).or_default(), moved);
    }

    /// Returns the orders a device has yet to answer, stops first, then oldest first.
    pub(super) fn due(&mut self, number: u32, now_ms: i64) -> Vec<DueOrder> {
        let open = |active: &Active| {
            now_ms < active.expires_at_ms && active.state_of(number).is_some_and(|state| !state.is_terminal())
        };
        let positions: Vec<i64> =
            self.active.iter().filter(|(_, active)| open(active)).map(|(position, _)| *position).collect();
        let mut due = self.due_stops(number, now_ms);
        due.extend(positions.into_iter().filter_map(|position| self.due_order(position, number)));
        due
    }

    fn due_order(&mut self, position: i64, number: u32) -> Option<DueOrder> {
        let active = self.sendable(position)?;
        if self.may_be_sent(active, RoaringBitmap::from([number])).is_empty() {
            return None;
        }
        let proof = self.proofs(position)?.proof(number)?;
        let active = self.active.get(&position)?;
        let frame = frame::with_proof(&active.frame, &proof);
        Some(DueOrder { instruction: active.id, frame, urgency: Urgency::Order })
    }

    /// Returns an instruction whose order may go to devices: it was not stopped, and lacks no approval.
    fn sendable(&self, position: i64) -> Option<&Active> {
        let active = self.active.get(&position).filter(|_| !self.stops.has(position));
        active.filter(|active| active.unapproved.is_none())
    }

    /// Returns when [`Self::handle_timeout`] should next be called, milliseconds since 1970.
    pub(crate) fn poll_timeout(&self, now_ms: i64) -> Option<i64> {
        let orders = self.active.values().filter_map(|active| active.next_timeout(&self.online, now_ms));
        orders.chain(self.stops.next_timeout(&self.online)).min()
    }

    /// Ends what is overdue, and sends again what connected targets have not got.
    pub(crate) fn handle_timeout(&mut self, now_ms: i64) {
        self.note_online_if_due(now_ms);
        self.handle_stops(now_ms);
        let positions: Vec<i64> = self.active.keys().copied().collect();
        for position in positions {
            let Some(active) = self.active.get(&position) else { continue };
            let overdue = active.overdue(now_ms);
            if !overdue.is_empty() {
                self.advance(position, &overdue, TargetState::Expired, "deadline");
            }
            self.resend(position, now_ms);
        }
    }

    fn resend(&mut self, position: i64, now_ms: i64) {
        let Some(active) = self.active.get_mut(&position) else { return };
        if now_ms < active.resend_at_ms || now_ms >= active.expires_at_ms {
            return;
        }
        active.resend_after_ms = active.resend_after_ms.saturating_mul(2).min(RESEND_AFTER_MS_MAX);
        active.resend_at_ms = now_ms.saturating_add(active.resend_after_ms);
        let waiting = active.ledger.in_state(TargetState::Queued) & &self.online;
        self.send_order(position, waiting);
    }

    pub(super) fn send_order(&mut self, position: i64, targets: RoaringBitmap) {
        let Some(active) = self.sendable(position) else { return };
        let targets = self.may_be_sent(active, targets);
        if targets.is_empty() {
            return;
        }
        let Some(proofs) = self.proofs(position) else { return };
        let Some(active) = self.active.get(&position) else { return };
        let message = ShardMessage::Order {
            instruction: active.id,
            frame: active.frame.clone(),
            targets: Arc::new(targets),
            proofs: Some(proofs),
            urgency: Urgency::Order,
        };
        self.out.messages.push((To::All, message));
    }

    /// Returns the proofs of an instruction's order, shared with every instruction for the same devices.
    fn proofs(&mut self, position: i64) -> Option<Arc<Proofs>> {
        let active = self.active.get(&position)?;
        if let Some(made) = active.proofs.get() {
            return made.clone();
        }
        let root = <[u8; 32]>::try_from(&active.root[..]).ok()?;
        let shared = self.trees.get(&root).and_then(Weak::upgrade);
        let made = shared.or_else(|| {
            let made = Proofs::new(self.devices.members(active.ledger.targets()));
            (made.root() == root).then(|| Arc::new(made))
        });
        if made.is_none() {
            tracing::warn!(instruction = %active.id, "a target's record is damaged: the order cannot be proved to any");
        }
        let made = active.proofs.get_or_init(|| made).clone();
        self.trees.retain(|_, tree| tree.strong_count() > 0);
        self.trees.extend(made.iter().map(|made| (root, Arc::downgrade(made))));
        made
    }

    /// Returns the tree that an active instruction for the same devices has; else this one, for the next.
    pub(super) fn shared_tree(&mut self, made: Arc<Proofs>) -> Arc<Proofs> {
        let root = made.root();
        if let Some(shared) = self.trees.get(&root).and_then(Weak::upgrade) {
            return shared;
        }
        self.trees.insert(root, Arc::downgrade(&made));
        made
    }

    /// Turns what entered a state since the last output into transitions and counts, and lets go of what is complete.
    pub(super) fn write_ledgers(&mut self, now_ms: i64) {
        let entered = std::mem::take(&mut self.entered);
        if entered.is_empty() {
            return;
        }
        self.marks.batch += 1;
        let mut touched = BTreeSet::new();
        for (entered, devices) in entered {
            touched.insert(entered.instruction);
            self.marks.transition += 1;
            let record = TransitionRecord {
                batch: self.marks.batch,
                state: entered.state,
                cause: entered.cause.to_owned(),
                at_ms: now_ms,
                devices: bitmap_bytes(&devices),
            };
            self.out.writes.push(Write::Transition {
                position: self.marks.transition,
                instruction: entered.instruction,
                record: Box::new(record),
            });
        }
        for position in touched {
            let Some(active) = self.active.get(&position) else { continue };
            let count = |(state, count): (TargetState, u64)| StateCount { state: state.into(), count };
            let states = active.ledger.counts().into_iter().map(count).collect();
            self.out.writes.push(Write::Counts { instruction: position, record: CountsRecord { states } });
            if active.ledger.is_complete() {
                self.positions.remove(&active.id);
                // What was recalled while it was active does not know who expired since.
                self.late.remove(&active.id);
                self.active.remove(&position);
            }
        }
    }
}
