//! Puts and removes files: each folder on the way is opened from the one above it, and no symbolic link is followed, so that
//! nobody can lead the client elsewhere between a check and a use.
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, fsync, getegid, geteuid, unlinkat};

use super::{Changed, Done, Undone};
use crate::helper::protocol::ContentMessage;

/// What is copied at a time.
const COPY_BYTES: usize = 256 * 1024;

/// Between two looks at whether another is done with a file.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A file's folder, held open, and its name in there.
struct Place<'a> {
    path: &'a Path,
    folder: OwnedFd,
    name: OsString,
    /// Held until the end: two instructions that put the same file take turns.
    _turn: Flock<File>,
}

/// Puts a content where a file is to be, whole or not at all.
pub(super) fn put(
    content: &ContentMessage,
    path: &Path,
    mode: u32,
    locks: &Path,
    deadline: Instant,
) -> Result<Done, Undone> {
    let place = Place::find(path, locks, deadline)?;
    let shown = path.display();
    let before = place.file()?;
    if let Some(before) = &before
        && place.is_as_wanted(before, content, mode, deadline)?
    {
        place.settle()?;
        let detail = format!("{shown} is as wanted: {} bytes, mode {mode:04o}", content.size);
        return Ok(Done { changed: Changed::No, detail });
    }
    let beside = OsString::from(beside(&place.name));
    // Of an earlier try that was ended in its middle.
    let _none: nix::Result<()> = unlinkat(&place.folder, beside.as_os_str(), UnlinkatFlags::NoRemoveDir);
    let written = place.write(content, &beside, mode, deadline).and_then(|()| {
        renameat(&place.folder, beside.as_os_str(), &place.folder, place.name.as_os_str())
            .map_err(|error| place.problem("renamed into its place", error))
    });
    if let Err(undone) = written {
        let _none: nix::Result<()> = unlinkat(&place.folder, beside.as_os_str(), UnlinkatFlags::NoRemoveDir);
        return Err(undone);
    }
    place.settle()?;
    let done = if before.is_some() { "replaced" } else { "made" };
    let detail = format!("{shown} {done}: {} bytes, mode {mode:04o}", content.size);
    Ok(Done { changed: Changed::Yes, detail })
}

/// Removes a file.
pub(super) fn remove(path: &Path, locks: &Path, deadline: Instant) -> Result<Done, Undone> {
    let shown = path.display();
    let unchanged = || Ok(Done { changed: Changed::No, detail: format!("{shown} is not there") });
    let place = match Place::find(path, locks, deadline) {
        Err(_) if is_absent(path) => return unchanged(),
        place => place?,
    };
    if place.file()?.is_none() {
        place.settle()?;
        return unchanged();
    }
    unlinkat(&place.folder, place.name.as_os_str(), UnlinkatFlags::NoRemoveDir)
        .map_err(|error| place.problem("removed", error))?;
    place.settle()?;
    Ok(Done { changed: Changed::Yes, detail: format!("{shown} removed") })
}

/// Whether a folder on the way is not there, and nothing else is wrong.
fn is_absent(path: &Path) -> bool {
    path.ancestors()
        .skip(1)
        .any(|folder| folder.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound))
}

impl<'a> Place<'a> {
    /// Goes down from the root, a folder at a time.
    fn find(path: &'a Path, locks: &Path, deadline: Instant) -> Result<Self, Undone> {
        let wrong = || {
            Undone::Problem(format!(
                "{:?} is no place of a file; wanted an absolute path without `.` and `..`",
                path.display()
            ))
        };
        // `components` drops a `.` and a slash that stands too many.
        let is_name = |name: &&[u8]| !matches!(*name, b"" | b"." | b"..");
        let bytes = path.as_os_str().as_bytes();
        let below = bytes.strip_prefix(b"/").ok_or_else(wrong)?;
        if !below.split(|byte| *byte == b'/').all(|name| is_name(&name)) {
            return Err(wrong());
        }
        let mut names: Vec<&OsStr> = path
            .components()
            .filter_map(|component| match component {
                Component::Normal(name) => Some(name),
                Component::RootDir | Component::CurDir | Component::ParentDir | Component::Prefix(_) => None,
            })
            .collect();
        let name = names.pop().ok_or_else(wrong)?.to_owned();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut gone = PathBuf::from("/");
        let problem = |gone: &Path, error: Errno| {
            let why = if error == Errno::ENOTDIR || error == Errno::ELOOP {
                "is a symbolic link, or no folder; name the folder itself".to_owned()
            } else {
                format!("cannot be opened: {error}")
            };
            Undone::Problem(format!("{} {why}", gone.display()))
        };
        let mut folder = open("/", flags, Mode::empty()).map_err(|error| problem(&gone, error))?;
        for name in names {
            gone.push(name);
            folder = openat(&folder, name, flags, Mode::empty()).map_err(|error| problem(&gone, error))?;
        }
        let turn = turn(&folder, &name, locks, deadline)?;
        Ok(Self { path, folder, name, _turn: turn })
    }

