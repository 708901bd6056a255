//! A development fleet of built binaries, started for a test or a benchmark and ended with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

/// From the start until the ready file is there.
const READY_DEADLINE: Duration = Duration::from_secs(90);
/// From SIGTERM to SIGKILL.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// How often the ready file is looked for.
const POLL: Duration = Duration::from_millis(20);

/// What the ready file says.
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    /// The session endpoint, `wss://…`.
    pub switch: String,
    /// The operator API, `host:port`.
    pub operator: String,
    /// The Background Channel's base URL.
    pub background_channel: String,
    /// The Switch's admin address, `http://…`.
    pub admin: String,
    /// The home folder.
    pub home: PathBuf,
    /// Process ids.
    pub pid: Pids,
    /// The publisher's key.
    pub publisher_key: PathBuf,
    /// The publisher's certificate.
    pub publisher_cert: PathBuf,
}

/// Process ids of a fleet.
#[derive(Debug, Clone, Deserialize)]
pub struct Pids {
    /// `muster dev`, with Switch and Background Channel in it.
    pub dev: u32,
    /// The clients.
    pub clients: Vec<u32>,
}

/// A running `muster dev`.
#[derive(Debug)]
pub struct DevFleet {
    /// What it told.
    pub ready: Ready,
    child: Child,
    folder: Folder,
}

#[derive(Debug)]
enum Folder {
    Own(tempfile::TempDir),
    Given(PathBuf),
}

impl DevFleet {
    /// Starts a fleet in a temporary folder.
    ///
    /// # Errors
    /// It does not become ready; its log is in the error.
    pub fn start(clients: u16) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("muster-").tempdir()?;
        Self::start_in(Folder::Own(folder), clients)
    }

    /// Starts a fleet in a folder that is there before and after.
    ///
    /// # Errors
    /// It does not become ready; its log is in the error.
    pub fn start_at(folder: &Path, clients: u16) -> anyhow::Result<Self> {
        Self::start_in(Folder::Given(folder.to_owned()), clients)
    }

    fn start_in(folder: Folder, clients: u16) -> anyhow::Result<Self> {
        let path = folder.path().to_owned();
        let (ready_file, log_path) = (path.join("ready.json"), path.join("dev.log"));
        drop(std::fs::remove_file(&ready_file));
        let log = std::fs::File::create(&log_path)?;
        let mut child = Command::new(binary("muster"))
            .args(["dev", "--ports", "auto", "--clients", &clients.to_string()])
            .arg("--dir")
            .arg(&path)
            .arg("--ready-file")
            .arg(&ready_file)
            .env_remove("MUSTER_HOME")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| {
                format!("{}: build it first, cargo build --workspace --bins", binary("muster").display())
            })?;
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            if let Ok(bytes) = std::fs::read(&ready_file) {
                let ready = serde_json::from_slice(&bytes).context("the ready file")?;
                return Ok(Self { ready, child, folder });
            }
            let ended = child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                drop(child.kill());
                let log = std::fs::read_to_string(&log_path).unwrap_or_default();
                bail!("the fleet did not become ready ({ended:?}):\n{log}\n{}", client_logs(&path));
            }
            std::thread::sleep(POLL);
        }
    }

    /// The folder of its stores.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The `host:port` of its session endpoint.
    #[must_use]
    pub fn session_address(&self) -> &str {
        let rest = self.ready.switch.split_once("://").map_or(self.ready.switch.as_str(), |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }

    /// A `muster` command in its home.
    #[must_use]
    pub fn muster(&self) -> Command {
        let mut command = Command::new(binary("muster"));
        command.env("MUSTER_HOME", &self.ready.home).stdin(Stdio::null());
        command
    }

    /// What it and its clients logged.
    #[must_use]
    pub fn logs(&self) -> String {
        let own = std::fs::read_to_string(self.folder().join("dev.log")).unwrap_or_default();
        format!("{own}\n{}", client_logs(self.folder()))
    }

    /// Kills it as a power cut would, its clients with it.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it in order and gives its exit code.
    ///
    /// # Errors
    /// It did not stop in time.
    pub fn stop(&mut self) -> anyhow::Result<Option<i32>> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let deadline = Instant::now() + STOP_DEADLINE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            std::thread::sleep(POLL);
        }
        bail!("it did not stop within {STOP_DEADLINE:?}:\n{}", self.logs())
    }
}

impl Drop for DevFleet {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Its clients end with it: they ask the kernel for that.
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Given(folder) => folder,
        }
    }
}

/// A built binary: beside this program, or beside the test's folder.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let folder = own.parent().unwrap_or_else(|| Path::new("."));
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    folder.join(name)
}

fn client_logs(folder: &Path) -> String {
    let Ok(entries) = std::fs::read_dir(folder.join("clients")) else { return String::new() };
    entries
        .flatten()
        .map(|entry| {
            let log = std::fs::read_to_string(entry.path().join("client.log")).unwrap_or_default();
            format!("-- {}\n{log}", entry.file_name().display())
        })
        .collect()
}
