//! Configuration from layers: default < file < conf.d < environment < flags.
//!
//! ```text
//! default                 T::default()
//! file                    /etc/muster/switch.toml
//! conf.d                  /etc/muster/switch.d/*.toml, sorted by name
//! environment             MUSTER_SWITCH_LIMITS__SESSIONS_MAX=1000   ->  limits.sessions_max
//! flags                   ("limits.sessions_max", "1000")
//! ```
//! Every layer is read into `T` on its own first, so that an error names the file, the line and the key.
//! For that, `T` and the structs inside it carry `#[serde(default, deny_unknown_fields)]`. Tables merge
//! key by key; anything else, lists included, is replaced by the later layer. Values hold paths of
//! secrets, never secrets, so [`Loaded::explain`] may show all of them.
//!
//! Every mistake is told, not only the first: a key that does not fit is noted and left out until the rest
//! fits, and [`Validate`] looks at that rest. Nothing is said of what a mistake may have caused itself: of a
//! contradiction with a key that was left out, or of values when a file is no TOML at all.

mod error;
pub mod human;
mod injected;
mod layer;
mod locate;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::error::{ConfigError, ConfigErrors, Invalid, MISTAKES_MAX, Origin};
use self::layer::{Layer, Layers};

/// Where the layers above the defaults come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file. It must exist when named.
    pub file: Option<PathBuf>,
    /// What to say after "there is no such file": what to do, beginning with `; `.
    pub hint: String,
    /// A folder whose `*.toml` files follow, sorted by name. It may be absent.
    pub conf_d: Option<PathBuf>,
    /// The beginning of the environment variables that are keys, such as `MUSTER_SWITCH_`; empty: none.
    ///
    /// `__` separates tables. `<prefix>CONFIG` and `<prefix>CONF_D` name the files and are no keys; nor are those that
    /// Kubernetes sets for a Service whose name begins so.
    pub env_prefix: String,
    /// Keys from the command line, dotted, with their values as typed.
    pub flags: Vec<(String, String)>,
}

/// How far `config check` looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckDepth {
    /// Keys and values only, so that a file can be checked on another machine.
    Values,
    /// The certificates, keys and roots that it names, too.
    Files,
}

impl CheckDepth {
    /// Reads the flag `--files`.
    #[must_use]
    pub fn from_flag(files: bool) -> Self {
        if files { Self::Files } else { Self::Values }
    }
}

/// Checks what the types of a configuration cannot say.
pub trait Validate {
    /// Checks ranges and combinations: every key that is wrong, what is wrong and what to do.
    fn findings(&self) -> Vec<Invalid>;

    /// Refuses a configuration with any finding.
    ///
    /// # Errors
    /// Returns the first of [`Self::findings`].
    fn validate(&self) -> Result<(), Invalid> {
        self.findings().into_iter().next().map_or(Ok(()), Err)
    }
}

