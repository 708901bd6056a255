//! The Switch without sockets, threads and clocks, for the seeded simulation (`deploy/muster/src/simulation`).
//!
//! Everything that decides is what the program runs: the engine's core and store, one batch after the other; the table of
//! sessions, and the protocol's half of each. What is left out is what moves bytes: accepting, TLS, WebSocket, and the tasks that wait.
//! A call returns at once; what it asked of the engine is answered by a later [`Switch::step`], which can be told to die in its middle.

mod words;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use muster_pki::DeviceId;
use muster_proto::ids::{InstructionId, OutboxId};
use muster_proto::limits::SessionLimits;
use muster_proto::operator::v1::ExportResponse;
use muster_proto::relay::v1::RelayEventsResponse;
use muster_proto::session::switch::{SwitchEvent, SwitchSession, SwitchSessionConfig};
use muster_proto::session::v1::{CloseReason, Document, Hello};
use roaring::RoaringBitmap;
use tokio::sync::{mpsc, oneshot};

pub use self::words::{Answer, Ask, Dies, First, Hands, Signers};
use super::pace::Turn;
use super::session::{Ending, Identity, Session};
use super::table::Table;
use super::talk;
use crate::config::ClockLimits;
use crate::engine::{
    Clock, Command, Connect, Connected, Draft, EngineConfig, EngineError, EventIn, ImportCommand, Prepare,
    PrepareStop, Prepared, Reader, ResultIn, SessionKey, ShardMessage, StopCommand, Trust, Works,
    verify_definition, verify_licence, verify_order, verify_stop,
};
use crate::wall::Wall;

/// Messages of the engine that wait for the table; beyond, they wait in the engine, as they do for a shard that is late.
const MAILBOX_MAX: usize = 64;

/// From where every device is said to come.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

/// Who waits for an answer of the engine.
#[derive(Debug)]
enum Waiting {
    Connect { session: Rc<Session>, outbox: OutboxId, is_lost: bool, answer: Answered<Connected> },
    Draft(u64, Answered<Draft>),
    Kept(u64, Prepared, Answered<()>),
    Submit(u64, Answered<InstructionId>),
    PrepareStop(u64, Answered<Option<Vec<u8>>>),
    SubmitStop(u64, Answered<InstructionId>),
    Definition(u64, Answered<muster_proto::operator::v1::Definition>),
    Licence(u64, Answered<crate::engine::ImportedLicence>),
    Relay(u64, Answered<RelayEventsResponse>),
}

type Answered<T> = oneshot::Receiver<Result<T, EngineError>>;

/// A Switch.
#[derive(Debug)]
pub struct Switch {
    works: Works,
    reader: Reader,
    clock: Clock,
    limits: Arc<SessionLimits>,
    mailbox: mpsc::Receiver<ShardMessage>,
    table: Table,
    /// What the next step carries out.
    queue: Vec<Command>,
    waiting: Vec<Waiting>,
    calls: u64,
    came: u64,
    answers: Vec<(u64, Answer)>,
}

