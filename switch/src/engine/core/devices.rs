//! Which devices there are, and which have a session.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use muster_pki::DeviceId;
use muster_proto::common::v1::{NamedValue, Value, value::Kind};
use muster_proto::ids::{Epoch, OutboxId};
use muster_proto::operator::v1::Client;
use muster_proto::session::v1::CloseReason;
use muster_signing::audience::{AUTHENTICATED, CLIENT_ATTRIBUTES, Expression};
use roaring::RoaringBitmap;

use super::Core;
use crate::engine::audience::AttributeIndex;
use crate::engine::outgoing::To;
use crate::engine::store::Write;
use crate::engine::{Connect, Connected, EngineError, SessionKey, ShardMessage, metrics};

/// The devices by number and by name, with what audiences may ask of them.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    numbers: HashMap<DeviceId, u32>,
    /// Also those that were removed: the proofs of orders that were for them need their names.
    known: BTreeMap<u32, Known>,
    /// Without those that were removed.
    all: RoaringBitmap,
    /// Of these, those without a certificate.
    unauthenticated: RoaringBitmap,
    /// The numbers that a device had when it was removed, ascending; also of one that came again.
    former: HashMap<DeviceId, Vec<u32>>,
    /// Dense, never reused: greater than every number given before.
    next: u32,
    attributes: AttributeIndex,
}

#[derive(Debug)]
struct Known {
    device: DeviceId,
    first_seen_at_ms: i64,
}

/// The attribute that always is the name in the certificate, whatever the client says.
const DEVICE: &str = "device";

impl Devices {
    /// Makes them of what was stored. A device without facts, because they are damaged, is known by its name only.
    pub(crate) fn new(
        devices: Vec<(u32, DeviceId)>,
        removed: &BTreeSet<u32>,
        facts: &BTreeMap<u32, Client>,
        next: u32,
    ) -> Self {
        let mut made = Self { next, ..Self::default() };
        for (number, device) in devices {
            if removed.contains(&number) {
                made.former.entry(device.clone()).or_default().push(number);
                made.known.insert(number, Known { device, first_seen_at_ms: 0 });
                continue;
            }
            let facts = facts.get(&number);
            let attributes = facts.map(|facts| facts.attributes.clone()).unwrap_or_default();
            made.insert(number, device, facts.map_or(0, |facts| facts.first_seen_at_ms), attributes);
        }
        made
    }

    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.all.len()).unwrap_or(usize::MAX)
    }

    pub(crate) fn number(&self, device: &DeviceId) -> Option<u32> {
        self.numbers.get(device).copied()
    }

    /// Returns whether the number was given, and its device not removed since.
    pub(crate) fn is_here(&self, number: u32) -> bool {
        self.all.contains(number)
    }

    /// Returns the name that a number was given to, also of a device that was removed.
    pub(crate) fn name(&self, number: u32) -> Option<&DeviceId> {
        self.known.get(&number).map(|known| &known.device)
    }

    /// Returns the number itself, then those that its device had before it was removed, the latest first.
    pub(crate) fn numbers_of(&self, number: u32) -> impl Iterator<Item = u32> {
        let former = self.name(number).and_then(|device| self.former.get(device));
        std::iter::once(number).chain(former.into_iter().flatten().rev().copied())
    }

    pub(crate) fn all(&self) -> &RoaringBitmap {
        &self.all
    }

    /// Returns those that have a key and no certificate (C1 of trust.md).
    pub(crate) fn unauthenticated(&self) -> &RoaringBitmap {
        &self.unauthenticated
    }

    /// Returns whom an audience may hold: those without a certificate only where it asks for them (C1 of trust.md).
    pub(crate) fn eligible(&self, audience: Option<&Expression>) -> RoaringBitmap {
        if audience.is_some_and(Expression::asks_for_unauthenticated) {
            self.all.clone()
        } else {
            &self.all - &self.unauthenticated
        }
    }

    pub(crate) fn attributes(&self) -> &AttributeIndex {
        &self.attributes
    }

    /// Returns the devices of a set with their numbers; numbers of damaged records are left out.
    pub(crate) fn members(&self, numbers: &RoaringBitmap) -> Vec<(DeviceId, u32)> {
        numbers.iter().filter_map(|number| Some((self.name(number)?.clone(), number))).collect()
    }

    /// Replaces what audiences may ask of a device, and returns what was taken of it.
    fn set_attributes(&mut self, number: u32, attributes: Vec<NamedValue>) -> Vec<NamedValue> {
        let told = attributes.len();
        let taken = self.attributes.set(number, attributes);
        if taken.len() < told {
            metrics::attributes_refused(told - taken.len());
        }
        taken
    }

    /// Takes a device out of everything but what it left behind.
    pub(super) fn remove(&mut self, device: &DeviceId, number: u32) {
        self.numbers.remove(device);
        self.all.remove(number);
        self.unauthenticated.remove(number);
        self.attributes.remove(number);
        self.former.entry(device.clone()).or_default().push(number);
    }

    fn insert(&mut self, number: u32, device: DeviceId, first_seen_at_ms: i64, attributes: Vec<NamedValue>) {
        self.set_attributes(number, with_device(attributes, &device));
        self.numbers.insert(device.clone(), number);
        if device.is_of_key() {
            self.unauthenticated.insert(number);
        }
        self.known.insert(number, Known { device, first_seen_at_ms });
        self.all.insert(number);
        self.next = self.next.max(number.saturating_add(1));
    }
}

