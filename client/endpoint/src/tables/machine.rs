//! The machine as the tables see it: files below a root, every read bounded, and a deadline.
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Early;

/// Bytes of one small file: a `/sys` attribute, `/proc/PID/stat`, `/etc/os-release`.
pub(crate) const SMALL_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of one list: `/etc/passwd`, `/proc/net/tcp` of a machine with 100,000 sockets, a mount table.
pub(crate) const LIST_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Names of one folder; more are not seen. `/proc` has at most 4,194,304 processes, and a helper not the memory.
const NAMES_MAX: usize = 1_000_000;

/// Why a table has no rows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    /// Its source can't be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The source.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Its source is over the bound.
    #[error("{}: more than {wanted} bytes", path.display())]
    TooLarge {
        /// The source.
        path: PathBuf,
        /// The bound.
        wanted: u64,
    },
    /// The table needs a constraint that the statement doesn't have.
    #[error("table {table} needs {needs}")]
    Needs {
        /// The table.
        table: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// A constraint's value can't be used.
    #[error("{column} = '{got}': {problem}")]
    Value {
        /// The column.
        column: &'static str,
        /// The value.
        got: String,
        /// What is wrong with it and what to write.
        problem: String,
    },
    /// The query's time is up.
    #[error("the query's time is up")]
    Deadline,
}

/// The machine whose files are read.
#[derive(Debug)]
pub(crate) struct Machine {
    root: PathBuf,
    deadline: Option<Instant>,
    early: Option<Early>,
}

impl Machine {
    /// The machine that this process runs on.
    pub(crate) fn live() -> Self {
        Self::at("/")
    }

    /// A machine whose files are below `root`.
    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), deadline: None, early: None }
    }

    /// The same machine, read until `deadline` only.
    pub(crate) fn until(self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// The same machine, with what was read before the sandbox closed.
    pub(crate) fn with_early(self, early: Early) -> Self {
        Self { early: Some(early), ..self }
    }

    /// What was read before the sandbox closed.
    pub(crate) fn early(&self) -> Option<&Early> {
        self.early.as_ref()
    }

    /// Whether this is the running machine, whose kernel can be asked.
    pub(crate) fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The place of absolute path `path` below the root.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Says whether there is time left.
    pub(crate) fn check_deadline(&self) -> Result<(), TableError> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(TableError::Deadline),
            Some(_) | None => Ok(()),
        }
    }

    /// The text of `path`, if it can be read and is at most [`SMALL_BYTES_MAX`]; for details that may be NULL.
    pub(crate) fn detail(&self, path: impl AsRef<Path>) -> Option<String> {
        let bytes = read_bounded(&self.path(path), SMALL_BYTES_MAX).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A number that a file holds alone, as in `/sys`.
    pub(crate) fn number(&self, path: impl AsRef<Path>) -> Option<i64> {
        self.detail(path)?.trim().parse().ok()
    }

    /// The text of `path` of at most `bytes_max` bytes; none if there is no such file.
    ///
    /// # Errors
    /// If it is there and can't be read, or is larger.
    pub(crate) fn text(&self, path: impl AsRef<Path>, bytes_max: u64) -> Result<Option<String>, TableError> {
        let path = self.path(path);
        match read_bounded(&path, bytes_max) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(TableError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The names in folder `path`, sorted; none if it can't be read.
    pub(crate) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(path)) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .flatten()
            .take(NAMES_MAX)
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names
    }

    /// Where symbolic link `path` points, as written in it.
    pub(crate) fn link(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        fs::read_link(self.path(path)).ok()
    }
}

/// The bytes of regular or kernel file `path`, at most `bytes_max`.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, TableError> {
    let unreadable = |source| TableError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|size| size > bytes_max) {
        return Err(TableError::TooLarge { path: path.to_owned(), wanted: bytes_max });
    }
    Ok(bytes)
}
