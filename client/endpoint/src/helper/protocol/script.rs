//! What is said of scripts: to the helper that watches one, and to the process that becomes it.
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use prost::Message;

use super::{Parameter, Request, Value};
use crate::query::SandboxProfile;
use crate::script::{Content, Given, Reach, RowColumn, RowKind, Script, ScriptText};
use crate::value::SqlValue;

/// A script, beside the fields of [`Request`] that it shares with a query: parameters, limits, profile, resources.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ScriptRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) interpreter: Vec<u8>,
    /// The text, unless `content` has it.
    #[prost(string, tag = "2")]
    pub(crate) text: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) content: Option<ContentMessage>,
    #[prost(string, repeated, tag = "4")]
    pub(crate) arguments: Vec<String>,
    /// Which of the parameters are true or false.
    #[prost(string, repeated, tag = "5")]
    booleans: Vec<String>,
    /// Whether its rows are wanted.
    #[prost(bool, tag = "6")]
    has_columns: bool,
    #[prost(message, repeated, tag = "7")]
    columns: Vec<super::ColumnMessage>,
    /// Whether it may change the machine.
    #[prost(bool, tag = "8")]
    pub(crate) changes: bool,
}

/// A file whose content is known.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ContentMessage {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) path: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub(crate) size: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) root: Vec<u8>,
}

impl From<&Content> for ContentMessage {
    fn from(content: &Content) -> Self {
        Self {
            path: content.path.as_os_str().as_bytes().to_vec(),
            size: content.size,
            root: content.root.to_vec(),
        }
    }
}

/// What a process is to become, after it has shut itself in.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Launch {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) interpreter: Vec<u8>,
    /// The descriptor of the text.
    #[prost(int32, tag = "2")]
    pub(crate) text: i32,
    #[prost(string, repeated, tag = "3")]
    pub(crate) arguments: Vec<String>,
    /// The folder of its own.
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) folder: Vec<u8>,
    /// Whether it may change the machine.
    #[prost(bool, tag = "5")]
    pub(crate) changes: bool,
    /// How many processes it may have; 0: its control group says so.
    #[prost(uint32, tag = "6")]
    pub(crate) processes_max: u32,
}

/// The process is shut in, and becomes the script next, unless it tells why not.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Launched {
    /// The layers that could not be applied.
    #[prost(string, repeated, tag = "1")]
    pub(crate) missing: Vec<String>,
    /// Why it becomes nothing.
    #[prost(message, optional, tag = "2")]
    pub(crate) failure: Option<super::Failure>,
}

impl Request {
    /// The request of a script, with what it may not read.
    pub(crate) fn of_script(script: &Script, closed: &[PathBuf]) -> Self {
        let value = |given: &Given| match given {
            Given::Boolean(is) => SqlValue::Integer(i64::from(*is)),
            Given::Value(value) => value.clone(),
        };
        let parameter = |(name, given): &(String, Given)| Parameter {
            name: name.clone(),
            value: Some(Value::from(value(given))),
        };
        let is_boolean = |given: &&(String, Given)| matches!(given.1, Given::Boolean(_));
        let (text, content) = match &script.text {
            ScriptText::Inline(text) => (text.clone(), None),
            ScriptText::Resource(content) => (String::new(), Some(content.into())),
        };
        let columns = script.columns.iter().flatten();
        Self {
            parameters: script.parameters.iter().map(parameter).collect(),
            run_time_ms: u64::try_from(script.limits.run_time.as_millis()).unwrap_or(u64::MAX),
            rows: script.limits.rows,
            bytes: script.limits.bytes,
            strict: script.sandbox == SandboxProfile::Strict,
            readable_paths: script.readable.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect(),
            closed_paths: closed.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect(),
            script: Some(ScriptRequest {
                interpreter: script.interpreter.as_os_str().as_bytes().to_vec(),
                text,
                content,
                arguments: script.arguments.iter().map(Given::argument).collect(),
                booleans: script.parameters.iter().filter(is_boolean).map(|(name, _)| name.clone()).collect(),
                has_columns: script.columns.is_some(),
                columns: columns
                    .map(|column| super::ColumnMessage {
                        name: column.name.clone(),
                        kind: column.kind.name().to_owned(),
                    })
                    .collect(),
                changes: script.reach == Reach::Changes,
            }),
            ..Self::default()
        }
    }

    /// The request to become a script, from the request to run it.
    pub(crate) fn of_launch(of: &Self, launch: Launch, run_time: Duration, missing: Vec<String>) -> Self {
        Self {
            run_time_ms: u64::try_from(run_time.as_millis()).unwrap_or(u64::MAX),
            strict: of.strict,
            readable_paths: of.readable_paths.clone(),
            closed_paths: of.closed_paths.clone(),
            missing,
            launch: Some(launch),
            ..Self::default()
        }
    }
}

impl ScriptRequest {
    /// The columns of its rows; none: they are not wanted.
    pub(crate) fn columns(&self) -> Option<Vec<RowColumn>> {
        let column = |column: &super::ColumnMessage| RowColumn {
            name: column.name.clone(),
            kind: RowKind::of(&column.kind).unwrap_or(RowKind::Text),
        };
        self.has_columns.then(|| self.columns.iter().map(column).collect())
    }

    /// The parameters as one JSON object.
    pub(crate) fn input(&self, parameters: &[Parameter]) -> String {
        let given = parameters.iter().map(|parameter| {
            let value = SqlValue::from(parameter.value.clone().unwrap_or_default());
            let given = match value {
                SqlValue::Integer(number) if self.booleans.contains(&parameter.name) => {
                    Given::Boolean(number != 0)
                }
                SqlValue::Null
                | SqlValue::Integer(_)
                | SqlValue::Real(_)
                | SqlValue::Text(_)
                | SqlValue::Blob(_) => Given::Value(value),
            };
            (parameter.name.clone(), given.json())
        });
        serde_json::Value::Object(given.collect()).to_string()
    }
}
