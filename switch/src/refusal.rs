//! Refused certificates: found in handshake errors, logged with everything that is wrong, counted by rule (C14 of trust.md).

use std::io;
use std::net::SocketAddr;

use muster_pki::Severity;
use muster_service::credentials::PeerRefused;

use crate::metrics;

/// Returns why a certificate was refused during the handshake, if that is why it ended.
pub(crate) fn of_handshake(error: &io::Error) -> Option<&PeerRefused> {
    PeerRefused::of(error)
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
