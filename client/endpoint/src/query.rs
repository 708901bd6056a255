//! One query: what goes into the helper, what comes out.
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::QueryError;
use crate::value::{Column, SqlValue};

pub(crate) mod cgroup;
mod parent;

pub use parent::{Work, run, run_action, run_script, run_until};

/// Lets helpers have limits of control groups where this process may arrange it (`Delegate=yes` of systemd). Call it once,
/// before any helper.
pub fn arrange_groups() {
    cgroup::move_aside();
}

/// The longest SQL text, in bytes: a definition's envelope may have 256 KiB, and its SQL is the most of it.
pub const SQL_BYTES_MAX: usize = 256 * 1024;

/// The longest text or blob of an answer, in bytes (`muster.common.v1.Value`); longer ones are cut and the answer
/// is marked truncated.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;

/// The largest resource that is run as a script, in bytes: it is held in memory, where nobody changes it.
pub const SCRIPT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How long after [`QueryLimits::run_time`] the helper may take to start and to hand over its last rows, before its
/// process group is killed.
pub const RUN_GRACE: Duration = Duration::from_secs(2);

/// SQL to be run over the machine's tables.
#[derive(Debug, Clone)]
pub struct Query {
    /// One `SELECT` (or `WITH … SELECT`, `VALUES`).
    pub sql: String,
    /// Values of `:name` parameters, named without the colon. One that the SQL doesn't use is no error; one that the
    /// SQL uses and that isn't here is.
    pub parameters: Vec<(String, SqlValue)>,
    /// What the query may cost.
    pub limits: QueryLimits,
    /// How tightly the helper is shut in.
    pub sandbox: SandboxProfile,
    /// Files of the definition's resources, readable whatever the profile.
    pub readable: Vec<PathBuf>,
    /// The tables that it may read.
    pub granted: Granted,
    /// The SQL of steps that follow this one: all of it must be granted before any of this is run.
    pub then: Vec<String>,
}

/// The tables that may be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Granted {
    /// Every one.
    #[default]
    All,
    /// These and no others; there is nothing else that the SQL could name.
    Tables(Vec<String>),
}

impl Granted {
    /// Whether this table may be read.
    pub(crate) fn has(&self, table: &str) -> bool {
        match self {
            Self::All => true,
            Self::Tables(tables) => tables.iter().any(|granted| granted == table),
        }
    }
}

/// What one query may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryLimits {
    /// Wall-clock time from the helper's start of work.
    pub run_time: Duration,
    /// Rows; more are dropped and the answer is marked truncated.
    pub rows: u32,
    /// Bytes of encoded rows; more are dropped and the answer is marked truncated.
    pub bytes: u32,
}

impl Default for QueryLimits {
    /// 10 s, 10,000 rows, 768 KiB (the largest result of the protocol).
    fn default() -> Self {
        Self { run_time: Duration::from_secs(10), rows: 10_000, bytes: 768 * 1024 }
    }
}

/// How tightly the helper is shut in; [`crate::helper`] has the table of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SandboxProfile {
    /// Every layer that the machine offers; what is missing is reported. The user is kept: other processes' details
    /// and root's files can be read by root only.
    #[default]
    Standard,
    /// Every layer, or no answer. Runs as `nobody` and reads system folders and resources only.
    Strict,
}

/// The program that is the helper, with the arguments that make it one.
#[derive(Debug, Clone)]
pub struct HelperCommand {
    /// The program, by absolute path.
    pub program: PathBuf,
    /// Its arguments, for instance the hidden subcommand.
    pub arguments: Vec<OsString>,
    /// What no script of a question reads: files and folders of the client itself, by absolute paths.
    pub closed: Vec<PathBuf>,
    /// A folder that nobody but the client may enter, by absolute path: there actions on one file take turns.
    pub locks: PathBuf,
}

/// Takes the rows of an answer while they come, so that nobody has to hold all of them.
pub trait TakeRows: Send {
    /// Takes the next rows; the helper waits as long as this does.
    fn take(&mut self, rows: Vec<Vec<SqlValue>>) -> impl Future<Output = ()> + Send;
}

impl TakeRows for Vec<Vec<SqlValue>> {
    async fn take(&mut self, rows: Vec<Vec<SqlValue>>) {
        self.extend(rows);
    }
}

/// Without a taker nobody wants the rows.
impl<T: TakeRows> TakeRows for Option<T> {
    async fn take(&mut self, rows: Vec<Vec<SqlValue>>) {
        if let Some(taker) = self {
            taker.take(rows).await;
        }
    }
}

/// What is told beside the rows of one query, behind the last of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The columns, in order.
    pub columns: Vec<Column>,
    /// Rows or values were dropped or cut to meet a limit.
    pub truncated: bool,
    /// The sandbox layers that weren't applied, each as `layer: reason`.
    pub sandbox_missing: Vec<String>,
}

/// The rows of one query.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The columns, in order.
    pub columns: Vec<Column>,
    /// The rows, each with as many values as there are columns.
    pub rows: Vec<Vec<SqlValue>>,
    /// Rows or values were dropped or cut to meet a limit.
    pub truncated: bool,
    /// The sandbox layers that weren't applied, each as `layer: reason`.
    pub sandbox_missing: Vec<String>,
}

impl Query {
    /// Checks what can be checked before a process is started.
    fn check_size(&self) -> Result<(), QueryError> {
        let parameters: usize =
            self.parameters.iter().map(|(name, value)| name.len() + value_bytes(value)).sum();
        let size = self.sql.len() + parameters;
        let then: usize = self.then.iter().map(String::len).sum();
        for (what, size) in [("the SQL and its parameters", size), ("the SQL of later steps", then)] {
            if size > SQL_BYTES_MAX {
                let (got, wanted) = (size as u64, SQL_BYTES_MAX as u64);
                return Err(QueryError::TooLarge { what: what.to_owned(), got, wanted });
            }
        }
        Ok(())
    }
}

pub(crate) fn value_bytes(value: &SqlValue) -> usize {
    match value {
        SqlValue::Null => 0,
        SqlValue::Integer(_) | SqlValue::Real(_) => 8,
        SqlValue::Text(text) => text.len(),
        SqlValue::Blob(bytes) => bytes.len(),
    }
}
