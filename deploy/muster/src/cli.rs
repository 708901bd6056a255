//! What can be typed.

mod ctx;
mod issue;
mod pack;
mod pki;
mod policy;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use muster_proto::common::v1::TargetState;

pub(crate) use self::ctx::Ctx;
pub(crate) use self::issue::{Ask, Issue, OrderKey, Run};
pub(crate) use self::pack::{Pack, PackImport, PackSearch};
pub(crate) use self::pki::{Flaws, Pki, PkiCheck, PkiInit, PkiIssue};
pub(crate) use self::policy::Policy;
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
    /// Show instructions and what came of them, and stop them
    #[command(
        subcommand,
        after_help = "Examples:\n  muster instruction list\n  \
        muster instruction watch 0197a6c8-0000-7000-8000-000000000001"
    )]
    Instruction(Instruction),
    /// Show and remove devices
    #[command(
        subcommand,
        after_help = "Examples:\n  muster client list\n  \
        muster client show web1.example.org"
    )]
    Client(Client),
    /// Import and show signed definitions
    #[command(
        subcommand,
        after_help = "Examples:\n  muster definition import Acme-Files-Present.cms\n  \
        muster definition list"
    )]
    Definition(Definition),
    /// Find and import packs: signed definitions and the resources that they need, in one file
    #[command(
        subcommand,
        after_help = "Examples:\n  muster pack import basics.pack\n  \
        muster pack search https://exchange.example.org/exchange.json certificates"
    )]
    Pack(Pack),
    /// Import and show the licence
    #[command(subcommand, after_help = "Examples:\n  muster licence show")]
    Licence(Licence),
    /// Import and show signed client policies: where clients connect, and whom they trust there
    #[command(
        subcommand,
        after_help = "Examples:\n  muster policy import policy-7.cms\n  muster policy list"
    )]
    Policy(Policy),
    /// Put and list resources of the Background Channel
    #[command(subcommand, after_help = "Examples:\n  muster resource put agent.deb\n  muster resource list")]
    Resource(Resource),
    /// Show events that clients reported
    #[command(subcommand, after_help = "Examples:\n  muster event list --follow")]
    Event(Event),
    /// Write everything the Switch holds, one JSON object a line
    Export(Export),
    /// Look for what is wrong, and say what would fix it
    Doctor(Doctor),
    /// Show and choose contexts
    #[command(subcommand, after_help = "Examples:\n  muster ctx list\n  muster ctx use production")]
    Ctx(Ctx),
    /// A development CA, and the certificate rules for anyone
    #[command(
        subcommand,
        after_help = "Examples:\n  muster pki init\n  \
        muster pki issue web1.example.org --out certs/"
    )]
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
    /// 4000 to 4003, 4442 and 4443
    Default,
    /// Any that are free
    Auto,
}

