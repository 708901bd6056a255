//! The arguments that every program takes.

use std::path::PathBuf;

use clap::{Args, Command, Parser, Subcommand};

use super::Program;

/// The arguments of a program without commands of its own.
#[derive(Debug, Parser)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Standard,
}

/// The commands that every program has; flattened into those of programs with more.
#[derive(Debug, Subcommand)]
pub enum Standard {
    /// Run until a signal or a fault ends it.
    Run(ConfigFiles),
    /// Check or explain a configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// What to do with a configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Tell every mistake in a configuration.
    Check {
        /// The configuration file.
        file: Option<PathBuf>,
        /// The same, as `run` takes it.
        #[arg(long, value_name = "FILE", conflicts_with = "file")]
        config: Option<PathBuf>,
        /// A folder of files that follow it, by name [default: the folder NAME.d beside it].
        #[arg(long, value_name = "FOLDER")]
        conf_d: Option<PathBuf>,
        /// Also open the certificates, keys and roots that it names.
        #[arg(long)]
        files: bool,
    },
    /// Show every key, its value and the layer that set it.
    Explain(ConfigFiles),
}

/// Where the configuration is.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigFiles {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A folder of files that follow it, by name [default: the folder NAME.d beside it].
    #[arg(long, value_name = "FOLDER")]
    pub conf_d: Option<PathBuf>,
}

/// Reads the process's arguments; help, version and mistakes (exit code 2) end the process.
#[must_use]
pub fn parse<P: Program, A: Parser>() -> A {
    let matches = command::<P, A>().get_matches();
    A::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

pub(super) fn command<P: Program, A: Parser>() -> Command {
    let codes = "Exit codes: 0 ended as asked, 1 a fault, 2 wrong arguments, 69 something needed is taken or absent, \
                 78 a file has to be changed first";
    let command = A::command().name(P::NAME).version(P::VERSION).about(P::ABOUT).after_help(codes);
    with_defaults::<P>(command)
}

/// Says in every `--help` which file is read where none is named.
fn with_defaults<P: Program>(command: Command) -> Command {
    let (config, prefix) = (P::DEFAULT_CONFIG, P::ENV_PREFIX);
    let names: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    // Other commands have files of their own.
    let is_check = command.get_name() == "check";
    let command = command.mut_args(|argument| match argument.get_id().as_str() {
        id if id == "config" && !is_check || id == "file" && is_check => {
            argument.help(format!("The configuration file [env: {prefix}CONFIG] [default: {config}]"))
        }
        _ => argument,
    });
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, with_defaults::<P>))
}
