//! Which files a pattern means.
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Machine, Scan, TableError};
use crate::value::SqlValue;

/// Files that one walk looks at; beyond it the walk is an error, so that nobody takes a part for the whole.
const ENTRIES_MAX: usize = 5_000_000;
/// Folders whose entries are made by the kernel; a pattern that begins above them doesn't mean them.
const KERNEL_FOLDERS: &[&str] = &["/proc", "/sys", "/dev"];

/// A file that a constraint means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its path, as the machine names it.
    pub(super) path: PathBuf,
    /// The value of the hidden column `glob` that found it.
    pub(super) glob: Option<String>,
}

/// What finds files, one at a time.
pub(super) type Walk = Box<dyn Iterator<Item = Result<Found, TableError>>>;

/// The files that a statement's constraints mean; `None` if it has none that names any.
///
/// `path = …` is that file. `glob = …` is glob(7): `*` stays within a folder, `**` doesn't. `path GLOB …` is SQLite's,
/// where `*` goes on through folders: everything below the last folder that the pattern spells out is looked at.
/// Symbolic links are found, not followed.
pub(super) fn walk(scan: &Scan) -> Result<Option<Walk>, TableError> {
    if let Some(value) = scan.equal("path") {
        let Some(path) = absolute("path", value)? else { return Ok(Some(none())) };
        let found = Found { path: PathBuf::from(path), glob: None };
        return Ok(Some(Box::new(std::iter::once(Ok(found)))));
    }
    if let Some(value) = scan.equal("glob") {
        let Some(pattern) = absolute("glob", value)? else { return Ok(Some(none())) };
        return shell_pattern(&scan.machine, pattern).map(Some);
    }
    if let Some(value) = scan.glob("path") {
        let Some(pattern) = absolute("path", value)? else { return Ok(Some(none())) };
        return Ok(Some(below(&scan.machine, spelled_out(pattern))));
    }
    Ok(None)
}

/// The text of a constraint, which must be an absolute path; none for NULL, which nothing equals.
fn absolute<'a>(column: &'static str, value: &'a SqlValue) -> Result<Option<&'a str>, TableError> {
    match value {
        SqlValue::Null => Ok(None),
        SqlValue::Text(text) if text.starts_with('/') => Ok(Some(text)),
        SqlValue::Text(_) | SqlValue::Integer(_) | SqlValue::Real(_) | SqlValue::Blob(_) => {
            let got = value.as_text().map_or_else(|| format!("{value:?}"), str::to_owned);
            let problem = "not an absolute path; begin it with `/`".to_owned();
            Err(TableError::Value { column, got, problem })
        }
    }
}

fn none() -> Walk {
    Box::new(std::iter::empty())
}

/// glob(7) by the `glob` crate.
fn shell_pattern(machine: &Arc<Machine>, pattern: &str) -> Result<Walk, TableError> {
    let wrong = |problem: String| TableError::Value { column: "glob", got: pattern.to_owned(), problem };
    let root = machine.path("/");
    let rooted = format!("{}{pattern}", glob::Pattern::escape(root.to_string_lossy().trim_end_matches('/')));
    let paths = glob::glob(&rooted).map_err(|error| wrong(error.to_string()))?;
    let machine = Arc::clone(machine);
    let pattern = pattern.to_owned();
    let mut left = ENTRIES_MAX;
    Ok(Box::new(paths.map_while(Result::ok).map(move |path| {
        machine.check_deadline()?;
        left = left.checked_sub(1).ok_or_else(|| too_many(&path))?;
        let path = path.strip_prefix(&root).map_or_else(|_| path.clone(), |rest| Path::new("/").join(rest));
        Ok(Found { path, glob: Some(pattern.clone()) })
    })))
}

/// The folder before the first sign of SQLite's GLOB.
fn spelled_out(pattern: &str) -> PathBuf {
    let end = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    let folder = pattern[..end].rfind('/').map_or("/", |slash| &pattern[..slash]);
    PathBuf::from(if folder.is_empty() { "/" } else { folder })
}

/// Everything below `folder`, and the folder.
fn below(machine: &Arc<Machine>, folder: PathBuf) -> Walk {
    Box::new(Below {
        machine: Arc::clone(machine),
        skips: KERNEL_FOLDERS
            .iter()
            .map(PathBuf::from)
            .filter(|kernel| !folder.starts_with(kernel))
            .collect(),
        waiting: VecDeque::from([folder]),
        left: ENTRIES_MAX,
    })
}

struct Below {
    machine: Arc<Machine>,
    skips: Vec<PathBuf>,
    waiting: VecDeque<PathBuf>,
    left: usize,
}

impl Iterator for Below {
    type Item = Result<Found, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        // The last in is the first out, so that what waits is one folder's names for each level.
        let path = self.waiting.pop_back()?;
        if let Err(error) = self.machine.check_deadline() {
            self.waiting.clear();
            return Some(Err(error));
        }
        let place = self.machine.path(&path);
        let is_folder = fs::symlink_metadata(&place).is_ok_and(|metadata| metadata.is_dir());
        if is_folder && !self.skips.contains(&path) {
            let entries = fs::read_dir(&place).into_iter().flatten().flatten();
            for entry in entries {
                let Some(left) = self.left.checked_sub(1) else {
                    self.waiting.clear();
                    return Some(Err(too_many(&path)));
                };
                self.left = left;
                self.waiting.push_back(path.join(entry.file_name()));
            }
        }
        Some(Ok(Found { path, glob: None }))
    }
}

fn too_many(path: &Path) -> TableError {
    TableError::Value {
        column: "path",
        got: path.display().to_string(),
        problem: format!("more than {ENTRIES_MAX} files; spell out more of the path"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_searched_from_the_last_folder_it_spells_out() {
        assert_eq!(spelled_out("/etc/ssh/ssh*"), Path::new("/etc/ssh"));
        assert_eq!(spelled_out("/e*/x"), Path::new("/"));
        assert_eq!(spelled_out("/etc/hosts"), Path::new("/etc"));
        assert_eq!(spelled_out("/etc/[ab]/c"), Path::new("/etc"));
    }

    #[test]
    fn links_are_found_and_not_followed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("a/b/c"), "x").unwrap();
        std::os::unix::fs::symlink("/a", root.path().join("a/loop")).unwrap();
        let machine = Arc::new(Machine::at(root.path()));

        let mut paths: Vec<_> = below(&machine, "/a".into()).map(|found| found.unwrap().path).collect();

        paths.sort();
        assert_eq!(paths, ["/a", "/a/b", "/a/b/c", "/a/loop"].map(PathBuf::from));
    }
}
