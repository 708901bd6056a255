//! A control group for one helper, where cgroup v2 lets this process make one.
//!
//! The group is made below the client's own, which needs a delegated subtree (`Delegate=yes` of systemd). Controllers
//! that the subtree doesn't pass on are not used, and told; `cgroup.kill` works without any. A group passes controllers on
//! only if it has no process of its own, so a client that is alone in its group moves into a subgroup ([`SUBGROUP`]), and
//! helpers get theirs beside it.
//!
//! A group is called after its keeper, the process that ends it. What a keeper left that was killed itself, the client ends
//! when it sees that, and else the next helper or client: whatever is in the group of a keeper that is gone is killed.
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where cgroup v2 is mounted, alone or beside v1.
const MOUNTS: &[&str] = &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Memory of a helper, in bytes: as `RLIMIT_AS`, which counts what is mapped; this counts what is used.
const MEMORY_MAX: &str = "1073741824";
/// Threads of a query's helper: the query's, the watch of standard input, and room.
pub(crate) const QUERY_PROCESSES_MAX: u32 = 8;
/// Processes of a script: what pipelines and a few programs at a time need, and no flood.
pub(crate) const SCRIPT_PROCESSES_MAX: u32 = 256;

/// The subgroup that a client moves into; what is above it is the client's, too.
const SUBGROUP: &str = "muster-agent";
/// What the delegated group is asked to pass on.
const CONTROLLERS: &str = "+memory +pids";

/// How the groups are called: this, their keeper's process number, a number.
const PREFIX: &str = "muster-sql-";
/// Names that are tried for one group: a process number may come again before the group of its last bearer is removed.
const NAMES_MAX: usize = 16;
/// Looks at who is in a group whose processes are killed one by one. None that was killed starts another, so a look that
/// shows no new one is the last.
const LOOKS_MAX: usize = 64;

/// A control group, removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// Puts process `pid` into a group of its own, of at most so many processes, which `keeper` ends. Says which limits the group cannot
    /// set, as `cgroup: reason`.
    ///
    /// # Errors
    /// Says why there is no group, as `cgroup: reason`, short enough for a result.
    pub(crate) fn around(pid: u32, keeper: u32, processes_max: u32) -> Result<(Self, Vec<String>), String> {
        let parent = delegated(own_folder()?);
        sweep(&parent, is_running);
        let group = Self { folder: make(&parent, keeper)? };
        group
            .write("cgroup.procs", &pid.to_string())
            .map_err(|error| reason("join", &group.folder, &error))?;
        let missing = group.limit(processes_max)?;
        Ok((group, missing))
    }

    /// Sets the limits whose controllers the subtree passes on. Without one, the resource limits hold alone.
    fn limit(&self, processes_max: u32) -> Result<Vec<String>, String> {
        let mut missing = Vec::new();
        for (controller, file, value) in
            [("memory", "memory.max", MEMORY_MAX.to_owned()), ("pids", "pids.max", processes_max.to_string())]
        {
            if self.folder.join(file).exists() {
                self.write(file, &value).map_err(|error| reason(file, &self.folder, &error))?;
            } else {
                missing.push(format!("cgroup: no {controller} controller"));
            }
        }
        Ok(missing)
    }

    /// Kills whatever is in the group.
    pub(crate) fn kill(&self) {
        kill_all(&self.folder);
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.folder.join(file), value)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel may let go of a process a moment after it is waited for; the next helper's start sweeps then.
        if let Err(error) = fs::remove_dir(&self.folder) {
            tracing::debug!(folder = %self.folder.display(), %error, "control group is busy; the next helper removes it");
        }
    }
}

/// Moves this process into a subgroup, if it is alone in its group, so that the group can pass controllers on. Called once,
/// before any helper; where it cannot be, each helper's group tells what it lacks.
pub(crate) fn move_aside() {
    let moved = own_folder().and_then(|own| {
        move_below(&own, std::process::id()).map_err(|error| reason("subgroup", &own, &error))
    });
    if let Err(reason) = moved {
        tracing::debug!(reason, "helpers are limited without controllers of control groups");
    }
    // What was killed together with the client that would have ended it.
    if let Ok(own) = own_folder() {
        sweep(&delegated(own), is_running);
    }
}

/// Ends what a keeper left that is gone, and was waited for. Returns whether something is left of it yet.
pub(crate) fn end_groups_of(keeper: u32) -> bool {
    own_folder().is_ok_and(|own| end_groups(&delegated(own), |of| of == keeper.to_string()))
}

