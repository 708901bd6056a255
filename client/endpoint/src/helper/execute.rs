//! Runs the statement and writes its rows.
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use prost::Message as _;
use rusqlite::Statement;
use rusqlite::types::ValueRef;

use super::database::{Database, columns, cut};
use super::protocol::{self, Failure, Finished, Request, Response, Row, Rows, response};
use crate::error::QueryError;
use crate::query::VALUE_BYTES_MAX;
use crate::tables::Machine;
use crate::value::{Column, SqlValue};

/// Rows are written when this many bytes of them are waiting; a pipe holds as much.
const BATCH_BYTES: usize = 64 * 1024;

/// Why the answer isn't whole.
pub(crate) enum ExecuteError {
    /// The query is at fault; the client is told.
    Query(Failure),
    /// The client doesn't listen.
    Output(io::Error),
}

impl From<io::Error> for ExecuteError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Runs `request` and writes all of its answer.
pub(super) fn execute(
    request: &Request,
    machine: &Arc<Machine>,
    deadline: Instant,
    missing: Vec<String>,
    output: &mut impl Write,
) -> Result<(), ExecuteError> {
    // Whatever went wrong after the deadline went wrong because of it.
    let query = |error: QueryError| {
        let late = Instant::now() >= deadline;
        let error = if late { QueryError::Deadline { run_time: std::time::Duration::ZERO } } else { error };
        ExecuteError::Query(error.into())
    };
    let database = Database::open(machine, Some(deadline), request.granted()).map_err(query)?;
    for sql in &request.then {
        drop(database.statement(sql).map_err(query)?);
    }
    let mut statement = database.statement(&request.sql).map_err(query)?;
    bind(&mut statement, request).map_err(query)?;
    let mut writer = Writer::new(columns(&statement), request, output);
    let mut rows = statement.raw_query();
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => break,
            Err(error) => return Err(query(database.explain(&error, &request.sql))),
        };
        let mut values = Vec::with_capacity(writer.columns.len());
        for column in 0..writer.columns.len() {
            let value = row.get_ref(column).map_err(|error| query(QueryError::sql(error.to_string())))?;
            values.push(writer.take(value));
        }
        if writer.push(values)? == Fit::Full {
            break;
        }
    }
    writer.finish(missing)
}

/// Binds every parameter that the statement has, and asks for those that the request hasn't.
fn bind(statement: &mut Statement<'_>, request: &Request) -> Result<(), QueryError> {
    for number in 1..=statement.parameter_count() {
        let Some(written) = statement.parameter_name(number).map(str::to_owned) else {
            return Err(QueryError::sql("`?` has no value here: name the parameter, `:name`"));
        };
        let name = written.trim_start_matches([':', '@', '$']);
        let given = request.parameters.iter().find(|parameter| parameter.name == name);
        let Some(given) = given else {
            let known: Vec<_> = request.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
            return Err(QueryError::sql(format!(
                "no value for parameter {written}; given: {}",
                known.join(", ")
            )));
        };
        let value = given.value.clone().map_or(SqlValue::Null, SqlValue::from);
        statement.raw_bind_parameter(number, value).map_err(|error| QueryError::sql(error.to_string()))?;
    }
    Ok(())
}

/// Whether more rows fit into the limits.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit {
    More,
    Full,
}

/// Counts and writes rows.
pub(super) struct Writer<'a, W> {
    columns: Vec<Column>,
    /// Whether a column has had a value, so that its kind is told by values and not by the table.
    seen: Vec<bool>,
    output: &'a mut W,
    batch: Vec<Row>,
    batch_bytes: usize,
    rows_left: u32,
    bytes_left: usize,
    truncated: bool,
}

impl<'a, W: Write> Writer<'a, W> {
    pub(super) fn new(columns: Vec<Column>, request: &Request, output: &'a mut W) -> Self {
        Self {
            seen: vec![false; columns.len()],
            columns,
            output,
            batch: Vec::new(),
            batch_bytes: 0,
            rows_left: request.rows,
            bytes_left: usize::try_from(request.bytes).unwrap_or(usize::MAX),
            truncated: false,
        }
    }

    /// Copies a value, cut to what a value may have.
    pub(super) fn take(&mut self, value: ValueRef<'_>) -> SqlValue {
        let cut = match value {
            ValueRef::Text(bytes) if bytes.len() > VALUE_BYTES_MAX => {
                let text = String::from_utf8_lossy(&bytes[..VALUE_BYTES_MAX]);
                // The last character may be cut through, and its replacement is longer.
                SqlValue::Text(cut(&text, VALUE_BYTES_MAX).trim_end_matches('\u{FFFD}').to_owned())
            }
            ValueRef::Blob(bytes) if bytes.len() > VALUE_BYTES_MAX => {
                SqlValue::Blob(bytes[..VALUE_BYTES_MAX].to_vec())
            }
            ValueRef::Null
            | ValueRef::Integer(_)
            | ValueRef::Real(_)
            | ValueRef::Text(_)
            | ValueRef::Blob(_) => {
                return SqlValue::from_sqlite(value);
            }
        };
        self.truncated = true;
        cut
    }

    pub(super) fn push(&mut self, values: Vec<SqlValue>) -> Result<Fit, ExecuteError> {
        let kinds: Vec<_> = values.iter().map(SqlValue::kind).collect();
        let row = Row { values: values.into_iter().map(Into::into).collect() };
        let size = row.encoded_len();
        if self.rows_left == 0 || size > self.bytes_left {
            self.truncated = true;
            return Ok(Fit::Full);
        }
        self.rows_left -= 1;
        self.bytes_left -= size;
        for ((column, seen), kind) in self.columns.iter_mut().zip(&mut self.seen).zip(kinds) {
            if let Some(kind) = kind {
                column.kind = if *seen { column.kind.join(kind) } else { kind };
                *seen = true;
            }
        }
        self.batch_bytes += size;
        self.batch.push(row);
        if self.batch_bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(Fit::More)
    }

    fn flush(&mut self) -> io::Result<()> {
        let rows = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        protocol::write(self.output, &Response { message: Some(response::Message::Rows(Rows { rows })) })
    }

    pub(super) fn finish(mut self, missing: Vec<String>) -> Result<(), ExecuteError> {
        self.flush()?;
        let columns = self.columns.into_iter().map(Into::into).collect();
        let finished = Finished { columns, truncated: self.truncated, missing };
        let message = Response { message: Some(response::Message::Finished(finished)) };
        protocol::write(self.output, &message)?;
        Ok(())
    }
}
