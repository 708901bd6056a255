//! Client policies: which of them a device is to follow, and which it follows.
//!
//! The Switch carries policies and decides nothing by them. Whom one is for is worked out once, when it is imported, by set
//! algebra; after that a connect costs a look at the policies that are still given to somebody, and a check a look into
//! their bitmaps.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use muster_pki::DeviceId;
use muster_proto::common::v1::{NamedValue, Value};
use muster_proto::ids::{Digest, Epoch};
use muster_proto::operator::v1::ClientPolicy;
use muster_signing::audience::{self, Expression};
use roaring::RoaringBitmap;

use super::licensing::SERIAL_STEP_MAX;
use super::{Core, Devices, HeldPolicy, Moment};
use crate::engine::outgoing::To;
use crate::engine::shared::Catalogue;
use crate::engine::store::{PolicyWrite, Write};
use crate::engine::{EngineError, ShardMessage};

/// Policies held at most. Each has an audience that every connect is held against, unless a later one is for all.
pub(crate) const POLICIES_MAX: usize = 64;

/// Who is to follow what, and who follows what.
#[derive(Debug, Default)]
pub(super) struct Policies {
    /// The last one that is for all devices, and those after it. Nobody is given an earlier one.
    live: BTreeMap<u64, Live>,
    /// What devices follow; those that follow none are left out.
    followed: HashMap<u32, u64>,
    /// How many follow which.
    followers: HashMap<u64, u64>,
    /// Devices that are to follow a later one than they do.
    behind: RoaringBitmap,
    /// Devices without a certificate, which only a policy is for that asks for such (C1 of trust.md).
    unauthenticated: RoaringBitmap,
}

/// A policy that somebody may be given.
#[derive(Debug)]
struct Live {
    held: Arc<HeldPolicy>,
    /// Whom it is for; `None`: all that have a certificate.
    members: Option<RoaringBitmap>,
}

impl Policies {
    /// Makes them of what is held and what was stored of the devices.
    pub(super) fn new(catalogue: &Catalogue, devices: &Devices, followed: Vec<(u32, u64)>) -> Self {
        let mut made = Self { unauthenticated: devices.unauthenticated().clone(), ..Self::default() };
        for (number, serial) in followed {
            if devices.is_here(number) {
                made.follow(number, serial);
            }
        }
        // A damaged one may have been for all, and have taken the place of those before it.
        for held in catalogue.policies().filter(|held| held.document.serial() > catalogue.policy_lost()) {
            made.insert(Arc::clone(held), devices);
        }
        made
    }

    /// Takes one in whose serial is the highest, and returns whom it is news for.
    fn insert(&mut self, held: Arc<HeldPolicy>, devices: &Devices) -> RoaringBitmap {
        let audience = held.document.terms().audience.as_ref();
        let members = audience.map(|audience| {
            let matches = |values: &BTreeMap<String, Value>| audience.matches(values);
            devices.attributes().select(&devices.eligible(Some(audience)), audience.names(), matches)
        });
        if members.is_none() {
            // It is for nobody whom only these are for.
            self.live.retain(|_, live| {
                let audience = live.held.document.terms().audience.as_ref();
                audience.is_some_and(Expression::asks_for_unauthenticated)
            });
        }
        let serial = held.document.serial();
        let mut news = members.clone().unwrap_or_else(|| devices.eligible(None));
        for (number, _) in self.followed.iter().filter(|(_, followed)| **followed >= serial) {
            news.remove(*number);
        }
        self.behind |= &news;
        self.live.insert(serial, Live { held, members });
        news
    }

    /// Notes what a device has told of itself.
    pub(super) fn place(&mut self, number: u32, device: &DeviceId, attributes: &[NamedValue]) {
        if device.is_of_key() {
            self.unauthenticated.insert(number);
        }
        if self.live.is_empty() {
            return;
        }
        if self.live.values().any(|live| live.members.is_some()) {
            let pair = |named: &NamedValue| (named.name.clone(), named.value.clone().unwrap_or_default());
            let values: BTreeMap<String, Value> = attributes.iter().map(pair).collect();
            for live in self.live.values_mut() {
                let audience = live.held.document.terms().audience.as_ref();
                let Some((members, audience)) = live.members.as_mut().zip(audience) else { continue };
                if audience::holds(Some(audience), &values) {
                    members.insert(number);
                } else {
                    members.remove(number);
                }
            }
        }
        self.look_again(number);
    }

