//! A client's way from a judged certificate to a session: its name, its room, the WebSocket upgrade.

use std::net::SocketAddr;

use muster_pki::{DeviceId, Thumbprint};
use muster_service::admission::Admitted as Arrived;
use muster_service::credentials::{PathElement, Peer, Shown, Told};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error as UpgradeError;

use super::Shard;
use super::upgrade::{self, Denial, Socket};
use crate::metrics::Listener;
use crate::refusal;
use crate::registry::{NoRoom, Room};
use crate::wall;

/// A client that may have a session.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Its socket, upgraded.
    pub(super) socket: Socket,
    /// Who it is.
    pub(super) visitor: Visitor,
    /// What may be revoked of its certificate.
    pub(super) path: Vec<PathElement>,
    /// Its place among the sessions the Switch may hold.
    pub(super) room: Room,
}

/// Who a client is: what its session keeps of its certificate.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// The device.
    pub(super) device: DeviceId,
    /// SHA-256 of its certificate.
    pub(super) thumbprint: Thumbprint,
    /// When its certificate ends, milliseconds since 1970.
    pub(super) not_after_ms: i64,
    /// Where it connected from.
    pub(super) address: SocketAddr,
}

impl Visitor {
    /// Keeps what is needed; `None` for a peer that is no device.
    fn new(peer: &Peer, address: SocketAddr) -> Option<Self> {
        let certificate = peer.certificate();
        Some(Self {
            device: peer.device_id()?.clone(),
            thumbprint: certificate.thumbprint(),
            not_after_ms: wall::millis(certificate.not_after()),
            address,
        })
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
    /// An operator has blocked the device.
    #[error("an operator has blocked the device")]
    Blocked,
    /// The Switch, or the device, has all the sessions it may.
    #[error("{0}")]
    NoRoom(NoRoom),
}

impl Rejected {
    /// Returns its name in metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Nameless => "certificate",
            Self::UpgradeDeadline => "upgrade_deadline",
            Self::Upgrade(_) => "upgrade",
            Self::Blocked => "blocked",
            Self::NoRoom(NoRoom::Full) => "full",
            Self::NoRoom(NoRoom::DeviceFull) => "device_full",
        }
    }
}

/// Upgrades a connection that was let in.
///
/// # Errors
/// Why it got no session.
pub(super) async fn admit(shard: &Shard, arrived: Arrived) -> Result<Box<Admitted>, Rejected> {
    // The permit is held until the upgrade is over.
    let Arrived { stream, address, peer, permit: _permit, .. } = arrived;
    let limits = &shard.config.sessions;
    let visitor = Visitor::new(&peer, address).ok_or(Rejected::Nameless)?;
    let path = peer.path();
    // Here, so that a resumed TLS session is refused as a full handshake is (R2 of trust.md).
    let is_blocked = note_blocked(shard, &peer, &visitor);
    let room = if is_blocked { None } else { Some(shard.registry.admit(&visitor.device)) };
    let denial = match &room {
        None => Some(Denial::Blocked),
        Some(Err(no_room)) => Some(Denial::NoRoom(*no_room)),
        Some(Ok(_)) => None,
    };
    let socket = timeout(limits.upgrade_deadline, upgrade::accept(stream, denial, limits))
        .await
        .map_err(|_| if is_blocked { Rejected::Blocked } else { Rejected::UpgradeDeadline })?
        .map_err(|error| denial.map_or_else(|| Rejected::Upgrade(Box::new(error)), Rejected::from))?;
    let room = room.ok_or(Rejected::Blocked)?.map_err(Rejected::NoRoom)?;
    Ok(Box::new(Admitted { socket, visitor, path, room }))
}

impl From<Denial> for Rejected {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::NoRoom(no_room) => Self::NoRoom(no_room),
            Denial::Blocked => Self::Blocked,
        }
    }
}

/// Returns whether an operator keeps the device out; if so, logs, counts and lists it like a revoked certificate.
fn note_blocked(shard: &Shard, peer: &Peer, visitor: &Visitor) -> bool {
    let Some(block) = shard.engine.block_of(&visitor.device) else { return false };
    let finding = refusal::of_block(&block);
    let told = Told::new(refusal::BLOCKED_RULE, finding, &Shown::of(peer.certificate()));
    refusal::note(&shard.refusals, Listener::Sessions, told, visitor.address, shard.wall.now_ms());
    true
}
