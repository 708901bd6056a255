//! The SQL helper on its own, for tests and for programs that don't embed it as a hidden subcommand.
use std::process::ExitCode;

fn main() -> ExitCode {
    muster_endpoint::helper::main()
}
