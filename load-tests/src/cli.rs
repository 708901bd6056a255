//! What can be typed to `muster-load`.

mod amounts;
mod arguments;
mod check;
mod help;
mod running;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use self::arguments::{
    AskArguments, CrlArguments, FaultArguments, PeerArguments, ProxyArguments, RoundsArguments,
    SwitchArguments,
};
use crate::crl::{self, CrlOptions};
use crate::report;
use crate::scenario::Common;
use crate::scenario::{broadcast, churn, connect, events, faults, hold, idle, slow_readers, soak, storm};
use crate::server::launch;
use crate::worker::process;
use crate::{ask, proxy};

/// Load-tests Muster with a simulated fleet, beside its peers, and checks histories.
///
/// A scenario without --home starts a Switch of its own on the first core, and workers with the simulated devices on the
/// others; both end with it. Each device has its own key and certificate, and speaks the real protocol over mutual TLS.
#[derive(Debug, Parser)]
#[command(name = "muster-load", version, arg_required_else_help = true, after_help = help::ALL)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What a connect costs: full and resumed handshakes, beside the handshake floor
    #[command(after_help = help::CONNECT)]
    Connect {
        #[command(flatten)]
        common: PeerArguments,
        #[command(flatten)]
        rounds: RoundsArguments,
    },
    /// What an idle session costs in memory
    #[command(after_help = help::IDLE)]
    Idle {
        #[command(flatten)]
        common: PeerArguments,
        /// Read memory at 1,000, 2,000, 5,000 … sessions on the way, too
        #[arg(long)]
        plot: bool,
    },
    /// What a signed order to all costs, beside a plain write to a socket
    #[command(after_help = help::BROADCAST)]
    Broadcast {
        #[command(flatten)]
        common: PeerArguments,
        #[command(flatten)]
        rounds: RoundsArguments,
        /// Measure so many messages to each at once, too; 1 for none
        #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
        burst: u32,
    },
    /// Connect N simulated devices, ask all of them one question, and print figures
    #[command(after_help = help::ASK)]
    Ask(AskArguments),
    /// Kill the Switch under its sessions: when all are back, and what the others notice
    #[command(after_help = help::STORM)]
    Storm(PeerArguments),
    /// Sessions stand with their heartbeats alone: what that costs; then all have to answer
    #[command(after_help = help::HOLD)]
    Hold {
        #[command(flatten)]
        common: SwitchArguments,
        /// How long, such as 90s or 10m
        #[arg(long = "for", default_value = "10m", value_name = "TIME", value_parser = humantime::parse_duration)]
        lasts: std::time::Duration,
        /// Between two pings of one session, at a Switch of this run's own; 60s where nothing is said
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        ping_interval: Option<std::time::Duration>,
    },
    /// One session in ten stops reading: what the others notice
    #[command(after_help = help::SLOW_READERS)]
    SlowReaders {
        #[command(flatten)]
        common: PeerArguments,
        #[command(flatten)]
        rounds: RoundsArguments,
    },
    /// Others are slow, gone, doubled or too many: what the healthy sessions notice
    #[command(after_help = help::FAULTS)]
    Faults(FaultArguments),
    /// Sessions come and go at a rate while others stand
    #[command(after_help = help::CHURN)]
    Churn {
        #[command(flatten)]
        common: PeerArguments,
        /// Sessions that come, and as many that go, a second
        #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        rate: u32,
        /// For how many seconds
        #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=86_400))]
        seconds: u32,
    },
    /// How many events of devices are committed and acked a second
    #[command(after_help = help::EVENTS)]
    Events {
        #[command(flatten)]
        common: SwitchArguments,
        #[command(flatten)]
        rounds: RoundsArguments,
        /// Events of each device in a round
        #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
        each: u32,
    },
    /// Minutes of everything at once: memory must stay flat
    #[command(after_help = help::SOAK)]
    Soak {
        #[command(flatten)]
        common: SwitchArguments,
        /// How long, such as 90s or 10m
        #[arg(long = "for", default_value = "10m", value_name = "TIME", value_parser = humantime::parse_duration)]
        lasts: std::time::Duration,
    },
    /// Connect sessions, have their Switch load a large CRL, and print what their pings noticed
    #[command(after_help = help::CRL)]
    Crl(CrlArguments),
    /// Carry TCP connections as a bad network does, the same way for the same seed
    #[command(after_help = help::PROXY)]
    Proxy(ProxyArguments),
    /// Check an export of a Switch for contradictions and for broken promises
    ///
    /// Holds the export against itself: every target of every instruction is in exactly one state, results say what the
    /// ledger says and have all their parts, nothing is there twice. With --promises it also holds it against what
    /// clients and operators were told. Prints each violation with its line, what was expected and what was found, then
    /// how often each rule was looked at.
    #[command(after_help = help::CHECK)]
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
    /// Holds devices for a coordinator: commands on standard input, answers on standard output
    #[command(hide = true)]
    Worker {
        #[arg(long)]
        core: Option<usize>,
    },
    /// Becomes a program that ends with its parent
    #[command(hide = true)]
    Launch {
        #[arg(long)]
        parent: u32,
        #[arg(long)]
        core: Option<usize>,
        #[arg(long)]
        files_max: Option<u32>,
        #[arg(last = true)]
        words: Vec<String>,
    },
}

