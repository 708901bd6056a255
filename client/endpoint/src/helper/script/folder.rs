//! The folder that a script has for itself, as long as it runs.
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, chown, geteuid, mkdtemp};

use crate::helper::sandbox::NOBODY;

/// Where the folders are; every user can get there, `nobody` of a strict script included.
const PLACE: &str = "/tmp";
/// How they are called: this, the watching process's number, six characters that nobody guesses.
const PREFIX: &str = "muster-step-";

/// A folder of mode 0700, removed with what is in it when this is dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes one; `nobody`'s where the script will be.
    pub(super) fn make(is_strict: bool) -> Result<Self, String> {
        sweep(Path::new(PLACE), |pid| Path::new("/proc").join(pid).exists());
        let template = Path::new(PLACE).join(format!("{PREFIX}{}-XXXXXX", std::process::id()));
        let folder = mkdtemp(&template).map(Self).map_err(|error| {
            format!("no folder of its own in {PLACE}: {error}; let the client write there")
        })?;
        if is_strict && geteuid().is_root() {
            let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
            chown(&folder.0, Some(user), Some(group))
                .map_err(|error| format!("its folder {} cannot be nobody's: {error}", folder.0.display()))?;
        }
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot go is swept by the next script's helper.
        let _tried: io::Result<()> = fs::remove_dir_all(&self.0);
    }
}

/// Removes the folders of helpers that are gone: one that was killed leaves its own.
fn sweep(place: &Path, is_there: impl Fn(&str) -> bool) {
    let own = geteuid().as_raw();
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        // Anybody can make a folder of such a name.
        let is_ours = || {
            entry.path().symlink_metadata().is_ok_and(|folder| {
                folder.is_dir() && (folder.uid() == own || own == 0 && folder.uid() == NOBODY)
            })
        };
        if pid.is_some_and(|pid| !is_there(pid)) && is_ours() {
            let _tried: io::Result<()> = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_helpers_that_are_gone_are_swept_and_others_stay() {
        let place = tempfile::tempdir().unwrap();
        for name in ["muster-step-7-abcdef", "muster-step-8-abcdef", "muster-other-7"] {
            fs::create_dir(place.path().join(name)).unwrap();
        }
        fs::write(place.path().join("muster-step-7-abcdef/file"), "x").unwrap();

        sweep(place.path(), |pid| pid == "8");

        let is_left = |name: &str| place.path().join(name).exists();
        assert!(!is_left("muster-step-7-abcdef"));
        assert!(is_left("muster-step-8-abcdef") && is_left("muster-other-7"));
    }
}
