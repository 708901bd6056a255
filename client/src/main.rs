//! `muster-client`: the agent on an endpoint.

use std::process::ExitCode;

use muster_client::Program;
use muster_client::cli::{self, Arguments, Command};
use muster_service::program;

fn main() -> ExitCode {
    match program::parse::<Program, Arguments>().command {
        Command::Standard(command) => program::standard::<Program>(&command),
        Command::Status(socket) => cli::status(&socket),
        Command::Event(event) => cli::event(&event),
        Command::Policy(policy) => cli::policy(&policy),
        Command::Trust(command) => cli::trust::run(&command),
        Command::Cert(command) => cli::cert::run(&command),
        // Before any runtime, thread or file of the client: the helper shuts itself in.
        Command::SqlHelper => muster_endpoint::helper::main(),
    }
}