/// Reads all layers into a checked `T`, with the process's environment.
///
/// # Errors
/// Returns every mistake, each naming file, line and key.
pub fn load<T>(program: &'static str, sources: &Sources) -> Result<Loaded<T>, ConfigErrors>
where
    T: DeserializeOwned + Serialize + Default + Validate,
{
    load_with(program, sources, environment())
}

/// Reads all layers into a checked `T`, with the environment given.
///
/// # Errors
/// Returns every mistake, each naming file, line and key.
pub fn load_with<T>(
    program: &'static str,
    sources: &Sources,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded<T>, ConfigErrors>
where
    T: DeserializeOwned + Serialize + Default + Validate,
{
    let Inspected { loaded, mistakes, .. } = inspect_with(program, sources, environment);
    match loaded {
        Some(loaded) if mistakes.is_empty() => Ok(loaded),
        Some(_) | None => Err(ConfigErrors::new(mistakes)),
    }
}

/// Reads all layers for whoever looks further than [`load`], into the files that the configuration names.
pub(crate) fn inspect<T>(program: &'static str, sources: &Sources) -> Inspected<T>
where
    T: DeserializeOwned + Serialize + Default + Validate,
{
    inspect_with(program, sources, environment())
}

/// What was found in all layers.
#[derive(Debug)]
pub(crate) struct Inspected<T> {
    /// What remains without the wrong keys; none where nobody knows what the layers say.
    pub(crate) loaded: Option<Loaded<T>>,
    pub(crate) mistakes: Vec<ConfigError>,
    layers: Layers,
}

impl<T> Inspected<T> {
    /// Says which key named the file in a text about it, unless that key's mistake is told already.
    pub(crate) fn blame_file(&self, problem: String) -> Option<ConfigError> {
        let Some(loaded) = &self.loaded else { return Some(ConfigError::File { problem }) };
        match loaded.key_naming_file(&problem) {
            Some(key) if self.layers.lacks(&key) => None,
            Some(key) => {
                // Some say the key themselves.
                let problem = problem.strip_prefix(&format!("`{key}`: ")).unwrap_or(&problem).to_owned();
                Some(ConfigError::Value { origin: loaded.origin(&key), key, problem })
            }
            None => Some(ConfigError::File { problem }),
        }
    }
}

fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn inspect_with<T>(
    program: &'static str,
    sources: &Sources,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Inspected<T>
where
    T: DeserializeOwned + Serialize + Default + Validate,
{
    let defaults = match to_table(&T::default()) {
        Ok(defaults) => defaults,
        Err(error) => return Inspected { loaded: None, mistakes: vec![error], layers: Layers::default() },
    };
    let environment = injected::without_injected(program, &sources.env_prefix, environment);
    let mut layers = Layers::read::<T>(sources, environment, &defaults);
    let mut mistakes = std::mem::take(&mut layers.mistakes);
    if layers.is_partial {
        return Inspected { loaded: None, mistakes, layers };
    }
    match combine(program, &layers, &mut mistakes) {
        Ok(loaded) => Inspected { loaded: Some(loaded), mistakes, layers },
        Err(error) => {
            mistakes.push(error);
            Inspected { loaded: None, mistakes, layers }
        }
    }
}

/// Puts the layers together, and adds what is wrong with the whole to `mistakes`.
fn combine<T>(
    program: &'static str,
    layers: &Layers,
    mistakes: &mut Vec<ConfigError>,
) -> Result<Loaded<T>, ConfigError>
where
    T: DeserializeOwned + Serialize + Validate,
{
    let mut values = toml::Table::new();
    let mut origins = BTreeMap::new();
    for layer in &layers.read {
        merge(&mut values, layer.values.clone());
        note_origins(layer, &mut origins);
    }
    let config: T = values
        .try_into()
        .map_err(|error: toml::de::Error| ConfigError::Merged { problem: error.message().to_owned() })?;
    let effective = to_table(&config)?;
    mistakes.extend(ignored_keys(&origins, &effective));
    let loaded = Loaded { program, config, effective, origins };
    let findings = loaded.config.findings().into_iter();
    let findings = findings.filter(|invalid| !invalid.keys().any(|key| layers.lacks(key)));
    mistakes.extend(findings.map(|invalid| loaded.blame(invalid)));
    Ok(loaded)
}

/// Returns the defaults of `T` as TOML, which reads back as the same configuration.
///
/// # Errors
/// Returns [`ConfigError::Unprintable`] when `T` has no TOML form.
pub fn defaults_as_toml<T: Serialize + Default>() -> Result<String, ConfigError> {
    toml::to_string(&T::default()).map_err(|error| ConfigError::Unprintable { problem: error.to_string() })
}

/// A checked configuration that knows which layer set what.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    program: &'static str,
    config: T,
    effective: toml::Table,
    origins: BTreeMap<String, Origin>,
}

impl<T> Loaded<T> {
    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &T {
        &self.config
    }

    /// Returns the configuration and forgets where it came from.
    #[must_use]
    pub fn into_config(self) -> T {
        self.config
    }

    /// Returns every key with its value and the layer that set it, in the order of the defaults.
    #[must_use]
    pub fn explain(&self) -> Explanation {
        let mut settings = Vec::new();
        layer::each_leaf(&self.effective, &mut |key, value| {
            settings.push(Setting {
                key: key.to_owned(),
                value: value.to_string(),
                origin: self.origin(key),
            });
        });
        Explanation { program: self.program, settings }
    }

    fn origin(&self, key: &str) -> Origin {
        // A list or inline value is noted under its own key; look outwards for what replaced a whole table.
        let mut key = key;
        loop {
            if let Some(origin) = self.origins.get(key) {
                return origin.clone();
            }
            match key.rsplit_once('.') {
                Some((outer, _last)) => key = outer,
                None => return Origin::Default,
            }
        }
    }

    /// Returns the key whose value is the longest path in `text`.
    fn key_naming_file(&self, text: &str) -> Option<String> {
        let mut longest: Option<(usize, String)> = None;
        layer::each_leaf(&self.effective, &mut |key, value| {
            let members = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            let named = members.iter().filter_map(toml::Value::as_str);
            for path in named.filter(|path| path.contains('/') && text.contains(path)) {
                if longest.as_ref().is_none_or(|(length, _key)| path.len() > *length) {
                    longest = Some((path.len(), key.to_owned()));
                }
            }
        });
        longest.map(|(_length, key)| key)
    }

    fn blame(&self, invalid: Invalid) -> ConfigError {
        // Of two keys that contradict each other, the one that somebody set has a place.
        let mut origins = invalid.keys().map(|key| self.origin(key));
        let origin = origins.find(|origin| *origin != Origin::Default).unwrap_or(Origin::Default);
        ConfigError::Value { origin, key: invalid.key().to_owned(), problem: invalid.problem().to_owned() }
    }
}

/// Which layer set what; prints as a table of key, value and layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    program: &'static str,
    settings: Vec<Setting>,
}

/// One key of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The dotted key.
    pub key: String,
    /// Its value as TOML.
    pub value: String,
    /// The layer that set it.
    pub origin: Origin,
}

impl Explanation {
    /// Returns every key.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: fn(&Setting) -> &str| {
            self.settings.iter().map(|setting| text(setting).chars().count()).max().unwrap_or(0)
        };
        let keys = width(|setting| &setting.key);
        let values = width(|setting| &setting.value);
        writeln!(formatter, "# configuration of {}: key, value, where it comes from", self.program)?;
        for Setting { key, value, origin } in &self.settings {
            writeln!(formatter, "{key:keys$}  {value:values$}  {origin}")?;
        }
        Ok(())
    }
}

fn to_table<T: Serialize>(value: &T) -> Result<toml::Table, ConfigError> {
    toml::Table::try_from(value).map_err(|error| ConfigError::Unprintable { problem: error.to_string() })
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => merge(inner, value),
            (_absent_or_replaced, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn note_origins(layer: &Layer, origins: &mut BTreeMap<String, Origin>) {
    layer::each_leaf(&layer.values, &mut |key, _value| {
        origins.insert(key.to_owned(), layer.origin_of(key));
    });
}

/// Finds keys that were read but have no effect, where a struct lacks `deny_unknown_fields`.
fn ignored_keys(origins: &BTreeMap<String, Origin>, effective: &toml::Table) -> Vec<ConfigError> {
    let mut known = Vec::new();
    layer::each_leaf(effective, &mut |key, _value| known.push(key.to_owned()));
    let ignored = origins.iter().filter(|(key, _origin)| !layer::has_key(effective, key));
    ignored.map(|(key, origin)| error::unknown_key(origin.clone(), key, &[], &known)).collect()
}

#[cfg(test)]
mod tests;
