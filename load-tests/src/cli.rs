//! What can be typed to `muster-load`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};

use crate::ask::{self, AskOptions};
use crate::history::{History, Promise};
use crate::report;

/// Load-tests Muster with a simulated fleet, and checks histories.
#[derive(Debug, Parser)]
#[command(
    name = "muster-load",
    version,
    arg_required_else_help = true,
    after_help = "Examples:\n  muster-load ask --sessions 2000\n  muster-load ask --sessions 500 --home ~/.muster --operator localhost:4001 --switch localhost:4000 -o json\n  \
                  muster export | muster-load check -"
)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Connect N simulated devices, ask all of them one question, and print figures
    Ask(Ask),
    /// Check an export (`muster export`) and, with it, what was promised
    Check {
        /// The export; `-` reads standard input
        export: PathBuf,
        /// What fake clients and operators were told, one JSON object a line
        #[arg(long, value_name = "FILE")]
        promises: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct Ask {
    /// How many devices, each with its own key and certificate
    #[arg(long, default_value_t = 2_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=18_000))]
    sessions: u32,
    /// How often to put the question; the median round is told
    #[arg(long, default_value_t = 1, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// The home of a running development fleet; without it one is started and stopped
    #[arg(long, value_name = "DIR", requires = "operator", requires = "switch")]
    home: Option<PathBuf>,
    /// Its operator API
    #[arg(long, value_name = "HOST:PORT")]
    operator: Option<String>,
    /// Its session address
    #[arg(long, value_name = "HOST:PORT")]
    switch: Option<String>,
    /// Process id of its Switch, to tell memory per session
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Write what every device and the operator were told, for `muster-load check`
    #[arg(long, value_name = "FILE")]
    promises: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// `-o`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines for people
    Table,
    /// One JSON object
    Json,
}

/// Does what was typed: exit 0 done, 1 a figure or rule failed, 2 usage.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Ask(arguments) => run_ask(arguments),
        Command::Check { export, promises } => check(&export, promises.as_deref()),
    };
    done.unwrap_or_else(|error| {
        // Nobody is left to tell when standard error is closed.
        drop(writeln!(std::io::stderr(), "error: {error:#}"));
        ExitCode::FAILURE
    })
}

fn run_ask(arguments: Ask) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let target = match (arguments.home, arguments.operator, arguments.switch) {
        (Some(home), Some(operator), Some(switch)) => {
            ask::Target::Running { home, operator, switch, pid: arguments.pid }
        }
        _ => ask::Target::Own,
    };
    report::allow_descriptors(arguments.sessions)?;
    let options = AskOptions {
        sessions: arguments.sessions,
        rounds: arguments.rounds,
        target,
        promises: arguments.promises,
    };
    let report = runtime.block_on(Box::pin(ask::run(options)))?;
    match arguments.output {
        Format::Json => print(&serde_json::to_string_pretty(&report)?)?,
        Format::Table => print(&report.to_string())?,
    }
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check(export: &std::path::Path, promises: Option<&std::path::Path>) -> anyhow::Result<ExitCode> {
    let text = if export.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())?
    } else {
        std::fs::read_to_string(export).with_context(|| export.display().to_string())?
    };
    let promises: Vec<Promise> = match promises {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| path.display().to_string())?
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    if text.trim().is_empty() {
        anyhow::bail!("{}: empty; an export has one JSON object a line", export.display());
    }
    let history = History::read(&text);
    let violations = history.check(&promises);
    let (instructions, results, events) = history.counts();
    for violation in &violations {
        print(&violation.to_string())?;
    }
    print(&format!(
        "{instructions} instructions, {results} results, {events} events, {} promises: {} violations",
        promises.len(),
        violations.len()
    ))?;
    Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
