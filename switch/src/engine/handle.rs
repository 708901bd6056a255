//! What the rest of the Switch calls; [`sessions`] has what shards do.

mod sessions;

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use muster_pki::DeviceId;
use muster_proto::ids::InstructionId;
use muster_proto::operator::v1::{
    BlockClientResponse, ClientPolicy, Definition, ImportPackResponse, RemoveClientResponse,
    UnblockClientResponse,
};
use muster_proto::relay::v1::{RelayEventsResponse, RelayedEvent};
use muster_signing::definition::Kind;
use tokio::sync::{mpsc, watch};

pub(crate) use self::sessions::SessionEngine;
use super::core::{
    BlockedDevices, Blocking, Command, ImportCommand, ImportedLicence, PrepareStop, Reply, StopCommand,
};
use super::reader::Reader;
use super::trust::Trust;
use super::writer::{self, Life};
use super::{EngineConfig, EngineEnd, EngineError, OpenError, Prepare, Prepared, ShardMessage, shared};

/// Opens engines.
#[derive(Debug)]
pub(crate) struct Engine;

/// Talks to a running engine. Clones talk to the same one.
#[derive(Debug, Clone)]
pub(crate) struct EngineHandle {
    sessions: SessionEngine,
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
        Ok(EngineHandle { sessions: SessionEngine::new(commands, shared), reader, life })
    }
}

/// Whoever may read may do what a shard does.
impl Deref for EngineHandle {
    type Target = SessionEngine;

    fn deref(&self) -> &SessionEngine {
        &self.sessions
    }
}

impl EngineHandle {
    /// Returns what a shard needs.
    pub(crate) fn of_sessions(&self) -> SessionEngine {
        self.sessions.clone()
    }

    /// Takes events from a Background Channel; all but those that the answer refuses are on disk when it returns.
    ///
    /// # Errors
    /// [`EngineError::InvalidArgument`] if there are too many, [`EngineError::ResourceExhausted`] if the disk is short;
    /// then none was taken. Else as [`SessionEngine::connect`].
    pub(crate) async fn relay(&self, events: Vec<RelayedEvent>) -> Result<RelayEventsResponse, EngineError> {
        self.ask(|reply| Command::Relay(events, reply)).await
    }

    /// Removes a device: it leaves the audiences, its session is told to close, its open targets are cancelled. All of
    /// it is on disk when it returns. What it brought stays, and its number is never given again.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], or as [`SessionEngine::connect`].
    pub(crate) async fn remove(&self, device: DeviceId) -> Result<RemoveClientResponse, EngineError> {
        self.ask(|reply| Command::Remove(device, reply)).await
    }

    /// Keeps a device out: its session is told to close, it gets no other, and it is no target of new instructions. All of it
    /// is on disk when it returns.
    ///
    /// # Errors
    /// [`EngineError::InvalidArgument`] (the reason is too long), [`EngineError::ResourceExhausted`] (as many are blocked as may be),
    /// or as [`SessionEngine::connect`].
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
    /// [`EngineError::NotFound`], or as [`SessionEngine::connect`].
    pub(crate) async fn unblock(&self, device: DeviceId) -> Result<UnblockClientResponse, EngineError> {
        self.ask(|reply| Command::Unblock(device, reply)).await
    }

    /// Returns who is blocked.
    pub(crate) fn blocked(&self) -> Arc<BlockedDevices> {
        self.shared.blocked()
    }

    /// Resolves an audience and makes the order to be signed. Stores nothing but the order's sequence. The kind of the
    /// definition is known only of the version that is found: `may` decides whether the order is made and kept.
    ///
    /// # Errors
    /// What `may` says, [`EngineError::NotFound`] (definition), [`EngineError::InvalidArgument`] (audience, arguments, gather time),
    /// [`EngineError::FailedPrecondition`] (licence, nobody in the audience), or as [`SessionEngine::connect`].
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
    /// [`SessionEngine::connect`].
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
    /// came in between), [`EngineError::FailedPrecondition`] (ended, stopped, licence), disk, or as [`SessionEngine::connect`].
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
    /// wait as may), or as [`SessionEngine::connect`].
    pub(crate) async fn prepare_stop(&self, prepare: PrepareStop) -> Result<Option<Vec<u8>>, EngineError> {
        self.ask(|reply| Command::Stop(Box::new(StopCommand::Draft(prepare, reply)))).await
    }

    /// Takes a signed stop; returns the instruction that it ends. When it returns, the stop is on disk, and what no device was
    /// handed is cancelled. A stop of what was stopped before changes nothing.
    ///
    /// # Errors
    /// [`EngineError::PermissionDenied`] (signature, another operator's stop), [`EngineError::InvalidArgument`] (tenant, window),
    /// [`EngineError::FailedPrecondition`] (there is nothing to stop), [`EngineError::ResourceExhausted`], or as [`SessionEngine::connect`].
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
    /// [`EngineError::FailedPrecondition`] (the version is held with other content), disk, or as [`SessionEngine::connect`].
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
    /// [`EngineError::FailedPrecondition`] (G6: a lower serial, another tenant, not valid now), disk, or as [`SessionEngine::connect`].
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
    /// [`SessionEngine::connect`].
    pub(crate) async fn import_policy(&self, envelope: Vec<u8>) -> Result<ClientPolicy, EngineError> {
        let shared = Arc::clone(&self.shared);
        let policy = blocking(move || shared::verify_policy(&shared, envelope)).await??;
        self.import(|reply| ImportCommand::Policy(policy, reply)).await
    }

    /// Returns the policies as shown to people, the latest first.
    ///
    /// # Errors
    /// As [`SessionEngine::connect`].
    pub(crate) async fn policies(&self) -> Result<Vec<ClientPolicy>, EngineError> {
        self.ask(Command::Policies).await
    }

    /// Returns one policy and its envelope.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], or as [`SessionEngine::connect`].
    pub(crate) async fn policy(&self, serial: u64) -> Result<(ClientPolicy, Bytes), EngineError> {
        let held = self.shared.catalogue().policy(serial).map(|held| held.envelope.clone());
        let shown = self.policies().await?.into_iter().find(|shown| shown.serial == serial);
        shown.zip(held).ok_or_else(|| {
            EngineError::NotFound(format!(
                "no policy {serial} is held; `muster policy list` shows those that are"
            ))
        })
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
}

/// Runs what takes milliseconds of CPU away from the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| EngineError::Closed)
}
