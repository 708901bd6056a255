//! Certificates, signed documents, and the configuration of one client.

mod certificates;
mod client;
mod documents;
mod lists;
mod orders;

use std::path::PathBuf;
use std::time::Duration;

use muster_client::{Config, DeviceIdentity, TransportChoice, start};
use muster_pki::authority::{Authority, Issued, Request};
use muster_pki::{Role, UnixTime};
use muster_proto::ids::InstructionId;
use muster_service::shutdown::Shutdown;
use muster_signing::envelope::{self, ContentType, Signer};
use tempfile::TempDir;

pub(crate) use self::client::Client;
use self::documents::licence;

/// The device of every test.
pub(crate) const DEVICE: &str = "w701.acme.local";

/// The tenant of every test.
pub(crate) const TENANT: &str = "acme";

/// Longer than anything takes; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const DEFINITION: &str = r#"
name = "Acme-Test-Answer"
version = "1.0.0"
kind = "question"
says = "What is the answer?"

[[step]]
query = "SELECT 41 + 1 AS answer"

[[result]]
name = "answer"
type = "integer"

[limits]
run_time = "10s"
rows = 10
bytes = "16 KiB"

[time_to_live]
gather = { default = "1h", min = "1m", max = "7d" }
keep = { default = "1d", min = "1h", max = "30d" }
"#;

/// Everything that signs.
pub(crate) struct Lab {
    pub(crate) folder: TempDir,
    pub(crate) server: Issued,
    pub(crate) definition: Vec<u8>,
    pub(crate) licence: Vec<u8>,
    servers: Authority,
    devices: Authority,
    orders: Authority,
    authors: Authority,
    licences: Authority,
    policies: Authority,
    switch_orders: Authority,
    operator: Issued,
    author: Issued,
    /// The Switch's key for orders, and the one that comes after it.
    order_keys: [Issued; 2],
    licensor: Issued,
    administrator: Issued,
    config: Config,
}

impl Lab {
    /// Makes it, for a Switch on this port and a Background Channel on that.
    pub(crate) fn new(switch: u16, background: u16) -> Self {
        Self::with_points(switch, background, |_| "http://localhost/crl".to_owned())
    }

    /// As [`Self::new`]; the CAs of signers publish where `point` says, by the names of their files.
    pub(crate) fn with_points(switch: u16, background: u16, point: impl Fn(&str) -> String) -> Self {
        let signer_of = |authority: &Authority, name: &str, role, file: &str| {
            issue_with_url(authority, name, role, seconds_ago(3_000), &point(file))
        };
        let folder = TempDir::new().unwrap();
        let root = |name: &str, file: &str| {
            let root = Authority::root(name, Duration::from_secs(86_400), UnixTime::now()).unwrap();
            std::fs::write(folder.path().join(file), root.certificate_pem()).unwrap();
            root
        };
        let servers = root("Servers", "servers.pem");
        let devices = root("Devices", "devices.pem");
        let server = issue(&servers, "localhost", Role::Switch);
        let device = issue(&devices, DEVICE, Role::Device);
        let authors = root("Authors", "authors.pem");
        let author = signer_of(&authors, "author", Role::Author, "authors");
        let orders = root("Orders", "orders.pem");
        let operator = signer_of(&orders, "operator", Role::OrderSigner, "orders");
        let switch_orders = root("Switch orders", "switch_orders.pem");
        let order_keys = ["switch", "switch-2"].map(|name| issue(&switch_orders, name, Role::OrderSigner));
        let (licences, policies) = (root("Licences", "licences.pem"), root("Policies", "policies.pem"));
        let licensor = signer_of(&licences, "licensor", Role::Licensor, "licences");
        let administrator = signer_of(&policies, "administrator", Role::Policy, "policies");
        std::fs::write(folder.path().join("device.pem"), &device.chain_pem).unwrap();
        std::fs::write(folder.path().join("device.key"), &device.key_pem).unwrap();
        std::fs::write(folder.path().join("server.pem"), &server.chain_pem).unwrap();
        std::fs::write(folder.path().join("server.key"), &server.key_pem).unwrap();
        let definition = sign(DEFINITION.as_bytes(), ContentType::Definition, &signer(&author));
        let licence = licence(&author, &licensor, TENANT, 1, None);
        let config = config(&folder, switch, background);
        let lab = Self {
            folder,
            server,
            definition,
            licence,
            servers,
            devices,
            orders,
            authors,
            licences,
            policies,
            switch_orders,
            operator,
            author,
            order_keys,
            licensor,
            administrator,
            config,
        };
        lab.write_servers_list(1, &[]);
        lab
    }

    /// Returns the client's configuration, to be changed.
    pub(crate) fn config(&self) -> Config {
        self.config.clone()
    }

