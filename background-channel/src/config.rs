//! Configuration of the Background Channel: every key, its meaning, unit and default.
//!
//! The defaults are [`Default`]; `deploy/config/background-channel.toml` shows them and is tested to be equal.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_proto::limits::EVENT_BATCH_BYTES_MAX;
use muster_service::admin;
use muster_service::admission::LobbyBounds;
use muster_service::config::{Invalid, Validate, human};
use muster_service::credentials::{Address, CertificateSettings, RevocationSettings, ServerTls};
use muster_service::telemetry::LogConfig;
use muster_service::wall::ClockLimits;
use serde::{Deserialize, Serialize};

use crate::spool::SpoolBounds;

/// Where its own files lie.
const FOLDER: &str = "/etc/muster/background-channel";

/// Everything the Background Channel can be told. Unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients and operators connect (HTTPS, HTTP/1.1 and 2). Port 0 takes a free one. Default `0.0.0.0:4443`.
    pub listen: SocketAddr,
    /// Where metrics and health are read (plain HTTP); loopback only. Default `127.0.0.1:4442`.
    pub admin_listen: SocketAddr,
    /// Folder of resources and spool; made if it is missing. Default `/var/lib/muster/background-channel`.
    pub data_dir: PathBuf,
    /// The server certificate.
    pub tls: ServerTls,
    /// Who is trusted, as what. One root in two roles is refused.
    pub trust: TrustConfig,
    /// Certificate revocation lists, PEM or DER, watched for changes. Default: none.
    pub crls: Vec<PathBuf>,
    /// How certificates are judged.
    pub certificates: CertificateSettings,
    /// Who is revoked, and what a lapsed revocation list means.
    pub revocation: RevocationSettings,
    /// How spooled events reach the Switch.
    pub relay: RelayConfig,
    /// Bounds.
    pub limits: Limits,
    /// How far the wall clock is believed.
    pub clock: ClockLimits,
    /// What is logged, and how.
    pub log: LogConfig,
}

/// PEM files with the roots of each role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrustConfig {
    /// Roots of clients' certificates. Default `/etc/muster/trust/devices.pem`.
    pub devices: PathBuf,
    /// Roots of operators' TLS certificates. Default `/etc/muster/trust/operators.pem`.
    pub operators: PathBuf,
    /// Roots of the Switch's server certificate. Default `/etc/muster/trust/servers.pem`.
    pub servers: PathBuf,
}

/// The road to the Switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelayConfig {
    /// `HOST:PORT` of the Switch's operator API; its certificate is for HOST. Default `localhost:4001`.
    pub switch: String,
    /// PEM: the service certificate (clientAuth) shown to the Switch. Default
    /// `/etc/muster/background-channel/service.pem`.
    pub certificate: PathBuf,
    /// PEM: its private key; not looked at beside a PFX. Default `/etc/muster/background-channel/service.key`.
    pub key: PathBuf,
    /// A file with the password of the PFX or the key. Default: none.
    pub password_file: Option<PathBuf>,
    /// How often the Switch is asked whom its operators block, and told who was turned away here. Default `5s`.
    #[serde(with = "human::duration")]
    pub ask_every: Duration,
}

