//! From a byte position in a TOML text to its line and key.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeArray, DeTable, DeValue};

/// Returns the line of byte `offset`, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    before.split(|byte| *byte == b'\n').count()
}

/// Returns the line of every dotted key of a table that was parsed from `text`.
pub(super) fn lines_of_keys(text: &str, table: &DeTable<'_>) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    walk(table, "", &mut |key, name| {
        lines.insert(key.to_owned(), line_of(text, name.start));
    });
    lines
}

/// Takes the innermost entry whose name or value holds `span` out of `table`, and returns its dotted key.
///
/// In a list the entry is the member; it goes by the list's key.
pub(super) fn cut(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<String> {
    cut_from(table, "", span)
}

fn cut_from(table: &mut DeTable<'_>, prefix: &str, span: &Range<usize>) -> Option<String> {
    let mut found = None;
    for (name, mut value) in std::mem::replace(table, DeTable::new()) {
        if found.is_none() {
            let key = join(prefix, name.get_ref());
            // Inside first: the span of a table is that of its header, and holds nothing of what stands below it.
            found = cut_inside(value.get_mut(), &key, span);
            if found.is_none() && (holds(&name.span(), span) || holds(&value.span(), span)) {
                found = Some(key);
                continue;
            }
        }
        table.insert(name, value);
    }
    found
}

fn cut_inside(value: &mut DeValue<'_>, key: &str, span: &Range<usize>) -> Option<String> {
    if let DeValue::Table(inner) = value {
        return cut_from(inner, key, span);
    }
    let DeValue::Array(list) = value else { return None };
    if let Some(found) = list.iter_mut().find_map(|member| cut_inside(member.get_mut(), key, span)) {
        return Some(found);
    }
    let at = list.iter().position(|member| holds(&member.span(), span))?;
    let others = std::mem::replace(list, DeArray::new())
        .into_iter()
        .enumerate()
        .filter(|(index, _member)| *index != at);
    *list = others.map(|(_index, member)| member).collect();
    Some(key.to_owned())
}

/// Calls `visit` with key and span of the name, outer keys before inner ones.
fn walk(table: &DeTable<'_>, prefix: &str, visit: &mut impl FnMut(&str, &Range<usize>)) {
    for (name, value) in table {
        let key = join(prefix, name.get_ref());
        visit(&key, &name.span());
        walk_value(value.get_ref(), &key, visit);
    }
}

fn walk_value(value: &DeValue<'_>, key: &str, visit: &mut impl FnMut(&str, &Range<usize>)) {
    if let Some(inner) = value.as_table() {
        walk(inner, key, visit);
    } else if let Some(list) = value.as_array() {
        // The members of a list share its key: `[[context]]` is known as `context`.
        for member in list {
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

    const TEXT: &str =
        "listen = 1\n\n[limits]\nrows = 2\n\n[[context]]\nname = 'a'\nlist = ['first', 'second']\n";

    #[test]
    fn cuts_a_value_and_keeps_its_neighbours() {
        let (key, rest) = cut_at("2");

        assert_eq!(line_of(TEXT, TEXT.find('2').unwrap()), 4);
        assert_eq!(key.as_deref(), Some("limits.rows"));
        assert!(!rest.contains("rows") && rest.contains("listen") && rest.contains("context"), "{rest}");
    }

    #[test]
    fn cuts_a_key_inside_a_list_of_tables() {
        let (key, rest) = cut_at("'a'");

        assert_eq!(key.as_deref(), Some("context.name"));
        assert!(rest.contains("context") && !rest.contains("name"), "{rest}");
    }

    #[test]
    fn cuts_one_member_of_a_list() {
        let (key, rest) = cut_at("'second'");

        assert_eq!(key.as_deref(), Some("context.list"));
        assert!(rest.contains("first") && !rest.contains("second"), "{rest}");
    }

    fn cut_at(value: &str) -> (Option<String>, String) {
        let start = TEXT.find(value).unwrap();
        let mut table = DeTable::parse(TEXT).unwrap().into_inner();
        let key = cut(&mut table, &(start..start + value.len()));
        (key, format!("{table:?}"))
    }

    #[test]
    fn an_offset_beyond_the_text_is_its_last_line() {
        assert_eq!(line_of("a\nb", 99), 2);
    }
}
