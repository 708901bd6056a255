//! The machine that was measured on.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use serde::Serialize;

use crate::measure::cores::Cores;
use crate::tls::Suite;

/// The Switch that is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Switch {
    pub(crate) pid: Option<u32>,
    pub(crate) suite: Suite,
}

impl Switch {
    fn build(&self) -> String {
        let program = self.pid.and_then(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).ok());
        let folder = program.as_deref().and_then(Path::parent).and_then(Path::file_name);
        folder.map_or_else(|| "unknown".to_owned(), |folder| folder.to_string_lossy().into_owned())
    }
}

/// Asks git; a program that was installed has no tree.
fn commit() -> String {
    let described = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=12"])
        .stderr(Stdio::null())
        .output();
    described
        .ok()
        .filter(|output| output.status.success())
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

/// What a figure depends on besides the code.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    /// Those that may be used.
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    /// Of this program.
    pub(crate) version: String,
    /// Of the tree that this program was built from, as it is now; empty where that is gone.
    pub(crate) commit: String,
    /// When, UTC.
    pub(crate) date: String,
    /// Whether this program was built to be measured.
    pub(crate) build: &'static str,
    /// The folder that the Switch's program lies in, which cargo names by how it was built.
    pub(crate) switch_build: String,
    /// Threads that hold the Switch's sessions; 0 where it is not known.
    pub(crate) shards: usize,
    pub(crate) suite: Suite,
    pub(crate) pinned: Cores,
    /// Whether the Switch is on its core, which one that ran before is not.
    pub(crate) is_switch_pinned: bool,
}

impl Machine {
    /// This one, with a Switch of this run's own or another.
    pub(crate) fn this(pinned: &Cores, is_own: bool, switch: &Switch) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let kib = field(&read("/proc/meminfo"), "MemTotal");
        let kib: f64 = kib.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or_default();
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            cores: (pinned.load.len() + usize::from(pinned.server.is_some())).max(1),
            memory_gib: (kib / 1_048_576.0 * 10.0).round() / 10.0,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: commit(),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            build: if cfg!(debug_assertions) { "dev" } else { "release" },
            switch_build: switch.build(),
            shards: 0,
            suite: switch.suite,
            pinned: pinned.clone(),
            is_switch_pinned: is_own && pinned.server.is_some(),
        }
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let pinned = match self.pinned.server {
            Some(core) if self.is_switch_pinned => {
                format!("server on core {core}, load on {:?}", self.pinned.load)
            }
            Some(_) => format!("Switch not pinned, load on {:?}", self.pinned.load),
            None => "one core, nothing pinned".to_owned(),
        };
        let Self { processor, cores, memory_gib, kernel, version, commit, date, build, .. } = self;
        format!(
            "{date}, {processor}, {cores} cores, {memory_gib} GiB, Linux {kernel}, muster {version} {commit} ({build} build, Switch {}), \
             {} shards, {:?}, {pinned}",
            self.switch_build, self.shards, self.suite
        )
    }
}
