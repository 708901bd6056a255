//! A peer's way to the gRPC listener: TLS, the check of its certificate, and the end of the connection with it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use muster_pki::Role;
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

use crate::config::OperatorLimits;
use crate::gate::Caller;
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
    /// Yields when what is trusted or revoked has changed since the handshake began.
    changes: WatchStream<u64>,
    certificate_end_ms: i64,
    look: Pin<Box<Sleep>>,
    /// Set once; from then on nothing is read or written.
    ended: Option<Ended>,
    _permit: OwnedSemaphorePermit,
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

/// Accepts connections until `stop`, each with its handshake in a task of its own.
///
/// The permits bound handshakes and connections together: an operator who finds none waits in the kernel's backlog.
pub(super) fn accept(
    listener: TcpListener,
    credentials: Arc<ServerCredentials>,
    limits: &OperatorLimits,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> mpsc::Receiver<io::Result<Connection>> {
    let (accepted, connections) = mpsc::channel(ACCEPTED_MAX);
    let permits = Arc::new(Semaphore::new(usize::try_from(limits.connections_max).unwrap_or(usize::MAX)));
    let tls_deadline = limits.tls_deadline;
    let handshakes = tasks.clone();
    tasks.spawn(async move {
        loop {
            let connection = async {
                let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
                Some((listener.accept().await, permit))
            };
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                next = connection => next,
            };
            let Some((stream, permit)) = next else { return };
            let (stream, address) = match stream {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "no operator connection could be accepted; see LimitNOFILE");
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            };
            let (credentials, accepted) = (Arc::clone(&credentials), accepted.clone());
            handshakes.spawn(async move {
                if let Some(connection) = shake(stream, address, credentials, tls_deadline, permit).await
                    && accepted.send(Ok(connection)).await.is_err()
                {
                    tracing::debug!("the operator API closed before a connection reached it");
                }
            });
        }
    });
    connections
}

async fn shake(
    stream: TcpStream,
    address: SocketAddr,
    credentials: Arc<ServerCredentials>,
    tls_deadline: Duration,
    permit: OwnedSemaphorePermit,
) -> Option<Connection> {
    let listener = metrics::Listener::Operators;
    // Before the check, so that no change falls between the two.
    let changes = WatchStream::from_changes(credentials.changes());
    let handshake = async {
        stream.set_nodelay(true)?;
        TlsAcceptor::from(credentials.config()).accept(stream).await
    };
    let stream = match timeout(tls_deadline, handshake).await {
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
    let peer = match credentials.check_peer_role(stream.get_ref().1.peer_certificates(), &roles, wall::now())
    {
        Ok(peer) => peer,
        Err(refused) => {
            metrics::handshake(listener, "certificate");
            refusal::note(&refused, address);
            return None;
        }
    };
    metrics::handshake(listener, "ok");
    let certificate = peer.certificate();
    let name = peer.name().to_owned();
    let caller = Caller { role: peer.role(), name, thumbprint: certificate.thumbprint(), address };
    let certificate_end_ms = wall::millis(certificate.not_after());
    let look = Box::pin(tokio::time::sleep(Duration::ZERO));
    Some(Connection {
        stream,
        caller,
        credentials,
        changes,
        certificate_end_ms,
        look,
        ended: None,
        _permit: permit,
    })
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
            if let Err(refused) = self.credentials.check_peer_role(chain, &[self.caller.role], wall::now()) {
                refusal::note(&refused, self.caller.address);
                return Some(Ended::Refused(refused));
            }
        }
        None
    }

    fn expired(&mut self, context: &mut Context<'_>) -> Option<Ended> {
        while self.look.as_mut().poll(context).is_ready() {
            let left_ms = self.certificate_end_ms.saturating_sub(wall::now_ms());
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
