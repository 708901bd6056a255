//! What client and helper say to each other: both are one build, so this is private and has no versions.
//!
//! Each message is a length (u32, big-endian) and that many bytes of protobuf. The client writes one [`Request`]; the
//! helper writes [`response::Message::Rows`] any number of times, then one `Finished` or one `Failure`.
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use prost::Message;

mod action;
mod script;

pub(crate) use action::ActionRequest;
pub(crate) use script::{ContentMessage, Launch, Launched, ScriptRequest};

use crate::error::QueryError;
use crate::query::{Granted, Query, SQL_BYTES_MAX, SandboxProfile};
use crate::value::{Column, ColumnKind, SqlValue};

/// SQL of all steps, parameters and resources' paths, with their protobuf tags.
pub(crate) const REQUEST_BYTES_MAX: usize = 3 * SQL_BYTES_MAX;
/// One response: a batch of rows, or one row of 64 values of 64 KiB at the most.
pub(crate) const RESPONSE_BYTES_MAX: usize = 5 * 1024 * 1024;

/// One query.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Request {
    #[prost(string, tag = "1")]
    pub(crate) sql: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) parameters: Vec<Parameter>,
    #[prost(uint64, tag = "3")]
    pub(crate) run_time_ms: u64,
    #[prost(uint32, tag = "4")]
    pub(crate) rows: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) bytes: u32,
    #[prost(bool, tag = "6")]
    pub(crate) strict: bool,
    #[prost(bytes = "vec", repeated, tag = "7")]
    pub(crate) readable_paths: Vec<Vec<u8>>,
    /// Layers that the client could not apply.
    #[prost(string, repeated, tag = "8")]
    pub(crate) missing: Vec<String>,
    /// Whether `tables` are all that may be read; else every table may be.
    #[prost(bool, tag = "9")]
    pub(crate) limited: bool,
    #[prost(string, repeated, tag = "10")]
    pub(crate) tables: Vec<String>,
    /// The SQL of later steps.
    #[prost(string, repeated, tag = "11")]
    pub(crate) then: Vec<String>,
    /// In place of SQL: a script.
    #[prost(message, optional, tag = "12")]
    pub(crate) script: Option<ScriptRequest>,
    /// In place of SQL: what to become.
    #[prost(message, optional, tag = "13")]
    pub(crate) launch: Option<Launch>,
    /// In place of SQL: an action.
    #[prost(message, optional, tag = "14")]
    pub(crate) action: Option<ActionRequest>,
    /// What no script of a question reads.
    #[prost(bytes = "vec", repeated, tag = "15")]
    pub(crate) closed_paths: Vec<Vec<u8>>,
}

impl Request {
    /// The request of a query, with the layers that the client could not apply.
    pub(crate) fn new(query: &Query, missing: Vec<String>) -> Self {
        let parameter = |(name, value): &(String, SqlValue)| Parameter {
            name: name.clone(),
            value: Some(Value::from(value.clone())),
        };
        let (limited, tables) = match &query.granted {
            Granted::All => (false, Vec::new()),
            Granted::Tables(tables) => (true, tables.clone()),
        };
        Self {
            limited,
            tables,
            then: query.then.clone(),
            sql: query.sql.clone(),
            parameters: query.parameters.iter().map(parameter).collect(),
            run_time_ms: u64::try_from(query.limits.run_time.as_millis()).unwrap_or(u64::MAX),
            rows: query.limits.rows,
            bytes: query.limits.bytes,
            strict: query.sandbox == SandboxProfile::Strict,
            readable_paths: query.readable.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect(),
            missing,
            script: None,
            launch: None,
            action: None,
            closed_paths: Vec::new(),
        }
    }

    /// How tightly the helper is to be shut in.
    pub(crate) fn profile(&self) -> SandboxProfile {
        if self.strict { SandboxProfile::Strict } else { SandboxProfile::Standard }
    }

    /// The tables that may be read.
    pub(crate) fn granted(&self) -> Granted {
        if self.limited { Granted::Tables(self.tables.clone()) } else { Granted::All }
    }

    /// The resources.
    pub(crate) fn readable(&self) -> Vec<PathBuf> {
        self.readable_paths.iter().map(|path| PathBuf::from(OsString::from_vec(path.clone()))).collect()
    }

    /// What the client keeps for itself.
    pub(crate) fn closed(&self) -> Vec<PathBuf> {
        self.closed_paths.iter().map(|path| PathBuf::from(OsString::from_vec(path.clone()))).collect()
    }
}

/// A named value.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Parameter {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<Value>,
}

