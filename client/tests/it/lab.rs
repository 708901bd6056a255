//! Certificates, signed documents, and the configuration of one client.

use std::path::PathBuf;
use std::time::Duration;

use muster_client::local::{Reply, Request as LocalRequest, ask};
use muster_client::{Config, DeviceIdentity, PolicyStatus, Running, start};
use muster_pki::authority::{Authority, Issued, Request, Revoked};
use muster_pki::{Certificate, CertificateDer, Role, Thumbprint, UnixTime};
use muster_proto::ids::{Digest, InstructionId};
use muster_proto::order::v1::{Audience, Order};
use muster_service::shutdown::Shutdown;
use muster_signing::envelope::{self, ContentType, Signer};
use muster_signing::licence::{Licence, Terms};
use muster_signing::order;
use rustls_pki_types::pem::PemObject as _;
use tempfile::TempDir;

use crate::switch::Session;

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

    /// Gives the device another certificate, in its files, and returns its thumbprint.
    pub(crate) fn renew_device(&self) -> Thumbprint {
        let device = issue(&self.devices, DEVICE, Role::Device);
        self.replace("device.key", &device.key_pem);
        self.replace("device.pem", &device.chain_pem);
        device.certificate.thumbprint()
    }

    /// Puts another device's certificate, of the same CA, into this one's files.
    pub(crate) fn put_certificate_of(&self, name: &str) {
        let device = issue(&self.devices, name, Role::Device);
        self.replace("device.key", &device.key_pem);
        self.replace("device.pem", &device.chain_pem);
    }

    /// Lets the Switch trust another CA of devices than the one that issued the device's certificate.
    pub(crate) fn replace_root_of_devices(&mut self) {
        self.devices =
            Authority::root("Other devices", Duration::from_secs(86_400), UnixTime::now()).unwrap();
        self.replace("devices.pem", &self.devices.certificate_pem());
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

    /// Signs a policy of the administrators; `more` is TOML behind serial and tenant.
    pub(crate) fn policy(&self, serial: u64, more: &str) -> Vec<u8> {
        policy(serial, more, &self.administrator)
    }

    /// Signs a policy as somebody who has a certificate for it, of a CA that this fleet does not know.
    pub(crate) fn foreign_policy(&self, serial: u64, more: &str) -> Vec<u8> {
        let root = Authority::root("Liars", Duration::from_secs(86_400), UnixTime::now()).unwrap();
        policy(serial, more, &issue(&root, "administrator", Role::Policy))
    }

    /// Signs a policy as an operator, whose root is trusted for orders.
    pub(crate) fn policy_by_operator(&self, serial: u64, more: &str) -> Vec<u8> {
        policy(serial, more, &self.operator)
    }

    /// Gives the servers a certificate of another CA, which the client does not know, and returns that CA.
    pub(crate) fn move_servers_to_another_ca(&mut self) -> String {
        self.move_servers_to_a_ca_that_publishes_at("http://localhost/crl")
    }

    /// As [`Self::move_servers_to_another_ca`], one that publishes its list there.
    pub(crate) fn move_servers_to_a_ca_that_publishes_at(&mut self, url: &str) -> String {
        let servers = Authority::root("Other servers", Duration::from_secs(86_400), UnixTime::now()).unwrap();
        self.server = issue_with_url(&servers, "localhost", Role::Switch, seconds_ago(3_000), url);
        servers.certificate_pem()
    }

    /// Revokes the certificate of the Switch and the Background Channel.
    pub(crate) fn revoke_server(&self) {
        let serial_hex = self.server.certificate.serial_hex();
        self.write_servers_list(2, &[Revoked { serial_hex, at: UnixTime::now() }]);
    }

    /// Returns a list that revokes the device's certificate.
    pub(crate) fn list_of_the_device(&self) -> String {
        let pem = std::fs::read(self.folder.path().join("device.pem")).unwrap();
        let der = CertificateDer::from_pem_slice(&pem).unwrap();
        let serial_hex = Certificate::from_der(&der).unwrap().serial_hex();
        let revoked = [Revoked { serial_hex, at: UnixTime::now() }];
        let now = UnixTime::now().as_secs();
        self.devices.crl(&revoked, 1, seconds(now - 10), seconds(now + 3_600)).unwrap()
    }

    /// Returns a list that revokes the operator's certificate.
    pub(crate) fn list_of_the_operator(&self) -> String {
        let serial_hex = self.operator.certificate.serial_hex();
        let revoked = [Revoked { serial_hex, at: UnixTime::now() }];
        let now = UnixTime::now().as_secs();
        self.orders.crl(&revoked, 1, seconds(now - 10), seconds(now + 3_600)).unwrap()
    }

    /// Publishes lists of the CAs of all signers, which revoke nobody, in the file that has the servers' list.
    pub(crate) fn publish_lists_of_signers(&self) {
        let now = UnixTime::now().as_secs();
        let authorities = [&self.servers, &self.authors, &self.orders, &self.licences, &self.policies];
        let lists = authorities.map(|one| one.crl(&[], 2, seconds(now - 10), seconds(now + 3_600)).unwrap());
        self.replace("servers.crl", &lists.concat());
    }

    /// Signs an order at a later time, by an operator whose certificate begins then.
    pub(crate) fn order_from(&self, number: u8, later: Duration) -> Vec<u8> {
        let at = UnixTime::now().as_secs() + later.as_secs();
        let young = issue_at(&self.orders, "operator", Role::OrderSigner, seconds(at));
        envelope::sign(&self.order_content(number, |_| {}), ContentType::Order, &signer(&young), seconds(at))
            .unwrap()
    }

    fn write_servers_list(&self, number: u64, revoked: &[Revoked]) {
        let now = UnixTime::now().as_secs();
        let list = self.servers.crl(revoked, number, seconds(now - 10), seconds(now + 3_600)).unwrap();
        self.replace("servers.crl", &list);
    }

    /// Puts a file in place by renaming.
    pub(crate) fn replace(&self, name: &str, text: &str) {
        let written = self.folder.path().join("written");
        std::fs::write(&written, text).unwrap();
        std::fs::rename(written, self.folder.path().join(name)).unwrap();
    }

    /// Signs another definition than [`Self::definition`], of the same name and version.
    pub(crate) fn definition_of(&self, sql: &str, run_time: &str) -> Vec<u8> {
        let text = DEFINITION.replace("SELECT 41 + 1 AS answer", sql);
        let text = text.replace("run_time = \"10s\"", &format!("run_time = {run_time:?}"));
        sign(text.as_bytes(), ContentType::Definition, &signer(&self.author))
    }

    /// Signs an action of the name and version of [`Self::definition`].
    pub(crate) fn action(&self) -> Vec<u8> {
        let text = DEFINITION.replace("kind = \"question\"", "kind = \"action\"");
        sign(text.as_bytes(), ContentType::Definition, &signer(&self.author))
    }

    /// Signs a definition of the name and version of [`Self::definition`] whose answer comes from a script.
    pub(crate) fn scripted(&self) -> Vec<u8> {
        self.scripted_by("echo '{\"answer\":42}'", "10s")
    }

    /// As [`Self::scripted`], of another script.
    pub(crate) fn scripted_by(&self, script: &str, run_time: &str) -> Vec<u8> {
        let script = format!("script = {{ interpreter = \"/bin/sh\", text = {script:?} }}");
        let text = DEFINITION.replace("query = \"SELECT 41 + 1 AS answer\"", &script);
        let text = text.replace("run_time = \"10s\"", &format!("run_time = {run_time:?}"));
        sign(text.as_bytes(), ContentType::Definition, &signer(&self.author))
    }

    /// Returns a configuration of a device that has no certificate.
    pub(crate) fn without_certificate(&self) -> Config {
        let mut config = self.config();
        config.tls.identity = DeviceIdentity::Key;
        config.tls.certificate = PathBuf::new();
        config.tls.key = PathBuf::new();
        config
    }

    /// Signs a definition that needs a resource, which is nowhere.
    pub(crate) fn definition_with_resource(&self) -> Vec<u8> {
        let resource = format!("\n[[resource]]\nname = \"list\"\nsize = 5\nroot = \"{}\"\n", "ab".repeat(32));
        let text = DEFINITION.replace("SELECT 41 + 1 AS answer", "SELECT length(:resource_list) AS answer");
        sign((text + &resource).as_bytes(), ContentType::Definition, &signer(&self.author))
    }

    /// Issues a certificate of the device, with its key, that no server takes: it tells of no CRL (C6).
    pub(crate) fn device_without_distribution_point(&self) -> String {
        let now = UnixTime::now().as_secs();
        let request = Request {
            common_name: DEVICE.to_owned(),
            dns_names: vec![DEVICE.to_owned()],
            ip_addresses: Vec::new(),
            role: Role::Device,
            not_before: seconds(now - 60),
            not_after: seconds(now + 3_600),
            crl_url: None,
        };
        let issued = self.devices.issue(&request).unwrap();
        issued.chain_pem + &issued.key_pem
    }

    /// Issues a certificate of the device, with its key, that begins so many seconds from now, and lasts less than two hours.
    pub(crate) fn device_from(&self, later: i64) -> String {
        let begin = UnixTime::now().as_secs().checked_add_signed(later).unwrap();
        let issued = issue_at(&self.devices, DEVICE, Role::Device, seconds(begin));
        issued.chain_pem + &issued.key_pem
    }

    /// Signs a licence of another tenant or serial than [`Self::licence`].
    pub(crate) fn licence_of(&self, tenant: &str, serial: u64) -> Vec<u8> {
        licence(&self.author, &self.licensor, tenant, serial, None)
    }

    /// Signs a licence whose successor should have come a minute ago.
    pub(crate) fn overdue_licence(&self, serial: u64) -> Vec<u8> {
        let minute_ago = seconds(UnixTime::now().as_secs() - 60);
        licence(&self.author, &self.licensor, TENANT, serial, Some(minute_ago))
    }

    /// Signs an order for everybody.
    pub(crate) fn order(&self, number: u8) -> Vec<u8> {
        self.order_with(number, |_| {})
    }

    /// Signs an order that differs.
    pub(crate) fn order_with(&self, number: u8, change: impl FnOnce(&mut Order)) -> Vec<u8> {
        sign(&self.order_content(number, change), ContentType::Order, &signer(&self.operator))
    }

    /// Signs an order for everybody with the Switch's own key, and returns that key's thumbprint, too.
    pub(crate) fn order_by_switch(&self, number: u8) -> (Vec<u8>, Thumbprint) {
        let (content, key) = (self.order_content(number, |_| {}), &self.order_keys[0]);
        (sign(&content, ContentType::Order, &signer(key)), key.certificate.thumbprint())
    }

    /// Signs an order with both keys of the Switch, and returns their thumbprints, too.
    pub(crate) fn order_by_both_keys(&self, number: u8) -> (Vec<u8>, [Thumbprint; 2]) {
        let (order, _) = self.order_by_switch(number);
        let both = envelope::cosign(&order, &signer(&self.order_keys[1]), UnixTime::now()).unwrap();
        (both, self.order_keys.each_ref().map(|key| key.certificate.thumbprint()))
    }

    /// Signs a definition that asks for an approval.
    pub(crate) fn approved_definition(&self) -> Vec<u8> {
        let text = format!("approvals = 1\n{DEFINITION}");
        sign(text.as_bytes(), ContentType::Definition, &signer(&self.author))
    }

    /// Signs the stop of an instruction, as an operator; `number` is the stop's own.
    pub(crate) fn stop(&self, number: u8, of: u8) -> Vec<u8> {
        self.stop_with(number, of, |_| {})
    }

    /// Signs a stop that differs.
    pub(crate) fn stop_with(&self, number: u8, of: u8, change: impl FnOnce(&mut Order)) -> Vec<u8> {
        sign(&self.stop_content(number, of, change), ContentType::Order, &signer(&self.operator))
    }

    /// Signs the stop of an instruction with the Switch's own key.
    pub(crate) fn stop_by_switch(&self, number: u8, of: u8) -> Vec<u8> {
        sign(&self.stop_content(number, of, |_| {}), ContentType::Order, &signer(&self.order_keys[0]))
    }

    fn stop_content(&self, number: u8, of: u8, change: impl FnOnce(&mut Order)) -> Vec<u8> {
        self.order_content(number, |order| {
            let (tenant, operator) = (order.tenant.clone(), order.operator.clone());
            let (not_before_ms, expires_at_ms) = (order.not_before_ms, order.expires_at_ms);
            *order = Order {
                tenant,
                instruction: instruction(number).to_vec(),
                licence_serial: 1,
                audience: Some(Audience::default()),
                not_before_ms,
                expires_at_ms,
                sequence: u64::from(number),
                operator,
                stops: instruction(of).to_vec(),
                reason: "wrong fleet".to_owned(),
                ..Order::default()
            };
            change(order);
        })
    }

    fn order_content(&self, number: u8, change: impl FnOnce(&mut Order)) -> Vec<u8> {
        let now_ms = now_ms();
        let mut order = Order {
            tenant: TENANT.to_owned(),
            instruction: instruction(number).to_vec(),
            definition_name: "Acme-Test-Answer".to_owned(),
            definition_version: "1.0.0".to_owned(),
            definition_digest: self.definition_digest().to_vec(),
            licence_serial: 1,
            arguments: Vec::new(),
            audience: Some(Audience::default()),
            not_before_ms: now_ms - 1_000,
            expires_at_ms: now_ms + 600_000,
            sequence: u64::from(number),
            operator: "operator".to_owned(),
            ..Order::default()
        };
        change(&mut order);
        order::encode(&order)
    }

    pub(crate) fn definition_digest(&self) -> Digest {
        envelope::digest(&self.definition)
    }

    pub(crate) fn licence_digest(&self) -> Digest {
        envelope::digest(&self.licence)
    }
}

