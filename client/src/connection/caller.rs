//! One connection: from an address and credentials to a WebSocket with the protocol on it, and, where asked for, to its Welcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use muster_pki::DeviceKey;
use muster_pki::device_key::{DEVICE_KEY_HEADER, EXPORTER_BYTES, EXPORTER_LABEL};
use muster_proto::limits::FRAME_BYTES_MAX;
use muster_proto::session::client::{ClientEvent, ClientSession, ClientSessionConfig};
use muster_proto::session::v1::{Hello, Welcome};
use muster_service::credentials::{ClientCredentials, Deadlines, DialError, Outgoing, PeerRefused, dial};
use rustls::ProtocolVersion;
use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use super::End;
use super::pause::certificate_alert;
use crate::answer;
use crate::config::SessionConfig;
use crate::identity::Identity;
use crate::instructions::shell::Workload;
use crate::store::{Store, StoreError};
use crate::url::ServiceUrl;

/// The subprotocol that both sides must name (PROTOCOL.md).
const SUBPROTOCOL: &str = "muster.v1";

/// The version of the protocol that this client speaks.
const PROTOCOL_VERSION: u32 = 1;

/// The read buffer of a connection (promises.md, "Limits").
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// What may wait to be written: one frame of the largest size, and another behind it.
const WRITE_BUFFER_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX + 64 * 1024;

pub(super) type Socket = WebSocketStream<Outgoing>;

/// Makes connections; each to one Switch, with one set of credentials.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Deadlines.
    pub(crate) config: SessionConfig,
    /// What waits, and by which name.
    pub(crate) store: Store,
    /// Whose device this is, and what it tells of itself.
    pub(crate) identity: Identity,
    /// The device's key, if it has no certificate.
    pub(crate) key: Option<Arc<DeviceKey>>,
    /// Which licence is held.
    pub(crate) workload: watch::Receiver<Workload>,
}

/// A connection whose Hello is about to be sent.
pub(crate) struct Opened {
    pub(super) socket: Socket,
    pub(super) protocol: ClientSession,
}

impl Caller {
    /// Connects.
    pub(super) async fn call(
        &self,
        credentials: &Arc<ClientCredentials>,
        url: &ServiceUrl,
    ) -> Result<Opened, End> {
        let timeouts = Deadlines { connect: self.config.connect_timeout, tls: self.config.tls_timeout };
        let stream = dial(credentials, url.address(), timeouts).await?;
        let limit = self.config.upgrade_timeout;
        let late =
            || DialError::Late { step: "the WebSocket upgrade", address: url.address().clone(), limit };
        let proof = self.key.as_deref().map(|key| proof(key, &stream)).transpose()?;
        let socket = timeout(limit, upgrade(url.to_string(), stream, proof)).await.map_err(|_| late())??;
        let hello = self.hello().await?;
        let protocol = ClientSession::new(ClientSessionConfig::default(), hello, Instant::now());
        Ok(Opened { socket, protocol })
    }

    /// Connects, and waits for the Welcome.
    pub(crate) async fn call_to_welcome(
        &self,
        credentials: &Arc<ClientCredentials>,
        url: &ServiceUrl,
    ) -> Result<(Opened, Welcome), End> {
        let mut opened = self.call(credentials, url).await?;
        let welcome = opened.welcome(self.config.write_timeout).await?;
        Ok((opened, welcome))
    }

    async fn hello(&self) -> Result<Hello, StoreError> {
        let now_ms = crate::clock::wall_ms();
        let (outbox, last_epoch, counts) = self
            .store
            .alone(move |tables| Ok((tables.outbox_id(), tables.epoch(now_ms)?, tables.outbox_counts())))
            .await?;
        let licence = self.workload.borrow().licence;
        Ok(Hello {
            outbox_id: outbox.to_vec(),
            last_epoch,
            versions: vec![PROTOCOL_VERSION],
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
            attributes: self.identity.known().map(|known| known.named()).unwrap_or_default(),
            queued_results: counts.results,
            queued_events: counts.events,
            licence_digest: licence.map(|digest| digest.to_vec()).unwrap_or_default(),
        })
    }
}