    /// Starts the client.
    pub(crate) async fn start(&self) -> Client {
        self.start_with(self.config()).await
    }

    /// Starts the client with another configuration.
    pub(crate) async fn start_with(&self, config: Config) -> Client {
        let shutdown = Shutdown::new();
        let running = start(config, shutdown.clone()).await.unwrap();
        Client { running, shutdown }
    }

    /// Returns a configuration with a store of certificates and a trust store, both filled, in place of files.
    pub(crate) fn with_folders(&self) -> Config {
        let (store, trust) = (self.folder.path().join("store"), self.folder.path().join("trust"));
        for folder in [&store, &trust] {
            std::fs::create_dir(folder).unwrap();
        }
        let copy = |from: &str, to: PathBuf| {
            std::fs::copy(self.folder.path().join(from), to).unwrap();
        };
        copy("device.pem", store.join("any name.pem"));
        copy("device.key", store.join("any name.key"));
        copy("servers.pem", trust.join("cainfo.pem"));
        let mut config = self.config();
        config.tls.certificate = PathBuf::new();
        config.tls.key = PathBuf::new();
        config.tls.store = store;
        config.trust.switch = PathBuf::new();
        config.trust.folder = trust;
        config
    }

    /// Puts a file in place by renaming.
    pub(crate) fn replace(&self, name: &str, text: &str) {
        let written = self.folder.path().join("written");
        std::fs::write(&written, text).unwrap();
        std::fs::rename(written, self.folder.path().join(name)).unwrap();
    }

    /// Returns a configuration of a device that has no certificate.
    pub(crate) fn without_certificate(&self) -> Config {
        let mut config = self.config();
        config.tls.identity = DeviceIdentity::Key;
        config.tls.certificate = PathBuf::new();
        config.tls.key = PathBuf::new();
        config
    }
}

/// Returns an instruction's id: a UUIDv7 that ends with the number.
pub(crate) fn instruction(number: u8) -> InstructionId {
    let mut bytes = [0x11; 16];
    bytes[6] = 0x70;
    bytes[8] = 0x80;
    bytes[15] = number;
    InstructionId::from(bytes)
}

pub(crate) fn now_ms() -> i64 {
    i64::try_from(UnixTime::now().as_secs()).unwrap() * 1_000
}

fn config(folder: &TempDir, switch: u16, background: u16) -> Config {
    let file = |name: &str| folder.path().join(name);
    let mut config = Config {
        switch: format!("wss://localhost:{switch}/v1/session"),
        background_channel: format!("https://localhost:{background}/Background/v1"),
        tenant: TENANT.to_owned(),
        data_dir: file("data"),
        ..Config::default()
    };
    config.crls = vec![file("servers.crl")];
    config.tls.certificate = file("device.pem");
    config.tls.key = file("device.key");
    config.trust.switch = file("servers.pem");
    config.trust.authors = file("authors.pem");
    config.trust.orders = file("orders.pem");
    config.trust.licences = file("licences.pem");
    config.trust.policies = file("policies.pem");
    config.trust.switch_orders = file("switch_orders.pem");
    config.helper.program = PathBuf::from(env!("CARGO_BIN_EXE_muster-client"));
    // The fake Switch listens by TCP alone, but for the tests of roads.
    config.session.transport = TransportChoice::Websocket;
    config.session.reconnect_base = Duration::from_millis(10);
    config.events.background_after = Duration::ZERO;
    config
}

fn issue(authority: &Authority, name: &str, role: Role) -> Issued {
    issue_at(authority, name, role, seconds_ago(3_000))
}

fn seconds_ago(ago: u64) -> UnixTime {
    seconds(UnixTime::now().as_secs() - ago)
}

fn seconds(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn issue_at(authority: &Authority, name: &str, role: Role, not_before: UnixTime) -> Issued {
    issue_with_url(authority, name, role, not_before, "http://localhost/crl")
}

fn issue_with_url(authority: &Authority, name: &str, role: Role, not_before: UnixTime, url: &str) -> Issued {
    authority
        .issue(&Request {
            common_name: name.to_owned(),
            dns_names: vec![name.to_owned()],
            ip_addresses: Vec::new(),
            role,
            not_before,
            not_after: seconds(not_before.as_secs() + 6_600),
            crl_url: Some(url.to_owned()),
        })
        .unwrap()
}

fn signer(issued: &Issued) -> Signer {
    Signer::from_pem(&issued.chain_pem, &issued.key_pem).unwrap()
}

fn sign(content: &[u8], kind: ContentType, signer: &Signer) -> Vec<u8> {
    envelope::sign(content, kind, signer, UnixTime::now()).unwrap()
}
