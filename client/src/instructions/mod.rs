//! What becomes of an order: verified, taken on, started at most once, answered exactly once.
//!
//! [`Instructions`] decides and has no clock, disk or socket: `handle_*` tells it what happened, [`Instructions::poll_effect`]
//! says what to do next. The order of the effects is the promise: what must be on disk comes before what tells of it, and
//! the shell ([`shell`]) carries them out one by one. Dying between any two of them breaks no promise.
//!
//! ```text
//! order → verified → known? ── same bytes ──→ acked again
//!                      │   └── other bytes ─→ REPLAYED
//!                      ├ definition missing → asked for
//!                      └ admitted → RecordIntent → ACKED → waits for a slot → resources
//!                        → RecordStart → RUNNING → Run → RecordResult
//! ```

mod admission;
mod floor;
mod outcome;
pub(crate) mod shell;
mod signed;
mod trust;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use muster_endpoint::{Answer, QueryError};
use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::ids::{Digest, InstructionId};
use muster_proto::session::v1::{InclusionProof, Result as InstructionResult};

pub(crate) use admission::{Admission, Memory, Opened, Plan, PlanResource, Refused};
pub(crate) use floor::TimeFloor;
pub(crate) use signed::SignedAdmission;
pub(crate) use trust::SigningFiles;
pub use trust::TrustError;
pub(crate) use work::Work;

use crate::store::{Entry, JournalState, Recalled};

/// How old the verification of an instruction may be when it starts; an older one is made again (signing.md G8: "at the
/// time of running").
const VERIFIED_FOR: Duration = Duration::from_secs(1);

/// What the shell does next. It may not do the following one before this one is done.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Look an instruction, its order and a definition up, and answer with [`Instructions::handle_recalled`].
    Recall { instruction: InstructionId, order_digest: Digest, definition: Digest },
    /// Ask the Switch for a definition.
    AskDefinition { digest: Digest },
    /// Ask the Switch for a licence.
    AskLicence { digest: Digest },
    /// Put a definition on disk.
    KeepDefinition { digest: Digest, envelope: Vec<u8> },
    /// Put a licence on disk.
    KeepLicence { envelope: Vec<u8>, serial: u64 },
    /// Put the intent on disk, and with it the version that was seen.
    RecordIntent { entry: Entry, name: String, version: semver::Version },
    /// Tell the Switch, if there is a session.
    SendProgress { instruction: InstructionId, state: TargetState },
    /// Get what the instruction needs before its window ends, and answer with [`Instructions::handle_fetched`].
    Fetch { instruction: InstructionId, plan: Box<Plan>, expires_at_ms: i64 },
    /// Put the start on disk.
    RecordStart { instruction: InstructionId, at_ms: i64 },
    /// Run it, and answer with [`Instructions::handle_finished`].
    Run { instruction: InstructionId, plan: Box<Plan>, resources: Vec<(String, PathBuf)> },
    /// Put the result into the outbox and the end into the journal.
    RecordResult { result: Box<InstructionResult> },
    /// Put the answer to an order that is not taken on into the outbox, unless the same order was answered before.
    RecordRefusal { order_digest: Digest, entry: Option<Box<Entry>>, result: Box<InstructionResult> },
    /// Report an order whose instruction is unknown, since it cannot be read.
    ReportUnreadable { order_digest: Digest, refused: Refused },
}

/// Bounds of the machine.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Slots.
    pub(crate) parallel: usize,
    /// Instructions that wait, and orders that wait for a document.
    pub(crate) queued: usize,
    /// How long a document may take.
    pub(crate) document: Duration,
}

/// The licence held.
#[derive(Debug, Clone)]
pub(crate) struct HeldLicence {
    /// Its envelope.
    pub(crate) envelope: Vec<u8>,
    /// SHA-256 of the envelope.
    pub(crate) digest: Digest,
    /// Its serial.
    pub(crate) serial: u64,
}

/// An order that cannot be judged yet.
#[derive(Debug)]
struct Arriving {
    opened: Opened,
    entry: Entry,
    definition: Option<Vec<u8>>,
    deadline: Instant,
    asked: Asked,
}

/// How often the definition of an order may have been asked for: a request can get lost where a queue was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Once,
    Twice,
}

