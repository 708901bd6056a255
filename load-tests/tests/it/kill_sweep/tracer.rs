//! `strace` on a running process, set to kill it as it enters its N-th fsync.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::{Service, kill, wait_until};

/// A process that dies at an fsync to come.
///
/// The signal comes as the system call is entered: what the call would have made durable, nobody was told of.
#[derive(Debug)]
pub(super) struct Tracer {
    strace: Service,
    trace: PathBuf,
    nth: u32,
}

/// Where a process died.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    /// The fsync, from 1, since the question was put.
    pub(super) nth: u32,
    /// The file's name.
    pub(super) file: String,
}

impl Tracer {
    /// Attaches to the threads of a process, so that its N-th fsync from here on is its last. Programs that it starts
    /// are not followed: an SQL helper is never the victim.
    #[track_caller]
    pub(super) fn attach(pid: u32, nth: u32, folder: &Path) -> Self {
        let trace = folder.join(format!("fsync-{nth}.trace"));
        let mut command = Command::new("strace");
        command.args(["-qq", "-y", "-e", "trace=fsync,fdatasync"]);
        command.args(["-e", &format!("inject=fsync,fdatasync:signal=KILL:when={nth}")]);
        command.arg("-o").arg(&trace);
        let threads = threads(pid);
        for thread in &threads {
            command.args(["-p", &thread.to_string()]);
        }
        let mut strace = Service::start(command, &folder.join("strace.log"));
        wait_until("strace to attach", || {
            assert!(
                strace.runs(),
                "strace cannot attach (as another user than root it needs kernel.yama.ptrace_scope = 0):\n{}",
                strace.log()
            );
            threads.iter().all(|thread| is_traced(pid, *thread))
        });
        Self { strace, trace, nth }
    }

    /// Where the process died, if it did by this tracer; otherwise it is let go.
    pub(super) fn point(mut self) -> Option<Point> {
        if self.strace.runs() && !self.killed() {
            kill(self.strace.pid(), Signal::SIGTERM);
        }
        self.strace.ends();
        if !self.killed() {
            return None;
        }
        let trace = std::fs::read_to_string(&self.trace).expect("a trace");
        // Strace counts for each thread; of the one that was killed the trace has exactly N calls. Calls of others that it
        // shows after that are no calls: strace repeats the last one for threads that die meanwhile.
        let mut calls: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for line in trace.lines().filter(|line| line.contains("sync(")) {
            calls.entry(line.split_whitespace().next()?).or_default().push(line);
        }
        let wanted = usize::try_from(self.nth).ok()?;
        let last = calls.values().find(|calls| calls.len() == wanted).and_then(|calls| calls.last());
        let last = last.unwrap_or_else(|| panic!("no thread died at fsync {}:\n{trace}", self.nth));
        let file = last.split_once('<')?.1.split_once('>')?.0.rsplit('/').next()?.to_owned();
        Some(Point { nth: self.nth, file })
    }

    fn killed(&self) -> bool {
        std::fs::read_to_string(&self.trace).is_ok_and(|trace| trace.contains("killed by SIGKILL"))
    }
}

fn threads(pid: u32) -> Vec<u32> {
    let folder = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn is_traced(pid: u32, thread: u32) -> bool {
    // A thread that ended meanwhile needs no tracer.
    std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).map_or(true, |status| {
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    })
}