    fn problem(&self, what: &str, error: impl std::fmt::Display) -> Undone {
        Undone::Problem(format!("{} cannot be {what}: {error}", self.path.display()))
    }

    /// Returns what is there; nothing but a plain file is replaced or removed.
    fn file(&self) -> Result<Option<FileStat>, Undone> {
        match fstatat(&self.folder, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(self.problem("looked at", error)),
            Ok(stat) if kind(&stat) == SFlag::S_IFREG => Ok(Some(stat)),
            Ok(stat) => {
                let is = match kind(&stat) {
                    SFlag::S_IFLNK => "a symbolic link",
                    SFlag::S_IFDIR => "a folder",
                    _ => "no plain file",
                };
                Err(Undone::Problem(format!("{} is {is}; wanted a file, or nothing", self.path.display())))
            }
        }
    }

    fn is_as_wanted(
        &self,
        before: &FileStat,
        content: &ContentMessage,
        mode: u32,
        deadline: Instant,
    ) -> Result<bool, Undone> {
        let is_alike = u64::try_from(before.st_size) == Ok(content.size) && before.st_mode & 0o7777 == mode;
        if !is_alike || (before.st_uid, before.st_gid) != self.owner()? {
            return Ok(false);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(&self.folder, self.name.as_os_str(), flags, Mode::empty())
            .map_err(|error| self.problem("read", error))?;
        // What was looked at may be another file's name by now.
        if fstat(&file).map_or(true, |stat| kind(&stat) != SFlag::S_IFREG) {
            return Ok(false);
        }
        let file = File::from(file);
        let root = copy(&mut (&file).take(content.size.saturating_add(1)), deadline, |_| Ok(()))?;
        let is_wanted = root.as_bytes().as_slice() == content.root;
        if is_wanted {
            // Whoever put it there may not have waited for the disk.
            file.sync_all().map_err(|error| self.problem("put on disk", error))?;
        }
        Ok(is_wanted)
    }

    /// Whose a file is that the client makes here: its own, but for a folder that gives its group on.
    fn owner(&self) -> Result<(u32, u32), Undone> {
        let folder = fstat(&self.folder).map_err(|error| self.problem("looked at in its folder", error))?;
        let gives_group = Mode::from_bits_truncate(folder.st_mode).contains(Mode::S_ISGID);
        let group = if gives_group { folder.st_gid } else { getegid().as_raw() };
        Ok((geteuid().as_raw(), group))
    }

    /// Writes the content beside its place, verified as it was written.
    fn write(
        &self,
        content: &ContentMessage,
        beside: &OsStr,
        mode: u32,
        deadline: Instant,
    ) -> Result<(), Undone> {
        let source = PathBuf::from(OsString::from_vec(content.path.clone()));
        let mut source = File::open(&source)
            .map_err(|error| Undone::Problem(format!("its resource cannot be read: {error}")))?
            .take(content.size.saturating_add(1));
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.folder, beside, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|error| self.problem("written beside", error))?;
        let mut file = File::from(file);
        let root = copy(&mut source, deadline, |part| {
            file.write_all(part).map_err(|error| self.problem("written", error))
        })?;
        if root.as_bytes().as_slice() != content.root {
            let wanted = hex::encode(&content.root);
            return Err(Undone::Problem(format!(
                "its resource is not the one that was signed: BLAKE3 {root}, wanted {wanted}; {} was left as it was",
                self.path.display()
            )));
        }
        fchmod(&file, Mode::from_bits_truncate(mode))
            .map_err(|error| self.problem("given its mode", error))?;
        file.sync_all().map_err(|error| self.problem("put on disk", error))
    }

