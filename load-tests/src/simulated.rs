//! One simulated device: real mutual TLS, the real session protocol, an answer that is made up.
//!
//! It verifies an order's signature once per distinct envelope for the whole fleet, so that the load generator is not
//! the bottleneck of what it measures; the client program verifies every one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use muster_pki::{Facts, Role, Roots, UnixTime};
use muster_proto::common::v1::{Column, ColumnType, NamedValue, Row, TargetState, Value, value::Kind};
use muster_proto::ids::InstructionId;
use muster_proto::limits::SessionLimits;
use muster_proto::session::client::{ClientEvent, ClientSession, ClientSessionConfig};
use muster_proto::session::v1::{Hello, Lane, Result as InstructionResult};
use muster_signing::envelope::{self, ContentType};
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

/// TCP, TLS, upgrade and welcome together.
const CONNECT_DEADLINE: Duration = Duration::from_secs(60);
/// Read buffer of a session; the default would hold 128 KiB for each of thousands.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// What the devices of one fleet share.
#[derive(Debug)]
pub struct Shared {
    /// `host:port` of the Switch.
    pub address: String,
    /// Roots of order signers.
    pub orders: Roots,
    /// Envelopes that were verified, and the instruction each is for.
    verified: Mutex<HashMap<[u8; 32], InstructionId>>,
}

/// What a device tells its fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It has a session; from the start of the TCP connection.
    Connected {
        /// How long it took.
        took: Duration,
    },
    /// It holds an order.
    Ordered {
        /// When.
        at: Instant,
    },
    /// Its result is on the Switch's disk.
    Acked {
        /// Whose.
        device: String,
        /// From which outbox, hex.
        outbox_id: String,
        /// Which.
        sequence: u64,
        /// When.
        at: Instant,
    },
    /// It lost its session, or never had one.
    Failed {
        /// Whose.
        device: String,
        /// Why.
        problem: String,
    },
}

impl Shared {
    /// What a fleet needs to know of its Switch.
    #[must_use]
    pub fn new(address: String, orders: Roots) -> Self {
        Self { address, orders, verified: Mutex::new(HashMap::new()) }
    }

    /// The instruction of a signed order.
    fn verify(&self, order: &[u8]) -> anyhow::Result<InstructionId> {
        let key: [u8; 32] = envelope::digest(order).as_ref().try_into().context("digest")?;
        let known = self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        if let Some(instruction) = known {
            return Ok(instruction);
        }
        let facts = Facts { now: UnixTime::now(), name: None, intermediates: &[], revocation: None };
        let verified = envelope::verify(order, ContentType::Order, Role::OrderSigner, &self.orders, &facts)?;
        let decoded = muster_signing::order::decode(&verified.content)?;
        let instruction = InstructionId::try_from(decoded.instruction.as_slice())?;
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(key, instruction);
        Ok(instruction)
    }
}

/// Runs one device until it is cancelled or loses its session.
pub async fn run(
    shared: Arc<Shared>,
    name: String,
    tls: Arc<ClientConfig>,
    told: mpsc::Sender<Told>,
    cancelled: CancellationToken,
) {
    let device =
        Device { shared, name: name.clone(), told: told.clone(), outbox_id: rand::random(), sequence: 0 };
    if let Err(error) = device.serve(tls, cancelled).await {
        // The fleet has ended if nobody listens.
        drop(told.send(Told::Failed { device: name, problem: format!("{error:#}") }).await);
    }
}

struct Device {
    shared: Arc<Shared>,
    name: String,
    told: mpsc::Sender<Told>,
    outbox_id: [u8; 16],
    sequence: u64,
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

impl Device {
    async fn serve(mut self, tls: Arc<ClientConfig>, cancelled: CancellationToken) -> anyhow::Result<()> {
        let started = Instant::now();
        let opened = tokio::select! {
            biased;
            () = cancelled.cancelled() => return Ok(()),
            opened = tokio::time::timeout(CONNECT_DEADLINE, Box::pin(self.open(tls))) => opened,
        };
        let mut socket = opened.context("no session in time")??;
        let config = ClientSessionConfig { limits: Arc::new(SessionLimits::default()) };
        let mut session = ClientSession::new(config, self.hello(), Instant::now());
        loop {
            self.handle_events(&mut session, started).await?;
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

    async fn open(&self, tls: Arc<ClientConfig>) -> anyhow::Result<Socket> {
        let stream = TcpStream::connect(&self.shared.address).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(tls).connect(ServerName::try_from("localhost")?, stream).await?;
        let mut request = format!("wss://{}/v1/session", self.shared.address).into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", "muster.v1".parse()?);
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).write_buffer_size(0);
        let (socket, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
        Ok(socket)
    }

    fn hello(&self) -> Hello {
        let text = |name: &str, value: &str| NamedValue {
            name: name.to_owned(),
            value: Some(Value { kind: Some(Kind::Text(value.to_owned())) }),
        };
        Hello {
            outbox_id: self.outbox_id.to_vec(),
            versions: vec![1],
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
            attributes: vec![text("os", "linux"), text("host", &self.name), text("arch", "simulated")],
            ..Hello::default()
        }
    }

    async fn handle_events(&mut self, session: &mut ClientSession, started: Instant) -> anyhow::Result<()> {
        while let Some(event) = session.poll_event() {
            match event {
                ClientEvent::Welcome(_) => {
                    self.told.send(Told::Connected { took: started.elapsed() }).await?
                }
                ClientEvent::Order { envelope, .. } => {
                    let instruction = self.shared.verify(&envelope)?;
                    self.told.send(Told::Ordered { at: Instant::now() }).await?;
                    session.push_progress(instruction, TargetState::Acked)?;
                    session.push_result(self.answer(instruction))?;
                }
                ClientEvent::Acked { lane: Lane::Results, ranges } => {
                    for sequence in ranges.iter().flat_map(|range| range.first..=range.last) {
                        let (device, outbox_id) = (self.name.clone(), hex::encode(self.outbox_id));
                        self.told
                            .send(Told::Acked { device, outbox_id, sequence, at: Instant::now() })
                            .await?;
                    }
                }
                ClientEvent::GoAway { reason, detail, .. } => bail!("told to go away: {reason:?} {detail}"),
                ClientEvent::Acked { .. }
                | ClientEvent::Document(_)
                | ClientEvent::LicenceNotice(_)
                | ClientEvent::Closed { .. } => {}
            }
        }
        Ok(())
    }

    fn answer(&mut self, instruction: InstructionId) -> InstructionResult {
        self.sequence += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let value = |text: &str| Value { kind: Some(Kind::Text(text.to_owned())) };
        let column = |name: &str| Column { name: name.to_owned(), r#type: ColumnType::Text.into() };
        InstructionResult {
            sequence: self.sequence,
            instruction: instruction.to_vec(),
            state: TargetState::Answered.into(),
            columns: vec![column("name"), column("version")],
            rows: vec![Row { values: vec![value("Simulated Linux"), value("1")] }],
            last: true,
            started_at_ms: now,
            finished_at_ms: now,
            ..InstructionResult::default()
        }
    }
}