/// An instruction whose intent is on disk.
#[derive(Debug)]
struct Waiting {
    entry: Entry,
    definition: Vec<u8>,
    verified: Option<(Instant, Plan)>,
}

/// The time, both ways: the monotonic clock for deadlines, the wall clock for windows and certificates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Monotonic.
    pub(crate) instant: Instant,
    /// Milliseconds since 1970.
    pub(crate) wall_ms: i64,
}

/// The state of every instruction that is not ended.
#[derive(Debug)]
pub(crate) struct Instructions<A> {
    admission: A,
    limits: Limits,
    licence: Option<HeldLicence>,
    /// The highest licence serial ever held.
    licence_serial: u64,
    /// A licence that was asked for.
    licence_asked: Option<Digest>,
    memory: Memory,
    arriving: Vec<Arriving>,
    waiting: VecDeque<Waiting>,
    fetching: BTreeMap<InstructionId, Waiting>,
    running: BTreeMap<InstructionId, Started>,
    effects: VecDeque<Effect>,
}

#[derive(Debug)]
struct Started {
    at_ms: i64,
    plan: Plan,
}

impl<A: Admission> Instructions<A> {
    /// Makes the machine from what the store remembers.
    pub(crate) fn new(
        admission: A,
        limits: Limits,
        licence: Option<HeldLicence>,
        licence_serial: u64,
        memory: Memory,
    ) -> Self {
        Self {
            admission,
            limits,
            licence,
            licence_serial,
            licence_asked: None,
            memory,
            arriving: Vec::new(),
            waiting: VecDeque::new(),
            fetching: BTreeMap::new(),
            running: BTreeMap::new(),
            effects: VecDeque::new(),
        }
    }

