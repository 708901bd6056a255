//! By which road a session of the fake Switch comes.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use muster_pki::device_key::{EXPORTER_BYTES, EXPORTER_LABEL};
use muster_proto::frame::item;
use muster_proto::limits::FRAME_BYTES_MAX;
use muster_proto::session::quic::ALPN;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// A session's frames.
pub(crate) enum Road {
    WebSocket(Box<WebSocketStream<TlsStream<TcpStream>>>),
    Quic(Box<QuicRoad>),
}

/// The stream of a connection.
pub(crate) struct QuicRoad {
    pub(crate) connection: Connection,
    send: SendStream,
    receive: RecvStream,
    unread: Vec<u8>,
}

impl Road {
    /// Returns the next frame; `None`: the client has left.
    pub(crate) async fn hear(&mut self) -> Option<Bytes> {
        match self {
            Self::WebSocket(socket) => match socket.next().await {
                Some(Ok(Message::Binary(bytes))) => Some(bytes),
                Some(Ok(Message::Close(_)) | Err(_)) | None => None,
                Some(other) => panic!("{other:?}"),
            },
            Self::Quic(road) => road.hear().await,
        }
    }

    pub(crate) async fn tell(&mut self, frame: Bytes) {
        match self {
            Self::WebSocket(socket) => socket.send(Message::Binary(frame)).await.unwrap(),
            Self::Quic(road) => {
                let mut bytes = Vec::new();
                item::put(&mut bytes, &frame);
                road.send.write_all(&bytes).await.unwrap();
            }
        }
    }
}

impl QuicRoad {
    /// Waits for a client that opens its stream; `None`: it did not.
    pub(crate) async fn accept(endpoint: &Endpoint) -> Option<Self> {
        let connection = endpoint.accept().await.unwrap().await.ok()?;
        let (send, receive) = connection.accept_bi().await.ok()?;
        Some(Self { connection, send, receive, unread: Vec::new() })
    }

    pub(crate) async fn hear(&mut self) -> Option<Bytes> {
        loop {
            if let Some(place) = item::first(&self.unread, FRAME_BYTES_MAX).unwrap() {
                let end = place.end;
                let frame = Bytes::copy_from_slice(&self.unread[place]);
                self.unread.drain(..end);
                return Some(frame);
            }
            self.unread.extend_from_slice(&self.receive.read_chunk(64 << 10, true).await.ok()??.bytes);
        }
    }

    pub(crate) fn exported(&self) -> [u8; EXPORTER_BYTES] {
        let mut exported = [0; EXPORTER_BYTES];
        self.connection.export_keying_material(&mut exported, EXPORTER_LABEL, &[]).unwrap();
        exported
    }
}

/// Listens for QUIC where somebody may listen for TCP; `None`: somebody else has the port.
pub(crate) fn endpoint(tls: &ServerConfig, address: SocketAddr) -> Option<Endpoint> {
    Endpoint::server(config(tls), address).ok()
}

/// What an endpoint shakes hands by.
pub(crate) fn config(tls: &ServerConfig) -> quinn::ServerConfig {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()))
}
