//! The values and columns that SQL speaks of.
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

/// One value of a row or a bound parameter: SQLite's five storage classes.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// SQL NULL: unknown, or not applicable.
    Null,
    /// A signed integer; also Unix seconds and booleans (0, 1).
    Integer(i64),
    /// A floating-point number, never NaN (SQLite turns NaN into NULL).
    Real(f64),
    /// UTF-8 text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl SqlValue {
    /// Returns the text, if it is text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Integer(_) | Self::Real(_) | Self::Blob(_) => None,
        }
    }

    /// Returns the integer, if it is one.
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Null | Self::Real(_) | Self::Text(_) | Self::Blob(_) => None,
        }
    }

    /// The kind of this value; `None` for NULL, which fits every kind.
    pub(crate) fn kind(&self) -> Option<ColumnKind> {
        match self {
            Self::Null => None,
            Self::Integer(_) => Some(ColumnKind::Integer),
            Self::Real(_) => Some(ColumnKind::Real),
            Self::Text(_) => Some(ColumnKind::Text),
            Self::Blob(_) => Some(ColumnKind::Blob),
        }
    }

    /// Takes SQLite's value over; text that isn't UTF-8 is replaced where it isn't.
    pub(crate) fn from_sqlite(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real(number),
            ValueRef::Text(bytes) => Self::Text(String::from_utf8_lossy(bytes).into_owned()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }

    /// Gives the value to SQLite without copying it.
    pub(crate) fn to_sqlite(&self) -> ToSqlOutput<'_> {
        ToSqlOutput::Borrowed(self.as_sqlite())
    }

    /// Returns the value as SQLite has it.
    pub(crate) fn as_sqlite(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }
    }
}

impl ToSql for SqlValue {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.to_sqlite())
    }
}

impl From<&str> for SqlValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for SqlValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for SqlValue {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<u32> for SqlValue {
    fn from(number: u32) -> Self {
        Self::Integer(i64::from(number))
    }
}

/// SQLite has no unsigned 64-bit integers: larger numbers become the largest signed one.
impl From<u64> for SqlValue {
    fn from(number: u64) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f64> for SqlValue {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<bool> for SqlValue {
    fn from(truth: bool) -> Self {
        Self::Integer(i64::from(truth))
    }
}

impl<T: Into<Self>> From<Option<T>> for SqlValue {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// [`SqlValue::Integer`].
    Integer,
    /// [`SqlValue::Real`].
    Real,
    /// [`SqlValue::Text`].
    Text,
    /// [`SqlValue::Blob`].
    Blob,
    /// Not known: only NULLs, or several types.
    Any,
}

impl ColumnKind {
    /// The type's name in SQL.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Integer => "INTEGER",
            Self::Real => "REAL",
            Self::Text => "TEXT",
            Self::Blob => "BLOB",
            Self::Any => "ANY",
        }
    }

    /// Reads a declared type; what isn't one of the tables' five is [`Self::Any`].
    pub(crate) fn from_declared(name: Option<&str>) -> Self {
        match name {
            Some("INTEGER") => Self::Integer,
            Some("REAL") => Self::Real,
            Some("TEXT") => Self::Text,
            Some("BLOB") => Self::Blob,
            Some(_) | None => Self::Any,
        }
    }

    /// The kind that holds both: integers and reals are reals, other mixtures are [`Self::Any`].
    pub(crate) fn join(self, other: Self) -> Self {
        match (self, other) {
            (left, right) if left == right => left,
            (Self::Integer, Self::Real) | (Self::Real, Self::Integer) => Self::Real,
            _ => Self::Any,
        }
    }
}

/// One column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name, unique and at most 64 bytes: the alias, or what SQLite calls the expression.
    pub name: String,
    /// Its type: what its values are, or what the table declares where there are none.
    pub kind: ColumnKind,
}
