//! A place with separate binaries: Switch, Background Channel and clients, each with a configuration file of its own.
//!
//! ```text
//! home/             the operator's home (`muster pki init`, or openssl by hand)
//! certs/NAME.pem    localhost (server), relay (service), a device each; beside it NAME.key
//! NAME.toml         configurations
//! NAME.log          what they logged
//! NAME/             their stores
//! ```

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Service, Systemd, binary, folder, rows, run, sign_definition, wait_until, with, write};

/// The organisation of the tests.
const TENANT: &str = "dev";

/// Ports that were free a moment ago.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) sessions: u16,
    pub(crate) operator: u16,
    pub(crate) admin: u16,
    pub(crate) background: u16,
    pub(crate) background_admin: u16,
}

/// The folder and the ports of one set of binaries.
#[derive(Debug)]
pub(crate) struct Place {
    folder: tempfile::TempDir,
    pub(crate) ports: Ports,
}

impl Ports {
    /// Takes five free ports at once, so that they differ. They are below those that the kernel gives to outgoing
    /// connections, which other tests make all the time.
    pub(crate) fn free() -> Self {
        let listeners = [(); 5].map(|()| {
            std::iter::repeat_with(|| rand::random_range(10_000..30_000))
                .find_map(|port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
                .expect("a free port")
        });
        let [sessions, operator, admin, background, background_admin] =
            listeners.map(|listener| listener.local_addr().expect("an address").port());
        Self { sessions, operator, admin, background, background_admin }
    }
}

impl Place {
    /// A place without any certificate yet.
    pub(crate) fn empty() -> Self {
        let place = Self { folder: folder(), ports: Ports::free() };
        std::fs::create_dir_all(place.path("certs")).expect("a folder");
        place
    }

    /// A place with a PKI by `muster pki`, and certificates for servers and these devices.
    #[track_caller]
    pub(crate) fn with_pki(devices: &[&str]) -> Self {
        let place = Self::empty();
        place.muster(["pki", "init", "--tenant", TENANT]).with_code(0);
        place.issue(&["localhost", "--role", "switch", "--ip", "127.0.0.1"]);
        place.issue(&["relay", "--role", "service"]);
        for device in devices {
            place.issue(&[device]);
        }
        place
    }

    /// Issues a certificate into `certs/`.
    #[track_caller]
    pub(crate) fn issue(&self, arguments: &[&str]) {
        let certs = self.path("certs");
        with(
            self.command(),
            ["pki", "issue", "--force"]
                .iter()
                .chain(arguments)
                .map(Path::new)
                .chain([Path::new("--out"), certs.as_path()]),
        )
        .with_code(0);
    }

    /// A path below the folder.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// The operator's home.
    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// A `muster` command in the home.
    pub(crate) fn command(&self) -> Command {
        let mut command = binary("muster");
        command.env("MUSTER_HOME", self.home());
        command
    }

    /// Runs `muster` in the home.
    #[track_caller]
    pub(crate) fn muster<const N: usize>(&self, words: [&str; N]) -> super::Said {
        with(self.command(), words)
    }

    /// Makes the context that names this place's ports.
    #[track_caller]
    pub(crate) fn add_context(&self) {
        let switch = format!("localhost:{}", self.ports.operator);
        let background = self.background_url();
        self.muster(["ctx", "add", "here", "--switch", &switch, "--background-channel", &background])
            .with_code(0);
    }

    fn background_url(&self) -> String {
        format!("https://localhost:{}/Background/v1", self.ports.background)
    }

    /// The Switch's configuration; `more` is TOML that begins with top-level keys.
    pub(crate) fn switch_config(&self, more: &str) -> PathBuf {
        let Ports { sessions, operator, admin, .. } = self.ports;
        let text = format!(
            "listen = \"127.0.0.1:{sessions}\"\noperator_listen = \"127.0.0.1:{operator}\"\n\
             admin_listen = \"127.0.0.1:{admin}\"\ndata_dir = {data:?}\ntenant = \"{TENANT}\"\nshards = 1\n\
             [tls]\ncertificate = {certificate:?}\nkey = {key:?}\n{trust}\n{more}\n",
            data = self.path("switch"),
            certificate = self.path("certs/localhost.pem"),
            key = self.path("certs/localhost.key"),
            trust = self.trust(&[
                "devices",
                "operators",
                "services",
                "authors",
                "orders",
                "licences",
                "policies"
            ]),
        );
        self.configuration("switch", &text)
    }

