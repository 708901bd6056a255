//! A minimal client over QUIC: the handshake, one stream, items.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use muster_pki::DeviceKey;
use muster_pki::device_key::{EXPORTER_BYTES, EXPORTER_LABEL};
use muster_proto::frame::item;
use muster_proto::limits::FRAME_BYTES_MAX;
use muster_proto::session::quic::{ALPN, Close};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connecting, Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use rustls::ClientConfig;

use crate::world::{PATIENCE, SWITCH_NAME};

/// A connection with its stream.
pub(crate) struct QuicSocket {
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    receive: RecvStream,
    unread: Vec<u8>,
}

/// Why there is no session, as the Switch told it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) close: Option<Close>,
    pub(crate) text: String,
}

impl From<ConnectionError> for Denied {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self {
                close: Close::of_code(close.error_code.into_inner()),
                text: String::from_utf8(close.reason.to_vec()).unwrap(),
            },
            other => Self { close: None, text: other.to_string() },
        }
    }
}

/// Makes what a client over QUIC shakes hands by; tickets are those of `tls`.
pub(crate) fn quic_config(tls: &ClientConfig) -> quinn::ClientConfig {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

/// Begins a handshake.
pub(crate) fn begin(address: SocketAddr, tls: &ClientConfig) -> (Endpoint, Connecting) {
    begin_with(address, quic_config(tls))
}

fn begin_with(address: SocketAddr, config: quinn::ClientConfig) -> (Endpoint, Connecting) {
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(config, address, SWITCH_NAME).unwrap();
    (endpoint, connecting)
}

/// Opens a connection with its stream; nothing is said.
pub(crate) async fn dial_quic(address: SocketAddr, tls: &ClientConfig) -> Result<QuicSocket, Denied> {
    dial_quic_with(address, quic_config(tls)).await
}

/// As [`dial_quic`], with bounds of one's own.
pub(crate) async fn dial_quic_with(
    address: SocketAddr,
    config: quinn::ClientConfig,
) -> Result<QuicSocket, Denied> {
    let (endpoint, connecting) = begin_with(address, config);
    let connection = tokio::time::timeout(PATIENCE, connecting).await.unwrap()?;
    let (send, receive) = connection.open_bi().await?;
    Ok(QuicSocket { endpoint, connection, send, receive, unread: Vec::new() })
}

impl QuicSocket {
    /// Tells the Switch that nothing more of the stream is read.
    pub(crate) fn stop_reading(&mut self) {
        self.receive.stop(0_u32.into()).unwrap();
    }

    pub(crate) fn proof(&self, key: &DeviceKey) -> String {
        let mut exported = [0; EXPORTER_BYTES];
        self.connection.export_keying_material(&mut exported, EXPORTER_LABEL, &[]).unwrap();
        key.prove(&exported)
    }

    pub(crate) async fn send(&mut self, frame: &[u8]) -> Result<(), Denied> {
        let mut bytes = Vec::new();
        item::put(&mut bytes, frame);
        self.send.write_all(&bytes).await.map_err(|error| self.ended(&error))
    }

    /// Returns the next item; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Denied> {
        loop {
            if let Some(place) = item::first(&self.unread, FRAME_BYTES_MAX).unwrap() {
                let end = place.end;
                let frame = Bytes::copy_from_slice(&self.unread[place]);
                self.unread.drain(..end);
                return Ok(Some(frame));
            }
            let read = self.receive.read_chunk(64 << 10, true).await;
            match read.map_err(|error| self.ended(&error))? {
                Some(chunk) => self.unread.extend_from_slice(&chunk.bytes),
                None => return Ok(None),
            }
        }
    }

    fn ended(&self, error: &dyn std::error::Error) -> Denied {
        match self.connection.close_reason() {
            Some(reason) => reason.into(),
            None => Denied { close: None, text: error.to_string() },
        }
    }
}
