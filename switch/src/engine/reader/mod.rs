//! Reads what is committed, on connections of its own. Every call blocks: use `spawn_blocking`.

mod aggregate;
mod export;
mod fleet;
mod instructions;
mod pool;
mod targets;

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use muster_pki::DeviceId;
use muster_proto::common::v1::TargetState;
use muster_proto::ids::InstructionId;
use muster_proto::operator::v1::{
    AggregateResultsResponse, Client, Definition, DeviceResult, ExportResponse, Instruction, LoggedEvent,
    Target,
};
use tokio_util::sync::CancellationToken;

use super::EngineError;
use super::shared::Shared;
pub(crate) use aggregate::{AggregateLimits, Aggregates, check as check_aggregate};
pub(crate) use pool::Pool;

/// Reads what is committed. Clones share their connections.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pool: Arc<Pool>,
    shared: Arc<Shared>,
    aggregates: Arc<Aggregates>,
}

/// Where a page ended. What is in it is the reader's matter; it survives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cursor(String);

/// Some of many.
#[derive(Debug, Clone)]
pub(crate) struct Page<T> {
    /// In the order of the list.
    pub(crate) items: Vec<T>,
    /// Where to read on; also at the end of the list, for those who wait for more.
    pub(crate) cursor: Cursor,
    /// There was more when the page was read.
    pub(crate) more: bool,
}

/// What the engine can tell of how the Switch is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EngineStatus {
    /// Devices known.
    pub(crate) devices: u64,
    /// Devices with a session.
    pub(crate) online: u64,
    /// Instructions with targets that are not terminal.
    pub(crate) active_instructions: u64,
    /// The licence's serial; 0: none.
    pub(crate) licence_serial: u64,
    /// When the licence ends, or its signer's certificate before it, milliseconds since 1970; 0: none.
    pub(crate) licence_expires_at_ms: i64,
    /// When a newer licence should have come, milliseconds since 1970; 0: it does not say.
    pub(crate) licence_refresh_by_ms: i64,
    /// Why nothing can be issued under the licence, and what helps; empty: all that it admits can be. Also among the warnings.
    pub(crate) licence_problem: String,
    /// Free bytes where the store lies.
    pub(crate) disk_free_bytes: u64,
    /// Free bytes below which orders and imports are refused.
    pub(crate) disk_reserve_bytes: u64,
    /// Where the store lies.
    pub(crate) data_dir: PathBuf,
    /// Why the store is taken for an older copy, and what to do; `None`: nothing says so. Also among the warnings.
    pub(crate) older_copy: Option<String>,
    /// What an operator should look at, each with what to do.
    pub(crate) warnings: Vec<String>,
}

impl EngineStatus {
    /// Returns whether a newer licence should have come (`refresh_by`): the one that is held goes on working.
    pub(crate) fn is_licence_overdue(&self, now_ms: i64) -> bool {
        self.licence_refresh_by_ms != 0 && now_ms > self.licence_refresh_by_ms
    }
}

impl Cursor {
    /// Reads a page token; the empty one is the start of the list.
    pub(crate) fn from_token(token: &str) -> Self {
        Self(token.to_owned())
    }

    /// Returns whether it is the start of the list.
    pub(crate) fn is_start(&self) -> bool {
        self.0.is_empty()
    }

