//! Processes that end with this one, each on its core: `muster-load launch` sets that up, and becomes the program.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getppid};

use crate::measure::cores;
use crate::report::{allow_descriptors, sessions_a_process};

/// From SIGTERM to SIGKILL.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// What a program may use.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bounds {
    /// The only core it runs on.
    pub(crate) core: Option<usize>,
    /// Descriptors that it may have open; as many as this machine allows where nothing is said.
    pub(crate) files_max: Option<u32>,
}

/// A process that is ended with what holds it.
#[derive(Debug)]
pub(crate) struct Launched {
    child: Child,
    name: String,
    log: std::path::PathBuf,
    /// Whether its end was asked for: then nobody wants to know what it said.
    is_ended: bool,
}

impl Launched {
    /// Starts a program within bounds, its output in a file.
    pub(crate) fn start(
        program: &Path,
        arguments: &[&str],
        bounds: Bounds,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let output = File::create(log).with_context(|| log.display().to_string())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("launch").args(["--parent", &std::process::id().to_string()]);
        if let Some(core) = bounds.core {
            command.args(["--core", &core.to_string()]);
        }
        if let Some(files_max) = bounds.files_max {
            command.args(["--files-max", &files_max.to_string()]);
        }
        command.arg("--").arg(program).args(arguments);
        // A group of its own, so that what a wrapper starts ends with the wrapper.
        command.process_group(0);
        command.env_remove("MUSTER_HOME").stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| name.clone())?;
        Ok(Self { child, name, log: log.to_owned(), is_ended: false })
    }

    /// Its process id: what was launched has that of its launcher.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Refuses a process that has ended, with what it logged.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            self.is_ended = true;
            bail!("{} ended ({status}):\n{}", self.name, self.log_end());
        }
        Ok(())
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill_now(&mut self) -> anyhow::Result<()> {
        self.check()?;
        self.is_ended = true;
        self.kill_group();
        self.child.wait()?;
        Ok(())
    }

    /// Ends it in order.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.check()?;
        self.is_ended = true;
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let deadline = Instant::now() + STOP_DEADLINE;
        while Instant::now() < deadline {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        bail!("{} did not stop within {STOP_DEADLINE:?}:\n{}", self.name, self.log_end())
    }

    fn kill_group(&mut self) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            // A group that is gone already needs no signal.
            killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
        }
    }

    fn log_end(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if !self.is_ended
            && let Err(error) = self.check()
        {
            // Its log goes with its folder. Nobody is left to tell when standard error is closed.
            drop(writeln!(std::io::stderr(), "{error:#}"));
        }
        self.kill_group();
        drop(self.child.wait());
    }
}

/// `muster-load launch`: becomes a program within bounds, that is killed when its parent ends.
///
/// # Errors
/// The program is not there, the core neither, or the parent has ended.
pub(crate) fn become_program(parent: u32, bounds: Bounds, words: &[String]) -> anyhow::Result<()> {
    let [program, arguments @ ..] = words else { bail!("nothing to launch") };
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid().as_raw() != i32::try_from(parent)? {
        bail!("what was to load it has ended");
    }
    if let Some(core) = bounds.core {
        cores::pin(core)?;
    }
    match bounds.files_max {
        // The hard limit, too: a server raises its own as far as it may.
        Some(files_max) => setrlimit(Resource::RLIMIT_NOFILE, files_max.into(), files_max.into())?,
        None => allow_descriptors(sessions_a_process()?)?,
    }
    Err(Command::new(program).args(arguments).exec()).with_context(|| program.clone())
}
