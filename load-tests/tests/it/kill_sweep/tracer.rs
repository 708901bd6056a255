//! `strace` on a running process, set to kill it as it enters its N-th fsync, or to let that fsync fail.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::{Service, kill, wait_until};

/// What becomes of an fsync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// The process is killed as it enters the call: what the call would have made durable, nobody was told of.
    Kill,
    /// The disk says that it could not write.
    Eio,
    /// The disk says, late, that it is full.
    Enospc,
}

/// A process that meets a fault at an fsync to come.
#[derive(Debug)]
pub(super) struct Tracer {
    strace: Service,
    trace: PathBuf,
    fault: Fault,
    nth: u32,
}

impl Fault {
    /// As `strace` is told.
    fn injection(self) -> &'static str {
        match self {
            Self::Kill => "signal=KILL",
            Self::Eio => "error=EIO",
            Self::Enospc => "error=ENOSPC",
        }
    }

    /// What the trace shows once it came.
    fn mark(self) -> &'static str {
        match self {
            Self::Kill => "killed by SIGKILL",
            Self::Eio | Self::Enospc => "(INJECTED)",
        }
    }
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
    /// Attaches to the threads of a process, so that its N-th fsync from here on is its last good one or none at all.
    /// Programs that it starts are not followed: an SQL helper is never the victim.
    #[track_caller]
    pub(super) fn attach(pid: u32, nth: u32, fault: Fault, folder: &Path) -> Self {
        let trace = folder.join(format!("fsync-{nth}.trace"));
        let mut command = Command::new("strace");
        command.args(["-qq", "-y", "-e", "trace=fsync,fdatasync"]);
        command.args(["-e", &format!("inject=fsync,fdatasync:{}:when={nth}", fault.injection())]);
        command.arg("-o").arg(&trace);
        let threads = threads(pid);
        for thread in &threads {
            command.args(["-p", &thread.to_string()]);
        }
        let strace = Service::start(command, &folder.join("strace.log"));
        let mut tracer = Self { strace, trace, fault, nth };
        wait_until("strace to attach", || {
            // A process that comes to an fsync of its own meanwhile ends with its tracer.
            let has_ended = !tracer.strace.runs();
            assert!(
                !has_ended || tracer.came(),
                "strace cannot attach (as another user than root it needs kernel.yama.ptrace_scope = 0):\n{}",
                tracer.strace.log()
            );
            has_ended || threads.iter().all(|thread| is_traced(pid, *thread))
        });
        tracer
    }

    /// Where the process met the fault, if it did; otherwise it is let go.
    pub(super) fn point(mut self) -> Option<Point> {
        if self.strace.runs() && !self.came() {
            kill(self.strace.pid(), Signal::SIGTERM);
        }
        self.strace.ends();
        if !self.came() {
            return None;
        }
        let trace = std::fs::read_to_string(&self.trace).expect("a trace");
        let last = match self.fault {
            Fault::Kill => killed_in(&trace, self.nth),
            Fault::Eio | Fault::Enospc => trace.lines().find(|line| line.contains(self.fault.mark())),
        };
        let last = last.unwrap_or_else(|| panic!("no thread came to fsync {}:\n{trace}", self.nth));
        let file = last.split_once('<')?.1.split_once('>')?.0.rsplit('/').next()?.to_owned();
        Some(Point { nth: self.nth, file })
    }

    fn came(&self) -> bool {
        std::fs::read_to_string(&self.trace).is_ok_and(|trace| trace.contains(self.fault.mark()))
    }
}

/// The call in which a thread was killed.
///
/// Strace counts for each thread; of the one that was killed the trace has exactly N calls. Calls of others that it shows
/// after that are no calls: strace repeats the last one for threads that die meanwhile.
fn killed_in(trace: &str, nth: u32) -> Option<&str> {
    let mut calls: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in trace.lines().filter(|line| line.contains("sync(")) {
        calls.entry(line.split_whitespace().next()?).or_default().push(line);
    }
    let wanted = usize::try_from(nth).ok()?;
    calls.values().find(|calls| calls.len() == wanted)?.last().copied()
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