/// Bounds (spec/promises.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at most, handshakes not among them; further ones are closed at once. Default 1024.
    pub connections_max: usize,
    /// Of these, of one device; its further ones are closed. Operators have no such bound. Default 8.
    pub connections_per_device_max: u32,
    /// Handshakes in progress at most; further connections wait in the kernel's backlog. Default 256.
    pub handshakes_max: u32,
    /// Of these, for one source (an IPv4 address, or an IPv6 /64) at most; its further ones wait. Default 128.
    pub handshakes_per_source_max: u32,
    /// From the TCP connection to its first byte. Default `3s`.
    #[serde(with = "human::duration")]
    pub first_byte_deadline: Duration,
    /// Connections that wait for their first byte, or after it for a handshake, at most; further ones are closed.
    /// Default 2048.
    pub waiting_max: u32,
    /// Of these, from one source at most. Default 512.
    pub waiting_per_source_max: u32,
    /// From the first byte to the end of the TLS handshake. Default `10s`.
    #[serde(with = "human::duration")]
    pub tls_deadline: Duration,
    /// From one request's first byte to its headers' end. Default `15s`.
    #[serde(with = "human::duration")]
    pub header_deadline: Duration,
    /// From a place for the body of a post of events to its last byte. Default `30s`.
    #[serde(with = "human::duration")]
    pub body_deadline: Duration,
    /// Bodies of posts of events in memory, until their events are on disk; further posts are told to come back. At
    /// least `1 MiB`. Default `64 MiB`.
    #[serde(with = "human::bytes")]
    pub posts_bytes_max: u64,
    /// Posts of events of one device under way at once; its further ones are told to come back. Default 4.
    pub posts_per_device_max: u32,
    /// The longest life of a connection; a client that still transfers comes back with a range. Default `30m`.
    #[serde(with = "human::duration")]
    pub connection_max: Duration,
    /// Requests of one HTTP/2 connection under way at once. Default 128.
    pub streams_max: u32,
    /// The largest resource. Default `4 GiB`.
    #[serde(with = "human::bytes")]
    pub resource_bytes_max: u64,
    /// Events that wait for the Switch; beyond it posts are told to come back. Default `1 GiB`.
    #[serde(with = "human::bytes")]
    pub spool_bytes_max: u64,
    /// Of these, of one device. Default `64 MiB`.
    #[serde(with = "human::bytes")]
    pub spool_bytes_per_device_max: u64,
    /// How long an event waits whose device the Switch does not know, from when it first said so; then it is dropped.
    /// Default `7d`.
    #[serde(with = "human::duration")]
    pub refused_kept_for: Duration,
    /// Events set aside, since they are damaged or the Switch will never take them, beside those that wait; the oldest
    /// go first. Default `16 MiB`.
    #[serde(with = "human::bytes")]
    pub set_aside_bytes_max: u64,
    /// How long open requests may take when the service stops. Default `10s`.
    #[serde(with = "human::duration")]
    pub drain_timeout: Duration,
}

impl Limits {
    /// Returns what may wait for its first byte.
    pub(crate) fn lobby(&self) -> LobbyBounds {
        LobbyBounds {
            first_byte_deadline: self.first_byte_deadline,
            waiting_max: self.waiting_max,
            waiting_per_source_max: self.waiting_per_source_max,
        }
    }
}

impl Limits {
    /// Returns what the spool may hold.
    #[must_use]
    pub fn spool(&self) -> SpoolBounds {
        SpoolBounds {
            bytes_max: self.spool_bytes_max,
            bytes_per_device_max: self.spool_bytes_per_device_max,
            refused_kept_for: self.refused_kept_for,
            set_aside_bytes_max: self.set_aside_bytes_max,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 4443)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 4442)),
            data_dir: PathBuf::from("/var/lib/muster/background-channel"),
            tls: ServerTls::in_folder(Path::new(FOLDER)),
            trust: TrustConfig::default(),
            crls: Vec::new(),
            certificates: CertificateSettings::default(),
            revocation: RevocationSettings::default(),
            relay: RelayConfig::default(),
            limits: Limits::default(),
            clock: ClockLimits::default(),
            log: LogConfig::default(),
        }
    }
}

