//! The folder that a script has for itself, as long as it runs.
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, geteuid, mkdtemp, setfsgid, setfsuid};

use super::clear::clear;
use crate::helper::sandbox::NOBODY;

/// Where the folders are; every user can get there, `nobody` of a strict script included.
const PLACE: &str = "/tmp";
/// How they are called: this, the watching process's number, six characters that nobody guesses.
const PREFIX: &str = "muster-step-";

/// How long a folder may take to be removed; what is left then goes with the next script's.
const CLEAR_TIME: Duration = Duration::from_secs(3);
/// How long a script waits for what others left.
const SWEEP_TIME: Duration = Duration::from_secs(1);

/// Whose a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// The client's user.
    Client,
    /// That of a strict script.
    Nobody,
}

/// A folder of mode 0700, removed with what is in it when this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    owner: Owner,
}

impl Folder {
    /// Makes one; `nobody`'s where the script will be.
    pub(super) fn make(is_strict: bool) -> Result<Self, String> {
        sweep(Path::new(PLACE), |pid| Path::new("/proc").join(pid).exists());
        let owner = if is_strict && geteuid().is_root() { Owner::Nobody } else { Owner::Client };
        let template = Path::new(PLACE).join(format!("{PREFIX}{}-XXXXXX", std::process::id()));
        let path = as_owner(owner, || mkdtemp(&template)).map_err(|error| {
            format!("no folder of its own in {PLACE}: {error}; let the client write there")
        })?;
        let folder = Self { path, owner };
        let is_its = folder.path.symlink_metadata().is_ok_and(|made| Some(owner) == Owner::of(made.uid()));
        if !is_its {
            let path = folder.path.display();
            return Err(format!(
                "its folder {path} cannot be nobody's; let the client become nobody (CAP_SETUID, CAP_SETGID)"
            ));
        }
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot go is swept by the next script's helper.
        let until = Instant::now() + CLEAR_TIME;
        let _tried: io::Result<()> = as_owner(self.owner, || clear(&self.path, until));
    }
}

impl Owner {
    /// Whose the folders of a user are; none: they are not ours.
    fn of(user: u32) -> Option<Self> {
        let own = geteuid();
        if user == own.as_raw() {
            Some(Self::Client)
        } else if own.is_root() && user == NOBODY {
            Some(Self::Nobody)
        } else {
            None
        }
    }
}

/// Does something to files as their owner, in this thread alone. Root then needs no right to give files away or to write where another user may
/// (`CAP_CHOWN`, `CAP_DAC_OVERRIDE`), which the shipped unit does not give it, and has none while it touches what another made.
fn as_owner<T>(owner: Owner, act: impl FnOnce() -> T) -> T {
    match owner {
        Owner::Client => act(),
        Owner::Nobody => {
            let group = setfsgid(Gid::from_raw(NOBODY));
            let user = setfsuid(Uid::from_raw(NOBODY));
            let done = act();
            setfsuid(user);
            setfsgid(group);
            done
        }
    }
}

/// Removes the folders of helpers that are gone: one that was killed leaves its own.
fn sweep(place: &Path, is_there: impl Fn(&str) -> bool) {
    let until = Instant::now() + SWEEP_TIME;
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        // Anybody can make a folder of such a name.
        let owner = || {
            let found = entry.path().symlink_metadata().ok().filter(fs::Metadata::is_dir)?;
            Owner::of(found.uid())
        };
        if pid.is_some_and(|pid| !is_there(pid))
            && let Some(owner) = owner()
        {
            let _tried: io::Result<()> = as_owner(owner, || clear(&entry.path(), until));
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

    /// Set in the process that has no more rights than the unit gives.
    const WITH_THE_UNITS_RIGHTS: &str = "MUSTER_TEST_WITH_THE_UNITS_RIGHTS";

    #[test]
    fn a_strict_scripts_folder_is_made_and_removed_with_the_rights_that_the_shipped_unit_has() {
        if std::env::var_os(WITH_THE_UNITS_RIGHTS).is_some() {
            return make_fill_and_remove();
        }
        if !geteuid().is_root() {
            let may_skip = std::env::var("MUSTER_TEST_MAY_SKIP").unwrap_or_default();
            assert!(may_skip.split(',').any(|one| one.trim() == "root"), "needs root");
            return;
        }
        let unit =
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/systemd/muster-client.service"));
        let rights = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
        let rights = rights.split(' ').map(|right| format!(",+{}", &right["CAP_".len()..].to_lowercase()));
        let this = "helper::script::folder::tests::a_strict_scripts_folder_is_made_and_removed_with_the_rights_that_the_shipped_unit_has";

        let run = std::process::Command::new("setpriv")
            .args(["--bounding-set", &format!("-all{}", rights.collect::<String>())])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", this, "--nocapture"])
            .env(WITH_THE_UNITS_RIGHTS, "1")
            .output()
            .unwrap();

        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && said.contains("1 passed"), "{said}{run:?}");
    }

    fn make_fill_and_remove() {
        let folder = Folder::make(true).unwrap();
        let path = folder.path().to_owned();
        let found = path.symlink_metadata().unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (NOBODY, NOBODY, 0o700));
        let write = || fs::write(path.join("file"), "x");
        // Root has no right here but to look.
        assert!(write().is_err());

        as_owner(Owner::Nobody, || {
            write().unwrap();
            fs::create_dir(path.join("below")).unwrap();
            fs::write(path.join("below/file"), "x").unwrap();
            fs::set_permissions(path.join("below"), std::os::unix::fs::PermissionsExt::from_mode(0o000))
                .unwrap();
        });
        drop(folder);

        assert!(!path.exists());
        let own = Folder::make(false).unwrap();
        fs::write(own.path().join("file"), "it is root's again").unwrap();
    }
}
