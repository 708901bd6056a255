//! What the engine and the shell say to each other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_pki::DeviceId;
use muster_proto::common::v1::NamedValue;
use muster_proto::frame::Encoded;
use muster_proto::ids::{Digest, Epoch, InstructionId};
use muster_proto::session::v1::{CloseReason, Hello, Lane, SequenceRange};
use roaring::RoaringBitmap;

use super::proofs::Proofs;

/// Where a session is, and which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionKey {
    /// The shard's index in the list given to [`super::Engine::open`].
    pub(crate) shard: u16,
    /// The shard's own number of it; reused, so the epoch must be compared too.
    pub(crate) slot: u32,
    /// The session's epoch.
    pub(crate) epoch: Epoch,
}

/// What the engine tells a shard. Everything it speaks of is committed.
#[derive(Debug, Clone)]
pub(crate) enum ShardMessage {
    /// Results or events of a session are on disk.
    Ack {
        /// Whose.
        session: SessionKey,
        /// Which queue.
        lane: Lane,
        /// What may be deleted, ascending. May be empty: then only credit is given back.
        ranges: Vec<SequenceRange>,
        /// Credit given back: the encoded length of what was taken.
        credit_bytes: u64,
    },
    /// An order for all sessions of the shard whose device number is in `targets`.
    Order {
        /// Which instruction, for [`super::SessionEngine::sent`].
        instruction: InstructionId,
        /// The encoded frame without a proof, the same for all.
        frame: Bytes,
        /// Device numbers; those without a session here are skipped.
        targets: Arc<RoaringBitmap>,
        /// Each device's proof, to be appended with `muster_proto::frame::with_proof`.
        proofs: Option<Arc<Proofs>>,
        /// Whether it overtakes others on its way to a client.
        urgency: Urgency,
    },
    /// End a session.
    Close {
        /// Which.
        session: SessionKey,
        /// Why.
        reason: CloseReason,
        /// When the client may come back.
        reconnect_after: Duration,
        /// For people.
        detail: String,
    },
    /// The Switch holds a later policy for all sessions of the shard whose device number is in `targets`.
    PolicyNotice {
        /// SHA-256 of its envelope.
        digest: Digest,
        /// How long all of them together may take to ask for it.
        spread: Duration,
        /// Device numbers; those without a session here are skipped.
        targets: Arc<RoaringBitmap>,
    },
    /// The Switch holds another licence; tell every session.
    LicenceNotice {
        /// SHA-256 of its envelope.
        digest: Digest,
        /// Its serial.
        serial: u64,
    },
}

/// A session that said `Hello`.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    /// The identity in its certificate.
    pub(crate) device: DeviceId,
    /// SHA-256 of its certificate, hex.
    pub(crate) thumbprint: String,
    /// When the certificate ends, milliseconds since 1970.
    pub(crate) certificate_not_after_ms: i64,
    /// Where it connected from.
    pub(crate) address: SocketAddr,
    /// Its shard's index.
    pub(crate) shard: u16,
    /// The shard's number of it.
    pub(crate) slot: u32,
    /// What it said.
    pub(crate) hello: Hello,
}

/// The engine's answer to [`Connect`], after it is committed.
#[derive(Debug, Clone)]
pub(crate) struct Connected {
    /// The device's number.
    pub(crate) number: u32,
    /// The session's epoch.
    pub(crate) epoch: Epoch,
    /// The licence held, for `Welcome`.
    pub(crate) licence_digest: Option<Digest>,
    /// Its serial, 0 without one.
    pub(crate) licence_serial: u64,
    /// The highest sequence seen of the outbox that the Hello named, by whichever road, 0 if there is none.
    pub(crate) highest_sequence: u64,
    /// The highest that came over sessions; `None`: not known.
    pub(crate) highest_by_session: Option<u64>,
    /// The serial of the policy that the device last said it follows; 0: none.
    pub(crate) policy_serial: u64,
    /// Orders to write at once, stops first, then oldest first. Call [`super::SessionEngine::sent`] for each that was written.
    pub(crate) due: Vec<DueOrder>,
}

/// An order that a device has yet to answer.
#[derive(Debug, Clone)]
pub(crate) struct DueOrder {
    /// Which.
    pub(crate) instruction: InstructionId,
    /// The encoded frame with the device's proof.
    pub(crate) frame: Encoded,
    /// Whether it overtakes others.
    pub(crate) urgency: Urgency,
}

/// Which orders overtake which on their way to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// It ends an instruction, so it comes before every order that waits.
    Stop,
    /// It runs something, in its turn.
    Order,
}

/// What to issue, and for whom.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prepare {
    /// The definition's name.
    pub(crate) definition: String,
    /// Its version; empty: the highest that is licensed.
    pub(crate) version: String,
    /// Arguments; what is left out takes its default.
    pub(crate) arguments: Vec<NamedValue>,
    /// The audience expression; empty: all devices.
    pub(crate) audience: String,
    /// How long clients may start it, milliseconds; 0: the definition's default.
    pub(crate) gather_ms: u64,
    /// How long its results are kept from the end of its window on, milliseconds; 0: the definition's default.
    pub(crate) keep_ms: u64,
    /// Who asks: the name in the operator's certificate.
    pub(crate) operator: String,
}

/// An order to be signed.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    /// The exact bytes to sign.
    pub(crate) order: Vec<u8>,
    /// The definition's envelope.
    pub(crate) definition: Bytes,
    /// How many devices it is for.
    pub(crate) targets: u64,
    /// How many of them have a session.
    pub(crate) online: u64,
    /// The first ten, by name.
    pub(crate) sample: Vec<DeviceId>,
}
