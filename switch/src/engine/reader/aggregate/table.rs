//! The table `results`: a row for each row of a result, under the definition's columns, and whose it is.
//!
//! The columns are those that the definition declares, with their types. One more, the first, says whose row it is: `device`, or, where the
//! definition has such a column, `device_id`, or the first of `device_id_2`, `device_id_3` … that is free: a name that an author declares means
//! what the author says. Where the definition declares none, since its step is its argument, the columns are those that any result has, without
//! types, and with the names that `muster instruction results` gives them: there `device` says whose row it is, and a column of that name is
//! `device_1`.

use std::collections::HashMap;

use muster_proto::common::v1::{Column, ColumnType, Row, Value, value::Kind};
use muster_proto::limits::{COLUMNS_MAX, NAME_BYTES_MAX};
use muster_proto::operator::v1::DeviceResult;
use muster_signing::definition::Definition;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Statement, ToSql};

use super::bounds::Watch;
use super::error::AggregateError;
use super::sandbox::{Sandbox, TABLE, Unanswered};

/// Columns of a table whose definition declares none: those of two results that have none in common.
const FREE_COLUMNS_MAX: usize = 2 * COLUMNS_MAX;

/// The table, and what it is made of.
#[derive(Debug)]
pub(super) struct Table {
    sandbox: Sandbox,
    /// The name of the column that says whose row it is, the first one.
    device: String,
    columns: Vec<TableColumn>,
    /// The definition declares none: each result may bring some.
    is_free: bool,
    insert: String,
    rows: u64,
}

/// A column beside the device's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TableColumn {
    /// As SQL names it.
    name: String,
    kind: ColumnType,
    /// In a free table: the name in results, lower case, and the how-manieth of that name in its result it is.
    key: (String, usize),
}

/// What became of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// Its rows are in the table.
    In,
    /// It is not what its definition declares: a client tells that as a failure, so this is none of ours.
    Unfit,
}

impl Table {
    /// Makes an empty one.
    pub(super) fn new(definition: Option<&Definition>, watch: Watch) -> Result<Self, AggregateError> {
        let declared = definition.map(Definition::result).unwrap_or_default();
        let columns: Vec<TableColumn> = declared
            .iter()
            .map(|column| TableColumn {
                name: column.name.clone(),
                kind: column.kind,
                key: (String::new(), 0),
            })
            .collect();
        let is_free = columns.is_empty();
        let device = if is_free { "device".to_owned() } else { own_name(&columns) };
        let mut table =
            Self { sandbox: Sandbox::open(watch)?, device, columns, is_free, insert: String::new(), rows: 0 };
        let listed: Vec<String> = std::iter::once(format!("{} TEXT", quoted(&table.device)))
            .chain(
                table
                    .columns
                    .iter()
                    .map(|column| format!("{} {}", quoted(&column.name), declared_as(column.kind))),
            )
            .collect();
        table.execute(&format!("CREATE TABLE {TABLE} ({})", listed.join(", ")))?;
        // One transaction for all rows; there is nothing to be durable.
        table.execute("BEGIN")?;
        table.insert = table.insert();
        Ok(table)
    }

    /// How many rows are in.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// What looks after it.
    pub(super) fn watch(&mut self) -> &mut Watch {
        self.sandbox.watch()
    }