    fn number(&self) -> Result<i64, EngineError> {
        if self.is_start() {
            return Ok(0);
        }
        self.0
            .parse()
            .map_err(|_| EngineError::InvalidArgument("page_token is not one that was given".to_owned()))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<T> Page<T> {
    /// Returns what to put into `next_page_token`: empty at the end of the list.
    pub(crate) fn next_page_token(&self) -> String {
        if self.more { self.cursor.to_string() } else { String::new() }
    }
}

impl Reader {
    pub(crate) fn new(pool: Pool, shared: Arc<Shared>, aggregates: AggregateLimits) -> Self {
        Self { pool: Arc::new(pool), shared, aggregates: Arc::new(Aggregates::new(aggregates)) }
    }

    /// Returns one instruction with its counts.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], or [`EngineError::Damaged`] if it was set aside.
    pub(crate) fn instruction(&self, id: InstructionId) -> Result<Instruction, EngineError> {
        instructions::one(&self.pool, &self.shared, id)
    }

    /// Returns one instruction, its definition's envelope, and its order with all signatures that it has; no order where it lacks none.
    ///
    /// # Errors
    /// As [`Self::instruction`].
    pub(crate) fn to_approve(&self, id: InstructionId) -> Result<(Instruction, Bytes, Bytes), EngineError> {
        instructions::to_approve(&self.pool, &self.shared, id)
    }

    /// Lists instructions, newest first. A damaged one is left out.
    ///
    /// # Errors
    /// [`EngineError::InvalidArgument`] for a foreign cursor.
    pub(crate) fn instructions(&self, after: &Cursor, limit: u32) -> Result<Page<Instruction>, EngineError> {
        instructions::list(&self.pool, &self.shared, after, limit)
    }

    /// Lists committed results in the order of commitment; a page has at least one if there is any, and ends before
    /// it exceeds 3 MiB.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], or [`EngineError::InvalidArgument`] for a foreign cursor.
    pub(crate) fn results(
        &self,
        id: InstructionId,
        after: &Cursor,
        limit: u32,
    ) -> Result<Page<DeviceResult>, EngineError> {
        instructions::results(&self.pool, &self.shared, id, after, limit)
    }

    /// Runs one SELECT over the results of an instruction, as of one moment; an empty query: the definition's aggregate. Ends soon after
    /// `stop`.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Damaged`], [`EngineError::InvalidArgument`] for SQL that is wrong, that may not do what it
    /// wants, or that there is none of, [`EngineError::ResourceExhausted`] for what is more than its bounds allow, and where as many run
    /// as may, [`EngineError::Closed`] after `stop`.
    pub(crate) fn aggregate(
        &self,
        id: InstructionId,
        query: &str,
        stop: &CancellationToken,
    ) -> Result<AggregateResultsResponse, EngineError> {
        let asked = aggregate::Asked { id, query, stop };
        aggregate::run(&self.pool, &self.shared, &self.aggregates, asked)
    }

    /// Lists targets by device number, with the cause of each one's state.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], [`EngineError::Damaged`], or [`EngineError::InvalidArgument`] for a foreign cursor.
    pub(crate) fn targets(
        &self,
        id: InstructionId,
        state: Option<TargetState>,
        after: &Cursor,
        limit: u32,
    ) -> Result<Page<Target>, EngineError> {
        targets::list(&self.pool, &self.shared, id, state, after, limit)
    }

    /// Lists devices by name, all or those of an audience.
    ///
    /// # Errors
    /// [`EngineError::InvalidArgument`] for an audience that doesn't parse or names an unknown attribute.
    pub(crate) fn clients(
        &self,
        audience: &str,
        after: &Cursor,
        limit: u32,
    ) -> Result<Page<Client>, EngineError> {
        fleet::clients(&self.pool, &self.shared, audience, after, limit)
    }

    /// Returns one device.
    ///
    /// # Errors
    /// [`EngineError::NotFound`].
    pub(crate) fn client(&self, device: &DeviceId) -> Result<Client, EngineError> {
        fleet::client(&self.pool, &self.shared, device)
    }

    /// Lists definitions by name, then version.
    pub(crate) fn definitions(&self, after: &Cursor, limit: u32) -> Page<Definition> {
        self.shared.judge_documents();
        fleet::definitions(&self.shared, after, limit)
    }

    /// Returns one definition and its envelope; an empty version: the highest.
    ///
    /// # Errors
    /// [`EngineError::NotFound`].
    pub(crate) fn definition(&self, name: &str, version: &str) -> Result<(Definition, Bytes), EngineError> {
        self.shared.judge(|held| held.document.name().as_str() == name);
        fleet::definition(&self.shared, name, version)
    }

    /// Returns the licence's envelope; `None` if there is none.
    pub(crate) fn licence(&self) -> Option<Bytes> {
        self.shared.catalogue().licence.as_ref().map(|licence| licence.envelope.clone())
    }

    /// Returns why nothing can be issued under the licence that is held; empty: all that it admits can be.
    pub(crate) fn licence_problem(&self) -> String {
        self.status().licence_problem
    }

    /// Lists events in the order of commitment, after a position of the log, of all devices or one.
    ///
    /// # Errors
    /// [`EngineError::Internal`] if the store cannot be read.
    pub(crate) fn events(
        &self,
        device: Option<&DeviceId>,
        after: u64,
        limit: u32,
    ) -> Result<Vec<LoggedEvent>, EngineError> {
        fleet::events(&self.pool, &self.shared, device, after, limit)
    }

    /// Gives everything to `take`, kind by kind, as of one moment, until it breaks off.
    ///
    /// # Errors
    /// [`EngineError::Internal`] if the store cannot be read.
    pub(crate) fn export(
        &self,
        take: impl FnMut(ExportResponse) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        self.shared.judge_documents();
        export::run(&self.pool, &self.shared, take)
    }

    /// Tells how the engine is.
    pub(crate) fn status(&self) -> EngineStatus {
        self.shared.status()
    }
}
