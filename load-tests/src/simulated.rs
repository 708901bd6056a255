//! One simulated device: real mutual TLS, the real session protocol, an answer that is made up.
//!
//! It verifies an order's signature once per distinct envelope for the whole fleet, so that the load generator is not
//! the bottleneck of what it measures; the client program verifies every one.

mod dial;
mod lasting;
mod manners;
mod teller;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use muster_pki::{Facts, Role, Roots, UnixTime};
use muster_proto::common::v1::{NamedValue, TargetState, Value, value::Kind};
use muster_proto::ids::InstructionId;
use muster_proto::limits::SessionLimits;
use muster_proto::session::client::{ClientEvent, ClientSession, ClientSessionConfig};
use muster_proto::session::v1::{Hello, Lane};
use muster_signing::envelope::{self, Anchors, ContentType};
use rustls::{ClientConfig, HandshakeKind};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

pub(crate) use self::dial::{Dialled, connect, dial, upgrade};
pub(crate) use self::lasting::{Lasting, last};
pub(crate) use self::manners::{Backoff, Manners, OnOrder, Sabotage, Wish, changed};
pub(crate) use self::teller::Teller;

use crate::journal::{Journal, Record, Seen};
use crate::moment::Moment;

/// TCP, TLS, upgrade and welcome together.
const CONNECT_DEADLINE: Duration = Duration::from_secs(60);
/// How long a session that is ended in order may take to say so.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the devices of one fleet share.
#[derive(Debug)]
pub struct Shared {
    /// `host:port` of the Switch.
    pub address: String,
    /// Roots of order signers.
    pub orders: Roots,
    /// Envelopes that were verified, and what each is for.
    verified: Mutex<HashMap<[u8; 32], Ordered>>,
    limits: Arc<SessionLimits>,
}

/// What a signed order wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ordered {
    /// This instruction to run.
    Run(InstructionId),
    /// This one never to run.
    Stop(InstructionId),
}

/// What a device tells its fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It has a session; from the start of the TCP connection.
    Connected {
        /// Whose.
        device: String,
        /// How long it took.
        took: Duration,
    },
    /// It holds an order.
    Ordered {
        /// Whose.
        device: String,
        /// Of which instruction.
        instruction: InstructionId,
        /// Whether it starts.
        seen: Seen,
        /// When.
        at: Instant,
    },
    /// Its result or event is on the Switch's disk.
    Acked {
        /// Whose.
        device: String,
        /// From which outbox, hex.
        outbox_id: String,
        /// Result or event.
        lane: Lane,
        /// Which.
        sequence: u64,
        /// When.
        at: Instant,
    },
    /// It lost its session, or could not have one.
    Failed {
        /// Whose.
        device: String,
        /// Why.
        problem: String,
    },
}

/// What a device does when its session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterLoss {
    /// Tells it and ends: for benchmarks, where a lost session is a failure.
    End,
    /// Tells it and comes back until it is cancelled, with what was not acked. It also reports an event for each
    /// answer, so that both lanes are under load.
    Return,
}

impl Shared {
    /// What a fleet needs to know of its Switch.
    #[must_use]
    pub fn new(address: String, orders: Roots) -> Self {
        Self { address, orders, verified: Mutex::new(HashMap::new()), limits: Arc::default() }
    }

    /// What a signed order wants.
    fn verify(&self, order: &[u8]) -> anyhow::Result<Ordered> {
        let key: [u8; 32] = envelope::digest(order).as_ref().try_into().context("digest")?;
        let known = self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        if let Some(instruction) = known {
            return Ok(instruction);
        }
        let facts = Facts::at(UnixTime::now());
        let anchors = Anchors::of(&self.orders);
        let verified = envelope::verify(order, ContentType::Order, Role::OrderSigner, &anchors, &facts)?;
        let decoded = muster_signing::order::decode(&verified.content)?;
        let ordered = match muster_signing::order::stops(&decoded) {
            Some(stopped) => Ordered::Stop(stopped),
            None => Ordered::Run(InstructionId::try_from(decoded.instruction.as_slice())?),
        };
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(key, ordered);
        Ok(ordered)
    }
}

/// Runs one device until it is cancelled, or loses its session and does not return.
pub async fn run(
    shared: Arc<Shared>,
    name: String,
    tls: Arc<ClientConfig>,
    after_loss: AfterLoss,
    told: mpsc::Sender<Told>,
    cancelled: CancellationToken,
) {
    let device = Device::new(shared, name, after_loss, told);
    drop(Box::pin(device.run(tls, Instant::now(), None, cancelled)).await);
}

