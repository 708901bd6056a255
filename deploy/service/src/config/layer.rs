//! One layer: its values, and where each stands.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::error::{self, ConfigError, Origin};
use super::{Sources, locate};

/// Values above the defaults, from one file, variable or flag.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) values: toml::Table,
    place: Place,
}

#[derive(Debug)]
enum Place {
    File { path: PathBuf, lines: BTreeMap<String, usize> },
    Single(Origin),
}

impl Layer {
    /// Returns where dotted `key` of this layer stands.
    pub(super) fn origin_of(&self, key: &str) -> Origin {
        match &self.place {
            Place::Single(origin) => origin.clone(),
            Place::File { path, lines } => {
                Origin::File { path: path.clone(), line: lines.get(key).copied().unwrap_or(1) }
            }
        }
    }
}

/// Reads every layer in rising order, each checked against `T` on its own.
pub(super) fn read_all<T: DeserializeOwned>(
    sources: &Sources,
    environment: impl IntoIterator<Item = (String, String)>,
    defaults: &toml::Table,
) -> Result<Vec<Layer>, ConfigError> {
    let mut layers = Vec::new();
    for path in files(sources)? {
        layers.push(read_file::<T>(&path, defaults)?);
    }
    for (name, key, value) in variables(sources, environment) {
        layers.push(read_single::<T>(Origin::Environment { name }, &key, &value, defaults)?);
    }
    for (key, value) in &sources.flags {
        layers.push(read_single::<T>(Origin::Flag { key: key.clone() }, key, value, defaults)?);
    }
    Ok(layers)
}

/// Calls `visit` with the dotted key and value of everything that is not a table, in order.
///
/// An empty table counts as a value, so that it is not forgotten.
pub(super) fn each_leaf(table: &toml::Table, visit: &mut impl FnMut(&str, &toml::Value)) {
    fn walk(table: &toml::Table, prefix: &str, visit: &mut impl FnMut(&str, &toml::Value)) {
        for (name, value) in table {
            let key = locate::join(prefix, name);
            match value.as_table() {
                Some(inner) if !inner.is_empty() => walk(inner, &key, visit),
                Some(_) | None => visit(&key, value),
            }
        }
    }
    walk(table, "", visit);
}

/// Returns whether dotted `key` stands in `table`, perhaps inside a value that is no table.
pub(super) fn has_key(table: &toml::Table, key: &str) -> bool {
    let (name, rest) = key.split_once('.').map_or((key, None), |(name, rest)| (name, Some(rest)));
    match (table.get(name), rest) {
        (None, _) => false,
        (Some(toml::Value::Table(inner)), Some(rest)) => has_key(inner, rest),
        (Some(_), _) => true,
    }
}

fn files(sources: &Sources) -> Result<Vec<PathBuf>, ConfigError> {
    let mut files: Vec<PathBuf> = sources.file.iter().cloned().collect();
    let Some(folder) = &sources.conf_d else { return Ok(files) };
    let unreadable = |source| ConfigError::Read { path: folder.clone(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(unreadable(error)),
    };
    let mut extra = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            extra.push(path);
        }
    }
    extra.sort();
    files.extend(extra);
    Ok(files)
}

fn read_file<T: DeserializeOwned>(path: &Path, defaults: &toml::Table) -> Result<Layer, ConfigError> {
    let text =
        fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let at = |offset: usize| Origin::File { path: path.to_owned(), line: locate::line_of(text, offset) };
    let values: toml::Table = toml::from_str(text).map_err(|error| ConfigError::Syntax {
        origin: at(error.span().map_or(0, |span| span.start)),
        problem: error.message().to_owned(),
    })?;
    if let Err(error) = toml::from_str::<T>(text) {
        let span = error.span().unwrap_or(0..0);
        let key = locate::key_at(text, &span).unwrap_or_default();
        return Err(refusal(at(span.start), &key, error.message(), defaults));
    }
    let lines = locate::lines_of_keys(text);
    Ok(Layer { values, place: Place::File { path: path.to_owned(), lines } })
}

/// Returns variable, dotted key and value, sorted by variable.
fn variables(
    sources: &Sources,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Vec<(String, String, String)> {
    let prefix = sources.env_prefix.as_str();
    if prefix.is_empty() {
        return Vec::new();
    }
    let mut variables: Vec<_> = environment
        .into_iter()
        .filter_map(|(name, value)| {
            let rest = name.strip_prefix(prefix)?;
            let reserved = matches!(rest, "" | "CONFIG" | "CONF_D");
            let key = rest.to_lowercase().replace("__", ".");
            (!reserved).then_some((name, key, value))
        })
        .collect();
    variables.sort();
    variables
}

/// Reads one value as typed: as TOML where that fits `T`, else as text, else as a comma-separated list.
fn read_single<T: DeserializeOwned>(
    origin: Origin,
    key: &str,
    typed: &str,
    defaults: &toml::Table,
) -> Result<Layer, ConfigError> {
    let mut first_problem = None;
    for value in readings(typed) {
        let values = nest(key, value);
        match values.clone().try_into::<T>() {
            Ok(_fits) => return Ok(Layer { values, place: Place::Single(origin) }),
            Err(error) => {
                first_problem.get_or_insert_with(|| error.message().to_owned());
            }
        }
    }
    Err(refusal(origin, key, &first_problem.unwrap_or_default(), defaults))
}

fn readings(typed: &str) -> Vec<toml::Value> {
    let mut readings = Vec::new();
    let document = format!("value = {typed}");
    if let Ok(mut table) = toml::from_str::<toml::Table>(&document)
        && table.len() == 1
        && let Some(value) = table.remove("value")
    {
        readings.push(value);
    }
    readings.push(toml::Value::String(typed.to_owned()));
    let members = typed.split(',').map(|member| toml::Value::String(member.trim().to_owned()));
    readings.push(toml::Value::Array(members.filter(|member| member.as_str() != Some("")).collect()));
    readings
}

fn nest(key: &str, value: toml::Value) -> toml::Table {
    let mut table = toml::Table::new();
    match key.split_once('.') {
        Some((name, rest)) => table.insert(name.to_owned(), toml::Value::Table(nest(rest, value))),
        None => table.insert(key.to_owned(), value),
    };
    table
}

/// Turns a deserializer's complaint about `key` into an error of ours.
fn refusal(origin: Origin, key: &str, message: &str, defaults: &toml::Table) -> ConfigError {
    // serde's derive says: unknown field `a`, expected one of `b`, `c`  (or: expected `b`).
    let Some(rest) = message.strip_prefix("unknown field ") else {
        return ConfigError::Value { origin, key: key.to_owned(), problem: message.replace('\n', " ") };
    };
    let mut names = rest.split('`').skip(1).step_by(2).map(str::to_owned);
    let unknown = names.next().unwrap_or_default();
    let siblings: Vec<String> = names.collect();
    let full = match key.rsplit_once('.') {
        _ if key.is_empty() => unknown,
        _ if key.rsplit('.').next() == Some(unknown.as_str()) => key.to_owned(),
        // A variable or flag can go deeper than the key that is unknown.
        _ => key.find(&unknown).map_or_else(|| key.to_owned(), |at| key[..at + unknown.len()].to_owned()),
    };
    let mut all = Vec::new();
    each_leaf(defaults, &mut |key, _value| all.push(key.to_owned()));
    error::unknown_key(origin, &full, &siblings, &all)
}