    /// Gives a policy to nobody any more.
    fn let_go(&mut self, serial: u64) {
        let members = self.live.remove(&serial).and_then(|live| live.members).unwrap_or_default();
        members.iter().for_each(|number| self.look_again(number));
    }

    /// Forgets a device.
    pub(super) fn forget(&mut self, number: u32) {
        self.follow(number, 0);
        self.behind.remove(number);
        self.unauthenticated.remove(number);
        self.live.values_mut().filter_map(|live| live.members.as_mut()).for_each(|members| {
            members.remove(number);
        });
    }

    /// Notes what a device follows; returns whether it is another one than before.
    fn follow(&mut self, number: u32, serial: u64) -> bool {
        let before = match serial {
            0 => self.followed.remove(&number),
            serial => self.followed.insert(number, serial),
        };
        if before.unwrap_or_default() == serial {
            return false;
        }
        if let Some(count) = before.and_then(|before| self.followers.get_mut(&before)) {
            *count = count.saturating_sub(1);
        }
        if serial != 0 {
            *self.followers.entry(serial).or_default() += 1;
        }
        if let Some(before) = before.filter(|before| self.followers.get(before) == Some(&0)) {
            self.followers.remove(&before);
        }
        true
    }

    /// Returns what a device follows, 0 for none.
    pub(super) fn followed(&self, number: u32) -> u64 {
        self.followed.get(&number).copied().unwrap_or_default()
    }

    /// Returns how many devices are to follow a later one than they do.
    pub(super) fn behind(&self) -> u64 {
        self.behind.len()
    }

    /// Returns the policy that a device is to follow, if it is a later one than it does.
    fn later(&self, number: u32) -> Option<&Arc<HeldPolicy>> {
        let is_for = |live: &&Live| match &live.members {
            Some(members) => members.contains(number),
            None => !self.unauthenticated.contains(number),
        };
        let best = self.live.values().rev().find(is_for)?;
        (best.held.document.serial() > self.followed(number)).then_some(&best.held)
    }

    fn look_again(&mut self, number: u32) {
        if self.later(number).is_some() {
            self.behind.insert(number);
        } else {
            self.behind.remove(number);
        }
    }

    /// Returns how many of those that are behind are to follow this one.
    fn behind_of(&self, serial: u64) -> u64 {
        let Some(live) = self.live.get(&serial) else { return 0 };
        let mut behind = match &live.members {
            Some(members) => members & &self.behind,
            None => &self.behind - &self.unauthenticated,
        };
        for later in self.live.range(serial.saturating_add(1)..).map(|(_, later)| later) {
            if let Some(members) = &later.members {
                behind -= members;
            }
        }
        behind.len()
    }

    fn shown(&self, held: &HeldPolicy) -> ClientPolicy {
        let (serial, terms) = (held.document.serial(), held.document.terms());
        ClientPolicy {
            serial,
            tenant: terms.tenant.clone(),
            says: terms.says.clone(),
            audience: terms.audience.as_ref().map(ToString::to_string).unwrap_or_default(),
            digest: held.digest.to_string(),
            signer_thumbprint: held.signer.to_string(),
            signer: held.signer_subject.clone(),
            signed_at_ms: i64::try_from(held.signing_time.as_secs().saturating_mul(1_000))
                .unwrap_or(i64::MAX),
            imported_at_ms: held.imported_at_ms,
            superseded: !self.live.contains_key(&serial),
            following: self.followers.get(&serial).copied().unwrap_or_default(),
            behind: self.behind_of(serial),
        }
    }
}