pub(crate) struct Device {
    shared: Arc<Shared>,
    name: String,
    teller: Teller,
    manners: Manners,
    journal: Journal,
    /// Of the latest session.
    epoch: u64,
    /// The highest sequence that was sent in this session.
    sent: u64,
    /// When this session began.
    welcomed: Option<Moment>,
    /// Whether its TLS was that of an earlier one.
    resumed: bool,
    /// Events that it has reported of its own accord.
    reported: u32,
    /// Its place among those that connect, until it has a session.
    place: Option<OwnedSemaphorePermit>,
    /// The bytes of the frame that came last.
    frame_bytes: usize,
    /// Orders that it has not acked, since that is wished.
    unacked: Vec<InstructionId>,
}

pub(crate) type Socket = WebSocketStream<TlsStream<TcpStream>>;

impl Device {
    pub(crate) fn new(
        shared: Arc<Shared>,
        name: String,
        after_loss: AfterLoss,
        told: mpsc::Sender<Told>,
    ) -> Self {
        Self::with_manners(shared, name, Manners::of(after_loss), Teller::Queue(told))
    }

    pub(crate) fn with_manners(shared: Arc<Shared>, name: String, manners: Manners, teller: Teller) -> Self {
        Self {
            shared,
            name,
            teller,
            manners,
            journal: Journal::new(),
            epoch: 0,
            sent: 0,
            welcomed: None,
            resumed: false,
            reported: 0,
            place: None,
            frame_bytes: 0,
            unacked: Vec::new(),
        }
    }

    /// Holds sessions until it is cancelled, or loses one and does not return; `begun` is when the first one was to begin, and
    /// `place` one of those for handshakes under way.
    pub(crate) async fn run(
        mut self,
        tls: Arc<ClientConfig>,
        begun: Instant,
        place: Option<OwnedSemaphorePermit>,
        cancelled: CancellationToken,
    ) -> Self {
        self.place = place;
        last(&mut self, tls, begun, cancelled).await;
        self
    }

    /// Holds one session; `Ok` when cancelled, the reason of its end otherwise.
    async fn hold(
        &mut self,
        tls: Arc<ClientConfig>,
        begun: Instant,
        cancelled: &CancellationToken,
    ) -> anyhow::Result<()> {
        let opened = tokio::select! {
            biased;
            () = cancelled.cancelled() => return Ok(()),
            opened = tokio::time::timeout(CONNECT_DEADLINE, Box::pin(self.open(tls))) => opened,
        };
        let mut socket = opened.context("no session in time")??;
        self.resumed = socket.get_ref().get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        self.sent = 0;
        self.unacked.clear();
        let config = ClientSessionConfig { limits: Arc::clone(&self.shared.limits) };
        let mut session = ClientSession::new(config, self.hello(), Instant::now());
        loop {
            if self.manners.is_paused() {
                // A slow reader: it leaves what comes in the socket.
                tokio::select! {
                    biased;
                    () = cancelled.cancelled() => return Ok(()),
                    () = changed(&mut self.manners.wishes) => {}
                }
                continue;
            }
            let events = self.handle_events(&mut session, begun).await?;
            self.report();
            self.ack(&mut session)?;
            self.drain(&mut session)?;
            let mut sent_bytes = 0;
            while let Some(frame) = session.poll_transmit() {
                sent_bytes += frame.len();
                socket.feed(Message::Binary(frame)).await?;
            }
            socket.flush().await?;
            let heard_bytes = std::mem::take(&mut self.frame_bytes);
            if events == 0 && heard_bytes > 0 && sent_bytes > 0 {
                // What is no event and is answered all the same.
                self.teller.heartbeat(heard_bytes + sent_bytes);
            }
            if session.is_closed() {
                bail!("the session was closed: {:?}", session.close_reason());
            }
            let deadline = session.poll_timeout().unwrap_or_else(|| Instant::now() + CONNECT_DEADLINE);
            tokio::select! {
                biased;
                () = cancelled.cancelled() => {
                    if self.manners.farewell {
                        // The Switch may have gone before.
                        drop(tokio::time::timeout(FAREWELL, socket.close(None)).await);
                    }
                    return Ok(());
                }
                message = socket.next() => match message {
                    Some(Ok(Message::Binary(frame))) => {
                        self.frame_bytes = frame.len();
                        session.handle_message(&frame, Instant::now());
                    }
                    Some(Ok(Message::Close(_))) | None => bail!("the Switch closed the connection"),
                    Some(Ok(_)) => session.handle_byte(Instant::now()),
                    Some(Err(error)) => return Err(error.into()),
                },
                () = changed(&mut self.manners.wishes) => {}
                () = tokio::time::sleep_until(deadline.into()) => session.handle_timeout(Instant::now()),
            }
        }
    }

