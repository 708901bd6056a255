//! What the core can be told.

use muster_pki::DeviceId;
use muster_proto::common::v1::TargetState;
use muster_proto::ids::{Digest, Epoch, InstructionId, OutboxId};
use muster_proto::operator::v1::{
    BlockClientResponse, ClientPolicy, Definition, ImportPackResponse, RemoveClientResponse,
    UnblockClientResponse,
};
use muster_proto::relay::v1::{RelayEventsResponse, RelayedEvent};
use muster_proto::session::v1::{Event, Result as SessionResult};
use roaring::RoaringBitmap;
use tokio::sync::oneshot;

use super::{
    ApprovalSubmission, Draft, HeldDefinition, HeldLicence, HeldPack, HeldPolicy, ImportedLicence,
    PreparedOrder, StopCommand, Submission,
};
use crate::engine::{Connect, Connected, EngineError, Prepare, SessionKey};

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

/// One item of a batch.
#[derive(Debug)]
pub(crate) enum Command {
    Connect(Box<Connect>, Reply<Connected>),
    Disconnected { number: u32, epoch: Epoch },
    Abandon { device: DeviceId, shard: u16, slot: u32 },
    Sent { instruction: InstructionId, numbers: RoaringBitmap },
    Progress { instruction: InstructionId, state: TargetState, numbers: RoaringBitmap },
    Result(Box<ResultIn>),
    Event(Box<EventIn>),
    Relay(Vec<RelayedEvent>, Reply<RelayEventsResponse>),
    Remove(DeviceId, Reply<RemoveClientResponse>),
    Block(Box<Blocking>, Reply<BlockClientResponse>),
    Unblock(DeviceId, Reply<UnblockClientResponse>),
    Draft(Box<Prepare>, Reply<Draft>),
    Keep(Box<PreparedOrder>, Reply<()>),
    Submit(Box<Submission>, Reply<InstructionId>),
    Approve(Box<ApprovalSubmission>, Reply<InstructionId>),
    Stop(Box<StopCommand>),
    Import(Box<ImportCommand>),
    PolicyCheck { number: u32, epoch: Epoch, serial: u64, reply: Reply<Option<Digest>> },
    Policies(Reply<Vec<ClientPolicy>>),
}

impl Command {
    /// Returns whether it may be refused for want of disk, so that somebody has to look how much there is.
    pub(crate) fn needs_disk(&self) -> bool {
        match self {
            Self::Event(_)
            | Self::Relay(..)
            | Self::Draft(..)
            | Self::Submit(..)
            | Self::Approve(..)
            | Self::Import(_) => true,
            Self::Connect(..)
            | Self::Disconnected { .. }
            | Self::Abandon { .. }
            | Self::Sent { .. }
            | Self::Progress { .. }
            | Self::Result(_)
            | Self::Remove(..)
            | Self::Block(..)
            | Self::Unblock(..)
            | Self::PolicyCheck { .. }
            | Self::Policies(_)
            | Self::Stop(_)
            | Self::Keep(..) => false,
        }
    }
}

/// A verified document to be held.
#[derive(Debug)]
pub(crate) enum ImportCommand {
    Definition(HeldDefinition, Reply<Definition>),
    Pack(HeldPack, Reply<ImportPackResponse>),
    Licence(HeldLicence, Reply<ImportedLicence>),
    Policy(HeldPolicy, Reply<ClientPolicy>),
}

/// Whom to keep out.
#[derive(Debug, Clone)]
pub(crate) struct Blocking {
    pub(crate) device: DeviceId,
    /// Who says so.
    pub(crate) operator: String,
    pub(crate) reason: String,
}

/// A result as a session received it.
#[derive(Debug, Clone)]
pub(crate) struct ResultIn {
    pub(crate) number: u32,
    pub(crate) outbox: OutboxId,
    pub(crate) session: SessionKey,
    pub(crate) result: SessionResult,
    pub(crate) encoded_len: u32,
}

/// An event as a session received it.
#[derive(Debug, Clone)]
pub(crate) struct EventIn {
    pub(crate) number: u32,
    pub(crate) outbox: OutboxId,
    pub(crate) session: SessionKey,
    pub(crate) event: Event,
    pub(crate) encoded_len: u32,
}
