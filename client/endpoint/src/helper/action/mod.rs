//! Does a typed action: with the rights of the client, by calls that know values from words. There is no shell.
//!
//! The process gives up new rights and has bounds, as a script of an action has. What is as wanted already is left as it is.
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Instant;

use super::execute::{ExecuteError, Writer};
use super::protocol::{ActionRequest, Request};
use crate::action::Verb;
use crate::error::QueryError;
use crate::value::{Column, ColumnKind, SqlValue};

mod file;
mod service;

/// What came of an action.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Done {
    changed: Changed,
    detail: String,
}

/// Whether the machine is another than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    Yes,
    No,
}

/// Why an action was not done, or not to its end.
#[derive(Debug)]
pub(super) enum Undone {
    /// Says what was found, and what was wanted.
    Problem(String),
    /// Its time was over.
    Late,
}

impl From<Undone> for QueryError {
    fn from(undone: Undone) -> Self {
        match undone {
            Undone::Problem(message) => Self::script(message),
            Undone::Late => Self::Deadline { run_time: std::time::Duration::ZERO },
        }
    }
}

/// Does the action of `request` and writes its row.
pub(super) fn execute(
    request: &Request,
    action: &ActionRequest,
    deadline: Instant,
    missing: Vec<String>,
    output: &mut impl Write,
) -> Result<(), ExecuteError> {
    let done =
        act(action, deadline).map_err(|undone| ExecuteError::Query(QueryError::from(undone).into()))?;
    let column = |name: &str, kind| Column { name: name.to_owned(), kind };
    let columns = vec![column("changed", ColumnKind::Integer), column("detail", ColumnKind::Text)];
    let mut writer = Writer::new(columns, request, output);
    let changed = SqlValue::Integer(i64::from(done.changed == Changed::Yes));
    writer.push(vec![changed, SqlValue::Text(done.detail)])?;
    writer.finish(missing)
}

fn act(action: &ActionRequest, deadline: Instant) -> Result<Done, Undone> {
    if !action.verb.is_empty() {
        let verb = Verb::of(&action.verb)
            .ok_or_else(|| Undone::Problem(format!("nothing is called {:?}; report it", action.verb)))?;
        return service::act(verb, &action.unit, deadline);
    }
    let path = PathBuf::from(OsString::from_vec(action.path.clone()));
    let locks = PathBuf::from(OsString::from_vec(action.locks.clone()));
    match &action.content {
        Some(content) => file::put(content, &path, action.mode, &locks, deadline),
        None => file::remove(&path, &locks, deadline),
    }
}
