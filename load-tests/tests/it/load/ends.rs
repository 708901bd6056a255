//! However a run ends, nothing is left running.

use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{binary, children, folder, run, wait_for, wait_until};

#[test]
fn ctrl_c_in_the_middle_ends_switch_and_workers_and_leaves_no_folder() {
    let place = folder();
    let (mut child, started) = begun(place.path());

    signal(child.id(), Signal::SIGINT);

    let status = child.wait().expect("an end");
    assert_eq!(status.code(), Some(130));
    until_gone(&started);
    let left: Vec<_> = std::fs::read_dir(place.path()).expect("the folder").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_coordinator_that_is_killed_takes_switch_and_workers_along() {
    let place = folder();
    let (mut child, started) = begun(place.path());

    signal(child.id(), Signal::SIGKILL);

    child.wait().expect("an end");
    until_gone(&started);
}

#[test]
fn workers_that_are_frozen_end_with_a_coordinator_that_is_killed() {
    let mut command = binary("muster-load");
    command.args(["faults", "half-open", "--sessions", "20", "--faulty", "20", "--messages", "1"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a run");
    let started = wait_for("a frozen worker", || {
        let started = children(child.id());
        started.iter().any(|pid| state(*pid) == Some('T')).then_some(started)
    });

    signal(child.id(), Signal::SIGKILL);

    child.wait().expect("an end");
    until_gone(&started);
}

#[test]
fn what_cannot_be_measured_is_told_with_what_to_do() {
    let empty = folder();
    let home = empty.path().to_string_lossy().into_owned();
    let load = |words: &[&str]| run(binary("muster-load").args(words));

    load(&["idle", "--home", &home]).with_code(1).naming(&[&home, "muster dev --dir"]);
    load(&["storm", "--home", &home]).with_code(1).naming(&["leave --home away"]);
    load(&["churn", "--sessions", "10", "--rate", "20"]).with_code(1).naming(&["--rate 20", "sessions"]);
    load(&["idle", "--report", "/nowhere/x.html"])
        .with_code(1)
        .naming(&["/nowhere/x.html", "no such folder"]);
    load(&["idle", "--sessions", "0"]).with_code(2).naming(&["--sessions"]);
    load(&["idle", "--pid", "1"]).with_code(2).naming(&["--home"]);
    load(&["proxy", "--listen", "0.0.0.0:0", "--to", "127.0.0.1:1"]).with_code(1).naming(&["loopback"]);
}

/// Starts a run that lasts long, and waits until its Switch and a worker are there.
fn begun(place: &Path) -> (std::process::Child, Vec<u32>) {
    let mut command = binary("muster-load");
    command.args(["soak", "--sessions", "50", "--for", "10m"]).env("TMPDIR", place);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("a run");
    let started = wait_for("Switch and worker", || {
        let started = children(child.id());
        let names: Vec<String> = started.iter().map(|pid| name(*pid)).collect();
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        (has("muster-switch") && has("muster-load")).then_some(started)
    });
    (child, started)
}

fn name(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

pub(super) fn until_gone(started: &[u32]) {
    wait_until("everything to end", || started.iter().all(|pid| name(*pid).is_empty() || is_zombie(*pid)));
}

/// Whether it has ended, and nobody has asked how.
fn is_zombie(pid: u32) -> bool {
    state(pid).is_none_or(|state| state == 'Z')
}

/// As the kernel names it; nothing of a process that is gone.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal).expect("a signal");
}
