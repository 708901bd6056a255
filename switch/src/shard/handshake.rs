//! A client's way from a judged certificate, or none, to a session: its name, its room, the WebSocket upgrade.

pub(super) mod quic;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;

use muster_pki::device_key::ProvenKey;
use muster_pki::{DeviceId, Thumbprint};
use muster_service::admission::Admitted as Arrived;
use muster_service::credentials::{PathElement, Peer, Shown, Told};
use muster_service::line::Accepted;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::Error as UpgradeError;

use super::Shard;
use super::stranger::{self, Unproven};
use super::upgrade::{self, Asked, Denial};
use super::wire::Wire;
use crate::engine;
use crate::metrics::{self, Listener};
use crate::refusal;
use crate::registry::{NoRoom, Room};
use crate::wall;

/// A client that may have a session.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Its connection, upgraded.
    pub(super) wire: Wire,
    /// Who it is.
    pub(super) visitor: Visitor,
    /// What may be revoked of its certificate.
    pub(super) path: Vec<PathElement>,
    /// Its place among the sessions the Switch may hold.
    pub(super) room: Room,
}

/// Who a client is: what its session keeps of its identity.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// The device.
    pub(super) device: DeviceId,
    /// Its certificate; `None`: it is known by a key, and is unauthenticated.
    pub(super) certificate: Option<ShownCertificate>,
    /// Where it is, which changes over QUIC.
    pub(super) address: Cell<SocketAddr>,
    /// By which road.
    pub(super) listener: Listener,
}

/// What a session keeps of a certificate.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShownCertificate {
    /// Its SHA-256.
    pub(super) thumbprint: Thumbprint,
    /// When it ends, milliseconds since 1970.
    pub(super) not_after_ms: i64,
}

/// Who asks for a session: by a certificate that was judged, or by a key.
#[derive(Debug)]
enum Identity {
    Certificate(Box<Peer>),
    Key(ProvenKey),
}

impl Identity {
    /// Finds out who it is.
    fn of(peer: Option<Peer>, asked: &Asked) -> Result<Self, Unproven> {
        match peer {
            Some(peer) => stranger::no_key(asked.request()).map(|()| Self::Certificate(Box::new(peer))),
            None => stranger::key(asked.request(), asked.line()).map(Self::Key),
        }
    }

    /// Keeps what is needed; `None` for a peer that is no device.
    fn visitor(&self, listener: Listener, address: SocketAddr) -> Option<Visitor> {
        let address = Cell::new(address);
        Some(match self {
            Self::Key(key) => Visitor { device: key.device().clone(), certificate: None, address, listener },
            Self::Certificate(peer) => {
                let certificate = peer.certificate();
                let shown = ShownCertificate {
                    thumbprint: certificate.thumbprint(),
                    not_after_ms: wall::millis(certificate.not_after()),
                };
                Visitor { device: peer.device_id()?.clone(), certificate: Some(shown), address, listener }
            }
        })
    }

    /// Returns what may be revoked of it.
    fn path(&self) -> Vec<PathElement> {
        match self {
            Self::Certificate(peer) => peer.path(),
            Self::Key(_) => Vec::new(),
        }
    }

    /// Returns what names it among those who were turned away.
    fn shown(&self) -> Shown {
        match self {
            Self::Certificate(peer) => Shown::of(peer.certificate()),
            Self::Key(key) => Shown {
                thumbprint: Some(Thumbprint::of(key.spki())),
                subject: key.device().to_string(),
                ..Shown::default()
            },
        }
    }
}

/// Why a client has no session.
#[derive(Debug, thiserror::Error)]
pub(super) enum Rejected {
    /// The certificate is good and names no device.
    #[error("the certificate names no device")]
    Nameless,
    /// The upgrade took too long.
    #[error("the WebSocket upgrade took longer than `sessions.upgrade_deadline`")]
    UpgradeDeadline,
    /// The upgrade was refused, or was none.
    #[error("WebSocket upgrade: {0}")]
    Upgrade(Box<UpgradeError>),
    /// The connection over QUIC ended before its stream was opened, as that of a client does that has its session by another road.
    #[error("QUIC stream: {0}")]
    Stream(io::Error),
    /// An operator has blocked the device.
    #[error("an operator has blocked the device")]
    Blocked,
    /// There is no certificate, and no key that was proven.
    #[error("{0}")]
    Unproven(Unproven),
    /// The Switch, or the device, has all the sessions it may.
    #[error("{0}")]
    NoRoom(NoRoom),
}

impl Rejected {
    /// Counts it.
    pub(super) fn tell(&self, listener: Listener, address: SocketAddr) {
        metrics::handshake(listener, self.label());
        tracing::debug!(%address, rejected = %self, "no session");
    }