/// A client that runs.
pub(crate) struct Client {
    pub(crate) running: Running,
    shutdown: Shutdown,
}

impl Client {
    /// Stops it as a signal does.
    pub(crate) async fn stop(self) {
        let outcome = self.shutdown.drain(PATIENCE).await;
        assert_eq!(outcome, muster_service::shutdown::DrainOutcome::Drained);
        self.running.wait().await.unwrap();
    }

    /// Waits until it tries a policy that this session offers.
    pub(crate) async fn wait_for_trial(&self, session: &mut Session, serial: u64) {
        tokio::select! {
            () = self.wait_for(|status| status.policy_trial == serial) => {}
            () = session.answer() => {}
        }
    }

    /// Waits until what it tells of itself fits.
    pub(crate) async fn wait_for(&self, fits: impl Fn(&muster_client::Status) -> bool) {
        let wait = async {
            while !fits(&self.running.status().await.unwrap()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the client never came to that");
    }

    /// How it stands with its policies.
    pub(crate) async fn policy(&self) -> PolicyStatus {
        match ask(self.running.socket(), &LocalRequest::Policy {}).await.unwrap() {
            Reply::Policy(policy) => *policy,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until what it tells of its policies fits.
    pub(crate) async fn wait_for_policy(&self, fits: impl Fn(&PolicyStatus) -> bool) {
        let wait = async {
            while !fits(&self.policy().await) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("its policies never came to that");
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

fn licence(
    author: &Issued,
    licensor: &Issued,
    tenant: &str,
    serial: u64,
    refresh_by: Option<UnixTime>,
) -> Vec<u8> {
    let now = UnixTime::now().as_secs();
    let terms = Terms {
        serial,
        licensee: "Acme".to_owned(),
        tenant: tenant.to_owned(),
        not_before: UnixTime::since_unix_epoch(Duration::from_secs(now - 1_000)),
        not_after: UnixTime::since_unix_epoch(Duration::from_secs(now + 3_000)),
        refresh_by,
        features: [].into(),
        prefixes: [("Acme".to_owned(), [author.certificate.thumbprint()].into())].into(),
        minimum_versions: [].into(),
        distrusted: [].into(),
    };
    let text = Licence::new(terms).unwrap().to_text().unwrap();
    sign(text.as_bytes(), ContentType::Licence, &signer(licensor))
}

fn policy(serial: u64, more: &str, administrator: &Issued) -> Vec<u8> {
    let text = format!("serial = {serial}\ntenant = {TENANT:?}\n{more}");
    sign(text.as_bytes(), ContentType::Policy, &signer(administrator))
}

fn signer(issued: &Issued) -> Signer {
    Signer::from_pem(&issued.chain_pem, &issued.key_pem).unwrap()
}

fn sign(content: &[u8], kind: ContentType, signer: &Signer) -> Vec<u8> {
    envelope::sign(content, kind, signer, UnixTime::now()).unwrap()
}
