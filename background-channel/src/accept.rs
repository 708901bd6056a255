//! Connections: TLS, the check of the certificate, then HTTP/1.1 or 2 by ALPN. Every stage has a deadline.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use muster_pki::{CertificateDer, DeviceId, Role};
use muster_service::admission::{
    self, Admitted, Entrance, Full, Handshakes, Lobby, Places, Spare, TurnedAway,
};
use muster_service::credentials::{Peer, PeerRefused, ServerCredentials};
use muster_service::wall::Wall;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use crate::metrics;
use crate::relay::door::Door;

/// Request lines and headers together (promises.md, HTTP).
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Headers of an HTTP/2 request.
const H2_HEADER_BYTES_MAX: u32 = 16 * 1024;
/// One frame of a put. Each is handed to a blocking thread by itself, which is too much of it for the default of 16 KiB.
const H2_FRAME_BYTES_MAX: u32 = 256 * 1024;

/// How long the certificate's end goes without a look at the wall clock, which may have been changed.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(60);

/// What every connection needs.
pub(crate) struct Acceptor {
    pub(crate) door: Arc<Door>,
    pub(crate) wall: Wall,
    pub(crate) credentials: Arc<ServerCredentials>,
    pub(crate) router: Router,
    pub(crate) limits: Limits,
    pub(crate) cancelled: CancellationToken,
    pub(crate) connections: TaskTracker,
}

impl Acceptor {
    /// Accepts until cancelled; open connections then finish what they are at.
    pub(crate) async fn run(self, listener: TcpListener) {
        let limits = &self.limits;
        let connections_max = u32::try_from(limits.connections_max).unwrap_or(u32::MAX);
        let places = Arc::new(Places::new(connections_max, limits.connections_per_device_max));
        let entrance = Arc::new(Entrance {
            lobby: Lobby::new(limits.lobby()),
            handshakes: Handshakes::new(limits.handshakes_max, limits.handshakes_per_source_max),
            tls_deadline: limits.tls_deadline,
            credentials: Arc::clone(&self.credentials),
            roles: &[Role::Device, Role::Operator],
            answer: None,
            spare: Spare::new(),
            stop: self.cancelled.clone(),
            tell: {
                let (door, wall) = (Arc::clone(&self.door), self.wall.clone());
                Box::new(move |why, address| turned_away(&door, why, address, wall.now_ms()))
            },
        });
        let this = Arc::new(self);
        while let Some(newcomer) = entrance.newcomer(&listener).await {
            let (connection, entrance, places) =
                (Arc::clone(&this), Arc::clone(&entrance), Arc::clone(&places));
            this.connections.spawn(async move {
                if let Some(admitted) = entrance.admit(newcomer).await {
                    connection.place(admitted, &places).await;
                }
            });
        }
    }

    /// Serves who is let in, if there is a place for it.
    async fn place(&self, admitted: Admitted, places: &Places<DeviceId>) {
        let Admitted { stream, address, peer, changes, permit } = admitted;
        drop(permit);
        if self.door.is_blocked(&peer) {
            metrics::refused("blocked");
            self.door.note_blocked(&peer, address, self.wall.now_ms());
            return admission::end(stream).await;
        }
        match places.take(peer.device_id().cloned()) {
            Ok(_taken) => self.serve(stream, address, peer, changes).await,
            Err(Full::Share) => {
                metrics::refused("device_full");
                tracing::debug!(%address, device = peer.name(), "the device has all the connections that it may");
                admission::end(stream).await;
            }
            Err(Full::All) => {
                metrics::refused("full");
                admission::end(stream).await;
            }
        }
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
                self.door.note(refused.told(), address, self.wall.now_ms());
            }
            () = self.door.blocked_later(&peer) => {
                metrics::ended("blocked");
                self.door.note_blocked(&peer, address, self.wall.now_ms());
            }
            ended = served => if let Err(error) = ended {
                tracing::debug!(%address, %error, "connection ended");
            },
        }
    }

    /// Returns why the peer of a live connection is no longer accepted, once it is not: its certificate has expired
    /// (C9 of trust.md), is revoked, or its root is no longer trusted (R3). A CRL that lapsed refuses new connections only (R6).
    async fn refused_later(
        &self,
        chain: &[CertificateDer<'static>],
        peer: &Peer,
        mut changes: watch::Receiver<u64>,
    ) -> PeerRefused {
        let (role, end) = (peer.role(), peer.certificate().not_after().as_secs());
        loop {
            let left = end.saturating_sub(self.credentials.clock().now().as_secs()).saturating_add(1);
            let look = tokio::time::sleep(Duration::from_secs(left).min(CERTIFICATE_LOOK));
            tokio::select! {
                biased;
                Ok(()) = changes.changed() => {}
                () = look => {}
            }
            let now = self.credentials.clock().now();
            match self.credentials.check_peer_role(Some(chain), &[role], now) {
                Err(refused) if !refused.lacks_only_a_crl() => return refused,
                Ok(_) | Err(_) => {}
            }
        }
    }
}

/// Counts and logs a connection that was not let in; one whose certificate was refused is told to the Switch, too.
fn turned_away(door: &Door, why: &TurnedAway, address: Option<SocketAddr>, now_ms: i64) {
    if let (Some(refused), Some(address)) = (why.certificate(), address) {
        metrics::refused("certificate");
        return door.note(refused.told(), address, now_ms);
    }
    metrics::refused(why.label());
    match why {
        TurnedAway::Accept(_) => tracing::warn!("{why}"),
        TurnedAway::Early(refused) => {
            tracing::debug!(address = address.map(tracing::field::display), %refused, "no handshake")
        }
        TurnedAway::TlsDeadline | TurnedAway::Tls(_) | TurnedAway::Certificate(_) => {
            tracing::info!(address = address.map(tracing::field::display), cause = why.label(), detail = %why, "connection refused");
        }
    }
}
