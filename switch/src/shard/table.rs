//! The sessions of one shard, by slot and by device number, and what the engine says to them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use muster_pki::DeviceId;
use muster_proto::frame;
use muster_proto::ids::{Digest, Epoch, InstructionId};
use muster_proto::session::switch::SwitchSession;
use roaring::RoaringBitmap;
use slab::Slab;

use super::pace::{Pace, Saying, Stride, Turn};
use super::session::{Due, Ending, Identity, Session};
use super::wire::Wire;
use crate::engine::{Proofs, SessionKey, ShardMessage, Urgency};
use crate::metrics;

/// Orders kept for sessions whose connect is under way; beyond it the oldest go, and their targets stay queued.
const RECENT_MAX: usize = 1024;

/// An order for many, as the engine sent it.
#[derive(Debug, Clone)]
pub(super) struct Broadcast {
    pub(super) instruction: InstructionId,
    pub(super) frame: Bytes,
    pub(super) targets: Arc<RoaringBitmap>,
    pub(super) proofs: Option<Arc<Proofs>>,
    pub(super) urgency: Urgency,
    pub(super) since: Instant,
}

/// A session that the engine closed before its own answer to connect was read.
#[derive(Debug)]
struct EarlyClose {
    epoch: Epoch,
    ending: Ending,
}

/// The sessions of one shard.
#[derive(Debug, Default)]
pub(super) struct Table {
    sessions: RefCell<Slab<Rc<Session>>>,
    numbers: RefCell<HashMap<u32, Rc<Session>>>,
    online: RefCell<RoaringBitmap>,
    /// Connects that the engine has not answered. While there are any, orders are kept in `recent`: the engine may
    /// count a device as online before its session knows its number.
    connecting: Cell<u32>,
    recent: RefCell<VecDeque<Broadcast>>,
    early: RefCell<HashMap<u32, EarlyClose>>,
    /// The licence that the engine told of last, and its serial. Its answer to a connect may be older, and be read later.
    licence: Cell<Option<(u64, Digest)>>,
    /// What is said to many.
    pace: Pace,
}

impl Table {
    /// Makes an empty one, of which so much is told at once.
    pub(super) fn new(stride: Stride) -> Self {
        Self { pace: Pace::new(stride), ..Self::default() }
    }

    /// Returns what waits for its turn.
    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Takes in a session that awaits its Hello; `None` only beyond 2³² slots.
    pub(super) fn insert(
        &self,
        device: DeviceId,
        wire: impl Into<Option<Wire>>,
        half: SwitchSession,
        due_bytes_max: usize,
    ) -> Option<Rc<Session>> {
        let mut sessions = self.sessions.borrow_mut();
        let entry = sessions.vacant_entry();
        let slot = u32::try_from(entry.key()).ok()?;
        let session = Rc::new(Session::new(slot, device, wire, half, due_bytes_max));
        entry.insert(Rc::clone(&session));
        Some(session)
    }

    /// Forgets a session; returns whether its device has no other one here.
    pub(super) fn remove(&self, session: &Session) -> bool {
        self.sessions.borrow_mut().try_remove(usize::try_from(session.slot).unwrap_or(usize::MAX));
        self.early.borrow_mut().remove(&session.slot);
        let Some(Identity { number, epoch, .. }) = session.identity() else { return true };
        let mut numbers = self.numbers.borrow_mut();
        // The device's next session may be here already, under the same number.
        let is_mine =
            numbers.get(&number).and_then(|held| held.identity()).is_some_and(|held| held.epoch == epoch);
        if is_mine {
            numbers.remove(&number);
            self.online.borrow_mut().remove(number);
        }
        is_mine
    }

    /// Returns the session in a slot, if there is one.
    pub(super) fn at(&self, slot: u32) -> Option<Rc<Session>> {
        self.sessions.borrow().get(usize::try_from(slot).ok()?).cloned()
    }

