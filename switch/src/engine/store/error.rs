//! [`StoreError`]: why the store cannot be used, where it lies, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use muster_service::exit;
use rusqlite::ErrorCode;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder or a file in it cannot be made, read or written.
    #[error(
        "store {}: {cause}; create the folder and give the Switch's user the right to read and write there",
        path.display()
    )]
    Folder {
        /// The folder or the file.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// Somebody else has it open.
    #[error("store {} is held by {holder}; stop that one, or give this Switch a data_dir of its own", path.display())]
    Held {
        /// The folder or the file.
        path: PathBuf,
        /// Who, as far as is known.
        holder: String,
    },
    /// The database is damaged as a whole, not one record of it.
    #[error(
        "store {}: damaged ({cause}); check the disk, keep a copy of the folder and restore a backup; without one, move \
         switch.db, switch.db-wal and switch.db-shm away: the Switch then starts empty, and definitions and licence have \
         to be imported again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        cause: String,
    },
    /// A later version of this program wrote it.
    #[error(
        "store {}: has layout {got}, this version knows layouts up to {wanted}; install the newer version again, or restore \
         a backup made before it",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        got: i64,
        /// The newest that is known here.
        wanted: i64,
    },
    /// Another program wrote it.
    #[error(
        "store {}: another program's database (application_id {got:#010x}, a Switch's has {wanted:#010x}); give the Switch \
         a data_dir of its own",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its `application_id`.
        got: i64,
        /// A Switch's.
        wanted: i64,
    },
    /// Its files were deleted or replaced under the running Switch.
    #[error(
        "store {}: {what} while the Switch ran; what was acked before is in the files that were there: put them back, or \
         restore a backup, then start the Switch; without either it starts empty once the rest of the store \
         (switch.db, switch.db-wal, switch.db-shm) is moved away, too",
        path.display()
    )]
    Moved {
        /// The file.
        path: PathBuf,
        /// What became of it.
        what: String,
    },
    /// The disk is full.
    #[error("store {}: the disk is full; free some space, or move data_dir to a larger disk", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The disk or SQLite fails otherwise.
    #[error("store {}: {cause}; look at the disk and at the system's log", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        cause: String,
    },
}

impl StoreError {
    /// Says what SQLite's error means for the file.
    pub(crate) fn of(path: &Path, error: &rusqlite::Error) -> Self {
        let (path, cause) = (path.to_owned(), error.to_string());
        match error.sqlite_error_code() {
            // A table that is missing, or a value of another type than was written.
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) | None => {
                Self::Damaged { path, cause }
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Held {
                path,
                holder: "another program, which is no Switch (such as sqlite3)".to_owned(),
            },
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Self::Folder { path, cause: io::Error::other(cause) }
            }
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(_) => Self::Broken { path, cause },
        }
    }

    pub(super) fn folder(path: &Path, cause: io::Error) -> Self {
        Self::Folder { path: path.to_owned(), cause }
    }

    /// Returns the exit code of a Switch that does not start, or ends, because of it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Folder { .. }
            | Self::Damaged { .. }
            | Self::Newer { .. }
            | Self::Foreign { .. }
            | Self::Moved { .. } => exit::CONFIG,
            Self::Held { .. } | Self::Full { .. } => exit::UNAVAILABLE,
            Self::Broken { .. } => exit::FAILURE,
        }
    }

    /// Returns whether the store stays unusable until somebody has changed something, so that no restart helps.
    #[must_use]
    pub fn is_for_people(&self) -> bool {
        self.exit_code() == exit::CONFIG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlites_codes_say_whether_a_restart_may_help() {
        for (code, words, exit_code) in [
            (rusqlite::ffi::SQLITE_CORRUPT, "damaged (", 78),
            (rusqlite::ffi::SQLITE_NOTADB, "restore a backup", 78),
            (rusqlite::ffi::SQLITE_BUSY, "is held by another program, which is no Switch", 69),
            (rusqlite::ffi::SQLITE_READONLY, "give the Switch's user the right", 78),
            (rusqlite::ffi::SQLITE_CANTOPEN, "give the Switch's user the right", 78),
            (rusqlite::ffi::SQLITE_FULL, "the disk is full", 69),
            (rusqlite::ffi::SQLITE_IOERR, "look at the disk", 1),
        ] {
            let failure = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);

            let error = StoreError::of(Path::new("/data/switch.db"), &failure);

            let text = error.to_string();
            assert!(text.starts_with("store /data/switch.db") && text.contains(words), "{text}");
            assert_eq!(error.exit_code(), exit_code, "{text}");
            assert_eq!(error.is_for_people(), exit_code == exit::CONFIG, "{text}");
        }
    }
}
