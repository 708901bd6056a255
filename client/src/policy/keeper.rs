//! Which policy is followed (K1, K3, K4): pure. Policies, sessions and moments go in, what changes comes out.
//!
//! A policy that changes where or whom the client connects to is tried first: the old one is followed on, and returns for
//! good if no session came about under the new one in time. The serial never goes back: what was tried in vain is not
//! tried again, only a later policy is, or the same one when somebody on this machine says so.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_proto::common::v1::Value;
use muster_proto::ids::Digest;
use muster_signing::envelope;
use muster_signing::policy::{Policy, Terms};

/// How long a policy is tried unless the configuration says otherwise (K4).
pub(crate) const TRIAL: Duration = Duration::from_secs(300);

/// A verified policy, and the envelope that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// As its administrators signed it.
    pub(crate) envelope: Vec<u8>,
    /// What they signed.
    pub(crate) policy: Policy,
}

/// What is left of the policy that is followed where it cannot be read: nobody knows what it grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// Its envelope, where it is there.
    pub(crate) envelope: Option<Vec<u8>>,
    /// Why it cannot be read.
    pub(crate) problem: String,
}

/// A policy that has still to show that it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trial {
    /// The policy.
    pub(crate) kept: Kept,
    /// When it ends without a session, milliseconds since 1970.
    pub(crate) until_ms: i64,
}

/// What is kept over a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Memory {
    /// The policy that is followed; none: as installed.
    pub(crate) current: Option<Kept>,
    /// One is followed and cannot be read; `current` is none then.
    pub(crate) unreadable: Option<Unreadable>,
    /// The policy that is tried beside it.
    pub(crate) trial: Option<Trial>,
    /// The highest serial that was ever taken.
    pub(crate) highest_serial: u64,
    /// The policy of that serial, where it was tried in vain.
    pub(crate) rolled_back: Option<Digest>,
}

/// What became of a policy that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is followed from now on: it changes nothing that a session depends on.
    Adopted,
    /// It is tried from now on.
    Tried,
    /// It is the one that is followed, or tried.
    Held,
    /// It is not for this device.
    NotOurs,
    /// A later one was taken before, or this very one was tried in vain.
    Older {
        /// The highest serial that was taken.
        highest: u64,
    },
}

/// A trial that ended without a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RolledBack {
    /// The policy that was tried.
    pub(crate) serial: u64,
    /// The policy that is followed again; 0: as installed.
    pub(crate) back_to: u64,
}

/// Keeps the policies of one device.
#[derive(Debug)]
pub(crate) struct Keeper {
    tenant: String,
    attributes: BTreeMap<String, Value>,
    trial: Duration,
    memory: Memory,
    /// Somebody on this machine has what was tried in vain tried once more.
    is_retried: bool,
}

impl Keeper {
    /// Goes on where `memory` ends. A trial goes on as well, for no longer than a whole one: the clock may have been set.
    pub(crate) fn new(
        tenant: &str,
        attributes: BTreeMap<String, Value>,
        trial: Duration,
        mut memory: Memory,
        now_ms: i64,
    ) -> Self {
        if let Some(running) = &mut memory.trial {
            running.until_ms = running.until_ms.min(trial_end(now_ms, trial));
        }
        let serials = [memory.current.as_ref(), memory.trial.as_ref().map(|trial| &trial.kept)];
        let held = serials.into_iter().flatten().map(|kept| kept.policy.serial()).max();
        memory.highest_serial = memory.highest_serial.max(held.unwrap_or(0));
        if held == Some(memory.highest_serial) {
            memory.rolled_back = None;
        }
        Self { tenant: tenant.to_owned(), attributes, trial, memory, is_retried: false }
    }

    /// Tells what audiences are matched with, once it is known; without it no policy is for this device.
    pub(crate) fn know(&mut self, attributes: BTreeMap<String, Value>) {
        self.attributes = attributes;
    }

    /// Returns what is to be kept over a restart.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Returns the serial of the policy that is followed; 0: as installed.
    pub(crate) fn serial(&self) -> u64 {
        serial(self.memory.current.as_ref())
    }

    /// Returns the policy that is followed.
    pub(crate) fn current(&self) -> Option<&Kept> {
        self.memory.current.as_ref()
    }

