//! A session's frames over WebSocket: the upgrade, and how it ends.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, StatusCode};
use muster_pki::DeviceKey;
use muster_pki::device_key::{DEVICE_KEY_HEADER, EXPORTER_BYTES, EXPORTER_LABEL};
use muster_proto::limits::FRAME_BYTES_MAX;
use muster_service::credentials::{Address, DialError, Outgoing, PeerRefused};
use rustls::ProtocolVersion;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use super::End;
use super::pause::certificate_alert;
use super::socket::Heard;
use crate::answer;

/// The subprotocol that both sides must name (PROTOCOL.md).
const SUBPROTOCOL: &str = "muster.v1";

/// The read buffer of a connection (promises.md, "Limits").
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// A connection that was upgraded.
#[derive(Debug)]
pub(super) struct WebSocket(WebSocketStream<Outgoing>);

impl WebSocket {
    /// Upgrades a connection.
    pub(super) async fn open(
        stream: Outgoing,
        url: String,
        address: &Address,
        key: Option<&DeviceKey>,
        limit: Duration,
    ) -> Result<Self, End> {
        let late = || DialError::Late { step: "the WebSocket upgrade", address: address.clone(), limit };
        let proof = key.map(|key| proof(key, &stream)).transpose()?;
        Ok(Self(timeout(limit, upgrade(url, stream, proof)).await.map_err(|_| late())??))
    }

    /// Waits for what the Switch says next. It may be given up and asked again.
    pub(super) async fn hear(&mut self) -> Result<Heard, End> {
        let Some(message) = self.0.next().await else {
            return Err(End::WebSocket("the connection was closed".to_owned()));
        };
        match message.map_err(broken)? {
            Message::Binary(frame) => Ok(Heard::Frame(frame)),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) | Message::Close(_) => Ok(Heard::Life),
            Message::Text(_) => Err(End::WebSocket("the Switch sent text; frames are binary".to_owned())),
        }
    }

    /// Writes a frame; it leaves with the next flush at the latest.
    pub(super) async fn feed(&mut self, frame: Bytes) -> Result<(), End> {
        self.0.feed(Message::Binary(frame)).await.map_err(broken)
    }

    /// Waits until the socket has taken everything.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        self.0.flush().await.map_err(broken)
    }

    /// Closes. Whoever calls bounds the time.
    pub(super) async fn close(&mut self) {
        // Who does not hear it notices the end of the connection.
        drop(self.0.close(None).await);
    }
}

/// Returns how a session ended whose WebSocket broke.
fn broken(error: tungstenite::Error) -> End {
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

/// Returns how the WebSocket reads and writes, with messages of at most so many bytes.
pub(super) fn settings(message_bytes_max: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(READ_BUFFER_BYTES)
        // One of the largest size, and another behind it.
        .max_write_buffer_size(2 * message_bytes_max + 64 * 1024)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max))
}

async fn upgrade(
    url: String,
    stream: Outgoing,
    proof: Option<http::HeaderValue>,
) -> Result<WebSocketStream<Outgoing>, End> {
    let mut request: Request<()> = url.into_client_request().map_err(broken)?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", http::HeaderValue::from_static(SUBPROTOCOL));
    if let Some(proof) = proof {
        request.headers_mut().insert(DEVICE_KEY_HEADER, proof);
    }
    let config = Some(settings(FRAME_BYTES_MAX));
    let (socket, response) =
        tokio_tungstenite::client_async_with_config(request, stream, config).await.map_err(broken)?;
    let chosen = response.headers().get("Sec-WebSocket-Protocol").and_then(|value| value.to_str().ok());
    if chosen != Some(SUBPROTOCOL) {
        return Err(End::WebSocket(format!(
            "the Switch chose the subprotocol {chosen:?}, wanted {SUBPROTOCOL:?}"
        )));
    }
    Ok(socket)
}
