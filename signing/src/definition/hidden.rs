//! What would let a reviewer read another text than the one that is signed: refused wherever it stands, also where TOML spells
//! it as an escape, since people are shown what the escape means.

use std::ops::Range;

use muster_pki::text::is_misleading;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Fault, Faults};
use super::rule::Rule;
use crate::hidden;

/// Keys whose texts may have several lines, and tabs. Everything else is shown on one.
const BLOCKS: [&str; 6] = ["says", "hint", "query", "query_parameter", "text", "default"];

/// Refuses hidden characters in the text as it is authored; its own lines and tabs are none.
pub(super) fn check_raw(text: &str) -> Result<(), Fault> {
    hidden::as_it_stands(text).map_or(Ok(()), |(place, c)| Err(fault(place, c)))
}

/// Finds the texts and keys of a table that have hidden characters, which escapes put there.
pub(super) fn check(table: &DeTable<'_>, text: &str, faults: &mut Faults) {
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        check_text(key.span(), name, false, text, faults);
        check_value(value, BLOCKS.contains(&name), text, faults);
    }
}

fn check_value(value: &Spanned<DeValue<'_>>, is_block: bool, text: &str, faults: &mut Faults) {
    match value.get_ref() {
        DeValue::String(said) => check_text(value.span(), said, is_block, text, faults),
        DeValue::Array(items) => items.iter().for_each(|item| check_value(item, is_block, text, faults)),
        DeValue::Table(table) => check(table, text, faults),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}

fn check_text(place: Range<usize>, said: &str, is_block: bool, text: &str, faults: &mut Faults) {
    let said = if is_block { said.replace("\r\n", "\n") } else { said.to_owned() };
    let hidden = said.chars().find(|c| is_misleading(*c) && !(is_block && matches!(c, '\n' | '\t')));
    if let Some(c) = hidden {
        let written = text.get(place.clone()).and_then(|raw| escape(raw, c));
        let place = written.map_or(place.clone(), |at| place.start + at.start..place.start + at.end);
        faults.push(fault(place, c));
    }
}

fn fault(place: Range<usize>, c: char) -> Fault {
    Fault::new(place, Rule::HiddenOrder, hidden::told(c)).fix("remove it")
}

/// Returns where the first escape that means this character stands in a text as TOML writes it.
fn escape(raw: &str, wanted: char) -> Option<Range<usize>> {
    let mut at = 0;
    loop {
        let begin = at + raw.get(at..)?.find('\\')?;
        let kind = raw.get(begin + 1..)?.chars().next()?;
        let digits = match kind {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        let end = begin + 1 + kind.len_utf8() + digits;
        let of_digits = || {
            let number = raw.get(begin + 2..end).and_then(|digits| u32::from_str_radix(digits, 16).ok());
            number.and_then(char::from_u32)
        };
        let meant = match kind {
            'b' => Some('\u{8}'),
            't' => Some('\t'),
            'n' => Some('\n'),
            'f' => Some('\u{c}'),
            'r' => Some('\r'),
            'e' => Some('\u{1b}'),
            _ => of_digits(),
        };
        if meant == Some(wanted) {
            return Some(begin..end);
        }
        at = end.min(begin + 1 + kind.len_utf8());
    }
}
