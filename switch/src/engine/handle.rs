//! What the rest of the Switch calls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use muster_pki::DeviceId;
use muster_proto::common::v1::TargetState;
use muster_proto::ids::{Digest, Epoch, InstructionId, OutboxId};
use muster_proto::operator::v1::{
    Block, BlockClientResponse, ClientPolicy, Definition, ImportPackResponse, RemoveClientResponse,
    UnblockClientResponse,
};
use muster_proto::relay::v1::{RelayEventsResponse, RelayedEvent};
use muster_proto::session::v1::{DocumentKind, Event, Result as SessionResult};
use muster_signing::definition::Kind;
use roaring::RoaringBitmap;
use tokio::sync::{mpsc, oneshot, watch};

use super::core::{
    BlockedDevices, Blocking, Command, EventIn, ImportCommand, ImportedLicence, PrepareStop, Reply, ResultIn,
    StopCommand,
};
use super::reader::Reader;
use super::shared::Shared;
use super::trust::Trust;
use super::writer::{self, Life};
use super::{
    Connect, Connected, EngineConfig, EngineEnd, EngineError, OpenError, Prepare, Prepared, SessionKey,
    ShardMessage,
};
use super::{metrics, shared};

/// Opens engines.
#[derive(Debug)]
pub(crate) struct Engine;

/// Talks to a running engine. Clones talk to the same one.
#[derive(Debug, Clone)]
pub(crate) struct EngineHandle {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    reader: Reader,
    life: Arc<Life>,
}

impl Engine {
    /// Opens the store, loads what it holds and starts the writer thread. Blocks until the store is loaded; call it on
    /// the main thread, before any shard separates its descriptors.
    ///
    /// # Errors
    /// [`OpenError::Store`] says what is wrong with the store, [`OpenError::Thread`] that the system gives no thread.
    pub(crate) fn open(
        config: EngineConfig,
        shards: Vec<mpsc::Sender<ShardMessage>>,
    ) -> Result<EngineHandle, OpenError> {
        let (commands, queue) = mpsc::channel(config.queue_items_max.max(1));
        let (shared, reader, life) = writer::start(config, shards, queue)?;
        Ok(EngineHandle { commands, shared, reader, life })
    }
}

impl EngineHandle {
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

    /// Takes events from a Background Channel; all but those that the answer refuses are on disk when it returns.
    ///
    /// # Errors
    /// [`EngineError::InvalidArgument`] if there are too many, [`EngineError::ResourceExhausted`] if the disk is short;
    /// then none was taken. Else as [`Self::connect`].
    pub(crate) async fn relay(&self, events: Vec<RelayedEvent>) -> Result<RelayEventsResponse, EngineError> {
        self.ask(|reply| Command::Relay(events, reply)).await
    }

    /// Removes a device: it leaves the audiences, its session is told to close, its open targets are cancelled. All of
    /// it is on disk when it returns. What it brought stays, and its number is never given again.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], or as [`Self::connect`].
    pub(crate) async fn remove(&self, device: DeviceId) -> Result<RemoveClientResponse, EngineError> {
        self.ask(|reply| Command::Remove(device, reply)).await
    }

    /// Keeps a device out: its session is told to close, it gets no other, and it is no target of new instructions. All of it
    /// is on disk when it returns.
    ///
    /// # Errors
    /// [`EngineError::InvalidArgument`] (the reason is too long), [`EngineError::ResourceExhausted`] (as many are blocked as may be),
    /// or as [`Self::connect`].
    pub(crate) async fn block(
        &self,
        device: DeviceId,
        operator: String,
        reason: String,
    ) -> Result<BlockClientResponse, EngineError> {
        let blocking = Box::new(Blocking { device, operator, reason });
        self.ask(|reply| Command::Block(blocking, reply)).await
    }

    /// Lets a device in again.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], or as [`Self::connect`].
    pub(crate) async fn unblock(&self, device: DeviceId) -> Result<UnblockClientResponse, EngineError> {
        self.ask(|reply| Command::Unblock(device, reply)).await
    }

    /// Returns who blocked the device, when and why; `None` if it may come in.
    pub(crate) fn block_of(&self, device: &DeviceId) -> Option<Block> {
        self.shared.blocked().get(device).cloned()
    }

    /// Returns who is blocked.
    pub(crate) fn blocked(&self) -> Arc<BlockedDevices> {
        self.shared.blocked()
    }

    /// Returns a signed document; `None` if the Switch doesn't have it.
    pub(crate) fn document(&self, kind: DocumentKind, digest: Digest) -> Option<Bytes> {
        self.shared.catalogue().document(kind, digest)
    }