fn move_below(own: &Path, pid: u32) -> io::Result<()> {
    let is_alone = fs::read_to_string(own.join("cgroup.procs"))?.trim() == pid.to_string();
    if !is_alone || own.ends_with(SUBGROUP) {
        return Ok(());
    }
    let folder = own.join(SUBGROUP);
    if let Err(error) = fs::create_dir(&folder)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    fs::write(folder.join("cgroup.procs"), pid.to_string())
}

/// Returns where helpers get their groups: beside the client's own subgroup if it is in one, else below its group.
/// Asks for the controllers there.
fn delegated(own: PathBuf) -> PathBuf {
    let parent = match own.parent() {
        Some(parent) if own.ends_with(SUBGROUP) => parent.to_owned(),
        _ => return own,
    };
    if let Err(error) = fs::write(parent.join("cgroup.subtree_control"), CONTROLLERS) {
        // What is missing for it is told by each helper's group.
        tracing::debug!(folder = %parent.display(), %error, "controllers are not passed on");
    }
    parent
}

fn own_folder() -> Result<PathBuf, String> {
    let mounted = MOUNTS.iter().map(Path::new).find(|mount| mount.join("cgroup.controllers").exists());
    let mount = mounted.ok_or_else(|| "cgroup: cgroup v2 is not mounted".to_owned())?;
    let text = fs::read_to_string("/proc/self/cgroup").map_err(|error| format!("cgroup: {error}"))?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"));
    own.map(|own| mount.join(own)).ok_or_else(|| "cgroup: this process is in no v2 group".to_owned())
}

/// Ends and removes the groups of keepers that are gone: a client or a helper that was killed, or a query that was dropped, left them.
///
/// A group is made while its keeper is there, waited for or not, so a group without one is nobody's.
fn sweep(parent: &Path, is_there: impl Fn(&str) -> bool) {
    // What is killed goes in a moment, and its group with the next sweep.
    let _is_left = end_groups(parent, |keeper| !is_there(keeper));
}

/// Whether a process is there.
fn is_running(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

/// Ends and removes the groups of those keepers. Returns whether one is left yet.
fn end_groups(parent: &Path, is_of: impl Fn(&str) -> bool) -> bool {
    let mut is_left = false;
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let keeper = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let folder = entry.path();
        // Processes of another namespace have no number here, nor would their keeper have.
        let is_foreign = || members(&folder).contains(&0);
        if keeper.is_some_and(&is_of) && !is_foreign() {
            kill_all(&folder);
            // Another sweep may have been faster.
            let removed = fs::remove_dir(&folder);
            is_left |= removed.is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
        }
    }
    is_left
}

/// Kills whatever is in a group.
fn kill_all(group: &Path) {
    if order(group, "cgroup.kill").is_ok() {
        return;
    }
    // Before Linux 5.14. What is frozen starts nothing more, and is killed all the same.
    let _none_before_5_2: io::Result<()> = order(group, "cgroup.freeze");
    let mut killed = BTreeSet::new();
    for _ in 0..LOOKS_MAX {
        let found: Vec<i32> =
            members(group).into_iter().filter(|pid| *pid > 0 && !killed.contains(pid)).collect();
        if found.is_empty() {
            return;
        }
        for pid in found {
            let _gone: nix::Result<()> = kill(Pid::from_raw(pid), Signal::SIGKILL);
            killed.insert(pid);
        }
    }
}

/// Returns who is in a group.
fn members(group: &Path) -> Vec<i32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// Writes 1 into a file of a group that is there.
fn order(group: &Path, file: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(group.join(file))?.write_all(b"1")
}

/// Makes a folder of a name that no earlier group has.
fn make(parent: &Path, keeper: u32) -> Result<PathBuf, String> {
    let mut tried = 0;
    loop {
        let folder = parent.join(name(keeper));
        tried += 1;
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tried < NAMES_MAX => {}
            Err(error) => return Err(reason("create", &folder, &error)),
        }
    }
}

fn name(keeper: u32) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{keeper}-{number}")
}