/// `-o`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines for people
    Table,
    /// One JSON object
    Json,
}

/// Does what was typed: exit 0 done, 1 a figure or rule failed, 2 usage, 130 interrupted.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    dispatch(cli.command).unwrap_or_else(|error| {
        // Nobody is left to tell when standard error is closed.
        drop(writeln!(std::io::stderr(), "error: {error:#}"));
        ExitCode::FAILURE
    })
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Connect { common, rounds } => {
            let (common, outputs) = common.split()?;
            running::sheet(&outputs, connect::run(&rounds.of(common)))
        }
        Command::Idle { common, plot } => {
            let (common, outputs) = common.split()?;
            running::sheet(&outputs, idle::run(&idle::Options { common, plots: plot }))
        }
        Command::Broadcast { common, rounds, burst } => {
            let (common, outputs) = common.split()?;
            let common = rounds.of(common);
            running::sheet(&outputs, broadcast::run(&broadcast::Options { common, burst }))
        }
        Command::Ask(arguments) => {
            let (options, outputs) = arguments.options()?;
            running::sheet(&outputs, ask::run(&options))
        }
        Command::Storm(arguments) => {
            let (common, outputs) = arguments.split()?;
            running::sheet(&outputs, storm::run(&common))
        }
        Command::Hold { common, lasts, ping_interval } => {
            let (common, outputs) = common.split()?;
            let common = Common { ping_interval, ..common };
            running::sheet(&outputs, hold::run(&hold::Options { common, lasts }))
        }
        Command::SlowReaders { common, rounds } => {
            let (common, outputs) = common.split()?;
            running::sheet(&outputs, slow_readers::run(&rounds.of(common)))
        }
        Command::Faults(arguments) => {
            let (options, outputs) = arguments.options()?;
            running::sheet(&outputs, faults::run(&options))
        }
        Command::Churn { common, rate, seconds } => {
            let (common, outputs) = common.split()?;
            running::sheet(&outputs, churn::run(&churn::Options { common, per_second: rate, seconds }))
        }
        Command::Events { common, rounds, each } => {
            let (common, outputs) = common.split()?;
            let common = rounds.of(common);
            running::sheet(&outputs, events::run(&events::Options { common, each }))
        }
        Command::Soak { common, lasts } => {
            let (common, outputs) = common.split()?;
            running::sheet(&outputs, soak::run(&soak::Options { common, lasts }))
        }
        Command::Crl(arguments) => run_crl(&arguments),
        Command::Proxy(arguments) => running::until_stopped(proxy::relay::run(arguments.options()?)),
        Command::Check { export, promises, output } => check::run(&export, promises.as_deref(), output),
        Command::Worker { core } => process::run(core).map(|()| ExitCode::SUCCESS),
        Command::Launch { parent, core, files_max, words } => {
            let bounds = launch::Bounds { core, files_max };
            launch::become_program(parent, bounds, &words).map(|()| ExitCode::SUCCESS)
        }
    }
}

fn run_crl(arguments: &CrlArguments) -> anyhow::Result<ExitCode> {
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

    #[test]
    fn every_command_that_is_shown_has_examples() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("muster-load {}", command.get_name());
            assert!(help.contains(&example), "{}: {help}", command.get_name());
        }
    }
}
