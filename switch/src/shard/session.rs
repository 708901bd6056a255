//! One session as its shard's table sees it: the protocol's half, who it is, and what waits for it.
//!
//! The table puts orders and acks in, and the shard writes them at once as far as the socket takes them; the session's task, in `drive`,
//! reads, and sees to the rest. All are on one thread, so `RefCell` borrows are short and never cross an await.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use muster_pki::DeviceId;
use muster_proto::frame::Encoded;
use muster_proto::ids::{Digest, Epoch, InstructionId, OutboxId};
use muster_proto::session::PushError;
use muster_proto::session::switch::SwitchSession;
use muster_proto::session::v1::{CloseReason, Lane, SequenceRange};

use super::drive::End;
use super::wheel::{Tick, Wheel};
use super::wire::{Kind, Wire};
use crate::engine::Urgency;
use crate::metrics;

/// How long a client that reads too slowly is told to stay away.
const SLOW_RECONNECT_AFTER: Duration = Duration::from_secs(10);

/// A session's identity at the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    /// The device's number.
    pub(super) number: u32,
    /// The session's epoch.
    pub(super) epoch: Epoch,
    /// The client's outbox.
    pub(super) outbox: OutboxId,
}

/// An order on its way to one client.
#[derive(Debug)]
pub(super) struct Due {
    /// Whose it is.
    pub(super) instruction: InstructionId,
    /// The encoded frame, with the device's proof where the order needs one.
    pub(super) frame: Encoded,
    /// When it reached the shard.
    pub(super) since: Instant,
    /// Whether it goes before what waits.
    pub(super) urgency: Urgency,
}

/// Ends a session from outside its task.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    /// Told to the client.
    pub(super) reason: CloseReason,
    /// How long the client shall stay away.
    pub(super) reconnect_after: Duration,
    /// For people.
    pub(super) detail: String,
}

/// A session, shared by the table and its task.
#[derive(Debug)]
pub(super) struct Session {
    /// Its place in the table.
    pub(super) slot: u32,
    /// Whose it is, by the certificate.
    pub(super) device: DeviceId,
    /// Wakes the task: something was put in that waits for it.
    pub(super) waker: AtomicWaker,
    /// Gone when the session ends.
    wire: RefCell<Option<Wire>>,
    half: RefCell<SwitchSession>,
    identity: Cell<Option<Identity>>,
    /// The engine was asked for an identity and gave no answer: it may hold this session all the same.
    is_unanswered: Cell<bool>,
    /// Orders that wait for room in the protocol's queue.
    due: RefCell<VecDeque<Due>>,
    due_bytes: Cell<usize>,
    due_bytes_max: Cell<usize>,
    unwritten: RefCell<Vec<(InstructionId, Instant)>>,
    /// How it ended where it was written to outside of its task, which has yet to end it.
    over: Cell<Option<End>>,
    recheck: Cell<bool>,
    /// Where it stands in the shard's wheel.
    scheduled: Cell<Tick>,
    /// The serial of the policy that the engine knows the client to follow.
    policy: Cell<u64>,
}

impl Session {
    /// Makes one that awaits its Hello.
    ///
    /// `due_bytes_max` is what may wait besides the protocol's own queue and what was due at connect.
    pub(super) fn new(
        slot: u32,
        device: DeviceId,
        wire: impl Into<Option<Wire>>,
        half: SwitchSession,
        due_bytes_max: usize,
    ) -> Self {
        Self {
            slot,
            device,
            waker: AtomicWaker::new(),
            wire: RefCell::new(wire.into()),
            half: RefCell::new(half),
            identity: Cell::new(None),
            is_unanswered: Cell::new(false),
            due: RefCell::new(VecDeque::new()),
            due_bytes: Cell::new(0),
            due_bytes_max: Cell::new(due_bytes_max),
            unwritten: RefCell::new(Vec::new()),
            over: Cell::new(None),
            recheck: Cell::new(false),
            scheduled: Cell::new(Tick::NEVER),
            policy: Cell::new(0),
        }
    }

    /// Calls the protocol's half. The closure must not call the session again.
    pub(super) fn half<T>(&self, call: impl FnOnce(&mut SwitchSession) -> T) -> T {
        call(&mut self.half.borrow_mut())
    }

