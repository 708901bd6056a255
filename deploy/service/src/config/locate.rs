//! From a byte position in a TOML text to its line and key.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// Returns the line of byte `offset`, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    before.split(|byte| *byte == b'\n').count()
}

/// Returns the innermost dotted key whose name or value holds `span`, if any.
pub(super) fn key_at(text: &str, span: &Range<usize>) -> Option<String> {
    let table = DeTable::parse(text).ok()?;
    let mut found = None;
    walk(table.get_ref(), "", &mut |key, name, value| {
        if holds(name, span) || holds(value, span) {
            found = Some(key.to_owned());
        }
    });
    found
}

/// Returns the line of every dotted key of a valid TOML text.
pub(super) fn lines_of_keys(text: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    if let Ok(table) = DeTable::parse(text) {
        walk(table.get_ref(), "", &mut |key, name, _value| {
            lines.insert(key.to_owned(), line_of(text, name.start));
        });
    }
    lines
}

/// Calls `visit` with key, span of the name and span of the value, outer keys before inner ones.
fn walk(table: &DeTable<'_>, prefix: &str, visit: &mut impl FnMut(&str, &Range<usize>, &Range<usize>)) {
    for (name, value) in table {
        let key = join(prefix, name.get_ref());
        visit(&key, &name.span(), &value.span());
        walk_value(value.get_ref(), &key, visit);
    }
}

fn walk_value(value: &DeValue<'_>, key: &str, visit: &mut impl FnMut(&str, &Range<usize>, &Range<usize>)) {
    if let Some(inner) = value.as_table() {
        walk(inner, key, visit);
    } else if let Some(list) = value.as_array() {
        // The members of a list share its key: `[[context]]` is known as `context`.
        for member in list.iter() {
            walk_value(member.get_ref(), key, visit);
        }
    }
}

fn holds(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// Joins a table's dotted key and a name.
pub(super) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "listen = 1\n\n[limits]\nrows = 2\n\n[[context]]\nname = 'a'\n";

    #[test]
    fn finds_line_and_key_of_a_value() {
        let start = TEXT.find("2").unwrap();

        assert_eq!(line_of(TEXT, start), 4);
        assert_eq!(key_at(TEXT, &(start..start + 1)), Some("limits.rows".to_owned()));
    }

    #[test]
    fn finds_the_key_inside_a_list_of_tables() {
        let start = TEXT.find("'a'").unwrap();

        assert_eq!(key_at(TEXT, &(start..start + 3)), Some("context.name".to_owned()));
    }

    #[test]
    fn an_offset_beyond_the_text_is_its_last_line() {
        assert_eq!(line_of("a\nb", 99), 2);
    }
}
