//! What the binary does, so that tests reach all of it but the parsing of arguments.

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use muster_service::config::{CheckDepth, ConfigError, Loaded, Sources, load};
use muster_service::shutdown::{Shutdown, signal};
use muster_service::{exit, telemetry};

use crate::config::Config;
use crate::start::{self, StartError};

const PROGRAM: &str = "muster-background-channel";

/// Environment variables that are keys begin so.
const ENV_PREFIX: &str = "MUSTER_BACKGROUND_CHANNEL_";

/// Runs the Background Channel until a signal or a failure ends it.
#[must_use]
pub fn run(file: Option<PathBuf>) -> ExitCode {
    let config = match load_config(file) {
        Ok(loaded) => loaded.into_config(),
        Err(error) => return exit::refuse_config(PROGRAM, &error),
    };
    if let Err(error) = telemetry::init(&config.log) {
        return exit::refuse(PROGRAM, &error, exit::CONFIG);
    }
    let workers = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    match muster_service::runtime(PROGRAM, workers) {
        Ok(runtime) => runtime.block_on(Box::pin(until_stopped(config))),
        Err(error) => exit::refuse(PROGRAM, &error, exit::FAILURE),
    }
}

/// Checks a configuration file and, if asked, the certificates and roots it names.
#[must_use]
pub fn check_config(file: &Path, depth: CheckDepth) -> ExitCode {
    let config = match load_config(Some(file.to_owned())) {
        Ok(loaded) => loaded.into_config(),
        Err(error) => return exit::refuse_config(PROGRAM, &error),
    };
    if depth == CheckDepth::Values {
        return print(&format!("{}: in order; --files also opens what it names\n", file.display()));
    }
    match start::credentials(&config) {
        Ok(_) => print(&format!("{}: in order\n", file.display())),
        Err(error) => exit::refuse(PROGRAM, &error, exit::CONFIG),
    }
}

/// Prints every key with its value and the layer that set it.
#[must_use]
pub fn explain_config(file: Option<PathBuf>) -> ExitCode {
    match load_config(file) {
        Ok(loaded) => print(&loaded.explain().to_string()),
        Err(error) => exit::refuse_config(PROGRAM, &error),
    }
}

fn load_config(file: Option<PathBuf>) -> Result<Loaded<Config>, ConfigError> {
    let conf_d =
        file.as_ref().and_then(|file| file.parent()).map(|folder| folder.join("background-channel.d"));
    load(PROGRAM, &Sources { file, conf_d, env_prefix: ENV_PREFIX.to_owned(), flags: Vec::new() })
}

async fn until_stopped(config: Config) -> ExitCode {
    let shutdown = Shutdown::new();
    let signalled = signal();
    let running = match start::start(config, shutdown.clone()).await {
        Ok(running) => running,
        Err(error) => {
            let code = match &error {
                StartError::Bind(_) => exit::UNAVAILABLE,
                StartError::Credentials(_) | StartError::DataDir { .. } => exit::CONFIG,
                StartError::Resources(_) | StartError::Spool(_) => exit::FAILURE,
            };
            return exit::refuse(PROGRAM, &error, code);
        }
    };
    let stop = shutdown.clone();
    let signals = async move {
        match signalled.await {
            Ok(signal) => tracing::info!(?signal, "the Background Channel is told to stop"),
            Err(error) => tracing::error!(%error, "signals cannot be waited for"),
        }
        stop.trigger();
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        biased;
        ended = running.wait() => ended,
        () = signals => Ok(()),
    };
    match ended {
        Ok(()) => ExitCode::from(exit::OK),
        Err(error) => exit::refuse(PROGRAM, &error, exit::FAILURE),
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(_) => ExitCode::from(exit::FAILURE),
    }
}
