//! One shape in three places: what lint knows, what is read, what editors are told.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{DEFINITION, Key, Takes};
use crate::definition::document::Document;

const SCHEMA: &str = include_str!("../../../../definitions/definition.schema.json");

#[test]
fn the_schema_for_editors_has_the_keys_and_types_that_lint_has() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let mut wrong = Vec::new();

    table(&schema, &schema, "", DEFINITION, &mut wrong);

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_read_has_the_keys_that_lint_has() {
    let mut wrong = Vec::new();

    read("", DEFINITION, &str::to_owned, &mut wrong);

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Compares a table of the schema with one of lint's.
fn table(schema: &Value, node: &Value, path: &str, known: &[Key], wrong: &mut Vec<String>) {
    let names: BTreeSet<&str> = known.iter().map(|key| key.name).collect();
    let properties = node["properties"].as_object().unwrap_or_else(|| panic!("{path}: no properties"));
    let described: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
    if names != described {
        wrong.push(format!("{path}: the schema has {described:?}, lint {names:?}"));
    }
    if node["type"] != "object" || node["additionalProperties"] != false {
        wrong.push(format!("{path}: the schema takes other keys"));
    }
    let required =
        |name: &str| node["required"].as_array().is_some_and(|all| all.iter().any(|it| it == name));
    for key in known {
        let path = format!("{path}{}", key.name);
        // A definition without a step has a rule of its own.
        let must = key.stand_in.is_some() || path == "step";
        if required(key.name) != must {
            wrong.push(format!("{path}: must it be there? schema {}, lint {must}", required(key.name)));
        }
        let value = resolved(schema, &properties[key.name]);
        takes(schema, value, &path, &key.takes, wrong);
    }
}

fn takes(schema: &Value, value: &Value, path: &str, takes: &Takes, wrong: &mut Vec<String>) {
    let words = |value: &Value| -> Option<Vec<String>> {
        value["enum"].as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let is_text = |value: &Value| value["type"] == "string" || words(value).is_some();
    let items = || resolved(schema, &value["items"]);
    let fits = match takes {
        Takes::Any => value.get("type").is_none(),
        Takes::Text => is_text(value),
        Takes::Word(known) => words(value).is_some_and(|words| words == *known),
        Takes::Count(most) => {
            let fits = value["maximum"].as_u64().is_none_or(|maximum| maximum <= *most);
            value["type"] == "integer" && value["minimum"].is_u64() && fits
        }
        Takes::Texts => value["type"] == "array" && is_text(items()),
        Takes::Table(known) => {
            table(schema, value, &format!("{path}."), known, wrong);
            true
        }
        Takes::Tables(known) => {
            table(schema, items(), &format!("{path}."), known, wrong);
            value["type"] == "array"
        }
    };
    if !fits {
        wrong.push(format!("{path}: the schema has {value}, lint wants {}", super::wanted(takes)));
    }
}

fn resolved<'a>(schema: &'a Value, node: &'a Value) -> &'a Value {
    match node["$ref"].as_str().and_then(|pointer| schema.pointer(pointer.strip_prefix('#')?)) {
        Some(found) => found,
        None => node,
    }
}

/// Compares the keys that a table's reader names where it refuses one with those of lint; `within` puts a line into that table.
fn read(path: &str, known: &[Key], within: &dyn Fn(&str) -> String, wrong: &mut Vec<String>) {
    let error = toml::from_str::<Document>(&within("nosuchkey = 1")).unwrap_err();
    let Some((_, expected)) = error.message().split_once("unknown field `nosuchkey`, expected ") else {
        panic!("{path}: {error}");
    };
    let taken: BTreeSet<&str> = expected.split('`').skip(1).step_by(2).collect();
    let names: BTreeSet<&str> = known.iter().map(|key| key.name).collect();
    if taken != names {
        wrong.push(format!("{path}: {taken:?} are read, lint has {names:?}"));
    }
    for key in known {
        let (Takes::Table(inside) | Takes::Tables(inside)) = key.takes else { continue };
        let within = |line: &str| match (&key.takes, path.is_empty()) {
            (Takes::Tables(_), true) => format!("[[{}]]\n{line}", key.name),
            (_, true) => format!("[{}]\n{line}", key.name),
            (_, false) => within(&format!("{} = {{ {line} }}", key.name)),
        };
        read(&format!("{path}{}.", key.name), inside, &within, wrong);
    }
}
