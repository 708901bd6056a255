//! A client's way to a session over QUIC: its stream, its name, its room.
//!
//! Who shows no certificate proves its key by the first item of the stream, which is none of the protocol's frames. Who is denied is told by the code
//! that the connection ends with.

use muster_proto::frame::item;
use muster_proto::session::quic::Close;
use muster_service::admission::QuicAdmitted;
use muster_service::line::Came;
use tokio::time::{Instant, timeout_at};

use super::{Admitted, Identity, Rejected, note_unproven, room};
use crate::metrics::Listener;
use crate::shard::Shard;
use crate::shard::stranger::{self, Unproven};
use crate::shard::upgrade::{BLOCKED, Denial};
use crate::shard::wire::{QuicLine, Wire};

/// The longest proof of a key; the one there is has 130 bytes.
const PROOF_BYTES_MAX: usize = 256;

/// Gives a client that was let in its session.
///
/// # Errors
/// Why it got none; it was told.
pub(in crate::shard) async fn admit(shard: &Shard, arrived: QuicAdmitted) -> Result<Box<Admitted>, Rejected> {
    // Its place among the handshakes is held until the stream is there.
    let QuicAdmitted { connection, address, peer, place: _place } = arrived;
    let limits = &shard.config.sessions;
    let deadline = Instant::now() + limits.upgrade_deadline;
    let Ok(opened) = timeout_at(deadline, connection.accept_bi()).await else {
        connection.close(Close::Late.code().into(), b"the stream was not opened in time");
        return Err(Rejected::UpgradeDeadline);
    };
    // Most often a client that has its session by another road.
    let stream = opened.map_err(|error| Rejected::Stream(error.into()))?;
    let mut line = QuicLine::new(connection, stream);
    let mut early = Vec::new();
    let identity = match peer {
        Some(peer) => Ok(Identity::Certificate(Box::new(peer))),
        None => {
            let proof = timeout_at(deadline, proof(&mut line, &mut early)).await;
            let Ok(proof) = proof else {
                line.close(Close::Late, "the proof of the device's key did not come in time");
                return Err(Rejected::UpgradeDeadline);
            };
            proof.and_then(|proof| stranger::key_over_quic(&proof, line.connection())).map(Identity::Key)
        }
    };
    let identity = match identity {
        Ok(identity) => identity,
        Err(unproven) => {
            note_unproven(shard, Listener::Quic, unproven, address);
            return Err(deny(shard, &line, Denial::Unproven(unproven)));
        }
    };
    let visitor = identity.visitor(Listener::Quic, address).ok_or(Rejected::Nameless)?;
    match room(shard, &identity, &visitor) {
        Ok(room) => {
            let message_bytes_max = usize::try_from(limits.message_bytes_max).unwrap_or(usize::MAX);
            let wire = Wire::over_quic(line, early, message_bytes_max);
            Ok(Box::new(Admitted { wire, visitor, path: identity.path(), room }))
        }
        Err(denial) => Err(deny(shard, &line, denial)),
    }
}

/// Reads the item by which a key is proven; what comes behind it stays in `early`.
async fn proof(line: &mut QuicLine, early: &mut Vec<u8>) -> Result<Vec<u8>, Unproven> {
    loop {
        // What is longer is most often the Hello of a client that has a certificate, and does not show it here.
        let Ok(first) = item::first(early, PROOF_BYTES_MAX) else { return Err(Unproven::Nobody) };
        if let Some(place) = first {
            let end = place.end;
            let proof = early.get(place).unwrap_or_default().to_vec();
            early.drain(..end);
            return Ok(proof);
        }
        if !matches!(line.receive(early).await, Ok(Came::Some)) {
            return Err(Unproven::Nobody);
        }
    }
}

/// Tells a client why it gets no session.
fn deny(shard: &Shard, line: &QuicLine, denial: Denial) -> Rejected {
    let retry_after = shard.config.sessions.retry_after;
    match denial {
        Denial::NoRoom(no_room) => line.close(Close::Busy, &Close::busy(retry_after, &no_room.to_string())),
        Denial::Blocked => line.close(Close::Refused, BLOCKED),
        Denial::Unproven(unproven) => line.close(Close::Refused, &unproven.to_string()),
    }
    denial.into()
}