    /// Calls the wire; `None` once it was taken. The closure must not call it again.
    pub(super) fn wire<T>(&self, call: impl FnOnce(&mut Wire) -> T) -> Option<T> {
        self.wire.borrow_mut().as_mut().map(call)
    }

    /// Takes the wire, to end it.
    pub(super) fn take_wire(&self) -> Option<Wire> {
        self.wire.take()
    }

    /// Takes the next frame to write.
    pub(super) fn poll_transmit(&self) -> Option<(Kind, Encoded)> {
        self.fill();
        self.half(SwitchSession::poll_transmit_pieces).map(|frame| (Kind::Binary, frame))
    }

    /// Writes what waits as far as the socket takes it at once; returns whether that was all. The rest is its task's, which is woken.
    pub(super) fn tell(&self) -> bool {
        if self.over.get().is_some() {
            return false;
        }
        let is_all = match self.wire(|wire| wire.tell(|| self.poll_transmit())) {
            Some(Ok(is_all)) => is_all,
            Some(Err(error)) => {
                tracing::debug!(device = %self.device, %error, "session's socket is gone");
                self.give_up(End::Peer);
                false
            }
            None => false,
        };
        // One that was closed by what it was given is ended by its task.
        if !is_all || self.half(|half| half.is_closed()) {
            self.waker.wake();
        }
        is_all
    }

