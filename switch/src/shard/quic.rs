//! The way in of the shard that holds the sessions over QUIC: one socket, so that a client whose address changes stays with its session.

use std::io;
use std::net::UdpSocket;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use muster_pki::Role;
use muster_proto::session::quic::{ALPN, Close};
use muster_service::admission::{EndpointFailed, QuicConfigs, QuicEntrance, QuicHandshakes, QuicNewcomer};
use muster_service::credentials::PeerRefused;
use muster_service::quic::{self, ResetKey};
use quinn::{Endpoint, TokioRuntime};
use tokio_util::sync::CancellationToken;

use super::handshake::{self, Admitted, Rejected};
use super::{Shard, settle, upgrade};
use crate::config::SessionLimits;
use crate::{metrics, refusal};

/// Datagrams of clients whose handshake has no room yet, in all and of each: they are decided on at once.
const INCOMING_BYTES: u64 = 16 << 10;
const INCOMING_BYTES_TOTAL: u64 = 4 << 20;

/// How long the last packets may take to leave when the Switch stops.
const FLUSH: Duration = Duration::from_secs(1);

/// Opens the endpoint on a socket.
///
/// # Errors
/// The system's, or TLS's inside.
pub(super) fn entrance(
    shard: &Shard,
    socket: UdpSocket,
    key: &ResetKey,
    stop: CancellationToken,
) -> io::Result<QuicEntrance> {
    let limits = &shard.config.sessions;
    let configs =
        QuicConfigs::new(Arc::clone(&shard.credentials), ALPN, quic::server_transport(idle(limits)));
    let first = configs.current().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let mut config = quinn::ServerConfig::clone(&first);
    config
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL)
        .max_incoming(usize::try_from(limits.quic_handshakes_max).unwrap_or(usize::MAX));
    let endpoint = Endpoint::new(quic::server_endpoint(key), Some(config), socket, Arc::new(TokioRuntime))?;
    let (refusals, wall) = (Arc::clone(&shard.refusals), shard.wall.clone());
    Ok(QuicEntrance {
        endpoint,
        handshakes: QuicHandshakes::new(limits.quic_handshakes_max, limits.quic_handshakes_per_source_max),
        tls_deadline: limits.tls_deadline,
        configs,
        roles: &[Role::Device],
        answer,
        refused_code: Close::Refused.code().into(),
        stop,
        tell: Box::new(move |why, address| {
            let now_ms = wall.now_ms();
            refusal::turned_away(&refusals, metrics::Listener::Quic, why, address, now_ms);
        }),
        retried: metrics::quic_retried,
    })
}

/// Silence after which a connection is over: longer than the longest pause between two pings.
fn idle(limits: &SessionLimits) -> Duration {
    limits.quic_idle.max(limits.ping_interval.saturating_mul(5) / 4)
}

/// What a client is told whose certificate is not taken.
fn answer(refused: &PeerRefused) -> Vec<u8> {
    upgrade::certificate_denied(refused).into_bytes()
}

/// Takes connections in until the Switch stops. It ends before where nobody can come any more: the end of the shard, and of the process, since
/// a Switch without QUIC would look well, and its devices stay away.
pub(super) async fn accept(shard: Rc<Shard>, entrance: Rc<QuicEntrance>) {
    if let Err(error) = take_in(&shard, &entrance).await {
        tracing::error!(shard = shard.index, %error, "there are no sessions over QUIC any more");
    }
}

async fn take_in(shard: &Rc<Shard>, entrance: &Rc<QuicEntrance>) -> Result<(), EndpointFailed> {
    while let Some(newcomer) = entrance.newcomer().await? {
        let (shard_of_task, entrance, address) = (Rc::clone(shard), Rc::clone(entrance), newcomer.address);
        shard.tasks.spawn_local(async move {
            // As over TCP: these futures are gone before the session begins.
            let admitted = Box::pin(admit(Rc::clone(&shard_of_task), entrance, newcomer)).await;
            match admitted {
                Some(Ok(admitted)) => settle(&shard_of_task, *admitted),
                Some(Err(rejected)) => rejected.tell(metrics::Listener::Quic, address),
                None => {}
            }
        });
    }
    // An endpoint that takes nobody is silent, which looks like packets that were lost.
    entrance.refuse_all().await;
    Ok(())
}

async fn admit(
    shard: Rc<Shard>,
    entrance: Rc<QuicEntrance>,
    newcomer: QuicNewcomer,
) -> Option<Result<Box<Admitted>, Rejected>> {
    let arrived = entrance.admit_anyone(newcomer).await?;
    Box::pin(entrance.stop.run_until_cancelled(handshake::quic::admit(&shard, arrived))).await
}

/// Ends what is left, and lets the last packets leave.
pub(super) async fn close(entrance: &QuicEntrance) {
    entrance.endpoint.close(Close::Done.code().into(), b"the Switch stops");
    if tokio::time::timeout(FLUSH, entrance.endpoint.wait_idle()).await.is_err() {
        tracing::trace!("clients did not take the end of their connections");
    }
}
