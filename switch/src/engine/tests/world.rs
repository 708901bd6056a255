//! An engine with its organisation: authors, operators, licensor, one shard's mailbox and a clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use muster_pki::authority::{Authority, Issued, Request, Revoked};
use muster_pki::{RevocationIndex, Role, Roots, UnixTime};
use muster_proto::common::v1::{NamedValue, TargetState, Value, value::Kind};
use muster_proto::ids::{Digest, InstructionId, OutboxId};
use muster_proto::operator::v1::Instruction;
use muster_proto::order::v1::Order;
use muster_proto::session::v1::{Event, Hello, Lane, Result as SessionResult, SequenceRange};
use muster_signing::definition;
use muster_signing::envelope::{self, ContentType, Signer};
use muster_signing::licence::{Licence, Terms};
use prost::Message;
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::config::ClockLimits;
use crate::engine::clock::{Clock, unix_time};
use crate::engine::{
    AggregateLimits, Connect, Connected, Engine, EngineConfig, EngineError, EngineHandle, OpenError, Prepare,
    Prepared, SessionKey, ShardMessage, Trust, UnauthenticatedLimits,
};
use crate::wall::{Reading, Wall};

pub(super) const TENANT: &str = "acme";
pub(super) const OPERATOR: &str = "anna.acme.local";
pub(super) const DEFINITION: &str = "Acme-Test-Kernel";

/// Devices that may be blocked at once.
pub(super) const BLOCKED_MAX: usize = 2;

/// Stops that may wait for devices at once.
pub(super) const STOPS_MAX: usize = 3;

/// Rows that an aggregate may be over.
pub(super) const AGGREGATE_ROWS_MAX: u64 = 200;

/// Devices that ask for a policy at once; with more, they ask spread over a time.
pub(super) const POLICY_ASKS_PER_SECOND: u32 = 2;
/// What devices without a certificate may take.
pub(super) const UNAUTHENTICATED: UnauthenticatedLimits =
    UnauthenticatedLimits { devices_max: 4, new_per_minute: 3, events_per_minute: 2 };

/// How long a test waits for what must come.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct World {
    pub(super) dir: TempDir,
    pub(super) engine: EngineHandle,
    pub(super) shard: mpsc::Receiver<ShardMessage>,
    pub(super) author: Party,
    pub(super) orders: Party,
    pub(super) licensor: Party,
    pub(super) administrator: Party,
    hands: Arc<Hands>,
    trust: Arc<Trust>,
    disk_reserve_bytes: u64,
    mailbox: usize,
}

/// The clocks of the engine's machine.
struct Hands {
    /// The time it really is, which is also the time that has passed since 1970.
    now_ms: AtomicI64,
    /// How far the wall clock is off.
    wrong_by_ms: AtomicI64,
}

impl Hands {
    fn read(&self) -> Reading {
        let now_ms = self.now_ms.load(Ordering::SeqCst);
        let passed = Duration::from_millis(u64::try_from(now_ms).unwrap());
        Reading { wall_ms: now_ms + self.wrong_by_ms.load(Ordering::SeqCst), passed }
    }
}

/// Who signs one kind of document.
pub(super) struct Party {
    pub(super) roots: Roots,
    pub(super) issued: Issued,
    root: Authority,
}

/// A session as a shard holds it.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) connected: Connected,
    pub(super) key: SessionKey,
}

impl World {
    /// An engine that holds a licence and one licensed definition.
    pub(super) async fn new() -> Self {
        let world = Self::empty(Party::new(Role::Author), 64);
        world.engine.import_licence(world.licence(1)).await.unwrap();
        world.engine.import_definition(world.definition("1.0.0")).await.unwrap();
        world
    }

    /// An engine that holds nothing.
    pub(super) fn empty(author: Party, mailbox: usize) -> Self {
        let (orders, licensor) = (Party::new(Role::OrderSigner), Party::new(Role::Licensor));
        let administrator = Party::new(Role::Policy);
        let trust = Trust {
            authors: author.roots.clone(),
            orders: orders.roots.clone(),
            licences: licensor.roots.clone(),
            policies: Some(administrator.roots.clone()),
            timestamps: None,
            revocation: None,
            sources: None,
        };
        let dir = TempDir::new().unwrap();
        let hands = Arc::new(Hands { now_ms: real_now_ms().into(), wrong_by_ms: AtomicI64::new(0) });
        let trust = Arc::new(trust);
        let (engine, shard) = open(&dir, &trust, &hands, 0, mailbox).unwrap();
        Self {
            dir,
            engine,
            shard,
            author,
            orders,
            licensor,
            administrator,
            hands,
            trust,
            disk_reserve_bytes: 0,
            mailbox,
        }
    }

