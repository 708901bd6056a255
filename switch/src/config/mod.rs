//! Configuration of the Switch: every key, its meaning, unit and default.
//!
//! The defaults are [`Default`]; `deploy/config/switch.toml` shows them with the same words and is tested to be equal.
//! Values are checked by `Validate`, so that `config check` and `run` refuse the same files.

mod check;
mod grants;
mod licence;
mod limits;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

pub use muster_service::credentials::ClientCertificate;
use muster_service::credentials::{CertificateSettings, RevocationSettings, ServerTls};
use muster_service::telemetry::LogConfig;
pub use muster_service::wall::ClockLimits;
use serde::{Deserialize, Serialize};

pub use self::grants::{Grant, GrantKind, GrantRole};
pub use self::licence::LicenceRefresh;
pub use self::limits::{EngineLimits, OperatorLimits, SessionLimits, ShutdownLimits};

/// Everything the Switch can be told. Unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients connect: by TCP (TLS, WebSocket), and by UDP where there is `sessions.quic`. Port 0 takes a free one. Default
    /// `0.0.0.0:4000`.
    pub listen: SocketAddr,
    /// Where operators and Background Channels connect (TLS, gRPC). Default `0.0.0.0:4001`.
    pub operator_listen: SocketAddr,
    /// Where metrics and health are read (plain HTTP); loopback only, C15 of trust.md. Default `127.0.0.1:4002`.
    pub admin_listen: SocketAddr,
    /// Folder of the store; made if it is missing. Default `/var/lib/muster/switch`.
    pub data_dir: PathBuf,
    /// The organisation that orders name; a client runs orders of its own tenant only. 1 to 64 bytes. Default `default`.
    pub tenant: String,
    /// Threads that hold sessions over WebSocket, each with its own listener; those over QUIC have one more for all. 0: one per core, and more
    /// where the process may not have as many descriptors as `sessions.sessions_max` asks for. At most 256. Default 0.
    pub shards: u16,
    /// Certificate revocation lists, PEM or DER, watched for changes. A file of an issuing CA's CRL holds that CA's
    /// certificate, too. Default: none.
    pub crls: Vec<PathBuf>,
    /// A file with the licence (DER), watched: a newer one that is put there is taken, as `muster licence import` would. Default: none.
    pub licence_file: Option<PathBuf>,
    /// Where a newer licence is fetched from (G6), http or https: asked every `licence_refresh.every`, verified as an imported one.
    /// Default: none.
    pub licence_url: Option<String>,
    /// How `licence_url` is asked.
    pub licence_refresh: LicenceRefresh,
    /// How certificates are judged.
    pub certificates: CertificateSettings,
    /// Who is revoked, and what a lapsed revocation list means.
    pub revocation: RevocationSettings,
    /// The Switch's own certificate and key, shown to clients and operators alike.
    pub tls: ServerTls,
    /// Who is trusted, as what. Each role has its own roots; one root in two roles is refused.
    pub trust: TrustConfig,
    /// Limits of sessions with clients.
    pub sessions: SessionLimits,
    /// Limits of the operator API.
    pub operators: OperatorLimits,
    /// Limits of the store and of instructions.
    pub engine: EngineLimits,
    /// How far the wall clock is believed.
    pub clock: ClockLimits,
    /// How the Switch stops.
    pub shutdown: ShutdownLimits,
    /// Who of the operators may do what. None: every operator with a valid certificate may do all.
    #[serde(rename = "grant")]
    pub grants: Vec<Grant>,
    /// What is logged, and how.
    pub log: LogConfig,
}

