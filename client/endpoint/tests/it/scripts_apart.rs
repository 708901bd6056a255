//! Scripts where the machine gives less than it could: fewer rights, no control group, a watcher that is killed.
use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use muster_endpoint::{HelperCommand, QueryError, SandboxProfile, Script, SqlValue, Work, run_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::sandbox::can_make_every_layer;
use crate::scripts::{action, processes, run, run_by, script};
use crate::support::{helper, lacks};

/// The helper, started by another program.
fn helper_by(program: &str, words: &[&str], helper: &Path) -> HelperCommand {
    let arguments = words.iter().map(|word| (*word).into()).chain([helper.into()]).collect();
    HelperCommand { program: program.into(), arguments, ..crate::support::helper() }
}

/// The helper where it can have no control group.
fn helper_without_a_group() -> HelperCommand {
    let hide = "mount -t tmpfs none /sys/fs/cgroup && exec \"$0\"";
    helper_by("/usr/bin/unshare", &["-m", "--propagation", "private", "sh", "-c", hide], &helper().program)
}

fn has_no_group() -> bool {
    let missing = run(action("printf '{\"said\":\"x\"}\\n'")).unwrap().sandbox_missing;
    let is_group = |layer: &String| layer.starts_with("cgroup: ") && !layer.ends_with("controller");
    lacks("cgroup", missing.iter().any(is_group), &format!("{missing:?}: let the tests make control groups"))
}

fn is_no_root() -> bool {
    lacks("root", !nix::unistd::geteuid().is_root(), "run the tests as root")
}

/// As root below the unit that is shipped.
fn helper_with_the_rights_of_the_unit() -> HelperCommand {
    let unit = include_str!("../../../../deploy/systemd/muster-client.service");
    let rights = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let rights: String =
        rights.split(' ').map(|right| format!(",+{}", &right["CAP_".len()..].to_lowercase())).collect();
    let words = ["--bounding-set", &format!("-all{rights}")];
    helper_by("/usr/bin/setpriv", &words, &helper().program)
}

/// Folders of strict scripts.
fn folders_of_nobody() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/tmp").unwrap().flatten();
    let is_nobodys = |found: Metadata| found.uid() == 65_534;
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("muster-step-"))
        .filter(|entry| entry.metadata().is_ok_and(is_nobodys))
        .map(|entry| entry.path())
        .collect()
}

