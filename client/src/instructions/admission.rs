//! Everything a client checks before it runs something (signing.md G8), over muster-signing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use muster_endpoint::{Reach, SandboxProfile, SqlValue, Verb};
use muster_pki::Thumbprint;
use muster_proto::common::v1::{ColumnType, Refusal};
use muster_proto::ids::{Digest, InstructionId};
use muster_proto::session::v1::InclusionProof;
use muster_signing::admit::Seen;
use muster_signing::definition::Script;
use muster_signing::policy::NotGranted;

use super::licence::LicenceTerms;

/// Why an order is not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The stable code.
    pub(crate) refusal: Refusal,
    /// What was wrong and what would fix it.
    pub(crate) detail: String,
    /// Nothing is wrong but that there is no fresh CRL (R6 of trust.md): judged again when one comes.
    pub(crate) lacks_only_a_crl: bool,
    /// The definition that it would have run, where its author, its licence and the order itself held: that version is remembered all the
    /// same.
    pub(crate) seen: Option<Box<Seen>>,
}

impl Refused {
    /// Refuses for something that no CRL changes.
    pub(crate) const fn new(refusal: Refusal, detail: String) -> Self {
        Self { refusal, detail, lacks_only_a_crl: false, seen: None }
    }

    /// The policy of that serial, which this device follows, does not grant it.
    pub(crate) fn not_granted(policy: u64, problem: &NotGranted) -> Self {
        let detail = format!(
            "{problem} in policy {policy}, which this device follows; issue it to devices that may, or have the policies' \
             administrator sign a later policy that grants it"
        );
        Self::new(Refusal::NotGranted, detail)
    }

    /// The policy that this device follows cannot be read, and may withhold anything.
    pub(crate) fn policy_unreadable(problem: &str) -> Self {
        let detail = format!(
            "the policy that this device follows cannot be read, so that nothing is granted: {problem}; have the policies' \
             administrator sign a later policy, or install the version of the client that reads it"
        );
        Self::new(Refusal::NotGranted, detail)
    }
}

/// An order whose envelope was verified.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    /// Its instruction.
    pub(crate) instruction: InstructionId,
    /// The definition it names.
    pub(crate) definition: Digest,
    /// The licence it was prepared under.
    pub(crate) licence_serial: u64,
    /// The end of its window, milliseconds since 1970.
    pub(crate) expires_at_ms: i64,
    /// The whole order.
    pub(crate) order: muster_proto::order::v1::Order,
    /// Whose key signed it.
    pub(crate) signer: OrderSigner,
    /// How many different people signed it.
    pub(crate) people: usize,
}

/// An order whose envelope was verified, by what it asks for.
#[derive(Debug, Clone)]
pub(crate) enum Signed {
    /// It issues a definition.
    Order(Box<Opened>),
    /// It ends an instruction.
    Stop(Box<OpenedStop>),
}

/// A stop whose envelope was verified.
#[derive(Debug, Clone)]
pub(crate) struct OpenedStop {
    /// The instruction that it ends.
    pub(crate) stops: InstructionId,
    /// The end of its window, milliseconds since 1970.
    pub(crate) expires_at_ms: i64,
    /// The whole order.
    pub(crate) order: muster_proto::order::v1::Order,
    /// Whose key signed it.
    pub(crate) signer: OrderSigner,
}

/// What an order claims to be that may not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// This instruction's.
    Order(InstructionId),
    /// The stop of this instruction.
    Stop(InstructionId),
}

/// Whose key signed an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrderSigner {
    /// An operator's.
    Operator,
    /// The Switch's own, which a policy limits.
    Switch(Thumbprint),
}

