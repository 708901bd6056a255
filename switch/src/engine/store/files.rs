//! [`Files`]: whether what is written to is still what a restart would find.
//!
//! SQLite goes on with the files that it opened. Deleted or replaced under it (a backup put back, a folder renamed), they
//! are gone with the process, and everything that was acked since then with them.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::StoreError;

/// What the store writes to, beside the database itself.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// The files of an open store, as they were when it was opened.
#[derive(Debug)]
pub(super) struct Files(Vec<(PathBuf, Identity)>);

/// What tells a file from another of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Files {
    /// Notes the files of the database at `path`, which is open, and its lock.
    pub(super) fn of(path: &Path, lock: &Path) -> Result<Self, StoreError> {
        let mut all = Vec::new();
        for file in [path, lock] {
            let found = Identity::at(file).map_err(|cause| StoreError::folder(file, cause))?;
            all.push((file.to_owned(), found));
        }
        for suffix in BESIDE {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            // Where SQLite needs none, there is none to miss.
            if let Ok(found) = Identity::at(Path::new(&name)) {
                all.push((PathBuf::from(name), found));
            }
        }
        Ok(Self(all))
    }

    /// Looks whether each of them still stands where it stood: four looks into the kernel's cache, some microseconds.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for (path, known) in &self.0 {
            let what = match Identity::at(path) {
                Ok(found) if found == *known => continue,
                Ok(_) => "replaced by another file".to_owned(),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                    "deleted, or its folder renamed".to_owned()
                }
                Err(cause) => return Err(StoreError::folder(path, cause)),
            };
            return Err(StoreError::Moved { path: path.clone(), what });
        }
        Ok(())
    }
}

impl Identity {
    fn at(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|found: Metadata| Self { device: found.dev(), inode: found.ino() })
    }
}
