//! [`QuicEntrance`]: the way in of a QUIC listener, from the first datagram to a peer whose certificate was judged.
//!
//! Nobody waits here: a client that finds no room is told so at once, and has another road. From half of the bound on, of the whole or of its source, who comes
//! first shows that it is where it says (a stateless Retry, RFC 9000 §8.1.2), so that forged addresses take no more room than that, and no more from whoever is
//! there.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_pki::{CertificateDer, Role};
use quinn::{Connection, Endpoint, Incoming, TransportConfig, VarInt};
use rustls::ServerConfig;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Answer, Full, Places, Refused, Source, Taken, Tell, TurnedAway};
use crate::credentials::{ClientCertificate, Peer, ServerCredentials};
use crate::quic;

/// What every connection of a QUIC listener passes: room for a handshake, TLS, the check of its certificate.
pub struct QuicEntrance {
    /// The socket.
    pub endpoint: Endpoint,
    /// The handshakes in progress, and how many there may be.
    pub handshakes: QuicHandshakes,
    /// From the first datagram to the end of the handshake.
    pub tls_deadline: Duration,
    /// What handshakes are made by.
    pub configs: QuicConfigs,
    /// Who may come in.
    pub roles: &'static [Role],
    /// What a peer is told whose certificate is not taken, and by which code.
    pub answer: Answer,
    /// The code beside that answer.
    pub refused_code: VarInt,
    /// Nobody is let in any more.
    pub stop: CancellationToken,
    /// Hears of everyone who is turned away, once.
    pub tell: Tell,
    /// Hears of everyone who is asked to show its address first.
    pub retried: fn(),
}

/// The endpoint of a QUIC listener failed: nobody comes by it any more, and no connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint of QUIC failed, and with it every connection; start the program again")]
pub struct EndpointFailed;

/// The handshakes that one listener may have in progress.
#[derive(Debug)]
pub struct QuicHandshakes {
    places: Places<Source>,
    /// From so many on, addresses are validated first.
    retry_from: usize,
    /// From so many of a source on, its are.
    retry_source_from: u32,
}

/// What handshakes are made by: made anew when the credentials change.
pub struct QuicConfigs {
    credentials: Arc<ServerCredentials>,
    alpn: Vec<u8>,
    transport: Arc<TransportConfig>,
    made: Mutex<Option<(Arc<ServerConfig>, Arc<quinn::ServerConfig>)>>,
}

/// Who has room for a handshake.
#[derive(Debug)]
pub struct QuicNewcomer {
    incoming: Incoming,
    /// Where it is from.
    pub address: SocketAddr,
    place: Taken<Source>,
}

/// A connection whose peer was judged.
#[derive(Debug)]
pub struct QuicAdmitted {
    /// The connection.
    pub connection: Connection,
    /// Where it was from.
    pub address: SocketAddr,
    /// Who it is; `None`: who shows no certificate where none is required.
    pub peer: Option<Peer>,
    /// Its handshake; the next has room when it is dropped.
    pub place: Taken<Source>,
}

impl QuicHandshakes {
    /// Lets `max` be in progress, of one source `per_source_max`.
    #[must_use]
    pub fn new(max: u32, per_source_max: u32) -> Self {
        let retry_from = usize::try_from(max / 2).unwrap_or(usize::MAX);
        Self { places: Places::new(max, per_source_max), retry_from, retry_source_from: per_source_max / 2 }
    }

    fn is_busy(&self, address: SocketAddr) -> bool {
        self.places.taken() >= self.retry_from
            || self.places.taken_by(&address.into()) >= self.retry_source_from
    }

    fn take(&self, address: SocketAddr) -> Result<Taken<Source>, Refused> {
        self.places.take(Some(address.into())).map_err(|full| match full {
            Full::Share => Refused::SourceHandshakesFull,
            Full::All => Refused::HandshakesFull,
        })
    }
}

impl QuicConfigs {
    /// Begins with the credentials as they are.
    #[must_use]
    pub fn new(credentials: Arc<ServerCredentials>, alpn: &[u8], transport: TransportConfig) -> Self {
        Self { credentials, alpn: alpn.to_vec(), transport: Arc::new(transport), made: Mutex::new(None) }
    }

    /// Returns what the next handshake is made by.
    ///
    /// # Errors
    /// TLS cannot be spoken with these credentials.
    pub fn current(&self) -> Result<Arc<quinn::ServerConfig>, rustls::Error> {
        let tls = self.credentials.config();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, config)) = &*made
            && Arc::ptr_eq(of, &tls)
        {
            return Ok(Arc::clone(config));
        }
        let own = Arc::new(self.credentials.quic(&tls, &self.alpn)?);
        let config = Arc::new(quic::server_config(own, &self.transport)?);
        *made = Some((tls, Arc::clone(&config)));
        Ok(config)
    }
}

