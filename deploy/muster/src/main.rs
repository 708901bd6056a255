//! The operators' command line, and a development fleet in one command.
//!
//! `cli` says what can be typed, `command` does it, `operator` talks to the Switch, `output` prints.

mod address;
mod approve;
mod background;
mod cli;
mod clock;
mod command;
mod dev;
mod exchange;
mod exit;
#[cfg(test)]
mod fake_switch;
mod grid;
mod home;
mod issue;
mod operator;
mod order_check;
mod order_key;
mod output;
mod pki_home;
mod provision;
mod seen;
#[cfg(test)]
mod simulation;
mod stop;
mod submit;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = cli::Cli::parse();
    match command::dispatch(arguments) {
        Ok(code) => code.into(),
        Err(failure) => failure.report(),
    }
}
