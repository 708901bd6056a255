//! The way out over QUIC: UDP, the handshake and the check of the server, and a connection that follows its device to another address.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use quinn::{Connection, Endpoint, EndpointConfig, TokioRuntime};
use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};

use super::client_side::ClientCredentials;
use super::dial::{Address, Deadlines, DialError};
use super::error::PeerRefused;
use super::outgoing::refusal;
use super::verify::RefusedInHandshake;
use crate::{admission, quic};

/// Addresses of one name that are called.
const ADDRESSES_MAX: usize = 4;

/// How long each further address of a name waits for the one before it (RFC 8305 §8 has 250 ms for what takes a round trip; nobody answers
/// sooner over UDP that nobody listens to, and a road over TCP waits as well).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(50);

/// What a connection over QUIC is to be.
#[derive(Debug, Clone, Copy)]
pub struct QuicRoad<'a> {
    /// The protocol.
    pub alpn: &'a [u8],
    /// How often it says something, so that what stands between remembers it.
    pub keep_alive: Option<Duration>,
}

/// What [`dial_quic`] returns.
pub struct OutgoingQuic {
    endpoint: Endpoint,
    connection: Connection,
    refusal: Pin<Box<dyn Future<Output = PeerRefused> + Send>>,
    keep_alive: Option<Duration>,
    /// The address of this device that packets went out from at the last look.
    local: Option<IpAddr>,
    /// Datagrams that had come by then, and when there was one more.
    heard: (u64, Instant),
}

/// As [`super::dial`], over QUIC. It never says anything before the server was judged (no early data).
///
/// # Errors
/// As there.
pub async fn dial_quic(
    credentials: &Arc<ClientCredentials>,
    address: &Address,
    road: QuicRoad<'_>,
    deadlines: Deadlines,
) -> Result<OutgoingQuic, DialError> {
    if credentials.lacks_own() {
        let problem = credentials.problem().unwrap_or_else(|| "the store holds none that will do".to_owned());
        return Err(DialError::NoCertificate { address: address.clone(), problem });
    }
    let (mut endpoint, mut connection) = handshake(credentials, address, road, deadlines).await?;
    let mut judged = judge(credentials, address, &connection);
    if judged.is_err() {
        // The chain may be the one of the first handshake; the server may have another certificate by now.
        connection.close(0_u8.into(), b"");
        credentials.forget_tickets(&address.name);
        (endpoint, connection) = handshake(credentials, address, road, deadlines).await?;
        judged = judge(credentials, address, &connection);
    }
    match judged {
        Ok(()) => Ok(OutgoingQuic::new(endpoint, connection, credentials, address, road.keep_alive)),
        Err(refused) => Err(DialError::Refused { address: address.clone(), refused: Box::new(refused) }),
    }
}

fn judge(
    credentials: &ClientCredentials,
    address: &Address,
    connection: &Connection,
) -> Result<(), PeerRefused> {
    let chain = admission::chain(connection);
    credentials.check_server(chain.as_deref(), &address.name.to_str(), credentials.clock().now()).map(drop)
}

