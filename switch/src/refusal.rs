//! Connections that are turned away, and refused certificates: logged with everything that is wrong, counted by rule (C14 of trust.md).

use std::net::SocketAddr;

use muster_pki::Severity;
use muster_service::admission::TurnedAway;
use muster_service::credentials::PeerRefused;

use crate::metrics::{self, Listener};

/// Logs and counts a connection that was not let in.
pub(crate) fn turned_away(listener: Listener, why: &TurnedAway, address: Option<SocketAddr>) {
    if let (Some(refused), Some(address)) = (why.certificate(), address) {
        metrics::handshake(listener, "certificate");
        return note(refused, address);
    }
    metrics::handshake(listener, why.label());
    match why {
        TurnedAway::Accept(_) => tracing::warn!(?listener, "{why}"),
        // Operators are few, and ask why.
        TurnedAway::Tls(_) if listener == Listener::Operators => {
            tracing::info!(address = address.map(tracing::field::display), %why, "operator connection refused");
        }
        TurnedAway::Early(_) | TurnedAway::TlsDeadline | TurnedAway::Tls(_) | TurnedAway::Certificate(_) => {
            tracing::debug!(address = address.map(tracing::field::display), %why, "connection refused");
        }
    }
}

/// Logs and counts a refusal.
pub(crate) fn note(refused: &PeerRefused, address: SocketAddr) {
    tracing::warn!(%address, %refused, "certificate refused");
    match refused {
        PeerRefused::Unfit { refused, .. } => {
            let broken = refused.findings().iter().filter(|finding| finding.severity == Severity::Refusal);
            broken.for_each(|finding| metrics::refused_certificate(finding.rule.to_string()));
        }
        PeerRefused::NoCertificate { .. } => metrics::refused_certificate("C1".to_owned()),
        PeerRefused::WrongRole { .. } | PeerRefused::Ambiguous { .. } => {
            metrics::refused_certificate("C2".to_owned())
        }
        PeerRefused::Unnamed { .. } => metrics::refused_certificate("C7".to_owned()),
    }
}
