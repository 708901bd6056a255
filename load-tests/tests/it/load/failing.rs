//! What makes a run count for nothing: each of it ends a run with 1, and is told.

use std::process::{Command, Stdio};

use muster_load_tests::dev_fleet::DevFleet;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::UNSTEADY;
use super::proxy::Proxy;
use crate::support::{Said, binary, children, run, wait_for};

/// A run that fails for a reason.
#[track_caller]
fn fails(words: &[&str], reasons: &[&str]) -> Said {
    run(binary("muster-load").args(words).args(UNSTEADY)).with_code(1).naming(reasons)
}

#[test]
fn a_session_that_ends_in_the_middle_fails_the_run() {
    let ended = ["1 sessions were lost", "--sabotage"];
    let small = ["--sessions", "100", "--sabotage", "end-session"];

    fails(&[&["broadcast", "--rounds", "1", "--burst", "1"], &small[..]].concat(), &ended);
    fails(&[&["ask"], &small[..]].concat(), &ended);
    fails(&[&["soak", "--for", "3s"], &small[..]].concat(), &ended);
}

#[test]
fn a_message_that_does_not_come_fails_the_run() {
    let small = ["--sessions", "100", "--sabotage", "miss-message"];

    fails(
        &[&["broadcast", "--rounds", "1", "--burst", "1"], &small[..]].concat(),
        &["99 of 100 had the message"],
    );
}

#[test]
fn a_message_that_one_did_not_get_in_a_storm_fails_the_run_and_is_not_left_out() {
    let small = ["--sessions", "100", "--sabotage", "miss-message"];

    let said = run(binary("muster-load").arg("storm").args(small).args(UNSTEADY)).with_code(1);

    let told = "muster: 1 times a device that had a session did not get a message, before the kill";
    assert!(said.out.contains(told), "{}", said.out);
}

#[test]
fn a_fault_that_does_not_take_place_a_dead_session_and_a_missing_message_fail_the_run_each() {
    for (fault, sabotage, reason) in [
        (
            "half-open",
            "no-fault",
            "the fault did not take place: muster_switch_sessions_ended_total{reason=\"IDLE\"} rose by 0, at least 20 wanted",
        ),
        ("memory-cap", "end-session", "1 sessions were lost"),
        (
            "memory-cap",
            "miss-message",
            "1 times a device that had a session did not get a message, without the fault",
        ),
    ] {
        let words = [
            "faults",
            fault,
            "--sessions",
            "50",
            "--faulty",
            "20",
            "--messages",
            "2",
            "--sabotage",
            sabotage,
        ];

        let said = run(binary("muster-load").args(words).args(UNSTEADY)).with_code(1);

        assert!(said.out.contains(reason), "{fault}, {sabotage}: {}", said.out);
    }
}

#[test]
fn a_session_that_ends_while_nothing_is_asked_fails_what_holds_them() {
    let fleet = DevFleet::start(0).expect("a fleet");
    let home = fleet.ready.home.to_string_lossy().into_owned();
    // All but the first seconds of each connection.
    let address = fleet.session_address().replace("localhost", "127.0.0.1");
    let proxy = Proxy::before(&address, &["--cut-after", "8s"]);
    let to = proxy.address.to_string();
    let words = ["hold", "--sessions", "20", "--for", "90s", "--home", &home, "--switch", &to];

    let said = run(binary("muster-load").args(words).args(UNSTEADY)).with_code(1);
    assert!(said.out.contains("sessions were lost"), "{}", said.out);
}

#[test]
fn a_worker_that_is_killed_fails_the_run() {
    let told = killed_under("muster-load");

    assert!(told.contains("it has ended") && told.contains("worker"), "{told}");
}

#[test]
fn a_switch_that_is_killed_fails_the_run_and_its_log_is_told() {
    let told = killed_under("muster-switch");

    assert!(told.contains("muster-switch ended (signal: 9"), "{told}");
}

/// Kills a process of a run by its name; gives what the run, which fails, then says.
#[track_caller]
fn killed_under(program: &str) -> String {
    let mut command = binary("muster-load");
    command.args(["soak", "--sessions", "100", "--workers", "2", "--for", "10m"]).args(UNSTEADY);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("a run");
    let victim = wait_for("a process with sessions", || {
        let busy: Vec<u32> = children(child.id()).into_iter().filter(|pid| descriptors(*pid) > 40).collect();
        // The Switch has as many from its start on; two workers have them once their devices do.
        busy.iter().copied().find(|pid| busy.len() == 3 && name(*pid) == program)
    });

    kill(Pid::from_raw(i32::try_from(victim).expect("a pid")), Signal::SIGKILL).expect("a signal");

    let output = child.wait_with_output().expect("an end");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    told
}

#[test]
fn a_floor_that_moves_fails_the_run() {
    let mut command = binary("muster-load");
    command.args(["broadcast", "--sessions", "50", "--rounds", "1", "--burst", "1", "--tolerance", "0%"]);

    let said = run(&mut command).with_code(1);

    assert!(said.out.contains("THE RUN COUNTS FOR NOTHING: the floor of"), "{}", said.out);
}

#[test]
fn what_cannot_be_compared_or_held_is_refused_at_once() {
    let home = ["idle", "--home", "/", "--peer", "nats"];
    let refused = |words: &[&str], reasons: &[&str]| {
        run(binary("muster-load").args(words)).with_code(1).naming(reasons);
    };

    refused(&home, &["--peer with --home"]);
    refused(&["connect", "--suite", "hybrid", "--peer", "nats"], &["--suite hybrid", "X25519MLKEM768"]);
    refused(&["idle", "--sessions", "999"], &["--sessions 999", "1000"]);
    refused(&["hold", "--sessions", "10", "--for", "60s"], &["--for 60s", "heartbeat"]);
    refused(&["faults", "half-open", "--home", "/"], &["leave --home away"]);
    refused(&["faults", "descriptors", "--faulty", "255"], &["--faulty 255", "at least 256"]);
    refused(&["faults", "memory-cap", "--deadline", "3s"], &["--deadline", "memory-cap"]);
    run(binary("muster-load").arg("faults")).with_code(2).naming(&["<FAULT>"]);
    run(binary("muster-load").args(["soak", "--rounds", "2"])).with_code(2).naming(&["--rounds"]);
    let mut limited = Command::new("sh");
    let load = binary("muster-load").get_program().to_string_lossy().into_owned();
    limited.args(["-c", "ulimit -n 1000; exec \"$0\" idle --sessions 1000 --peer nats", &load]);
    run(&mut limited).with_code(1).naming(&["1000 sessions", "may hold 744", "ulimit -Hn"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 1000; exec \"$0\" faults slowloris --sessions 100", &load]);
    run(&mut limited).with_code(1).naming(&["--sessions and --faulty", "at most 744"]);
}

fn name(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or_default()
}
