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

/// Why a configuration was refused. All are for an operator to repair; none goes away by itself.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
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
    problem: String,
}

impl Invalid {
    /// Names the dotted `key` and the `problem`: got, wanted, fix.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }

    /// Puts the name of the table that holds the key before it.
    #[must_use]
    pub fn within(self, table: &str) -> Self {
        Self { key: format!("{table}.{}", self.key), problem: self.problem }
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
