//! Whether rows are of the types that their definition declares.
//!
//! SQLite has no types of columns: each value has its own. What it makes of numbers by itself counts as it would in a table of its own: an
//! integer is a number, and a number that is whole is an integer, such as `round` gives. Nothing else is taken for something that it is not, and
//! NULL is in every column. What is longer than `max_length` is cut, and told by `truncated`, wherever it comes from.

use muster_endpoint::SqlValue;
use muster_proto::common::v1::ColumnType;

use super::admission::PlanColumn;

/// Characters of a value that an error shows.
const SHOWN_CHARACTERS_MAX: usize = 60;

/// Whole numbers are exact up to here, 2^53, and each is one integer.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A value that is not of its column's type.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "row {row}, column {column:?}: found {found}, wanted {wanted}; cast it in the query, or declare the type that it has"
)]
pub(crate) struct Mistyped {
    /// From 1.
    row: usize,
    column: String,
    found: String,
    wanted: &'static str,
}

/// Takes every value of a row as its column says; so many rows came before it.
pub(super) fn check(columns: &[PlanColumn], before: usize, row: &mut [SqlValue]) -> Result<(), Mistyped> {
    for (column, value) in columns.iter().zip(row) {
        take(column.kind, value).map_err(|wanted| Mistyped {
            row: before + 1,
            column: column.name.clone(),
            found: shown(value),
            wanted,
        })?;
    }
    Ok(())
}

/// Says what was wanted if a value is something else.
fn take(kind: ColumnType, value: &mut SqlValue) -> Result<(), &'static str> {
    if *value == SqlValue::Null {
        return Ok(());
    }
    match kind {
        // No definition declares it.
        ColumnType::Unspecified => Ok(()),
        ColumnType::Text => taken(matches!(value, SqlValue::Text(_)), "a text"),
        ColumnType::Blob => taken(matches!(value, SqlValue::Blob(_)), "a blob"),
        ColumnType::Real => taken(matches!(value, SqlValue::Integer(_) | SqlValue::Real(_)), "a number"),
        ColumnType::Integer => integer(value, "an integer of 64 bits").map(drop),
        ColumnType::Datetime => integer(value, "Unix seconds, an integer of 64 bits").map(drop),
        ColumnType::Boolean => {
            let wanted = "0 or 1, for false or true";
            taken(matches!(integer(value, wanted)?, 0 | 1), wanted)
        }
    }
}

fn taken(is: bool, wanted: &'static str) -> Result<(), &'static str> {
    if is { Ok(()) } else { Err(wanted) }
}

/// Makes an integer of a number that is whole.
fn integer(value: &mut SqlValue, wanted: &'static str) -> Result<i64, &'static str> {
    let found = match value {
        SqlValue::Integer(number) => Some(*number),
        // `{:.0}` of a whole number below 2^53 is that integer.
        SqlValue::Real(number) if number.fract() == 0.0 && number.abs() <= EXACT_MAX => {
            format!("{number:.0}").parse().ok()
        }
        SqlValue::Null | SqlValue::Real(_) | SqlValue::Text(_) | SqlValue::Blob(_) => None,
    };
    let number = found.ok_or(wanted)?;
    *value = SqlValue::Integer(number);
    Ok(number)
}

/// A value for people, with its type, since that is what is wrong with it.
fn shown(value: &SqlValue) -> String {
    match value {
        SqlValue::Null => "NULL".to_owned(),
        SqlValue::Integer(number) => format!("the integer {number}"),
        SqlValue::Real(number) => format!("the number {number:?}"),
        SqlValue::Text(text) => {
            let start: String = text.chars().take(SHOWN_CHARACTERS_MAX).collect();
            let more = if start.len() < text.len() { "…" } else { "" };
            format!("the text {start:?}{more}")
        }
        SqlValue::Blob(bytes) => format!("a blob of {} bytes", bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ColumnType; 6] = [
        ColumnType::Text,
        ColumnType::Integer,
        ColumnType::Real,
        ColumnType::Boolean,
        ColumnType::Datetime,
        ColumnType::Blob,
    ];

    fn taken_as(kind: ColumnType, value: SqlValue) -> Result<SqlValue, String> {
        let column = PlanColumn { name: "c".to_owned(), kind, max_length: None };
        let mut row = [value];
        check(&[column], 0, &mut row).map_err(|error| error.to_string())?;
        let [value] = row;
        Ok(value)
    }

    #[test]
    fn each_type_takes_its_own_values_and_what_sqlite_itself_makes_of_numbers() {
        let text = || SqlValue::Text("1".to_owned());
        let blob = || SqlValue::Blob(vec![1]);
        for (value, kinds) in [
            (text(), vec![ColumnType::Text]),
            (blob(), vec![ColumnType::Blob]),
            (
                SqlValue::Integer(1),
                vec![ColumnType::Integer, ColumnType::Real, ColumnType::Boolean, ColumnType::Datetime],
            ),
            (SqlValue::Integer(2), vec![ColumnType::Integer, ColumnType::Real, ColumnType::Datetime]),
            (SqlValue::Integer(-1), vec![ColumnType::Integer, ColumnType::Real, ColumnType::Datetime]),
            (SqlValue::Real(0.5), vec![ColumnType::Real]),
            (SqlValue::Real(-3.0), vec![ColumnType::Integer, ColumnType::Real, ColumnType::Datetime]),
            (SqlValue::Real(1e300), vec![ColumnType::Real]),
            (SqlValue::Real(f64::INFINITY), vec![ColumnType::Real]),
            (SqlValue::Null, ALL.to_vec()),
        ] {
            let takes: Vec<ColumnType> =
                ALL.into_iter().filter(|kind| taken_as(*kind, value.clone()).is_ok()).collect();
            let wanted: Vec<ColumnType> = ALL.into_iter().filter(|kind| kinds.contains(kind)).collect();

            assert_eq!(takes, wanted, "{value:?}");
        }
    }

    #[test]
    fn a_whole_number_in_a_column_of_integers_becomes_one_and_an_integer_in_one_of_numbers_stays() {
        assert_eq!(taken_as(ColumnType::Integer, SqlValue::Real(-3.0)), Ok(SqlValue::Integer(-3)));
        assert_eq!(taken_as(ColumnType::Integer, SqlValue::Real(EXACT_MAX)), Ok(SqlValue::Integer(1 << 53)));
        assert_eq!(taken_as(ColumnType::Integer, SqlValue::Real(-0.0)), Ok(SqlValue::Integer(0)));
        assert_eq!(taken_as(ColumnType::Real, SqlValue::Integer(3)), Ok(SqlValue::Integer(3)));
    }

    #[test]
    fn what_is_wrong_is_told_with_row_column_what_was_found_and_what_was_wanted() {
        let column = |name: &str, kind| PlanColumn { name: name.to_owned(), kind, max_length: None };
        let columns = [column("a", ColumnType::Text), column("b", ColumnType::Integer)];
        let long = SqlValue::Text(format!("\u{1b}[2J{}", "x".repeat(1_000)));

        let error = check(&columns, 1, &mut [SqlValue::Null, long]).unwrap_err().to_string();

        for wanted in
            ["row 2", "column \"b\"", "the text \"\\u{1b}[2Jxxx", "x\"…", "wanted an integer of 64 bits"]
        {
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
        assert!(error.len() < 300, "{error}");
    }
}