#[test]
fn a_strict_script_gets_as_far_with_the_rights_of_the_shipped_unit_as_with_all() {
    if is_no_root() {
        return;
    }
    let strict = || Script {
        sandbox: SandboxProfile::Strict,
        ..script(
            "echo x > file && mkdir -p a/b && echo y > a/b/c && printf '{\"said\":\"%s\"}\\n' \"$(id -u)\"",
        )
    };

    for outcome in [run(strict()), run_by(&helper_with_the_rights_of_the_unit(), strict())] {
        match outcome {
            Ok(answer) => assert_eq!(answer.rows, [["65534".into()]]),
            Err(QueryError::Sandbox { missing }) => {
                // It got to where it would have been the script.
                assert!(missing.iter().all(|layer| layer.starts_with("cgroup: ")), "{missing:?}");
                lacks("sandbox", can_make_every_layer(), "let the tests have control groups of their own");
            }
            Err(other) => panic!("{other}"),
        }
    }
    let until = Instant::now() + Duration::from_secs(10);
    while !folders_of_nobody().is_empty() {
        assert!(Instant::now() < until, "{:?} are left", folders_of_nobody());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The parent of a process that was called with this, if that is a helper.
fn watcher_of(with: &str) -> Option<Pid> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let read = |path: PathBuf| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let called = entries.filter(|entry| read(entry.path().join("cmdline")).replace('\0', " ").contains(with));
    called
        .filter_map(|entry| {
            let stat = read(entry.path().join("stat"));
            let (_, after) = stat.rsplit_once(") ")?;
            after.split(' ').nth(1)?.parse::<i32>().ok()
        })
        .find(|parent| read(format!("/proc/{parent}/cmdline").into()).contains("muster-sql-helper"))
        .map(Pid::from_raw)
}

#[test]
fn a_watcher_that_is_killed_leaves_nothing_of_its_script_where_there_is_a_control_group() {
    if has_no_group() {
        return;
    }
    let sleep = "98.1234006";
    let text = format!("(setsid sleep {sleep} &) ; setsid sleep {sleep} & while :; do sleep {sleep}; done");
    let killer = std::thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(20);
        let watcher = loop {
            assert!(Instant::now() < until, "it did not start: {:?}", processes(sleep));
            match watcher_of(&format!("sleep {sleep}")) {
                Some(watcher) if processes(&format!("sleep {sleep}")).len() >= 3 => break watcher,
                Some(_) | None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        kill(watcher, Signal::SIGKILL).unwrap();
    });

    let outcome = run(action(&text));

    assert_eq!(processes(sleep), Vec::<String>::new());
    killer.join().unwrap();
    assert!(matches!(outcome, Err(QueryError::Crashed { .. })), "{outcome:?}");
}

#[test]
fn a_process_whose_first_thread_has_ended_is_ended_with_its_script_without_a_control_group() {
    if is_no_root() {
        return;
    }
    let sleep = "98.1234007";
    let text = format!(
        r#"
import ctypes, json, os, platform, threading, time
child = os.fork()
if child == 0:
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    def later():
        time.sleep(1.5)
        os.execvp("sleep", ["sleep", "{sleep}"])
    threading.Thread(target=later).start()
    ctypes.CDLL(None).syscall({{"x86_64": 60, "aarch64": 93}}[platform.machine()], 0)
while ") Z" not in open(f"/proc/{{child}}/stat").read():
    time.sleep(0.01)
print(json.dumps({{"said": "done"}}))"#
    );
    let script = Script { interpreter: "/usr/bin/python3".into(), ..action(&text) };

    let answer = run_by(&helper_without_a_group(), script).unwrap();

    assert!(answer.sandbox_missing.iter().any(|layer| layer.starts_with("cgroup: ")), "{answer:?}");
    // Longer than it would take to be something that is seen.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(processes(&format!("sleep {sleep}")), Vec::<String>::new());
}

#[test]
fn a_script_of_another_user_than_root_has_so_many_processes_without_a_control_group() {
    if is_no_root() {
        return;
    }
    let folder = TempDir::new().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("muster-sql-helper");
    std::fs::copy(helper().program, &program).unwrap();
    // Of whom nobody else has processes: what ended meanwhile would have been counted as others', and leave room for more.
    let words = ["--reuid=61917", "--regid=61917", "--clear-groups"];
    let text = r#"
import json, os, time
made = 0
try:
    while made < 600:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except BlockingIOError:
    pass
print(json.dumps({"said": str(made)}))"#;
    let script = Script { interpreter: "/usr/bin/python3".into(), ..action(text) };

    let answer = run_by(&helper_by("/usr/bin/setpriv", &words, &program), script).unwrap();

    let [SqlValue::Text(made)] = &answer.rows[0][..] else { panic!("{answer:?}") };
    let made: u32 = made.parse().unwrap();
    assert!((100..=256).contains(&made), "{made}");
}

#[test]
fn folders_that_are_nested_deeper_than_a_process_may_open_files_go_with_their_script() {
    let limited = helper_by("/usr/bin/prlimit", &["--nofile=256:256"], &helper().program);
    let text = r#"
import json, os
print(json.dumps({"said": os.getcwd()}))
for _ in range(400):
    os.mkdir("below")
    os.chdir("below")"#;
    let script = Script { interpreter: "/usr/bin/python3".into(), ..action(text) };

    let answer = run_by(&limited, script).unwrap();

    let [SqlValue::Text(folder)] = &answer.rows[0][..] else { panic!("{answer:?}") };
    assert!(folder.starts_with("/tmp/muster-step-"), "{folder}");
    assert!(!Path::new(folder).exists(), "{folder}");
}

#[test]
fn what_is_stopped_returns_when_nothing_of_it_runs_any_more() {
    let sleep = "98.1234008";
    let text = format!("(setsid sleep {sleep} &) ; sleep {sleep}");
    let begun = async {
        while processes(&format!("sleep {sleep}")).len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut rows: Vec<Vec<SqlValue>> = Vec::new();

    let outcome = runtime.block_on(run_until(&helper(), Work::Script(action(&text)), &mut rows, begun));

    assert_eq!(processes(sleep), Vec::<String>::new());
    assert_eq!(outcome, Err(QueryError::Stopped));
}
