//! The Switch as a program: what [`muster_service::program`] has to know of it.

use muster_service::credentials::Clock;
use muster_service::exit::{self, Ended};
use muster_service::program::{self, until_stopped};
use muster_service::shutdown::{Shutdown, signal};
use muster_service::telemetry::LogConfig;

use crate::config::Config;
use crate::credentials;
use crate::start::start;

/// `muster-switch`.
#[derive(Debug)]
pub struct Program;

impl program::Program for Program {
    type Config = Config;

    const NAME: &'static str = "muster-switch";
    const ABOUT: &'static str =
        "The Muster Switch: holds the sessions of all clients and carries instructions and results";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ENV_PREFIX: &'static str = "MUSTER_SWITCH_";
    const DEFAULT_CONFIG: &'static str = "/etc/muster/switch.toml";

    fn log(config: &Config) -> &LogConfig {
        &config.log
    }

    fn check_files(config: &Config) -> Vec<String> {
        match credentials::load(config, None, &Clock::system()) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }

    /// Starts outside of any runtime, since the store is loaded meanwhile; see [`start`].
    fn run(config: Config) -> Result<(), Ended> {
        let shutdown = Shutdown::new();
        // The signals' runtime is opened before any thread starts, as everything else.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Ended::new(exit::FAILURE, &error))?;
        let signalled = {
            let _inside = runtime.enter();
            signal()
        };
        let running =
            start(config, shutdown.clone()).map_err(|error| Ended::new(error.exit_code(), &error))?;
        runtime.block_on(until_stopped(&shutdown, signalled));
        running.wait().map_err(|failure| Ended::new(failure.exit_code(), &failure))
    }
}