    /// Puts the folder on disk.
    fn settle(&self) -> Result<(), Undone> {
        fsync(&self.folder).map_err(|error| self.problem("put on disk in its folder", error))
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Waits for the turn of this file, which lasts as long as the descriptor is open. Files of the client's own folder are locked and none of
/// the folder that the file is in: whoever may read that could lock it, and keep every action from it.
fn turn(folder: &OwnedFd, name: &OsStr, locks: &Path, deadline: Instant) -> Result<Flock<File>, Undone> {
    let stat = fstat(folder)
        .map_err(|error| Undone::Problem(format!("the folder of {name:?} cannot be looked at: {error}")))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&stat.st_dev.to_be_bytes()).update(&stat.st_ino.to_be_bytes()).update(name.as_bytes());
    // Its first byte: there are 256 such files at most. Two files that come by the same one wait for each other without need.
    let [number, ..] = *hasher.finalize().as_bytes();
    let path = locks.join(format!("{number:02x}"));
    let problem = |error: Errno| Undone::Problem(format!("{} cannot be locked: {error}", path.display()));
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(open(&path, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(problem)?);
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((_, Errno::EWOULDBLOCK)) if Instant::now() >= deadline => return Err(Undone::Late),
            Err((again, Errno::EWOULDBLOCK)) => file = again,
            Err((_, error)) => return Err(problem(error)),
        }
        thread::sleep(LOCK_PAUSE);
    }
}

/// A name beside that one: always the same, so that what an earlier try left there goes with the next.
fn beside(name: &OsStr) -> String {
    let of_name = blake3::hash(name.as_bytes());
    format!(".muster-put-{}", hex::encode(of_name.as_bytes().get(..16).unwrap_or_default()))
}

/// Reads all and hands it on; returns its root.
fn copy(
    from: &mut impl Read,
    deadline: Instant,
    mut into: impl FnMut(&[u8]) -> Result<(), Undone>,
) -> Result<blake3::Hash, Undone> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        if Instant::now() >= deadline {
            return Err(Undone::Late);
        }
        let read = from.read(&mut buffer);
        let read = read.map_err(|error| Undone::Problem(format!("its content cannot be read: {error}")))?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
            return Ok(hasher.finalize());
        };
        hasher.update(part);
        into(part)?;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nix::libc;
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

    use super::*;

    /// Where the kernel puts nothing on disk.
    fn without_a_disk<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
        let refused = BTreeMap::from([(libc::SYS_fsync, Vec::new())]);
        let fails = SeccompAction::Errno(Errno::EIO as u32);
        let architecture = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(refused, SeccompAction::Allow, fails, architecture).unwrap();
        let filter: BpfProgram = filter.try_into().unwrap();
        let thread = thread::spawn(move || {
            apply_filter(&filter).unwrap();
            act()
        });
        thread.join().unwrap()
    }

    #[test]
    fn what_is_as_wanted_is_on_disk_before_that_is_told() {
        let place = tempfile::TempDir::new_in(std::env::temp_dir().canonicalize().unwrap()).unwrap();
        let (resource, path) = (place.path().join("resource"), place.path().join("file"));
        std::fs::write(&resource, "x").unwrap();
        let content = ContentMessage {
            path: resource.as_os_str().as_bytes().to_vec(),
            size: 1,
            root: blake3::hash(b"x").as_bytes().to_vec(),
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        assert_eq!(put(&content, &path, 0o640, place.path(), deadline).unwrap().changed, Changed::Yes);
        assert_eq!(put(&content, &path, 0o640, place.path(), deadline).unwrap().changed, Changed::No);

        let (absent, there) = (place.path().join("absent"), path);
        let (of_put, of_remove) = (place.path().to_owned(), place.path().to_owned());
        let again = without_a_disk(move || put(&content, &there, 0o640, &of_put, deadline));
        let removed = without_a_disk(move || remove(&absent, &of_remove, deadline));

        for undone in [again, removed] {
            assert!(
                matches!(&undone, Err(Undone::Problem(said)) if said.contains("put on disk")),
                "{undone:?}"
            );
        }
    }
}