    pub(crate) async fn open(&self, tls: Arc<ClientConfig>) -> anyhow::Result<Socket> {
        let stream = dial(&self.shared.address, &self.manners.dialled, tls).await?;
        upgrade(stream, &format!("wss://{}/v1/session", self.shared.address), Some("muster.v1")).await
    }

    /// Acks what it has not, unless that is to wait.
    fn ack(&mut self, session: &mut ClientSession) -> anyhow::Result<()> {
        if !self.unacked.is_empty() && !self.manners.is_hushed() {
            for instruction in std::mem::take(&mut self.unacked) {
                session.push_progress(instruction, TargetState::Acked)?;
            }
        }
        Ok(())
    }

    /// Notes as many events as are wished for.
    fn report(&mut self) {
        let wanted = self.manners.events();
        while self.reported < wanted {
            self.journal.note();
            self.reported += 1;
        }
    }

    pub(crate) fn hello(&self) -> Hello {
        let text = |name: &str, value: &str| NamedValue {
            name: name.to_owned(),
            value: Some(Value { kind: Some(Kind::Text(value.to_owned())) }),
        };
        let (queued_results, queued_events) = self.journal.counts();
        Hello {
            outbox_id: self.journal.outbox_id().to_vec(),
            last_epoch: self.epoch,
            versions: vec![1],
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
            attributes: vec![text("os", "linux"), text("host", &self.name), text("arch", "simulated")],
            queued_results,
            queued_events,
            ..Hello::default()
        }
    }

    /// Takes what happened; gives how much that was.
    async fn handle_events(&mut self, session: &mut ClientSession, begun: Instant) -> anyhow::Result<usize> {
        let mut events = 0;
        while let Some(event) = session.poll_event() {
            events += 1;
            match event {
                ClientEvent::Welcome(welcome) => {
                    self.epoch = welcome.epoch;
                    let welcomed = Moment::now();
                    self.welcomed = Some(welcomed);
                    self.place = None;
                    self.teller.connected(&self.name, begun.elapsed(), self.resumed, welcomed).await?;
                }
                ClientEvent::Order { envelope, .. } => {
                    match self.shared.verify(&envelope)? {
                        Ordered::Run(instruction) => {
                            self.handle_order(session, instruction).await?;
                        }
                        // What it has answered keeps its answer.
                        Ordered::Stop(instruction) => self.journal.stop(instruction),
                    }
                }
                ClientEvent::Acked { lane, ranges } => {
                    let sequences = self.journal.acked(&ranges);
                    self.teller.acked(&self.name, self.journal.outbox_id(), lane, &sequences).await?;
                }
                ClientEvent::GoAway { reason, detail, .. } => bail!("told to go away: {reason:?} {detail}"),
                ClientEvent::Document(_)
                | ClientEvent::LicenceNotice(_)
                | ClientEvent::PolicyNotice { .. }
                | ClientEvent::Closed { .. } => {}
            }
        }
        Ok(events)
    }

    async fn handle_order(
        &mut self,
        session: &mut ClientSession,
        instruction: InstructionId,
    ) -> anyhow::Result<()> {
        if !self.manners.counts_message()? {
            return Ok(());
        }
        let (seen, welcomed) = (self.journal.start(instruction), self.welcomed.unwrap_or_default());
        self.teller.ordered(&self.name, instruction, seen, welcomed, self.frame_bytes).await?;
        self.unacked.push(instruction);
        self.ack(session)?;
        if seen == Seen::First && self.manners.on_order == OnOrder::Answer {
            self.journal.answer(instruction);
            if self.manners.reports_answers {
                self.journal.report(instruction);
            }
        }
        Ok(())
    }

    /// Sends what this session has not sent yet, as far as the credit goes.
    fn drain(&mut self, session: &mut ClientSession) -> anyhow::Result<()> {
        while let Some((sequence, record)) = self.journal.waiting_after(self.sent) {
            let pushed = match record {
                Record::Result(result) => session.push_result(*result),
                Record::Event(event) => session.push_event(*event),
            };
            match pushed {
                Ok(()) => self.sent = sequence,
                // Not yet welcome, or no credit left: an ack or the welcome brings more.
                Err(error) if error.is_transient() => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Lasting for Device {
    async fn serve(
        &mut self,
        tls: Arc<ClientConfig>,
        begun: Instant,
        cancelled: &CancellationToken,
    ) -> anyhow::Result<()> {
        self.hold(tls, begun, cancelled).await
    }

    fn handle_end(&mut self) -> bool {
        self.place = None;
        let had_session = self.welcomed.take().is_some();
        if had_session {
            self.teller.ended();
        }
        had_session
    }

    async fn tell(&mut self, error: &anyhow::Error, had_session: bool) -> bool {
        self.teller.failed(&self.name, error, had_session).await
    }

    fn manners(&self) -> &Manners {
        &self.manners
    }
}