/// One value; NULL without a kind.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Value {
    #[prost(oneof = "value::Kind", tags = "1, 2, 3, 4")]
    pub(crate) kind: Option<value::Kind>,
}

/// The kinds of [`Value`].
pub(crate) mod value {
    use prost::Oneof;

    /// A value by its type.
    #[derive(Clone, PartialEq, Oneof)]
    pub(crate) enum Kind {
        /// An integer.
        #[prost(int64, tag = "1")]
        Integer(i64),
        /// A floating-point number.
        #[prost(double, tag = "2")]
        Real(f64),
        /// Text.
        #[prost(string, tag = "3")]
        Text(String),
        /// Bytes.
        #[prost(bytes = "vec", tag = "4")]
        Blob(Vec<u8>),
    }
}

impl From<SqlValue> for Value {
    fn from(value: SqlValue) -> Self {
        let kind = match value {
            SqlValue::Null => None,
            SqlValue::Integer(number) => Some(value::Kind::Integer(number)),
            SqlValue::Real(number) => Some(value::Kind::Real(number)),
            SqlValue::Text(text) => Some(value::Kind::Text(text)),
            SqlValue::Blob(bytes) => Some(value::Kind::Blob(bytes)),
        };
        Self { kind }
    }
}

impl From<Value> for SqlValue {
    fn from(value: Value) -> Self {
        match value.kind {
            None => Self::Null,
            Some(value::Kind::Integer(number)) => Self::Integer(number),
            Some(value::Kind::Real(number)) => Self::Real(number),
            Some(value::Kind::Text(text)) => Self::Text(text),
            Some(value::Kind::Blob(bytes)) => Self::Blob(bytes),
        }
    }
}

/// A part of the answer.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Response {
    #[prost(oneof = "response::Message", tags = "1, 2, 3")]
    pub(crate) message: Option<response::Message>,
}

/// The kinds of [`Response`].
pub(crate) mod response {
    use prost::Oneof;

    use super::{Failure, Finished, Rows};

    /// A part of the answer.
    #[derive(Clone, PartialEq, Oneof)]
    pub(crate) enum Message {
        /// Some rows.
        #[prost(message, tag = "1")]
        Rows(Rows),
        /// All rows are written.
        #[prost(message, tag = "2")]
        Finished(Finished),
        /// There is no answer.
        #[prost(message, tag = "3")]
        Failure(Failure),
    }
}

/// Some rows.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Rows {
    #[prost(message, repeated, tag = "1")]
    pub(crate) rows: Vec<Row>,
}

/// One row.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Row {
    #[prost(message, repeated, tag = "1")]
    pub(crate) values: Vec<Value>,
}

/// What is known at the end of an answer.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Finished {
    #[prost(message, repeated, tag = "1")]
    pub(crate) columns: Vec<ColumnMessage>,
    #[prost(bool, tag = "2")]
    pub(crate) truncated: bool,
    #[prost(string, repeated, tag = "3")]
    pub(crate) missing: Vec<String>,
}

/// One column.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ColumnMessage {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// [`ColumnKind::name`].
    #[prost(string, tag = "2")]
    pub(crate) kind: String,
}

impl From<Column> for ColumnMessage {
    fn from(column: Column) -> Self {
        Self { name: column.name, kind: column.kind.name().to_owned() }
    }
}

impl From<ColumnMessage> for Column {
    fn from(column: ColumnMessage) -> Self {
        Self { kind: ColumnKind::from_declared(Some(&column.kind)), name: column.name }
    }
}

/// Why there is no answer: the fields of [`QueryError`] that a helper can have.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Failure {
    #[prost(enumeration = "FailureKind", tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(uint64, optional, tag = "3")]
    offset: Option<u64>,
    #[prost(string, repeated, tag = "4")]
    missing: Vec<String>,
    #[prost(uint64, tag = "5")]
    got: u64,
    #[prost(uint64, tag = "6")]
    wanted: u64,
}

/// Which error a [`Failure`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum FailureKind {
    Sql = 0,
    Deadline = 1,
    Sandbox = 2,
    TooLarge = 3,
    Other = 4,
    NotGranted = 5,
    Script = 6,
    Unconfined = 7,
}

impl Failure {
    /// The sandbox is not as tight as demanded.
    pub(crate) fn sandbox(missing: Vec<String>) -> Self {
        let mut failure = Self { missing, ..Self::default() };
        failure.set_kind(FailureKind::Sandbox);
        failure
    }

    /// Nothing would keep a script that may only read from changing something.
    pub(crate) fn unconfined(missing: Vec<String>) -> Self {
        let mut failure = Self { missing, ..Self::default() };
        failure.set_kind(FailureKind::Unconfined);
        failure
    }

