//! What the client is told by its configuration file. Every field's documentation is its manual.

mod session;
mod trust;

use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_pki::RevocationMode;
use muster_pki::select::{Selection, SelectionSettings, WAIT_PERIOD_DEFAULT};
use muster_service::config::{Invalid, Validate, human};
use muster_service::credentials::{CertificateSettings, RevocationSettings};
use muster_service::telemetry::LogConfig;
use serde::{Deserialize, Serialize};

pub(crate) use self::session::Transport;
pub use self::session::{SessionConfig, TransportChoice};
pub use self::trust::TrustConfig;
use crate::key::DeviceIdentity;
use crate::url::ServiceUrl;

/// The configuration of one client (`client.toml`).
///
/// Unknown keys are refused. Durations are text such as `"10s"`, sizes are text such as `"64 MiB"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The Switch's session endpoint, `wss://HOST:PORT/v1/session`. The certificate of the Switch must be for HOST.
    pub switch: String,
    /// The Background Channel's base, `https://HOST:PORT/Background/v1`. Empty: none; then instructions with
    /// resources are refused and events wait for a session.
    pub background_channel: String,
    /// The organisation: orders of another tenant are refused with `WRONG_TENANT`. 1 to 64 bytes.
    pub tenant: String,
    /// Where the store, the cached resources and the local socket lie. Made with mode 0700 where it is missing. The
    /// path is at most 90 bytes, since the socket's path may have 107.
    pub data_dir: PathBuf,
    /// The computer's name. Empty: whatever the certificate says. A name that is not the certificate's DeviceId stops the
    /// client at start (trust.md C7).
    pub computer_name: String,
    /// Certificate revocation lists, PEM or DER: of signers and of servers.
    pub crls: Vec<PathBuf>,
    /// How certificates are judged.
    pub certificates: CertificateSettings,
    /// Who is revoked, and what a lapsed revocation list means. The mode is `soft` here: a client that refused its Switch for the
    /// lack of a fresh list would cut itself off from whoever could mend it.
    pub revocation: RevocationSettings,
    /// The device's own certificate.
    pub tls: TlsConfig,
    /// The roots that this client trusts, one file for each role; none may serve two roles.
    pub trust: TrustConfig,
    /// How policies are followed, if `trust.policies` says whose.
    pub policy: PolicyConfig,
    /// The program that runs SQL apart from the client.
    pub helper: HelperConfig,
    /// The session with the Switch.
    pub session: SessionConfig,
    /// How instructions are run.
    pub instructions: InstructionsConfig,
    /// The durable queue of results and events.
    pub outbox: OutboxConfig,
    /// The road of events over the Background Channel.
    pub events: EventsConfig,
    /// Content that instructions need.
    pub resources: ResourcesConfig,
    /// Where and how the client logs.
    pub log: LogConfig,
}

/// The device's own certificate; its first SAN dNSName (else its CN) is the DeviceId.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// By what this device is known: `certificate`, or `key` for one that has none. Such a device makes a key at its first start
    /// (`device.key` in `data_dir`) and is named after it; it gets no action, and no question that does not ask for such devices;
    /// it does not call the Background Channel, so that its events wait for a session and instructions with resources are refused.
    /// The Switch must let it in (`sessions.client_certificate` there). `certificate`, `key` and `store` are set to "" beside
    /// `key`. Default `certificate`.
    pub identity: DeviceIdentity,
    /// PEM: the leaf, then its issuers without the root; or a PFX with the key in it. Empty where there is a `store`.
    pub certificate: PathBuf,
    /// PEM: the leaf's private key; not looked at beside a PFX.
    pub key: PathBuf,
    /// A file with the password of PFX files and encrypted keys. Default: none.
    pub password_file: Option<PathBuf>,
    /// A folder of certificates with their keys, of which the best is taken, in place of `certificate` and `key`. Empty: none.
    pub store: PathBuf,
    /// Which certificate of the `store` is the best.
    pub selection: SelectionSettings,
}

