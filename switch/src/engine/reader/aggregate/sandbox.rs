//! The SQLite connection that an aggregate runs in: a database of its own in memory, and one SELECT over the one table.
//!
//! The SQL comes from authors and operators, and runs in the Switch's process. What is not named here it may not do: an authorizer decides while
//! it is prepared, SQLite's own limits bound its size, and a [`Watch`] ends it. The endpoint's helper does the like in a process of its own.

use std::sync::{Arc, Mutex, PoisonError};

use muster_signing::definition::AGGREGATE_FUNCTIONS;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, Statement};

use super::bounds::{Stopped, Watch};
use super::error::{AggregateError, QUERY_BYTES_MAX};

/// The one table.
pub(super) const TABLE: &str = "results";

/// Virtual-machine instructions between two looks: one of them may write a value of 1 MiB.
const PROGRESS_INSTRUCTIONS: i32 = 200;

/// Bytes of a page of the table: SQLite's default.
const PAGE_BYTES: u64 = 4096;

/// SQLite's limits, where they are lower than its defaults. A row has at most one result's 768 KiB.
const LIMITS: &[(Limit, i32)] = &[
    (Limit::SQLITE_LIMIT_LENGTH, 1 << 20),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 64 << 10),
    (Limit::SQLITE_LIMIT_COLUMN, 200),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 100),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 50),
    (Limit::SQLITE_LIMIT_VDBE_OP, 100_000),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 100),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_024),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 200),
    (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
];

/// The connection.
#[derive(Debug)]
pub(super) struct Sandbox {
    connection: Connection,
    watch: Watch,
    refused: Arc<Mutex<Option<String>>>,
    stopped: Arc<Mutex<Option<Stopped>>>,
}

impl Sandbox {
    /// Opens an empty database; the rows go in before [`Self::seal`].
    pub(super) fn open(watch: Watch) -> Result<Self, AggregateError> {
        let (refused, stopped) = (Arc::default(), Arc::default());
        let connection = prepare(&watch, &stopped).map_err(|error| AggregateError::sqlite(&error))?;
        Ok(Self { connection, watch, refused, stopped })
    }

    /// The connection, for the table.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What looks after it.
    pub(super) fn watch(&mut self) -> &mut Watch {
        &mut self.watch
    }

    /// Lets nothing but a SELECT through from here on.
    pub(super) fn seal(&mut self) -> rusqlite::Result<()> {
        self.connection.pragma_update(None, "query_only", "ON")?;
        let refused = Arc::clone(&self.refused);
        self.connection.authorizer(Some(move |context: AuthContext<'_>| match refusal(&context.action) {
            None => Authorization::Allow,
            Some(what) => {
                refused.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
                Authorization::Deny
            }
        }))
    }

    /// Prepares the one SELECT.
    pub(super) fn select(&self, sql: &str) -> Result<Statement<'_>, Unanswered> {
        if sql.len() > QUERY_BYTES_MAX {
            return Err(Unanswered::Sql(format!(
                "the query has {} bytes, wanted at most {QUERY_BYTES_MAX}",
                sql.len()
            )));
        }
        let statement = self.connection.prepare(sql).map_err(|error| self.explain(&error))?;
        if statement.column_count() == 0 || !statement.readonly() {
            return Err(Unanswered::Sql("not a query: write one SELECT".to_owned()));
        }
        Ok(statement)
    }

    /// What an error of SQLite means.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "rusqlite's errors are open, and their text is what is told"
    )]
    pub(super) fn explain(&self, error: &rusqlite::Error) -> Unanswered {
        if let Some(stopped) = self.stopped.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Unanswered::Stopped(stopped);
        }
        if let Some(refused) = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Unanswered::Sql(format!("{refused} is refused: write one SELECT over `{TABLE}`"));
        }
        match error {
            rusqlite::Error::MultipleStatement => {
                Unanswered::Sql("more than one statement: write one SELECT".to_owned())
            }
            rusqlite::Error::SqlInputError { msg, .. } => Unanswered::Sql(msg.clone()),
            rusqlite::Error::SqliteFailure(failure, message) => match failure.code {
                ErrorCode::DiskFull | ErrorCode::OutOfMemory => Unanswered::Full,
                _ => Unanswered::Sql(message.clone().unwrap_or_else(|| failure.to_string())),
            },
            other => Unanswered::Sql(other.to_string()),
        }
    }
}

/// Why SQL gave nothing.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// It is wrong; in words.
    Sql(String),
    /// The table is as large as it may be.
    Full,
    /// The watch ended it.
    Stopped(Stopped),
}

fn prepare(watch: &Watch, stopped: &Arc<Mutex<Option<Stopped>>>) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_in_memory()?;
    // What is sorted stays in memory, where the watch sees it: files of a size that nobody bounds would fill the store's disk.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    let pages = i64::try_from((watch.memory_bytes() / PAGE_BYTES).max(1)).unwrap_or(i64::MAX);
    connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    for (config, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        // A name in double quotes that is no column would be a text otherwise.
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
    ] {
        connection.set_db_config(config, on)?;
    }
    for (limit, value) in LIMITS {
        connection.set_limit(*limit, *value)?;
    }
    let (mut watch, stopped) = (watch.clone(), Arc::clone(stopped));
    connection.progress_handler(
        PROGRESS_INSTRUCTIONS,
        Some(move || match watch.look() {
            Ok(()) => false,
            Err(why) => {
                stopped.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
                true
            }
        }),
    )?;
    Ok(connection)
}

/// What is refused, in words; `None` for what a SELECT may do. An action that isn't known is refused.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "an allow-list: what isn't named is refused, new actions too"
)]
fn refusal(action: &AuthAction<'_>) -> Option<String> {
    match action {
        AuthAction::Select => None,
        AuthAction::Read { table_name, .. } => {
            (!table_name.eq_ignore_ascii_case(TABLE)).then(|| format!("the table {table_name}"))
        }
        AuthAction::Function { function_name } => {
            let is_known = AGGREGATE_FUNCTIONS.iter().any(|name| name.eq_ignore_ascii_case(function_name));
            (!is_known).then(|| format!("the function {function_name}()"))
        }
        // It makes rows of nothing, without an end.
        AuthAction::Recursive => Some("a recursive WITH".to_owned()),
        AuthAction::Pragma { pragma_name, .. } => Some(format!("PRAGMA {pragma_name}")),
        AuthAction::Attach { .. } => Some("ATTACH".to_owned()),
        AuthAction::Detach { .. } => Some("DETACH".to_owned()),
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => Some("a transaction".to_owned()),
        // Every other action changes something; the list is SQLite's and may grow.
        _ => Some("a change of the database".to_owned()),
    }
}
