//! What a script writes: JSON Lines, one object for each row. Pure: a line in, a row or what is wrong with it out.
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::shown;
use crate::script::{RowColumn, RowKind};
use crate::value::SqlValue;

/// Bytes of a line at most: 64 values of 64 KiB, as one row of a query may have.
pub(super) const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The keys of one object, in their order and with those that come twice.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Object, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Object(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Reads one line as a row of these columns.
///
/// # Errors
/// Says what stands there and what was wanted.
pub(super) fn row(line: &[u8], columns: &[RowColumn]) -> Result<Vec<SqlValue>, String> {
    let names = || columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
    let Object(mut pairs) = serde_json::from_slice(line).map_err(|error| {
        format!("{}: {error}; wanted a JSON object with the keys {}", shown(line), names())
    })?;
    let mut row = Vec::with_capacity(columns.len());
    for column in columns {
        let Some(at) = pairs.iter().position(|(key, _)| *key == column.name) else {
            return Err(format!("no key `{}`; wanted each of {}", column.name, names()));
        };
        let (_, value) = pairs.swap_remove(at);
        row.push(self::value(value, column)?);
    }
    match pairs.first() {
        Some((key, _)) if columns.iter().any(|column| column.name == *key) => {
            Err(format!("the key `{key}` stands there twice; wanted it once"))
        }
        Some((key, _)) => Err(format!("no column is called {}; wanted {}", shown(key.as_bytes()), names())),
        None => Ok(row),
    }
}

fn value(value: Value, column: &RowColumn) -> Result<SqlValue, String> {
    let wrong = |wanted: &str, value: &Value| {
        format!("`{}` is {}; wanted {wanted}", column.name, shown(value.to_string().as_bytes()))
    };
    match (column.kind, value) {
        (_, Value::Null) => Ok(SqlValue::Null),
        (RowKind::Text, Value::String(text)) => Ok(SqlValue::Text(text)),
        (RowKind::Text, value) => Err(wrong("a text", &value)),
        (RowKind::Integer | RowKind::Datetime, value) => {
            let wanted = match column.kind {
                RowKind::Datetime => "Unix seconds, an integer of 64 bits",
                RowKind::Text | RowKind::Integer | RowKind::Real | RowKind::Boolean | RowKind::Blob => {
                    "an integer of 64 bits"
                }
            };
            value.as_i64().map(SqlValue::Integer).ok_or_else(|| wrong(wanted, &value))
        }
        (RowKind::Real, value) => value.as_f64().map(SqlValue::Real).ok_or_else(|| wrong("a number", &value)),
        (RowKind::Boolean, value) => value
            .as_bool()
            .map(|is| SqlValue::Integer(i64::from(is)))
            .ok_or_else(|| wrong("true or false", &value)),
        (RowKind::Blob, value) => value
            .as_str()
            .and_then(|digits| hex::decode(digits).ok())
            .map(SqlValue::Blob)
            .ok_or_else(|| wrong("a text of hex digits", &value)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn columns() -> Vec<RowColumn> {
        [("t", RowKind::Text), ("i", RowKind::Integer), ("b", RowKind::Boolean)]
            .map(|(name, kind)| RowColumn { name: name.to_owned(), kind })
            .to_vec()
    }

    #[test]
    fn a_row_has_its_values_in_the_order_of_the_columns_whatever_that_of_its_keys() {
        let line = br#" {"b": true, "t": "a\u0000b", "i": -9223372036854775808} "#;

        let row = row(line, &columns()).unwrap();

        assert_eq!(row, ["a\0b".into(), SqlValue::Integer(i64::MIN), SqlValue::Integer(1)]);
    }

    #[test]
    fn what_is_not_known_is_null_in_every_column() {
        let row = row(br#"{"t":null,"i":null,"b":null}"#, &columns()).unwrap();

        assert_eq!(row, [SqlValue::Null, SqlValue::Null, SqlValue::Null]);
    }

    #[test]
    fn whatever_is_no_row_is_told_with_what_was_wanted() {
        for (line, words) in [
            ("", "wanted a JSON object with the keys t, i, b"),
            ("hello", "hello: expected value at line 1 column 1; wanted a JSON object"),
            ("[1]", "wanted a JSON object"),
            (r#"{"t":"a","i":1,"b":true} {}"#, "trailing characters"),
            (r#"{"t":"a","i":1}"#, "no key `b`; wanted each of t, i, b"),
            (r#"{"t":"a","i":1,"b":true,"x":1}"#, "no column is called x; wanted t, i, b"),
            (r#"{"t":"a","i":1,"b":true,"i":2}"#, "the key `i` stands there twice"),
            (r#"{"t":1,"i":1,"b":true}"#, "`t` is 1; wanted a text"),
            (r#"{"t":"a","i":1.0,"b":true}"#, "`i` is 1.0; wanted an integer"),
            (r#"{"t":"a","i":9223372036854775808,"b":true}"#, "wanted an integer of 64 bits"),
            (r#"{"t":"a","i":1,"b":1}"#, "`b` is 1; wanted true or false"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
        ] {
            let problem = row(line.as_bytes(), &columns()).unwrap_err();

            assert!(problem.contains(words), "{line:?}: {problem}");
        }
    }

    #[test]
    fn other_kinds_are_taken_as_their_columns_say() {
        let columns = [("r", RowKind::Real), ("d", RowKind::Datetime), ("x", RowKind::Blob)]
            .map(|(name, kind)| RowColumn { name: name.to_owned(), kind });

        let row = row(br#"{"r": 2, "d": 1800000000, "x": "00fF"}"#, &columns).unwrap();

        assert_eq!(
            row,
            [SqlValue::Real(2.0), SqlValue::Integer(1_800_000_000), SqlValue::Blob(vec![0, 255])]
        );
    }

    proptest! {
        #[test]
        fn no_line_panics_and_no_problem_is_long(line in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            if let Err(problem) = row(&line, &columns()) {
                prop_assert!(problem.len() < 1_000, "{problem}");
            }
        }
    }
}
