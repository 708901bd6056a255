//! Why an aggregate gave no answer.

use std::time::Duration;

use super::bounds::Stopped;
use crate::engine::EngineError;

/// The longest SELECT in bytes: as long as a question may be.
pub(super) const QUERY_BYTES_MAX: usize = 32 << 10;

/// Why there is no answer. Each says what would help.
#[derive(Debug, thiserror::Error)]
pub(super) enum AggregateError {
    /// As many run as may.
    #[error("{0} aggregates run, as many as `engine.aggregates_max` allows; try again in a moment")]
    Busy(usize),
    /// There is nothing to run.
    #[error("{definition} has no [aggregate]; give a query over the table `results`")]
    None {
        /// The definition's name and version.
        definition: String,
    },
    /// The SQL is wrong, or may not do what it wants.
    #[error("{problem}; the table `results` has the columns {columns}")]
    Sql {
        /// SQLite's words, or what is refused.
        problem: String,
        /// The table's columns.
        columns: String,
    },
    /// More rows than may go in.
    #[error(
        "the results have more than {most} rows, and a sum over a part would be wrong; raise `engine.aggregate_rows_max`, or \
         take the rows themselves (ListResults)"
    )]
    TooManyRows {
        /// How many may.
        most: u64,
    },
    /// The table or the SELECT takes more memory than it may.
    #[error(
        "{what} more than `engine.aggregate_memory` allows; select less, raise it, or take the rows themselves (ListResults)"
    )]
    Memory {
        /// What takes it.
        what: &'static str,
    },
    /// It took too long.
    #[error(
        "it took longer than {0:?}, as long as `engine.aggregate_deadline` allows; select less, or raise it"
    )]
    Deadline(Duration),
    /// Whoever asked has gone, or the Switch stops.
    #[error("nobody waits for it any more")]
    Gone,
    /// The store cannot be read, or the system does not do its part.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl AggregateError {
    /// Returns its name in metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Busy(_) => "busy",
            Self::None { .. } => "no_aggregate",
            Self::Sql { .. } => "sql",
            Self::TooManyRows { .. } => "too_many_rows",
            Self::Memory { .. } => "memory",
            Self::Deadline(_) => "deadline",
            Self::Gone => "gone",
            Self::Engine(_) => "failed",
        }
    }

    /// What SQLite cannot do of its own account.
    pub(super) fn sqlite(error: &rusqlite::Error) -> Self {
        Self::Engine(EngineError::Internal(format!("the table in memory: {error}")))
    }
}

impl From<Stopped> for AggregateError {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Deadline(allowed) => Self::Deadline(allowed),
            Stopped::Gone => Self::Gone,
            Stopped::Memory => Self::Memory { what: "the Switch's memory grew while the query ran, by" },
            Stopped::Blind => Self::Engine(EngineError::Internal(
                "/proc/self/status does not tell the Switch's memory (VmRSS), without which no SQL is run; mount /proc"
                    .to_owned(),
            )),
        }
    }
}

impl From<AggregateError> for EngineError {
    fn from(error: AggregateError) -> Self {
        let said = error.to_string();
        match error {
            AggregateError::Busy(_)
            | AggregateError::TooManyRows { .. }
            | AggregateError::Memory { .. }
            | AggregateError::Deadline(_) => Self::ResourceExhausted(said),
            AggregateError::None { .. } | AggregateError::Sql { .. } => Self::InvalidArgument(said),
            AggregateError::Gone => Self::Closed,
            AggregateError::Engine(error) => error,
        }
    }
}