impl Switch {
    /// Opens the store of a folder, and begins with what it holds.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub fn open(
        folder: &Path,
        tenant: &str,
        signers: &Signers,
        hands: &Hands,
        limits: SessionLimits,
    ) -> Result<Self, String> {
        let Signers { authors, orders, licences } = signers.clone();
        let trust = Trust {
            authors,
            orders,
            licences,
            policies: None,
            timestamps: None,
            revocation: None,
            sources: None,
        };
        let hands = hands.clone();
        let wall = Wall::new(ClockLimits::default(), crate::metrics::CLOCK, move || hands.read());
        let clock = Clock::of(&wall);
        let config = EngineConfig {
            disk_reserve_bytes: 0,
            readers: 1,
            clock: clock.clone(),
            ..EngineConfig::new(folder.to_owned(), tenant.to_owned(), Arc::new(trust))
        };
        let (sender, mailbox) = mpsc::channel(MAILBOX_MAX);
        let (works, reader) = Works::open(config, vec![sender]).map_err(|error| error.to_string())?;
        Ok(Self {
            works,
            reader,
            clock,
            limits: Arc::new(limits),
            mailbox,
            table: Table::default(),
            queue: Vec::new(),
            waiting: Vec::new(),
            calls: 0,
            came: 0,
            answers: Vec::new(),
        })
    }

    /// Takes in a connection of a device whose certificate was checked; returns the place of its session.
    pub fn accept(&mut self, device: DeviceId, ping_interval: Duration, now: Instant) -> Option<u32> {
        let config = SwitchSessionConfig { limits: Arc::clone(&self.limits), ping_interval };
        let half = SwitchSession::new(config, now);
        self.table.insert(device, None, half, self.limits.outbound_bytes_max).map(|session| session.slot)
    }

    /// Takes a message of a session's client.
    pub fn receive(&mut self, slot: u32, message: &[u8], now: Instant) {
        let Some(session) = self.table.at(slot) else { return };
        session.half(|half| half.handle_message(message, now));
        self.converse(&session);
    }

    /// The connection of a session is gone.
    pub fn lost(&mut self, slot: u32) {
        let Some(session) = self.table.at(slot) else { return };
        for waiting in &mut self.waiting {
            if let Waiting::Connect { session: held, is_lost, .. } = waiting
                && Rc::ptr_eq(held, &session)
            {
                // Whoever waits for the engine's answer hears of it behind that.
                *is_lost = true;
                return;
            }
        }
        self.forget(&session);
    }

    /// Tells a session that its deadline may have passed.
    pub fn handle_timeout(&mut self, slot: u32, now: Instant) {
        let Some(session) = self.table.at(slot) else { return };
        session.half(|half| half.handle_timeout(now));
        self.converse(&session);
    }

    /// Returns when [`Self::handle_timeout`] should next be called.
    #[must_use]
    pub fn poll_timeout(&self, slot: u32) -> Option<Instant> {
        self.table.at(slot)?.half(|half| half.poll_timeout())
    }

    /// Takes what a session's connection has room for, which is all, and whether the connection ends behind it.
    pub fn transmit(&mut self, slot: u32) -> (Vec<Bytes>, bool) {
        let Some(session) = self.table.at(slot) else { return (Vec::new(), true) };
        let frames =
            std::iter::from_fn(|| session.poll_transmit()).map(|(_, frame)| frame.into_bytes()).collect();
        let mut sent: BTreeMap<InstructionId, RoaringBitmap> = BTreeMap::new();
        if let Some(identity) = session.identity() {
            for (instruction, _) in session.take_written() {
                sent.entry(instruction).or_default().insert(identity.number);
            }
        }
        self.queue
            .extend(sent.into_iter().map(|(instruction, numbers)| Command::Sent { instruction, numbers }));
        (frames, session.half(|half| half.is_closed()))
    }

    /// Ends all sessions, as a Switch does that is told to stop.
    pub fn send_all_away(&mut self) {
        let detail = "the Switch stops".to_owned();
        let ending = Ending { reason: CloseReason::Shutdown, reconnect_after: Duration::ZERO, detail };
        self.table.for_each(|session| session.end(&ending));
        self.works.handle_closing();
    }

    /// Asks for something; [`Self::take_answers`] has the answer under the number that is returned.
    pub fn ask(&mut self, ask: Ask) -> u64 {
        self.calls += 1;
        let call = self.calls;
        let asked = match ask {
            Ask::Prepare { definition, gather_ms, operator } => {
                let prepare = Prepare { definition, gather_ms, operator, ..Prepare::default() };
                self.works.shared().judge(|held| held.document.name().as_str() == prepare.definition);
                self.wait(
                    |reply| Command::Draft(Box::new(prepare), reply),
                    |answer| Waiting::Draft(call, answer),
                );
                Ok(())
            }
            Ask::Submit { envelope, idempotency_key, operator } => {
                verify_order(self.works.shared(), envelope, idempotency_key, operator).map(|submission| {
                    self.wait(
                        |reply| Command::Submit(Box::new(submission), reply),
                        |answer| Waiting::Submit(call, answer),
                    );
                })
            }
            Ask::PrepareStop { instruction, operator } => {
                let prepare = PrepareStop { instruction, reason: "simulated".to_owned(), operator };
                self.wait(
                    |reply| Command::Stop(Box::new(StopCommand::Draft(prepare, reply))),
                    |answer| Waiting::PrepareStop(call, answer),
                );
                Ok(())
            }
            Ask::SubmitStop { envelope, operator } => verify_stop(self.works.shared(), envelope, operator)
                .map(|submission| {
                    let submission = Box::new(submission);
                    self.wait(
                        |reply| Command::Stop(Box::new(StopCommand::Submit(submission, reply))),
                        |answer| Waiting::SubmitStop(call, answer),
                    );
                }),
            Ask::ImportDefinition(envelope) => verify_definition(self.works.shared(), envelope).map(|held| {
                self.wait(
                    |reply| Command::Import(Box::new(ImportCommand::Definition(held, reply))),
                    |answer| Waiting::Definition(call, answer),
                );
            }),
            Ask::ImportLicence(envelope) => verify_licence(self.works.shared(), envelope).map(|held| {
                self.wait(
                    |reply| Command::Import(Box::new(ImportCommand::Licence(held, reply))),
                    |answer| Waiting::Licence(call, answer),
                );
            }),
            Ask::Relay(events) => {
                self.came += u64::try_from(events.len()).unwrap_or_default();
                self.wait(|reply| Command::Relay(events, reply), |answer| Waiting::Relay(call, answer));
                Ok(())
            }
        };
        if let Err(error) = asked {
            self.answers.push((call, refused(error)));
        }
        call
    }

    /// Takes what was answered since the last call.
    pub fn take_answers(&mut self) -> Vec<(u64, Answer)> {
        std::mem::take(&mut self.answers)
    }

    /// Returns whether something waits for the engine.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Returns how long the engine has nothing to do of its own, by the time that it believes now.
    #[must_use]
    pub fn until_due(&self) -> Option<Duration> {
        self.works.until_due()
    }

    /// Returns how many instructions have targets that have not ended.
    #[must_use]
    pub fn active(&self) -> usize {
        self.works.active()
    }

    /// Returns how many results and events came, repeats among them.
    #[must_use]
    pub fn came(&self) -> u64 {
        self.came
    }

    /// Carries out what waits as one batch: decides, commits, lets out, and has the sessions hear of it. Returns whether the Switch still
    /// lives; one that does not is to be dropped, with all that it did not commit.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub fn step(&mut self, dies: Dies, first: First, now: Instant) -> Result<bool, String> {
        let told = |error: crate::engine::StoreError| error.to_string();
        let mut batch = std::mem::take(&mut self.queue);
        let decided = self.works.decide(&mut batch).map_err(told)?;
        if dies == Dies::BeforeCommit {
            return Ok(false);
        }
        self.works.keep(&decided).map_err(told)?;
        if dies == Dies::AfterCommit {
            return Ok(false);
        }
        self.works.let_out(decided).map_err(told)?;
        if first == First::Messages {
            self.hear();
        }
        self.hear_answers(now);
        self.hear();
        Ok(true)
    }

    /// Gives everything that the store holds to `take`.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub fn export(&self, mut take: impl FnMut(ExportResponse)) -> Result<(), String> {
        let taken = self.reader.export(|record| {
            take(record);
            ControlFlow::Continue(())
        });
        taken.map_err(|error| error.to_string())
    }

    fn wait<T>(
        &mut self,
        command: impl FnOnce(oneshot::Sender<Result<T, EngineError>>) -> Command,
        waiting: impl FnOnce(Answered<T>) -> Waiting,
    ) {
        let (reply, answer) = oneshot::channel();
        self.queue.push(command(reply));
        self.waiting.push(waiting(answer));
    }

    /// Does what the engine says to a shard.
    fn hear(&mut self) {
        while let Ok(message) = self.mailbox.try_recv() {
            self.table.handle([message], |_| {});
            while self.table.turn(|_| {}) != Turn::Done {}
        }
    }

    /// Hands the engine's answers to those who wait for them.
    fn hear_answers(&mut self, now: Instant) {
        let mut left = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            left.extend(self.hear_answer(waiting, now));
        }
        left.append(&mut self.waiting);
        self.waiting = left;
    }

    /// Returns who still waits.
    fn hear_answer(&mut self, waiting: Waiting, now: Instant) -> Option<Waiting> {
        match waiting {
            Waiting::Connect { session, outbox, is_lost, mut answer } => match answer.try_recv() {
                Ok(connected) => {
                    self.connected(&session, outbox, connected, now);
                    if is_lost {
                        self.forget(&session);
                    }
                }
                Err(oneshot::error::TryRecvError::Empty) => {
                    return Some(Waiting::Connect { session, outbox, is_lost, answer });
                }
                Err(oneshot::error::TryRecvError::Closed) => {}
            },
            Waiting::Draft(call, mut answer) => match answer.try_recv() {
                Ok(Ok(draft)) => {
                    let (kept, prepared) = draft.finish();
                    self.wait(
                        |reply| Command::Keep(Box::new(kept), reply),
                        |answer| Waiting::Kept(call, prepared, answer),
                    );
                }
                Ok(Err(error)) => self.answers.push((call, refused(error))),
                Err(_) => return Some(Waiting::Draft(call, answer)),
            },
            Waiting::Kept(call, prepared, mut answer) => match answer.try_recv() {
                Ok(kept) => {
                    self.answers
                        .push((call, kept.map_or_else(refused, |()| Answer::Prepared(prepared.order))));
                }
                Err(_) => return Some(Waiting::Kept(call, prepared, answer)),
            },
            Waiting::Submit(call, answer) => self.tell(call, answer, Answer::Accepted),
            Waiting::PrepareStop(call, answer) => self.tell(call, answer, Answer::StopPrepared),
            Waiting::SubmitStop(call, answer) => self.tell(call, answer, Answer::StopAccepted),
            Waiting::Definition(call, answer) => self.tell(call, answer, |_| Answer::Imported),
            Waiting::Licence(call, answer) => self.tell(call, answer, |_| Answer::Imported),
            Waiting::Relay(call, answer) => self.tell(call, answer, Answer::Relayed),
        }
        None
    }

    /// Every command but a draft is answered by the batch that it was in.
    fn tell<T>(&mut self, call: u64, mut answer: Answered<T>, told: impl FnOnce(T) -> Answer) {
        if let Ok(answer) = answer.try_recv() {
            self.answers.push((call, answer.map_or_else(refused, told)));
        }
    }

    /// As `talk::greet` does behind the engine's answer.
    fn connected(
        &mut self,
        session: &Rc<Session>,
        outbox: OutboxId,
        connected: Result<Connected, EngineError>,
        now: Instant,
    ) {
        match connected {
            Ok(connected) => {
                talk::introduce(&self.table, session, outbox, connected, (self.clock.now_ms(), now));
            }
            Err(error) => {
                self.table.not_connected();
                session.note_unanswered();
                talk::unwelcome(session, &error);
            }
        }
    }

    /// As `shard::settle` does at a session's end.
    fn forget(&mut self, session: &Session) {
        self.table.remove(session);
        match session.identity() {
            Some(Identity { number, epoch, .. }) => self.queue.push(Command::Disconnected { number, epoch }),
            None if session.is_unanswered() => {
                let (device, slot) = (session.device.clone(), session.slot);
                self.queue.push(Command::Abandon { device, shard: 0, slot });
            }
            None => {}
        }
    }

    /// As `talk::converse` does.
    fn converse(&mut self, session: &Rc<Session>) {
        while !session.half(|half| half.is_closed()) {
            let Some(event) = session.half(|half| half.poll_event()) else { return };
            if let SwitchEvent::Hello(hello) = event {
                self.greet(session, hello);
            } else {
                self.report(session, event);
            }
        }
    }

    fn greet(&mut self, session: &Rc<Session>, hello: Hello) {
        let Ok(outbox) = OutboxId::try_from(hello.outbox_id.as_slice()) else { return };
        let connect = Connect {
            device: session.device.clone(),
            thumbprint: "00".repeat(32),
            certificate_not_after_ms: i64::MAX,
            address: ADDRESS,
            shard: 0,
            slot: session.slot,
            hello,
        };
        self.table.connecting();
        let session = Rc::clone(session);
        self.wait(
            |reply| Command::Connect(Box::new(connect), reply),
            |answer| Waiting::Connect { session, outbox, is_lost: false, answer },
        );
    }

    fn report(&mut self, session: &Session, said: SwitchEvent) {
        let Some(Identity { number, epoch, outbox }) = session.identity() else { return };
        let key = SessionKey { shard: 0, slot: session.slot, epoch };
        match said {
            SwitchEvent::Progress { instruction, state } => {
                let numbers = [number].into();
                self.queue.push(Command::Progress { instruction, state, numbers });
            }
            SwitchEvent::Result(result, encoded_len) => {
                self.came += 1;
                let result = ResultIn { number, outbox, session: key, result, encoded_len };
                self.queue.push(Command::Result(Box::new(result)));
            }
            SwitchEvent::Event(event, encoded_len) => {
                self.came += 1;
                let event = EventIn { number, outbox, session: key, event, encoded_len };
                self.queue.push(Command::Event(Box::new(event)));
            }
            SwitchEvent::DocumentRequest { kind, digest } => {
                let envelope = self.works.shared().catalogue().document(kind, digest).unwrap_or_default();
                let document = Document { kind: kind.into(), digest: digest.to_vec(), envelope };
                // Whoever gets none asks again.
                session.half(|half| half.push_document(document)).unwrap_or_default();
            }
            // No policies are simulated, so that nobody follows any.
            SwitchEvent::PolicyCheck { .. } | SwitchEvent::Hello(_) | SwitchEvent::Closed { .. } => {}
        }
    }
}

fn refused(error: EngineError) -> Answer {
    if matches!(error, EngineError::NotPrepared(_)) {
        Answer::NotPrepared
    } else {
        Answer::Refused(error.to_string())
    }
}
