//! A script and everything that comes of it: started, waited for, and ended as a whole.
use std::collections::HashSet;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill, killpg, raise};
use nix::unistd::Pid;
use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus, wait};

use super::folder::Folder;
use super::tree::descendants;
use crate::error::QueryError;
use crate::helper::execute::ExecuteError;
use crate::helper::protocol::{self, Request};
use crate::query::cgroup::{Cgroup, SCRIPT_PROCESSES_MAX};

/// How long it may take until everything is gone that was killed.
const GONE_GRACE: Duration = Duration::from_secs(2);
/// How long to wait between two looks at what is left.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What is needed to end everything.
struct Bond {
    /// The process that becomes the script, which leads a process group of its own.
    leader: Pid,
    cgroup: Option<Cgroup>,
    /// None: removed.
    folder: Mutex<Option<Folder>>,
    /// Its time was over.
    is_late: AtomicBool,
    /// It was waited for and all of its group was killed, so that its number may be another's.
    is_gone: AtomicBool,
}

/// A process that waits for what it is to become.
pub(super) struct Family {
    child: Child,
    bond: Arc<Bond>,
    path: std::path::PathBuf,
    processes_max: Option<u32>,
}

/// A script that runs.
pub(super) struct Running {
    bond: Arc<Bond>,
    pub(super) output: ChildStdout,
    errors: thread::JoinHandle<Vec<u8>>,
    status: thread::JoinHandle<Option<End>>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By itself, with this code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

/// How a script ended.
pub(super) struct Ended {
    /// None: nobody can tell.
    pub(super) status: Option<End>,
    /// The end of what it wrote on standard error.
    pub(super) errors: Vec<u8>,
    /// Its time was over.
    pub(super) is_late: bool,
}

impl Family {
    /// Starts the process, in a process group and where possible a control group of its own. Says which limits it lacks.
    pub(super) fn start(folder: Folder) -> Result<(Self, Vec<String>), QueryError> {
        let spawn = |detail: String| QueryError::Spawn { program: "/proc/self/exe".to_owned(), detail };
        let mut missing = Vec::new();
        // What loses its parent becomes this process's child, wherever it went.
        if let Err(error) = set_child_subreaper(true) {
            missing.push(format!("subreaper: {error}"));
        }
        let child = Command::new("/proc/self/exe")
            .args(std::env::args_os().skip(1))
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", folder.path())
            .env("TMPDIR", folder.path())
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| spawn(error.to_string()))?;
        let leader =
            i32::try_from(child.id()).map(Pid::from_raw).map_err(|error| spawn(error.to_string()))?;
        // It waits for its request, so it does nothing before it is in the group.
        let (cgroup, lacks) = match Cgroup::around(child.id(), std::process::id(), SCRIPT_PROCESSES_MAX) {
            Ok((cgroup, lacks)) => (Some(cgroup), lacks),
            Err(reason) => (None, vec![reason]),
        };
        let is_bounded = cgroup.is_some() && !lacks.iter().any(|lack| lack.contains("pids"));
        missing.extend(lacks);
        let path = folder.path().to_owned();
        let (is_late, is_gone) = (AtomicBool::new(false), AtomicBool::new(false));
        let bond = Bond { leader, cgroup, folder: Mutex::new(Some(folder)), is_late, is_gone };
        let processes_max = (!is_bounded).then_some(SCRIPT_PROCESSES_MAX);
        Ok((Self { child, bond: Arc::new(bond), path, processes_max }, missing))
    }

    /// How many processes the script may have; none: its control group says so.
    pub(super) const fn processes_max(&self) -> Option<u32> {
        self.processes_max
    }

    /// The folder of its own.
    pub(super) fn folder(&self) -> &Path {
        &self.path
    }

