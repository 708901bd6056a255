//! Characters that would let a reviewer read another text than the one that is signed.

use std::ops::Range;

use muster_pki::text::is_misleading;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Returns the first hidden character of a document in TOML: as it stands there, or in a key or text that an escape puts it into.
/// Lines and tabs of its own are none. A text that is no TOML has no others; its reader tells what it is.
pub(crate) fn in_document(text: &str) -> Option<char> {
    as_it_stands(text).map(|(_, c)| c).or_else(|| in_table(DeTable::parse(text).ok()?.get_ref()))
}

/// What is told of such a character.
pub(crate) fn told(c: char) -> String {
    format!("the hidden character U+{:04X} lets the text read otherwise than it is stored", u32::from(c))
}

/// Returns the first hidden character that a text has without any escape, and its place.
pub(crate) fn as_it_stands(text: &str) -> Option<(Range<usize>, char)> {
    let is_hidden = |at: usize, c: char| match c {
        '\n' | '\t' => false,
        '\r' => !text.get(at + 1..).is_some_and(|rest| rest.starts_with('\n')),
        c => is_misleading(c),
    };
    let found = text.char_indices().find(|(at, c)| is_hidden(*at, *c));
    found.map(|(at, c)| (at..at + c.len_utf8(), c))
}

fn in_table(table: &DeTable<'_>) -> Option<char> {
    table
        .iter()
        .find_map(|(key, value)| as_it_stands(key.get_ref()).map(|(_, c)| c).or_else(|| in_value(value)))
}

fn in_value(value: &Spanned<DeValue<'_>>) -> Option<char> {
    match value.get_ref() {
        DeValue::String(said) => as_it_stands(said).map(|(_, c)| c),
        DeValue::Array(items) => items.iter().find_map(in_value),
        DeValue::Table(table) => in_table(table),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => None,
    }
}
