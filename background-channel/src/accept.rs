//! Connections: TLS, the check of the certificate, then HTTP/1.1 or 2 by ALPN. Every stage has a deadline.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use muster_pki::{CertificateDer, UnixTime};
use muster_service::admission::{Handshakes, Lobby, Place, Refused};
use muster_service::credentials::{Peer, PeerRefused, ServerCredentials};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use crate::metrics;
use crate::per_device::PerDevice;

/// Request lines and headers together (promises.md, HTTP).
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Headers of an HTTP/2 request.
const H2_HEADER_BYTES_MAX: u32 = 16 * 1024;
/// One frame of a put. Each is handed to a blocking thread by itself, which is too much of it for the default of 16 KiB.
const H2_FRAME_BYTES_MAX: u32 = 256 * 1024;
/// A pause after an accept that failed for want of descriptors, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a refused peer has to take the alert. A round trip around the world takes 0.4 s.
const LINGER: Duration = Duration::from_secs(3);
/// What a refused peer may still send meanwhile: what a kernel's send buffer holds, and more.
const LINGER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// One read of what nobody looks at.
const LINGER_READ_BYTES: usize = 16 * 1024;

/// How long the certificate's end goes without a look at the wall clock, which may have been changed.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(60);

/// What every connection needs.
pub(crate) struct Acceptor {
    pub(crate) credentials: Arc<ServerCredentials>,
    pub(crate) router: Router,
    pub(crate) limits: Limits,
    pub(crate) cancelled: CancellationToken,
    pub(crate) connections: TaskTracker,
}

impl Acceptor {
    /// Accepts until cancelled; open connections then finish what they are at.
    pub(crate) async fn run(self, listener: TcpListener) {
        let places = Places {
            all: Arc::new(Semaphore::new(self.limits.connections_max)),
            per_device: PerDevice::new(self.limits.connections_per_device_max),
        };
        let lobby = Lobby::new(self.limits.lobby());
        let handshakes = Handshakes::new(self.limits.handshakes_max, self.limits.handshakes_per_source_max);
        let this = Arc::new(self);
        loop {
            let connection = async {
                handshakes.room().await;
                listener.accept().await
            };
            let Some(accepted) = this.cancelled.run_until_cancelled(connection).await else { return };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match lobby.enter(address) {
                Ok(place) => {
                    let newcomer = Newcomer { stream, address, place };
                    let (connection, handshakes, places) =
                        (Arc::clone(&this), Arc::clone(&handshakes), places.clone());
                    this.connections.spawn(async move {
                        connection.admit(newcomer, &handshakes, places).await;
                    });
                }
                Err(refused) => turned_away(address, refused),
            }
        }
    }

    /// Waits until there is something to shake hands about, does, and serves who is let in.
    async fn admit(&self, newcomer: Newcomer, handshakes: &Arc<Handshakes>, places: Places) {
        let Newcomer { mut stream, address, place } = newcomer;
        let passing = place.pass(&mut stream, handshakes, self.limits.tls_deadline);
        let permit = match self.cancelled.run_until_cancelled(passing).await {
            Some(Ok(permit)) => permit,
            Some(Err(refused)) => return turned_away(address, refused),
            None => return,
        };
        // Before the check, so that no change falls between the two.
        let changes = self.credentials.rechecks();
        let (stream, peer) = match self.handshake(stream).await {
            Ok(accepted) => accepted,
            Err(Refusal { cause, detail }) => {
                metrics::refused(cause);
                tracing::info!(%address, cause, detail, "connection refused");
                return;
            }
        };
        drop(permit);
        let of_device = peer.device_id().map(|device| places.per_device.enter(device));
        if matches!(of_device, Some(None)) {
            metrics::refused("device_full");
            tracing::debug!(%address, device = peer.name(), "the device has all the connections that it may");
            return;
        }
        let Ok(_place) = places.all.try_acquire_owned() else {
            metrics::refused("full");
            return;
        };
        self.serve(stream, address, peer, changes).await;
    }

