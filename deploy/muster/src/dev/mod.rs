//! `muster dev`: a development PKI, Switch and Background Channel in this process, and real clients beside it.

mod clients;
mod crls;
mod fleet;
mod ready;

use std::path::Path;
use std::process::ExitCode;

use crate::cli::Dev;
use crate::exit::{Exit, Failure};

/// Runs a development fleet until it is told to stop.
pub(crate) fn run(home: Option<std::path::PathBuf>, arguments: &Dev) -> Result<Exit, Failure> {
    fleet::run(home, arguments)
}

/// Runs one client of a development fleet: the same code as `muster-client run`.
pub(crate) fn client(config: &Path) -> Result<Exit, Failure> {
    clients::run_one(config)
}

/// Runs SQL for one client, in a process of its own.
pub(crate) fn sql_helper() -> Exit {
    if muster_endpoint::helper::main() == ExitCode::SUCCESS { Exit::Ok } else { Exit::Refused }
}
