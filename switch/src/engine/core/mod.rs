//! Everything that is decided once, without IO: commands and the time go in, [`Output`] comes out.
//!
//! The writer thread commits [`Output::writes`] and only then lets the rest of it out. A command is refused before it
//! has changed anything; a failed commit ends the process, so nothing is ever taken back.
//!
//! `devices` has numbers and sessions, `history` what they remember, `documents` definitions and licence, `held` what is held of a signed document, `issue` preparing and submitting,
//! `ledgers` what becomes of an instruction, `intake` results and events, `outboxes` which of them
//! were seen, `blocking` devices that an operator keeps out, `parts` how much of a result may come, `late` results after an end, `removal` devices that an operator
//! takes out, `policies` what clients are to follow, `reserve` events when the disk is short, `retention` results that have been kept long enough, `presence` when devices were last seen, `submissions` which orders
//! came already, `stops` what operators end, `unauthenticated` devices without a certificate.

mod approvals;
mod blocking;
mod command;
mod devices;
mod documents;
mod held;
mod history;
mod intake;
mod issue;
mod late;
mod ledgers;
mod licensing;
mod outboxes;
mod parts;
mod policies;
mod presence;
mod removal;
mod reserve;
mod retention;
mod stops;
mod submissions;
mod twins;
mod unauthenticated;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use muster_pki::DeviceId;
use muster_proto::ids::{Digest, InstructionId};
use roaring::RoaringBitmap;

use super::clock::millis;
use super::outgoing::{Acked, To};
use super::proofs::Proofs;
use super::shared::Catalogue;
use super::store::{Late, Loaded, LoadedMarks, Mark, Received, Write};
use super::{SessionKey, ShardMessage};
pub(crate) use approvals::{ApprovalSubmission, approvals};
pub(crate) use blocking::BlockedDevices;
pub(crate) use command::{Blocking, Command, EventIn, ImportCommand, Reply, ResultIn};
pub(crate) use devices::Devices;
pub(crate) use held::{Document, Held, HeldDefinition, HeldLicence, HeldPack, HeldPolicy, Unfit};
pub(crate) use history::Ahead;
use history::History;
pub(crate) use issue::{Draft, PreparedOrder, Submission, parse_audience};
use ledgers::{Active, Entered};
pub(crate) use licensing::ImportedLicence;
use outboxes::Outboxes;
pub(crate) use outboxes::{Road, StoredOutbox};
#[cfg(test)]
pub(crate) use policies::POLICIES_MAX;
use policies::Policies;
use presence::Presence;
use reserve::Withheld;
use retention::Retention;
pub(crate) use retention::{DELETED_AT_ONCE, DELETED_BYTES_AT_ONCE};
use stops::Stops;
pub(crate) use stops::{PrepareStop, StopCommand, StopSubmission};
pub(crate) use submissions::KEPT_MS as SUBMISSIONS_KEPT_MS;
use submissions::Submissions;
pub(crate) use twins::Twinned;
use twins::Twins;
use unauthenticated::Unauthenticated;
pub(crate) use unauthenticated::UnauthenticatedLimits;

/// The state of the engine.
#[derive(Debug)]
pub(crate) struct Core {
    tenant: String,
    prepared_ttl_ms: i64,
    disk_reserve_bytes: u64,
    withheld: Withheld,
    blocked_max: usize,
    blocked: Arc<BlockedDevices>,
    devices: Devices,
    history: History,
    twins: Twins,
    sessions: HashMap<u32, SessionKey>,
    online: RoaringBitmap,
    presence: Presence,
    outboxes: Outboxes,
    /// Instructions with targets that are not terminal, by position.
    active: BTreeMap<i64, Active>,
    positions: HashMap<InstructionId, i64>,
    /// Damaged instructions: their results are still taken, their ledgers are not touched.
    set_aside: HashMap<InstructionId, Aside>,
    /// What was last recalled from the store of instructions whose targets have expired.
    late: HashMap<InstructionId, Late>,
    /// What entered a state since the last output.
    entered: BTreeMap<Entered, RoaringBitmap>,
    prepared: BTreeMap<InstructionId, PreparedOrder>,
    submissions: Submissions,
    stops: Stops,
    retention: Retention,
    /// By root; instructions for the same devices share a tree.
    trees: HashMap<[u8; 32], Weak<Proofs>>,
    policies: Policies,
    policy_asks_per_second: u32,
    unauthenticated: Unauthenticated,
    catalogue: Arc<Catalogue>,
    marks: LoadedMarks,
    stored_marks: LoadedMarks,
    out: Output,
}

