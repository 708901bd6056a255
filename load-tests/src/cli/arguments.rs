//! Arguments that commands share, and what becomes of them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Format, amounts};
use crate::ask::AskOptions;
use crate::proxy;
use crate::proxy::schedule::Faults;
use crate::scenario::Common;
use crate::scenario::faults::{self, Fault};
use crate::server::running::Typed;
use crate::simulated::Sabotage;
use crate::tls::Suite;
use crate::worker::protocol::Kind;

/// A fleet beyond what one machine holds; the limit only keeps typing errors away.
const SESSIONS_MAX: i64 = 200_000;

/// By how much floors may differ where nothing is said.
const TOLERANCE: f64 = 0.15;

/// What every scenario takes.
#[derive(Debug, Clone, Args)]
pub(super) struct SwitchArguments {
    /// How many devices, each with its own key and certificate
    #[arg(long, default_value_t = 2_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=SESSIONS_MAX))]
    sessions: u32,
    #[command(flatten)]
    target: TargetArguments,
    /// Spread the devices over so many worker processes at least
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
    /// The key exchange; the cipher is AES-128-GCM, the version TLS 1.3
    #[arg(long, value_enum, default_value_t = Suite::X25519)]
    suite: Suite,
    /// By how much floors, measured at the start, between rounds and at the end, may differ; a run beyond counts for nothing. 15%
    /// where nothing is said; `ask` measures floors only where something is
    #[arg(long, value_name = "PERCENT", value_parser = amounts::tolerance)]
    tolerance: Option<f64>,
    /// Have the first device do something wrong, to see that the run fails
    #[arg(long, value_enum, hide = true)]
    sabotage: Option<Sabotage>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Write the figures and charts as one HTML file
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write the first chart
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
}

/// What scenarios take whose work peers can do.
#[derive(Debug, Clone, Args)]
pub(super) struct PeerArguments {
    #[command(flatten)]
    switch: SwitchArguments,
    /// Measure a peer beside the Switch, in turn; may be given for each
    #[arg(long, value_enum, value_name = "PEER")]
    peer: Vec<Peer>,
}

/// How often a scenario measures that has rounds.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct RoundsArguments {
    /// How often to measure; the median is told, with minimum and maximum
    #[arg(long, default_value_t = 5, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// Which Switch.
#[derive(Debug, Clone, Args)]
struct TargetArguments {
    /// The home, or the --dir, of a `muster dev` that runs; without it a Switch is started and stopped
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Its operator API, where the home does not say
    #[arg(long, value_name = "HOST:PORT", requires = "home")]
    operator: Option<String>,
    /// Its session address, where it cannot be found
    #[arg(long, value_name = "HOST:PORT", requires = "home")]
    switch: Option<String>,
    /// Process id of its Switch, where it cannot be found
    #[arg(long, value_name = "PID", requires = "home")]
    pid: Option<u32>,
}

/// `--peer`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// nats-server over WebSocket
    Nats,
    /// mosquitto over WebSocket
    Mosquitto,
}

/// Where a run is told.
#[derive(Debug, Clone)]
pub(super) struct Outputs {
    pub(super) output: Format,
    pub(super) report: Option<PathBuf>,
    pub(super) svg: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct AskArguments {
    #[command(flatten)]
    common: PeerArguments,
    /// How often to put the question; the median round is told
    #[arg(long, default_value_t = 1, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Write what every device and the operator were told, for `muster-load check`
    #[arg(long, value_name = "FILE")]
    promises: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct FaultArguments {
    /// Which
    #[arg(value_enum)]
    fault: Fault,
    #[command(flatten)]
    common: SwitchArguments,
    /// How many connections or devices bring it about, beside the healthy ones [default: slowloris 3000, half-open and descriptors
    /// 1000, duplicate-identity and memory-cap 400]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    faulty: Option<u32>,
    /// Messages to all, four a second: so many without the fault, and under it as many, or more until it shows
    #[arg(long, default_value_t = 40, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    messages: u32,
    /// How long the Switch waits: for each stage (slowloris, descriptors), or for a sign of life (half-open); 10s to 15s and 150s where
    /// nothing is said, as by default
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    deadline: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct CrlArguments {
    /// Entries of the list
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) entries: u32,
    /// Sessions that ping, each every 20 ms
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) sessions: u32,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
}

#[derive(Debug, Args)]
pub(super) struct ProxyArguments {
    /// Where it listens, on loopback; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Where it goes, on loopback
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    /// Everything is so late, in each direction
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = humantime::parse_duration)]
    delay: Duration,
    /// And up to so much later, by chance
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = humantime::parse_duration)]
    jitter: Duration,
    /// The share of pieces (1,400 bytes) that come a retransmission later
    #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = amounts::share)]
    loss: f64,
    /// Cut each connection so long after its beginning
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    cut_after: Option<Duration>,
    /// Close the direction to the client so long after the beginning, and leave the other open
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    half_close_after: Option<Duration>,
    /// Read no faster, in each direction
    #[arg(long, value_name = "RATE", value_parser = amounts::rate)]
    slow_read: Option<u64>,
    /// The share of bytes of which one bit is turned
    #[arg(long, value_name = "PERCENT", default_value = "0%", value_parser = amounts::share)]
    corrupt: f64,
    /// What chance starts from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