/// `muster instruction`
#[derive(Debug, Subcommand)]
pub(crate) enum Instruction {
    /// List instructions, newest first
    #[command(after_help = "Examples:\n  muster instruction list\n  \
        muster instruction list --limit 20 -o json")]
    List(Listing),
    /// Show one instruction and its counts
    #[command(after_help = "Examples:\n  muster instruction show 0197a6c8-0000-7000-8000-000000000001")]
    Show {
        /// Its id
        id: String,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Follow one instruction until every target is accounted for
    #[command(
        after_help = "Examples:\n  muster instruction watch 0197a6c8-0000-7000-8000-000000000001 --wait 1h"
    )]
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
    /// Sign an instruction of somebody else whose definition asks for approvals
    #[command(
        after_help = "What is shown comes from the signed order itself. Your signature, with your order key, counts on the devices: as many \
            people as the definition's author asks for, beside the one who issued it. With the last one the order is sent.\n\n\
            Examples:\n  muster instruction approve 0197a6c8-0000-7000-8000-000000000001\n  \
            muster instruction approve 0197a6c8-0000-7000-8000-000000000001 --yes -o json"
    )]
    Approve {
        /// Its id
        id: String,
        /// Do not ask for the device count
        #[arg(long)]
        yes: bool,
        /// How long to wait for answers, once it lacks nothing
        #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
        wait: Duration,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
        #[command(flatten)]
        key: Box<OrderKey>,
    },
    /// End an instruction on every device: what waits never starts, what runs is ended, what has answered keeps its answer
    #[command(
        after_help = "The stop is signed with your order key, and devices believe nobody else's. Those that are away get it before \
            anything else when they come back.\n\n\
            Examples:\n  muster instruction stop 0197a6c8-0000-7000-8000-000000000001 --reason 'wrong fleet'"
    )]
    Stop {
        /// Its id
        id: String,
        /// Why, for those who look later; devices tell it, too
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
        /// How long to wait for devices to say what became of it
        #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
        wait: Duration,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
        #[command(flatten)]
        key: Box<OrderKey>,
    },
    /// List the devices that it is for, with the state of each and why it came to that
    #[command(
        after_help = "A target that is `refused` without a result was refused by the Switch; the cause is the code.\n\n\
            Examples:\n  muster instruction targets 0197a6c8-0000-7000-8000-000000000001\n  \
            muster instruction targets 0197a6c8-0000-7000-8000-000000000001 --state refused -o json"
    )]
    Targets {
        /// Its id
        id: String,
        /// Only those in this state, such as `queued` or `refused`
        #[arg(long, value_name = "STATE", value_parser = target_state)]
        state: Option<TargetState>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show the rows that are committed
    #[command(
        after_help = "Examples:\n  muster instruction results 0197a6c8-0000-7000-8000-000000000001 -o csv"
    )]
    Results {
        /// Its id
        id: String,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Sum the committed rows up on the Switch: the definition's own aggregate, or a query of yours
    #[command(
        after_help = "The query is one SELECT over the table `results`: a row for each row of the answers, under the columns that the definition \
            declares, and `device`, whose row it is (`device_id` where the definition has a column `device` of its own). Of `muster ask`, the columns \
            are those that `muster instruction results` shows. `*` shows them all.\n\
            It is over what is there now. What is missing is told, and the exit code is 3 then; -o json says \"partial\": true.\n\n\
            Examples:\n  muster instruction aggregate 0197a6c8-0000-7000-8000-000000000001\n  \
            muster instruction aggregate 0197a6c8-0000-7000-8000-000000000001 --query 'SELECT version, count(*) AS n FROM results GROUP BY version' -o json"
    )]
    Aggregate {
        /// Its id
        id: String,
        /// One SELECT over `results` [default: the definition's aggregate]
        #[arg(long, value_name = "SQL", default_value = "", hide_default_value = true)]
        query: String,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// `muster client`
#[derive(Debug, Subcommand)]
pub(crate) enum Client {
    /// List devices
    #[command(after_help = "Examples:\n  muster client list\n  \
        muster client list --on 'os == \"linux\" && cpus >= 4' -o json\n  \
        muster client list --refused\n  muster client list --blocked")]
    List {
        /// Only these: an audience expression
        #[arg(
            long,
            value_name = "EXPR",
            default_value = "",
            hide_default_value = true,
            conflicts_with_all = ["refused", "blocked"]
        )]
        on: String,
        /// Who was turned away since the Switch started, at which door, by which rules, and what would fix it
        #[arg(long, conflicts_with = "blocked")]
        refused: bool,
        /// Who is blocked, by whom, since when and why; also devices that never connected
        #[arg(long)]
        blocked: bool,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show one device
    #[command(after_help = "Examples:\n  muster client show web1.example.org")]
    Show {
        /// Its DeviceId
        device: String,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Keep a device out, whatever certificate it shows
    #[command(
        after_help = "Its session ends at once, it gets no other, and no new instruction is for it. Targets that are open \
            stay open until they expire: it answers them if it is unblocked in time.\nThe block is of the name, so that a new \
            certificate does not lift it; a device that never connected can be blocked, too.\n\n\
            Examples:\n  muster client block web1.example.org --reason 'stolen, ticket 4711'\n  \
            muster client list --blocked"
    )]
    Block {
        /// Its DeviceId
        #[arg(value_name = "NAME")]
        device: String,
        /// Why, for those who look later
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Let a blocked device in again
    #[command(after_help = "Examples:\n  muster client unblock web1.example.org")]
    Unblock {
        /// Its DeviceId
        #[arg(value_name = "NAME")]
        device: String,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Remove a device that is gone for good
    #[command(
        after_help = "It leaves audiences and lists, its session ends, and instructions that still waited for it go on \
            without it (its targets become `cancelled`).\nIts results and events stay. If it connects again it is a new \
            device: block it, or revoke its certificate, first to keep it out.\n\n\
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
    #[command(after_help = "Examples:\n  muster definition import Acme-Files-Present.cms")]
    Import {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// List definitions
    #[command(after_help = "Examples:\n  muster definition list -o wide")]
    List(Listing),
    /// Show one definition and its text
    #[command(after_help = "Examples:\n  muster definition show Muster-Os-Version")]
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
    #[command(after_help = "Examples:\n  muster licence import licence.cms\n\n\
                            Where the home has a licence of the same organisation, licence.cms, the newer one takes its place there, too.")]
    Import {
        /// The file
        file: PathBuf,
    },
    /// Show the licence that the Switch holds
    #[command(after_help = "Examples:\n  muster licence show\n  muster licence show -o json")]
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
    #[command(after_help = "Examples:\n  muster resource put agent.deb\n  \
        muster resource put build/agent-1.2.deb --name agent.deb -o json")]
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
    #[command(after_help = "Examples:\n  muster resource list")]
    List(Listing),
}

/// `muster event`
#[derive(Debug, Subcommand)]
pub(crate) enum Event {
    /// List events in the order of commitment
    #[command(after_help = "Examples:\n  muster event list --device web1.example.org\n  \
        muster event list --after 1200 --follow")]
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

/// Reads the name of a state.
fn target_state(name: &str) -> Result<TargetState, String> {
    let known = || muster_proto::state::ALL.map(TargetState::name).join(", ");
    TargetState::from_name(name).ok_or_else(|| format!("no state; wanted one of {}", known()))
}

/// `muster export`
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  muster export > fleet.jsonl\n  \
    muster export | grep '\"kind\":\"event\"'")]
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
#[command(after_help = "Examples:\n  muster doctor\n  muster doctor --context production -o json")]
pub(crate) struct Doctor {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

#[cfg(test)]
mod tests;
