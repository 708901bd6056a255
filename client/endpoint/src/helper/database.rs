//! The SQLite connection over the tables: read-only by construction, limited, and deaf to all but SELECT.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, Statement};

use crate::check::hint;
use crate::error::QueryError;
use crate::query::{Granted, SQL_BYTES_MAX};
use crate::schema::schema;
use crate::tables::Machine;
use crate::value::{Column, ColumnKind};
use crate::vtab;

/// Virtual-machine instructions between two looks at the clock: some 10 µs.
const PROGRESS_INSTRUCTIONS: i32 = 1_000;
/// SQLite's heap. A sort or a common table expression that needs more ends with an error.
const HEAP_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// SQLite's limits, where they are lower than its defaults: a query of a person has none of these sizes.
const LIMITS: &[(Limit, i32)] = &[
    (Limit::SQLITE_LIMIT_LENGTH, 16 * 1024 * 1024),
    (Limit::SQLITE_LIMIT_COLUMN, 64),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 200),
    (Limit::SQLITE_LIMIT_VDBE_OP, 1_000_000),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 4_096),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 1_000),
    (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
];

/// PRAGMAs that only describe: the tables and functions there are. Their table-valued forms ask for the same right.
const PRAGMAS: &[&str] = &["table_info", "table_xinfo", "function_list", "module_list", "compile_options"];
/// Functions of SQLite, or of builds of it, that reach outside the query.
const FUNCTIONS_REFUSED: &[&str] =
    &["load_extension", "fts3_tokenizer", "readfile", "writefile", "edit", "sqlite_log", "lsmode", "fsdir"];

/// The tables of a machine as a database.
#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
    refused: Arc<Mutex<Option<String>>>,
    granted: Granted,
}

impl Database {
    /// Opens those tables of `machine` that are granted, to be queried until `deadline`.
    pub(crate) fn open(
        machine: &Arc<Machine>,
        deadline: Option<Instant>,
        granted: Granted,
    ) -> Result<Self, QueryError> {
        let refused = Arc::new(Mutex::new(None));
        let connection = prepare(machine, deadline, &granted, &refused)
            .map_err(|error| QueryError::Crashed { detail: error.to_string() })?;
        Ok(Self { connection, refused, granted })
    }

    /// Prepares the one statement.
    pub(crate) fn statement(&self, sql: &str) -> Result<Statement<'_>, QueryError> {
        if sql.len() > SQL_BYTES_MAX {
            let (got, wanted) = (sql.len() as u64, SQL_BYTES_MAX as u64);
            return Err(QueryError::TooLarge { what: "the SQL".to_owned(), got, wanted });
        }
        let statement = self.connection.prepare(sql).map_err(|error| self.explain(&error, sql))?;
        if statement.column_count() == 0 || !statement.readonly() {
            return Err(QueryError::sql("not a query: write one SELECT"));
        }
        Ok(statement)
    }

    /// What an error of SQLite means to who wrote the SQL.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "rusqlite's errors are open, and their text is what is told"
    )]
    pub(crate) fn explain(&self, error: &rusqlite::Error, sql: &str) -> QueryError {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(refused) = refused {
            return QueryError::sql(format!("{refused} is refused: write one SELECT over the tables"));
        }
        match error {
            rusqlite::Error::MultipleStatement => {
                QueryError::sql("more than one statement: write one SELECT")
            }
            rusqlite::Error::SqlInputError { msg, offset, .. } => {
                if let Some(table) = self.withheld(msg) {
                    return QueryError::NotGranted { table: table.to_owned() };
                }
                QueryError::Sql { message: hint(msg, sql), offset: usize::try_from(*offset).ok() }
            }
            rusqlite::Error::SqliteFailure(failure, message) => {
                let message = message.clone().unwrap_or_else(|| failure.to_string());
                if failure.code == ErrorCode::OutOfMemory {
                    let (got, wanted) = (HEAP_BYTES_MAX + 1, HEAP_BYTES_MAX);
                    return QueryError::TooLarge { what: "the query's memory".to_owned(), got, wanted };
                }
                if let Some(table) = self.withheld(&message) {
                    return QueryError::NotGranted { table: table.to_owned() };
                }
                QueryError::sql(hint(&message, sql))
            }
            other => QueryError::sql(other.to_string()),
        }
    }
}