    /// The Background Channel's configuration.
    pub(crate) fn background_config(&self) -> PathBuf {
        let Ports { operator, background, background_admin, .. } = self.ports;
        let text = format!(
            "listen = \"127.0.0.1:{background}\"\nadmin_listen = \"127.0.0.1:{background_admin}\"\n\
             data_dir = {data:?}\n[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n{trust}\n\
             [relay]\nswitch = \"localhost:{operator}\"\ncertificate = {relay:?}\nkey = {relay_key:?}\n",
            data = self.path("background"),
            certificate = self.path("certs/localhost.pem"),
            key = self.path("certs/localhost.key"),
            trust = self.trust(&["devices", "operators", "servers"]),
            relay = self.path("certs/relay.pem"),
            relay_key = self.path("certs/relay.key"),
        );
        self.configuration("background", &text)
    }

    /// A client's configuration; it comes back quickly, and takes the other road at once.
    pub(crate) fn client_config(&self, device: &str) -> PathBuf {
        self.client_config_to(device, self.ports.sessions, &self.background_url())
    }

    /// A client's configuration, with another Switch's port and Background Channel.
    pub(crate) fn client_config_to(&self, device: &str, sessions: u16, background: &str) -> PathBuf {
        let home = self.home();
        let root = |role: &str| home.join("trust").join(format!("{role}.pem"));
        let text = format!(
            "switch = \"wss://localhost:{sessions}/v1/session\"\nbackground_channel = \"{background}\"\n\
             tenant = \"{TENANT}\"\ndata_dir = {data:?}\n\
             [tls]\ncertificate = {certificate:?}\nkey = {key:?}\n\
             [trust]\nswitch = {servers:?}\nauthors = {authors:?}\norders = {orders:?}\nlicences = {licences:?}\n\
             [session]\nreconnect_base = \"100ms\"\nreconnect_cap = \"500ms\"\nquic_keep_alive = \"200ms\"\n[events]\nbackground_after = \"500ms\"\n",
            data = self.path(device),
            certificate = self.path(&format!("certs/{device}.pem")),
            key = self.path(&format!("certs/{device}.key")),
            servers = root("servers"),
            authors = root("authors"),
            orders = root("orders"),
            licences = root("licences"),
        );
        self.configuration(device, &text)
    }

    /// Has each start of a client's SQL helper leave the request that it read in a file of its own below `starts/`.
    pub(crate) fn record_starts(&self, device: &str) {
        let (helper, starts) = (self.path("helper"), self.path("starts"));
        std::fs::create_dir(&starts).expect("a folder");
        let program = muster_load_tests::dev_fleet::binary("muster-client");
        let script = format!(
            // `tee` writes its standard output first: the request is in the file before the helper sees any of it.
            // What was preloaded into the client is none of the helper's business.
            "#!/bin/sh\nunset LD_PRELOAD\n/usr/bin/tee /dev/fd/3 3>&1 >\"$(/usr/bin/mktemp {}/XXXXXXXXXX)\" | {} sql-helper\n",
            starts.display(),
            program.display()
        );
        write(&helper, &script);
        let executable = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        std::fs::set_permissions(&helper, executable).expect("permissions");
        let path = self.path(&format!("{device}.toml"));
        let text = std::fs::read_to_string(&path).expect("the configuration");
        write(&path, &format!("{text}\n[helper]\nprogram = {helper:?}\narguments = []\n"));
    }

    /// Starts of an SQL helper since [`Place::record_starts`].
    pub(crate) fn starts(&self) -> usize {
        std::fs::read_dir(self.path("starts")).expect("the starts").count()
    }

    fn trust(&self, roles: &[&str]) -> String {
        let line = |role: &&str| format!("{role} = {:?}\n", self.home().join(format!("trust/{role}.pem")));
        format!("[trust]\n{}", roles.iter().map(line).collect::<String>())
    }

    fn configuration(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(&format!("{name}.toml"));
        write(&path, text);
        path
    }

    /// Starts a program on the configuration of that name.
    #[track_caller]
    pub(crate) fn start(&self, program: &str, name: &str) -> Service {
        self.start_with(program, name, &[])
    }

    fn start_with(&self, program: &str, name: &str, environment: &[(&str, String)]) -> Service {
        let mut command = binary(program);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.arg("run").arg("--config").arg(self.path(&format!("{name}.toml")));
        Service::start(command, &self.path(&format!("{name}.log")))
    }

    /// Starts the Switch and waits until it answers operators.
    #[track_caller]
    pub(crate) fn start_switch(&self) -> Service {
        self.start_switch_with(&[])
    }

    /// As [`Place::start_switch`], in an environment.
    #[track_caller]
    pub(crate) fn start_switch_with(&self, environment: &[(&str, String)]) -> Service {
        let mut switch = self.start_with("muster-switch", "switch", environment);
        wait_until("the Switch to listen", || {
            assert!(switch.runs(), "the Switch ended:\n{}", switch.log());
            listens(self.ports.operator)
        });
        switch
    }

