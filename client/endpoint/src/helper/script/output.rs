//! From what a script writes to its answer.
use std::io::{BufRead as _, BufReader, Read, Write};

use nix::sys::signal::Signal;

use super::family::{End, Ended, Running};
use super::{escaped, rows};
use crate::error::QueryError;
use crate::helper::execute::{ExecuteError, Fit, Writer};
use crate::helper::protocol::{self, Failure, Launched, RESPONSE_BYTES_MAX, Request, ScriptRequest};
use crate::script::{RowColumn, RowKind};
use crate::value::{Column, ColumnKind, SqlValue};

/// Reads a script to its end, and writes its answer.
///
/// What a question writes behind its last row that counts, or behind a line that is none, is not waited for; a script that
/// changes the machine is left to come to its end.
pub(super) fn read<W: Write>(
    mut running: Running,
    request: &Request,
    script: &ScriptRequest,
    output: &mut W,
) -> Result<(), ExecuteError> {
    let query = |error: QueryError| ExecuteError::Query(error.into());
    let missing = match launched(&mut running.output) {
        Ok(missing) => missing,
        Err(failure) => {
            running.end_early();
            let ended = running.wait();
            return Err(match failure {
                // Only the process itself knows why it shut nothing in.
                Some(failure) => ExecuteError::Query(failure),
                None if ended.is_late => query(late()),
                None => query(unlaunched(&ended)),
            });
        }
    };
    let columns = script.columns();
    let mut table = Table {
        writer: Writer::new(columns.iter().flatten().map(column).collect(), request, output),
        columns,
        is_full: false,
        problem: None,
    };
    let mut lines = BufReader::new(&mut running.output);
    let mut number = 0_u64;
    let mut line = Vec::new();
    let is_cut = loop {
        number += 1;
        line.clear();
        let bound = rows::LINE_BYTES_MAX + 1;
        match lines.by_ref().take(bound).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break false,
            Ok(_) => table.take(number, &line)?,
        }
        let is_over = table.problem.is_some() || table.is_full;
        match (is_over, script.changes) {
            (true, false) => break true,
            (true, true) => {
                // Nothing of it counts any more, but what it still does.
                let _tried: std::io::Result<u64> = std::io::copy(&mut lines, &mut std::io::sink());
                break false;
            }
            (false, _) => {}
        }
    };
    drop(lines);
    if is_cut {
        running.end_early();
    }
    let ended = running.wait();
    if ended.is_late {
        return Err(query(late()));
    }
    if let Some(problem) = table.problem {
        return Err(query(QueryError::script(problem)));
    }
    if !is_cut && let Some(problem) = unfinished(&ended) {
        return Err(query(QueryError::script(problem)));
    }
    table.writer.finish(missing)
}

/// The rows so far.
struct Table<'a, W> {
    writer: Writer<'a, W>,
    columns: Option<Vec<RowColumn>>,
    is_full: bool,
    problem: Option<String>,
}

impl<W: Write> Table<'_, W> {
    fn take(&mut self, number: u64, line: &[u8]) -> Result<(), ExecuteError> {
        let Some(columns) = self.columns.as_ref().filter(|_| !self.is_full && self.problem.is_none()) else {
            return Ok(());
        };
        if line.len() as u64 > rows::LINE_BYTES_MAX {
            let most = rows::LINE_BYTES_MAX;
            self.problem =
                Some(format!("line {number} of its output is longer than {most} bytes; wanted a row"));
            return Ok(());
        }
        match rows::row(line.strip_suffix(b"\n").unwrap_or(line), columns) {
            Ok(row) => {
                let row: Vec<SqlValue> =
                    row.iter().map(|value| self.writer.take(value.as_sqlite())).collect();
                self.is_full = self.writer.push(row)? == Fit::Full;
            }
            Err(problem) => self.problem = Some(format!("line {number} of its output: {problem}")),
        }
        Ok(())
    }
}

fn column(column: &RowColumn) -> Column {
    let kind = match column.kind {
        RowKind::Text => ColumnKind::Text,
        RowKind::Integer | RowKind::Boolean | RowKind::Datetime => ColumnKind::Integer,
        RowKind::Real => ColumnKind::Real,
        RowKind::Blob => ColumnKind::Blob,
    };
    Column { name: column.name.clone(), kind }
}

/// Reads what the process tells before it becomes the script: what it lacks, or why it does not.
fn launched(output: &mut impl Read) -> Result<Vec<String>, Option<Failure>> {
    let told: Option<Launched> = protocol::read(output, RESPONSE_BYTES_MAX).unwrap_or_default();
    let told = told.ok_or(None)?;
    match told.failure {
        Some(failure) => Err(Some(failure)),
        None => Ok(told.missing),
    }
}

/// The client knows how long it was.
fn late() -> QueryError {
    QueryError::Deadline { run_time: std::time::Duration::ZERO }
}

fn unlaunched(ended: &Ended) -> QueryError {
    let detail = unfinished(ended).unwrap_or_else(|| "it ended before it began".to_owned());
    QueryError::Crashed { detail }
}

/// Says how a script ended, unless it says itself that it is done.
fn unfinished(ended: &Ended) -> Option<String> {
    let how = match ended.status {
        Some(End::Exit(0)) => return None,
        Some(End::Exit(code)) => format!("the script ended with exit code {code}"),
        Some(End::Signal(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("the script was ended by {signal}"),
            // Those of real time have no names.
            Err(_) => format!("the script was ended by signal {signal}"),
        },
        None => "nobody can tell how the script ended".to_owned(),
    };
    let said = last_words(&ended.errors);
    Some(if said.is_empty() {
        format!("{how}, and wrote nothing on standard error")
    } else {
        format!("{how}; the end of its standard error: {said}")
    })
}

/// Most characters of standard error in a problem.
const WORDS_CHARACTERS_MAX: usize = 500;

fn last_words(errors: &[u8]) -> String {
    let text = String::from_utf8_lossy(errors);
    let text = text.trim();
    let surplus = text.chars().count().saturating_sub(WORDS_CHARACTERS_MAX);
    escaped(text.chars().skip(surplus))
}
