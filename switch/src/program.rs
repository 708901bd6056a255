//! What the binary does, so that tests reach all of it but the parsing of arguments.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use muster_service::config::{CheckDepth, ConfigError, Loaded, Sources, load};
use muster_service::shutdown::{Shutdown, Signal, signal};
use muster_service::{exit, telemetry};

use crate::config::Config;
use crate::start::{Running, start};

const PROGRAM: &str = "muster-switch";

/// Environment variables that are keys begin so.
const ENV_PREFIX: &str = "MUSTER_SWITCH_";

/// Runs the Switch until a signal or a failure ends it.
#[must_use]
pub fn run(file: Option<PathBuf>) -> ExitCode {
    let config = match load_config(file) {
        Ok(loaded) => loaded.into_config(),
        Err(error) => return exit::refuse_config(PROGRAM, &error),
    };
    if let Err(error) = telemetry::init(&config.log) {
        return exit::refuse(PROGRAM, &error, exit::CONFIG);
    }
    let shutdown = Shutdown::new();
    // The signals' runtime is opened before any thread starts, as everything else.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::refuse(PROGRAM, &error, exit::FAILURE),
    };
    let signalled = {
        let _inside = runtime.enter();
        signal()
    };
    match start(config, shutdown.clone()) {
        Ok(running) => runtime.block_on(until_stopped(running, &shutdown, signalled)),
        Err(error) => {
            let code = error.exit_code();
            exit::refuse(PROGRAM, &error, code)
        }
    }
}

/// Checks a configuration file and, if asked, the certificates and roots it names; prints every mistake.
#[must_use]
pub fn check_config(file: &Path, depth: CheckDepth) -> ExitCode {
    let config = match load_config(Some(file.to_owned())) {
        Ok(loaded) => loaded.into_config(),
        Err(error) => return exit::refuse_config(PROGRAM, &error),
    };
    if depth == CheckDepth::Values {
        return print(&format!("{}: in order; --files also opens what it names\n", file.display()));
    }
    match crate::credentials::load(&config) {
        Ok(_) => print(&format!("{}: in order\n", file.display())),
        Err(problems) => {
            let error = crate::start::StartError::Credentials(problems);
            exit::refuse(PROGRAM, &error, exit::CONFIG)
        }
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
    let conf_d = file.as_ref().and_then(|file| file.parent()).map(|folder| folder.join("switch.d"));
    load(PROGRAM, &Sources { file, conf_d, env_prefix: ENV_PREFIX.to_owned(), flags: Vec::new() })
}

async fn until_stopped(
    running: Running,
    shutdown: &Shutdown,
    signalled: impl Future<Output = std::io::Result<Signal>>,
) -> ExitCode {
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        signalled = signalled => match signalled {
            Ok(signal) => tracing::info!(?signal, "the Switch is told to stop"),
            Err(error) => tracing::error!(%error, "signals cannot be waited for"),
        },
    }
    shutdown.trigger();
    match running.wait() {
        Ok(()) => ExitCode::from(exit::OK),
        Err(failure) => exit::refuse(PROGRAM, &failure, exit::FAILURE),
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(_) => ExitCode::from(exit::FAILURE),
    }
}
