//! SQL looked at before it is run: does it parse, are its names known, has each table what it needs.
use std::sync::Arc;

use crate::error::QueryError;
use crate::helper::database::{Database, columns};
use crate::query::Granted;
use crate::schema::{TableSchema, schema};
use crate::tables::Machine;
use crate::value::Column;
use crate::vtab::UNCONSTRAINED;

/// Prepares `sql` against the tables without running it, and returns the columns it would answer.
///
/// Nothing of the machine is read. A query that is right here may still fail on a machine, for instance at a limit.
///
/// # Errors
/// [`QueryError::Sql`] for what the helper would refuse: its message names the nearest known name and lists what the
/// table has. [`QueryError::TooLarge`] for SQL over [`crate::SQL_BYTES_MAX`].
pub fn check(sql: &str) -> Result<Vec<Column>, QueryError> {
    let database = Database::open(&Arc::new(Machine::live()), None, Granted::All)?;
    let columns = columns(&database.statement(sql)?);
    let is_explanation = sql.trim_start().get(..7).is_some_and(|word| word.eq_ignore_ascii_case("explain"));
    if !is_explanation {
        check_needs(&database, sql)?;
    }
    Ok(columns)
}

/// Asks the planner whether a table would be read that needs a constraint and has none.
fn check_needs(database: &Database, sql: &str) -> Result<(), QueryError> {
    let explanation = format!("EXPLAIN QUERY PLAN {sql}");
    let Ok(mut statement) = database.statement(&explanation) else { return Ok(()) };
    let mut rows = statement.raw_query();
    while let Ok(Some(row)) = rows.next() {
        let detail: String = row.get(3).unwrap_or_default();
        if detail.contains(UNCONSTRAINED) {
            return Err(QueryError::sql(needs(&detail, sql)));
        }
    }
    Ok(())
}

/// The plan names a table or its alias: the table that needs something is named from the schema then.
fn needs(detail: &str, sql: &str) -> String {
    let named = |table: &&TableSchema| {
        table.needs.is_some() && (detail.contains(table.name) || mentions(sql, table.name))
    };
    schema().iter().find(named).map_or_else(
        || "a table needs a constraint".to_owned(),
        |table| format!("table {} needs {}", table.name, table.needs.unwrap_or_default()),
    )
}

/// SQLite's message, with the nearest known name and what there is behind it, if it is about an unknown name.
pub(crate) fn hint(message: &str, sql: &str) -> String {
    if let Some(unknown) = message.strip_prefix("no such table: ") {
        return unknown_table(message, unknown);
    }
    if let Some(unknown) = message.strip_prefix("no such column: ") {
        return unknown_column(message, unknown, sql);
    }
    if message.contains("interrupted") {
        return "stopped".to_owned();
    }
    message.to_owned()
}

fn unknown_table(message: &str, unknown: &str) -> String {
    let names: Vec<&str> = schema().iter().map(|table| table.name).collect();
    format!("{message}{}; tables: {}", did_you_mean(unknown, &names), names.join(", "))
}

fn unknown_column(message: &str, unknown: &str, sql: &str) -> String {
    // SQLite adds advice on quotes after ` - `.
    let unknown = unknown.split(" - ").next().unwrap_or(unknown).trim_matches('"');
    let (qualifier, column) =
        unknown.rsplit_once('.').map_or((None, unknown), |(table, column)| (Some(table), column));
    let mentioned: Vec<_> = schema().iter().filter(|table| mentions(sql, table.name)).collect();
    let qualified: Vec<_> = mentioned
        .iter()
        .copied()
        .filter(|table| qualifier.is_some_and(|name| name.eq_ignore_ascii_case(table.name)))
        .collect();
    let tables = if qualified.is_empty() { mentioned } else { qualified };
    let names: Vec<&str> = tables.iter().flat_map(|table| table.columns).map(|column| column.name).collect();
    let listed: Vec<String> = tables
        .iter()
        .map(|table| format!("columns of {}: {}", table.name, table.visible().collect::<Vec<_>>().join(", ")))
        .collect();
    let end = if listed.is_empty() { String::new() } else { format!("; {}", listed.join("; ")) };
    format!("{message}{}{end}", did_you_mean(column, &names))
}

/// The nearest of `names`, if it is near: no more than a third of its letters are other ones.
fn did_you_mean(unknown: &str, names: &[&str]) -> String {
    let unknown = unknown.to_ascii_lowercase();
    let nearest = names.iter().min_by_key(|name| strsim::damerau_levenshtein(&unknown, name));
    match nearest {
        Some(name) if strsim::damerau_levenshtein(&unknown, name) <= (name.len() / 3).max(1) => {
            format!("; did you mean `{name}`?")
        }
        // A shortened or lengthened name is far by its letters and near by its sense.
        Some(_) => names
            .iter()
            .find(|name| {
                name.starts_with(&unknown)
                    || unknown.starts_with(**name)
                    || name.split('_').any(|part| part == unknown)
            })
            .map_or_else(String::new, |name| format!("; did you mean `{name}`?")),
        None => String::new(),
    }
}

/// Whether `name` is a word of `sql`.
fn mentions(sql: &str, name: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    sql.split(|character| !is_part(character)).any(|word| word.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sql: &str) -> String {
        check(sql).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_column_is_told_with_the_nearest_and_all_of_its_table() {
        let message = message("SELECT nmae FROM processes");

        assert!(message.contains("did you mean `name`?"), "{message}");
        assert!(message.contains("columns of processes: pid, ppid, name"), "{message}");
    }

    #[test]
    fn a_qualified_column_is_looked_for_in_its_table_only() {
        let message = message("SELECT users.hom, os.name FROM users, os");

        assert!(message.contains("did you mean `home`?"), "{message}");
        assert!(!message.contains("columns of os"), "{message}");
    }

    #[test]
    fn an_unknown_table_is_told_with_the_nearest_and_all_tables() {
        let message = message("SELECT * FROM process");

        assert!(message.contains("did you mean `processes`?"), "{message}");
        assert!(message.contains("tables: certificates, cpu, disks"), "{message}");
    }

    #[test]
    fn files_without_a_path_are_refused_before_they_are_read() {
        let message = message("SELECT f.path FROM files AS f WHERE f.size > 10");

        assert!(message.contains("table files needs to be told which files"), "{message}");
    }

    #[test]
    fn files_by_a_join_or_an_alternative_are_accepted() {
        for sql in [
            "SELECT f.sha256 FROM processes AS p JOIN files AS f ON f.path = p.path",
            "SELECT path FROM files WHERE path = '/etc/hosts' OR path GLOB '/etc/ssh/*'",
            "SELECT path FROM files WHERE path IN ('/etc/hosts', :other)",
            "SELECT path FROM files('/etc/*')",
        ] {
            assert!(check(sql).is_ok(), "{sql}: {:?}", check(sql));
        }
    }

    #[test]
    fn the_columns_of_a_query_have_the_types_of_its_tables() {
        let columns = check("SELECT pid, name AS program, count(*) FROM processes").unwrap();

        let told: Vec<_> = columns.iter().map(|column| (column.name.as_str(), column.kind.name())).collect();
        assert_eq!(told, [("pid", "INTEGER"), ("program", "TEXT"), ("count(*)", "ANY")]);
    }
}
