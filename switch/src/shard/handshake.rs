//! A client's way in: TLS, the check of its certificate, the WebSocket upgrade. Each step has its deadline.

use std::io;
use std::net::SocketAddr;

use muster_pki::{DeviceId, Role, Thumbprint};
use muster_proto::session::{PATH, SUBPROTOCOL};
use muster_service::credentials::{PathElement, Peer, PeerRefused};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error as UpgradeError;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::Shard;
use crate::config::SessionLimits;
use crate::registry::{NoRoom, Room};
use crate::{refusal, wall};

/// A client's socket.
pub(super) type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Bytes that tungstenite gathers before it writes by itself. Its buffer keeps its capacity for the session's life, and
/// several small frames still leave in one write.
const WRITE_BUFFER_BYTES: usize = 4 << 10;

/// Room in the write buffer beyond one frame of the largest size.
const WRITE_BUFFER_SPARE_BYTES: usize = 64 << 10;

/// A client that may have a session.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Its socket, upgraded.
    pub(super) socket: Socket,
    /// Who it is.
    pub(super) visitor: Visitor,
    /// What may be revoked of its certificate.
    pub(super) path: Vec<PathElement>,
    /// Its place among the sessions the Switch may hold.
    pub(super) room: Room,
}

/// Who a client is: what its session keeps of its certificate.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// The device.
    pub(super) device: DeviceId,
    /// SHA-256 of its certificate.
    pub(super) thumbprint: Thumbprint,
    /// When its certificate ends, milliseconds since 1970.
    pub(super) not_after_ms: i64,
    /// Where it connected from.
    pub(super) address: SocketAddr,
}

impl Visitor {
    /// Keeps what is needed; `None` for a peer that is no device.
    fn new(peer: &Peer, address: SocketAddr) -> Option<Self> {
        let certificate = peer.certificate();
        Some(Self {
            device: peer.device_id()?.clone(),
            thumbprint: certificate.thumbprint(),
            not_after_ms: wall::millis(certificate.not_after()),
            address,
        })
    }
}

/// Why a client has no session.
#[derive(Debug, thiserror::Error)]
pub(super) enum Rejected {
    /// TLS took too long, counted from its first byte.
    #[error("the TLS handshake took longer than `sessions.tls_deadline`")]
    TlsDeadline,
    /// TLS did not come to be; the certificate may be at fault.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// The certificate breaks a rule.
    #[error("{0}")]
    Certificate(PeerRefused),
    /// The certificate is good and names no device.
    #[error("the certificate names no device")]
    Nameless,
    /// The upgrade took too long.
    #[error("the WebSocket upgrade took longer than `sessions.upgrade_deadline`")]
    UpgradeDeadline,
    /// The upgrade was refused, or was none.
    #[error("WebSocket upgrade: {0}")]
    Upgrade(Box<UpgradeError>),
    /// The Switch, or the device, has all the sessions it may.
    #[error("{0}")]
    NoRoom(NoRoom),
}

impl Rejected {
    /// Returns its name in metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::TlsDeadline => "tls_deadline",
            Self::Tls(_) => "tls",
            Self::Certificate(_) | Self::Nameless => "certificate",
            Self::UpgradeDeadline => "upgrade_deadline",
            Self::Upgrade(_) => "upgrade",
            Self::NoRoom(NoRoom::Full) => "full",
            Self::NoRoom(NoRoom::DeviceFull) => "device_full",
        }
    }
}

