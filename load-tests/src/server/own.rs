//! A Switch of this run's own: `muster-switch` with a home of its own in a temporary folder, on a core of its own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::Place;
use super::launch::{Bounds, Launched};
use crate::dev_fleet::binary;
use crate::moment::Moment;
use crate::operator::Operator;

/// From its start until it listens.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// The organisation of a load test.
const TENANT: &str = "load";
/// Beyond what `--sessions` takes, for faults whose connections are beside them.
const SESSIONS_MAX: u32 = 250_000;
/// Sessions that a Switch of so many devices takes beyond them: those that come back before their last one is known to be gone.
const SESSIONS_SPARE: u32 = 512;

/// How a Switch of this run's own differs from the defaults.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// Keys of `[sessions]`, with their values as the configuration writes them.
    pub(crate) sessions: BTreeMap<&'static str, String>,
    /// Its shards over WebSocket.
    pub(crate) shards: Option<u16>,
    /// Descriptors that it may have open.
    pub(crate) files_max: Option<u32>,
}

impl Settings {
    /// For so many devices: it has as many shards as they take.
    pub(crate) fn of(sessions: u32, ping_interval: Option<Duration>) -> Self {
        let sessions_max = ("sessions_max", sessions.saturating_add(SESSIONS_SPARE).to_string());
        let pings = ping_interval.map(|every| ("ping_interval", as_written(every)));
        Self { sessions: [sessions_max].into_iter().chain(pings).collect(), ..Self::default() }
    }
}

/// A time as the configuration writes it.
pub(crate) fn as_written(time: Duration) -> String {
    format!("\"{}ms\"", time.as_millis())
}

/// A Switch that ends with this run.
#[derive(Debug)]
pub(crate) struct OwnSwitch {
    /// Ends before its folder is removed.
    process: Option<Launched>,
    folder: tempfile::TempDir,
    ports: [u16; 3],
    core: Option<usize>,
    settings: Settings,
}

impl OwnSwitch {
    /// Makes a home, starts a Switch in it and hands it licence and definitions.
    pub(crate) async fn start(core: Option<usize>, settings: Settings) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("muster-load-").tempdir()?;
        let mut switch = Self { folder, ports: free_ports()?, core, settings, process: None };
        switch.provision()?;
        switch.restart().await?;
        let imported = switch.import().await;
        if let (Err(_), Some(process)) = (&imported, &mut switch.process) {
            // Where it has ended, its log says more.
            process.check()?;
        }
        imported.map(|()| switch)
    }

    /// Where it is.
    pub(crate) fn place(&self) -> Place {
        let [sessions, operator, admin] = self.ports;
        Place {
            home: self.path("home"),
            sessions: format!("127.0.0.1:{sessions}"),
            operator: format!("localhost:{operator}"),
            admin: Some(format!("127.0.0.1:{admin}")),
            pid: self.process.as_ref().map(Launched::pid),
        }
    }

    /// Starts it, and waits until it listens; gives when it did where sessions connect.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<Moment> {
        let (config, log) = (self.path("switch.toml"), self.path("switch.log"));
        let config = config.to_string_lossy().into_owned();
        let bounds = Bounds { core: self.core, files_max: self.settings.files_max };
        let process = Launched::start(&binary("muster-switch"), &["run", "--config", &config], bounds, &log)?;
        let process = self.process.insert(process);
        let deadline = Instant::now() + READY_DEADLINE;
        let mut listens_at = None;
        // The port of sessions is the first.
        for port in self.ports {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
                process.check()?;
                if Instant::now() > deadline {
                    bail!("the Switch does not listen at {port} after {READY_DEADLINE:?}");
                }
                tokio::time::sleep(LOOK).await;
            }
            listens_at.get_or_insert_with(Moment::now);
        }
        Ok(listens_at.unwrap_or_else(Moment::now))
    }

    /// Kills it as a power cut would. That is also how it ends: its store goes with it, and nobody waits for its sessions to drain.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill_now())
    }

    fn provision(&self) -> anyhow::Result<()> {
        let certs = self.path("certs");
        std::fs::create_dir_all(&certs)?;
        self.muster(&["pki", "init", "--tenant", TENANT])?;
        let certs = certs.to_string_lossy();
        self.muster(&[
            "pki",
            "issue",
            "localhost",
            "--role",
            "switch",
            "--ip",
            "127.0.0.1",
            "--out",
            &certs,
        ])?;
        let [sessions, operator, admin] = self.ports;
        let roles = ["devices", "operators", "services", "authors", "orders", "licences", "policies"];
        let trust: String = roles
            .iter()
            .map(|role| format!("{role} = {:?}\n", self.path("home/trust").join(format!("{role}.pem"))))
            .collect();
        let Settings { sessions: keys, shards, .. } = &self.settings;
        let shards = shards.map(|shards| format!("shards = {shards}\n")).unwrap_or_default();
        let mut keys = keys.clone();
        keys.entry("sessions_max").or_insert_with(|| SESSIONS_MAX.to_string());
        let keys: String = keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let text = format!(
            "listen = \"127.0.0.1:{sessions}\"\noperator_listen = \"127.0.0.1:{operator}\"\n\
             admin_listen = \"127.0.0.1:{admin}\"\ndata_dir = {data:?}\ntenant = \"{TENANT}\"\n\
             {shards}[sessions]\n{keys}[log]\nfilter = \"warn\"\n\
             [tls]\ncertificate = {certificate:?}\nkey = {key:?}\n[trust]\n{trust}",
            data = self.path("switch"),
            certificate = self.path("certs/localhost.pem"),
            key = self.path("certs/localhost.key"),
        );
        std::fs::write(self.path("switch.toml"), text)?;
        Ok(())
    }

    fn muster(&self, words: &[&str]) -> anyhow::Result<()> {
        let program = binary("muster");
        let output = Command::new(&program)
            .args(words)
            .env("MUSTER_HOME", self.path("home"))
            .stdin(Stdio::null())
            .output()
            .with_context(|| {
                format!("{}: build it first: cargo build --workspace --bins", program.display())
            })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("muster {}: {}", words.join(" "), said.trim());
        }
        Ok(())
    }

    async fn import(&self) -> anyhow::Result<()> {
        let home = self.path("home");
        let operator = Operator::connect(&home, &self.place().operator).await?;
        operator.import_licence(std::fs::read(home.join("licence.cms"))?).await?;
        for entry in std::fs::read_dir(home.join("definitions"))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("Muster-Core-Query") && name.ends_with(".cms") {
                operator.import_definition(std::fs::read(&path)?).await?;
            }
        }
        Ok(())
    }

    fn path(&self, relative: &str) -> std::path::PathBuf {
        self.folder.path().join(relative)
    }
}

/// Ports that were free a moment ago, below those that the kernel gives to outgoing connections.
pub(crate) fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let mut listeners = Vec::with_capacity(N);
    while listeners.len() < N {
        let port: u16 = rand::random_range(10_000..30_000);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            listeners.push((listener, port));
        }
    }
    let ports: Vec<u16> = listeners.iter().map(|(_, port)| *port).collect();
    ports.try_into().map_err(|_| anyhow::anyhow!("no free ports"))
}