/// A damaged instruction.
#[derive(Debug)]
struct Aside {
    position: i64,
    /// What devices have brought since the start.
    received: HashMap<u32, Received>,
    /// Its results have been kept long enough: what comes now has no place.
    is_deleted: bool,
}

/// What a batch of commands asks for.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// To be committed before anything else here happens.
    pub(crate) writes: Vec<Write>,
    pub(crate) acks: Vec<Acked>,
    pub(crate) messages: Vec<(To, ShardMessage)>,
    pub(crate) replies: Vec<Deferred>,
    /// Sessions that began (with their address) or ended.
    pub(crate) presence: Vec<(DeviceId, Option<SocketAddr>)>,
    /// Who is blocked, if that changed.
    pub(crate) blocked: Option<Arc<BlockedDevices>>,
    /// Definitions, licence or policies changed.
    pub(crate) catalogue: Option<Arc<Catalogue>>,
}

/// An answer that waits for the commit.
pub(crate) struct Deferred(Box<dyn FnOnce() + Send>);

/// What the core knows of the world at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Milliseconds since 1970, UTC.
    pub(crate) now_ms: i64,
    /// Free bytes where the store lies.
    pub(crate) disk_free_bytes: u64,
}

/// The core's settings.
#[derive(Debug, Clone)]
pub(crate) struct CoreConfig {
    pub(crate) tenant: String,
    pub(crate) prepared_ttl: Duration,
    pub(crate) disk_reserve_bytes: u64,
    pub(crate) blocked_max: usize,
    pub(crate) stops_max: usize,
    pub(crate) policy_asks_per_second: u32,
    pub(crate) unauthenticated: UnauthenticatedLimits,
}

impl Core {
    /// Makes the core of what was stored.
    pub(crate) fn new(config: CoreConfig, loaded: Loaded, catalogue: Catalogue) -> Self {
        let stored_marks = loaded.marks;
        let mut marks = stored_marks;
        // A store from before the mark has it from its licence; what is only guessed of a damaged one is not to become a mark.
        let serial = catalogue.licence.as_ref().map_or(0, |held| held.document.serial());
        marks.licence_serial = marks.licence_serial.max(serial);
        let mut core = Self {
            tenant: config.tenant,
            prepared_ttl_ms: millis(config.prepared_ttl),
            disk_reserve_bytes: config.disk_reserve_bytes,
            withheld: Withheld::default(),
            blocked_max: config.blocked_max,
            blocked: Arc::new(loaded.blocked),
            devices: Devices::new(loaded.devices, &loaded.removed, &loaded.facts, loaded.next_number),
            history: History::new(marks.epoch),
            twins: Twins::default(),
            sessions: HashMap::new(),
            online: RoaringBitmap::new(),
            presence: Presence::new(loaded.online.is_noted),
            outboxes: Outboxes::new(loaded.seen),
            active: BTreeMap::new(),
            positions: HashMap::new(),
            set_aside: loaded
                .set_aside
                .iter()
                .map(|(position, id, _)| {
                    (*id, Aside::new(*position, loaded.deleted_aside.contains(position)))
                })
                .collect(),
            late: HashMap::new(),
            entered: BTreeMap::new(),
            prepared: BTreeMap::new(),
            submissions: Submissions::default(),
            stops: Stops::new(loaded.stops, config.stops_max),
            retention: Retention::new(&loaded.kept),
            trees: HashMap::new(),
            policies: Policies::default(),
            policy_asks_per_second: config.policy_asks_per_second,
            unauthenticated: Unauthenticated::new(config.unauthenticated),
            catalogue: Arc::new(catalogue),
            marks,
            stored_marks,
            out: Output::default(),
        };
        core.policies = Policies::new(&core.catalogue, &core.devices, loaded.followed);
        for instruction in loaded.active {
            core.positions.insert(instruction.id, instruction.position);
            core.active.insert(instruction.position, Active::loaded(instruction));
        }
        for (created_at_ms, submission) in loaded.submissions {
            let digest = Digest::try_from(&submission.envelope_digest[..]);
            if let (Ok(digest), Ok(id)) = (digest, InstructionId::try_from(&submission.id[..])) {
                let key = (submission.operator, submission.idempotency_key);
                core.submissions.insert(key, digest, id, created_at_ms);
            }
        }
        // Of a device that was removed since, nothing is to be known.
        let last_seen = loaded.online.last_seen.into_iter();
        let last_seen = last_seen.filter(|(number, _)| !loaded.removed.contains(number));
        core.out.writes.extend(last_seen.map(|(number, at_ms)| Write::LastSeen { number, at_ms }));
        core
    }