    /// Resolves an audience and makes the order to be signed. Stores nothing but the order's sequence. The kind of the
    /// definition is known only of the version that is found: `may` decides whether the order is made and kept.
    ///
    /// # Errors
    /// What `may` says, [`EngineError::NotFound`] (definition), [`EngineError::InvalidArgument`] (audience, arguments, gather time),
    /// [`EngineError::FailedPrecondition`] (licence, nobody in the audience), or as [`Self::connect`].
    pub(crate) async fn prepare<E: From<EngineError>>(
        &self,
        prepare: Prepare,
        may: impl FnOnce(Kind) -> Result<(), E>,
    ) -> Result<Prepared, E> {
        let (shared, name) = (Arc::clone(&self.shared), prepare.definition.clone());
        blocking(move || shared.judge(|held| held.document.name().as_str() == name)).await?;
        let draft = self.ask(|reply| Command::Draft(Box::new(prepare), reply)).await?;
        may(draft.kind())?;
        let (kept, prepared) = blocking(move || draft.finish()).await?;
        self.ask(|reply| Command::Keep(Box::new(kept), reply)).await?;
        Ok(prepared)
    }

    /// Takes a signed order. When it returns, instruction, targets and signature are on disk.
    ///
    /// # Errors
    /// [`EngineError::PermissionDenied`] (signature, another operator's order), [`EngineError::NotPrepared`] (not here, or
    /// too long ago), [`EngineError::FailedPrecondition`] (licence), [`EngineError::ResourceExhausted`] (disk), or as
    /// [`Self::connect`].
    pub(crate) async fn submit(
        &self,
        envelope: Vec<u8>,
        idempotency_key: String,
        operator: &str,
    ) -> Result<InstructionId, EngineError> {
        let (shared, operator) = (Arc::clone(&self.shared), operator.to_owned());
        let verify = move || {
            let submission = shared::verify_order(&shared, envelope, idempotency_key, operator)?;
            shared.judge(|held| submission.order.definition_digest == held.digest.as_ref());
            Ok::<_, EngineError>(submission)
        };
        let submission = blocking(verify).await??;
        self.ask(|reply| Command::Submit(Box::new(submission), reply)).await
    }

    /// Takes an order with one more signature, of an instruction that lacks approvals. When it returns, the approval is on disk.
    ///
    /// # Errors
    /// [`EngineError::PermissionDenied`] (signature, somebody who has signed it before), [`EngineError::NotPrepared`] (another approval
    /// came in between), [`EngineError::FailedPrecondition`] (ended, stopped, licence), disk, or as [`Self::connect`].
    pub(crate) async fn approve(
        &self,
        envelope: Vec<u8>,
        operator: &str,
    ) -> Result<InstructionId, EngineError> {
        let (shared, operator) = (Arc::clone(&self.shared), operator.to_owned());
        let verify = move || {
            let approval = shared::verify_approval(&shared, envelope, operator)?;
            shared.judge(|held| approval.order.definition_digest == held.digest.as_ref());
            Ok::<_, EngineError>(approval)
        };
        let approval = blocking(verify).await??;
        self.ask(|reply| Command::Approve(Box::new(approval), reply)).await
    }

    /// Makes the order that stops an instruction, to be signed; `None`: it has ended, or was stopped before. Stores nothing but
    /// the order's sequence.
    ///
    /// # Errors
    /// [`EngineError::InvalidArgument`] (the reason), [`EngineError::Damaged`], [`EngineError::ResourceExhausted`] (as many stops
    /// wait as may), or as [`Self::connect`].
    pub(crate) async fn prepare_stop(&self, prepare: PrepareStop) -> Result<Option<Vec<u8>>, EngineError> {
        self.ask(|reply| Command::Stop(Box::new(StopCommand::Draft(prepare, reply)))).await
    }

    /// Takes a signed stop; returns the instruction that it ends. When it returns, the stop is on disk, and what no device was
    /// handed is cancelled. A stop of what was stopped before changes nothing.
    ///
    /// # Errors
    /// [`EngineError::PermissionDenied`] (signature, another operator's stop), [`EngineError::InvalidArgument`] (tenant, window),
    /// [`EngineError::FailedPrecondition`] (there is nothing to stop), [`EngineError::ResourceExhausted`], or as [`Self::connect`].
    pub(crate) async fn submit_stop(
        &self,
        envelope: Vec<u8>,
        operator: &str,
    ) -> Result<InstructionId, EngineError> {
        let (shared, operator) = (Arc::clone(&self.shared), operator.to_owned());
        let submission = blocking(move || shared::verify_stop(&shared, envelope, operator)).await??;
        let submission = Box::new(submission);
        self.ask(|reply| Command::Stop(Box::new(StopCommand::Submit(submission, reply)))).await
    }

    /// Imports a signed definition. The same bytes again change nothing.
    ///
    /// # Errors
    /// [`EngineError::PermissionDenied`] (G1 of signing.md), [`EngineError::InvalidArgument`] (its text),
    /// [`EngineError::FailedPrecondition`] (the version is held with other content), disk, or as [`Self::connect`].
    pub(crate) async fn import_definition(&self, envelope: Vec<u8>) -> Result<Definition, EngineError> {
        let shared = Arc::clone(&self.shared);
        let definition = blocking(move || shared::verify_definition(&shared, envelope)).await??;
        self.import(|reply| ImportCommand::Definition(definition, reply)).await
    }

