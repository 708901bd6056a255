//! The shape of the TOML: which keys there are, what type each has, which must be there.
//!
//! What does not fit is told and taken out, so that the rest can be read. signing/definitions/definition.schema.json
//! says the same to editors.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use crate::definition::error::{Fault, Faults};
use crate::definition::rule::Rule;

/// What a key takes.
enum Takes {
    /// A text.
    Text,
    /// One of these texts.
    Word(&'static [&'static str]),
    /// An integer from 0 to this.
    Count(u64),
    /// Anything; its own check follows.
    Any,
    /// A list of texts.
    Texts,
    /// A table with these keys.
    Table(&'static [Key]),
    /// A list of tables with these keys.
    Tables(&'static [Key]),
}

/// A key of a table.
struct Key {
    name: &'static str,
    takes: Takes,
    /// What stands there for the checks that follow, where it must be there and is not.
    stand_in: Option<&'static str>,
}

const fn may(name: &'static str, takes: Takes) -> Key {
    Key { name, takes, stand_in: None }
}

const fn must(name: &'static str, takes: Takes, stand_in: &'static str) -> Key {
    Key { name, takes, stand_in: Some(stand_in) }
}

const U32: Takes = Takes::Count(u32::MAX as u64);

const DEFINITION: &[Key] = &[
    must("name", Takes::Text, "Muster-A-A"),
    must("version", Takes::Text, "1.0.0"),
    must("kind", Takes::Word(&["question", "action"]), "question"),
    must("says", Takes::Text, "?"),
    may("parameter", Takes::Tables(PARAMETER)),
    may("step", Takes::Tables(STEP)),
    may("result", Takes::Tables(COLUMN)),
    may("aggregate", Takes::Table(AGGREGATE)),
    may("resource", Takes::Tables(RESOURCE)),
    may("limits", Takes::Table(LIMITS)),
    may("time_to_live", Takes::Table(TIME_TO_LIVE)),
    may("platforms", Takes::Texts),
    may("minimum_client_version", Takes::Text),
    may("sandbox", Takes::Word(&["standard", "strict"])),
    may("approvals", U32),
];

const PARAMETER: &[Key] = &[
    must("name", Takes::Text, ""),
    must("type", Takes::Text, ""),
    may("pattern", Takes::Text),
    may("min", Takes::Any),
    may("max", Takes::Any),
    may("max_length", U32),
    may("values", Takes::Texts),
    may("default", Takes::Any),
    may("hint", Takes::Text),
];

const STEP: &[Key] = &[
    may("query", Takes::Text),
    may("query_parameter", Takes::Text),
    may("action", Takes::Table(ACTION)),
    may("script", Takes::Table(SCRIPT)),
];

const ACTION: &[Key] = &[
    must("do", Takes::Text, ""),
    may("unit", Takes::Text),
    may("resource", Takes::Text),
    may("path", Takes::Text),
    may("mode", Takes::Text),
];

const SCRIPT: &[Key] = &[
    must("interpreter", Takes::Text, "/bin/sh"),
    may("text", Takes::Text),
    may("resource", Takes::Text),
    may("arguments", Takes::Texts),
];

const COLUMN: &[Key] =
    &[must("name", Takes::Text, ""), must("type", Takes::Text, ""), may("max_length", U32)];

const AGGREGATE: &[Key] = &[must("query", Takes::Text, "SELECT 1")];

const RESOURCE: &[Key] = &[
    must("name", Takes::Text, ""),
    must("size", Takes::Count(i64::MAX as u64), ""),
    must("root", Takes::Text, ""),
    may("sha256", Takes::Text),
];

const LIMITS: &[Key] = &[may("run_time", Takes::Text), may("rows", U32), may("bytes", Takes::Text)];

const TIME_TO_LIVE: &[Key] = &[may("gather", Takes::Table(BOUNDS)), may("keep", Takes::Table(BOUNDS))];

const BOUNDS: &[Key] = &[may("default", Takes::Text), may("min", Takes::Text), may("max", Takes::Text)];

/// The place of what stands in for a missing key: behind every text, so that no finding is about it.
const NOWHERE: Range<usize> = usize::MAX..usize::MAX;

/// Tells what does not fit, takes it out, and puts something in its place where the rest cannot be read without.
pub(super) fn check(table: &mut Spanned<DeTable<'_>>, faults: &mut Faults) {
    keys(table.get_mut(), &(0..0), "", DEFINITION, faults);
}

/// Whether a finding at this place is about what stands in, which the author did not write.
pub(super) fn is_nowhere(place: &Range<usize>) -> bool {
    *place == NOWHERE
}

/// Checks the keys of a table at `place`; `path` is its name and a dot.
fn keys(table: &mut DeTable<'_>, place: &Range<usize>, path: &str, known: &[Key], faults: &mut Faults) {
    let mut refused = Vec::new();
    for (key, mut value) in std::mem::take(table) {
        let Some(found) = known.iter().find(|known| known.name == key.get_ref().as_ref()) else {
            faults.push(unknown(&key, path, known));
            continue;
        };
        let path = format!("{path}{}", found.name);
        if faults.take(fits(&value, &path, &found.takes)).is_none() {
            refused.push(found.name);
            continue;
        }
        inner(&mut value, &format!("{path}."), &found.takes, faults);
        table.insert(key, value);
    }
    for key in known {
        let Some(stand_in) = key.stand_in else { continue };
        if table.contains_key(key.name) {
            continue;
        }
        if !refused.contains(&key.name) {
            let fault = Fault::new(place.clone(), Rule::MissingKey, format!("no `{path}{}`", key.name));
            faults.push(fault.wanted(wanted(&key.takes)).fix(format!("add `{} = …`", key.name)));
        }
        let value = match key.takes {
            Takes::Count(_) => DeValue::Integer(DeInteger::default()),
            Takes::Text | Takes::Word(_) | Takes::Any | Takes::Texts | Takes::Table(_) | Takes::Tables(_) => {
                DeValue::String(Cow::Borrowed(stand_in))
            }
        };
        // What the definition lacks as a whole is told where its name would be.
        let place = if key.name == "name" && path.is_empty() { 0..0 } else { NOWHERE };
        table.insert(Spanned::new(NOWHERE, Cow::Borrowed(key.name)), Spanned::new(place, value));
    }
}

/// Goes on with the tables in a value that fits.
fn inner(value: &mut Spanned<DeValue<'_>>, path: &str, takes: &Takes, faults: &mut Faults) {
    let place = value.span();
    match (takes, value.get_mut()) {
        (Takes::Table(known), DeValue::Table(table)) => keys(table, &place, path, known, faults),
        (Takes::Tables(known), DeValue::Array(items)) => {
            for item in items.iter_mut() {
                let place = item.span();
                if let DeValue::Table(table) = item.get_mut() {
                    keys(table, &place, path, known, faults);
                }
            }
        }
        (
            Takes::Text
            | Takes::Word(_)
            | Takes::Count(_)
            | Takes::Any
            | Takes::Texts
            | Takes::Table(_)
            | Takes::Tables(_),
            _,
        ) => {}
    }
}

/// Checks the type of a value.
fn fits(value: &Spanned<DeValue<'_>>, path: &str, takes: &Takes) -> Result<(), Fault> {
    let (place, value) = (value.span(), value.get_ref());
    let items = || value.as_array().map(|items| items.iter().map(Spanned::get_ref));
    let fits = match takes {
        Takes::Any => true,
        Takes::Text | Takes::Word(_) => value.is_str(),
        Takes::Count(most) => value.as_integer().is_some_and(|number| {
            u64::from_str_radix(number.as_str(), number.radix()).is_ok_and(|number| number <= *most)
        }),
        Takes::Texts => items().is_some_and(|mut items| items.all(DeValue::is_str)),
        Takes::Table(_) => value.is_table(),
        Takes::Tables(_) => items().is_some_and(|mut items| items.all(DeValue::is_table)),
    };
    if !fits {
        let found = format!("`{path}` is {}", article(value));
        return Err(Fault::new(place, Rule::WrongType, found).wanted(wanted(takes)));
    }
    match (takes, value.as_str()) {
        (Takes::Word(words), Some(word)) if !words.contains(&word) => {
            let found = format!("`{path}` is {word:?}");
            Err(Fault::new(place, Rule::UnknownValue, found).wanted(wanted(takes)))
        }
        _ => Ok(()),
    }
}

fn article(value: &DeValue<'_>) -> String {
    let kind = value.type_str();
    match value.as_integer() {
        Some(number) => format!("the integer {number}"),
        None if kind.starts_with(['a', 'e', 'i', 'o', 'u']) => format!("an {kind}"),
        None => format!("a {kind}"),
    }
}

fn wanted(takes: &Takes) -> String {
    match takes {
        Takes::Text => "a text in quotes".to_owned(),
        Takes::Word(words) => words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" or "),
        Takes::Count(most) => format!("an integer from 0 to {most}"),
        Takes::Any => "a value".to_owned(),
        Takes::Texts => "a list of texts, such as [\"one\", \"two\"]".to_owned(),
        Takes::Table(_) => "a table with keys of its own".to_owned(),
        Takes::Tables(_) => "tables, each under `[[…]]`".to_owned(),
    }
}

fn unknown(key: &Spanned<Cow<'_, str>>, path: &str, known: &[Key]) -> Fault {
    let name = key.get_ref().as_ref();
    let shown: String = name.chars().take(80).collect();
    let names: Vec<&str> = known.iter().map(|key| key.name).collect();
    let distance = |known: &&&str| strsim::damerau_levenshtein(name, known);
    let nearest = names.iter().min_by_key(distance).filter(|known| distance(known) <= 2);
    let fix = match nearest {
        Some(known) => format!("did you mean `{known}`?"),
        None => "remove it".to_owned(),
    };
    Fault::new(key.span(), Rule::UnknownKey, format!("no key is called `{path}{shown}`"))
        .wanted(format!("one of {}", names.join(", ")))
        .fix(fix)
}

#[cfg(test)]
mod tests;