    /// Returns its name in metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::Nameless => "certificate",
            Self::UpgradeDeadline => "upgrade_deadline",
            Self::Upgrade(_) => "upgrade",
            Self::Stream(_) => "stream",
            Self::Blocked => "blocked",
            Self::Unproven(_) => "unproven",
            Self::NoRoom(NoRoom::Full) => "full",
            Self::NoRoom(NoRoom::UnauthenticatedFull) => "unauthenticated_full",
            Self::NoRoom(NoRoom::DeviceFull) => "device_full",
        }
    }
}

/// Upgrades a connection that was let in.
///
/// # Errors
/// Why it got no session.
pub(super) async fn admit(
    shard: &Shard,
    arrived: Arrived<Option<Peer>, Accepted>,
) -> Result<Box<Admitted>, Rejected> {
    // The permit is held until the upgrade is over.
    let Arrived { stream, address, peer, permit: _permit, .. } = arrived;
    let limits = &shard.config.sessions;
    let deadline = Instant::now() + limits.upgrade_deadline;
    let asked = timeout_at(deadline, upgrade::read(stream)).await.map_err(|_| Rejected::UpgradeDeadline)?;
    let asked = asked.map_err(|error| Rejected::Upgrade(Box::new(error)))?;
    let (identity, admission) = match Identity::of(peer, &asked) {
        Ok(identity) => {
            let visitor = identity.visitor(Listener::Sessions, address).ok_or(Rejected::Nameless)?;
            let room = room(shard, &identity, &visitor);
            (Some(identity), room.map(|room| (visitor, room)))
        }
        Err(unproven) => {
            note_unproven(shard, Listener::Sessions, unproven, address);
            (None, Err(Denial::Unproven(unproven)))
        }
    };
    let path = identity.map(|identity| identity.path()).unwrap_or_default();
    let denial = admission.as_ref().err().copied();
    let rejected = |other| denial.map_or(other, Rejected::from);
    let wire = timeout_at(deadline, asked.answer(denial, limits))
        .await
        .map_err(|_| rejected(Rejected::UpgradeDeadline))?
        .map_err(|error| rejected(Rejected::Upgrade(Box::new(error))))?;
    let (visitor, room) = admission.map_err(Rejected::from)?;
    Ok(Box::new(Admitted { wire, visitor, path, room }))
}

impl From<Denial> for Rejected {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::NoRoom(no_room) => Self::NoRoom(no_room),
            Denial::Blocked => Self::Blocked,
            Denial::Unproven(unproven) => Self::Unproven(unproven),
        }
    }
}

/// Takes room for a session, unless an operator keeps the device out: here, so that a resumed TLS session is refused as a full
/// handshake is (R2 of trust.md).
fn room(shard: &Shard, identity: &Identity, visitor: &Visitor) -> Result<Room, Denial> {
    if note_blocked(shard, identity, visitor) {
        return Err(Denial::Blocked);
    }
    shard.registry.admit(&visitor.device).map_err(|no_room| {
        note_no_room(shard, no_room, visitor);
        Denial::NoRoom(no_room)
    })
}

/// Counts and lists a device without a certificate for which there is no room: by where it comes from, since keys are free.
fn note_no_room(shard: &Shard, no_room: NoRoom, visitor: &Visitor) {
    match no_room {
        NoRoom::UnauthenticatedFull => {
            engine::unauthenticated_refused("sessions");
            let max = shard.config.sessions.unauthenticated_max;
            let finding = format!(
                "{}: got {}, which has no certificate, and {max} sessions of such devices; wanted fewer; fix: raise \
                 `sessions.unauthenticated_max`, or give the device a certificate; it comes back by itself",
                refusal::NOBODY_RULE,
                visitor.device
            );
            let told = Told::new(refusal::NOBODY_RULE, finding, &Shown::default());
            refusal::note(
                &shard.refusals,
                visitor.listener,
                told,
                visitor.address.get(),
                shard.wall.now_ms(),
            );
        }
        // Handshakes are counted by outcome; `muster doctor` tells of a full Switch.
        NoRoom::Full | NoRoom::DeviceFull => {}
    }
}

/// Returns whether an operator keeps the device out; if so, logs, counts and lists it like a revoked certificate.
fn note_blocked(shard: &Shard, identity: &Identity, visitor: &Visitor) -> bool {
    let Some(block) = shard.engine.block_of(&visitor.device) else { return false };
    let finding = refusal::of_block(&block);
    let told = Told::new(refusal::BLOCKED_RULE, finding, &identity.shown());
    refusal::note(&shard.refusals, visitor.listener, told, visitor.address.get(), shard.wall.now_ms());
    true
}

/// Logs, counts and lists who is nobody, like one without a certificate where it is required.
fn note_unproven(shard: &Shard, listener: Listener, unproven: Unproven, address: SocketAddr) {
    let finding = format!("{}: {unproven}", refusal::NOBODY_RULE);
    let told = Told::new(refusal::NOBODY_RULE, finding, &Shown::default());
    refusal::note(&shard.refusals, listener, told, address, shard.wall.now_ms());
}