/// How policies are followed (trust.md, K3 and K4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// A signed policy that is taken as soon as it is here, as one that the Switch carries is: for a machine that no Switch reaches, or
    /// whose Switch has moved. It is followed when it changes. Empty: none.
    pub file: PathBuf,
    /// How long a policy that changes where or whom the client connects to is tried beside the old one. Without a session
    /// by then, the old one stays. Default 5 m.
    #[serde(with = "human::duration")]
    pub trial: Duration,
    /// How often the Switch is asked for a later policy, besides at each session. Default 1 h.
    #[serde(with = "human::duration")]
    pub refresh: Duration,
    /// How long at most this client waits before it asks for a policy that its Switch has announced to many at once. The Switch
    /// says over how long they are to ask; a longer time is cut at this. Default 10 m.
    #[serde(with = "human::duration")]
    pub spread_max: Duration,
}

/// The program that runs SQL apart from the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HelperConfig {
    /// Empty: the running program itself.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// How instructions are run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InstructionsConfig {
    /// Instructions that run at once, 1 to 64. Default 4.
    pub parallel: usize,
    /// Instructions that wait, 1 to 4,096; a further one fails with the advice to issue it later. Default 256.
    pub queued: usize,
    /// How long a definition that an order names may take to arrive, and a CRL without which order, definition or licence is refused
    /// (R6). Default 30 s.
    #[serde(with = "human::duration")]
    pub definition_timeout: Duration,
    /// Bytes of rows that one answer may have here, 64 KiB to 16 MiB, whatever more its definition allows (`limits.bytes`); what is beyond is
    /// left out, and told as truncated. An answer that is larger than a message is sent in parts, and waits for its end on the disk of
    /// `data_dir`, without a name, for each instruction that runs. Default 16 MiB, the most that a definition may allow.
    #[serde(with = "human::bytes")]
    pub result_bytes_max: u64,
    /// How long an instruction is remembered after its window ended. Default 7 d.
    #[serde(with = "human::duration")]
    pub remember: Duration,
}

/// Bounds of the durable queue of results and events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutboxConfig {
    /// Bytes of events on disk; beyond, the oldest are dropped and counted in an `outbox.gap` event. Default 64 MiB.
    #[serde(with = "human::bytes")]
    pub events_bytes_max: u64,
    /// Bytes of results on disk; beyond, a result is stored without its rows, as failed. Default 256 MiB.
    #[serde(with = "human::bytes")]
    pub results_bytes_max: u64,
    /// What is older is dropped and counted in an `outbox.gap` event. Default 30 d.
    #[serde(with = "human::duration")]
    pub age_max: Duration,
}

/// The road of events over the Background Channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsConfig {
    /// How long the client is without a session before it posts its events. Default 30 s.
    #[serde(with = "human::duration")]
    pub background_after: Duration,
    /// For one request. Default 30 s.
    #[serde(with = "human::duration")]
    pub request_timeout: Duration,
}

/// Content that instructions need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResourcesConfig {
    /// The largest resource this client takes. Default 4 GiB.
    #[serde(with = "human::bytes")]
    pub bytes_max: u64,
    /// What the cache may hold; the longest unused goes first. Default 16 GiB.
    #[serde(with = "human::bytes")]
    pub cache_bytes_max: u64,
    /// The longest silence of the Background Channel while it sends. 16 KiB may take 16 s longer than that. Default 30 s.
    #[serde(with = "human::duration")]
    pub stall_timeout: Duration,
    /// How long a download waits for a certificate of the `tls.store` before its instruction is refused with `RESOURCE` and 0x209A;
    /// it is `p2p_client_cert_wait_period` of the source (S6 of trust.md). Meanwhile no other download runs. 0: not at all. Default
    /// 24 h.
    #[serde(with = "human::duration")]
    pub certificate_wait: Duration,
    /// Wrong answers for one resource, content that is not the signed one, before the instruction is refused with `RESOURCE`.
    /// A Background Channel that is away, overloaded or full is none: it is asked again, with pauses of up to half a minute,
    /// until the order's window ends. Default 5.
    pub attempts: u32,
}

