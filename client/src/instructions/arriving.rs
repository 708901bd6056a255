//! Orders that arrive: known or new, complete or waiting for a document, admitted or refused.

use std::collections::BTreeSet;
use std::time::Instant;

use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::ids::{Digest, InstructionId};
use muster_proto::session::v1::{InclusionProof, Result as InstructionResult};

use super::admission::Claimed;
use super::lists::Unopened;
use super::slots::Waiting;
use super::{Admission, Effect, Instructions, Now, Opened, Refused, Signed, outcome};
use crate::store::{Entry, JournalState, Recalled};

/// An order that cannot be judged yet.
#[derive(Debug)]
pub(super) struct Arriving {
    opened: Opened,
    entry: Entry,
    definition: Option<Vec<u8>>,
    pub(super) deadline: Instant,
    asked: Asked,
    /// The state of the CRLs by which it was refused for want of one; another is waited for, until the deadline.
    lacked: Option<u64>,
}

impl Arriving {
    pub(super) fn instruction(&self) -> InstructionId {
        self.entry.instruction
    }
}

/// Whether an order could be opened by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// It was taken for what it is, or refused.
    Decided,
    /// It waits for a CRL.
    Waits,
}

/// How often the definition of an order may have been asked for: a request can get lost where a queue was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Once,
    Twice,
}

impl<A: Admission> Instructions<A> {
    /// An order came.
    pub(crate) fn handle_order(&mut self, envelope: &[u8], proof: Option<InclusionProof>, now: Now) {
        self.open(envelope, proof, now.instant + self.limits.document, now);
    }

    /// Opens an order; what lacks only a CRL waits for it until the deadline, and may be a stop that was announced.
    pub(super) fn open(
        &mut self,
        envelope: &[u8],
        proof: Option<InclusionProof>,
        deadline: Instant,
        now: Now,
    ) {
        if self.open_now(envelope, proof, deadline, now) == Opening::Decided {
            self.handle_expected(now);
        }
    }

    fn open_now(
        &mut self,
        envelope: &[u8],
        proof: Option<InclusionProof>,
        deadline: Instant,
        now: Now,
    ) -> Opening {
        let order_digest = muster_signing::envelope::digest(envelope);
        let opened = match self.admission.open(envelope, now.wall_ms) {
            Ok(Signed::Order(opened)) => *opened,
            Ok(Signed::Stop(stop)) => {
                self.handle_stop(&stop, order_digest, now);
                return Opening::Decided;
            }
            Err(refused) if refused.lacks_only_a_crl && deadline > now.instant && self.has_room() => {
                if self.unopened.iter().all(|unopened| unopened.order_digest != order_digest) {
                    tracing::warn!(%order_digest, detail = refused.detail, "an order waits for a CRL");
                    let envelope = envelope.to_vec();
                    self.unopened.push(Unopened { order_digest, envelope, proof, deadline });
                }
                return Opening::Waits;
            }
            Err(refused) => {
                let holds = |wall_ms| self.admission.open(envelope, wall_ms).is_ok();
                let refused = self.blame_clock(refused, holds, now);
                self.refuse_unopened(envelope, order_digest, refused, now);
                return Opening::Decided;
            }
        };
        self.arrive(opened, order_digest, (envelope, proof), now);
        Opening::Decided
    }

    /// An order that can be read waits for what it names.
    fn arrive(
        &mut self,
        opened: Opened,
        order_digest: Digest,
        (envelope, proof): (&[u8], Option<InclusionProof>),
        now: Now,
    ) {
        let instruction = opened.instruction;
        let entry = Entry {
            instruction,
            order_digest,
            definition: opened.definition,
            expires_at_ms: opened.expires_at_ms,
            envelope: envelope.to_vec(),
            proof,
        };
        if let Some(other) = self.arriving.iter().find(|arriving| arriving.entry.instruction == instruction) {
            if other.entry.order_digest != order_digest {
                self.refuse_replay(&entry, now);
            }
            return;
        }
        if !self.has_room() {
            return self.refuse_for_room(entry, now);
        }
        let definition = opened.definition;
        let deadline = now.instant + self.limits.document;
        self.arriving.push(Arriving {
            opened,
            entry,
            definition: None,
            deadline,
            asked: Asked::Once,
            lacked: None,
        });
        self.effects.push_back(Effect::Recall { instruction, order_digest, definition });
    }

    /// Whether another order may wait for something.
    fn has_room(&self) -> bool {
        self.arriving.len() + self.unopened.len() < self.limits.queued
    }

