//! `muster-load`: measures Muster with a simulated fleet, and checks histories.

use std::process::ExitCode;

use clap::Parser as _;
use muster_load_tests::cli::{Cli, run};

fn main() -> ExitCode {
    run(Cli::parse())
}