    /// Returns why the policy that is followed cannot be read.
    pub(crate) fn unreadable(&self) -> Option<&str> {
        self.memory.unreadable.as_ref().map(|unreadable| unreadable.problem.as_str())
    }

    /// Returns the policy that is tried.
    pub(crate) fn trial(&self) -> Option<&Trial> {
        self.memory.trial.as_ref()
    }

    /// A verified policy came, from the Switch or from a file.
    pub(crate) fn handle_policy(&mut self, kept: Kept, now_ms: i64) -> Verdict {
        let offered = kept.policy.serial();
        if !kept.policy.is_for(&self.tenant, &self.attributes) {
            return Verdict::NotOurs;
        }
        let held = [self.memory.current.as_ref(), self.memory.trial.as_ref().map(|trial| &trial.kept)];
        if held.into_iter().flatten().any(|held| held.policy.serial() == offered) {
            return Verdict::Held;
        }
        let highest = self.memory.highest_serial;
        let is_again = offered == highest && self.may_return(&kept);
        if offered <= highest && !is_again {
            return Verdict::Older { highest };
        }
        self.memory.highest_serial = offered;
        self.memory.rolled_back = None;
        // What is tried counts for nothing: it has not shown yet that it connects.
        let followed = self.memory.current.as_ref().map(|current| current.policy.terms());
        if connects_alike(followed, kept.policy.terms()) {
            self.memory.trial = None;
            self.memory.unreadable = None;
            self.memory.current = Some(kept);
            return Verdict::Adopted;
        }
        self.memory.trial = Some(Trial { kept, until_ms: trial_end(now_ms, self.trial) });
        Verdict::Tried
    }

    /// Whether the policy of the highest serial, which is neither followed nor tried, may be taken once more: its record was
    /// damaged, or it was tried in vain and somebody says so.
    fn may_return(&self, kept: &Kept) -> bool {
        match self.memory.rolled_back {
            Some(rolled_back) => self.is_retried && rolled_back == envelope::digest(&kept.envelope),
            None => true,
        }
    }

    /// There is a session under the policy of this serial. Returns whether it is followed only from now on.
    pub(crate) fn handle_session(&mut self, serial: u64) -> bool {
        match self.memory.trial.take_if(|trial| trial.kept.policy.serial() == serial) {
            Some(trial) => {
                self.memory.unreadable = None;
                self.memory.current = Some(trial.kept);
                true
            }
            None => false,
        }
    }

    /// Time has passed: a trial may be over.
    pub(crate) fn handle_time(&mut self, now_ms: i64) -> Option<RolledBack> {
        let over = self.memory.trial.take_if(|trial| now_ms >= trial.until_ms)?;
        self.memory.rolled_back = Some(envelope::digest(&over.kept.envelope));
        self.is_retried = false;
        Some(RolledBack { serial: over.kept.policy.serial(), back_to: self.serial() })
    }

    /// Somebody on this machine wants what was tried in vain to be tried once more, when it is offered again.
    pub(crate) fn handle_retry(&mut self) {
        self.is_retried = true;
    }

    /// Returns the serial of the policy that was tried in vain; 0: none since the last that was taken.
    pub(crate) fn rolled_back(&self) -> u64 {
        self.memory.rolled_back.map_or(0, |_| self.memory.highest_serial)
    }
}

fn serial(kept: Option<&Kept>) -> u64 {
    kept.map_or(0, |kept| kept.policy.serial())
}

fn trial_end(now_ms: i64, trial: Duration) -> i64 {
    now_ms.saturating_add(i64::try_from(trial.as_millis()).unwrap_or(i64::MAX))
}

/// Whether a session under the one would come about just so under the other.
fn connects_alike(followed: Option<&Terms>, offered: &Terms) -> bool {
    match followed {
        Some(followed) => {
            followed.switches == offered.switches
                && followed.background_channel == offered.background_channel
                && followed.authorities == offered.authorities
                && followed.trust == offered.trust
                && followed.selection == offered.selection
        }
        None => {
            offered.switches.is_empty()
                && offered.background_channel.is_none()
                && offered.authorities.is_empty()
                && offered.trust.is_none()
                && offered.selection.is_none()
        }
    }
}

#[cfg(test)]
mod tests;