/// The longest `data_dir`: a Unix socket's path has at most 107 bytes, and its name needs room.
const DATA_DIR_BYTES_MAX: usize = 90;

/// The longest tenant that an order may name.
const TENANT_BYTES_MAX: usize = 64;

/// Helper processes at once; each may take a processor and the memory of its rows.
const PARALLEL_MAX: usize = 64;

/// The least room for an answer: one value of the largest size.
const RESULT_BYTES_LEAST: u64 = 64 << 10;

/// The most that a definition may allow for an answer (`limits.bytes`).
const RESULT_BYTES_MOST: u64 = 16 << 20;

/// Instructions that wait in memory, each with two envelopes of at most 256 KiB.
const QUEUED_MAX: usize = 4_096;

impl Validate for Config {
    fn findings(&self) -> Vec<Invalid> {
        let mut found = Vec::new();
        let mut refuse = |key: &str, problem: String| found.push(Invalid::new(key, problem));
        if let Err(error) = ServiceUrl::parse(&self.switch, "wss") {
            refuse("switch", format!("{error}; wanted wss://HOST:PORT/v1/session"));
        }
        if !self.background_channel.is_empty()
            && let Err(error) = ServiceUrl::parse(&self.background_channel, "https")
        {
            let problem = format!("{error}; wanted https://HOST:PORT/Background/v1, or nothing for none");
            refuse("background_channel", problem);
        }
        if self.tenant.is_empty() || self.tenant.len() > TENANT_BYTES_MAX {
            refuse("tenant", format!("has {} bytes; wanted 1 to {TENANT_BYTES_MAX}", self.tenant.len()));
        }
        let path_bytes = self.data_dir.as_os_str().len();
        if path_bytes == 0 || path_bytes > DATA_DIR_BYTES_MAX {
            refuse("data_dir", format!("has {path_bytes} bytes; wanted 1 to {DATA_DIR_BYTES_MAX}"));
        }
        for (key, got, max) in [
            ("instructions.parallel", self.instructions.parallel, PARALLEL_MAX),
            ("instructions.queued", self.instructions.queued, QUEUED_MAX),
        ] {
            if !(1..=max).contains(&got) {
                refuse(key, format!("is {got}; wanted 1 to {max}"));
            }
        }
        let answer = self.instructions.result_bytes_max;
        if !(RESULT_BYTES_LEAST..=RESULT_BYTES_MOST).contains(&answer) {
            let wanted = [RESULT_BYTES_LEAST, RESULT_BYTES_MOST].map(human::bytes::format).join(" to ");
            let problem = format!("is {}; wanted {wanted}", human::bytes::format(answer));
            refuse("instructions.result_bytes_max", problem);
        }
        if self.resources.attempts == 0 {
            refuse("resources.attempts", "is 0; wanted at least 1".to_owned());
        }
        if self.tls.identity == DeviceIdentity::Key && !self.computer_name.is_empty() {
            let got = &self.computer_name;
            refuse(
                "computer_name",
                format!(
                    "is {got:?}, and a device with tls.identity = \"key\" is named after its key; leave it out"
                ),
            );
        }
        found.extend(self.tls.findings());
        found.extend(self.trust.findings());
        found.extend(self.duration_findings());
        found.extend(self.revocation.findings().into_iter().map(|invalid| invalid.within("revocation")));
        found.extend(self.log.validate().err().map(|invalid| invalid.within("log")));
        found
    }
}