/// PEM files with the roots of each role (C2 of trust.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrustConfig {
    /// Roots of clients' certificates. Default `/etc/muster/trust/devices.pem`.
    pub devices: PathBuf,
    /// Roots of operators' TLS certificates. Default `/etc/muster/trust/operators.pem`.
    pub operators: PathBuf,
    /// Roots of other services' client certificates (the Background Channel). Default `/etc/muster/trust/services.pem`.
    pub services: PathBuf,
    /// Roots of authors, who sign definitions. Default `/etc/muster/trust/authors.pem`.
    pub authors: PathBuf,
    /// Roots of operators' order keys. Default `/etc/muster/trust/orders.pem`.
    pub orders: PathBuf,
    /// Roots of licensors. Default `/etc/muster/trust/licences.pem`.
    pub licences: PathBuf,
    /// Roots of client policies' administrators. Default: none, and no policy is imported.
    pub policies: Option<PathBuf>,
    /// Roots of timestamp authorities (RFC 3161). Default: none, and a document with a timestamp is refused.
    pub timestamps: Option<PathBuf>,
}

impl Config {
    /// More shards than any machine has use for; an index fits the key of a session.
    pub const SHARDS_MAX: u16 = 256;

    /// Returns how many shards to start: [`Config::shards`], or one per core.
    #[must_use]
    pub fn shard_count(&self) -> u16 {
        if self.shards > 0 {
            return self.shards;
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        u16::try_from(cores).unwrap_or(Self::SHARDS_MAX).min(Self::SHARDS_MAX)
    }

    /// Returns how many shards there are with that of QUIC, which is the last.
    #[must_use]
    pub fn shards_in_all(&self) -> u16 {
        self.shard_count().saturating_add(self.sessions.quic.into())
    }
}

impl Default for Config {
    fn default() -> Self {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            listen: SocketAddr::new(any, 4000),
            operator_listen: SocketAddr::new(any, 4001),
            admin_listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4002),
            data_dir: PathBuf::from("/var/lib/muster/switch"),
            tenant: "default".to_owned(),
            shards: 0,
            tls: ServerTls::in_folder(Path::new("/etc/muster/switch")),
            trust: TrustConfig::default(),
            crls: Vec::new(),
            licence_file: None,
            licence_url: None,
            licence_refresh: LicenceRefresh::default(),
            certificates: CertificateSettings::default(),
            revocation: RevocationSettings::default(),
            sessions: SessionLimits::default(),
            operators: OperatorLimits::default(),
            engine: EngineLimits::default(),
            clock: ClockLimits::default(),
            shutdown: ShutdownLimits::default(),
            grants: Vec::new(),
            log: LogConfig::default(),
        }
    }
}

impl Default for TrustConfig {
    fn default() -> Self {
        let file = |name: &str| PathBuf::from("/etc/muster/trust").join(name);
        Self {
            devices: file("devices.pem"),
            operators: file("operators.pem"),
            services: file("services.pem"),
            authors: file("authors.pem"),
            orders: file("orders.pem"),
            licences: file("licences.pem"),
            policies: None,
            timestamps: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_file_equals_the_defaults() {
        let text = include_str!("../../../deploy/config/switch.toml");

        let parsed: Config = toml::from_str(text).unwrap();

        assert_eq!(parsed, Config::default());
    }

    #[test]
    fn the_example_file_names_every_key() {
        let example: toml::Table =
            toml::from_str(include_str!("../../../deploy/config/switch.toml")).unwrap();
        let defaults = toml::Table::try_from(Config::default()).unwrap();

        for (section, value) in &defaults {
            // An array of tables cannot be written empty after a table; the file shows grants in a comment.
            if section == "grant" {
                continue;
            }
            let shown = example.get(section).unwrap_or_else(|| panic!("`{section}` is not in the example"));
            for key in value.as_table().into_iter().flat_map(toml::Table::keys) {
                assert!(shown.get(key).is_some(), "`{section}.{key}` is not in the example");
            }
        }
    }

    #[test]
    fn refuses_an_unknown_key() {
        let error = toml::from_str::<Config>("lissten = '0.0.0.0:1'").unwrap_err();

        assert!(error.to_string().contains("lissten"), "{error}");
    }
}