    /// An engine that holds nothing, and does not know who may sign policies.
    pub(super) fn without_policy_roots() -> Self {
        let world = Self::empty(Party::new(Role::Author), 64);
        world.believe(|trust| trust.policies = None);
        world
    }

    /// Exchanges whom the engine believes, for what the world began with and this change.
    pub(super) fn believe(&self, change: impl FnOnce(&mut Trust)) {
        let mut trust = self.trust.as_ref().clone();
        change(&mut trust);
        self.engine.set_trust(Arc::new(trust));
    }

    /// Closes the engine, lets `meanwhile` touch the store, and opens it again.
    pub(super) fn restart(mut self, meanwhile: impl FnOnce(&rusqlite::Connection)) -> Self {
        self.engine.clone().close();
        let database = rusqlite::Connection::open(self.dir.path().join("switch.db")).unwrap();
        meanwhile(&database);
        drop(database);
        let (engine, shard) =
            open(&self.dir, &self.trust, &self.hands, self.disk_reserve_bytes, self.mailbox).unwrap();
        (self.engine, self.shard) = (engine, shard);
        self
    }

    /// Opens a copy of the store as it lies on disk, as if the engine had been killed.
    pub(super) fn killed(self) -> Self {
        let copy = self.copied();
        self.brought_back(copy)
    }

    /// Copies the store as it lies on disk.
    pub(super) fn copied(&self) -> TempDir {
        let dir = TempDir::new().unwrap();
        for file in ["switch.db", "switch.db-wal"] {
            std::fs::copy(self.dir.path().join(file), dir.path().join(file)).unwrap();
        }
        dir
    }

    /// Goes on with a copy of the store.
    pub(super) fn brought_back(mut self, dir: TempDir) -> Self {
        let (engine, shard) =
            open(&dir, &self.trust, &self.hands, self.disk_reserve_bytes, self.mailbox).unwrap();
        std::mem::replace(&mut self.engine, engine).close();
        (self.dir, self.shard) = (dir, shard);
        self
    }

    /// Opens the engine again with so much disk to be kept free.
    pub(super) fn with_disk_reserve(mut self, bytes: u64) -> Self {
        self.disk_reserve_bytes = bytes;
        self.restart(|_| ())
    }

    /// Tries to open a second engine on the same store.
    pub(super) fn open_again(&self) -> Result<EngineHandle, OpenError> {
        open(&self.dir, &self.trust, &self.hands, 0, 1).map(|(engine, _)| engine)
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.hands.now_ms.load(Ordering::SeqCst)
    }