    /// Starts the Background Channel and waits until it listens.
    #[track_caller]
    pub(crate) fn start_background(&self) -> Service {
        let mut background = self.start("muster-background-channel", "background");
        wait_until("the Background Channel to listen", || {
            assert!(background.runs(), "the Background Channel ended:\n{}", background.log());
            listens(self.ports.background)
        });
        background
    }

    /// Starts a client and waits until its local socket answers.
    #[track_caller]
    pub(crate) fn start_client(&self, device: &str) -> Service {
        self.start_client_with(device, &[])
    }

    /// As [`Place::start_client`], in an environment.
    #[track_caller]
    pub(crate) fn start_client_with(&self, device: &str, environment: &[(&str, String)]) -> Service {
        let mut client = self.start_with("muster-client", device, environment);
        wait_until("the client's socket", || {
            assert!(client.runs(), "client {device} ended:\n{}", client.log());
            self.status(device).is_some()
        });
        client
    }

    /// As [`Place::start_client`], where a systemd of the test's has its units. It ends with that.
    #[track_caller]
    pub(crate) fn start_client_inside(&self, device: &str, systemd: &Systemd) -> Service {
        let mut command = binary("muster-client");
        command.arg("run").arg("--config").arg(self.path(&format!("{device}.toml")));
        let mut client = Service::start(systemd.inside(&command), &self.path(&format!("{device}.log")));
        wait_until("the client's socket", || {
            assert!(client.runs(), "client {device} ended:\n{}", client.log());
            self.status(device).is_some()
        });
        client
    }

    /// What `muster-client status` tells of a client, if it answers.
    pub(crate) fn status(&self, device: &str) -> Option<Value> {
        let said = self.client_command(device, &["status"], &[]);
        (said.code == 0).then(|| said.json())
    }

    /// Runs `muster-client WORDS… --data-dir DEVICE'S MORE…`.
    pub(crate) fn client_command(&self, device: &str, words: &[&str], more: &[&str]) -> super::Said {
        let mut command = binary("muster-client");
        run(command.args(words).arg("--data-dir").arg(self.path(device)).args(more))
    }

    /// Waits until the Switch shows a device as online.
    #[track_caller]
    pub(crate) fn wait_online(&self, device: &str) {
        wait_until(&format!("{device} to be online"), || {
            let said = self.muster(["client", "list", "-o", "json"]);
            let Ok(listed) = serde_json::from_str::<Value>(&said.out) else { return false };
            listed.as_array().is_some_and(|clients| {
                clients.iter().any(|client| client["device"] == device && client["online"] == true)
            })
        });
    }

    /// Hands the licence and the platform's definitions to the Switch.
    #[track_caller]
    pub(crate) fn import_all(&self) {
        self.import_licence();
        let mut command = self.command();
        command.args(["definition", "import"]);
        for entry in std::fs::read_dir(self.path("home/definitions")).expect("definitions").flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "cms") {
                command.arg(entry.path());
            }
        }
        run(&mut command).with_code(0);
    }

    /// Puts a resource of 70,000 bytes and a definition that needs it and tells its `size`.
    #[track_caller]
    pub(crate) fn author_with_resource(&self, name: &str) {
        let marker = self.path("marker.bin");
        std::fs::write(&marker, vec![7; 70_000]).unwrap();
        let put = with(self.command(), ["resource", "put", marker.to_str().unwrap(), "--name", "marker"]);
        let resource = put.with_code(0).out;
        let text = format!(
            r#"name = "{name}"
version = "1.0.0"
kind = "question"
says = "How large is the marker?"

{resource}
[[step]]
query = "SELECT size FROM files WHERE path = :resource_marker"

[[result]]
name = "size"
type = "integer"
"#
        );
        let signed = sign_definition(self.path("").as_path(), name, &text, &self.home());
        let mut import = self.command();
        run(import.args(["definition", "import"]).arg(signed)).with_code(0);
    }

    /// Hands the licence to the Switch.
    #[track_caller]
    pub(crate) fn import_licence(&self) {
        let mut command = self.command();
        command.args(["licence", "import"]).arg(self.path("home/licence.cms"));
        run(&mut command).with_code(0);
    }

    /// Asks, and gives the answer in JSON; the exit code must be this one.
    #[track_caller]
    pub(crate) fn ask(&self, sql: &str, code: i32) -> Value {
        self.muster(["ask", sql, "-o", "json", "--wait", "30s"]).with_code(code).json()
    }

    /// The committed events of one name.
    #[track_caller]
    pub(crate) fn events(&self, name: &str) -> Vec<Value> {
        let said = self.muster(["event", "list", "-o", "json"]).with_code(0);
        let listed = said.json();
        let all = listed.as_array().cloned().unwrap_or_else(|| rows(&listed));
        all.into_iter().filter(|event| event["name"] == name).collect()
    }
}

/// Whether somebody listens on a port of this machine.
fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}