    /// Returns how many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.sessions.borrow().len()
    }

    /// Returns every session.
    pub(super) fn all(&self) -> Vec<Rc<Session>> {
        self.sessions.borrow().iter().map(|(_, session)| Rc::clone(session)).collect()
    }

    /// Calls `each` for every session.
    pub(super) fn for_each(&self, mut each: impl FnMut(&Session)) {
        self.all().iter().for_each(|session| each(session));
    }

    /// Says that a session asks the engine for its identity. Followed by [`Self::connected`] or [`Self::not_connected`].
    pub(super) fn connecting(&self) {
        self.connecting.set(self.connecting.get() + 1);
    }

    /// Says that the engine refused a connect.
    pub(super) fn not_connected(&self) {
        self.settled();
    }

    /// Gives a session its identity and the orders that came in between. Orders that were due come first: the caller
    /// has pushed them.
    pub(super) fn connected(&self, session: &Rc<Session>, identity: Identity, had: &[InstructionId]) {
        session.identify(identity);
        self.numbers.borrow_mut().insert(identity.number, Rc::clone(session));
        self.online.borrow_mut().insert(identity.number);
        // What waits for a session of before was among what was due, or is among these.
        self.pace.forget(identity.number);
        for order in self.recent.borrow().iter() {
            if order.targets.contains(identity.number) && !had.contains(&order.instruction) {
                deliver(order, identity.number, session);
            }
        }
        self.settled();
        if let Some(early) = self.early.borrow_mut().remove(&session.slot)
            && early.epoch == identity.epoch
        {
            session.end(&early.ending);
        }
    }

    /// Does what the engine says. What is for many waits for its [`Self::turn`]; acks are given at once, all that came together.
    pub(super) fn handle(&self, messages: impl IntoIterator<Item = ShardMessage>, tell: impl Fn(&Session)) {
        let mut acked = BTreeMap::new();
        for message in messages {
            match message {
                ShardMessage::Ack { session, lane, ranges, credit_bytes } => match self.find(session) {
                    Some(held) => {
                        held.alone(|| held.push_ack(lane, ranges, credit_bytes));
                        acked.insert(held.slot, held);
                    }
                    None => metrics::dropped("session_gone"),
                },
                ShardMessage::Order { instruction, frame, targets, proofs, urgency } => {
                    let since = Instant::now();
                    self.broadcast(Broadcast { instruction, frame, targets, proofs, urgency, since });
                }
                ShardMessage::Close { session, reason, reconnect_after, detail } => {
                    self.close(session, Ending { reason, reconnect_after, detail }, &tell);
                }
                ShardMessage::PolicyNotice { digest, spread, targets } => {
                    // Who connects meanwhile asks after its Welcome.
                    let online = &*targets & &*self.online.borrow();
                    self.pace.push(Saying::Policy(digest, spread), &online);
                }
                ShardMessage::LicenceNotice { digest, serial } => {
                    self.licence.set(Some((serial, digest)));
                    self.pace.push(Saying::Licence(digest), &self.online.borrow());
                }
            }
        }
        acked.values().for_each(|session| session.alone(|| tell(session)));
    }

    /// Tells the next few sessions what waits for them. What came together for a session is in it when `tell` is called for it.
    pub(super) fn turn(&self, tell: impl Fn(&Session)) -> Turn {
        self.pace.turn(|number| self.numbers.borrow().get(&number).map(Rc::clone), tell)
    }

    /// Returns the licence for a Welcome: the one of the engine's answer, unless the engine has told every session of a later one since,
    /// which a session without an identity was not told of.
    pub(super) fn newest_licence(&self, serial: u64, answered: Option<Digest>) -> Option<Digest> {
        let later = self.licence.get().filter(|(told, _)| *told > serial);
        later.map(|(_, digest)| digest).or(answered)
    }

    fn find(&self, key: SessionKey) -> Option<Rc<Session>> {
        let slot = usize::try_from(key.slot).ok()?;
        let held = self.sessions.borrow().get(slot).map(Rc::clone)?;
        held.identity().is_some_and(|identity| identity.epoch == key.epoch).then_some(held)
    }

    /// Selects this shard's sessions, who will all be given the same encoded frame: session by session, so that what is made for one alone,
    /// its proof, is gone before the next has its own.
    fn broadcast(&self, order: Broadcast) {
        if self.connecting.get() > 0 {
            let mut recent = self.recent.borrow_mut();
            if recent.len() >= RECENT_MAX {
                recent.pop_front();
                metrics::dropped("connecting");
            }
            recent.push_back(order.clone());
        }
        let online = &*order.targets & &*self.online.borrow();
        self.pace.push(Saying::Order(order), &online);
    }

    fn close(&self, key: SessionKey, ending: Ending, tell: impl Fn(&Session)) {
        if let Some(session) = self.find(key) {
            // What came before it is not kept back for its sake.
            if let Some(identity) = session.identity() {
                self.pace.tell_one(identity.number, &session, tell);
            }
            session.end(&ending);
            return;
        }
        let slot = usize::try_from(key.slot).unwrap_or(usize::MAX);
        let awaits_identity = self.sessions.borrow().get(slot).is_some_and(|held| held.identity().is_none());
        if awaits_identity {
            self.early.borrow_mut().insert(key.slot, EarlyClose { epoch: key.epoch, ending });
        }
    }

    fn settled(&self) {
        let left = self.connecting.get().saturating_sub(1);
        self.connecting.set(left);
        if left == 0 {
            *self.recent.borrow_mut() = VecDeque::new();
        }
    }
}

/// Gives an order to one session.
pub(super) fn deliver(order: &Broadcast, number: u32, session: &Session) {
    // Sent again, since the first was not written yet.
    if session.has_waiting(order.instruction) {
        return;
    }
    let frame = match &order.proofs {
        None => order.frame.clone().into(),
        Some(proofs) => match proofs.proof(number) {
            Some(proof) => frame::with_proof(&order.frame, &proof),
            None => {
                // Every target of an order with a root has a proof; without one the client would refuse the order.
                metrics::dropped("no_proof");
                return;
            }
        },
    };
    let Broadcast { instruction, urgency, since, .. } = *order;
    session.push_order(Due { instruction, frame, since, urgency });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g6_who_connects_while_a_licence_is_imported_is_welcomed_with_the_newest() {
        let table = Table::default();
        let [first, second, third] = [1, 2, 3].map(|byte| Digest::from([byte; 32]));
        assert_eq!(table.newest_licence(0, None), None);
        assert_eq!(table.newest_licence(1, Some(first)), Some(first));

        table.handle([ShardMessage::LicenceNotice { digest: second, serial: 2 }], |_| {});

        assert_eq!(table.newest_licence(0, None), Some(second));
        assert_eq!(table.newest_licence(1, Some(first)), Some(second));
        assert_eq!(table.newest_licence(2, Some(second)), Some(second));
        assert_eq!(table.newest_licence(3, Some(third)), Some(third));
    }
}
