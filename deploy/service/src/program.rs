//! What the command line of every long-running program shares.
//!
//! ```text
//! muster-switch run [--config FILE] [--conf-d FOLDER]
//! muster-switch config check [FILE] [--files]
//! muster-switch config explain [--config FILE]
//! ```
//! A program fills in [`Program`]; its `main` is [`main`], or [`parse`] and [`standard`] where it has commands of its own.
//! Exit codes are those of [`crate::exit`].

mod arguments;

use std::collections::BTreeSet;
use std::future::Future;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::arguments::{ConfigCommand, ConfigFiles, Standard, parse};
use crate::config::{self, CheckDepth, ConfigErrors, Loaded, Sources, Validate};
use crate::exit::{self, Ended};
use crate::shutdown::{Shutdown, Signal, signal};
use crate::telemetry::{self, LogConfig};

/// What a program fills in.
pub trait Program {
    /// Everything it can be told.
    type Config: DeserializeOwned + Serialize + Default + Validate;

    /// The binary's name, such as `muster-switch`.
    const NAME: &'static str;
    /// One sentence for `--help`.
    const ABOUT: &'static str;
    /// The version, for `--version`.
    const VERSION: &'static str;
    /// How environment variables that are keys begin, such as `MUSTER_SWITCH_`; `<prefix>CONFIG` names the file.
    const ENV_PREFIX: &'static str;
    /// The configuration that is read where none is named, such as `/etc/muster/switch.toml`.
    const DEFAULT_CONFIG: &'static str;

    /// Returns what is logged, and how.
    fn log(config: &Self::Config) -> &LogConfig;

    /// Opens every file that the configuration names, and tells all that is wrong; each text names its file. What is
    /// said twice is told once.
    fn check_files(config: &Self::Config) -> Vec<String>;

    /// Runs until a signal or a fault ends it.
    ///
    /// # Errors
    /// Why it did not start, or ended by itself.
    fn run(config: Self::Config) -> Result<(), Ended>;
}

/// Does what the command line says, for a program without commands of its own.
#[must_use]
pub fn main<P: Program>() -> ExitCode {
    standard::<P>(&parse::<P, arguments::Arguments>().command)
}

/// Does a command that every program has.
#[must_use]
pub fn standard<P: Program>(command: &Standard) -> ExitCode {
    match command {
        Standard::Run(files) => run::<P>(files),
        Standard::Config(ConfigCommand::Check { file, config, conf_d, files }) => {
            let named =
                ConfigFiles { config: file.clone().or_else(|| config.clone()), conf_d: conf_d.clone() };
            check::<P>(&named, CheckDepth::from_flag(*files))
        }
        Standard::Config(ConfigCommand::Explain(files)) => match load::<P>(files) {
            Ok(loaded) => print(&loaded.explain().to_string()),
            Err(errors) => exit::refuse_config(P::NAME, &errors),
        },
    }
}

/// Reads the configuration: the file named, else that of the environment, else the default one.
///
/// # Errors
/// Returns every mistake; where there is no file, what was looked for and how to name another.
pub fn load<P: Program>(files: &ConfigFiles) -> Result<Loaded<P::Config>, ConfigErrors> {
    config::load(P::NAME, &sources::<P>(files))
}

/// Prints a line or more to standard output.
#[must_use]
pub fn print(text: &str) -> ExitCode {
    let line_end = if text.ends_with('\n') { "" } else { "\n" };
    match write!(std::io::stdout(), "{text}{line_end}") {
        Ok(()) => ExitCode::from(exit::OK),
        Err(_) => ExitCode::from(exit::FAILURE),
    }
}

/// Runs an asynchronous service on a runtime of its own until a signal or a fault ends it: `start` with the process's
/// [`Shutdown`], then `wait`, which ends after the shutdown was triggered, or by itself.
///
/// # Errors
/// What `start` or `wait` return, or that the system gave no runtime.
pub fn serve<R, S, W>(
    name: &'static str,
    workers: NonZeroUsize,
    start: impl FnOnce(Shutdown) -> S,
    wait: impl FnOnce(R, Shutdown) -> W,
) -> Result<(), Ended>
where
    S: Future<Output = Result<R, Ended>>,
    W: Future<Output = Result<(), Ended>>,
{
    let runtime = crate::runtime(name, workers).map_err(|error| Ended::new(exit::UNAVAILABLE, &error))?;
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        // Handlers stand before anything listens, so that whoever sees it answer can stop it in order.
        let signalled = signal();
        let running = Box::pin(start(shutdown.clone())).await?;
        let mut ended = pin!(wait(running, shutdown.clone()));
        tokio::select! {
            biased;
            ended = &mut ended => return ended,
            () = until_stopped(&shutdown, signalled) => {}
        }
        ended.await
    })
}