    /// The store was asked.
    pub(crate) fn handle_recalled(
        &mut self,
        instruction: InstructionId,
        recalled: Option<Recalled>,
        definition: Option<Vec<u8>>,
        now: Now,
    ) {
        let Some(at) = self.arriving.iter().position(|arriving| arriving.entry.instruction == instruction)
        else {
            return;
        };
        if let Some(recalled) = recalled {
            let arriving = self.arriving.remove(at);
            if recalled.order_digest != arriving.entry.order_digest {
                return self.refuse_replay(&arriving.entry, now);
            }
            let state = match recalled.state {
                JournalState::Started => TargetState::Running,
                JournalState::Intent | JournalState::Done => TargetState::Acked,
            };
            self.effects.push_back(Effect::SendProgress { instruction, state });
            return;
        }
        if instruction.made_at_ms() <= self.memory.restored_at_ms {
            let entry = self.arriving.remove(at).entry;
            let result = outcome::restored(instruction, now.wall_ms);
            return self.refuse(entry.order_digest, Some(entry), result);
        }
        if definition.is_none() {
            self.effects.push_back(Effect::AskDefinition { digest: self.arriving[at].opened.definition });
        }
        self.arriving[at].definition = definition;
        self.judge(now);
    }

    /// The Switch sent a definition. Empty: it does not have it.
    pub(crate) fn handle_definition(&mut self, digest: Digest, envelope: &[u8], now: Now) {
        let wanted = self
            .arriving
            .iter()
            .any(|arriving| arriving.opened.definition == digest && arriving.definition.is_none());
        if !wanted {
            return;
        }
        if muster_signing::envelope::digest(envelope) != digest {
            let detail = if envelope.is_empty() {
                "the Switch does not have the definition that the order names; import it again".to_owned()
            } else {
                "the Switch sent another definition than the one that the order names".to_owned()
            };
            return self.refuse_undefined(digest, &detail, now);
        }
        self.effects.push_back(Effect::KeepDefinition { digest, envelope: envelope.to_vec() });
        for arriving in self.arriving.iter_mut().filter(|arriving| arriving.opened.definition == digest) {
            arriving.definition = Some(envelope.to_vec());
        }
        self.judge(now);
    }

    /// The session ended. What was not acked will be sent again.
    pub(crate) fn handle_disconnected(&mut self) {
        self.unopened.clear();
        self.arriving.clear();
        self.licence_asked = None;
        self.licence_superseded = false;
        self.licence_wanted = None;
        self.licence_waiting = None;
        self.licence_refused = None;
        self.handle_parted();
    }

