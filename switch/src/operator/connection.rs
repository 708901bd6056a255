//! A peer's way to the gRPC listener: TLS, the check of its certificate, and the end of the connection with it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use muster_pki::{Role, Thumbprint};
use muster_service::admission::{
    self, Admitted, Entrance, Full, Handshakes, Lobby, Newcomer, Places, Spare, Taken,
};
use muster_service::credentials::{Peer, PeerRefused, ServerCredentials};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream as _;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;

use crate::config::OperatorLimits;
use crate::gate::Caller;
use crate::refusals::Refusals;
use crate::wall::Wall;
use crate::{metrics, refusal, wall};

/// Connections that wait for the server to take them; it takes them at once.
const ACCEPTED_MAX: usize = 16;

/// How long the certificate's end goes without a look at the wall clock, which may have been changed.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(60);

/// A connection whose peer is known.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    caller: Caller,
    credentials: Arc<ServerCredentials>,
    refusals: Arc<Refusals>,
    wall: Wall,
    /// Yields when what is trusted or revoked has changed since the handshake began.
    changes: WatchStream<u64>,
    certificate_end_ms: i64,
    look: Pin<Box<Sleep>>,
    /// Set once; from then on nothing is read or written.
    ended: Option<Ended>,
    _taken: Taken<Thumbprint>,
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
    entrance: Entrance,
    wall: Wall,
    /// Open connections; who is in a handshake is not among them.
    places: Places<Thumbprint>,
    refusals: Arc<Refusals>,
    accepted: mpsc::Sender<io::Result<Connection>>,
}

/// Accepts connections until `stop`, each in a task of its own until its peer is known.
pub(super) fn accept(
    listener: TcpListener,
    credentials: Arc<ServerCredentials>,
    wall: Wall,
    limits: &OperatorLimits,
    refusals: Arc<Refusals>,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> mpsc::Receiver<io::Result<Connection>> {
    let (accepted, connections) = mpsc::channel(ACCEPTED_MAX);
    let (listed, told_by) = (Arc::clone(&refusals), wall.clone());
    let entrance = Entrance {
        lobby: Lobby::new(limits.lobby()),
        handshakes: Handshakes::new(limits.handshakes_max, limits.handshakes_per_source_max),
        tls_deadline: limits.tls_deadline,
        credentials,
        roles: &[Role::Operator, Role::Service],
        answer: None,
        spare: Spare::new(),
        stop,
        tell: Box::new(move |why, address| {
            let now_ms = told_by.now_ms();
            refusal::turned_away(&listed, metrics::Listener::Operators, why, address, now_ms);
        }),
    };
    let places = Places::new(limits.connections_max, limits.connections_per_certificate_max);
    let door = Arc::new(Door { entrance, wall, places, refusals, accepted });
    let newcomers = tasks.clone();
    tasks.spawn(async move {
        while let Some(newcomer) = door.entrance.newcomer(&listener).await {
            let door = Arc::clone(&door);
            newcomers.spawn(async move { door.admit(newcomer).await });
        }
    });
    connections
}

impl Door {
    /// Lets a connection in, and gives it to the server.
    async fn admit(&self, newcomer: Newcomer) {
        let Some(admitted) = self.entrance.admit(newcomer).await else { return };
        let Admitted { stream, address, peer, changes, permit: _permit } = admitted;
        let certificate = peer.certificate();
        let thumbprint = certificate.thumbprint();
        let taken = match self.places.take(Some(thumbprint)) {
            Ok(taken) => taken,
            Err(full) => {
                no_place(full, &peer, address);
                // With a `close_notify`, by which the operator's command knows that it was turned away.
                return admission::end(stream).await;
            }
        };
        metrics::handshake(metrics::Listener::Operators, "ok");
        let caller = Caller { role: peer.role(), name: peer.name().to_owned(), thumbprint, address };
        let connection = Connection {
            stream,
            caller,
            credentials: Arc::clone(&self.entrance.credentials),
            refusals: Arc::clone(&self.refusals),
            wall: self.wall.clone(),
            changes: WatchStream::from_changes(changes),
            certificate_end_ms: wall::millis(certificate.not_after()),
            look: Box::pin(tokio::time::sleep(Duration::ZERO)),
            ended: None,
            _taken: taken,
        };
        let given = self.entrance.stop.run_until_cancelled(self.accepted.send(Ok(connection))).await;
        if given.is_some_and(|given| given.is_err()) {
            tracing::debug!("the operator API closed before a connection reached it");
        }
    }
}

/// Counts and logs a peer beyond the connections that may be open.
fn no_place(full: Full, peer: &Peer, address: SocketAddr) {
    let (outcome, key) = match full {
        Full::Share => ("certificate_full", "operators.connections_per_certificate_max"),
        Full::All => ("full", "operators.connections_max"),
    };
    metrics::handshake(metrics::Listener::Operators, outcome);
    tracing::warn!(peer = peer.name(), %address, "connection closed: as many as `{key}` allows are open");
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
                let (listener, now_ms) = (metrics::Listener::Operators, self.wall.now_ms());
                refusal::note(&self.refusals, listener, refused.told(), self.caller.address, now_ms);
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
