//! What can be typed.

mod pki;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::pki::{Flaws, Pki, PkiCheck, PkiInit, PkiIssue};
use crate::address;
use crate::output::Format;

/// Ask every machine of a fleet a question, or give it a signed order, and have the answers within a second.
#[derive(Debug, Parser)]
#[command(
    name = "muster",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done · 1 refused or unhealthy · 2 usage · 3 partial (not every\ntarget answered) · 4 denied · 5 unreachable\n\n\
                  Examples:\n  muster dev --clients 3\n  muster ask 'SELECT name, version FROM os'\n  \
                  muster ask 'SELECT name, count(*) AS n FROM processes GROUP BY name' --on 'os == \"linux\"' -o json\n  \
                  muster run Muster-Package-Version -p name=openssl"
)]
pub(crate) struct Cli {
    /// The home folder: contexts, roots, keys [default: ~/.muster]
    #[arg(long, global = true, env = "MUSTER_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// The context to use instead of the current one
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a development fleet: PKI, Switch, Background Channel and real clients
    Dev(Dev),
    /// Ask a free question in SQL
    Ask(Ask),
    /// Issue a signed definition
    Run(Run),
    /// Show instructions and what came of them
    #[command(subcommand)]
    Instruction(Instruction),
    /// Show and remove devices
    #[command(subcommand)]
    Client(Client),
    /// Import and show signed definitions
    #[command(subcommand)]
    Definition(Definition),
    /// Import and show the licence
    #[command(subcommand)]
    Licence(Licence),
    /// Put and list resources of the Background Channel
    #[command(subcommand)]
    Resource(Resource),
    /// Show events that clients reported
    #[command(subcommand)]
    Event(Event),
    /// Write everything the Switch holds, one JSON object a line
    Export(Export),
    /// Look for what is wrong, and say what would fix it
    Doctor(Doctor),
    /// Show and choose contexts
    #[command(subcommand)]
    Ctx(Ctx),
    /// A development CA, and the certificate rules for anyone
    #[command(subcommand)]
    Pki(Pki),
    /// Runs one client of `muster dev`.
    #[command(name = "__client", hide = true)]
    DevClient {
        /// Its configuration
        #[arg(long)]
        config: PathBuf,
    },
    /// Runs SQL for one client of `muster dev`.
    #[command(name = "__sql-helper", hide = true)]
    SqlHelper,
}

/// `muster dev`
#[derive(Debug, Args)]
#[command(
    after_help = "Certificates, CRLs and the licence that end soon, or have ended, are made anew by the development CA \
        at every start.\nA client that was revoked (muster pki revoke client-2.dev.muster) stays out, and the fleet \
        starts without it: --reissue lets it in again, with a new certificate under its old name.\n\n\
        Examples:\n  muster dev --clients 3\n  muster dev --dir /tmp/fleet --clients 10 --ports auto --ready-file /tmp/ready.json\n  \
        muster dev --reissue"
)]
pub(crate) struct Dev {
    /// Where the fleet keeps its stores; its home is DIR/home unless --home is given [default: HOME/dev]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// How many clients to start
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=200))]
    pub(crate) clients: u16,
    /// Which ports to listen on: the documented ones, or any that are free
    #[arg(long, value_enum, default_value_t = Ports::Default)]
    pub(crate) ports: Ports,
    /// Written, as JSON, when everything answers
    #[arg(long, value_name = "F")]
    pub(crate) ready_file: Option<PathBuf>,
    /// Give clients and an operator that were revoked new certificates, so that they are let in again
    #[arg(long)]
    pub(crate) reissue: bool,
}

/// `--ports`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ports {
    /// 4000, 4001, 4002 and 4443
    Default,
    /// Any that are free
    Auto,
}

/// What `ask` and `run` share.
#[derive(Debug, Args)]
pub(crate) struct Issue {
    /// For whom: an expression such as 'os == "linux" && cpus >= 4' [default: every device]
    #[arg(long, value_name = "EXPR", default_value = "", hide_default_value = true)]
    pub(crate) on: String,
    /// How long to wait for answers; the instruction goes on after it
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) wait: Duration,
    /// How long clients may start it, such as 1h [default: the definition's]
    #[arg(long, value_name = "TIME", value_parser = gather)]
    pub(crate) gather: Option<Duration>,
    /// Show whom it would reach, and send nothing
    #[arg(long)]
    pub(crate) what_if: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// `muster ask`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  muster ask 'SELECT name, version FROM os'\n  \
    muster ask \"SELECT path, not_after FROM certificates WHERE path GLOB '/etc/ssl/*.pem'\" --on 'host.startsWith(\"web\")' --wait 30s\n\n\
    The tables: os host cpu memory disks mounts processes listening_ports interfaces routes users packages services \
    files certificates time.\n`muster ask 'SELECT * FROM TABLE LIMIT 1'` shows a table's columns.")]
pub(crate) struct Ask {
    /// The question: one SELECT over the tables of the machine
    #[arg(value_name = "SQL")]
    pub(crate) sql: String,
    #[command(flatten)]
    pub(crate) issue: Issue,
}

/// `muster run`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  muster run Muster-Os-Version\n  muster run Acme-Security-ExpiringCertificates -p days=14 --on 'os == \"linux\"' -o csv"
)]
pub(crate) struct Run {
    /// The definition's name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Its version [default: the highest that is licensed]
    #[arg(long, value_name = "V", default_value = "", hide_default_value = true)]
    pub(crate) definition_version: String,
    /// An argument; repeat it for more
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) parameters: Vec<(String, String)>,
    /// Do not ask for the device count before an action
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) issue: Issue,
}