    async fn serve(
        &self,
        stream: TlsStream<TcpStream>,
        address: SocketAddr,
        peer: Peer,
        changes: watch::Receiver<u64>,
    ) {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let peer = Arc::new(peer);
        let refused = self.refused_later(&chain, &peer, changes);
        let service = TowerToHyperService::new(self.router.clone().layer(Extension(Arc::clone(&peer))));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_deadline)
            .max_buf_size(HEADER_BYTES_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.streams_max)
            .max_header_list_size(H2_HEADER_BYTES_MAX)
            .max_frame_size(H2_FRAME_BYTES_MAX)
            .keep_alive_interval(Some(self.limits.header_deadline));
        // ALPN has chosen. Without the choice the server would wait for the client's first bytes to guess it, and over
        // HTTP/2 a server speaks first: that is how a client knows that it was let in.
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2".as_slice());
        let builder = if is_http2 { builder.http2_only() } else { builder.http1_only() };
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let served = async {
            let end = async {
                tokio::select! {
                    biased;
                    () = self.cancelled.cancelled() => {}
                    () = tokio::time::sleep(self.limits.connection_max) => {}
                }
            };
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = end => connection.as_mut().graceful_shutdown(),
            }
            tokio::time::timeout(self.limits.drain_timeout, connection).await.unwrap_or(Ok(()))
        };
        tokio::select! {
            biased;
            refused = refused => {
                metrics::ended("certificate");
                tracing::warn!(%address, %refused, "connection ended: the peer's certificate is no longer accepted");
            }
            ended = served => if let Err(error) = ended {
                tracing::debug!(%address, %error, "connection ended");
            },
        }
    }

    /// Returns why the peer of a live connection is no longer accepted, once it is not: its certificate has expired
    /// (C9 of trust.md), is revoked, or its root is no longer trusted (R3).
    async fn refused_later(
        &self,
        chain: &[CertificateDer<'static>],
        peer: &Peer,
        mut changes: watch::Receiver<u64>,
    ) -> PeerRefused {
        let (role, end) = (peer.role(), peer.certificate().not_after().as_secs());
        loop {
            let left = end.saturating_sub(UnixTime::now().as_secs()).saturating_add(1);
            let look = tokio::time::sleep(Duration::from_secs(left).min(CERTIFICATE_LOOK));
            tokio::select! {
                biased;
                Ok(()) = changes.changed() => {}
                () = look => {}
            }
            if let Err(refused) = self.credentials.check_peer_role(Some(chain), &[role], UnixTime::now()) {
                return refused;
            }
        }
    }

    /// TLS, then the check that also holds for resumed sessions (R2). A peer that is refused gets the time to read why.
    async fn handshake(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, Peer), Refusal> {
        let accept = TlsAcceptor::from(self.credentials.config()).accept(stream).into_fallible();
        let accepted = tokio::time::timeout(self.limits.tls_deadline, accept).await.map_err(|_| Refusal {
            cause: "tls_deadline",
            detail: format!("no handshake within {:?}", self.limits.tls_deadline),
        })?;
        let mut stream = match accepted {
            Ok(stream) => stream,
            Err((error, stream)) => {
                linger(stream).await;
                return Err(Refusal { cause: "tls", detail: error.to_string() });
            }
        };
        match self.credentials.check_peer(stream.get_ref().1.peer_certificates(), UnixTime::now()) {
            Ok(peer) => Ok((stream, peer)),
            Err(refused) => {
                // A close_notify, so that the peer knows the end for one that was meant.
                drop(tokio::time::timeout(LINGER, stream.shutdown()).await);
                linger(stream.into_inner().0).await;
                Err(Refusal { cause: "certificate", detail: refused.to_string() })
            }
        }
    }
}

/// Ends a connection so that what was written last arrives.
///
/// With TLS 1.3 a client sends its request before it can know that its certificate was refused. A socket that is closed
/// with such bytes unread is reset, and a reset throws away the alert that the peer has not read yet (RFC 1122
/// §4.2.2.13). So our half is closed first, and the peer's is read until it ends, or a bound is reached.
async fn linger(mut stream: TcpStream) {
    let drained = async {
        stream.shutdown().await?;
        let (mut unread, mut bytes) = (vec![0; LINGER_READ_BYTES], 0);
        while bytes < LINGER_BYTES_MAX {
            match stream.read(&mut unread).await? {
                0 => break,
                length => bytes += length,
            }
        }
        Ok::<_, std::io::Error>(())
    };
    // However it ends, the connection is over.
    drop(tokio::time::timeout(LINGER, drained).await);
}

/// Counts a connection that said nothing, or nothing that a handshake begins with.
fn turned_away(address: SocketAddr, refused: Refused) {
    metrics::refused(refused.label());
    tracing::debug!(%address, %refused, "no handshake");
}

/// Who may be connected at once.
#[derive(Clone)]
struct Places {
    all: Arc<Semaphore>,
    per_device: Arc<PerDevice>,
}

/// A connection of which no byte has come yet.
struct Newcomer {
    stream: TcpStream,
    address: SocketAddr,
    place: Place,
}

/// Why a connection ended before its first request.
struct Refusal {
    cause: &'static str,
    detail: String,
}