/// Shakes hands with the first of a name's addresses that answers.
async fn handshake(
    credentials: &ClientCredentials,
    address: &Address,
    road: QuicRoad<'_>,
    deadlines: Deadlines,
) -> Result<(Endpoint, Connection), DialError> {
    let late = |step, limit| DialError::Late { step, address: address.clone(), limit };
    let unreachable = |source| DialError::Tcp { address: address.clone(), source };
    let found = timeout(deadlines.connect, lookup_host((address.host(), address.port())))
        .await
        .map_err(|_elapsed| late("the look-up of the name", deadlines.connect))?
        .map_err(unreachable)?;
    let (tls, refused) = credentials.quic(road.alpn);
    let transport = Arc::new(quic::client_transport(road.keep_alive));
    let config = quic::client_config(tls, &transport).map_err(|error| {
        let source = io::Error::new(io::ErrorKind::InvalidData, error);
        DialError::Tls { address: address.clone(), source }
    })?;
    let name = address.name.to_str();
    let mut attempts: FuturesUnordered<_> = found
        .take(ADDRESSES_MAX)
        .zip(0_u32..)
        .map(|(remote, number)| {
            let (config, name) = (config.clone(), name.as_ref());
            async move {
                sleep(NEXT_ADDRESS_AFTER * number).await;
                attempt(remote, config, name).await
            }
        })
        .collect();
    let first = async {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        while let Some(attempted) = attempts.next().await {
            match attempted {
                Ok(connected) => return Ok(connected),
                // It is there and has no room: another road is taken sooner than another of its addresses answers.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    let connected =
        timeout(deadlines.tls, first).await.map_err(|_elapsed| late("the QUIC handshake", deadlines.tls))?;
    connected.map_err(|source| of_handshake(address, &refused, source))
}

fn of_handshake(address: &Address, refused: &RefusedInHandshake, source: io::Error) -> DialError {
    match refused.take() {
        Some(refused) => DialError::Refused { address: address.clone(), refused: Box::new(refused) },
        None => DialError::Tls { address: address.clone(), source },
    }
}

/// A socket of its own for each address: the kernel chooses the way, and another one when that changes.
async fn attempt(
    remote: SocketAddr,
    config: quinn::ClientConfig,
    name: &str,
) -> io::Result<(Endpoint, Connection)> {
    let endpoint =
        Endpoint::new(EndpointConfig::default(), None, socket_towards(remote)?, Arc::new(TokioRuntime))?;
    let connecting = endpoint.connect_with(config, remote, name).map_err(io::Error::other)?;
    let connection = connecting.await.map_err(quic::broken)?;
    Ok((endpoint, connection))
}

fn socket_towards(remote: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr =
        if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0))
}

/// Returns the address of this device that packets to `remote` leave from. Nothing is sent.
fn local_towards(remote: SocketAddr) -> Option<IpAddr> {
    let socket = socket_towards(remote).ok()?;
    socket.connect(remote).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

impl OutgoingQuic {
    fn new(
        endpoint: Endpoint,
        connection: Connection,
        credentials: &Arc<ClientCredentials>,
        address: &Address,
        keep_alive: Option<Duration>,
    ) -> Self {
        let chain = admission::chain(&connection).unwrap_or_default();
        let name = address.name.to_str().into_owned();
        let refusal = Box::pin(refusal(Arc::clone(credentials), chain, name));
        let local = local_towards(connection.remote_address());
        let heard = (connection.stats().udp_rx.datagrams, Instant::now());
        Self { endpoint, connection, refusal, keep_alive, local, heard }
    }

    /// Returns the connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Waits until the server is no longer accepted, as [`super::Outgoing`] does; not to be asked again then.
    pub fn poll_refused(&mut self, context: &mut Context<'_>) -> Poll<PeerRefused> {
        self.refusal.as_mut().poll(context).map(|refused| {
            tracing::warn!(%refused, "connection ended: the certificate of its server is no longer accepted");
            refused
        })
    }

    /// Looks whether packets leave from another address than before, or whether nothing has come for longer than two signs of life take; then goes
    /// on from a new socket, and the server follows. Returns whether it does. To be called every few seconds.
    ///
    /// # Errors
    /// There is no new socket; the one before stays.
    pub fn follow_address(&mut self, now: Instant) -> io::Result<bool> {
        let local = local_towards(self.connection.remote_address());
        let datagrams = self.connection.stats().udp_rx.datagrams;
        if datagrams != self.heard.0 {
            self.heard = (datagrams, now);
        }
        let has_moved = local.is_some() && local != self.local;
        let is_silent = self
            .keep_alive
            .is_some_and(|keep_alive| now.saturating_duration_since(self.heard.1) > keep_alive * 2);
        if !has_moved && !is_silent {
            return Ok(false);
        }
        self.local = local.or(self.local);
        self.heard.1 = now;
        self.rebind()?;
        Ok(true)
    }

    /// Goes on from a new socket.
    ///
    /// # Errors
    /// There is none; the one before stays.
    pub fn rebind(&self) -> io::Result<()> {
        self.endpoint.rebind(socket_towards(self.connection.remote_address())?)
    }

    /// Waits until the last packets have left.
    pub async fn flushed(&mut self) {
        self.endpoint.wait_idle().await;
    }
}

impl fmt::Debug for OutgoingQuic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OutgoingQuic").field("connection", &self.connection).finish_non_exhaustive()
    }
}
