//! Removes a folder and all that is in it, however deep, with a few descriptors: what lies deeper is moved to the top first.
//!
//! Each folder is opened from the one above it, and no symbolic link is followed, so nobody is led out of it.
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry, Permissions, ReadDir};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// How often another name is tried for a folder that is moved.
const NAMES_MAX: usize = 16;

/// A folder while it is cleared.
struct Clearing {
    top: OwnedFd,
    until: Instant,
    /// Folders that were moved to the top.
    moved: u64,
}

/// Removes a folder. What is left at `until` stays.
///
/// # Errors
/// The system's reason.
pub(super) fn clear(path: &Path, until: Instant) -> io::Result<()> {
    let (Some(place), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let place = open(place, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut clearing = Clearing { top: enter(&place, name)?, until, moved: 0 };
    while clearing.pass()? {}
    Ok(unlinkat(&place, name, UnlinkatFlags::RemoveDir)?)
}

impl Clearing {
    /// Removes what is at the top. Returns whether there was something, so that another look is due.
    fn pass(&mut self) -> io::Result<bool> {
        let (mut is_empty, mut is_going, mut problem) = (true, false, None);
        for entry in entries(&self.top)? {
            is_empty = false;
            match self.remove(&entry?) {
                Ok(()) => is_going = true,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
                Err(error) => problem = Some(error),
            }
        }
        match problem {
            Some(problem) if !is_going => Err(problem),
            Some(_) | None => Ok(!is_empty),
        }
    }

    /// Removes one thing at the top. What is in the folders of a folder is left to the next passes.
    fn remove(&mut self, entry: &DirEntry) -> io::Result<()> {
        self.in_time()?;
        let name = entry.file_name();
        if !entry.file_type()?.is_dir() {
            return Ok(unlinkat(&self.top, name.as_os_str(), UnlinkatFlags::NoRemoveDir)?);
        }
        let folder = enter(&self.top, &name)?;
        let mut is_going = false;
        for below in entries(&folder)? {
            self.in_time()?;
            let below = below?;
            let name = below.file_name();
            if below.file_type()?.is_dir() {
                self.move_up(&folder, &name)?;
            } else {
                unlinkat(&folder, name.as_os_str(), UnlinkatFlags::NoRemoveDir)?;
            }
            is_going = true;
        }
        match unlinkat(&self.top, name.as_os_str(), UnlinkatFlags::RemoveDir) {
            // A file system may leave out what is there while something else goes.
            Err(Errno::ENOTEMPTY | Errno::EEXIST) if is_going => Ok(()),
            other => Ok(other?),
        }
    }

    fn move_up(&mut self, from: &OwnedFd, name: &OsStr) -> io::Result<()> {
        // A folder that changes its place is written to.
        drop(enter(from, name)?);
        let mut tried = 0;
        loop {
            let to = OsString::from(format!(".moved-{}", self.moved));
            self.moved += 1;
            tried += 1;
            match renameat(from, name, &self.top, to.as_os_str()) {
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) if tried < NAMES_MAX => {}
                other => return Ok(other?),
            }
        }
    }

    fn in_time(&self) -> io::Result<()> {
        if Instant::now() < self.until { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
    }
}

/// Opens a folder, also one that its owner has closed.
fn enter(parent: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let found = openat(parent, name, flags | OFlag::O_PATH, Mode::empty())?;
    // If it may not be, that is told by what comes next.
    let _tried: io::Result<()> = fs::set_permissions(path_of(&found), Permissions::from_mode(0o700));
    Ok(openat(&found, ".", flags | OFlag::O_RDONLY, Mode::empty())?)
}

fn entries(folder: &OwnedFd) -> io::Result<ReadDir> {
    fs::read_dir(path_of(folder))
}

/// The name by which this process can open again what it has open.
fn path_of(folder: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", folder.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn all_goes_and_nothing_beside_it_wherever_links_lead() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        fs::create_dir_all(path("folder/a/b/c")).unwrap();
        fs::create_dir_all(path("folder/.moved-0/x")).unwrap();
        fs::write(path("folder/.moved-1"), "x").unwrap();
        fs::write(path("folder/a/b/file"), "x").unwrap();
        fs::set_permissions(path("folder/a/b/c"), Permissions::from_mode(0o000)).unwrap();
        fs::create_dir(path("beside")).unwrap();
        fs::write(path("beside/file"), "x").unwrap();
        for name in ["folder/link", "folder/a/link", "folder/a/b/link"] {
            symlink(path("beside"), path(name)).unwrap();
        }

        clear(&path("folder"), soon()).unwrap();

        assert!(!path("folder").exists() && path("beside/file").exists());
        symlink(path("beside"), path("folder")).unwrap();
        assert!(clear(&path("folder"), soon()).is_err(), "a link is no folder");
        assert!(path("beside/file").exists());
    }

    #[test]
    fn what_is_left_when_its_time_is_over_stays() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("folder");
        fs::create_dir_all(folder.join("a/b")).unwrap();

        let late = clear(&folder, Instant::now()).unwrap_err();

        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        assert!(folder.join("a/b").exists());
    }
}