    /// Puts the rows of a result in, all of them or none.
    pub(super) fn put(&mut self, result: &DeviceResult) -> Result<Put, AggregateError> {
        if result.rows.is_empty() {
            return Ok(Put::In);
        }
        let Some(places) = self.places(&result.columns)? else { return Ok(Put::Unfit) };
        let fits = |row: &Row| {
            row.values.len() == places.len()
                && row.values.iter().zip(&places).all(|(value, place)| {
                    self.is_free || self.columns.get(*place).is_some_and(|column| is_of(column.kind, value))
                })
        };
        if !result.rows.iter().all(fits) {
            return Ok(Put::Unfit);
        }
        let connection = self.sandbox.connection();
        let put = || {
            let mut statement = connection.prepare_cached(&self.insert)?;
            for row in &result.rows {
                statement.raw_bind_parameter(1_usize, &result.device)?;
                let mut given = vec![None; self.columns.len()];
                for (value, place) in row.values.iter().zip(&places) {
                    if let Some(given) = given.get_mut(*place) {
                        *given = Some(value);
                    }
                }
                for (at, value) in given.into_iter().enumerate() {
                    statement.raw_bind_parameter(at + 2, Bound(value))?;
                }
                statement.raw_execute()?;
            }
            Ok(())
        };
        put().map_err(|error: rusqlite::Error| match self.sandbox.explain(&error) {
            Unanswered::Full => AggregateError::Memory { what: "the results take" },
            Unanswered::Stopped(stopped) => stopped.into(),
            Unanswered::Sql(_) => AggregateError::sqlite(&error),
        })?;
        self.rows += u64::try_from(result.rows.len()).unwrap_or(u64::MAX);
        Ok(Put::In)
    }

    /// Lets nothing but a SELECT through from here on.
    pub(super) fn seal(&mut self) -> Result<(), AggregateError> {
        self.execute("COMMIT")?;
        self.sandbox.seal().map_err(|error| AggregateError::sqlite(&error))
    }

    /// Prepares the SELECT.
    pub(super) fn select(&self, sql: &str) -> Result<Statement<'_>, AggregateError> {
        self.sandbox.select(sql).map_err(|why| self.told(why))
    }

    /// What an error of the SELECT means.
    pub(super) fn explain(&self, error: &rusqlite::Error) -> AggregateError {
        self.told(self.sandbox.explain(error))
    }

    /// Whether a column of this name holds moments.
    pub(super) fn has_datetime(&self, name: &str) -> bool {
        let is_it = |column: &&TableColumn| column.name.eq_ignore_ascii_case(name);
        self.columns.iter().find(is_it).is_some_and(|column| column.kind == ColumnType::Datetime)
    }

    /// An answer that the SELECT cannot have.
    pub(super) fn wrong(&self, problem: String) -> AggregateError {
        self.told(Unanswered::Sql(problem))
    }

    fn told(&self, why: Unanswered) -> AggregateError {
        match why {
            Unanswered::Sql(problem) => {
                let names = std::iter::once(self.device.as_str());
                let names: Vec<&str> =
                    names.chain(self.columns.iter().map(|column| column.name.as_str())).collect();
                AggregateError::Sql { problem, columns: names.join(", ") }
            }
            Unanswered::Full => AggregateError::Memory { what: "the query takes" },
            Unanswered::Stopped(stopped) => stopped.into(),
        }
    }

    /// Where the columns of a result stand in the table; none if it is not what the definition declares.
    fn places(&mut self, given: &[Column]) -> Result<Option<Vec<usize>>, AggregateError> {
        if !self.is_free {
            let is_same = given.len() == self.columns.len()
                && given.iter().zip(&self.columns).all(|(given, column)| given.name == column.name);
            return Ok(is_same.then(|| (0..given.len()).collect()));
        }
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut places = Vec::with_capacity(given.len());
        for column in given {
            let is_name = !column.name.is_empty()
                && column.name.len() <= NAME_BYTES_MAX
                && !column.name.contains(char::is_control);
            let key = column.name.to_ascii_lowercase();
            let before = seen.entry(key.clone()).or_default();
            let key = (key, *before);
            *before += 1;
            let place = match self.columns.iter().position(|column| column.key == key) {
                Some(place) => place,
                None if is_name && self.columns.len() < FREE_COLUMNS_MAX => self.add(column, key)?,
                None => return Ok(None),
            };
            places.push(place);
        }
        Ok(Some(places))
    }

    /// Adds a column that a result brings.
    fn add(&mut self, column: &Column, key: (String, usize)) -> Result<usize, AggregateError> {
        let is_free = |name: &String| {
            !name.eq_ignore_ascii_case(&self.device)
                && self.columns.iter().all(|other| !other.name.eq_ignore_ascii_case(name))
        };
        // As `muster instruction results` names a column that comes again.
        let others = (1_usize..).map(|number| format!("{}_{number}", column.name));
        let name = std::iter::once(column.name.clone()).chain(others).find(is_free).unwrap_or_default();
        let kind = column.r#type();
        // BLOB is what SQLite calls a column that takes values as they are; the number says which type they were told to have.
        self.execute(&format!("ALTER TABLE {TABLE} ADD COLUMN {} BLOB_{}", quoted(&name), i32::from(kind)))?;
        self.columns.push(TableColumn { name, kind, key });
        self.insert = self.insert();
        Ok(self.columns.len() - 1)
    }

    fn insert(&self) -> String {
        let places: Vec<String> = (0..=self.columns.len()).map(|at| format!("?{}", at + 1)).collect();
        format!("INSERT INTO {TABLE} VALUES ({})", places.join(", "))
    }

    fn execute(&self, sql: &str) -> Result<(), AggregateError> {
        self.sandbox.connection().execute_batch(sql).map_err(|error| match self.sandbox.explain(&error) {
            Unanswered::Full => AggregateError::Memory { what: "the results take" },
            Unanswered::Stopped(stopped) => stopped.into(),
            Unanswered::Sql(_) => AggregateError::sqlite(&error),
        })
    }
}

