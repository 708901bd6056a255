//! `muster-background-channel`: run, config check, config explain.

use std::process::ExitCode;

use muster_service::program;

fn main() -> ExitCode {
    program::main::<muster_background_channel::Program>()
}
