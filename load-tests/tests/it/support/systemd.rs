//! A systemd of a test's own: the first process of namespaces of its own, with the units of one folder. Of the machine's it knows nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Service, lacks, lacks_root, wait_for, wait_until, write};

const PROGRAMS: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];

/// What it starts, and all that it would start.
const TARGET: &str = "muster-test.target";

/// A running systemd; it ends with the test, and all of its units with it.
pub(crate) struct Systemd {
    unshare: Option<Service>,
    /// Its process id, as this machine counts.
    pid: u32,
    groups: Vec<PathBuf>,
}

impl Systemd {
    /// Starts it with a folder for units, which is made; nothing, where the machine may not and the tests may skip that.
    #[track_caller]
    pub(crate) fn start(units: &Path, log: &Path) -> Option<Self> {
        let program = PROGRAMS.iter().find(|program| Path::new(program).exists());
        let program = program.expect("needs systemd: apt-get install systemd");
        if lacks_root() {
            return None;
        }
        let groups = groups();
        if lacks("cgroup", groups.is_empty(), "let the test make control groups (below /sys/fs/cgroup)") {
            return None;
        }
        write(&units.join(TARGET), "[Unit]\nDescription=Nothing\nDefaultDependencies=no\n");
        // Below the groups of its own, it makes its own as if they were all that there are.
        let script = format!(
            "set -e\nfor group in \"$@\"; do echo 0 >\"$group/cgroup.procs\"; done\nmount --make-rprivate /\n\
             mount -t tmpfs tmpfs /run\nmount -t proc proc /proc\n\
             exec {program} --system --unit={TARGET} --log-target=console --log-level=notice"
        );
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child",
            "/bin/sh",
            "-c",
            &script,
            "sh",
        ]);
        // In a container, it leaves alone what belongs to the machine.
        command.args(&groups).env("SYSTEMD_UNIT_PATH", units).env("container", "muster-test");
        let mut unshare = Service::start(command, log);
        let below = format!("/proc/{0}/task/{0}/children", unshare.pid());
        let pid = wait_for("systemd's process", || {
            assert!(unshare.runs(), "systemd ended:\n{}", unshare.log());
            std::fs::read_to_string(&below).ok()?.split_whitespace().next()?.parse().ok()
        });
        let systemd = Self { unshare: Some(unshare), pid, groups };
        wait_until("systemd to answer", || systemd.property("Version", None).is_some());
        Some(systemd)
    }

    /// A command that runs where its units do.
    pub(crate) fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        let target = self.pid.to_string();
        inside.args(["--target", &target, "--mount", "--uts", "--ipc", "--pid", "--"]);
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    /// What it tells of a unit, or of itself.
    pub(crate) fn property(&self, name: &str, unit: Option<&str>) -> Option<String> {
        let mut systemctl = Command::new("systemctl");
        systemctl.args(["show", "--value", "--property", name]).args(unit);
        let output = self.inside(&systemctl).output().expect("nsenter");
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !said.is_empty()).then_some(said)
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // With its first process, everything in its namespaces is killed.
        drop(self.unshare.take());
        for group in &self.groups {
            // A group is busy for a moment after its last process.
            for _ in 0..50 {
                let mut find = Command::new("find");
                drop(find.arg(group).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]).output());
                if !group.exists() {
                    break;
                }
                std::thread::sleep(super::LOOK);
            }
        }
    }
}

/// Makes a group of its own in each hierarchy that systemd keeps its units in: that of version 2, and in version 1 one by its name.
fn groups() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let is_its = |fields: &[&str]| match fields {
        [_, _, "cgroup2", ..] => true,
        [_, _, "cgroup", options, ..] => options.split(',').any(|option| option == "name=systemd"),
        _ => false,
    };
    let name = format!("muster-it-{}", std::process::id());
    let mut made = Vec::new();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let group = Path::new(fields.get(1).unwrap_or(&"")).join(&name);
        if is_its(&fields) && !made.contains(&group) && std::fs::create_dir(&group).is_ok() {
            made.push(group);
        }
    }
    made
}