impl Config {
    fn duration_findings(&self) -> Vec<Invalid> {
        let mut found = Vec::new();
        let session = &self.session;
        for (key, got) in [
            ("session.connect_timeout", session.connect_timeout),
            ("session.tls_timeout", session.tls_timeout),
            ("session.upgrade_timeout", session.upgrade_timeout),
            ("session.write_timeout", session.write_timeout),
            ("session.reconnect_base", session.reconnect_base),
            ("session.reconnect_cap", session.reconnect_cap),
            ("events.request_timeout", self.events.request_timeout),
            ("resources.stall_timeout", self.resources.stall_timeout),
            ("instructions.definition_timeout", self.instructions.definition_timeout),
            ("outbox.age_max", self.outbox.age_max),
            ("policy.trial", self.policy.trial),
            ("policy.refresh", self.policy.refresh),
        ] {
            if got.is_zero() {
                found.push(Invalid::new(key, "is 0s; wanted a duration such as \"10s\""));
            }
        }
        let remember = self.instructions.remember;
        if remember < REMEMBER_MIN {
            let (got, min) = (human::duration::format(remember), human::duration::format(REMEMBER_MIN));
            let problem = format!("is {got}; wanted at least {min}, or an order could run twice");
            found.push(Invalid::new("instructions.remember", problem));
        }
        found
    }

    /// Returns where the local socket lies.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket_in(&self.data_dir)
    }
}

impl TlsConfig {
    /// Returns whether the certificate is chosen from a folder.
    pub(crate) fn has_store(&self) -> bool {
        !self.store.as_os_str().is_empty()
    }

    fn findings(&self) -> Vec<Invalid> {
        let has_files = !self.certificate.as_os_str().is_empty();
        let mut found = Vec::new();
        let mut refuse = |key: &str, problem: String| found.push(Invalid::new(key, problem));
        match (self.has_store(), has_files) {
            // Not to be overlooked: whoever says the one and leaves the other there means one of them.
            (true, _) | (_, true) if self.identity == DeviceIdentity::Key => refuse(
                "tls.identity",
                "is \"key\", for a device without a certificate, and one is named; set certificate = \"\", key = \"\" and \
                 store = \"\", or leave identity out"
                    .to_owned(),
            ),
            (false, false) if self.identity == DeviceIdentity::Key => {}
            (true, true) => refuse(
                "tls.store",
                format!(
                    "is given beside tls.certificate ({}); set certificate = \"\" and key = \"\", or leave store out",
                    self.certificate.display()
                ),
            ),
            (false, false) => refuse(
                "tls.certificate",
                "is empty, and there is no tls.store; name the certificate's file with its key, or a folder as store".to_owned(),
            ),
            (true, false) | (false, true) => {}
        }
        if !self.has_store() && self.selection != SelectionSettings::default() {
            refuse("tls.selection", "chooses from a tls.store, and none is given".to_owned());
        }
        if let Err(error) = Selection::try_from(self.selection.clone()) {
            refuse("tls.selection", error.to_string());
        }
        found
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            switch: "wss://localhost:4000/v1/session".to_owned(),
            background_channel: "https://localhost:4443/Background/v1".to_owned(),
            tenant: "default".to_owned(),
            data_dir: "/var/lib/muster/client".into(),
            computer_name: String::new(),
            crls: Vec::new(),
            certificates: CertificateSettings::default(),
            revocation: RevocationSettings { mode: RevocationMode::Soft, ..RevocationSettings::default() },
            tls: TlsConfig::default(),
            trust: TrustConfig::default(),
            policy: PolicyConfig::default(),
            helper: HelperConfig::default(),
            session: SessionConfig::default(),
            instructions: InstructionsConfig::default(),
            outbox: OutboxConfig::default(),
            events: EventsConfig::default(),
            resources: ResourcesConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            identity: DeviceIdentity::Certificate,
            certificate: "/etc/muster/client/tls.pem".into(),
            key: "/etc/muster/client/tls.key".into(),
            password_file: None,
            store: PathBuf::new(),
            selection: SelectionSettings::default(),
        }
    }
}

/// Twice the five minutes by which a clock may go back and orders are still taken.
const REMEMBER_MIN: Duration = Duration::from_secs(600);

/// Returns where the local socket of the client with this `data_dir` lies.
#[must_use]
pub fn socket_in(data_dir: &Path) -> PathBuf {
    data_dir.join("client.sock")
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            file: PathBuf::new(),
            trial: crate::policy::TRIAL,
            refresh: Duration::from_secs(3_600),
            spread_max: Duration::from_secs(600),
        }
    }
}

