//! `muster-sign`: the authors' and licensors' tool.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use muster_sign::cli::Cli;
use muster_sign::command;
use rustls_pki_types::UnixTime;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (written, code) = match command::run(&cli, UnixTime::now()) {
        Ok(report) => (std::io::stdout().write_all(report.as_bytes()), ExitCode::SUCCESS),
        Err(error) => (std::io::stderr().write_all(command::render(&error).as_bytes()), ExitCode::FAILURE),
    };
    // A reader that went away, such as `head`, is no failure of ours, and nobody is left to tell.
    drop(written);
    code
}
