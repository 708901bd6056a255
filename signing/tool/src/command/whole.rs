//! Files that are written whole or not at all: whoever looks finds the old one or the new one, after a crash, too.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::out::Out;

/// A file under a name of its own, until it is [whole](Self::put).
#[derive(Debug)]
pub(super) struct Whole {
    path: PathBuf,
    /// None: what is there is no file that another could take the place of, such as /dev/stdout.
    partial: Option<PathBuf>,
    writer: Option<BufWriter<File>>,
}

impl Whole {
    /// Begins the file that is to stand at `out`, in the same folder; `unique` tells it from others that are under way. Behind a link, the
    /// file that it leads to is meant.
    pub(super) fn begin(out: &Out, unique: [u8; 16]) -> anyhow::Result<Self> {
        let path = out.path();
        let named = || path.display().to_string();
        let there = std::fs::metadata(path).ok();
        if there.is_some_and(|there| !there.is_file() && !there.is_dir()) {
            let file = File::options().write(true).open(path).with_context(named)?;
            return Ok(Self { path: path.to_owned(), partial: None, writer: Some(BufWriter::new(file)) });
        }
        let path = match std::fs::canonicalize(path) {
            Ok(path) => path,
            Err(_) if path.is_symlink() => {
                anyhow::bail!(
                    "{}: a link to a file that is not there; name that file, or remove the link",
                    named()
                )
            }
            Err(_) => path.to_owned(),
        };
        let mut name = OsString::from(".");
        name.push(path.file_name().with_context(|| format!("{}: no file's name", named()))?);
        name.push(format!(".{:032x}.partial", u128::from_be_bytes(unique)));
        let partial = path.with_file_name(name);
        let file = File::options().write(true).create_new(true).open(&partial).with_context(named)?;
        Ok(Self { path, partial: Some(partial), writer: Some(BufWriter::new(file)) })
    }

    /// Puts the file in its place.
    pub(super) fn put(mut self) -> anyhow::Result<()> {
        self.put_in_place().with_context(|| self.path.display().to_string())
    }

    fn put_in_place(&mut self) -> io::Result<()> {
        if let Some(writer) = &mut self.writer {
            writer.flush()?;
        }
        let Some(partial) = &self.partial else {
            self.writer = None;
            return Ok(());
        };
        if let Some(writer) = &self.writer {
            writer.get_ref().sync_all()?;
        }
        std::fs::rename(partial, &self.path)?;
        self.writer = None;
        // The name is as durable as the bytes only once the folder is.
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Write for Whole {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.as_mut().map_or(Ok(0), |writer| writer.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        // What is left of a file that was not put in its place. Whether it can be removed changes nothing of the failure told.
        if let (Some(partial), Some(_)) = (&self.partial, &self.writer) {
            drop(std::fs::remove_file(partial));
        }
    }
}

/// Writes a file whole or not at all.
pub(super) fn write(out: &Out, bytes: &[u8]) -> anyhow::Result<()> {
    let mut whole = Whole::begin(out, super::random()?)?;
    whole.write_all(bytes).with_context(|| out.path().display().to_string())?;
    whole.put()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_put_in_place_leaves_the_old_one_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "old").unwrap();

        let mut whole = Whole::begin(&Out::in_place(&path), [1; 16]).unwrap();
        whole.write_all(b"ne").unwrap();
        drop(whole);
        let (kept, left) = (std::fs::read(&path).unwrap(), std::fs::read_dir(folder.path()).unwrap().count());
        write(&Out::in_place(&path), b"new").unwrap();

        assert_eq!((kept.as_slice(), left), (&b"old"[..], 1));
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_one_and_what_is_no_file_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("a"), "old").unwrap();
        std::os::unix::fs::symlink("a", at("link")).unwrap();
        std::os::unix::fs::symlink("/dev/null", at("null")).unwrap();

        write(&Out::in_place(&at("link")), b"new").unwrap();
        write(&Out::in_place(&at("null")), b"new").unwrap();

        std::os::unix::fs::symlink("none", at("dangling")).unwrap();
        let dangling = write(&Out::in_place(&at("dangling")), b"new").unwrap_err().to_string();
        assert!(dangling.contains("a link to a file that is not there"), "{dangling}");
        std::fs::remove_file(at("dangling")).unwrap();
        assert!(at("link").is_symlink() && at("null").is_symlink());
        assert_eq!(std::fs::read(at("a")).unwrap(), b"new");
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn what_cannot_be_put_in_place_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::create_dir(&path).unwrap();

        assert!(write(&Out::in_place(&path), b"new").is_err());

        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