    /// Carries out one command.
    pub(crate) fn handle(&mut self, command: Command, moment: Moment) {
        match command {
            Command::Connect(connect, reply) => {
                let connected = self.connect(*connect, moment.now_ms);
                self.answer(reply, connected);
            }
            Command::Disconnected { number, epoch } => self.disconnected(number, epoch, moment.now_ms),
            Command::Abandon { device, shard, slot } => {
                self.abandon(&device, shard, slot, moment.now_ms);
            }
            Command::Sent { instruction, numbers } => self.sent(instruction, &numbers),
            Command::Progress { instruction, state, numbers } => self.progress(instruction, state, &numbers),
            Command::Result(result) => self.result(*result, moment.now_ms),
            Command::Event(event) => self.event(*event, moment),
            Command::Relay(events, reply) => {
                let relayed = self.relay(events, moment);
                self.answer(reply, relayed);
            }
            Command::Remove(device, reply) => {
                let removed = self.remove(&device, moment.now_ms);
                self.answer(reply, removed);
            }
            Command::Block(blocking, reply) => {
                let Blocking { device, operator, reason } = *blocking;
                let blocked = self.block(&device, operator, reason, moment.now_ms);
                self.answer(reply, blocked);
            }
            Command::Unblock(device, reply) => {
                let unblocked = self.unblock(&device);
                self.answer(reply, unblocked);
            }
            Command::Draft(prepare, reply) => {
                let draft = self.draft(*prepare, moment);
                self.answer(reply, draft);
            }
            Command::Keep(prepared, reply) => {
                self.keep(*prepared, moment.now_ms);
                self.answer(reply, Ok(()));
            }
            Command::Submit(submission, reply) => {
                let accepted = self.submit(*submission, moment);
                self.answer(reply, accepted);
            }
            Command::Approve(submission, reply) => {
                let approved = self.approve(*submission, moment);
                self.answer(reply, approved);
            }
            Command::Stop(command) => self.handle_stop(*command, moment),
            Command::Import(command) => self.handle_import(*command, moment),
            Command::PolicyCheck { number, epoch, serial, reply } => {
                let later = self.policy_check(number, epoch, serial);
                self.answer(reply, Ok(later));
            }
            Command::Policies(reply) => {
                let policies = self.shown_policies();
                self.answer(reply, Ok(policies));
            }
        }
    }

    /// Takes what the commands since the last call ask for.
    pub(crate) fn poll_output(&mut self, now_ms: i64) -> Output {
        self.write_ledgers(now_ms);
        self.forget_late();
        self.out.writes.extend(self.outboxes.poll_writes());
        let (marks, stored) = (self.marks, self.stored_marks);
        for (mark, value, before) in [
            (Mark::Epoch, marks.epoch, stored.epoch),
            (Mark::OrderSequence, marks.order_sequence, stored.order_sequence),
            (Mark::Batch, marks.batch, stored.batch),
            (Mark::LicenceSerial, marks.licence_serial, stored.licence_serial),
            (Mark::PolicySerial, marks.policy_serial, stored.policy_serial),
        ] {
            if value != before {
                self.out.writes.push(Write::Mark { mark, value });
            }
        }
        self.stored_marks = marks;
        std::mem::take(&mut self.out)
    }

    /// Returns how many instructions are active, and how many devices known.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.active.len(), self.devices.len())
    }

    /// Returns how many devices have no certificate.
    pub(crate) fn unauthenticated_devices(&self) -> u64 {
        self.devices.unauthenticated().len()
    }

    /// Returns the names by which an audience may tell devices apart.
    pub(crate) fn attribute_names(&self) -> BTreeSet<String> {
        self.devices.attributes().names().map(ToOwned::to_owned).collect()
    }

    /// Returns a number that is another one whenever a name has come or gone.
    pub(crate) fn attribute_names_version(&self) -> u64 {
        self.devices.attributes().names_version()
    }

    fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, answer: Result<T, super::EngineError>) {
        let send = move || {
            // Who asked may have gone; what was done stays done.
            let _gone = reply.send(answer);
        };
        self.out.replies.push(Deferred(Box::new(send)));
    }
}

impl Aside {
    fn new(position: i64, is_deleted: bool) -> Self {
        Self { position, received: HashMap::new(), is_deleted }
    }
}

impl Deferred {
    /// Sends the answer.
    pub(crate) fn send(self) {
        (self.0)();
    }
}

impl fmt::Debug for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deferred")
    }
}