    /// Does something for this session alone: a panic in it ends this one, and nobody else.
    pub(super) fn alone(&self, act: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(act)).is_err() {
            tracing::error!(device = %self.device, "a session failed: this is a bug");
            self.give_up(End::Failed);
        }
    }

    /// Has its task end it at once: nothing more can be written. What was given to it and is not known to have left stays queued for the
    /// device's next session.
    pub(super) fn give_up(&self, end: End) {
        self.over.set(Some(end));
        self.drop_due();
        self.waker.wake();
    }

    /// Returns whether it has not taken what it was given.
    pub(super) fn is_behind(&self) -> bool {
        self.wire(|wire| !wire.is_flushed()).unwrap_or(false)
    }

    /// Returns how it ended outside of its task, if it did.
    pub(super) fn over(&self) -> Option<End> {
        self.over.get()
    }

    /// Returns its identity, once the engine gave it one.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.identity.get()
    }

    /// Notes its identity.
    pub(super) fn identify(&self, identity: Identity) {
        self.identity.set(Some(identity));
    }

    /// Notes that the engine did not answer.
    pub(super) fn note_unanswered(&self) {
        self.is_unanswered.set(true);
    }

    /// Returns whether the engine may hold this session without its identity being known here.
    pub(super) fn is_unanswered(&self) -> bool {
        self.is_unanswered.get()
    }

    /// Hands over what was due when the client connected, however much it is.
    pub(super) fn push_due(&self, due: Vec<Due>) {
        let bytes: usize = due.iter().map(|order| order.frame.len()).sum();
        self.due_bytes_max.set(self.due_bytes_max.get().saturating_add(bytes));
        due.into_iter().for_each(|order| self.push_order(order));
    }

    /// Hands over one order; a stop goes before every order that waits. A client whose queue is full loses its session, never others' time; its target stays queued.
    pub(super) fn push_order(&self, order: Due) {
        let bytes = self.due_bytes.get().saturating_add(order.frame.len());
        if bytes > self.due_bytes_max.get() {
            self.end_slow();
            return;
        }
        self.due_bytes.set(bytes);
        let mut due = self.due.borrow_mut();
        let at = match order.urgency {
            Urgency::Stop => due.iter().take_while(|waiting| waiting.urgency == Urgency::Stop).count(),
            Urgency::Order => due.len(),
        };
        due.insert(at, order);
    }

    /// Moves waiting orders into the protocol's queue while there is room.
    pub(super) fn fill(&self) {
        let mut due = self.due.borrow_mut();
        let mut half = self.half.borrow_mut();
        while let Some(order) = due.front() {
            let pushed = match order.urgency {
                Urgency::Stop => half.push_stop(order.frame.clone()),
                Urgency::Order => half.push_order(order.frame.clone()),
            };
            match pushed {
                Ok(()) => {
                    self.unwritten.borrow_mut().push((order.instruction, order.since));
                    self.due_bytes.set(self.due_bytes.get().saturating_sub(order.frame.len()));
                    due.pop_front();
                }
                Err(PushError::Busy { .. }) => return,
                Err(error) => {
                    tracing::debug!(device = %self.device, %error, "orders stay queued");
                    break;
                }
            }
        }
        // An idle session owns no buffer.
        if due.capacity() > 0 {
            *due = VecDeque::new();
            self.due_bytes.set(0);
        }
    }

    /// Returns whether an instruction's order waits for the client already.
    pub(super) fn has_waiting(&self, instruction: InstructionId) -> bool {
        self.due.borrow().iter().any(|order| order.instruction == instruction)
            || self.unwritten.borrow().iter().any(|(waiting, _)| *waiting == instruction)
    }

    /// Returns the bytes that wait for the client.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.half(|half| half.outbound_bytes()).saturating_add(self.due_bytes.get())
    }

    /// Takes the orders that the last complete flush wrote. Of a session that was closed meanwhile nobody knows whether they were: the
    /// protocol's half drops what waits.
    pub(super) fn take_written(&self) -> Vec<(InstructionId, Instant)> {
        let written = self.unwritten.take();
        if self.half(|half| half.is_closed()) { Vec::new() } else { written }
    }

    /// Hands over an ack.
    pub(super) fn push_ack(&self, lane: Lane, ranges: Vec<SequenceRange>, credit_bytes: u64) {
        self.half(|half| half.push_ack(lane, ranges, credit_bytes));
    }

    /// Says that the Switch holds another licence.
    pub(super) fn push_licence_notice(&self, digest: Digest) {
        self.half(|half| half.push_licence_notice(digest));
    }

    /// Names a policy that the Switch holds for this device, or none.
    pub(super) fn push_policy_notice(&self, digest: Option<Digest>, spread: Duration) {
        self.half(|half| half.push_policy_notice(digest, spread));
    }

    /// Returns the serial of the policy that the engine knows the client to follow.
    pub(super) fn policy(&self) -> u64 {
        self.policy.get()
    }

    /// Notes which policy the engine knows the client to follow.
    pub(super) fn note_policy(&self, serial: u64) {
        self.policy.set(serial);
    }

    /// Ends the session; the task writes the last frame and closes.
    pub(super) fn end(&self, ending: &Ending) {
        self.half(|half| half.push_close(ending.reason, ending.reconnect_after, &ending.detail));
        self.drop_due();
        self.waker.wake();
    }

    /// Drops what waits, of which nothing will have been sent.
    fn drop_due(&self) {
        self.due.take();
        self.due_bytes.set(0);
        self.unwritten.take();
    }

    /// Ends a session whose client reads too slowly.
    pub(super) fn end_slow(&self) {
        metrics::dropped("slow");
        let detail = "the outbound queue is full: the client reads too slowly".to_owned();
        self.end(&Ending { reason: CloseReason::Slow, reconnect_after: SLOW_RECONNECT_AFTER, detail });
    }

    /// Asks the task to check the certificate again: what is trusted or revoked has changed.
    pub(super) fn ask_recheck(&self) {
        self.recheck.set(true);
        self.waker.wake();
    }

    /// Has the wheel wake the task at a deadline, or before.
    pub(super) fn schedule(&self, wheel: &mut Wheel, deadline: Instant) {
        self.scheduled.set(wheel.schedule(self.slot, deadline, self.scheduled.get()));
    }

    /// Returns whether it stands in the wheel; it does not when something is due.
    pub(super) fn is_scheduled(&self) -> bool {
        self.scheduled.get() != Tick::NEVER
    }

    /// Wakes the task if this is the tick that it stands at; it may have moved closer since, or be another session's by now.
    pub(super) fn is_due(&self, tick: Tick) {
        if self.scheduled.get() == tick {
            self.scheduled.set(Tick::NEVER);
            self.waker.wake();
        }
    }

    /// Returns whether the certificate has to be checked again.
    pub(super) fn awaits_recheck(&self) -> bool {
        self.recheck.get()
    }

    /// Returns whether the certificate has to be checked again, and forgets the request.
    pub(super) fn take_recheck(&self) -> bool {
        self.recheck.replace(false)
    }
}
