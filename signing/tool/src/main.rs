//! `muster-sign`: the authors' and licensors' tool.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use muster_sign::ToolError;
use muster_sign::cli::Cli;
use muster_sign::command::{self, Report, Verdict};
use rustls_pki_types::UnixTime;

/// As clap has it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (written, code) = match command::run(&cli, UnixTime::now()) {
        Ok(Report { text, verdict }) => {
            let code = if verdict == Verdict::Fine { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            (std::io::stdout().write_all(text.as_bytes()), code)
        }
        Err(error) => {
            let is_usage = error.downcast_ref::<ToolError>().is_some_and(ToolError::is_usage);
            let code = if is_usage { ExitCode::from(USAGE) } else { ExitCode::FAILURE };
            (std::io::stderr().write_all(command::render(&error).as_bytes()), code)
        }
    };
    // A reader that went away, such as `head`, is no failure of ours, and nobody is left to tell.
    drop(written);
    code
}