impl Default for HelperConfig {
    fn default() -> Self {
        Self { program: PathBuf::new(), arguments: vec!["sql-helper".to_owned()] }
    }
}

impl Default for InstructionsConfig {
    fn default() -> Self {
        Self {
            parallel: 4,
            queued: 256,
            definition_timeout: Duration::from_secs(30),
            result_bytes_max: RESULT_BYTES_MOST,
            remember: Duration::from_secs(7 * 86_400),
        }
    }
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self {
            events_bytes_max: 64 << 20,
            results_bytes_max: 256 << 20,
            age_max: Duration::from_secs(30 * 86_400),
        }
    }
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self { background_after: Duration::from_secs(30), request_timeout: Duration::from_secs(30) }
    }
}

impl Default for ResourcesConfig {
    fn default() -> Self {
        Self {
            bytes_max: 4 << 30,
            cache_bytes_max: 16 << 30,
            stall_timeout: Duration::from_secs(30),
            certificate_wait: WAIT_PERIOD_DEFAULT,
            attempts: 5,
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_service::config::{Sources, load_with};

    use super::*;

    #[test]
    fn the_example_shows_the_defaults() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config/client.toml");
        let sources = Sources { file: Some(example), ..Sources::default() };

        let loaded = load_with::<Config>("muster-client", &sources, []).unwrap();

        assert_eq!(*loaded.config(), Config::default());
    }

    #[test]
    fn refuses_values_that_cannot_work_and_names_their_key() {
        let check = |key: &str, change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().key(), key);
        };
        check("switch", |config| config.switch = "https://localhost".to_owned());
        check("background_channel", |config| config.background_channel = "http://localhost".to_owned());
        check("tenant", |config| config.tenant.clear());
        check("data_dir", |config| config.data_dir = "/x".repeat(60).into());
        check("instructions.parallel", |config| config.instructions.parallel = 0);
        check("instructions.queued", |config| config.instructions.queued = 5_000);
        check("instructions.remember", |config| config.instructions.remember = Duration::from_secs(599));
        check("resources.attempts", |config| config.resources.attempts = 0);
        check("session.tls_timeout", |config| config.session.tls_timeout = Duration::ZERO);
        check("policy.trial", |config| config.policy.trial = Duration::ZERO);
        check("tls.store", |config| config.tls.store = "/store".into());
        check("tls.certificate", |config| config.tls.certificate = PathBuf::new());
        check("tls.identity", |config| config.tls.identity = DeviceIdentity::Key);
        check("computer_name", |config| {
            (config.tls.identity, config.tls.certificate) = (DeviceIdentity::Key, PathBuf::new());
            config.computer_name = "w701".to_owned();
        });
        check("tls.selection", |config| config.tls.selection.cert_issuer = "Acme".to_owned());
        check("trust.folder", |config| config.trust.folder = "/trust".into());
        check("trust.switch", |config| config.trust.switch = PathBuf::new());
        check("trust.verification", |config| config.trust.verification.ca_file = "/ca.pem".to_owned());
        check("revocation.fetching.parallel", |config| config.revocation.fetching.parallel = 0);
        check("log.filter", |config| config.log.filter = "=,=".to_owned());
    }

    #[test]
    fn every_value_that_cannot_work_is_told() {
        let mut config = Config { switch: "https://localhost".to_owned(), ..Config::default() };
        config.resources.attempts = 0;
        config.session.tls_timeout = Duration::ZERO;
        config.instructions.remember = Duration::ZERO;

        let findings = config.findings();

        let keys: Vec<&str> = findings.iter().map(Invalid::key).collect();
        assert_eq!(keys, ["switch", "resources.attempts", "session.tls_timeout", "instructions.remember"]);
        assert_eq!(findings[3].problem(), "is 0s; wanted at least 10m, or an order could run twice");
    }
}
