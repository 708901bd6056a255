//! Runs the SELECT and makes an answer of its rows.

use muster_proto::common::v1::{Column, ColumnType, Row, Value, value::Kind};
use muster_proto::limits::{COLUMNS_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX};
use prost::Message as _;
use rusqlite::Statement;
use rusqlite::types::ValueRef;

use super::error::AggregateError;
use super::table::{self, Table};

/// Bytes of the answer's rows at most (instruction.proto), so that it fits a 4 MiB message.
const ANSWER_BYTES_MAX: usize = 3 << 20;

/// What the SELECT gave.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
    /// Rows or the rest of values were left out.
    pub(super) truncated: bool,
}

/// A column, while its rows come.
struct Shape {
    name: String,
    /// As the table declares it; none for what is computed.
    declared: Option<ColumnType>,
    /// The type that all values so far have; `None`: there was none.
    seen: Option<ColumnType>,
}

/// Runs it.
pub(super) fn of(table: &Table, query: &str, rows_max: usize) -> Result<Answer, AggregateError> {
    let mut statement = table.select(query)?;
    let mut shapes = shapes(&statement);
    if shapes.len() > COLUMNS_MAX {
        let problem = format!("the query gives {} columns, wanted at most {COLUMNS_MAX}", shapes.len());
        return Err(table.wrong(problem));
    }
    let (mut answer, mut bytes) = (Answer::default(), 0);
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(|error| table.explain(&error))? {
        if answer.rows.len() >= rows_max {
            answer.truncated = true;
            break;
        }
        let mut values = Vec::with_capacity(shapes.len());
        for (at, shape) in shapes.iter_mut().enumerate() {
            let given = row.get_ref(at).map_err(|error| table.explain(&error))?;
            let (value, is_cut) = value(given);
            answer.truncated |= is_cut;
            shape.see(&value);
            values.push(value);
        }
        let row = Row { values };
        bytes += row.encoded_len();
        if bytes > ANSWER_BYTES_MAX {
            answer.truncated = true;
            break;
        }
        answer.rows.push(row);
    }
    answer.columns = shapes.into_iter().map(|shape| shape.column(table)).collect();
    Ok(answer)
}

/// The columns of a statement: names that are unique and short enough for the wire.
fn shapes(statement: &Statement<'_>) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = Vec::new();
    for each in statement.columns() {
        let is_free = |name: &String| shapes.iter().all(|shape| shape.name != *name);
        let names = (1_usize..).map(|number| {
            let end = if number == 1 { String::new() } else { format!("_{number}") };
            format!("{}{end}", cut(each.name(), NAME_BYTES_MAX - end.len()))
        });
        let name = names.into_iter().find(is_free).unwrap_or_default();
        let declared = table::type_of(each.decl_type());
        shapes.push(Shape { name, declared, seen: None });
    }
    shapes
}

impl Shape {
    fn see(&mut self, value: &Value) {
        let kind = match &value.kind {
            None => return,
            Some(Kind::Integer(_)) => ColumnType::Integer,
            Some(Kind::Real(_)) => ColumnType::Real,
            Some(Kind::Text(_)) => ColumnType::Text,
            Some(Kind::Blob(_)) => ColumnType::Blob,
        };
        self.seen = Some(match self.seen {
            None => kind,
            Some(seen) if seen == kind => kind,
            Some(ColumnType::Integer) if kind == ColumnType::Real => ColumnType::Real,
            Some(ColumnType::Real) if kind == ColumnType::Integer => ColumnType::Real,
            Some(_) => ColumnType::Unspecified,
        });
    }

    /// A column of the table has its type. What is computed has that of its values; `min(at) AS at` is a moment, where `at` is one.
    fn column(self, table: &Table) -> Column {
        let is_moment =
            self.seen.is_none_or(|seen| seen == ColumnType::Integer) && table.has_datetime(&self.name);
        let computed = if is_moment { ColumnType::Datetime } else { self.seen.unwrap_or_default() };
        Column { name: self.name, r#type: self.declared.unwrap_or(computed).into() }
    }
}

/// A value for the wire, and whether it had to be cut.
fn value(given: ValueRef<'_>) -> (Value, bool) {
    let (kind, is_cut) = match given {
        ValueRef::Null => return (Value { kind: None }, false),
        ValueRef::Integer(number) => (Kind::Integer(number), false),
        ValueRef::Real(number) => (Kind::Real(number), false),
        ValueRef::Text(bytes) => {
            // SQL can make a text of any bytes.
            let text = String::from_utf8_lossy(bytes);
            let short = cut(&text, VALUE_BYTES_MAX);
            (Kind::Text(short.to_owned()), short.len() < text.len())
        }
        ValueRef::Blob(bytes) => {
            let short = bytes.get(..VALUE_BYTES_MAX).unwrap_or(bytes);
            (Kind::Blob(short.to_vec()), short.len() < bytes.len())
        }
    };
    (Value { kind: Some(kind) }, is_cut)
}

/// The text up to a character's boundary at or before `bytes_max`.
fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}