impl SwitchArguments {
    /// What is measured, and where it is told.
    pub(super) fn split(self) -> anyhow::Result<(Common, Outputs)> {
        let Self { sessions, target, workers, suite, tolerance, sabotage, output, report, svg } = self;
        for file in [&report, &svg].into_iter().flatten() {
            // Known now, and not after the run.
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            if folder.is_some_and(|folder| !folder.is_dir()) {
                anyhow::bail!("{}: there is no such folder", file.display());
            }
        }
        let (home, typed) = target.split();
        let common = Common {
            sessions,
            rounds: 1,
            home,
            typed,
            workers,
            peers: Vec::new(),
            suite,
            tolerance: Some(tolerance.unwrap_or(TOLERANCE)),
            ping_interval: None,
            sabotage,
        };
        Ok((common, Outputs { output, report, svg }))
    }
}

impl RoundsArguments {
    /// What is measured, so often.
    pub(super) fn of(self, common: Common) -> Common {
        Common { rounds: self.rounds, ..common }
    }
}

impl PeerArguments {
    /// What is measured, and where it is told.
    pub(super) fn split(self) -> anyhow::Result<(Common, Outputs)> {
        let (common, outputs) = self.switch.split()?;
        let mut peers: Vec<Kind> = self.peer.into_iter().map(Peer::kind).collect();
        peers.sort_unstable();
        peers.dedup();
        if !peers.is_empty() {
            anyhow::ensure!(
                common.home.is_none(),
                "--peer with --home: a Switch that runs already has no core of its own as peers have; leave --home away"
            );
            anyhow::ensure!(
                common.suite == Suite::X25519,
                "--peer with --suite hybrid: not every peer has X25519MLKEM768; leave one of them away"
            );
        }
        Ok((Common { peers, ..common }, outputs))
    }
}

impl TargetArguments {
    fn split(self) -> (Option<PathBuf>, Typed) {
        let Self { home, operator, switch, pid } = self;
        (home, Typed { operator, switch, pid })
    }
}

impl Peer {
    fn kind(self) -> Kind {
        match self {
            Self::Nats => Kind::Nats,
            Self::Mosquitto => Kind::Mosquitto,
        }
    }
}

impl AskArguments {
    /// What is measured, and where it is told.
    pub(super) fn options(self) -> anyhow::Result<(AskOptions, Outputs)> {
        let Self { common, rounds, promises } = self;
        // It also shows that all answer, beside whatever else runs.
        let tolerance = common.switch.tolerance;
        let (common, outputs) = common.split()?;
        Ok((AskOptions { common: Common { rounds, tolerance, ..common }, promises }, outputs))
    }
}

impl FaultArguments {
    /// What is measured, and where it is told.
    pub(super) fn options(self) -> anyhow::Result<(faults::Options, Outputs)> {
        let Self { fault, common, faulty, messages, deadline } = self;
        let (common, outputs) = common.split()?;
        Ok((faults::Options { common, fault, faulty, messages, deadline }, outputs))
    }
}

impl ProxyArguments {
    /// What the proxy does.
    pub(super) fn options(self) -> anyhow::Result<proxy::relay::Options> {
        let Self { listen, to, delay, jitter, loss, cut_after, half_close_after, slow_read, corrupt, seed } =
            self;
        anyhow::ensure!(listen != to, "--listen {listen}: it would be its own target");
        let faults = Faults { delay, jitter, loss, corrupt, cut_after, half_close_after, slow_read };
        Ok(proxy::relay::Options { listen, to, faults, seed })
    }
}
