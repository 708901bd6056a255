//! Named values, as events and attributes hold them.

use muster_proto::common::v1::{NamedValue, Value, value::Kind};

/// Makes a text value.
pub(crate) fn text(name: &str, value: &str) -> NamedValue {
    NamedValue { name: name.to_owned(), value: Some(Value { kind: Some(Kind::Text(value.to_owned())) }) }
}

/// Makes an integer value.
pub(crate) fn integer(name: &str, value: i64) -> NamedValue {
    NamedValue { name: name.to_owned(), value: Some(Value { kind: Some(Kind::Integer(value)) }) }
}