impl Default for TrustConfig {
    fn default() -> Self {
        let file = |name: &str| PathBuf::from("/etc/muster/trust").join(name);
        Self { devices: file("devices.pem"), operators: file("operators.pem"), servers: file("servers.pem") }
    }
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            switch: "localhost:4001".to_owned(),
            certificate: own_file("service.pem"),
            key: own_file("service.key"),
            password_file: None,
            ask_every: Duration::from_secs(5),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            connections_per_device_max: 8,
            handshakes_max: 256,
            handshakes_per_source_max: 128,
            first_byte_deadline: Duration::from_secs(3),
            waiting_max: 2_048,
            waiting_per_source_max: 512,
            tls_deadline: Duration::from_secs(10),
            header_deadline: Duration::from_secs(15),
            body_deadline: Duration::from_secs(30),
            posts_bytes_max: 64 << 20,
            posts_per_device_max: 4,
            connection_max: Duration::from_secs(30 * 60),
            streams_max: 128,
            resource_bytes_max: 4 << 30,
            spool_bytes_max: 1 << 30,
            spool_bytes_per_device_max: 64 << 20,
            refused_kept_for: Duration::from_secs(7 * 24 * 3_600),
            set_aside_bytes_max: 16 << 20,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

impl Validate for Config {
    fn findings(&self) -> Vec<Invalid> {
        let mut found = Vec::new();
        found.extend(admin::check_address(self.admin_listen).err());
        if self.admin_listen == self.listen && self.listen.port() != 0 {
            let problem = format!("got {}, which `listen` has: give each its own port", self.admin_listen);
            found.push(Invalid::new("admin_listen", problem).against("listen"));
        }
        found.extend(self.tls.findings());
        if let Err(error) = self.relay.switch.parse::<Address>() {
            found.push(Invalid::new("relay.switch", error.to_string()));
        }
        let limits = &self.limits;
        for (key, got) in [
            ("limits.connections_max", u64::try_from(limits.connections_max).unwrap_or(u64::MAX)),
            ("limits.connections_per_device_max", limits.connections_per_device_max.into()),
            ("limits.posts_per_device_max", limits.posts_per_device_max.into()),
            ("limits.handshakes_max", limits.handshakes_max.into()),
            ("limits.handshakes_per_source_max", limits.handshakes_per_source_max.into()),
            ("limits.waiting_max", limits.waiting_max.into()),
            ("limits.waiting_per_source_max", limits.waiting_per_source_max.into()),
            ("limits.streams_max", limits.streams_max.into()),
            ("limits.resource_bytes_max", limits.resource_bytes_max),
            ("limits.spool_bytes_max", limits.spool_bytes_max),
            ("limits.spool_bytes_per_device_max", limits.spool_bytes_per_device_max),
        ] {
            if got == 0 {
                found.push(Invalid::new(key, "got 0, wanted at least 1: nothing would be served"));
            }
        }
        for (key, got) in [
            ("limits.first_byte_deadline", limits.first_byte_deadline),
            ("limits.tls_deadline", limits.tls_deadline),
            ("limits.header_deadline", limits.header_deadline),
            ("limits.body_deadline", limits.body_deadline),
            ("limits.connection_max", limits.connection_max),
            ("limits.drain_timeout", limits.drain_timeout),
            ("relay.ask_every", self.relay.ask_every),
        ] {
            if got.is_zero() {
                found.push(Invalid::new(key, "got 0s, wanted a duration such as \"10s\""));
            }
        }
        let wanted = u64::try_from(EVENT_BATCH_BYTES_MAX).unwrap_or(u64::MAX);
        let got = limits.posts_bytes_max;
        if got < wanted {
            let (got, wanted) = (human::bytes::format(got), human::bytes::format_up(wanted));
            let problem = format!("got {got}, wanted at least {wanted}, which one post may have");
            found.push(Invalid::new("limits.posts_bytes_max", problem));
        }
        found.extend(self.clock.findings().into_iter().map(|invalid| invalid.within("clock")));
        found.extend(self.revocation.findings().into_iter().map(|invalid| invalid.within("revocation")));
        found.extend(self.log.validate().err().map(|invalid| invalid.within("log")));
        found
    }
}

fn own_file(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_file_equals_the_defaults() {
        let text = include_str!("../../deploy/config/background-channel.toml");

        let parsed: Config = toml::from_str(text).unwrap();

        assert_eq!(parsed, Config::default());
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().findings(), Vec::new());
    }

    #[test]
    fn every_value_that_cannot_work_is_told() {
        let mut config = Config { admin_listen: "0.0.0.0:4443".parse().unwrap(), ..Config::default() };
        config.relay.switch = "nowhere".to_owned();
        config.limits.connections_max = 0;
        config.limits.connection_max = Duration::ZERO;
        config.limits.posts_bytes_max = 1_000;
        config.clock.jump_max = Duration::ZERO;
        config.revocation.fetching.parallel = 0;
        config.log.filter = "=,=".to_owned();

        let findings = config.findings();

        let keys: Vec<&str> = findings.iter().map(Invalid::key).collect();
        let wanted = [
            "admin_listen",
            "admin_listen",
            "relay.switch",
            "limits.connections_max",
            "limits.connection_max",
            "limits.posts_bytes_max",
            "clock.jump_max",
            "revocation.fetching.parallel",
            "log.filter",
        ];
        assert_eq!(keys, wanted);
        let told = findings[5].problem();
        assert_eq!(told, "got 1000 B, wanted at least 1 MiB, which one post may have");
    }
}