impl Core {
    /// Takes a verified policy, and tells the sessions that it is news for. The same bytes again change nothing.
    pub(super) fn import_policy(
        &mut self,
        mut held: HeldPolicy,
        moment: Moment,
    ) -> Result<ClientPolicy, EngineError> {
        if let Some(known) = self.catalogue.policies().find(|known| known.digest == held.digest) {
            return Ok(self.policies.shown(known));
        }
        self.check_policy(&held)?;
        self.require_disk(held.envelope.len(), moment)?;
        let (serial, is_for_all) = (held.document.serial(), held.document.terms().audience.is_none());
        held.imported_at_ms = moment.now_ms;
        let held = Arc::new(held);
        let catalogue = Arc::make_mut(&mut self.catalogue);
        if catalogue.policies().count() >= POLICIES_MAX {
            let live = if is_for_all { None } else { self.policies.live.keys().next().copied() };
            let first = catalogue.policies().next().map(|oldest| oldest.document.serial());
            // All that is held may be given to somebody: then nothing can go for a policy that is for some.
            let oldest = first.filter(|first| live.is_none_or(|live| *first < live)).ok_or_else(too_many)?;
            catalogue.remove_policy(oldest);
            self.policies.let_go(oldest);
            self.out.writes.push(Write::Policy(PolicyWrite::Gone { serial: oldest }));
        }
        catalogue.insert_policy(Arc::clone(&held));
        self.marks.policy_serial = serial;
        let record = Box::new(held.record());
        self.out.writes.push(Write::Policy(PolicyWrite::Held { serial, record }));
        self.out.catalogue = Some(Arc::clone(&self.catalogue));
        let news = self.policies.insert(Arc::clone(&held), &self.devices) & &self.online;
        if !news.is_empty() {
            let spread = spread(news.len(), self.policy_asks_per_second);
            let message = ShardMessage::PolicyNotice { digest: held.digest, spread, targets: Arc::new(news) };
            self.out.messages.push((To::All, message));
        }
        Ok(self.policies.shown(&held))
    }

    fn check_policy(&self, held: &HeldPolicy) -> Result<(), EngineError> {
        let (tenant, serial) = (&held.document.terms().tenant, held.document.serial());
        if *tenant != self.tenant {
            return Err(EngineError::FailedPrecondition(format!(
                "the policy is for tenant `{tenant}`, this Switch serves `{}`; import a policy of this organisation",
                self.tenant
            )));
        }
        // Also when the policy that had it is damaged or gone: a serial names one policy for ever.
        let highest = self.marks.policy_serial;
        if serial <= highest {
            return Err(EngineError::FailedPrecondition(format!(
                "the policy has serial {serial}, the highest imported was {highest}; a serial only grows, so sign it again \
                 with {} or more",
                highest.saturating_add(1)
            )));
        }
        // Devices take no lower one, so that a slip of the pen would stand for ever.
        if highest > 0 && serial > highest.saturating_add(SERIAL_STEP_MAX) {
            return Err(EngineError::FailedPrecondition(format!(
                "the policy has serial {serial}, the highest imported was {highest}; a serial that grows by more than {SERIAL_STEP_MAX} at \
                 once is taken for a slip of the pen, since none can go back: sign it again with {}",
                highest.saturating_add(1)
            )));
        }
        Ok(())
    }

    /// Notes which policy a session's device follows, and returns the later one that it is to follow.
    pub(super) fn policy_check(&mut self, number: u32, epoch: Epoch, serial: u64) -> Option<Digest> {
        if self.sessions.get(&number).is_none_or(|session| session.epoch != epoch) {
            return None;
        }
        // No policy has a higher one: a policy's text cannot say it.
        let serial = serial.min(i64::MAX.unsigned_abs());
        if self.policies.follow(number, serial) {
            self.out.writes.push(Write::Policy(PolicyWrite::Followed { number, serial }));
            self.policies.look_again(number);
        }
        self.policies.later(number).map(|held| held.digest)
    }

    /// Returns the policies as shown to people, the latest first.
    pub(super) fn shown_policies(&self) -> Vec<ClientPolicy> {
        self.catalogue.policies().rev().map(|held| self.policies.shown(held)).collect()
    }

    /// Returns how many devices are to follow a later policy than they do.
    pub(crate) fn devices_behind(&self) -> u64 {
        self.policies.behind()
    }
}

/// Over how long so many devices ask for what is imported: at once where they are no more than may ask in a second.
fn spread(devices: u64, per_second: u32) -> Duration {
    let per_second = u64::from(per_second.max(1));
    if devices <= per_second {
        return Duration::ZERO;
    }
    Duration::from_millis(devices.saturating_mul(1_000) / per_second)
}

fn too_many() -> EngineError {
    EngineError::FailedPrecondition(format!(
        "{POLICIES_MAX} policies are held, each for some of the devices; import one without an audience, which supersedes \
         those before it, then this one with a higher serial"
    ))
}
