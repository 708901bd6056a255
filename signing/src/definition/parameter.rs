//! [`Parameter`]: what an argument may be.

use std::fmt;

use muster_proto::common::v1::{Value, value::Kind};
use regex_lite::Regex;

use super::argument::ArgumentError;
use super::datetime;

/// A typed parameter of a definition.
#[derive(Debug, Clone)]
pub struct Parameter {
    pub(super) name: String,
    pub(super) kind: ParameterKind,
    pub(super) default: Option<Value>,
    pub(super) hint: Option<String>,
}

/// A parameter's type and its bounds; both ends belong to a range.
#[derive(Debug, Clone)]
pub enum ParameterKind {
    /// Text without NUL.
    String {
        /// What the whole text must match.
        pattern: Option<Pattern>,
        /// Bytes of UTF-8 at most.
        max_length: usize,
    },
    /// A 64-bit integer.
    Integer {
        /// The least.
        min: Option<i64>,
        /// The greatest.
        max: Option<i64>,
    },
    /// A finite floating-point number.
    Number {
        /// The least.
        min: Option<f64>,
        /// The greatest.
        max: Option<f64>,
    },
    /// An integer, 0 or 1.
    Boolean,
    /// An integer: Unix seconds, UTC.
    Datetime {
        /// The earliest.
        min: Option<i64>,
        /// The latest.
        max: Option<i64>,
    },
    /// One of these texts.
    Enum {
        /// The texts.
        values: Vec<String>,
    },
}

/// A regular expression that a whole text must match.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    anchored: Regex,
}

/// Memory of one compiled pattern at most, in bytes.
const PATTERN_BYTES_MAX: usize = 256 * 1024;

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Self, regex_lite::Error> {
        // The pattern must be one by itself: `a)|(b` would escape from the group that anchors it.
        builder(text).build()?;
        let anchored = builder(&format!("^(?:{text})$")).build()?;
        Ok(Self { text: text.to_owned(), anchored })
    }

    /// Returns the pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether the whole text matches.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.anchored.is_match(text)
    }
}

fn builder(text: &str) -> regex_lite::RegexBuilder {
    let mut builder = regex_lite::RegexBuilder::new(text);
    builder.size_limit(PATTERN_BYTES_MAX);
    builder
}

impl Parameter {
    /// Returns the name, which SQL binds as `:name`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns type and bounds.
    #[must_use]
    pub fn kind(&self) -> &ParameterKind {
        &self.kind
    }

    /// Returns the value where no argument is given.
    #[must_use]
    pub fn default(&self) -> Option<&Value> {
        self.default.as_ref()
    }

    /// Returns what people are told about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Checks an argument against type and bounds.
    ///
    /// # Errors
    /// It does not fit; the error says what would.
    pub fn check(&self, value: &Value) -> Result<(), ArgumentError> {
        let fits = match (&self.kind, &value.kind) {
            (ParameterKind::String { pattern, max_length }, Some(Kind::Text(text))) => {
                let is_match = pattern.as_ref().is_none_or(|pattern| pattern.is_match(text));
                text.len() <= *max_length && !text.contains('\0') && is_match
            }
            (ParameterKind::Enum { values }, Some(Kind::Text(text))) => values.contains(text),
            (
                ParameterKind::Integer { min, max } | ParameterKind::Datetime { min, max },
                Some(Kind::Integer(number)),
            ) => min.is_none_or(|min| min <= *number) && max.is_none_or(|max| *number <= max),
            (ParameterKind::Boolean, Some(Kind::Integer(number))) => *number == 0 || *number == 1,
            (ParameterKind::Number { min, max }, Some(Kind::Real(number))) => {
                number.is_finite()
                    && min.is_none_or(|min| min <= *number)
                    && max.is_none_or(|max| *number <= max)
            }
            (
                ParameterKind::String { .. }
                | ParameterKind::Enum { .. }
                | ParameterKind::Integer { .. }
                | ParameterKind::Datetime { .. }
                | ParameterKind::Boolean
                | ParameterKind::Number { .. },
                Some(Kind::Integer(_) | Kind::Real(_) | Kind::Text(_) | Kind::Blob(_)) | None,
            ) => false,
        };
        if fits { Ok(()) } else { Err(self.unfit(describe(value))) }
    }