/// Takes a connection in.
///
/// # Errors
/// Why it got no session.
pub(super) async fn admit(
    shard: &Shard,
    stream: TcpStream,
    address: SocketAddr,
) -> Result<Admitted, Rejected> {
    let limits = &shard.config.sessions;
    // Small frames leave at once: an order is not held back for the ack of the one before.
    stream.set_nodelay(true).map_err(Rejected::Tls)?;
    let acceptor = TlsAcceptor::from(shard.credentials.config());
    let tls = timeout(limits.tls_deadline, acceptor.accept(stream))
        .await
        .map_err(|_| Rejected::TlsDeadline)?
        .map_err(|error| match refusal::of_handshake(&error) {
            Some(refused) => Rejected::Certificate(refused.clone()),
            None => Rejected::Tls(error),
        })?;
    // A resumed session never meets the verifier, so everyone is looked at here (R2 of trust.md).
    let certificates = tls.get_ref().1.peer_certificates();
    let peer = shard
        .credentials
        .check_peer_role(certificates, &[Role::Device], shard.wall.now())
        .map_err(Rejected::Certificate)?;
    let visitor = Visitor::new(&peer, address).ok_or(Rejected::Nameless)?;
    let path = peer.path();
    let room = shard.registry.admit(&visitor.device);
    let no_room = room.as_ref().err().copied();
    let answer = answer(no_room, limits.retry_after.as_secs());
    let upgrade = tokio_tungstenite::accept_hdr_async_with_config(tls, answer, Some(socket_config(limits)));
    let socket = timeout(limits.upgrade_deadline, upgrade)
        .await
        .map_err(|_| Rejected::UpgradeDeadline)?
        .map_err(|error| no_room.map_or_else(|| Rejected::Upgrade(Box::new(error)), Rejected::NoRoom))?;
    let room = room.map_err(Rejected::NoRoom)?;
    Ok(Admitted { socket, visitor, path, room })
}

fn socket_config(limits: &SessionLimits) -> WebSocketConfig {
    let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    WebSocketConfig::default()
        .read_buffer_size(bytes(limits.read_buffer_bytes))
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(
            WRITE_BUFFER_BYTES + WRITE_BUFFER_SPARE_BYTES + muster_proto::limits::FRAME_BYTES_MAX,
        )
        .max_message_size(Some(bytes(limits.message_bytes_max)))
        .max_frame_size(Some(bytes(limits.message_bytes_max)))
}

/// Answers the upgrade. A client for whom there is no room is told so by HTTP, where a delay has its header.
#[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
fn answer(
    no_room: Option<NoRoom>,
    retry_after_s: u64,
) -> impl FnOnce(&Request, Response) -> Result<Response, ErrorResponse> {
    move |request, mut response| {
        if request.uri().path() != PATH {
            return Err(refusal(StatusCode::NOT_FOUND, &format!("sessions are at {PATH}")));
        }
        if !offers_subprotocol(request) {
            return Err(refusal(StatusCode::BAD_REQUEST, &format!("offer the subprotocol {SUBPROTOCOL}")));
        }
        if let Some(no_room) = no_room {
            let mut refusal = refusal(StatusCode::SERVICE_UNAVAILABLE, &no_room.to_string());
            refusal.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
            return Err(refusal);
        }
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        Ok(response)
    }
}

fn offers_subprotocol(request: &Request) -> bool {
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
    offered
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim() == SUBPROTOCOL)
}

fn refusal(status: StatusCode, text: &str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(format!("{text}\n")));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_the_path_and_subprotocol_of_the_protocol() {
        let response = answer(None, 30)(&request(PATH, "other, muster.v1"), Response::new(())).unwrap();

        assert_eq!(response.headers()[header::SEC_WEBSOCKET_PROTOCOL], SUBPROTOCOL);
    }

    #[test]
    fn refuses_another_path_or_subprotocol_with_the_right_one_named() {
        let path = answer(None, 30)(&request("/", SUBPROTOCOL), Response::new(())).unwrap_err();
        let subprotocol = answer(None, 30)(&request(PATH, "muster.v2"), Response::new(())).unwrap_err();

        assert_eq!((path.status(), subprotocol.status()), (StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST));
        assert_eq!(subprotocol.body().as_deref(), Some("offer the subprotocol muster.v1\n"));
    }

    #[test]
    fn tells_a_client_when_to_come_back_if_there_is_no_room() {
        let full =
            answer(Some(NoRoom::Full), 30)(&request(PATH, SUBPROTOCOL), Response::new(())).unwrap_err();

        assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(full.headers()[header::RETRY_AFTER], "30");
    }

    fn request(path: &str, subprotocols: &str) -> Request {
        Request::builder().uri(path).header(header::SEC_WEBSOCKET_PROTOCOL, subprotocols).body(()).unwrap()
    }
}
