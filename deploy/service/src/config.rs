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

mod error;
pub mod human;
mod layer;
mod locate;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::error::{ConfigError, Invalid, Origin};
use self::layer::Layer;

/// Where the layers above the defaults come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file. It must exist when named.
    pub file: Option<PathBuf>,
    /// A folder whose `*.toml` files follow, sorted by name. It may be absent.
    pub conf_d: Option<PathBuf>,
    /// The beginning of the environment variables that are keys, such as `MUSTER_SWITCH_`; empty: none.
    ///
    /// `__` separates tables. `<prefix>CONFIG` and `<prefix>CONF_D` name the files and are no keys.
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
    /// Checks ranges and combinations.
    ///
    /// # Errors
    /// Returns the first key that is wrong, what is wrong and what to do.
    fn validate(&self) -> Result<(), Invalid>;
}

/// Reads all layers into a checked `T`, with the process's environment.
///
/// # Errors
/// Returns [`ConfigError`] naming file, line and key.
pub fn load<T>(program: &'static str, sources: &Sources) -> Result<Loaded<T>, ConfigError>
where
    T: DeserializeOwned + Serialize + Default + Validate,
{
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    load_with(program, sources, environment)
}

/// Reads all layers into a checked `T`, with the environment given.
///
/// # Errors
/// Returns [`ConfigError`] naming file, line and key.
pub fn load_with<T>(
    program: &'static str,
    sources: &Sources,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded<T>, ConfigError>
where
    T: DeserializeOwned + Serialize + Default + Validate,
{
    let defaults = to_table(&T::default())?;
    let mut values = toml::Table::new();
    let mut origins = BTreeMap::new();
    for layer in layer::read_all::<T>(sources, environment, &defaults)? {
        merge(&mut values, layer.values.clone());
        note_origins(&layer, &mut origins);
    }
    let config: T = values
        .try_into()
        .map_err(|error: toml::de::Error| ConfigError::Merged { problem: error.message().to_owned() })?;
    let effective = to_table(&config)?;
    refuse_ignored_keys(&origins, &effective)?;
    let loaded = Loaded { program, config, effective, origins };
    loaded.config.validate().map_err(|invalid| loaded.blame(invalid))?;
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

    fn blame(&self, invalid: Invalid) -> ConfigError {
        let origin = self.origin(invalid.key());
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
fn refuse_ignored_keys(
    origins: &BTreeMap<String, Origin>,
    effective: &toml::Table,
) -> Result<(), ConfigError> {
    let mut known = Vec::new();
    layer::each_leaf(effective, &mut |key, _value| known.push(key.to_owned()));
    for (key, origin) in origins {
        if !layer::has_key(effective, key) {
            return Err(error::unknown_key(origin.clone(), key, &[], &known));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