impl Database {
    /// Returns the table that SQLite does not find since it is not granted.
    fn withheld(&self, message: &str) -> Option<&'static str> {
        let named = message.strip_prefix("no such table: ")?;
        let name = named.rsplit('.').next().unwrap_or(named);
        let table = schema().iter().find(|table| table.name.eq_ignore_ascii_case(name))?;
        (!self.granted.has(table.name)).then_some(table.name)
    }
}

/// The longest name of a column, in bytes (`muster.common.v1.Column`).
const NAME_BYTES_MAX: usize = 64;

/// The columns of a statement: names that are unique and short enough for the wire, and the types that tables declare.
///
/// A name that comes again has `_2`, `_3` … after it; an expression without an alias is cut.
pub(crate) fn columns(statement: &Statement<'_>) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for each in statement.columns() {
        let is_free = |name: &String| columns.iter().all(|column| column.name != *name);
        let names = (1..).map(|number: usize| {
            let end = if number == 1 { String::new() } else { format!("_{number}") };
            format!("{}{end}", cut(each.name(), NAME_BYTES_MAX - end.len()))
        });
        let name = names.into_iter().find(is_free).unwrap_or_default();
        columns.push(Column { name, kind: ColumnKind::from_declared(each.decl_type()) });
    }
    columns
}

/// The text up to a character's boundary at or before `bytes_max`.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn prepare(
    machine: &Arc<Machine>,
    deadline: Option<Instant>,
    granted: &Granted,
    refused: &Arc<Mutex<Option<String>>>,
) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_in_memory()?;
    // A large sort stays in memory: the sandbox has no place for a temporary file.
    connection
        .execute_batch(&format!("PRAGMA temp_store = MEMORY; PRAGMA hard_heap_limit = {HEAP_BYTES_MAX};"))?;
    connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA query_only = ON;")?;
    // What is not granted is not there: no way of writing it reaches it.
    vtab::register(&connection, machine, granted)?;
    for (limit, value) in LIMITS {
        connection.set_limit(*limit, *value)?;
    }
    if let Some(deadline) = deadline {
        connection.progress_handler(PROGRESS_INSTRUCTIONS, Some(move || Instant::now() >= deadline))?;
    }
    let refused = Arc::clone(refused);
    connection.authorizer(Some(move |context: AuthContext<'_>| match refusal(&context.action) {
        None => Authorization::Allow,
        Some(text) => {
            refused.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
            Authorization::Deny
        }
    }))?;
    Ok(connection)
}

/// What is refused, in words; `None` for what a query may do. An action that isn't known is refused.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "an allow-list: what isn't named is refused, new actions too"
)]
fn refusal(action: &AuthAction<'_>) -> Option<String> {
    match action {
        AuthAction::Select | AuthAction::Recursive => None,
        AuthAction::Read { table_name, .. } => {
            // SQLite's own table-valued form of a PRAGMA would be refused when it is run; this is earlier.
            let pragma = table_name.strip_prefix("pragma_")?;
            (!PRAGMAS.contains(&pragma)).then(|| format!("PRAGMA {pragma}"))
        }
        AuthAction::Function { function_name } => {
            let is_refused = FUNCTIONS_REFUSED.iter().any(|name| name.eq_ignore_ascii_case(function_name));
            is_refused.then(|| format!("function {function_name}()"))
        }
        AuthAction::Pragma { pragma_name, .. } => {
            let is_known = PRAGMAS.iter().any(|name| name.eq_ignore_ascii_case(pragma_name));
            (!is_known).then(|| format!("PRAGMA {pragma_name}"))
        }
        AuthAction::Attach { .. } => Some("ATTACH".to_owned()),
        AuthAction::Detach { .. } => Some("DETACH".to_owned()),
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => Some("a transaction".to_owned()),
        // Every other action changes something; the list is SQLite's and may grow.
        _ => Some("a change of the database".to_owned()),
    }
}
