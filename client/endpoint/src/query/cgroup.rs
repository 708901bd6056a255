//! A control group for one helper, where cgroup v2 lets this process make one.
//!
//! The group is made below the client's own, which needs a delegated subtree (`Delegate=yes` of systemd). Controllers
//! that the subtree doesn't pass on are not used, and told; `cgroup.kill` works without any. A group passes controllers on
//! only if it has no process of its own, so a client that is alone in its group moves into a subgroup ([`SUBGROUP`]), and
//! helpers get theirs beside it.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

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

/// How the groups are called: this, the helper's process number, a number.
const PREFIX: &str = "muster-sql-";

/// A control group, removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// Puts process `pid` into a group of its own, of at most so many processes. Says which limits the group cannot set, as `cgroup: reason`.
    ///
    /// # Errors
    /// Says why there is no group, as `cgroup: reason`, short enough for a result.
    pub(crate) fn around(pid: u32, processes_max: u32) -> Result<(Self, Vec<String>), String> {
        let parent = delegated(own_folder()?);
        sweep(&parent, |pid| Path::new("/proc").join(pid).exists());
        let folder = parent.join(name(pid));
        fs::create_dir(&folder).map_err(|error| reason("create", &folder, &error))?;
        let group = Self { folder };
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
        // Absent before Linux 5.14; the process group is killed beside it.
        let _tried: io::Result<()> = self.write("cgroup.kill", "1");
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

/// Removes the groups of helpers that are gone: a client that died, or a query that was dropped, left them.
///
/// A group is made while its helper is there, waited for or not, so a group without a process is nobody's.
fn sweep(parent: &Path, is_there: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !is_there(pid)) {
            // Another sweep may have been faster.
            let _tried: io::Result<()> = fs::remove_dir(entry.path());
        }
    }
}

/// A name that no earlier helper of this process has, for a process number may come again.
fn name(pid: u32) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{pid}-{number}")
}

/// Says what did not work. The folder, of any length, is told here and not in the result.
fn reason(step: &str, folder: &Path, error: &io::Error) -> String {
    tracing::debug!(step, folder = %folder.display(), %error, "no control group for a helper");
    format!("cgroup: {step}: {error}")
}

#[cfg(test)]
mod tests {
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
}
