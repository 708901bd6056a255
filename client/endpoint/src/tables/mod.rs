//! The tables: what each lists is in its own file, what they share is here.
//!
//! A table is a [`Table`]: a schema and rows for some constraints. It reads a [`Machine`], whose root folder tests
//! replace, and nothing else.
use std::fmt::Debug;
use std::sync::Arc;

use crate::schema::TableSchema;
use crate::value::SqlValue;

mod certificates;
mod disks;
mod early;
mod files;
mod hardware;
mod host;
mod interfaces;
mod machine;
mod mounts;
mod name;
mod packages;
mod ports;
mod processes;
mod routes;
mod services;
mod unit;
mod users;
mod walk;

pub(crate) use early::Early;
pub(crate) use hardware::{logical_cores, memory_mebibytes};
pub(crate) use host::facts;
pub(crate) use machine::{Machine, TableError};

/// Every table, by name.
pub(crate) const TABLES: &[&dyn Table] = &[
    &certificates::Certificates,
    &hardware::Cpu,
    &disks::Disks,
    &files::Files,
    &host::Host,
    &interfaces::Interfaces,
    &ports::ListeningPorts,
    &hardware::Memory,
    &mounts::Mounts,
    &host::Os,
    &packages::Packages,
    &processes::Processes,
    &routes::Routes,
    &services::Services,
    &host::Time,
    &users::Users,
];

/// The schema of every table, by name.
pub(crate) const SCHEMAS: &[TableSchema] = &[
    certificates::SCHEMA,
    hardware::CPU,
    disks::SCHEMA,
    files::SCHEMA,
    host::HOST,
    interfaces::SCHEMA,
    ports::SCHEMA,
    hardware::MEMORY,
    mounts::SCHEMA,
    host::OS,
    packages::SCHEMA,
    processes::SCHEMA,
    routes::SCHEMA,
    services::SCHEMA,
    host::TIME,
    users::SCHEMA,
];

/// A table of the machine.
pub(crate) trait Table: Debug + Sync {
    /// Its name and columns.
    fn schema(&self) -> &'static TableSchema;

    /// Its rows. They may be more than the constraints ask for, never fewer: SQLite filters them again.
    ///
    /// # Errors
    /// If the source of the table is unreadable, over its bound, or not what its format says.
    fn rows(&self, scan: &Scan) -> Result<Rows, TableError>;
}

/// The rows of one walk, made as they are asked for.
pub(crate) type Rows = Box<dyn Iterator<Item = Result<Box<dyn Row>, TableError>>>;

/// One row; a costly value is worked out when its column is asked for.
pub(crate) trait Row {
    /// The value of column `column` of the schema.
    fn value(&self, column: usize) -> Result<SqlValue, TableError>;
}

impl Row for Vec<SqlValue> {
    fn value(&self, column: usize) -> Result<SqlValue, TableError> {
        Ok(self.get(column).cloned().unwrap_or(SqlValue::Null))
    }
}

/// Rows whose values are all there.
pub(crate) fn ready(rows: impl IntoIterator<Item = Vec<SqlValue>, IntoIter: 'static>) -> Rows {
    Box::new(rows.into_iter().map(|row| Ok(Box::new(row) as Box<dyn Row>)))
}

/// One walk's machine, constraints and columns.
#[derive(Debug)]
pub(crate) struct Scan {
    /// What is read.
    pub(crate) machine: Arc<Machine>,
    /// The table's columns.
    pub(crate) schema: &'static TableSchema,
    /// The constraints on searched columns.
    pub(crate) constraints: Vec<Constraint>,
    /// A bit for each of the first 63 columns that the statement uses; the last bit stands for all others.
    pub(crate) used: u64,
}

impl Scan {
    /// The text that `column` must equal. A number stands for its decimal text.
    pub(crate) fn equal(&self, column: &str) -> Option<&SqlValue> {
        self.find(column, Operator::Equal)
    }

    /// The pattern that `column` must match.
    pub(crate) fn glob(&self, column: &str) -> Option<&SqlValue> {
        self.find(column, Operator::Glob)
    }

    /// Whether the statement uses `column`.
    pub(crate) fn uses(&self, column: &str) -> bool {
        self.schema.position(column).is_none_or(|number| self.used >> number.min(63) & 1 == 1)
    }

    fn find(&self, column: &str, operator: Operator) -> Option<&SqlValue> {
        let column = self.schema.position(column)?;
        let fits = |constraint: &&Constraint| constraint.column == column && constraint.operator == operator;
        self.constraints.iter().find(fits).map(|constraint| &constraint.value)
    }
}

/// One constraint of the WHERE clause that the table can use.
#[derive(Debug, Clone)]
pub(crate) struct Constraint {
    /// The column, by number.
    pub(crate) column: usize,
    /// How it is compared.
    pub(crate) operator: Operator,
    /// With what.
    pub(crate) value: SqlValue,
}

/// How a column is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    /// `=`, or one value of `IN`.
    Equal,
    /// SQLite's `GLOB`: `*` and `?` match `/` too.
    Glob,
}