impl Core {
    /// Begins a session, unless the device is blocked.
    pub(super) fn connect(&mut self, connect: Connect, now_ms: i64) -> Result<Connected, EngineError> {
        self.refuse_blocked(&connect.device)?;
        self.refuse_unknown_key(&connect.device, now_ms)?;
        let number = self.number_of(&connect.device, now_ms);
        let store_before = self.history.store_of(number);
        self.compare_epochs(number, &connect.device, &connect.hello);
        self.marks.epoch += 1;
        let key = SessionKey { shard: connect.shard, slot: connect.slot, epoch: Epoch(self.marks.epoch) };
        if let Some(older) = self.sessions.insert(number, key) {
            self.close(older, CloseReason::Superseded, "a newer session of this device took over");
            if let (Some(from), Some(to)) = (store_before, self.history.store_of(number)) {
                self.note_take_over(number, &connect.device, [from, to], now_ms);
            }
        }
        self.online.insert(number);
        self.out.presence.push((connect.device.clone(), Some(connect.address)));
        // A name that is none has seen nothing; the shard refuses it before it comes here.
        let outbox = OutboxId::try_from(&connect.hello.outbox_id[..]);
        let (highest_sequence, highest_by_session) = outbox.map_or((0, Some(0)), |outbox| {
            self.outboxes.greet(number, outbox, now_ms);
            (self.outboxes.highest(number, outbox), self.outboxes.highest_by_session(number, outbox))
        });
        let attributes = with_device(connect.hello.attributes, &connect.device);
        let attributes = self.devices.set_attributes(number, attributes);
        self.policies.place(number, &connect.device, &attributes);
        let facts = Client {
            device: connect.device.to_string(),
            online: false,
            first_seen_at_ms: self.devices.known.get(&number).map_or(now_ms, |known| known.first_seen_at_ms),
            last_seen_at_ms: now_ms,
            attributes,
            thumbprint: connect.thumbprint,
            certificate_not_after_ms: connect.certificate_not_after_ms,
            epoch: key.epoch.0,
            address: String::new(),
            blocked: None,
            policy_serial: 0,
            unauthenticated: connect.device.is_of_key(),
        };
        self.out.writes.push(Write::Facts { number, facts: Box::new(facts) });
        let licence = self.catalogue.licence.as_ref();
        let (licence_digest, licence_serial) =
            (licence.map(|licence| licence.digest), licence.map_or(0, |licence| licence.document.serial()));
        let due = self.due(number, now_ms);
        let policy_serial = self.policies.followed(number);
        Ok(Connected {
            number,
            epoch: key.epoch,
            licence_digest,
            licence_serial,
            highest_sequence,
            highest_by_session,
            policy_serial,
            due,
        })
    }

    /// Ends a session, unless a later one of the device began.
    pub(super) fn disconnected(&mut self, number: u32, epoch: Epoch, now_ms: i64) {
        if self.sessions.get(&number).is_none_or(|session| session.epoch != epoch) {
            return;
        }
        self.sessions.remove(&number);
        self.online.remove(number);
        self.out.writes.push(Write::LastSeen { number, at_ms: now_ms });
        if let Some(device) = self.devices.name(number) {
            self.out.presence.push((device.clone(), None));
        }
    }

    /// Ends the session that a device has at a place: its shard never learned of it.
    pub(super) fn abandon(&mut self, device: &DeviceId, shard: u16, slot: u32, now_ms: i64) {
        let Some(number) = self.devices.number(device) else { return };
        let there = self.sessions.get(&number).filter(|key| key.shard == shard && key.slot == slot);
        if let Some(epoch) = there.map(|key| key.epoch) {
            self.disconnected(number, epoch, now_ms);
        }
    }

    /// Returns the device's number, a new one on first sight. Only a session's certificate or key makes a device known.
    fn number_of(&mut self, device: &DeviceId, now_ms: i64) -> u32 {
        if let Some(number) = self.devices.number(device) {
            return number;
        }
        let number = self.devices.next;
        self.devices.insert(number, device.clone(), now_ms, Vec::new());
        self.out.writes.push(Write::Device { number, device: device.clone() });
        if let Some(before) = self.devices.former.get(device).and_then(|former| former.last().copied()) {
            self.outboxes.hand_over(before, number);
        }
        let facts = Client {
            device: device.to_string(),
            first_seen_at_ms: now_ms,
            attributes: with_device(Vec::new(), device),
            ..Client::default()
        };
        self.out.writes.push(Write::Facts { number, facts: Box::new(facts) });
        number
    }

    pub(super) fn close(&mut self, session: SessionKey, reason: CloseReason, detail: &str) {
        let message = ShardMessage::Close {
            session,
            reason,
            reconnect_after: Duration::ZERO,
            detail: detail.to_owned(),
        };
        self.out.messages.push((To::Shard(session.shard), message));
    }
}

/// Puts what the identity says in the place of what the client says, by name and each name once. A device without a
/// certificate has the attributes that every client has, and no further names: it could use them up for all others.
fn with_device(attributes: Vec<NamedValue>, device: &DeviceId) -> Vec<NamedValue> {
    let name = Value { kind: Some(Kind::Text(device.to_string())) };
    let standing = Value { kind: Some(Kind::Integer((!device.is_of_key()).into())) };
    let is_taken = |name: &str| !device.is_of_key() || CLIENT_ATTRIBUTES.contains(&name);
    let mut by_name: BTreeMap<String, Option<Value>> = attributes
        .into_iter()
        .filter(|attribute| is_taken(&attribute.name))
        .map(|attribute| (attribute.name, attribute.value))
        .collect();
    by_name.insert(DEVICE.to_owned(), Some(name));
    by_name.insert(AUTHENTICATED.to_owned(), Some(standing));
    by_name.into_iter().map(|(name, value)| NamedValue { name, value }).collect()
}