/// Says what did not work. The folder, of any length, is told here and not in the result.
fn reason(step: &str, folder: &Path, error: &io::Error) -> String {
    tracing::debug!(step, folder = %folder.display(), %error, "no control group for a helper");
    format!("cgroup: {step}: {error}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_reason_tells_layer_step_and_cause_however_long_the_folder_is() {
        let folder = PathBuf::from("/sys/fs/cgroup").join("a".repeat(200));

        let text = reason("create", &folder, &io::Error::from_raw_os_error(nix::libc::EACCES));

        assert_eq!(text, "cgroup: create: Permission denied (os error 13)");
    }

    #[test]
    fn limits_that_a_group_cannot_set_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let group = Cgroup { folder: folder.path().join("group") };
        fs::create_dir(&group.folder).unwrap();
        assert_eq!(
            group.limit(QUERY_PROCESSES_MAX).unwrap(),
            ["cgroup: no memory controller", "cgroup: no pids controller"]
        );

        for file in ["memory.max", "pids.max"] {
            fs::write(group.folder.join(file), "max").unwrap();
        }

        assert_eq!(group.limit(QUERY_PROCESSES_MAX).unwrap(), Vec::<String>::new());
        assert_eq!(fs::read_to_string(group.folder.join("memory.max")).unwrap(), MEMORY_MAX);
    }

    #[test]
    fn a_client_that_is_alone_in_its_group_moves_aside_and_another_stays() {
        let own = tempfile::tempdir().unwrap();
        let (all, moved) = (own.path().join("cgroup.procs"), own.path().join(SUBGROUP).join("cgroup.procs"));

        fs::write(&all, "7\n8\n").unwrap();
        move_below(own.path(), 7).unwrap();
        assert!(!own.path().join(SUBGROUP).exists());

        fs::write(&all, "7\n").unwrap();
        move_below(own.path(), 7).unwrap();
        assert_eq!(fs::read_to_string(moved).unwrap(), "7");
    }

    #[test]
    fn a_client_in_its_subgroup_asks_for_the_controllers_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("cgroup.subtree_control");

        assert_eq!(delegated(folder.path().join("session")), folder.path().join("session"));
        assert!(!control.exists());
        assert_eq!(delegated(folder.path().join(SUBGROUP)), folder.path());

        assert_eq!(fs::read_to_string(control).unwrap(), CONTROLLERS);
    }

    #[test]
    fn groups_of_helpers_that_are_gone_are_swept_and_others_stay() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["muster-sql-7-0", "muster-sql-8-1", "system.slice"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }

        sweep(parent.path(), |pid| pid == "8");

        let is_left = |name: &str| parent.path().join(name).exists();
        assert!(!is_left("muster-sql-7-0"));
        assert!(is_left("muster-sql-8-1") && is_left("system.slice"));
    }

    #[test]
    fn a_group_of_a_name_that_is_taken_gets_another() {
        let parent = tempfile::tempdir().unwrap();
        let first = make(parent.path(), 7).unwrap();
        let number: u64 = first.to_string_lossy().rsplit_once('-').unwrap().1.parse().unwrap();
        for taken in 1..5 {
            fs::create_dir(parent.path().join(format!("{PREFIX}8-{}", number + taken))).unwrap();
        }

        assert!(make(parent.path(), 8).unwrap().is_dir());
    }

    #[test]
    fn where_a_group_cannot_be_killed_as_one_each_of_its_processes_is_and_no_other() {
        let parent = tempfile::tempdir().unwrap();
        let sleeps: Vec<_> =
            (0..4).map(|_| Command::new("sleep").arg("98.2234001").spawn().unwrap()).collect();
        let pid = |at: usize| sleeps[at].id();
        // A process without a number here is one of another namespace.
        for (name, members) in [
            ("muster-sql-7-0", format!("{}\n{}\n", pid(0), pid(1))),
            ("muster-sql-8-0", format!("{}\n", pid(2))),
            ("muster-sql-9-0", format!("{}\n0\n", pid(3))),
        ] {
            fs::create_dir(parent.path().join(name)).unwrap();
            fs::write(parent.path().join(name).join("cgroup.procs"), members).unwrap();
        }

        sweep(parent.path(), |pid| pid == "8");

        let signals: Vec<_> = sleeps
            .into_iter()
            .map(|mut sleep| {
                let ended = (0..100).find_map(|_| {
                    std::thread::sleep(Duration::from_millis(2));
                    sleep.try_wait().unwrap()
                });
                sleep.kill().unwrap();
                sleep.wait().unwrap();
                ended.and_then(|status| status.signal())
            })
            .collect();
        assert_eq!(signals, [Some(9), Some(9), None, None]);
    }
}
