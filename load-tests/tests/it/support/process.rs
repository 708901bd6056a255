//! Services that a test starts by hand, with their logs in files; they end with the test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

use super::{LOOK, PATIENCE, system};

/// Lines of a service's log that a failing test shows.
const LAST_LINES: usize = 40;

/// A running service.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts a command that logs into `log`.
    #[track_caller]
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged, from its first start.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it ends of itself, and gives its exit code.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            std::thread::sleep(LOOK);
        }
        panic!("it still runs after {PATIENCE:?}:\n{}", self.log());
    }

    /// Stops it in order; it must end with 0.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        kill(self.pid(), Signal::SIGTERM);
        let code = self.ends();
        assert_eq!(code, Some(0), "it did not stop in order:\n{}", self.log());
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Service {
    /// Ends it; of a test that fails, it shows what the service said last.
    fn drop(&mut self) {
        let runs = self.runs();
        if runs {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        if std::thread::panicking() {
            let (log, path) = (self.log(), self.log.display());
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default();
            let state = if runs { "ran" } else { "had ended" };
            eprintln!("-- {path}, the end of it; the service {state}\n{}", last.join("\n"));
        }
    }
}

/// Sends a signal to a process by its number.
#[track_caller]
pub(crate) fn kill(pid: u32, signal: Signal) {
    let number = i32::try_from(pid).expect("a process id");
    send(Pid::from_raw(number), signal).unwrap_or_else(|error| panic!("signal {signal} to {pid}: {error}"));
}

/// The processes below a process, at any depth, by `ps`.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let listed = system("ps", &["-e", "-o", "pid=,ppid="]);
    let pairs: Vec<(u32, u32)> = listed
        .lines()
        .iter()
        .filter_map(|line| {
            let mut words = line.split_whitespace().map(str::parse);
            Some((words.next()?.ok()?, words.next()?.ok()?))
        })
        .collect();
    let mut found = vec![pid];
    let mut place = 0;
    while let Some(parent) = found.get(place).copied() {
        found.extend(pairs.iter().filter(|(_, above)| *above == parent).map(|(child, _)| *child));
        place += 1;
    }
    found.split_off(1)
}
