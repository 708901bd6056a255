//! What the tables are called, what their columns mean, and which constraints they use.
use crate::tables;
use crate::value::ColumnKind;

/// A table: its name, what it lists, and its columns.
#[derive(Debug, Clone, Copy)]
pub struct TableSchema {
    /// The name in SQL.
    pub name: &'static str,
    /// What one row is, and from where it is read.
    pub description: &'static str,
    /// The columns, in the order of `SELECT *`; hidden ones last.
    pub columns: &'static [ColumnSchema],
    /// What the WHERE clause must have, as the error says it; `None`: nothing.
    pub needs: Option<&'static str>,
}

impl TableSchema {
    /// Returns the names of the columns that `SELECT *` shows.
    pub fn visible(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.columns.iter().filter(|column| !column.hidden).map(|column| column.name)
    }

    /// The number of the column called `name`.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// A column: its name, type and meaning.
#[derive(Debug, Clone, Copy)]
pub struct ColumnSchema {
    /// The name in SQL.
    pub name: &'static str,
    /// The type of its values; any of them may be NULL.
    pub kind: ColumnKind,
    /// What it means, with its unit.
    pub description: &'static str,
    /// Which constraints of the WHERE clause the table uses to read less.
    pub search: Search,
    /// An input that `SELECT *` doesn't show.
    pub hidden: bool,
}

impl ColumnSchema {
    /// A text column.
    pub(crate) const fn text(name: &'static str, description: &'static str) -> Self {
        Self::new(name, ColumnKind::Text, description)
    }

    /// An integer column.
    pub(crate) const fn integer(name: &'static str, description: &'static str) -> Self {
        Self::new(name, ColumnKind::Integer, description)
    }

    /// A column of floating-point numbers.
    pub(crate) const fn real(name: &'static str, description: &'static str) -> Self {
        Self::new(name, ColumnKind::Real, description)
    }

    /// The same column, with the constraints that the table uses.
    pub(crate) const fn searched(self, search: Search) -> Self {
        Self { search, ..self }
    }

    /// The same column, as an input.
    pub(crate) const fn input(self) -> Self {
        Self { hidden: true, ..self }
    }

    const fn new(name: &'static str, kind: ColumnKind, description: &'static str) -> Self {
        Self { name, kind, description, search: Search::None, hidden: false }
    }
}

/// Which constraints on a column its table uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// None: SQLite filters the rows.
    None,
    /// `column = …` and `column IN …`.
    Equal,
    /// Also `column GLOB …`.
    EqualOrGlob,
}

/// Returns every table, by name.
///
/// For documentation, completion and hints; the list never changes while a program runs.
#[must_use]
pub fn schema() -> &'static [TableSchema] {
    tables::SCHEMAS
}