    /// A deadline may have passed.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        self.floor.at(now);
        self.handle_download_timeout(now);
        self.handle_licence_timeout(now);
        let mut again = BTreeSet::new();
        let mut late = BTreeSet::new();
        for arriving in &mut self.arriving {
            if arriving.deadline > now.instant || arriving.definition.is_some() {
                continue;
            }
            match arriving.asked {
                Asked::Once => {
                    again.insert(arriving.opened.definition);
                    arriving.asked = Asked::Twice;
                    arriving.deadline = now.instant + self.limits.document;
                }
                Asked::Twice => {
                    late.insert(arriving.opened.definition);
                }
            }
        }
        for &digest in again.difference(&late) {
            self.effects.push_back(Effect::AskDefinition { digest });
        }
        for digest in late {
            self.refuse_undefined(
                digest,
                "the Switch did not send the definition that the order names in time",
                now,
            );
        }
        if self.arriving.iter().any(|arriving| arriving.deadline <= now.instant) {
            // What still waits has its definition and waits for a licence that does not come: it is judged without.
            self.licence_asked = None;
        }
        self.handle_lists_timeout(now);
        self.judge(now);
        self.handle_hold_timeout(now);
        self.advance(now);
    }

    /// Judges every order that has all its documents.
    pub(super) fn judge(&mut self, now: Now) {
        let mut at = 0;
        while at < self.arriving.len() {
            let arriving = &self.arriving[at];
            let held = self.licence.as_ref().map_or(0, |licence| licence.serial);
            let in_time = arriving.deadline > now.instant;
            let is_needed = held < arriving.opened.licence_serial || held == 0;
            // One that is asked for may take away what the held one allows (G1), whichever the order names.
            let licence_comes = self.licence_asked.is_some() && in_time
                || (self.licence_waiting.is_some() || self.licence_superseded) && in_time && is_needed;
            let list_comes = in_time && arriving.lacked == Some(self.lists);
            if arriving.definition.is_none() || licence_comes || list_comes {
                at += 1;
                continue;
            }
            let arriving = self.arriving.remove(at);
            self.admit(arriving, now);
        }
        self.advance(now);
    }

    fn admit(&mut self, mut arriving: Arriving, now: Now) {
        let document = arriving.definition.as_deref().unwrap_or_default();
        let admitted = self.verify(&arriving.opened, document, &arriving.entry, now);
        if let Err(refused) = &admitted
            && refused.lacks_only_a_crl
        {
            // What it waited for until now was a document.
            if arriving.lacked.is_none() {
                arriving.deadline = now.instant + self.limits.document;
            }
            if arriving.deadline > now.instant {
                if arriving.lacked.is_none() {
                    tracing::warn!(instruction = %arriving.entry.instruction, detail = refused.detail, "an order waits for a CRL");
                }
                arriving.lacked = Some(self.lists);
                return self.arriving.push(arriving);
            }
        }
        let Arriving { entry, definition, .. } = arriving;
        let definition = definition.unwrap_or_default();
        match admitted {
            Ok(plan) if self.waiting.len() >= self.limits.queued => {
                self.see(&plan.name, &plan.version);
                self.refuse_for_room(entry, now);
            }
            Ok(plan) => {
                self.memory.remember(&plan.name, &plan.version);
                let floor_ms = self.floor.raise(entry.expires_at_ms, now);
                let instruction = entry.instruction;
                self.effects.push_back(Effect::RecordIntent {
                    entry: entry.clone(),
                    name: plan.name.clone(),
                    version: plan.version.clone(),
                    floor_ms,
                });
                self.effects.push_back(Effect::SendProgress { instruction, state: TargetState::Acked });
                let verified = Some((now.instant, plan));
                self.waiting.push_back(Waiting::new(entry, definition, verified));
            }
            Err(refused) => {
                // What its author, the licence and an operator vouch for was seen, whatever else is wrong with this order of it.
                if let Some(seen) = &refused.seen {
                    self.see(&seen.name, &seen.version);
                }
                let result = outcome::refused(entry.instruction, &refused, now.wall_ms);
                let order_digest = entry.order_digest;
                // With the approvals that it lacks, the same order is to run: the journal would keep it out.
                let entry = (refused.refusal != Refusal::Unapproved).then_some(entry);
                self.refuse(order_digest, entry, result);
            }
        }
    }

    /// Remembers a version of an order that is not taken on.
    fn see(&mut self, name: &str, version: &semver::Version) {
        if self.memory.remember(name, version) {
            let (name, version) = (name.to_owned(), version.clone());
            self.effects.push_back(Effect::KeepVersion { name, version });
        }
    }

    /// The Switch told its time, milliseconds since 1970.
    pub(crate) fn handle_switch_time(&mut self, switch_ms: i64, now: Now) {
        self.floor.tell_switch(switch_ms, now);
    }

    /// Refuses for the clock what is wrong by it alone: what `holds` at the time that contradicts it.
    pub(super) fn blame_clock(&self, refused: Refused, holds: impl FnOnce(i64) -> bool, now: Now) -> Refused {
        // A certificate or licence out of its time, or a signature of the future.
        let may_be = matches!(
            refused.refusal,
            Refusal::UntrustedSigner | Refusal::BadSignature | Refusal::LicenceStale
        );
        match self.floor.contradiction(now) {
            Some(other) if may_be && holds(other.ms) => {
                let detail = format!("{} (by this clock: {})", other.advice(now.wall_ms), refused.detail);
                Refused::new(Refusal::Clock, detail)
            }
            Some(_) | None => refused,
        }
    }

    fn refuse(&mut self, order_digest: Digest, entry: Option<Entry>, result: InstructionResult) {
        let (entry, result) = (entry.map(Box::new), Box::new(result));
        self.effects.push_back(Effect::RecordRefusal { order_digest, entry, result });
    }

    /// An order that does not verify says nothing that counts, not even its own id: the journal is left alone, or it
    /// could be used to keep the real order of that id out.
    fn refuse_unopened(&mut self, envelope: &[u8], order_digest: Digest, refused: Refused, now: Now) {
        match self.admission.claimed(envelope) {
            Some(Claimed::Stop(stopped)) => self.refuse_stop(stopped, order_digest, refused),
            Some(Claimed::Order(instruction)) => {
                let result = outcome::refused(instruction, &refused, now.wall_ms);
                self.refuse(order_digest, None, result);
            }
            None => self.effects.push_back(Effect::ReportUnreadable { order_digest, refused }),
        }
    }

    fn refuse_replay(&mut self, entry: &Entry, now: Now) {
        let detail = "this device has seen the instruction before, under another order".to_owned();
        let refused = Refused::new(Refusal::Replayed, detail);
        self.refuse(entry.order_digest, None, outcome::refused(entry.instruction, &refused, now.wall_ms));
    }

    fn refuse_for_room(&mut self, entry: Entry, now: Now) {
        let detail =
            format!("{} instructions wait on this device already; issue it again later", self.limits.queued);
        let result = outcome::failed(entry.instruction, &detail, 0, now.wall_ms);
        self.refuse(entry.order_digest, Some(entry), result);
    }

    fn refuse_undefined(&mut self, digest: Digest, detail: &str, now: Now) {
        let (undefined, kept) =
            std::mem::take(&mut self.arriving).into_iter().partition::<Vec<_>, _>(|arriving| {
                arriving.opened.definition == digest && arriving.definition.is_none()
            });
        self.arriving = kept;
        for Arriving { entry, .. } in undefined {
            let refused = Refused::new(Refusal::WrongDefinition, detail.to_owned());
            let result = outcome::refused(entry.instruction, &refused, now.wall_ms);
            self.refuse(entry.order_digest, Some(entry), result);
        }
    }
}