/// Waits for a signal, or for `shutdown` to be triggered by whoever else; it is triggered afterwards.
pub async fn until_stopped(shutdown: &Shutdown, signalled: impl Future<Output = std::io::Result<Signal>>) {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        signalled = signalled => match signalled {
            Ok(signal) => tracing::info!(?signal, "stopping"),
            Err(error) => tracing::error!(%error, "signals cannot be waited for; stopping"),
        },
    }
    shutdown.trigger();
}

fn run<P: Program>(files: &ConfigFiles) -> ExitCode {
    let config = match load::<P>(files) {
        Ok(loaded) => loaded.into_config(),
        Err(errors) => return exit::refuse_config(P::NAME, &errors),
    };
    if let Err(error) = telemetry::init(P::log(&config)) {
        return exit::refuse(P::NAME, &error, exit::CONFIG);
    }
    match P::run(config) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(ended) => exit::refuse(P::NAME, &ended, ended.code()),
    }
}

/// Tells every mistake in the configuration and, if asked, in the files that it names.
fn check<P: Program>(files: &ConfigFiles, depth: CheckDepth) -> ExitCode {
    let sources = sources::<P>(files);
    let mut inspected = config::inspect::<P::Config>(P::NAME, &sources);
    let mut mistakes = std::mem::take(&mut inspected.mistakes);
    if depth == CheckDepth::Files
        && let Some(loaded) = &inspected.loaded
    {
        let problems = P::check_files(loaded.config()).into_iter();
        // A file that serves two ends, such as a CRL, is read for each.
        let mut told = BTreeSet::new();
        let errors = problems.filter_map(|problem| inspected.blame_file(problem));
        mistakes.extend(errors.filter(|error| told.insert(error.to_string())));
    }
    if !mistakes.is_empty() {
        return exit::refuse_config(P::NAME, &ConfigErrors::new(mistakes));
    }
    let file = sources.file.unwrap_or_default();
    match depth {
        CheckDepth::Values => {
            print(&format!("{}: in order; --files also opens what it names", file.display()))
        }
        CheckDepth::Files => print(&format!("{}: in order", file.display())),
    }
}

fn sources<P: Program>(files: &ConfigFiles) -> Sources {
    let variable = |name: &str| std::env::var_os(format!("{}{name}", P::ENV_PREFIX)).map(PathBuf::from);
    let named = files.config.clone().or_else(|| variable("CONFIG"));
    let default = Path::new(P::DEFAULT_CONFIG);
    let hint = hint::<P>(if named.is_some() { Asked::ByName } else { Asked::Nowhere });
    let file = named.unwrap_or_else(|| default.to_owned());
    let folder = default.file_stem().map(|stem| Path::new(stem).with_extension("d")).unwrap_or_default();
    let beside = || file.parent().map(|parent| parent.join(folder));
    let conf_d = files.conf_d.clone().or_else(|| variable("CONF_D")).or_else(beside);
    Sources { file: Some(file), hint, conf_d, env_prefix: P::ENV_PREFIX.to_owned(), flags: Vec::new() }
}

/// Whether anyone said which configuration to read.
#[derive(Clone, Copy)]
enum Asked {
    ByName,
    Nowhere,
}

/// What to do when the configuration is not there.
fn hint<P: Program>(asked: Asked) -> String {
    let default = Path::new(P::DEFAULT_CONFIG);
    let example = default.file_name().unwrap_or_default().to_string_lossy();
    let example = format!("deploy/config/{example} is an example with every key");
    match asked {
        Asked::ByName => {
            format!("; name another with --config FILE, or none to read {}; {example}", P::DEFAULT_CONFIG)
        }
        Asked::Nowhere => format!(
            ", where {} looks by itself; name another with --config FILE or {}CONFIG, or put one there; {example}",
            P::NAME,
            P::ENV_PREFIX
        ),
    }
}

#[cfg(test)]
mod tests;
