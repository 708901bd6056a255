//! What can be typed to `muster-load`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use muster_pki::text::escaped_json;

use crate::ask::{self, AskOptions};
use crate::checked::Checked;
use crate::crl::{self, CrlOptions};
use crate::history::{History, Promise};
use crate::report;

/// Load-tests Muster with a simulated fleet, and checks histories.
#[derive(Debug, Parser)]
#[command(
    name = "muster-load",
    version,
    arg_required_else_help = true,
    after_help = "Examples:\n  muster-load ask --sessions 2000\n  muster-load crl --entries 1000000\n  muster-load ask --sessions 500 --home ~/.muster --operator localhost:4001 --switch localhost:4000 -o json\n  \
                  muster export | muster-load check -"
)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    command: Command,
}

/// Examples and exit codes of `check`.
const CHECK_HELP: &str = "Examples:
  muster export >export.jsonl && muster-load check export.jsonl
  muster-load ask --sessions 100 --home HOME --operator HOST:PORT --switch HOST:PORT --promises promises.jsonl
  muster-load check export.jsonl --promises promises.jsonl

Exit codes: 0 nothing is wrong, 1 something is, or a file cannot be read, 2 usage.
An export that broke off is not whole: look at the exit code of `muster export`, in a pipe with
`set -o pipefail; muster export | muster-load check -`.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Connect N simulated devices, ask all of them one question, and print figures
    Ask(Ask),
    /// Connect sessions, have their Switch load a large CRL, and print what their pings noticed
    Crl(Crl),
    /// Check an export of a Switch for contradictions and for broken promises
    ///
    /// Holds the export against itself: every target of every instruction is in exactly one state, results say what the
    /// ledger says and have all their parts, nothing is there twice. With --promises it also holds it against what
    /// clients and operators were told. Prints each violation with its line, what was expected and what was found, then
    /// how often each rule was looked at.
    #[command(after_help = CHECK_HELP)]
    Check {
        /// What `muster export --format jsonl` printed; `-` reads standard input
        export: PathBuf,
        /// What clients and operators were told, one JSON object a line, as `muster-load ask --promises` writes it
        #[arg(long, value_name = "FILE")]
        promises: Option<PathBuf>,
        /// How to print
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
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

#[derive(Debug, clap::Args)]
struct Crl {
    /// Entries of the list
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    entries: u32,
    /// Sessions that ping, each every 20 ms
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    sessions: u32,
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
        Command::Crl(arguments) => run_crl(&arguments),
        Command::Check { export, promises, output } => check(&export, promises.as_deref(), output),
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

fn run_crl(arguments: &Crl) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    report::allow_descriptors(arguments.sessions)?;
    let options = CrlOptions { entries: arguments.entries, sessions: arguments.sessions };
    let report = runtime.block_on(Box::pin(crl::run(options)))?;
    match arguments.output {
        Format::Json => print(&serde_json::to_string_pretty(&report)?)?,
        Format::Table => print(&report.to_string())?,
    }
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check(export: &Path, promises: Option<&Path>, output: Format) -> anyhow::Result<ExitCode> {
    let text = if export.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).context("standard input")?
    } else {
        std::fs::read_to_string(export).with_context(|| export.display().to_string())?
    };
    let promises = promises.map_or(Ok(Vec::new()), read_promises)?;
    if text.trim().is_empty() {
        anyhow::bail!("{}: empty; an export has one JSON object a line", export.display());
    }
    let checked = Checked::new(&History::read(&text), &promises);
    match output {
        Format::Json => print(&escaped_json(&serde_json::to_string_pretty(&checked)?))?,
        Format::Table => print(&checked.to_string())?,
    }
    Ok(if checked.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read_promises(path: &Path) -> anyhow::Result<Vec<Promise>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(index, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("{}: line {}", path.display(), index + 1))
    };
    lines.map(read).collect()
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
