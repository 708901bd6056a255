//! Connections that are turned away, and refused certificates: logged with everything that is wrong, counted by rule (C14 of trust.md).

use std::net::SocketAddr;

use muster_proto::operator::v1::Block;
use muster_service::admission::TurnedAway;
use muster_service::credentials::Told;

use crate::metrics::{self, Listener};
use crate::refusals::Refusals;

/// The rule that a blocked device breaks: revocation, be it passive.
pub(crate) const BLOCKED_RULE: &str = "R2";

/// The rule that who shows neither a certificate nor a key breaks.
pub(crate) const NOBODY_RULE: &str = "C1";

/// Says why a blocked device is refused, to operators.
pub(crate) fn of_block(block: &Block) -> String {
    let Block { device, operator, reason, .. } = block;
    let why = if reason.is_empty() { "no reason given" } else { reason };
    format!(
        "{BLOCKED_RULE}: got {device}, which {operator} blocked ({why}); wanted a device that is not blocked; fix: \
         muster client unblock {device}"
    )
}

/// Logs and counts a connection that was not let in; one whose certificate was refused is listed, too.
pub(crate) fn turned_away(
    refusals: &Refusals,
    listener: Listener,
    why: &TurnedAway,
    address: Option<SocketAddr>,
    now_ms: i64,
) {
    if let (Some(refused), Some(address)) = (why.certificate(), address) {
        metrics::handshake(listener, "certificate");
        return note(refusals, listener, refused.told(), address, now_ms);
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

/// Logs, counts and lists a refusal. One peer, and all strangers together, have so many lines of the log in a minute; the list has all.
pub(crate) fn note(refusals: &Refusals, listener: Listener, told: Told, address: SocketAddr, now_ms: i64) {
    let Told { rules, findings, subject, serial, thumbprint, issuer, peer } = &told;
    let listener_name = listener.name();
    let (rules_told, findings) = (rules.join(" "), findings.join("; "));
    if let Some(left_out) = refusals.lines(listener).line(&told, address, now_ms) {
        tracing::warn!(
            listener = listener_name, %address, peer = peer.name, peer_subject = peer.subject, peer_serial = peer.serial,
            peer_thumbprint = peer.thumbprint, rules = rules_told, subject, serial, thumbprint, issuer, findings, left_out,
            "certificate refused"
        );
    }
    for rule in rules {
        metrics::refused_certificate(listener, rule.clone());
    }
    refusals.note(listener, told, address, now_ms);
}
