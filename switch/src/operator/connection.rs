//! A peer's way to the gRPC listener: TLS, the check of its certificate, and the end of the connection with it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use muster_pki::Role;
use muster_service::admission::{Handshakes, Lobby, Place, Refused};
use muster_service::credentials::{PeerRefused, ServerCredentials};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream as _;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;

use super::shares::{Share, Shares};
use crate::config::OperatorLimits;
use crate::gate::Caller;
use crate::wall::Wall;
use crate::{metrics, refusal, wall};

/// Connections that wait for the server to take them; it takes them at once.
const ACCEPTED_MAX: usize = 16;

/// How long accepting rests when the process is out of descriptors or memory.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How long the certificate's end goes without a look at the wall clock, which may have been changed.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(60);

/// A connection whose peer is known.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    caller: Caller,
    credentials: Arc<ServerCredentials>,
    wall: Wall,
    /// Yields when what is trusted or revoked has changed since the handshake began.
    changes: WatchStream<u64>,
    certificate_end_ms: i64,
    look: Pin<Box<Sleep>>,
    /// Set once; from then on nothing is read or written.
    ended: Option<Ended>,
    _permit: OwnedSemaphorePermit,
    _share: Share,
}

/// Why the Switch ended a connection.
#[derive(Debug, Clone, thiserror::Error)]
enum Ended {
    /// C9 of trust.md.
    #[error("the peer's certificate has expired: renew it")]
    Expired,
    /// R3 of trust.md.
    #[error("the peer's certificate is no longer accepted: {0}")]
    Refused(PeerRefused),
}

impl Ended {
    /// Returns its name in metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Refused(_) => "refused",
        }
    }
}

/// What every connection passes on its way in.
#[derive(Debug)]
struct Door {
    credentials: Arc<ServerCredentials>,
    wall: Wall,
    lobby: Arc<Lobby>,
    handshakes: Arc<Handshakes>,
    /// Open connections; who is in a handshake is not among them.
    connections: Arc<Semaphore>,
    /// How many of them each certificate has.
    shares: Arc<Shares>,
    tls_deadline: Duration,
    accepted: mpsc::Sender<io::Result<Connection>>,
}

/// Accepts connections until `stop`, each in a task of its own until its peer is known.
pub(super) fn accept(
    listener: TcpListener,
    credentials: Arc<ServerCredentials>,
    wall: Wall,
    limits: &OperatorLimits,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> mpsc::Receiver<io::Result<Connection>> {
    let (accepted, connections) = mpsc::channel(ACCEPTED_MAX);
    let door = Arc::new(Door {
        credentials,
        wall,
        lobby: Lobby::new(limits.lobby()),
        handshakes: Handshakes::new(limits.handshakes_max, limits.handshakes_per_source_max),
        connections: Arc::new(Semaphore::new(usize::try_from(limits.connections_max).unwrap_or(usize::MAX))),
        shares: Shares::new(limits.connections_per_certificate_max),
        tls_deadline: limits.tls_deadline,
        accepted,
    });
    let newcomers = tasks.clone();
    tasks.spawn(async move {
        loop {
            let connection = async {
                door.handshakes.room().await;
                listener.accept().await
            };
            let Some(next) = stop.run_until_cancelled(connection).await else { return };
            let (stream, address) = match next {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "no operator connection could be accepted; see LimitNOFILE");
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            };
            match door.lobby.enter(address) {
                Ok(place) => {
                    let (door, stop) = (Arc::clone(&door), stop.clone());
                    newcomers.spawn(async move { door.admit(stream, address, place, &stop).await });
                }
                Err(refused) => turned_away(address, refused),
            }
        }
    });
    connections
}

/// Counts a connection that said nothing, or nothing that a handshake begins with.
fn turned_away(address: SocketAddr, refused: Refused) {
    metrics::handshake(metrics::Listener::Operators, refused.label());
    tracing::debug!(%address, %refused, "no handshake");
}

impl Door {
    /// Waits until there is something to shake hands about, does, and gives the connection to the server.
    async fn admit(
        &self,
        mut stream: TcpStream,
        address: SocketAddr,
        place: Place,
        stop: &CancellationToken,
    ) {
        let passing = place.pass(&mut stream, &self.handshakes, self.tls_deadline);
        let _permit = match stop.run_until_cancelled(passing).await {
            Some(Ok(permit)) => permit,
            Some(Err(refused)) => return turned_away(address, refused),
            None => return,
        };
        // A handshake that nobody ends must not hold up the stop.
        if let Some(Some(connection)) = stop.run_until_cancelled(self.shake(stream, address)).await
            && self.accepted.send(Ok(connection)).await.is_err()
        {
            tracing::debug!("the operator API closed before a connection reached it");
        }
    }