/// `muster instruction`
#[derive(Debug, Subcommand)]
pub(crate) enum Instruction {
    /// List instructions, newest first
    List(Listing),
    /// Show one instruction and its counts
    Show {
        /// Its id
        id: String,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Follow one instruction until every target is accounted for
    Watch {
        /// Its id
        id: String,
        /// Stop looking after this long
        #[arg(long, default_value = "10m", value_name = "TIME", value_parser = humantime::parse_duration)]
        wait: Duration,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Show the rows that are committed
    Results {
        /// Its id
        id: String,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// `muster client`
#[derive(Debug, Subcommand)]
pub(crate) enum Client {
    /// List devices
    List {
        /// Only these: an audience expression
        #[arg(
            long,
            value_name = "EXPR",
            default_value = "",
            hide_default_value = true,
            conflicts_with = "refused"
        )]
        on: String,
        /// Who was turned away since the Switch started, by which rules, and what would fix it
        #[arg(long)]
        refused: bool,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show one device
    Show {
        /// Its DeviceId
        device: String,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Remove a device that is gone for good
    #[command(
        after_help = "It leaves audiences and lists, its session ends, and instructions that still waited for it go on \
            without it (its targets become `cancelled`).\nIts results and events stay. If it connects again it is a new \
            device: revoke its certificate first to keep it out.\n\n\
            Examples:\n  muster client remove web1.example.org\n  muster client remove web1.example.org --yes -o json"
    )]
    Remove {
        /// Its DeviceId
        #[arg(value_name = "NAME")]
        device: String,
        /// Do not ask for the name again
        #[arg(long)]
        yes: bool,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// `muster definition`
#[derive(Debug, Subcommand)]
pub(crate) enum Definition {
    /// Import signed definitions (made by `muster-sign definition sign`)
    Import {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// List definitions
    List(Listing),
    /// Show one definition and its text
    Show {
        /// Its name
        name: String,
        /// Its version [default: the highest]
        #[arg(long, value_name = "V", default_value = "", hide_default_value = true)]
        definition_version: String,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// `muster licence`
#[derive(Debug, Subcommand)]
pub(crate) enum Licence {
    /// Hand a signed licence to the Switch (made by `muster-sign licence issue`)
    Import {
        /// The file
        file: PathBuf,
    },
    /// Show the licence that the Switch holds
    Show {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// `muster resource`
#[derive(Debug, Subcommand)]
pub(crate) enum Resource {
    /// Put a file and print the lines a definition names it by
    Put {
        /// The file
        file: PathBuf,
        /// The name to list it under [default: the file's]
        #[arg(long)]
        name: Option<String>,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// List resources
    List(Listing),
}

/// `muster event`
#[derive(Debug, Subcommand)]
pub(crate) enum Event {
    /// List events in the order of commitment
    List {
        /// Only of this device
        #[arg(long, default_value = "", hide_default_value = true)]
        device: String,
        /// Only after this position of the log
        #[arg(long, value_name = "POSITION", default_value_t = 0, hide_default_value = true)]
        after: u64,
        /// Wait for more (prints a line each, as JSON lines)
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        listing: Listing,
    },
}

/// What listings share.
#[derive(Debug, Args)]
pub(crate) struct Listing {
    /// At most this many
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) limit: u32,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// `muster export`
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The only one: an object a line, with its `kind`
    #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
    pub(crate) format: ExportFormat,
}

/// `--format` of `export`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// One JSON object a line
    Jsonl,
}

/// `muster doctor`
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// `muster ctx`
#[derive(Debug, Subcommand)]
pub(crate) enum Ctx {
    /// List contexts
    List {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Make a context the current one
    Use {
        /// Its name
        name: String,
    },
    /// Add or replace a context, and make it the current one
    #[command(after_help = "Example:\n  muster ctx add production --switch switch.example.org:4001 \\\n    \
        --background-channel https://background.example.org:4443/Background/v1")]
    Add {
        /// Its name
        #[arg(value_parser = address::context_name)]
        name: String,
        /// Address of the operator API, such as switch.example.org:4001
        #[arg(long, value_name = "HOST:PORT", value_parser = address::switch)]
        switch: String,
        /// Address of the Background Channel, such as https://HOST:4443/Background/v1
        #[arg(long, value_name = "URL", default_value = "", hide_default_value = true, value_parser = address::background_channel)]
        background_channel: String,
        /// Admin address of the Switch, such as http://127.0.0.1:4002
        #[arg(long, value_name = "URL", default_value = "", hide_default_value = true, value_parser = address::admin)]
        admin: String,
    },
    /// Forget a context
    Remove {
        /// Its name
        name: String,
    },
}

/// Nothing can be gathered in no time; the definition's own bounds are the Switch's to check.
fn gather(text: &str) -> Result<Duration, String> {
    let gather = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if gather < Duration::from_secs(1) { Err("expected at least 1s".to_owned()) } else { Ok(gather) }
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE, such as days=14".to_owned()),
    }
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
    fn an_argument_may_hold_equals_signs() {
        assert_eq!(name_and_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(name_and_value("=c").is_err());
    }
}