    /// Reads what a person typed, and checks it.
    ///
    /// # Errors
    /// It does not fit; the error says what would.
    pub fn parse(&self, text: &str) -> Result<Value, ArgumentError> {
        let kind = match &self.kind {
            ParameterKind::String { .. } | ParameterKind::Enum { .. } => Some(Kind::Text(text.to_owned())),
            ParameterKind::Integer { .. } => text.parse().ok().map(Kind::Integer),
            ParameterKind::Number { .. } => text.parse().ok().map(Kind::Real),
            ParameterKind::Boolean => match text {
                "true" | "yes" | "1" => Some(Kind::Integer(1)),
                "false" | "no" | "0" => Some(Kind::Integer(0)),
                _ => None,
            },
            ParameterKind::Datetime { .. } => datetime::parse(text).map(Kind::Integer),
        };
        let Some(kind) = kind else { return Err(self.unfit(quote(text))) };
        let value = Value { kind: Some(kind) };
        self.check(&value)?;
        Ok(value)
    }

    fn unfit(&self, got: String) -> ArgumentError {
        ArgumentError::Unfit { name: self.name.clone(), got, wanted: self.kind.to_string() }
    }
}

impl ParameterKind {
    /// Returns the type's name as a definition writes it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::String { .. } => "string",
            Self::Integer { .. } => "integer",
            Self::Number { .. } => "number",
            Self::Boolean => "boolean",
            Self::Datetime { .. } => "datetime",
            Self::Enum { .. } => "enum",
        }
    }
}

impl fmt::Display for ParameterKind {
    /// Writes what an argument may be, in words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String { pattern, max_length } => {
                write!(f, "text of at most {max_length} bytes")?;
                pattern
                    .as_ref()
                    .map_or(Ok(()), |pattern| write!(f, " that matches {} as a whole", pattern.as_str()))
            }
            Self::Integer { min, max } => write!(f, "an integer{}", Range(min, max)),
            Self::Number { min, max } => write!(f, "a number{}", Range(min, max)),
            Self::Boolean => f.write_str("true or false"),
            Self::Datetime { min, max } => {
                let moment = |seconds: &i64| {
                    datetime::from_unix_seconds(*seconds)
                        .map_or_else(|| seconds.to_string(), |moment| moment.to_string())
                };
                let (min, max) = (min.as_ref().map(moment), max.as_ref().map(moment));
                write!(f, "a moment such as 2026-01-31T12:00:00Z{}", Range(&min, &max))
            }
            Self::Enum { values } => write!(f, "one of {}", values.join(", ")),
        }
    }
}

struct Range<'a, T>(&'a Option<T>, &'a Option<T>);

impl<T: fmt::Display> fmt::Display for Range<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (Some(min), Some(max)) => write!(f, " from {min} to {max}"),
            (Some(min), None) => write!(f, ", {min} or more"),
            (None, Some(max)) => write!(f, ", {max} or less"),
            (None, None) => Ok(()),
        }
    }
}

fn describe(value: &Value) -> String {
    match &value.kind {
        Some(Kind::Integer(number)) => number.to_string(),
        Some(Kind::Real(number)) => format!("{number:?}"),
        Some(Kind::Text(text)) => quote(text),
        Some(Kind::Blob(blob)) => format!("a blob of {} bytes", blob.len()),
        None => "nothing".to_owned(),
    }
}

/// Quotes at most the first 80 characters, so that an error's length is bounded.
pub(super) fn quote(text: &str) -> String {
    format!("{:?}", text.chars().take(80).collect::<String>())
}
