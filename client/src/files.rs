//! The files and folders of `data_dir`: folders that only this user may enter, and each thing of the kind it should be.

use std::fs::FileType;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config::socket_in;
use crate::{key, store};

/// The folder of `data_dir` where actions on one file take turns.
pub(crate) const LOCKS: &str = "locks";

/// Something stands where a file or a folder of another kind belongs.
#[derive(Debug, thiserror::Error)]
#[error("{path}: got {got}, wanted {wanted}; {fix}")]
pub struct WrongKind {
    path: PathBuf,
    got: &'static str,
    wanted: Kind,
    fix: &'static str,
}

/// What may stand at a path that the client makes if nothing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Folder,
    File,
    Socket,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Folder => "a folder",
            Self::File => "a file",
            Self::Socket => "a socket",
        })
    }
}

/// Looks at everything in `data_dir` that the client opens, before it makes or opens any of it.
pub(crate) fn expect_kinds(data_dir: &Path) -> Result<(), WrongKind> {
    const NAME_ANOTHER: &str = "name another folder in `data_dir`, or move what is there away";
    const MOVE: &str = "move it away, and the client makes its own";
    for above in data_dir.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()) {
        expect(above, Kind::Folder, NAME_ANOTHER)?;
    }
    expect(data_dir, Kind::Folder, NAME_ANOTHER)?;
    let database = data_dir.join(store::FILE);
    for (path, wanted) in [
        (data_dir.join("client.lock"), Kind::File),
        (beside(&database, "-wal"), Kind::File),
        (beside(&database, "-shm"), Kind::File),
        (database, Kind::File),
        (key::path(data_dir), Kind::File),
        (data_dir.join("resources"), Kind::Folder),
        (data_dir.join(LOCKS), Kind::Folder),
        (socket_in(data_dir), Kind::Socket),
    ] {
        expect(&path, wanted, MOVE)?;
    }
    Ok(())
}

/// Refuses what is there and of another kind. What cannot be looked at is left to whoever opens it.
fn expect(path: &Path, wanted: Kind, fix: &'static str) -> Result<(), WrongKind> {
    let got = match std::fs::metadata(path) {
        Ok(found) if is(found.file_type(), wanted) => return Ok(()),
        Ok(found) => name(found.file_type()),
        // A link is there, and what it names is not: it cannot be made through the link.
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_ok() => {
            "a link to something that is not there"
        }
        Err(_) => return Ok(()),
    };
    Err(WrongKind { path: path.to_owned(), got, wanted, fix })
}

fn is(found: FileType, wanted: Kind) -> bool {
    match wanted {
        Kind::Folder => found.is_dir(),
        Kind::File => found.is_file(),
        Kind::Socket => found.is_socket(),
    }
}

fn name(found: FileType) -> &'static str {
    if found.is_dir() {
        "a folder"
    } else if found.is_file() {
        "a file"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device or a pipe"
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A folder that others may enter, and that nothing says is the client's.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path}: others may enter it (mode {mode:03o}), and it is not a folder of this client; name another in `data_dir`, or, \
     if nobody else needs it: chmod 700 {path}"
)]
pub struct Shared {
    path: PathBuf,
    mode: u32,
}

/// Refuses a folder that others may enter, unless a client has used it before: narrowed, it might be missed by others.
pub(crate) fn expect_own(data_dir: &Path) -> Result<(), Shared> {
    // What is not there is made, and what cannot be looked at is left to whoever opens it.
    let Ok(found) = std::fs::metadata(data_dir) else { return Ok(()) };
    let mode = found.permissions().mode() & 0o777;
    let is_used = ["client.lock", store::FILE].iter().any(|name| data_dir.join(name).exists());
    if mode & 0o077 == 0 || is_used {
        return Ok(());
    }
    Err(Shared { path: data_dir.to_owned(), mode })
}

/// Makes a folder with mode 0700, or narrows the one that is there, which must be the client's own.
pub(crate) fn make_private_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let mut permissions = std::fs::metadata(path)?.permissions();
    if permissions.mode() & 0o077 != 0 {
        permissions.set_mode(permissions.mode() & !0o077);
        std::fs::set_permissions(path, permissions)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn what_is_of_the_wrong_kind_is_named_with_what_was_expected_and_what_to_do() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let link = folder.path().join("link");
        symlink("/nowhere/at/all", &link).unwrap();
        let data = |name: &str| folder.path().join(name);
        for name in ["lock/client.lock", "db/client.db", "sock/client.sock", "wal/client.db-wal"] {
            std::fs::create_dir_all(data(name)).unwrap();
        }
        std::fs::create_dir(data("cache")).unwrap();
        std::fs::write(data("cache/resources"), "").unwrap();

        for (data_dir, culprit, got, wanted) in [
            (file.clone(), file.clone(), "got a file", "wanted a folder"),
            (file.join("data"), file.clone(), "got a file", "wanted a folder"),
            (link.clone(), link, "got a link", "wanted a folder"),
            (data("lock"), data("lock/client.lock"), "got a folder", "wanted a file"),
            (data("db"), data("db/client.db"), "got a folder", "wanted a file"),
            (data("wal"), data("wal/client.db-wal"), "got a folder", "wanted a file"),
            (data("sock"), data("sock/client.sock"), "got a folder", "wanted a socket"),
            (data("cache"), data("cache/resources"), "got a file", "wanted a folder"),
        ] {
            let error = expect_kinds(&data_dir).unwrap_err().to_string();

            let culprit = format!("{}: ", culprit.display());
            let fits = error.starts_with(&culprit) && error.contains(got) && error.contains(wanted);
            assert!(fits && error.contains("away"), "{error}");
        }
    }

    #[test]
    fn a_folder_that_others_may_enter_is_refused_and_left_unless_a_client_has_used_it() {
        let folder = TempDir::new().unwrap();
        let shared = folder.path().join("etc");
        std::fs::create_dir(&shared).unwrap();
        let mode = |mode| std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o755);

        let error = expect_own(&shared).unwrap_err().to_string();

        assert!(
            error.contains("mode 755") && error.ends_with(&format!("chmod 700 {}", shared.display())),
            "{error}"
        );
        assert_eq!(std::fs::metadata(&shared).unwrap().permissions().mode() & 0o777, 0o755);
        mode(0o700);
        expect_own(&shared).unwrap();
        mode(0o755);
        std::fs::write(shared.join("client.lock"), "").unwrap();
        expect_own(&shared).unwrap();
        expect_own(&folder.path().join("new")).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_yet_or_was_used_before_is_fine() {
        let folder = TempDir::new().unwrap();
        for name in ["client.lock", "client.db", "client.db-wal"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::fs::create_dir(folder.path().join("resources")).unwrap();
        let _stale = UnixListener::bind(folder.path().join("client.sock")).unwrap();

        expect_kinds(folder.path()).unwrap();
        expect_kinds(&folder.path().join("new/and/deeper")).unwrap();
    }
}
