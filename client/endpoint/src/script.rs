//! One script: what goes into the helper. What comes out is an [`Answer`], as from a query.
use std::path::PathBuf;

use crate::query::{QueryLimits, SCRIPT_BYTES_MAX, SandboxProfile};
use crate::value::SqlValue;

/// A program's text to be run, shut in as its reach asks.
#[derive(Debug, Clone)]
pub struct Script {
    /// The program that reads the text, by absolute path.
    pub interpreter: PathBuf,
    /// What it runs.
    pub text: ScriptText,
    /// What it is given behind the text, in this order.
    pub arguments: Vec<Given>,
    /// What it has as one JSON object on standard input.
    pub parameters: Vec<(String, Given)>,
    /// The columns of its rows; none: what it writes is read and dropped.
    pub columns: Option<Vec<RowColumn>>,
    /// What it may cost.
    pub limits: QueryLimits,
    /// How tightly it is shut in.
    pub sandbox: SandboxProfile,
    /// Whether it may change the machine.
    pub reach: Reach,
    /// Files of the definition's resources, readable whatever the profile.
    pub readable: Vec<PathBuf>,
}

/// Where a script's text is.
#[derive(Debug, Clone)]
pub enum ScriptText {
    /// Here.
    Inline(String),
    /// In this file, which is read once, and verified as it was read.
    Resource(Content),
}

/// A file whose content is known before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// Its BLAKE3 root.
    pub root: [u8; 32],
}

/// A value that a script is given.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// True or false, which SQL has as 1 and 0.
    Boolean(bool),
    /// Anything else.
    Value(SqlValue),
}

/// A column of a script's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowColumn {
    /// The key of its values.
    pub name: String,
    /// What they are.
    pub kind: RowKind,
}

/// What the values of a script's column are; `null` is one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    /// A text.
    Text,
    /// An integer of 64 bits.
    Integer,
    /// A number.
    Real,
    /// `true` or `false`; 1 and 0 in the answer.
    Boolean,
    /// Unix seconds.
    Datetime,
    /// A text of hex digits.
    Blob,
}

impl RowKind {
    /// All of them.
    const ALL: [Self; 6] = [Self::Text, Self::Integer, Self::Real, Self::Boolean, Self::Datetime, Self::Blob];

    /// The name that helpers are told.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Boolean => "boolean",
            Self::Datetime => "datetime",
            Self::Blob => "blob",
        }
    }

    /// The kind of this name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What a script may do to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Read it, as SQL may; write into a folder of its own that goes with it.
    Reads,
    /// Change it, with the rights of the client.
    Changes,
}

impl Script {
    /// The bytes that are written to the helper.
    pub(crate) fn size(&self) -> usize {
        let text = match &self.text {
            ScriptText::Inline(text) => text.len(),
            ScriptText::Resource(_) => 0,
        };
        let parameters = self.parameters.iter().map(|(name, value)| name.len() + value.size());
        text + self.arguments.iter().map(Given::size).chain(parameters).sum::<usize>()
    }

    /// The bound of what is read as its text.
    pub(crate) const TEXT_BYTES_MAX: u64 = SCRIPT_BYTES_MAX;
}

impl Given {
    fn size(&self) -> usize {
        match self {
            Self::Boolean(_) => 1,
            Self::Value(value) => crate::query::value_bytes(value),
        }
    }

    /// As an argument of a program: numbers in decimal, nothing for what is not known.
    pub(crate) fn argument(&self) -> String {
        match self {
            Self::Boolean(is) => is.to_string(),
            Self::Value(SqlValue::Null) => String::new(),
            Self::Value(SqlValue::Integer(number)) => number.to_string(),
            Self::Value(SqlValue::Real(number)) => number.to_string(),
            Self::Value(SqlValue::Text(text)) => text.clone(),
            Self::Value(SqlValue::Blob(bytes)) => hex::encode(bytes),
        }
    }

    /// As JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        match self {
            Self::Boolean(is) => (*is).into(),
            Self::Value(SqlValue::Null) => serde_json::Value::Null,
            Self::Value(SqlValue::Integer(number)) => (*number).into(),
            Self::Value(SqlValue::Real(number)) => (*number).into(),
            Self::Value(SqlValue::Text(text)) => text.clone().into(),
            Self::Value(SqlValue::Blob(bytes)) => hex::encode(bytes).into(),
        }
    }
}
