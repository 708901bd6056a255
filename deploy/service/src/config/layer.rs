//! One layer: its values, and where each stands.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use toml::de::DeTable;

use super::error::{self, ConfigError, Origin};
use super::{Sources, locate};

/// The largest configuration file; the examples have 4 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

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

/// Every layer, and what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// What can be used, in rising order; wrong keys are left out.
    pub(super) read: Vec<Layer>,
    pub(super) mistakes: Vec<ConfigError>,
    /// The dotted keys that were left out.
    pub(super) cut: Vec<String>,
    /// Whether a file could not be read at all, so that nobody knows what it sets.
    pub(super) is_partial: bool,
}

impl Layers {
    /// Reads every layer, each checked against `T` on its own.
    pub(super) fn read<T: DeserializeOwned>(
        sources: &Sources,
        environment: impl IntoIterator<Item = (String, String)>,
        defaults: &toml::Table,
    ) -> Self {
        let mut layers = Self::default();
        for path in layers.files(sources) {
            let hint = (sources.file.as_ref() == Some(&path)).then_some(sources.hint.as_str());
            if let Err(errors) = layers.read_file::<T>(&path, hint.unwrap_or_default(), defaults) {
                layers.mistakes.extend(errors);
                layers.is_partial = true;
            }
        }
        for (name, key, value) in variables(sources, environment) {
            layers.read_single::<T>(Origin::Environment { name }, &key, &value, defaults);
        }
        for (key, value) in &sources.flags {
            layers.read_single::<T>(Origin::Flag { key: key.clone() }, key, value, defaults);
        }
        layers
    }

    /// Returns whether `key`, or a table around or below it, was left out.
    pub(super) fn lacks(&self, key: &str) -> bool {
        let is_below =
            |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
        self.cut.iter().any(|cut| cut == key || is_below(cut, key) || is_below(key, cut))
    }

    fn files(&mut self, sources: &Sources) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = sources.file.iter().cloned().collect();
        let Some(folder) = &sources.conf_d else { return files };
        let entries = fs::read_dir(folder).and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<PathBuf>>>()
        });
        match entries {
            Ok(mut extra) => {
                extra.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
                extra.sort();
                files.extend(extra);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                self.mistakes.push(ConfigError::Read { path: folder.clone(), source });
                self.is_partial = true;
            }
        }
        files
    }

    /// Reads a file into `T`, leaving out one wrong key after the other, until what remains fits.
    fn read_file<T: DeserializeOwned>(
        &mut self,
        path: &Path,
        hint: &str,
        defaults: &toml::Table,
    ) -> Result<(), Vec<ConfigError>> {
        let text = read_text(path, hint).map_err(|error| vec![error])?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let at = |offset: usize| Origin::File { path: path.to_owned(), line: locate::line_of(text, offset) };
        let (mut table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(errors.iter().map(|error| syntax(error, at)).collect());
        }
        let lines = locate::lines_of_keys(text, table.get_ref());
        let mut cut_here: Vec<String> = Vec::new();
        while let Err(error) = T::deserialize(toml::de::Deserializer::from(table.clone())) {
            let span = error.span().unwrap_or(0..0);
            let key = locate::cut(table.get_mut(), &span);
            let name = key.clone().unwrap_or_default();
            // Whoever has a wrong value does not lack it, too: that it is missing is our own doing.
            let missing = missing_field(error.message()).map(|field| locate::join(&name, field));
            match missing.and_then(|missing| cut_here.iter().position(|cut| *cut == missing)) {
                Some(told) => drop(cut_here.swap_remove(told)),
                None => self.mistakes.push(refusal(at(span.start), &name, error.message(), defaults)),
            }
            let Some(key) = key else {
                self.is_partial = true;
                return Ok(());
            };
            self.cut.push(key.clone());
            cut_here.push(key);
            if self.mistakes.len() > error::MISTAKES_MAX {
                self.is_partial = true;
                return Ok(());
            }
        }
        let values = toml::Table::deserialize(toml::de::Deserializer::from(table))
            .map_err(|error| vec![syntax(&error, at)])?;
        self.read.push(Layer { values, place: Place::File { path: path.to_owned(), lines } });
        Ok(())
    }

    /// Reads one value as typed: as TOML where that fits `T`, else as text, else as a comma-separated list.
    fn read_single<T: DeserializeOwned>(
        &mut self,
        origin: Origin,
        key: &str,
        typed: &str,
        defaults: &toml::Table,
    ) {
        let mut first_problem = None;
        for value in readings(typed) {
            let values = nest(key, value);
            match values.clone().try_into::<T>() {
                Ok(_fits) => return self.read.push(Layer { values, place: Place::Single(origin) }),
                Err(error) => {
                    first_problem.get_or_insert_with(|| error.message().to_owned());
                }
            }
        }
        self.cut.push(key.to_owned());
        self.mistakes.push(refusal(origin, key, &first_problem.unwrap_or_default(), defaults));
    }
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

/// Reads a file as text; what has no end is refused, such as a device.
fn read_text(path: &Path, hint: &str) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ConfigError::Absent { path: path.to_owned(), hint: hint.to_owned() });
        }
        Err(error) => return Err(unreadable(error)),
    };
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned(), max: FILE_BYTES_MAX });
    }
    Ok(text)
}

fn syntax(error: &toml::de::Error, at: impl Fn(usize) -> Origin) -> ConfigError {
    ConfigError::Syntax {
        origin: at(error.span().map_or(0, |span| span.start)),
        problem: error.message().to_owned(),
    }
}

/// Returns the name in serde's complaint about a field that has no default.
fn missing_field(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.strip_suffix('`')
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
