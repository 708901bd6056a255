//! Why a query or a script gave no answer.
use std::time::Duration;

/// Why a query or a script gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The SQL is at fault: syntax, an unknown name, a refused statement, a table that needs a constraint.
    #[error("{message}")]
    Sql {
        /// What is wrong, the nearest known name, and what the table has.
        message: String,
        /// Byte offset into the SQL, where SQLite tells it.
        offset: Option<usize>,
    },
    /// The query took longer than it may.
    #[error(
        "stopped after {run_time:.0?}, the longest this query may run; ask for fewer rows or a longer run time"
    )]
    Deadline {
        /// [`crate::QueryLimits::run_time`].
        run_time: Duration,
    },
    /// The helper ended without an answer: killed, out of memory, or a fault in it.
    #[error("the helper ended without an answer: {detail}")]
    Crashed {
        /// How it ended.
        detail: String,
    },
    /// The query, a value or the helper's answer is over a bound that cutting short cannot meet.
    #[error("{what}: {got} bytes, at most {wanted}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size.
        got: u64,
        /// Its bound.
        wanted: u64,
    },
    /// [`crate::SandboxProfile::Strict`] was demanded and cannot be had.
    #[error("sandbox = strict was demanded, and this machine cannot apply: {}", missing.join("; "))]
    Sandbox {
        /// The layers that are missing, each with its reason.
        missing: Vec<String>,
    },
    /// The SQL names a table that [`crate::Granted`] does not have. Nothing was run.
    #[error("table {table} is not granted")]
    NotGranted {
        /// The table.
        table: String,
    },
    /// A script is at fault: it could not begin, ended with an error, or wrote what is no row.
    #[error("{message}")]
    Script {
        /// What is wrong, and what was wanted.
        message: String,
    },
    /// A script that may only read was not begun: on this machine, nothing would keep it from changing something.
    #[error(
        "a script of a question runs only where it cannot change the machine, and this machine cannot apply: {}; use a \
         kernel of 5.13 or later with Landlock switched on",
        missing.join("; ")
    )]
    Unconfined {
        /// The layers that are missing, each with its reason.
        missing: Vec<String>,
    },
    /// It was stopped before it was done.
    #[error("it was stopped before it was done")]
    Stopped,
    /// The helper could not be started.
    #[error("cannot start the helper `{program}`: {detail}")]
    Spawn {
        /// The program.
        program: String,
        /// The system's reason.
        detail: String,
    },
}

impl QueryError {
    /// Returns whether the same query may succeed later on the same machine.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Deadline { .. } | Self::Crashed { .. } | Self::Spawn { .. } => true,
            Self::Sql { .. }
            | Self::Script { .. }
            | Self::TooLarge { .. }
            | Self::Sandbox { .. }
            | Self::Unconfined { .. }
            | Self::Stopped
            | Self::NotGranted { .. } => false,
        }
    }

    /// An error of a script.
    pub(crate) fn script(message: impl Into<String>) -> Self {
        Self::Script { message: message.into() }
    }

    /// An error of the SQL without a place.
    pub(crate) fn sql(message: impl Into<String>) -> Self {
        Self::Sql { message: message.into(), offset: None }
    }
}
