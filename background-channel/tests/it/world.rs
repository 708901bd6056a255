//! A Background Channel with its PKI and folders, started and stopped by tests.

use std::time::Duration;

use muster_background_channel::{Config, RunError, Running};
use muster_pki::Role;
use muster_pki::authority::Issued;
use muster_service::shutdown::Shutdown;
use muster_service::wall::Wall;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::caller::Caller;
use crate::pki::{A_MONTH, Pki};

/// The Background Channel's name in its certificate.
pub(crate) const CHANNEL_NAME: &str = "background.test";

/// No wait of a test is longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A place for Background Channels to run in, one after the other, on one store.
pub(crate) struct World {
    pub(crate) pki: Pki,
    pub(crate) config: Config,
    /// Where the Switch will be; nobody answers there until a test lets it.
    pub(crate) switch: TcpListener,
    _folder: TempDir,
}

/// A Background Channel that runs.
pub(crate) struct Channel {
    pub(crate) running: Running,
    shutdown: Shutdown,
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new(folder.path());
        let switch = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            data_dir: folder.path().join("data"),
            ..Config::default()
        };
        let server = pki.issue(Role::Switch, CHANNEL_NAME, A_MONTH);
        (config.tls.certificate, config.tls.key) = pki.write("channel", &server);
        let service = pki.issue(Role::Service, "background.acme.local", A_MONTH);
        (config.relay.certificate, config.relay.key) = pki.write("service", &service);
        config.relay.switch = format!("localhost:{}", switch.local_addr().unwrap().port());
        config.trust.devices = pki.roots_file(Role::Device);
        config.trust.operators = pki.roots_file(Role::Operator);
        config.trust.servers = pki.roots_file(Role::Switch);
        Self { pki, config, switch, _folder: folder }
    }

    pub(crate) async fn start(&self) -> Channel {
        let shutdown = Shutdown::new();
        let running = muster_background_channel::start(self.config.clone(), shutdown.clone()).await.unwrap();
        Channel { running, shutdown }
    }

    /// Starts by a clock of the test's.
    pub(crate) async fn start_by(&self, wall: Wall) -> Channel {
        let (config, shutdown) = (self.config.clone(), Shutdown::new());
        let running = muster_background_channel::start_by(config, wall, shutdown.clone()).await.unwrap();
        Channel { running, shutdown }
    }

    /// Someone of a role, who speaks HTTP/1.1.
    pub(crate) fn caller(&self, channel: &Channel, role: Role, name: &str) -> Caller {
        self.caller_with(channel, Some(&self.pki.issue(role, name, A_MONTH)), b"http/1.1")
    }

    /// The answer of the admin address, its head included.
    pub(crate) async fn admin(&self, channel: &Channel, path: &str) -> String {
        let mut stream = TcpStream::connect(channel.running.admin_addr()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Who has this certificate, and speaks the one protocol named.
    pub(crate) fn caller_with(&self, channel: &Channel, own: Option<&Issued>, alpn: &[u8]) -> Caller {
        Caller::new(channel.running.addr(), self.pki.tls(own, alpn))
    }
}

impl Channel {
    /// Stops the Background Channel and waits until it has.
    pub(crate) async fn stop(self) -> Result<(), RunError> {
        self.shutdown.trigger();
        tokio::time::timeout(PATIENCE, self.running.wait()).await.unwrap()
    }
}
