//! A client's way from a judged certificate to a session: its name, its room, the WebSocket upgrade.

use std::net::SocketAddr;

use muster_pki::{DeviceId, Thumbprint};
use muster_service::admission::Admitted as Arrived;
use muster_service::credentials::{PathElement, Peer};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error as UpgradeError;

use super::Shard;
use super::upgrade::{self, Socket};
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
    let room = shard.registry.admit(&visitor.device);
    let no_room = room.as_ref().err().copied();
    let socket = timeout(limits.upgrade_deadline, upgrade::accept(stream, no_room, limits))
        .await
        .map_err(|_| Rejected::UpgradeDeadline)?
        .map_err(|error| no_room.map_or_else(|| Rejected::Upgrade(Box::new(error)), Rejected::NoRoom))?;
    let room = room.map_err(Rejected::NoRoom)?;
    Ok(Box::new(Admitted { socket, visitor, path, room }))
}
