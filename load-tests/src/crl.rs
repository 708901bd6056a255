//! `muster-load crl`: what sessions notice while their Switch loads a large CRL (R7 of trust.md).
//!
//! Each session sends WebSocket pings on a schedule, so that a stall is counted for every ping that fell into it. The same
//! sessions are measured idle, from the list's rename into place until the Switch says that it is in use, and after that, while
//! the newly revoked are looked for.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use muster_pki::authority::{Authority, Revoked};
use muster_pki::{Roots, UnixTime};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::dev_fleet::DevFleet;
use crate::pinged::{self, Heard};
use crate::report::{Latencies, Quantiles};
use crate::simulated::Shared;
use crate::tls;

/// How long the sessions are measured idle, and after the load.
const BESIDE: Duration = Duration::from_secs(3);
/// Between two looks at the Switch's metrics.
const LOOK: Duration = Duration::from_millis(50);
/// How long the Switch may take to load a list, and a session to begin.
const PATIENCE: Duration = Duration::from_secs(120);
const DAY: u64 = 86_400;
/// Beyond the number of any list that a home has.
const NUMBER: u64 = 1_000_000;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct CrlOptions {
    /// Entries of the list.
    pub entries: u32,
    /// Sessions that ping.
    pub sessions: u32,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct CrlReport {
    /// Entries of the list.
    pub entries: u32,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// Sessions that pinged.
    pub sessions: u32,
    /// Sessions that ended, which none should.
    pub lost_sessions: usize,
    /// From the rename until the list was in use. The Switch rests 0.3 s before it reads a file that changed.
    pub load_seconds: f64,
    /// Pings before the load.
    pub idle: Quantiles,
    /// Pings that were due during the load.
    pub loading: Quantiles,
    /// Pings that were due in the three seconds after it.
    pub after: Quantiles,
}

impl CrlReport {
    /// Whether every session stood, and answered in each phase.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let phases = [self.idle, self.loading, self.after];
        self.lost_sessions == 0 && phases.iter().all(|phase| phase.count > 0)
    }
}

impl fmt::Display for CrlReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "entries       {} in {} bytes", self.entries, self.file_bytes)?;
        writeln!(f, "load          {:.3} s", self.load_seconds)?;
        writeln!(f, "sessions      {} ({} lost)", self.sessions, self.lost_sessions)?;
        for (name, phase) in [("idle", self.idle), ("loading", self.loading), ("after", self.after)] {
            let Quantiles { count, p50_ms, p99_ms, max_ms } = phase;
            writeln!(
                f,
                "pings {name:<7} p50 {p50_ms:.1} ms   p99 {p99_ms:.1} ms   last {max_ms:.1} ms   of {count}"
            )?;
        }
        Ok(())
    }
}

/// Runs the scenario on a Switch of its own.
///
/// # Errors
/// The fleet cannot be started, or a deadline passes.
pub async fn run(options: CrlOptions) -> anyhow::Result<CrlReport> {
    let mut fleet = tokio::task::spawn_blocking(|| DevFleet::start(0)).await??;
    let home = fleet.ready.home.clone();
    let entries = options.entries;
    let made = tokio::task::spawn_blocking(move || large_list(&home, entries)).await??;
    let sessions = Sessions::connect(&fleet, options.sessions).await?;
    let admin = fleet.ready.admin.trim_start_matches("http://").trim_end_matches('/').to_owned();

    tokio::time::sleep(BESIDE).await;
    let (new, current) =
        (fleet.ready.home.join("pki/devices/crl.new"), fleet.ready.home.join("pki/devices/crl.pem"));
    tokio::fs::write(&new, &made).await?;
    // What the writing left to do is not to be measured.
    tokio::time::sleep(BESIDE).await;
    let renamed = Instant::now();
    tokio::fs::rename(&new, &current).await?;
    let loaded = until_loaded(&admin, entries).await?;
    tokio::time::sleep(BESIDE).await;
    let ended = Instant::now();

    let heard = sessions.end().await?;
    tokio::task::spawn_blocking(move || fleet.stop()).await??;
    let mut phases = [Latencies::new()?, Latencies::new()?, Latencies::new()?];
    for (due, latency) in &heard.pongs {
        let phase = match due {
            due if *due >= ended => continue,
            due if *due >= loaded => 2,
            due if *due >= renamed => 1,
            due if *due >= renamed - BESIDE => 0,
            _ => continue,
        };
        if let Some(phase) = phases.get_mut(phase) {
            phase.add(*latency);
        }
    }
    let [idle, loading, after] = phases.map(|phase| phase.quantiles());
    Ok(CrlReport {
        entries,
        file_bytes: made.len() as u64,
        sessions: options.sessions,
        lost_sessions: heard.lost.len(),
        load_seconds: loaded.duration_since(renamed).as_secs_f64(),
        idle,
        loading,
        after,
    })
}