    pub(super) fn advance(&self, by: Duration) {
        self.hands.now_ms.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Puts the wall clock wrong by so much, or right with 0, while time passes as it does.
    pub(super) fn put_wall_wrong_by(&self, off: Duration) {
        self.hands.wrong_by_ms.store(i64::try_from(off.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub(super) async fn connect(&self, device: &str) -> Session {
        self.connect_with(device, outbox(), vec![text("os", "linux"), integer("cpus", 4)]).await
    }

    pub(super) async fn connect_with(
        &self,
        device: &str,
        outbox: OutboxId,
        attributes: Vec<NamedValue>,
    ) -> Session {
        let hello = Hello { outbox_id: outbox.to_vec(), versions: vec![1], attributes, ..Hello::default() };
        self.connect_saying(device, hello).await
    }

    /// Connects a device that had its last session under this epoch, with a store of its own.
    pub(super) async fn connect_after(&self, device: &str, last_epoch: u64) -> Session {
        self.connect_store(device, device, last_epoch).await
    }

    /// Connects a device with the store that somebody has.
    pub(super) async fn connect_store(&self, device: &str, store: &str, last_epoch: u64) -> Session {
        let outbox = muster_pki::Thumbprint::of(store.as_bytes()).as_bytes()[..16].to_vec();
        let hello = Hello { outbox_id: outbox, last_epoch, ..Hello::default() };
        self.connect_saying(device, hello).await
    }

    async fn connect_saying(&self, device: &str, hello: Hello) -> Session {
        let connect = Connect {
            device: device.parse().unwrap(),
            thumbprint: "ab".repeat(32),
            certificate_not_after_ms: self.now_ms() + 1_000_000,
            address: "127.0.0.1:4000".parse().unwrap(),
            shard: 0,
            slot: 5,
            hello,
        };
        let connected = self.engine.connect(connect).await.unwrap();
        let key = SessionKey { shard: 0, slot: 5, epoch: connected.epoch };
        Session { connected, key }
    }

    pub(super) async fn prepare(&self, audience: &str) -> Result<Prepared, EngineError> {
        let prepare = Prepare {
            definition: DEFINITION.to_owned(),
            audience: audience.to_owned(),
            operator: OPERATOR.to_owned(),
            ..Prepare::default()
        };
        self.engine.prepare(prepare, admitted).await
    }

    /// Prepares, signs and submits.
    pub(super) async fn issue(&self, audience: &str) -> InstructionId {
        let prepared = self.prepare(audience).await.unwrap();
        self.submit(&prepared).await
    }

    /// Signs and submits.
    pub(super) async fn submit(&self, prepared: &Prepared) -> InstructionId {
        let envelope = self.orders.sign(&prepared.order, ContentType::Order, self.now_ms());
        let key =
            InstructionId::try_from(&Order::decode(&prepared.order[..]).unwrap().instruction[..]).unwrap();
        self.engine.submit(envelope, key.to_string(), OPERATOR).await.unwrap()
    }

    /// Lets a session answer, and waits for the ack.
    pub(super) async fn answer(&mut self, session: &Session, id: InstructionId, sequence: u64) {
        self.tell_result(session, result(id, sequence, TargetState::Answered)).await;
        assert_eq!(self.next_ack().await.1, [range(sequence, sequence)]);
    }

    pub(super) async fn tell_result(&self, session: &Session, result: SessionResult) {
        let bytes = u32::try_from(result.encoded_len()).unwrap();
        self.engine.result(session.connected.number, outbox(), session.key, result, bytes).await.unwrap();
    }

    pub(super) async fn tell_event(&self, session: &Session, event: Event) {
        self.engine.event(session.connected.number, outbox(), session.key, event, 100).await.unwrap();
    }

    /// Returns the next message to the shard that `pick` takes; others are passed over.
    pub(super) async fn next<T>(&mut self, pick: impl Fn(ShardMessage) -> Option<T>) -> T {
        let search = async {
            loop {
                let message = self.shard.recv().await.expect("the engine lives");
                if let Some(found) = pick(message) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("the message comes")
    }

    pub(super) async fn next_ack(&mut self) -> (Lane, Vec<SequenceRange>, u64) {
        self.next(|message| match message {
            ShardMessage::Ack { lane, ranges, credit_bytes, .. } => Some((lane, ranges, credit_bytes)),
            ShardMessage::Order { .. }
            | ShardMessage::Close { .. }
            | ShardMessage::LicenceNotice { .. }
            | ShardMessage::PolicyNotice { .. } => None,
        })
        .await
    }

    /// Waits until the instruction is as wanted.
    pub(super) async fn until(
        &self,
        id: InstructionId,
        wanted: impl Fn(&Instruction) -> bool,
    ) -> Instruction {
        let mut changes = self.engine.changes();
        let search = async {
            loop {
                let instruction = self.engine.reader().instruction(id).unwrap();
                if wanted(&instruction) {
                    return instruction;
                }
                changes.changed().await.expect("the engine lives");
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("the instruction gets there")
    }

    /// Waits until the target is in a state.
    pub(super) async fn until_state(&self, id: InstructionId, state: TargetState) {
        self.until(id, |instruction| counts(instruction).contains(&(state, 1))).await;
    }

    pub(super) fn definition(&self, version: &str) -> Vec<u8> {
        self.author.sign(
            definition_text(version, "SELECT 1 AS one").as_bytes(),
            ContentType::Definition,
            self.now_ms(),
        )
    }

    /// A policy of this serial; an empty audience is all.
    pub(super) fn policy(&self, serial: u64, audience: &str) -> Vec<u8> {
        let text = policy_text(serial, audience);
        self.administrator.sign(text.as_bytes(), ContentType::Policy, self.now_ms())
    }

    /// Lets a session say which policy it follows; returns the later one that it is to follow.
    pub(super) async fn check_policy(&self, session: &Session, serial: u64) -> Option<Digest> {
        let Connected { number, epoch, policy_serial, .. } = session.connected;
        self.engine.policy_check(number, epoch, serial, policy_serial).await.unwrap()
    }

    /// A licence that binds the prefix to the author.
    pub(super) fn licence(&self, serial: u64) -> Vec<u8> {
        self.licence_for(serial, "Acme")
    }

    pub(super) fn licence_for(&self, serial: u64, prefix: &str) -> Vec<u8> {
        self.licence_of(serial, prefix, -3_600, 90 * 86_400)
    }

    /// A licence that is valid between these moments, milliseconds from now on.
    pub(super) fn licence_within(&self, serial: u64, from_ms: i64, to_ms: i64) -> Vec<u8> {
        self.licence_of(serial, "Acme", from_ms / 1000, to_ms / 1000)
    }

    fn licence_of(&self, serial: u64, prefix: &str, from_seconds: i64, to_seconds: i64) -> Vec<u8> {
        self.licence_with(serial, |terms| {
            terms.not_before = at(self.now_ms(), from_seconds);
            terms.not_after = at(self.now_ms(), to_seconds);
            let signers = std::mem::take(&mut terms.prefixes).into_values();
            terms.prefixes = signers.map(|signers| (prefix.to_owned(), signers)).collect();
        })
    }

    /// A licence of the author's that says something else beside.
    pub(super) fn licence_with(&self, serial: u64, change: impl FnOnce(&mut Terms)) -> Vec<u8> {
        let mut terms = Terms {
            serial,
            licensee: "Acme Inc.".to_owned(),
            tenant: TENANT.to_owned(),
            not_before: at(self.now_ms(), -3_600),
            not_after: at(self.now_ms(), 90 * 86_400),
            refresh_by: None,
            features: [].into(),
            prefixes: [("Acme".to_owned(), [self.author.issued.certificate.thumbprint()].into())].into(),
            minimum_versions: [].into(),
            distrusted: [].into(),
        };
        change(&mut terms);
        let text = Licence::new(terms).unwrap().to_text().unwrap();
        self.licensor.sign(text.as_bytes(), ContentType::Licence, self.now_ms())
    }
}

impl Party {
    pub(super) fn new(role: Role) -> Self {
        Self::for_days(role, 30)
    }

    /// One whose certificate ends after so many days.
    pub(super) fn for_days(role: Role, days: i64) -> Self {
        let now = real_now_ms();
        let root = Authority::root("Test root", Duration::from_secs(365 * 86_400), at(now, -7_200)).unwrap();
        let request = Request {
            common_name: "signer.acme.local".to_owned(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            role,
            not_before: at(now, -3_600),
            not_after: at(now, days * 86_400),
            crl_url: None,
        };
        let issued = root.issue(&request).unwrap();
        let roots = Roots::from_certificates([root.certificate().clone()]).unwrap();
        Self { roots, issued, root }
    }

    /// Returns a CRL that revokes it.
    pub(super) fn revoked(&self, now_ms: i64) -> RevocationIndex {
        let entry = Revoked { serial_hex: self.issued.certificate.serial_hex(), at: at(now_ms, -60) };
        let crl = self.root.crl(&[entry], 1, at(now_ms, -60), at(now_ms, 86_400)).unwrap();
        let issuer = [self.root.certificate().clone()];
        RevocationIndex::default().with_crl(crl.as_bytes(), &issuer, at(now_ms, 0)).unwrap()
    }

    /// Returns another who signs orders.
    pub(super) fn signer(&self, name: &str) -> Signer {
        let now = real_now_ms();
        let request = Request {
            common_name: name.to_owned(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            role: Role::OrderSigner,
            not_before: at(now, -3_600),
            not_after: at(now, 30 * 86_400),
            crl_url: None,
        };
        let issued = self.root.issue(&request).unwrap();
        Signer::from_pem(issued.chain_pem, issued.key_pem).unwrap()
    }

    pub(super) fn sign(&self, content: &[u8], content_type: ContentType, now_ms: i64) -> Vec<u8> {
        let signer =
            Signer::from_pem(self.issued.chain_pem.as_bytes(), self.issued.key_pem.as_bytes()).unwrap();
        envelope::sign(content, content_type, &signer, unix_time(now_ms)).unwrap()
    }
}

/// Lets an order of any kind be prepared.
pub(super) fn admitted(_: definition::Kind) -> Result<(), EngineError> {
    Ok(())
}

/// The outbox of every session that [`World::connect`] begins.
pub(super) fn outbox() -> OutboxId {
    OutboxId::from([7; 16])
}

pub(super) fn definition_text(version: &str, query: &str) -> String {
    format!(
        r#"
name = "{DEFINITION}"
version = "{version}"
kind = "question"
says = "Which kernel runs?"

[[parameter]]
name = "days"
type = "integer"
min = 1
max = 365
default = 30

[[step]]
query = "{query}"

[[result]]
name = "one"
type = "integer"

[limits]
run_time = "10s"
rows = 10
bytes = "64 KiB"

[time_to_live]
gather = {{ default = "1h", min = "1m", max = "7d" }}
keep = {{ default = "1d", min = "1h", max = "30d" }}
"#
    )
}

pub(super) fn policy_text(serial: u64, audience: &str) -> String {
    format!(
        "serial = {serial}\ntenant = \"{TENANT}\"\nsays = \"Number {serial}.\"\naudience = '{audience}'\n"
    )
}

pub(super) fn result(id: InstructionId, sequence: u64, state: TargetState) -> SessionResult {
    SessionResult {
        sequence,
        instruction: id.to_vec(),
        state: state.into(),
        detail: format!("number {sequence}"),
        last: true,
        ..SessionResult::default()
    }
}

pub(super) fn event(sequence: u64) -> Event {
    Event { sequence, occurred_at_ms: 1, name: "client.started".to_owned(), fields: Vec::new() }
}

pub(super) fn counts(instruction: &Instruction) -> Vec<(TargetState, u64)> {
    instruction.states.iter().map(|count| (count.state(), count.count)).collect()
}

pub(super) fn range(first: u64, last: u64) -> SequenceRange {
    SequenceRange { first, last }
}

pub(super) fn text(name: &str, value: &str) -> NamedValue {
    NamedValue { name: name.to_owned(), value: Some(Value { kind: Some(Kind::Text(value.to_owned())) }) }
}

pub(super) fn integer(name: &str, value: i64) -> NamedValue {
    NamedValue { name: name.to_owned(), value: Some(Value { kind: Some(Kind::Integer(value)) }) }
}

fn open(
    dir: &TempDir,
    trust: &Arc<Trust>,
    hands: &Arc<Hands>,
    disk_reserve_bytes: u64,
    mailbox: usize,
) -> Result<(EngineHandle, mpsc::Receiver<ShardMessage>), OpenError> {
    let (sender, shard) = mpsc::channel(mailbox);
    let hands = Arc::clone(hands);
    let wall = Wall::new(ClockLimits::default(), crate::metrics::CLOCK, move || hands.read());
    let config = EngineConfig {
        disk_reserve_bytes,
        blocked_max: BLOCKED_MAX,
        stops_max: STOPS_MAX,
        policy_asks_per_second: POLICY_ASKS_PER_SECOND,
        unauthenticated: UNAUTHENTICATED,
        clock: Clock::of(&wall),
        aggregates: AggregateLimits { rows_max: AGGREGATE_ROWS_MAX, ..AggregateLimits::default() },
        ..EngineConfig::new(dir.path().to_owned(), TENANT.to_owned(), Arc::clone(trust))
    };
    Ok((Engine::open(config, vec![sender])?, shard))
}

fn at(now_ms: i64, seconds: i64) -> UnixTime {
    unix_time(now_ms + seconds * 1_000)
}

fn real_now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