    /// Has it become the script, reads it by `read`, and ends everything. With the client, everything ends as well.
    pub(super) fn run(
        mut self,
        launch: &Request,
        input: String,
        deadline: Instant,
        read: impl FnOnce(Running) -> Result<(), ExecuteError>,
    ) -> Result<(), ExecuteError> {
        let lacks = |what: &str| ExecuteError::Output(io::Error::other(format!("no {what}")));
        let mut stdin = self.child.stdin.take().ok_or_else(|| lacks("standard input"))?;
        let output = self.child.stdout.take().ok_or_else(|| lacks("standard output"))?;
        let errors = self.child.stderr.take().ok_or_else(|| lacks("standard error"))?;
        let launch = protocol::encode(launch)?;

        let bond = Arc::clone(&self.bond);
        thread::Builder::new().name("client".to_owned()).spawn(move || {
            let mut byte = [0];
            // A second request is none: whatever comes, or nothing any more, the client is done with this process.
            let _ended: io::Result<usize> = io::stdin().lock().read(&mut byte);
            bond.end();
            bond.remove_folder();
            let _unreachable: nix::Result<()> = raise(Signal::SIGKILL);
        })?;
        thread::Builder::new().name("input".to_owned()).spawn(move || {
            // A script need not read it.
            let _tried: io::Result<()> =
                stdin.write_all(&launch).and_then(|()| stdin.write_all(input.as_bytes()));
        })?;
        let errors = thread::Builder::new().name("errors".to_owned()).spawn(move || tail(errors))?;
        let bond = Arc::clone(&self.bond);
        let status = thread::Builder::new().name("status".to_owned()).spawn(move || bond.wait(deadline))?;
        let read = read(Running { bond: Arc::clone(&self.bond), output, errors, status });
        self.bond.end();
        self.bond.remove_folder();
        read
    }
}

impl Running {
    /// Ends everything now.
    pub(super) fn end_early(&self) {
        self.bond.end();
    }

    /// Waits until the script has ended.
    pub(super) fn wait(self) -> Ended {
        let status = self.status.join().ok().flatten();
        let is_late = self.bond.is_late.load(Ordering::Relaxed);
        let errors = self.errors.join().unwrap_or_default();
        Ended { status, errors, is_late }
    }
}

impl Bond {
    /// Waits for the script, at most until `deadline`; what it leaves behind is ended with it.
    fn wait(&self, deadline: Instant) -> Option<End> {
        let (ended, is_over) = sync_channel::<()>(0);
        thread::scope(|scope| {
            let timer = thread::Builder::new().name("time".to_owned()).spawn_scoped(scope, move || {
                let left = deadline.saturating_duration_since(Instant::now());
                if is_over.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
                    self.is_late.store(true, Ordering::Relaxed);
                    self.end();
                }
            });
            if timer.is_err() {
                // Nobody would end it.
                self.end();
            }
            let status = self.reap();
            drop(ended);
            // What is left holds its standard output open, which is read to its end.
            self.end();
            self.is_gone.store(true, Ordering::Relaxed);
            status
        })
    }

    /// Waits for the script, and takes what became this process's child on the way.
    fn reap(&self) -> Option<End> {
        loop {
            match wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) if pid.as_raw_pid() == self.leader.as_raw() => return end(status),
                Ok(Some(_) | None) | Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }

    /// Ends the script and everything that came of it, wherever that has gone; at most [`GONE_GRACE`].
    fn end(&self) {
        let begun = Instant::now();
        let own = std::process::id().cast_signed();
        let mut known = HashSet::new();
        loop {
            if let Some(cgroup) = &self.cgroup {
                cgroup.kill();
            }
            if !self.is_gone.load(Ordering::Relaxed) {
                // An empty group is none to kill.
                let _tried: nix::Result<()> = killpg(self.leader, Signal::SIGKILL);
            }
            let left = descendants(own);
            if left.is_empty() || begun.elapsed() > GONE_GRACE {
                return;
            }
            let mut is_growing = false;
            for pid in left {
                let _gone: nix::Result<()> = kill(Pid::from_raw(pid), Signal::SIGKILL);
                is_growing |= known.insert(pid);
            }
            // Who was not there at the last look may have started others before it was killed.
            if !is_growing {
                thread::sleep(LOOK_AGAIN);
            }
        }
    }

    fn remove_folder(&self) {
        drop(self.folder.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn end(status: WaitStatus) -> Option<End> {
    status.exit_status().map(End::Exit).or_else(|| status.terminating_signal().map(End::Signal))
}

/// Most bytes that are kept of what a script writes on standard error.
const ERRORS_BYTES_MAX: usize = 2 * 1024;

/// Reads all, and returns the end of it.
fn tail(mut errors: ChildStderr) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; ERRORS_BYTES_MAX];
    loop {
        let Ok(read @ 1..) = errors.read(&mut buffer) else { return kept };
        kept.extend_from_slice(buffer.get(..read).unwrap_or_default());
        let surplus = kept.len().saturating_sub(ERRORS_BYTES_MAX);
        kept.drain(..surplus);
    }
}