impl Opened {
    /// Sends the Hello and waits for what the Switch says to it; the protocol has the deadline.
    async fn welcome(&mut self, write_timeout: Duration) -> Result<Welcome, End> {
        loop {
            while let Some(event) = self.protocol.poll_event() {
                match event {
                    ClientEvent::Welcome(welcome) => return Ok(welcome),
                    ClientEvent::GoAway { reason, reconnect_after, detail } => {
                        return Err(End::GoneAway { reason, reconnect_after, detail });
                    }
                    ClientEvent::Closed { reason } => return Err(End::Closed(reason)),
                    // Nothing else comes before a Welcome.
                    ClientEvent::Order { .. }
                    | ClientEvent::Acked { .. }
                    | ClientEvent::Document(_)
                    | ClientEvent::LicenceNotice(_)
                    | ClientEvent::PolicyNotice { .. } => {}
                }
            }
            while let Some(bytes) = self.protocol.poll_transmit() {
                let sent = timeout(write_timeout, self.socket.send(Message::Binary(bytes))).await;
                sent.map_err(|_| End::WebSocket("the Switch reads nothing".to_owned()))?.map_err(broken)?;
            }
            let deadline = self.protocol.poll_timeout().unwrap_or_else(|| Instant::now() + write_timeout);
            match timeout_at(deadline.into(), self.socket.next()).await {
                Err(_) => self.protocol.handle_timeout(Instant::now()),
                Ok(Some(Ok(Message::Binary(bytes)))) => self.protocol.handle_message(&bytes, Instant::now()),
                Ok(Some(Ok(_))) => self.protocol.handle_byte(Instant::now()),
                Ok(Some(Err(error))) => return Err(broken(error)),
                Ok(None) => return Err(End::WebSocket("the connection was closed".to_owned())),
            }
        }
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Opened").finish_non_exhaustive()
    }
}

/// Returns how a session ended whose WebSocket broke.
pub(super) fn broken(error: tungstenite::Error) -> End {
    if let tungstenite::Error::Io(io) = &error
        && let Some(alert) = certificate_alert(io)
    {
        return End::Refused(alert);
    }
    if let tungstenite::Error::Io(io) = &error
        && let Some(refused) = PeerRefused::of_live(io)
    {
        return End::ServerRefused(Box::new(refused.clone()));
    }
    let tungstenite::Error::Http(answer) = error else { return End::WebSocket(error.to_string()) };
    let text = answer::text(answer.body().as_deref().unwrap_or_default());
    match answer.status() {
        StatusCode::FORBIDDEN => End::Denied(text),
        status => End::TurnedAway { status, text, retry_after: answer::retry_after(answer.headers()) },
    }
}

/// Proves to the Switch, on this very connection, that this device has its key (PROTOCOL.md §1).
fn proof(key: &DeviceKey, stream: &Outgoing) -> Result<http::HeaderValue, End> {
    let tls = stream.get_ref().1;
    if tls.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        let got = tls.protocol_version();
        return Err(End::WebSocket(format!(
            "the Switch speaks {got:?}, wanted TLS 1.3, by which a device without a certificate proves its key"
        )));
    }
    let exported = tls.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None);
    let exported = exported.map_err(|error| End::WebSocket(error.to_string()))?;
    http::HeaderValue::try_from(key.prove(&exported)).map_err(|error| End::WebSocket(error.to_string()))
}

async fn upgrade(url: String, stream: Outgoing, proof: Option<http::HeaderValue>) -> Result<Socket, End> {
    let mut request: Request<()> = url.into_client_request().map_err(broken)?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", http::HeaderValue::from_static(SUBPROTOCOL));
    if let Some(proof) = proof {
        request.headers_mut().insert(DEVICE_KEY_HEADER, proof);
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(READ_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX));
    let (socket, response) =
        tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await.map_err(broken)?;
    let chosen = response.headers().get("Sec-WebSocket-Protocol").and_then(|value| value.to_str().ok());
    if chosen != Some(SUBPROTOCOL) {
        return Err(End::WebSocket(format!(
            "the Switch chose the subprotocol {chosen:?}, wanted {SUBPROTOCOL:?}"
        )));
    }
    Ok(socket)
}
