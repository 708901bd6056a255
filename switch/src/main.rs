//! `muster-switch`: runs the Switch, or tells what a configuration says.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use muster_service::config::CheckDepth;

/// The Muster Switch: holds the sessions of all clients and carries instructions and results.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the Switch until it is told to stop.
    Run {
        /// The configuration file; files of `switch.d` beside it follow.
        #[arg(long, env = "MUSTER_SWITCH_CONFIG")]
        config: Option<PathBuf>,
    },
    /// Checks or explains a configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Tells what is wrong with a file.
    Check {
        /// The configuration file.
        file: PathBuf,
        /// Also opens the certificates, keys and roots that it names.
        #[arg(long)]
        files: bool,
    },
    /// Shows every key, its value and the layer that set it.
    Explain {
        /// The configuration file.
        #[arg(long, env = "MUSTER_SWITCH_CONFIG")]
        config: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config } => muster_switch::run(config),
        Command::Config(ConfigCommand::Check { file, files }) => {
            muster_switch::check_config(&file, CheckDepth::from_flag(files))
        }
        Command::Config(ConfigCommand::Explain { config }) => muster_switch::explain_config(config),
    }
}