    /// The error on the client's side; `run_time` is the query's.
    pub(crate) fn into_error(self, run_time: std::time::Duration) -> QueryError {
        match self.kind() {
            FailureKind::Sql => QueryError::Sql {
                message: self.message,
                offset: self.offset.and_then(|offset| usize::try_from(offset).ok()),
            },
            FailureKind::Deadline => QueryError::Deadline { run_time },
            FailureKind::Sandbox => QueryError::Sandbox { missing: self.missing },
            FailureKind::TooLarge => {
                QueryError::TooLarge { what: self.message, got: self.got, wanted: self.wanted }
            }
            FailureKind::NotGranted => QueryError::NotGranted { table: self.message },
            FailureKind::Script => QueryError::Script { message: self.message },
            FailureKind::Unconfined => QueryError::Unconfined { missing: self.missing },
            FailureKind::Other => QueryError::Crashed { detail: self.message },
        }
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        let mut failure = Self::default();
        failure.set_kind(match &error {
            QueryError::Sql { .. } => FailureKind::Sql,
            QueryError::Deadline { .. } => FailureKind::Deadline,
            QueryError::Sandbox { .. } => FailureKind::Sandbox,
            QueryError::TooLarge { .. } => FailureKind::TooLarge,
            QueryError::NotGranted { .. } => FailureKind::NotGranted,
            QueryError::Script { .. } => FailureKind::Script,
            QueryError::Unconfined { .. } => FailureKind::Unconfined,
            QueryError::Crashed { .. } | QueryError::Spawn { .. } | QueryError::Stopped => FailureKind::Other,
        });
        match error {
            QueryError::Sql { message, offset } => {
                failure.message = message;
                failure.offset = offset.and_then(|offset| u64::try_from(offset).ok());
            }
            QueryError::TooLarge { what, got, wanted } => {
                (failure.message, failure.got, failure.wanted) = (what, got, wanted);
            }
            QueryError::Sandbox { missing } | QueryError::Unconfined { missing } => failure.missing = missing,
            QueryError::Script { message } => failure.message = message,
            QueryError::NotGranted { table } => failure.message = table,
            QueryError::Crashed { detail } | QueryError::Spawn { detail, .. } => failure.message = detail,
            QueryError::Deadline { .. } | QueryError::Stopped => {}
        }
        failure
    }
}

/// A message with its length before it.
pub(crate) fn encode(message: &impl Message) -> io::Result<Vec<u8>> {
    let body = message.encode_to_vec();
    let length = u32::try_from(body.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok([&length.to_be_bytes(), body.as_slice()].concat())
}

/// Writes one message.
pub(crate) fn write(output: &mut impl Write, message: &impl Message) -> io::Result<()> {
    output.write_all(&encode(message)?)
}

/// Reads one message of at most `bytes_max` bytes; none at the end of input.
pub(crate) fn read<M: Message + Default>(input: &mut impl Read, bytes_max: usize) -> io::Result<Option<M>> {
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut body = vec![0; body_length(length, bytes_max)?];
    input.read_exact(&mut body)?;
    decode(&body).map(Some)
}

/// The length of a message's body, if it is within the bound.
pub(crate) fn body_length(length: [u8; 4], bytes_max: usize) -> io::Result<usize> {
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > bytes_max {
        let text = format!("a message of {length} bytes, at most {bytes_max}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(length)
}

/// The message of a body.
pub(crate) fn decode<M: Message + Default>(body: &[u8]) -> io::Result<M> {
    M::decode(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_pipe() {
        let run_time = std::time::Duration::from_secs(3);
        for error in [
            QueryError::Sql { message: "no".to_owned(), offset: Some(7) },
            QueryError::Deadline { run_time },
            QueryError::Sandbox { missing: vec!["cgroup: none".to_owned()] },
            QueryError::TooLarge { what: "it".to_owned(), got: 2, wanted: 1 },
            QueryError::NotGranted { table: "users".to_owned() },
            QueryError::script("line 1: it"),
            QueryError::Unconfined { missing: vec!["landlock: none".to_owned()] },
        ] {
            assert_eq!(Failure::from(error.clone()).into_error(run_time), error);
        }
    }

    #[test]
    fn a_claimed_length_over_the_bound_allocates_nothing() {
        let mut input: &[u8] = &[0xFF, 0xFF, 0xFF, 0xFF, 1];

        let error = read::<Request>(&mut input, REQUEST_BYTES_MAX).unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
