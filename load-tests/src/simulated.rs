//! One simulated device: real mutual TLS, the real session protocol, an answer that is made up.
//!
//! It verifies an order's signature once per distinct envelope for the whole fleet, so that the load generator is not
//! the bottleneck of what it measures; the client program verifies every one.

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
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_util::sync::CancellationToken;

use crate::journal::{Journal, Record, Seen};

/// TCP, TLS, upgrade and welcome together.
const CONNECT_DEADLINE: Duration = Duration::from_secs(60);
/// A device that comes back does so after a random pause of this many milliseconds: soon, and not all at once.
const RETURN_AFTER_MS: std::ops::Range<u64> = 10..60;
/// Read buffer of a session; the default would hold 128 KiB for each of thousands.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// What the devices of one fleet share.
#[derive(Debug)]
pub struct Shared {
    /// `host:port` of the Switch.
    pub address: String,
    /// Roots of order signers.
    pub orders: Roots,
    /// Envelopes that were verified, and what each is for.
    verified: Mutex<HashMap<[u8; 32], Ordered>>,
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
        Self { address, orders, verified: Mutex::new(HashMap::new()) }
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
    let mut device = Device::new(shared, name, after_loss, told);
    loop {
        let Err(error) = device.serve(Arc::clone(&tls), &cancelled).await else { return };
        let failed = Told::Failed { device: device.name.clone(), problem: format!("{error:#}") };
        let heard = device.told.send(failed).await.is_ok();
        let pause = Duration::from_millis(rand::random_range(RETURN_AFTER_MS));
        // The fleet has ended if nobody listens.
        if !heard || after_loss == AfterLoss::End {
            return;
        }
        tokio::select! {
            biased;
            () = cancelled.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

pub(crate) struct Device {
    shared: Arc<Shared>,
    name: String,
    told: mpsc::Sender<Told>,
    after_loss: AfterLoss,
    journal: Journal,
    /// Of the latest session.
    epoch: u64,
    /// The highest sequence that was sent in this session.
    sent: u64,
}

pub(crate) type Socket = WebSocketStream<TlsStream<TcpStream>>;

impl Device {
    pub(crate) fn new(
        shared: Arc<Shared>,
        name: String,
        after_loss: AfterLoss,
        told: mpsc::Sender<Told>,
    ) -> Self {
        Self { shared, name, told, after_loss, journal: Journal::new(), epoch: 0, sent: 0 }
    }

    /// Holds one session; `Ok` when cancelled, the reason of its end otherwise.
    async fn serve(&mut self, tls: Arc<ClientConfig>, cancelled: &CancellationToken) -> anyhow::Result<()> {
        let started = Instant::now();
        let opened = tokio::select! {
            biased;
            () = cancelled.cancelled() => return Ok(()),
            opened = tokio::time::timeout(CONNECT_DEADLINE, Box::pin(self.open(tls))) => opened,
        };
        let mut socket = opened.context("no session in time")??;
        self.sent = 0;
        let config = ClientSessionConfig { limits: Arc::new(SessionLimits::default()) };
        let mut session = ClientSession::new(config, self.hello(), Instant::now());
        loop {
            self.handle_events(&mut session, started).await?;
            self.drain(&mut session)?;
            while let Some(frame) = session.poll_transmit() {
                socket.feed(Message::Binary(frame)).await?;
            }
            socket.flush().await?;
            if session.is_closed() {
                bail!("the session was closed: {:?}", session.close_reason());
            }
            let deadline = session.poll_timeout().unwrap_or_else(|| Instant::now() + CONNECT_DEADLINE);
            tokio::select! {
                biased;
                () = cancelled.cancelled() => return Ok(()),
                message = socket.next() => match message {
                    Some(Ok(Message::Binary(frame))) => session.handle_message(&frame, Instant::now()),
                    Some(Ok(Message::Close(_))) | None => bail!("the Switch closed the connection"),
                    Some(Ok(_)) => session.handle_byte(Instant::now()),
                    Some(Err(error)) => return Err(error.into()),
                },
                () = tokio::time::sleep_until(deadline.into()) => session.handle_timeout(Instant::now()),
            }
        }
    }

    pub(crate) async fn open(&self, tls: Arc<ClientConfig>) -> anyhow::Result<Socket> {
        let stream = TcpStream::connect(&self.shared.address).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(tls).connect(ServerName::try_from("localhost")?, stream).await?;
        let mut request = format!("wss://{}/v1/session", self.shared.address).into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", "muster.v1".parse()?);
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).write_buffer_size(0);
        let (socket, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
        Ok(socket)
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

    async fn handle_events(&mut self, session: &mut ClientSession, started: Instant) -> anyhow::Result<()> {
        while let Some(event) = session.poll_event() {
            match event {
                ClientEvent::Welcome(welcome) => {
                    self.epoch = welcome.epoch;
                    let device = self.name.clone();
                    self.told.send(Told::Connected { device, took: started.elapsed() }).await?;
                }
                ClientEvent::Order { envelope, .. } => {
                    match self.shared.verify(&envelope)? {
                        Ordered::Run(instruction) => self.handle_order(session, instruction).await?,
                        // What it has answered keeps its answer.
                        Ordered::Stop(instruction) => self.journal.stop(instruction),
                    }
                }
                ClientEvent::Acked { lane, ranges } => {
                    let outbox_id = hex::encode(self.journal.outbox_id());
                    for sequence in self.journal.acked(&ranges) {
                        let (device, outbox_id) = (self.name.clone(), outbox_id.clone());
                        let told = Told::Acked { device, outbox_id, lane, sequence, at: Instant::now() };
                        self.told.send(told).await?;
                    }
                }
                ClientEvent::GoAway { reason, detail, .. } => bail!("told to go away: {reason:?} {detail}"),
                ClientEvent::Document(_)
                | ClientEvent::LicenceNotice(_)
                | ClientEvent::PolicyNotice { .. }
                | ClientEvent::Closed { .. } => {}
            }
        }
        Ok(())
    }

    async fn handle_order(
        &mut self,
        session: &mut ClientSession,
        instruction: InstructionId,
    ) -> anyhow::Result<()> {
        let seen = self.journal.start(instruction);
        let device = self.name.clone();
        self.told.send(Told::Ordered { device, instruction, seen, at: Instant::now() }).await?;
        session.push_progress(instruction, TargetState::Acked)?;
        if seen == Seen::First {
            self.journal.answer(instruction);
            if self.after_loss == AfterLoss::Return {
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
