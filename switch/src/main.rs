//! `muster-switch`: run, config check, config explain.

use std::process::ExitCode;

use muster_service::program;

fn main() -> ExitCode {
    program::main::<muster_switch::Program>()
}
