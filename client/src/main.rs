//! `muster-client`: the agent on an endpoint.

use std::process::ExitCode;

use clap::Parser;
use muster_client::cli::{Arguments, Command};

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(files) => muster_client::cli::run(&files),
        Command::Status(socket) => muster_client::cli::status(&socket),
        Command::Event(event) => muster_client::cli::event(&event),
        Command::Config(config) => muster_client::cli::config(&config),
        // Before any runtime, thread or file of the client: the helper shuts itself in.
        Command::SqlHelper => muster_endpoint::helper::main(),
    }
}
