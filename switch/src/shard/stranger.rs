//! Who shows no certificate: known by a key, if it proves on this very connection that it has it (C1 of trust.md).
//!
//! The proof is a header of the upgrade request, or the first item of the stream over QUIC, so that nobody without one gets a WebSocket, a place among the sessions or a
//! look at the protocol; PROTOCOL.md has its bytes.

use muster_pki::device_key::{DEVICE_KEY_HEADER, EXPORTER_BYTES, EXPORTER_LABEL, ProofError, ProvenKey};
use muster_service::line::Line;
use rustls::ProtocolVersion;
use tokio_tungstenite::tungstenite::handshake::server::Request;

/// Why a connection is not known by a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unproven {
    /// There is no key either.
    #[error(
        "got neither a certificate nor a device key; wanted one of them; fix: set tls.identity = \"key\" there, or give the \
         device a certificate where sessions.client_certificate here asks for one"
    )]
    Nobody,
    /// There are both, or several keys.
    #[error(
        "got a device key beside a certificate or another key; wanted one identity; fix: leave out the others"
    )]
    Several,
    /// The exporter of TLS 1.2 may be the same on two connections (RFC 7627 §1).
    #[error("got a device key over TLS 1.2; wanted TLS 1.3; fix: let both ends speak it")]
    OldTls,
    /// The proof does not hold.
    #[error("device key: {0}; fix: sign the exporter of this connection")]
    Proof(#[from] ProofError),
}

/// Returns the key that who asks has, where no certificate was shown.
pub(super) fn key(request: &Request, line: &Line) -> Result<ProvenKey, Unproven> {
    let mut proofs = request.headers().get_all(DEVICE_KEY_HEADER).iter();
    let proof = match (proofs.next(), proofs.next()) {
        (Some(proof), None) => proof,
        (None, _) => return Err(Unproven::Nobody),
        (Some(_), Some(_)) => return Err(Unproven::Several),
    };
    if line.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Err(Unproven::OldTls);
    }
    // Who shows no certificate comes in only where keys are asked for.
    let tls = line.exporter().ok_or(Unproven::Nobody)?;
    let exported = tls.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None);
    // It is there once the handshake is over, as it is here.
    let exported = exported.map_err(|_| Unproven::OldTls)?;
    Ok(ProvenKey::verify(proof.as_bytes(), &exported)?)
}

/// Returns the key that who asks over QUIC has, where no certificate was shown.
pub(super) fn key_over_quic(proof: &[u8], connection: &quinn::Connection) -> Result<ProvenKey, Unproven> {
    let mut exported = [0; EXPORTER_BYTES];
    // QUIC has no older TLS, and the handshake is over.
    connection.export_keying_material(&mut exported, EXPORTER_LABEL, &[]).map_err(|_| Unproven::OldTls)?;
    Ok(ProvenKey::verify(proof, &exported)?)
}

/// Refuses a key beside a certificate: which of the two a session is of must not be a matter of taste.
pub(super) fn no_key(request: &Request) -> Result<(), Unproven> {
    if request.headers().contains_key(DEVICE_KEY_HEADER) { Err(Unproven::Several) } else { Ok(()) }
}