    async fn shake(&self, stream: TcpStream, address: SocketAddr) -> Option<Connection> {
        let listener = metrics::Listener::Operators;
        // Before the check, so that no change falls between the two.
        let changes = WatchStream::from_changes(self.credentials.rechecks());
        let handshake = async {
            stream.set_nodelay(true)?;
            TlsAcceptor::from(self.credentials.config()).accept(stream).await
        };
        let stream = match timeout(self.tls_deadline, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                if let Some(refused) = refusal::of_handshake(&error) {
                    metrics::handshake(listener, "certificate");
                    refusal::note(refused, address);
                } else {
                    metrics::handshake(listener, "tls");
                    tracing::info!(%address, %error, "operator connection refused");
                }
                return None;
            }
            Err(_) => {
                metrics::handshake(listener, "tls_deadline");
                return None;
            }
        };
        let roles = [Role::Operator, Role::Service];
        let chain = stream.get_ref().1.peer_certificates();
        let peer = match self.credentials.check_peer_role(chain, &roles, self.wall.now()) {
            Ok(peer) => peer,
            Err(refused) => {
                metrics::handshake(listener, "certificate");
                refusal::note(&refused, address);
                return None;
            }
        };
        let certificate = peer.certificate();
        let thumbprint = certificate.thumbprint();
        let Some(share) = self.shares.take(thumbprint) else {
            metrics::handshake(listener, "certificate_full");
            tracing::warn!(
                peer = peer.name(), %address,
                "connection closed: `operators.connections_per_certificate_max` of this certificate are open"
            );
            return None;
        };
        let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
            metrics::handshake(listener, "full");
            tracing::warn!(operator = peer.name(), %address, "connection closed: `operators.connections_max` are open");
            return None;
        };
        metrics::handshake(listener, "ok");
        let caller = Caller { role: peer.role(), name: peer.name().to_owned(), thumbprint, address };
        Some(Connection {
            stream,
            caller,
            credentials: Arc::clone(&self.credentials),
            wall: self.wall.clone(),
            changes,
            certificate_end_ms: wall::millis(certificate.not_after()),
            look: Box::pin(tokio::time::sleep(Duration::ZERO)),
            ended: None,
            _permit: permit,
            _share: share,
        })
    }
}

impl Connection {
    /// Ends the connection with its certificate: when it expires (C9 of trust.md), and when it is revoked or its root
    /// is no longer trusted (R3). Calls in progress, such as watches, end with the connection.
    ///
    /// Reading and writing both ask, because a server that waits for a full socket to take its answers reads nothing.
    fn check_certificate(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.ended.is_none() {
            self.ended = self.changed(context).or_else(|| self.expired(context));
            if let Some(ended) = &self.ended {
                metrics::operator_connection_ended(ended.label());
                let (operator, address) = (&self.caller.name, self.caller.address);
                tracing::warn!(operator, %address, %ended, "operator connection ended");
            }
        }
        self.ended
            .clone()
            .map_or(Ok(()), |ended| Err(io::Error::new(io::ErrorKind::ConnectionAborted, ended)))
    }

    fn changed(&mut self, context: &mut Context<'_>) -> Option<Ended> {
        while let Poll::Ready(Some(_)) = Pin::new(&mut self.changes).poll_next(context) {
            let chain = self.stream.get_ref().1.peer_certificates();
            if let Err(refused) =
                self.credentials.check_peer_role(chain, &[self.caller.role], self.wall.now())
            {
                refusal::note(&refused, self.caller.address);
                return Some(Ended::Refused(refused));
            }
        }
        None
    }

    fn expired(&mut self, context: &mut Context<'_>) -> Option<Ended> {
        while self.look.as_mut().poll(context).is_ready() {
            let left_ms = self.certificate_end_ms.saturating_sub(self.wall.now_ms());
            if left_ms <= 0 {
                return Some(Ended::Expired);
            }
            let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
            self.look.as_mut().reset(tokio::time::Instant::now() + left.min(CERTIFICATE_LOOK));
        }
        None
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_certificate(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_certificate(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_certificate(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
