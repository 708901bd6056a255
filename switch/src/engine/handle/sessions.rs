//! [`SessionEngine`]: what a shard calls.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_pki::DeviceId;
use muster_proto::common::v1::TargetState;
use muster_proto::ids::{Digest, Epoch, InstructionId, OutboxId};
use muster_proto::operator::v1::Block;
use muster_proto::session::v1::{DocumentKind, Event, Result as SessionResult};
use roaring::RoaringBitmap;
use tokio::sync::{mpsc, oneshot};

use crate::engine::core::{Command, EventIn, Reply, ResultIn};
use crate::engine::shared::Shared;
use crate::engine::{Connect, Connected, EngineError, SessionKey, metrics};

/// Talks to a running engine, and cannot read its store: a shard may have a table of descriptors of its own, where the numbers of the store's
/// connections are other files', and the last one who has a connection closes it. Clones talk to the same one.
#[derive(Debug, Clone)]
pub(crate) struct SessionEngine {
    commands: mpsc::Sender<Command>,
    pub(super) shared: Arc<Shared>,
}

impl SessionEngine {
    pub(super) fn new(commands: mpsc::Sender<Command>, shared: Arc<Shared>) -> Self {
        Self { commands, shared }
    }

    /// Begins a session: number, epoch, attributes and time are on disk when it returns. An older session of the
    /// device is told to close.
    ///
    /// # Errors
    /// [`EngineError::PermissionDenied`] if the device is blocked, [`EngineError::ResourceExhausted`] if the engine is too busy,
    /// [`EngineError::Closed`] if it stops.
    pub(crate) async fn connect(&self, connect: Connect) -> Result<Connected, EngineError> {
        self.ask(|reply| Command::Connect(Box::new(connect), reply)).await
    }

    /// Ends a session. A later session of the device is not touched.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(crate) async fn disconnected(&self, number: u32, epoch: Epoch) -> Result<(), EngineError> {
        self.tell(Command::Disconnected { number, epoch }).await
    }

    /// Ends whatever session [`Self::connect`] may have begun at a place, for who got no answer from it. Without such a
    /// session nothing happens. The place must not be given to another session before this returns.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(crate) async fn abandon(&self, device: DeviceId, shard: u16, slot: u32) -> Result<(), EngineError> {
        self.tell(Command::Abandon { device, shard, slot }).await
    }

    /// Notes that a device's session goes on from another address. It is shown at once, and nowhere kept.
    pub(crate) fn moved(&self, device: &DeviceId, from: SocketAddr, to: SocketAddr) {
        self.shared.moved(device, from, to);
    }

    /// Notes that an order was written to these devices' sessions.
    ///
    /// # Errors
    /// As [`Self::connect`]. Nothing is lost by it: the targets stay queued and get the order again.
    pub(crate) async fn sent(
        &self,
        instruction: InstructionId,
        numbers: RoaringBitmap,
    ) -> Result<(), EngineError> {
        self.tell(Command::Sent { instruction, numbers }).await
    }

    /// Notes how far these clients have come.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(crate) async fn progress(
        &self,
        instruction: InstructionId,
        state: TargetState,
        numbers: RoaringBitmap,
    ) -> Result<(), EngineError> {
        self.tell(Command::Progress { instruction, state, numbers }).await
    }

    /// Takes a result; the session gets [`ShardMessage::Ack`] after it is on disk. A repeated one is acked again and
    /// stored once.
    ///
    /// # Errors
    /// As [`Self::connect`]; then the result was not taken, and ending the session makes the client send it again.
    pub(crate) async fn result(
        &self,
        number: u32,
        outbox: OutboxId,
        session: SessionKey,
        result: SessionResult,
        encoded_len: u32,
    ) -> Result<(), EngineError> {
        let result = ResultIn { number, outbox, session, result, encoded_len };
        self.tell(Command::Result(Box::new(result))).await
    }

    /// Takes an event, as [`Self::result`]. While the disk is short there is no ack; later the session is closed, so that
    /// the client sends it again.
    ///
    /// # Errors
    /// As [`Self::result`].
    pub(crate) async fn event(
        &self,
        number: u32,
        outbox: OutboxId,
        session: SessionKey,
        event: Event,
        encoded_len: u32,
    ) -> Result<(), EngineError> {
        let event = EventIn { number, outbox, session, event, encoded_len };
        self.tell(Command::Event(Box::new(event))).await
    }

    /// Returns who blocked the device, when and why; `None` if it may come in.
    pub(crate) fn block_of(&self, device: &DeviceId) -> Option<Block> {
        self.shared.blocked().get(device).cloned()
    }

    /// Returns a signed document; `None` if the Switch doesn't have it.
    pub(crate) fn document(&self, kind: DocumentKind, digest: Digest) -> Option<Bytes> {
        self.shared.catalogue().document(kind, digest)
    }

    /// Notes which policy a session's device follows, `told` before; it is on disk when this returns. Returns the later one
    /// that the device is to follow. Where nothing is new the writer is not asked.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(crate) async fn policy_check(
        &self,
        number: u32,
        epoch: Epoch,
        serial: u64,
        told: u64,
    ) -> Result<Option<Digest>, EngineError> {
        let highest = self.shared.catalogue().policies().next_back().map_or(0, |held| held.document.serial());
        if serial == told && highest <= serial {
            return Ok(None);
        }
        self.ask(|reply| Command::PolicyCheck { number, epoch, serial, reply }).await
    }

    pub(super) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply)).await?;
        match tokio::time::timeout(ANSWER_DEADLINE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(EngineError::Closed),
            Err(_) => Err(EngineError::ResourceExhausted(format!(
                "the store gave no answer within {ANSWER_DEADLINE:?}: look at the disk, then try again"
            ))),
        }
    }

    pub(super) async fn tell(&self, command: Command) -> Result<(), EngineError> {
        match self.commands.send_timeout(command, QUEUE_DEADLINE).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(EngineError::Closed),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                metrics::queue_full();
                Err(EngineError::ResourceExhausted(format!(
                    "the store's queue was full for {QUEUE_DEADLINE:?}: look at the disk, then try again"
                )))
            }
        }
    }
}

/// How long a call waits for room in the engine's queue: several fsyncs of a slow disk, well below a session's deadline.
const QUEUE_DEADLINE: Duration = Duration::from_secs(10);

/// How long a call waits for its commit; below the 60 s that an operator's call may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
