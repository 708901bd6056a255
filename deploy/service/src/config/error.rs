//! Errors that name file, line and key.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// The layer and place that set a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The program's default.
    Default,
    /// A line of a file, counted from 1.
    File {
        /// The configuration file or a file of conf.d.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        name: String,
    },
    /// A command-line flag.
    Flag {
        /// The dotted key it sets.
        key: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Self::Environment { name } => write!(formatter, "environment variable {name}"),
            Self::Flag { key } => write!(formatter, "command line ({key})"),
        }
    }
}

/// Mistakes told at once; who has more mends these first.
pub const MISTAKES_MAX: usize = 50;

/// Every mistake of a configuration, in the order of its layers; prints one a line.
#[derive(Debug)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
    has_more: bool,
}

impl ConfigErrors {
    /// Keeps the first [`MISTAKES_MAX`] of `errors`.
    #[must_use]
    pub fn new(mut errors: Vec<ConfigError>) -> Self {
        let has_more = errors.len() > MISTAKES_MAX;
        errors.truncate(MISTAKES_MAX);
        Self { errors, has_more }
    }

    /// Returns the mistakes.
    #[must_use]
    pub fn errors(&self) -> &[ConfigError] {
        &self.errors
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self { errors: vec![error], has_more: false }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{error}")?;
        }
        if self.has_more {
            write!(formatter, "\nand more; mend these {MISTAKES_MAX} first")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Why a configuration was refused. All are for an operator to repair; none goes away by itself.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file is not there.
    #[error("{}: there is no such file{hint}", path.display())]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
        /// What to do, as [`super::Sources::hint`] says it; begins with `; ` or is empty.
        hint: String,
    },
    /// A file is larger than any configuration.
    #[error("{}: more than {max} bytes, wanted a configuration in TOML; name another file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        max: u64,
    },
    /// A file or folder cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file is not TOML.
    #[error("{origin}: not valid TOML: {problem}")]
    Syntax {
        /// File and line.
        origin: Origin,
        /// The parser's complaint.
        problem: String,
    },
    /// A key that the program does not have.
    #[error("{origin}: unknown key `{key}`{}", suggestion(nearest.as_deref(), known))]
    UnknownKey {
        /// Where it stands.
        origin: Origin,
        /// The dotted key.
        key: String,
        /// The known key that is most like it.
        nearest: Option<String>,
        /// The keys known at that place.
        known: Vec<String>,
    },
    /// A value of the wrong type, out of range, or in conflict with another.
    #[error("{origin}: key `{key}`: {problem}")]
    Value {
        /// Where it stands.
        origin: Origin,
        /// The dotted key.
        key: String,
        /// What was got, what was wanted, what to do.
        problem: String,
    },
    /// A file that the configuration names does not do.
    #[error("{problem}")]
    File {
        /// What is wrong, with the file's path.
        problem: String,
    },
    /// Layers that are right alone do not fit together.
    #[error("the layers do not fit together: {problem}")]
    Merged {
        /// The deserializer's complaint.
        problem: String,
    },
    /// The configuration type cannot be written as TOML, which is a mistake of the program.
    #[error("this configuration has no TOML form: {problem}")]
    Unprintable {
        /// The serializer's complaint.
        problem: String,
    },
}

/// What [`super::Validate`] found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key `{key}`: {problem}")]
pub struct Invalid {
    key: String,
    against: Vec<String>,
    problem: String,
}

impl Invalid {
    /// Names the dotted `key` and the `problem`: got, wanted, fix.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), against: Vec::new(), problem: problem.into() }
    }

    /// Names another key of the same table that the value contradicts. While one of the two cannot be read, nothing is
    /// said of the contradiction.
    #[must_use]
    pub fn against(mut self, key: impl Into<String>) -> Self {
        self.against.push(key.into());
        self
    }

    /// Puts the name of the table that holds the keys before them.
    #[must_use]
    pub fn within(self, table: &str) -> Self {
        let against = self.against.iter().map(|key| format!("{table}.{key}")).collect();
        Self { key: format!("{table}.{}", self.key), against, problem: self.problem }
    }

    /// Returns every key that the problem is about.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.key.as_str()).chain(self.against.iter().map(String::as_str))
    }

    /// Returns the dotted key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns what is wrong with it.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

/// Least likeness (Jaro-Winkler, 0 to 1) of a suggestion; below it a guess confuses more than it helps.
const LIKENESS_MIN: f64 = 0.75;

/// Makes the error for `key`; `siblings` are the names known in its table, `all` every dotted key.
pub(super) fn unknown_key(origin: Origin, key: &str, siblings: &[String], all: &[String]) -> ConfigError {
    let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
    let dotted =
        |sibling: &String| if table.is_empty() { sibling.clone() } else { format!("{table}.{sibling}") };
    let mut known: Vec<String> = siblings.iter().map(dotted).collect();
    if known.is_empty() {
        known.extend(
            all.iter()
                .filter(|other| other.rsplit_once('.').map_or("", |(outer, _)| outer) == table)
                .cloned(),
        );
    }
    let misplaced = all.iter().find(|other| other.rsplit('.').next() == Some(name));
    // Names are compared, not dotted keys: a common table would make everything in it look alike.
    let likeness = |other: &String| strsim::jaro_winkler(name, other.rsplit('.').next().unwrap_or(other));
    let alike = all
        .iter()
        .chain(&known)
        .filter(|other| likeness(other) >= LIKENESS_MIN)
        .max_by(|left, right| likeness(left).total_cmp(&likeness(right)));
    let nearest = misplaced.or(alike).cloned();
    ConfigError::UnknownKey { origin, key: key.to_owned(), nearest, known }
}

fn suggestion(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None if known.is_empty() => String::new(),
        None => format!("; known here: {}", known.join(", ")),
    }
}