/// The name of the column that says whose row it is.
fn own_name(columns: &[TableColumn]) -> String {
    let is_free =
        |name: &String| columns.iter().all(|column| !column.name.eq_ignore_ascii_case(name.as_str()));
    let names = (2_usize..).map(|number| format!("device_id_{number}"));
    ["device".to_owned(), "device_id".to_owned()].into_iter().chain(names).find(is_free).unwrap_or_default()
}

/// A name that SQL takes as one, whatever is in it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// How a column is declared.
fn declared_as(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Unspecified | ColumnType::Blob => "BLOB",
        ColumnType::Text => "TEXT",
        ColumnType::Integer => "INTEGER",
        ColumnType::Real => "REAL",
        ColumnType::Datetime => "DATETIME",
        ColumnType::Boolean => "BOOLEAN",
    }
}

/// The type of a column that was declared so; none for what is computed.
pub(super) fn type_of(declared: Option<&str>) -> Option<ColumnType> {
    let declared = declared?;
    if let Some(number) = declared.strip_prefix("BLOB_") {
        let number: i32 = number.parse().ok()?;
        return ColumnType::try_from(number).ok().filter(|kind| *kind != ColumnType::Unspecified);
    }
    let all = [
        ColumnType::Text,
        ColumnType::Integer,
        ColumnType::Real,
        ColumnType::Blob,
        ColumnType::Datetime,
        ColumnType::Boolean,
    ];
    all.into_iter().find(|kind| declared_as(*kind) == declared)
}

/// Whether a value is of a type, as clients check it before they tell it: NULL is of each, and an integer is a number.
fn is_of(kind: ColumnType, value: &Value) -> bool {
    match (&value.kind, kind) {
        (None, _) | (Some(_), ColumnType::Unspecified) => true,
        (Some(Kind::Text(_)), kind) => kind == ColumnType::Text,
        (Some(Kind::Blob(_)), kind) => kind == ColumnType::Blob,
        (Some(Kind::Real(_)), kind) => kind == ColumnType::Real,
        (Some(Kind::Integer(number)), ColumnType::Boolean) => matches!(number, 0 | 1),
        (Some(Kind::Integer(_)), ColumnType::Integer | ColumnType::Real | ColumnType::Datetime) => true,
        (Some(Kind::Integer(_)), ColumnType::Text | ColumnType::Blob) => false,
    }
}

/// A value as SQLite takes it.
struct Bound<'a>(Option<&'a Value>);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0.and_then(|value| value.kind.as_ref()) {
            None => ValueRef::Null,
            Some(Kind::Integer(number)) => ValueRef::Integer(*number),
            Some(Kind::Real(number)) => ValueRef::Real(*number),
            Some(Kind::Text(text)) => ValueRef::Text(text.as_bytes()),
            Some(Kind::Blob(bytes)) => ValueRef::Blob(bytes),
        }))
    }
}
