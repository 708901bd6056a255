//! What QUIC connections are bound by, on both sides (promises.md, "Limits").

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, TransportConfig, TransportErrorCode,
    VarInt,
};
use rustls::AlertDescription;

/// What one side may send before the other has read, of a stream and of a connection, which has one stream.
const WINDOW_BYTES: u32 = 256 << 10;

/// As much of a client that was not welcomed yet. What is read makes room for more, so that only what lies behind a gap is bounded by it; anybody can
/// leave one, and never fill it.
const UNWELCOMED_WINDOW_BYTES: u32 = 32 << 10;

/// Codes of TLS's alerts begin here (RFC 9001 §4.8).
const ALERTS: u64 = 0x100;

/// Bytes of a connection's id at this side.
const ID_BYTES: usize = 8;

/// The least time between two stateless resets: after a restart a whole fleet says something within a keep-alive.
const RESET_INTERVAL: Duration = Duration::from_micros(50);

/// What a server's stateless resets are made with (RFC 9000 §10.3): with the key of its last run it tells clients at once that their connections
/// are gone.
#[derive(Clone, PartialEq, Eq)]
pub struct ResetKey(pub [u8; 32]);

/// Makes what a server's socket goes by.
#[must_use]
pub fn server_endpoint(key: &ResetKey) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &key.0)));
    // quinn's own ids are known again only by the run that made them.
    config.cid_generator(|| Box::new(RandomIds)).min_reset_interval(RESET_INTERVAL);
    config
}

/// Ids that tell nothing.
#[derive(Debug)]
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; ID_BYTES]>())
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

impl std::fmt::Debug for ResetKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ResetKey").finish_non_exhaustive()
    }
}

/// Makes the bounds of a server's connections: one stream, which the client opens, and no datagrams. One that is silent for `idle` is over. Until [`welcome`]
/// little may be under way.
#[must_use]
pub fn server_transport(idle: Duration) -> TransportConfig {
    let mut transport = transport();
    let idle = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
    transport.max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))));
    // Probes of the path's size would be sent to each of a fleet whose orders mostly fit one packet.
    transport.max_concurrent_bidi_streams(1_u8.into()).mtu_discovery_config(None);
    transport.receive_window(UNWELCOMED_WINDOW_BYTES.into());
    transport
}

/// Lets a client that was welcomed have as much under way as any.
pub fn welcome(connection: &quinn::Connection) {
    connection.set_receive_window(WINDOW_BYTES.into());
}

/// Makes the bounds of a client's connections; it says something every `keep_alive`, for what stands between to remember it. How long a connection may be
/// silent the server says: it knows how often it asks for a sign of life, and the shorter of two such times would count (RFC 9000 §10.1).
#[must_use]
pub fn client_transport(keep_alive: Option<Duration>) -> TransportConfig {
    let mut transport = transport();
    transport.max_idle_timeout(None);
    transport.max_concurrent_bidi_streams(0_u8.into()).keep_alive_interval(keep_alive);
    transport
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(0_u8.into())
        .stream_receive_window(WINDOW_BYTES.into())
        .receive_window(WINDOW_BYTES.into())
        .send_window(WINDOW_BYTES.into())
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0);
    transport
}

/// Returns the alert of TLS by which the peer ended a connection, if it was one.
#[must_use]
pub fn alert(error: &quinn::ConnectionError) -> Option<AlertDescription> {
    let quinn::ConnectionError::ConnectionClosed(close) = error else { return None };
    let code = u64::from(close.error_code).checked_sub(ALERTS)?;
    u8::try_from(code).ok().map(AlertDescription::from)
}

/// Makes an error of a connection one of the system's; an alert of the peer is inside as TLS over TCP would tell it, and a server that has no room for
/// the handshake (RFC 9000 §20.1, CONNECTION_REFUSED) has refused the connection.
#[must_use]
pub fn broken(error: quinn::ConnectionError) -> std::io::Error {
    match alert(&error) {
        Some(alert) => {
            std::io::Error::new(std::io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert))
        }
        None if is_refusal(&error) => std::io::Error::new(std::io::ErrorKind::ConnectionRefused, error),
        None => error.into(),
    }
}

fn is_refusal(error: &quinn::ConnectionError) -> bool {
    let quinn::ConnectionError::ConnectionClosed(close) = error else { return false };
    close.error_code == TransportErrorCode::CONNECTION_REFUSED
}

/// Makes what a server shakes hands by.
///
/// # Errors
/// The provider lacks the suite of QUIC's first packets.
pub fn server_config(
    tls: Arc<rustls::ServerConfig>,
    transport: &Arc<TransportConfig>,
) -> Result<quinn::ServerConfig, rustls::Error> {
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).map_err(no_suite)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::clone(transport));
    Ok(config)
}

/// Makes what a client shakes hands by.
///
/// # Errors
/// As [`server_config`].
pub fn client_config(
    tls: rustls::ClientConfig,
    transport: &Arc<TransportConfig>,
) -> Result<quinn::ClientConfig, rustls::Error> {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).map_err(no_suite)?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::clone(transport));
    Ok(config)
}

fn no_suite(error: quinn::crypto::rustls::NoInitialCipherSuite) -> rustls::Error {
    rustls::Error::General(error.to_string())
}

#[cfg(test)]
mod tests {
    use quinn::{ConnectionError, Endpoint, TokioRuntime};

    use super::*;
    use crate::line::tests::configs;

    const ALPN: &[u8] = b"test";

    #[tokio::test]
    async fn a_connection_is_over_when_the_server_says_so_and_not_before() {
        let (server, client) = endpoints(Duration::from_secs(150));
        let address = server.local_addr().unwrap();
        let (near, far) =
            tokio::join!(async { client.connect(address, "localhost").unwrap().await.unwrap() }, async {
                server.accept().await.unwrap().await.unwrap()
            });
        tokio::time::pause();

        tokio::time::sleep(Duration::from_secs(140)).await;
        assert_eq!((near.close_reason(), far.close_reason()), (None, None));
        tokio::time::sleep(Duration::from_secs(20)).await;

        assert_eq!(near.close_reason(), Some(ConnectionError::TimedOut));
        assert_eq!(far.close_reason(), Some(ConnectionError::TimedOut));
    }

    fn endpoints(idle: Duration) -> (Endpoint, Endpoint) {
        let endpoint = |server| {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime)).unwrap()
        };
        let (mut ours, mut theirs) = {
            let (server, client) = configs();
            (rustls::ServerConfig::clone(&server), rustls::ClientConfig::clone(&client))
        };
        (ours.alpn_protocols, theirs.alpn_protocols) = (vec![ALPN.to_vec()], vec![ALPN.to_vec()]);
        let ours = server_config(Arc::new(ours), &Arc::new(server_transport(idle))).unwrap();
        let mut client = endpoint(None);
        client.set_default_client_config(client_config(theirs, &Arc::new(client_transport(None))).unwrap());
        (endpoint(Some(ours)), client)
    }
}