/// Makes the devices' CA's next list, of so many certificates that nobody has, and the CA beside it.
fn large_list(home: &Path, entries: u32) -> anyhow::Result<Vec<u8>> {
    let read = |name: &str| {
        let path = home.join("pki/devices").join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let authority = Authority::from_pem(&read("issuing.pem")?, &read("issuing.key")?)?;
    let now = UnixTime::now();
    let next = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 30 * DAY));
    let entry = |_| {
        // 16 bytes as CAs make them at random, positive and without leading zeros.
        let serial = rand::random::<u128>() & (u128::MAX >> 1) | (1 << 120);
        Revoked { serial_hex: format!("{serial:032x}"), at: now }
    };
    let revoked: Vec<Revoked> = (0..entries).map(entry).collect();
    let list = authority.crl(&revoked, NUMBER, now, next)?;
    Ok((list + &authority.certificate_pem()).into_bytes())
}

async fn until_loaded(admin: &str, entries: u32) -> anyhow::Result<Instant> {
    let looking = async {
        loop {
            if entries_in_use(admin).await? >= f64::from(entries) {
                return Ok(Instant::now());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.context("the list was not loaded in time")?
}

async fn entries_in_use(admin: &str) -> anyhow::Result<f64> {
    let mut stream = TcpStream::connect(admin).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let line = answer.lines().find_map(|line| line.strip_prefix("muster_crl_entries "));
    Ok(line.and_then(|number| number.trim().parse().ok()).unwrap_or_default())
}

/// What the sessions heard.
#[derive(Debug, Default)]
struct Told {
    /// When each ping was due, and how long its answer took.
    pongs: Vec<(Instant, Duration)>,
    lost: Vec<String>,
}

struct Sessions {
    tasks: JoinSet<()>,
    cancelled: CancellationToken,
    /// One task, which ends with the last session.
    collector: JoinSet<Told>,
}

impl Sessions {
    async fn connect(fleet: &DevFleet, count: u32) -> anyhow::Result<Self> {
        let home = &fleet.ready.home;
        let orders = Roots::from_pem(&std::fs::read(home.join("trust/orders.pem"))?, "orders")?;
        let shared = Arc::new(Shared::new(fleet.session_address().to_owned(), orders));
        let names: Vec<String> = (0..count).map(|number| format!("ping-{number}")).collect();
        let (identities, roots) = (tls::issue_devices(home, &names)?, tls::server_roots(home)?);
        let (teller, mut heard) = mpsc::channel(65_536);
        let (mut tasks, cancelled) = (JoinSet::new(), CancellationToken::new());
        for identity in &identities {
            let config = tls::client(&roots, identity, &[])?;
            let (shared, name) = (Arc::clone(&shared), identity.name.clone());
            tasks.spawn(pinged::run(shared, name, config, teller.clone(), cancelled.clone()));
            // One by one: what is measured is not a storm.
            match tokio::time::timeout(PATIENCE, until_welcome(&mut heard)).await?? {
                Ok(()) => {}
                Err(problem) => bail!("{}: {problem}", identity.name),
            }
        }
        drop(teller);
        let mut collector = JoinSet::new();
        collector.spawn(async move {
            let mut told = Told::default();
            while let Some(one) = heard.recv().await {
                match one {
                    Heard::Welcome => {}
                    Heard::Pong { due, latency } => told.pongs.push((due, latency)),
                    Heard::Lost(problem) => told.lost.push(problem),
                }
            }
            told
        });
        Ok(Self { tasks, cancelled, collector })
    }

    async fn end(mut self) -> anyhow::Result<Told> {
        self.cancelled.cancel();
        while self.tasks.join_next().await.is_some() {}
        Ok(self.collector.join_next().await.context("nobody listened")??)
    }
}

async fn until_welcome(heard: &mut mpsc::Receiver<Heard>) -> anyhow::Result<Result<(), String>> {
    loop {
        match heard.recv().await.context("no session")? {
            Heard::Welcome => return Ok(Ok(())),
            Heard::Lost(problem) => return Ok(Err(problem)),
            Heard::Pong { .. } => {}
        }
    }
}