/// What is run, with everything decided.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The definition's name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: semver::Version,
    /// What is run, in this order.
    pub(crate) steps: Vec<PlanStep>,
    /// Whether it may change the machine.
    pub(crate) reach: Reach,
    /// What SQL binds, and scripts are given.
    pub(crate) parameters: Vec<(String, SqlValue)>,
    /// Which of the parameters are true or false, where a language knows that.
    pub(crate) booleans: BTreeSet<String>,
    /// The declared columns; none: any.
    pub(crate) columns: Option<Vec<PlanColumn>>,
    /// What it needs.
    pub(crate) resources: Vec<PlanResource>,
    /// For all steps together.
    pub(crate) run_time: Duration,
    /// Rows at most.
    pub(crate) rows: u32,
    /// Bytes of rows at most.
    pub(crate) bytes: u32,
    /// How the helper is confined.
    pub(crate) sandbox: SandboxProfile,
    /// The tables that it may read; none: all.
    pub(crate) tables: Option<PlanTables>,
}

/// One thing that is run.
#[derive(Debug, Clone)]
pub(crate) enum PlanStep {
    /// SQL.
    Query(String),
    /// A script.
    Script(Script),
    /// A typed action.
    Action(PlanAction),
}

/// A typed action with its values.
#[derive(Debug, Clone)]
pub(crate) enum PlanAction {
    /// The service manager does something with a unit.
    Service(Verb, String),
    /// The resource of this name is put here, with this mode.
    Put(String, PathBuf, u32),
    /// This file is removed.
    Remove(PathBuf),
}

/// The tables that a policy grants (K2).
#[derive(Debug, Clone)]
pub(crate) struct PlanTables {
    /// The policy's serial.
    pub(crate) policy: u64,
    /// Their names.
    pub(crate) tables: BTreeSet<String>,
}

/// A declared column.
#[derive(Debug, Clone)]
pub(crate) struct PlanColumn {
    /// Its name.
    pub(crate) name: String,
    /// Its type.
    pub(crate) kind: ColumnType,
    /// Bytes of a text at most.
    pub(crate) max_length: Option<usize>,
}

/// A resource that a signed definition names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlanResource {
    /// Its name in the definition.
    pub(crate) name: String,
    /// Its bytes.
    pub(crate) size: u64,
    /// Its BLAKE3 root.
    pub(crate) root: Digest,
    /// Its SHA-256, where the definition gives it.
    pub(crate) sha256: Option<Digest>,
}

/// What a client remembers against rollback.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    /// The highest version seen of every definition.
    pub(crate) versions: BTreeMap<String, semver::Version>,
    /// The earliest time that it can be, milliseconds since 1970.
    pub(crate) time_floor_ms: i64,
    /// When the store was last brought back from a copy, milliseconds since 1970; 0: never.
    pub(crate) restored_at_ms: i64,
}

impl Memory {
    /// Takes in a version that held; returns whether it is higher than each before.
    pub(crate) fn remember(&mut self, name: &str, version: &semver::Version) -> bool {
        if self.versions.get(name).is_some_and(|highest| highest >= version) {
            return false;
        }
        self.versions.insert(name.to_owned(), version.clone());
        true
    }
}

/// Reads the roots that signatures are judged by, and puts to use what is good; what is not keeps the old. It blocks on the
/// disk, so it has no place on the runtime.
pub(crate) type RefreshJob = Box<dyn FnOnce() + Send>;

/// Judges orders. Tests of the machine have one without signatures.
pub(crate) trait Admission {
    /// Verifies an order's envelope.
    fn open(&self, envelope: &[u8], now_ms: i64) -> Result<Signed, Refused>;

    /// Returns what an order claims to be, verified or not.
    fn claimed(&self, envelope: &[u8]) -> Option<Claimed>;

    /// Verifies everything else of a stop.
    fn admit_stop(&self, stop: &OpenedStop, memory: &Memory, now_ms: i64) -> Result<(), Refused>;

    /// Verifies everything else.
    fn admit(
        &self,
        opened: &Opened,
        definition: &[u8],
        licence: &[u8],
        proof: Option<&InclusionProof>,
        memory: &Memory,
        now_ms: i64,
    ) -> Result<Plan, Refused>;

    /// Verifies a licence and returns what it says of itself.
    fn licence(&self, envelope: &[u8], now_ms: i64) -> Result<LicenceTerms, Refused>;

    /// Returns the job that reads again what signatures are judged by, if there is any.
    fn refresh(&self) -> Option<RefreshJob> {
        None
    }
}
