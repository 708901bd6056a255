//! `muster-background-channel`: runs the Background Channel, or tells what a configuration says.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use muster_service::config::CheckDepth;

/// The Muster Background Channel: serves resources and takes the events that clients post.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the Background Channel until it is told to stop.
    Run {
        /// The configuration file; files of `background-channel.d` beside it follow.
        #[arg(long, env = "MUSTER_BACKGROUND_CHANNEL_CONFIG")]
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
        #[arg(long, env = "MUSTER_BACKGROUND_CHANNEL_CONFIG")]
        config: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config } => muster_background_channel::run(config),
        Command::Config(ConfigCommand::Check { file, files }) => {
            muster_background_channel::check_config(&file, CheckDepth::from_flag(files))
        }
        Command::Config(ConfigCommand::Explain { config }) => {
            muster_background_channel::explain_config(config)
        }
    }
}
