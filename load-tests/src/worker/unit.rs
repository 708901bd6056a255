//! One device of a worker, of whatever kind, and its TLS.

use std::sync::Arc;
use std::time::Instant;

use rustls::ClientConfig;
use rustls::client::Resumption;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::peer::PeerDevice;
use crate::simulated::Device;

/// A device that has no session, or is in its task.
pub(super) struct Unit {
    pub(super) tls: Arc<ClientConfig>,
    pub(super) device: Kind,
}

/// What it speaks.
pub(super) enum Kind {
    Muster(Box<Device>),
    Peer(Box<PeerDevice>),
}

impl Unit {
    /// Has its next handshake be a full one.
    pub(super) fn forget_tickets(&mut self) {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.resumption = Resumption::in_memory_sessions(1);
        self.tls = Arc::new(tls);
    }

    /// Holds sessions until it is cancelled or has lost one, and comes back for the next time.
    pub(super) async fn run(
        self,
        begun: Instant,
        place: Option<OwnedSemaphorePermit>,
        cancelled: CancellationToken,
    ) -> Self {
        let tls = Arc::clone(&self.tls);
        let device = match self.device {
            Kind::Muster(device) => Kind::Muster(Box::new(device.run(tls, begun, place, cancelled).await)),
            Kind::Peer(device) => Kind::Peer(Box::new(device.run(tls, begun, place, cancelled).await)),
        };
        Self { tls: self.tls, device }
    }
}