    /// Returns what to do next.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Returns when [`Self::handle_timeout`] should next be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.arriving.iter().map(|arriving| arriving.deadline).min()
    }

    /// Reads again what signatures are judged by.
    pub(crate) fn refresh(&self) {
        self.admission.refresh();
    }

    /// Returns how many wait and how many run.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.waiting.len() + self.fetching.len(), self.running.len())
    }

    /// Returns the licence held.
    pub(crate) fn licence(&self) -> Option<&HeldLicence> {
        self.licence.as_ref()
    }

    /// Takes back an instruction that was taken on before a restart and never started.
    pub(crate) fn handle_recovered(&mut self, entry: Entry, definition: Option<Vec<u8>>, now: Now) {
        match definition {
            Some(definition) => self.waiting.push_back(Waiting { entry, definition, verified: None }),
            None => {
                let detail = "its definition is no longer in this device's store; issue it again".to_owned();
                let refused = Refused { refusal: Refusal::WrongDefinition, detail };
                self.end(outcome::refused(entry.instruction, &refused, now.wall_ms));
            }
        }
        self.advance(now);
    }

    /// An order came.
    pub(crate) fn handle_order(&mut self, envelope: &[u8], proof: Option<InclusionProof>, now: Now) {
        let order_digest = muster_signing::envelope::digest(envelope);
        let opened = match self.admission.open(envelope, now.wall_ms) {
            Ok(opened) => opened,
            Err(refused) => return self.refuse_unopened(envelope, order_digest, refused, now),
        };
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
        if self.arriving.len() >= self.limits.queued {
            return self.refuse_for_room(entry, now);
        }
        let definition = opened.definition;
        let deadline = now.instant + self.limits.document;
        self.arriving.push(Arriving { opened, entry, definition: None, deadline, asked: Asked::Once });
        self.effects.push_back(Effect::Recall { instruction, order_digest, definition });
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

    /// The Switch told which licence it holds.
    pub(crate) fn handle_licence_notice(&mut self, digest: Digest) {
        let held = self.licence.as_ref().is_some_and(|licence| licence.digest == digest);
        if !held && self.licence_asked != Some(digest) {
            self.licence_asked = Some(digest);
            self.effects.push_back(Effect::AskLicence { digest });
        }
    }

    /// The Switch sent a licence. One that does not verify, or is older than the one held, changes nothing.
    pub(crate) fn handle_licence(&mut self, digest: Digest, envelope: &[u8], now: Now) {
        if self.licence_asked != Some(digest) {
            return;
        }
        self.licence_asked = None;
        if muster_signing::envelope::digest(envelope) == digest {
            match self.admission.licence(envelope, now.wall_ms) {
                Ok(serial) if serial >= self.licence_serial => {
                    self.licence_serial = serial;
                    self.licence = Some(HeldLicence { envelope: envelope.to_vec(), digest, serial });
                    self.effects.push_back(Effect::KeepLicence { envelope: envelope.to_vec(), serial });
                }
                Ok(serial) => {
                    tracing::warn!(
                        serial,
                        held = self.licence_serial,
                        "the Switch sent an older licence; it is not taken"
                    );
                }
                Err(refused) => {
                    tracing::warn!(detail = refused.detail, "the Switch sent a licence that does not hold")
                }
            }
        } else {
            tracing::warn!(%digest, "the Switch sent another licence than the one asked for, or none");
        }
        self.judge(now);
    }

    /// The session ended. What was not acked will be sent again.
    pub(crate) fn handle_disconnected(&mut self) {
        self.arriving.clear();
        self.licence_asked = None;
    }

    /// The client stops: nothing starts any more, what runs may end.
    pub(crate) fn handle_stopping(&mut self) {
        self.limits.parallel = 0;
    }

    /// What an instruction needs is here, or cannot be had.
    pub(crate) fn handle_fetched(
        &mut self,
        instruction: InstructionId,
        fetched: Result<Vec<(String, PathBuf)>, String>,
        now: Now,
    ) {
        let Some(waiting) = self.fetching.remove(&instruction) else { return };
        match fetched {
            _ if now.wall_ms >= waiting.entry.expires_at_ms => {
                self.end(outcome::expired(instruction, now.wall_ms));
            }
            // A download may take hours, so everything is verified again.
            Ok(resources) => match self.verify_again(&waiting, now) {
                Ok(plan) => self.start(instruction, plan, resources, now),
                Err(refused) => self.end(outcome::refused(instruction, &refused, now.wall_ms)),
            },
            Err(detail) => {
                let refused = Refused { refusal: Refusal::Resource, detail };
                self.end(outcome::refused(instruction, &refused, now.wall_ms));
            }
        }
        self.advance(now);
    }

    /// It ran.
    pub(crate) fn handle_finished(
        &mut self,
        instruction: InstructionId,
        answer: Result<Answer, QueryError>,
        now: Now,
    ) {
        let Some(started) = self.running.remove(&instruction) else { return };
        let result = outcome::finished(instruction, &started.plan, answer, started.at_ms, now.wall_ms);
        self.end(result);
        self.advance(now);
    }

    /// Its task broke: it has ended, and its slot is free.
    pub(crate) fn handle_broken(&mut self, instruction: InstructionId, detail: &str, now: Now) {
        let started_at_ms = match self.running.remove(&instruction) {
            Some(started) => started.at_ms,
            None if self.fetching.remove(&instruction).is_some() => 0,
            None => return,
        };
        self.end(outcome::failed(instruction, detail, started_at_ms, now.wall_ms));
        self.advance(now);
    }

    /// A deadline may have passed.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
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
        self.judge(now);
        self.advance(now);
    }

    /// Judges every order that has all its documents.
    fn judge(&mut self, now: Now) {
        let mut at = 0;
        while at < self.arriving.len() {
            let arriving = &self.arriving[at];
            let held = self.licence.as_ref().map_or(0, |licence| licence.serial);
            let licence_comes =
                self.licence_asked.is_some() && (held < arriving.opened.licence_serial || held == 0);
            if arriving.definition.is_none() || licence_comes {
                at += 1;
                continue;
            }
            let arriving = self.arriving.remove(at);
            self.admit(arriving, now);
        }
        self.advance(now);
    }

    fn admit(&mut self, arriving: Arriving, now: Now) {
        let Arriving { opened, entry, definition, .. } = arriving;
        let definition = definition.unwrap_or_default();
        let admitted = self.verify(&opened, &definition, &entry, now);
        match admitted {
            Ok(_) if self.waiting.len() >= self.limits.queued => self.refuse_for_room(entry, now),
            Ok(plan) => {
                self.memory.remember(&plan, now.wall_ms);
                let instruction = entry.instruction;
                self.effects.push_back(Effect::RecordIntent {
                    entry: entry.clone(),
                    name: plan.name.clone(),
                    version: plan.version.clone(),
                });
                self.effects.push_back(Effect::SendProgress { instruction, state: TargetState::Acked });
                self.waiting.push_back(Waiting { entry, definition, verified: Some((now.instant, plan)) });
            }
            Err(refused) => {
                let result = outcome::refused(entry.instruction, &refused, now.wall_ms);
                self.refuse(entry.order_digest, Some(entry), result);
            }
        }
    }

    fn verify(&self, opened: &Opened, definition: &[u8], entry: &Entry, now: Now) -> Result<Plan, Refused> {
        let Some(licence) = &self.licence else {
            let detail = "this device holds no licence; import one at the Switch".to_owned();
            return Err(Refused { refusal: Refusal::Unlicensed, detail });
        };
        self.admission.admit(
            opened,
            definition,
            &licence.envelope,
            entry.proof.as_ref(),
            &self.memory,
            now.wall_ms,
        )
    }

    fn verify_again(&self, waiting: &Waiting, now: Now) -> Result<Plan, Refused> {
        let opened = self.admission.open(&waiting.entry.envelope, now.wall_ms)?;
        self.verify(&opened, &waiting.definition, &waiting.entry, now)
    }

    /// Fills the slots.
    fn advance(&mut self, now: Now) {
        while self.running.len() + self.fetching.len() < self.limits.parallel {
            let Some(mut waiting) = self.waiting.pop_front() else { return };
            let instruction = waiting.entry.instruction;
            if now.wall_ms >= waiting.entry.expires_at_ms {
                self.end(outcome::expired(instruction, now.wall_ms));
                continue;
            }
            let fresh =
                waiting.verified.take().filter(|(at, _)| now.instant.duration_since(*at) <= VERIFIED_FOR);
            let plan = match fresh {
                Some((_, plan)) => Ok(plan),
                None => self.verify_again(&waiting, now),
            };
            match plan {
                Err(refused) => self.end(outcome::refused(instruction, &refused, now.wall_ms)),
                Ok(plan) if plan.resources.is_empty() => self.start(instruction, plan, Vec::new(), now),
                Ok(plan) => {
                    let expires_at_ms = waiting.entry.expires_at_ms;
                    self.effects.push_back(Effect::Fetch {
                        instruction,
                        plan: Box::new(plan),
                        expires_at_ms,
                    });
                    self.fetching.insert(instruction, waiting);
                }
            }
        }
    }

    /// The only place that starts anything: the mark is on disk first.
    fn start(&mut self, instruction: InstructionId, plan: Plan, resources: Vec<(String, PathBuf)>, now: Now) {
        let at_ms = now.wall_ms;
        self.effects.push_back(Effect::RecordStart { instruction, at_ms });
        self.effects.push_back(Effect::SendProgress { instruction, state: TargetState::Running });
        self.effects.push_back(Effect::Run { instruction, plan: Box::new(plan.clone()), resources });
        self.running.insert(instruction, Started { at_ms, plan });
    }

    fn end(&mut self, result: InstructionResult) {
        self.effects.push_back(Effect::RecordResult { result: Box::new(result) });
    }

    fn refuse(&mut self, order_digest: Digest, entry: Option<Entry>, result: InstructionResult) {
        let (entry, result) = (entry.map(Box::new), Box::new(result));
        self.effects.push_back(Effect::RecordRefusal { order_digest, entry, result });
    }

    /// An order that does not verify says nothing that counts, not even its own id: the journal is left alone, or it
    /// could be used to keep the real order of that id out.
    fn refuse_unopened(&mut self, envelope: &[u8], order_digest: Digest, refused: Refused, now: Now) {
        match self.admission.claimed_instruction(envelope) {
            Some(instruction) => {
                let result = outcome::refused(instruction, &refused, now.wall_ms);
                self.refuse(order_digest, None, result);
            }
            None => self.effects.push_back(Effect::ReportUnreadable { order_digest, refused }),
        }
    }

    fn refuse_replay(&mut self, entry: &Entry, now: Now) {
        let detail = "this device has seen the instruction before, under another order".to_owned();
        let refused = Refused { refusal: Refusal::Replayed, detail };
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
            let refused = Refused { refusal: Refusal::WrongDefinition, detail: detail.to_owned() };
            let result = outcome::refused(entry.instruction, &refused, now.wall_ms);
            self.refuse(entry.order_digest, Some(entry), result);
        }
    }
}

#[cfg(test)]
mod tests;