impl QuicEntrance {
    /// Waits for the next client that has room for its handshake; `None` when it is time to stop.
    ///
    /// # Errors
    /// Nobody will come any more, and it is not time to stop.
    pub async fn newcomer(&self) -> Result<Option<QuicNewcomer>, EndpointFailed> {
        loop {
            let Some(incoming) = next(&self.endpoint, &self.stop).await? else { return Ok(None) };
            let address = incoming.remote_address();
            if self.handshakes.is_busy(address) && !incoming.remote_address_validated() {
                (self.retried)();
                // It may be retried, since it was not validated.
                drop(incoming.retry());
                continue;
            }
            match self.handshakes.take(address) {
                Ok(place) => return Ok(Some(QuicNewcomer { incoming, address, place })),
                Err(refused) => {
                    (self.tell)(&refused.into(), Some(address));
                    incoming.refuse();
                }
            }
        }
    }

    /// Refuses whoever comes, until the endpoint is closed, which refuses them itself: they take another road at once.
    pub async fn refuse_all(&self) {
        while let Some(incoming) = self.endpoint.accept().await {
            incoming.refuse();
        }
    }

    /// Shakes hands and judges the peer. `None` if it was turned away, or it is time to stop.
    pub async fn admit_anyone(&self, newcomer: QuicNewcomer) -> Option<QuicAdmitted> {
        self.stop.run_until_cancelled(self.judge(newcomer)).await?
    }

    async fn judge(&self, newcomer: QuicNewcomer) -> Option<QuicAdmitted> {
        let QuicNewcomer { incoming, address, place } = newcomer;
        let turn_away = |why: TurnedAway| (self.tell)(&why, Some(address));
        let shaking = async {
            let config =
                self.configs.current().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            incoming.accept_with(config).map_err(quic::broken)?.await.map_err(quic::broken)
        };
        let connection = match timeout(self.tls_deadline, shaking).await {
            Err(_) => return turn_away_none(turn_away, TurnedAway::TlsDeadline),
            Ok(Err(error)) => return turn_away_none(turn_away, TurnedAway::Tls(error)),
            Ok(Ok(connection)) => connection,
        };
        // Nobody was judged in the handshake, and a resumed one shows what the one before did.
        let credentials = &self.configs.credentials;
        let chain = chain(&connection);
        let may_be_nobody = credentials.asks() != ClientCertificate::Required;
        if may_be_nobody && chain.as_ref().is_none_or(Vec::is_empty) {
            return Some(QuicAdmitted { connection, address, peer: None, place });
        }
        match credentials.check_peer_role(chain.as_deref(), self.roles, credentials.clock().now()) {
            Ok(peer) => Some(QuicAdmitted { connection, address, peer: Some(peer), place }),
            Err(refused) => {
                connection.close(self.refused_code, &(self.answer)(&refused));
                turn_away_none(turn_away, TurnedAway::Certificate(refused))
            }
        }
    }
}

/// Waits for the next client; `None`: it is time to stop.
async fn next(endpoint: &Endpoint, stop: &CancellationToken) -> Result<Option<Incoming>, EndpointFailed> {
    match stop.run_until_cancelled(endpoint.accept()).await {
        Some(None) if !stop.is_cancelled() => Err(EndpointFailed),
        Some(incoming) => Ok(incoming),
        None => Ok(None),
    }
}

fn turn_away_none<T>(turn_away: impl Fn(TurnedAway), why: TurnedAway) -> Option<T> {
    turn_away(why);
    None
}

/// Returns the chain that the peer of a connection showed, or showed when the session began that this one resumes.
#[must_use]
pub fn chain(connection: &Connection) -> Option<Vec<CertificateDer<'static>>> {
    connection.peer_identity()?.downcast().ok().map(|chain| *chain)
}

impl fmt::Debug for QuicConfigs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("QuicConfigs").field("alpn", &self.alpn).finish_non_exhaustive()
    }
}

impl fmt::Debug for QuicEntrance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("QuicEntrance").field("roles", &self.roles).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use quinn::udp::{RecvMeta, Transmit};
    use quinn::{AsyncUdpSocket, EndpointConfig, TokioRuntime, UdpPoller};

    use super::*;

    /// A socket from which the system gives nothing but errors.
    #[derive(Debug)]
    struct Failing;

    impl AsyncUdpSocket for Failing {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            Box::pin(Self)
        }

        fn try_send(&self, _transmit: &Transmit<'_>) -> io::Result<()> {
            Err(io::ErrorKind::NetworkDown.into())
        }

        fn poll_recv(
            &self,
            _context: &mut Context<'_>,
            _buffers: &mut [io::IoSliceMut<'_>],
            _meta: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::NetworkDown.into()))
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(SocketAddr::from(([127, 0, 0, 1], 1)))
        }
    }

    impl UdpPoller for Failing {
        fn poll_writable(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::NetworkDown.into()))
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_failed_is_no_stop() {
        let (socket, stop) = (Arc::new(Failing), CancellationToken::new());
        let config = EndpointConfig::default();
        let endpoint =
            Endpoint::new_with_abstract_socket(config, None, socket, Arc::new(TokioRuntime)).unwrap();

        assert_eq!(next(&endpoint, &stop).await.map(drop), Err(EndpointFailed));
        stop.cancel();
        assert_eq!(next(&endpoint, &stop).await.map(drop), Ok(()));
    }
}