    /// Imports the definitions of a pack, all of them or none; they are on disk when it returns. The same pack again changes nothing.
    ///
    /// # Errors
    /// [`EngineError::InvalidArgument`] (the index, or definitions that are not those it names), else what
    /// [`Self::import_definition`] says of one of them.
    pub(crate) async fn import_pack(
        &self,
        index: Vec<u8>,
        definitions: Vec<Vec<u8>>,
    ) -> Result<ImportPackResponse, EngineError> {
        let shared = Arc::clone(&self.shared);
        let pack = blocking(move || shared::verify_pack(&shared, &index, definitions)).await??;
        self.import(|reply| ImportCommand::Pack(pack, reply)).await
    }

    /// Imports a signed licence and tells every session of it. What is queued and not admitted any more is refused.
    ///
    /// # Errors
    /// [`EngineError::PermissionDenied`] (signature), [`EngineError::InvalidArgument`] (its text),
    /// [`EngineError::FailedPrecondition`] (G6: a lower serial, another tenant, not valid now), disk, or as [`Self::connect`].
    pub(crate) async fn import_licence(&self, envelope: Vec<u8>) -> Result<ImportedLicence, EngineError> {
        let shared = Arc::clone(&self.shared);
        let verified = move || {
            // What it does not admit is refused by the code of the moment, and who signed that is not judged on the writer's thread.
            shared.judge_documents();
            shared::verify_licence(&shared, envelope)
        };
        let licence = blocking(verified).await??;
        self.import(|reply| ImportCommand::Licence(licence, reply)).await
    }

    /// Imports a signed policy and tells the sessions that it is for. The same bytes again change nothing.
    ///
    /// # Errors
    /// [`EngineError::PermissionDenied`] (signature), [`EngineError::InvalidArgument`] (its text),
    /// [`EngineError::FailedPrecondition`] (no roots, another tenant, a serial that is not higher, too many), disk, or as
    /// [`Self::connect`].
    pub(crate) async fn import_policy(&self, envelope: Vec<u8>) -> Result<ClientPolicy, EngineError> {
        let shared = Arc::clone(&self.shared);
        let policy = blocking(move || shared::verify_policy(&shared, envelope)).await??;
        self.import(|reply| ImportCommand::Policy(policy, reply)).await
    }

    /// Returns the policies as shown to people, the latest first.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(crate) async fn policies(&self) -> Result<Vec<ClientPolicy>, EngineError> {
        self.ask(Command::Policies).await
    }

    /// Returns one policy and its envelope.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], or as [`Self::connect`].
    pub(crate) async fn policy(&self, serial: u64) -> Result<(ClientPolicy, Bytes), EngineError> {
        let held = self.shared.catalogue().policy(serial).map(|held| held.envelope.clone());
        let shown = self.policies().await?.into_iter().find(|shown| shown.serial == serial);
        shown.zip(held).ok_or_else(|| {
            EngineError::NotFound(format!(
                "no policy {serial} is held; `muster policy list` shows those that are"
            ))
        })
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

    /// Replaces whom the engine believes, such as after a CRL was loaded.
    pub(crate) fn set_trust(&self, trust: Arc<Trust>) {
        self.shared.set_trust(trust);
    }

    /// Returns the way to read what is committed. Its calls block: use `spawn_blocking`.
    pub(crate) fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Returns a number that grows with each commit, so that who waits for more can read on from its cursor.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes()
    }

    /// Returns how many devices have a session.
    #[cfg(test)]
    pub(crate) fn online(&self) -> u64 {
        self.shared.online_count()
    }

    /// Returns whether the device has a session.
    #[cfg(test)]
    pub(crate) fn is_online(&self, device: &DeviceId) -> bool {
        self.shared.address(device).is_some()
    }

    /// Returns why the engine ended, when it does: [`EngineEnd::Closed`] after [`Self::close`].
    pub(crate) async fn failed(&self) -> EngineEnd {
        self.life.failed().await
    }

    /// Commits what is queued and ends the engine; blocks until it has. Calls made later return
    /// [`EngineError::Closed`]. Returns why it ended: [`EngineEnd::Closed`] if the last commit is on disk.
    pub(crate) fn close(self) -> EngineEnd {
        self.life.close()
    }

    async fn import<T>(&self, command: impl FnOnce(Reply<T>) -> ImportCommand) -> Result<T, EngineError> {
        self.ask(|reply| Command::Import(Box::new(command(reply)))).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, EngineError> {
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

    async fn tell(&self, command: Command) -> Result<(), EngineError> {
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

/// Runs what takes milliseconds of CPU away from the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| EngineError::Closed)
}
