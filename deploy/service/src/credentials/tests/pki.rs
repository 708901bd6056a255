//! A development PKI in a temporary folder, with a clock that only tests move.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use muster_pki::authority::{Authority, Issued, Request, Revoked};
use muster_pki::{Role, UnixTime};
use tempfile::TempDir;

use crate::credentials::{
    self, ClientCredentials, Clock, CredentialError, CredentialFiles, ServerCredentials,
};

pub(super) const DAY: u64 = 24 * 60 * 60;
const START: u64 = 1_800_000_000;
const YEARS: Duration = Duration::from_secs(10 * 365 * DAY);

pub(super) struct Pki {
    pub(super) folder: TempDir,
    now: Arc<AtomicU64>,
    device_root: Authority,
    devices: Authority,
    operators: Authority,
    servers: Authority,
}

impl Pki {
    pub(super) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let now = at(START);
        let root = |name| Authority::root(name, YEARS, now).unwrap();
        let device_root = root("Device Root");
        let devices = device_root.issue_authority("Device CA", YEARS, now).unwrap();
        let pki = Self {
            folder,
            now: Arc::new(AtomicU64::new(START)),
            device_root,
            devices,
            operators: root("Operator Root"),
            servers: root("Server Root"),
        };
        pki.write("devices.pem", &pki.device_root.certificate_pem());
        pki.write("operators.pem", &pki.operators.certificate_pem());
        pki.write("servers.pem", &pki.servers.certificate_pem());
        pki.issue_server("localhost", 365);
        pki.write_crl(&[], 1);
        pki
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(super) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(super) fn advance(&self, seconds: u64) {
        self.now.fetch_add(seconds, Ordering::Relaxed);
    }

    pub(super) fn clock(&self) -> Clock {
        let now = Arc::clone(&self.now);
        Clock::new(move || at(now.load(Ordering::Relaxed)))
    }

    fn authority(&self, role: Role) -> &Authority {
        match role {
            Role::Operator => &self.operators,
            Role::Switch => &self.servers,
            Role::Device
            | Role::Service
            | Role::Author
            | Role::OrderSigner
            | Role::Licensor
            | Role::Policy
            | Role::Timestamp => &self.devices,
        }
    }

    pub(super) fn request(&self, name: &str, role: Role, days: u64) -> Request {
        let now = self.now.load(Ordering::Relaxed);
        Request {
            common_name: name.to_owned(),
            dns_names: vec![name.to_owned()],
            ip_addresses: Vec::new(),
            role,
            not_before: at(now - 60),
            not_after: at(now + days * DAY),
            crl_url: Some("http://crl.example/ca.crl".to_owned()),
        }
    }

    /// Issues under the CA that `role` should have.
    pub(super) fn issue(&self, name: &str, role: Role, days: u64) -> Issued {
        self.authority(role).issue(&self.request(name, role, days)).unwrap()
    }

    /// Issues a certificate of `role` under the CA of devices.
    pub(super) fn issue_under_devices(&self, name: &str, role: Role) -> Issued {
        self.devices.issue(&self.request(name, role, 30)).unwrap()
    }

    pub(super) fn issue_server(&self, name: &str, days: u64) -> Issued {
        let issued = self.issue(name, Role::Switch, days);
        self.write_pair("server", &issued);
        issued
    }

    pub(super) fn issue_server_until(&self, name: &str, not_after: UnixTime) {
        let request = Request { not_after, ..self.request(name, Role::Switch, 1) };
        self.write_pair("server", &self.servers.issue(&request).unwrap());
    }

    pub(super) fn write_pair(&self, name: &str, issued: &Issued) -> CredentialFiles {
        let certificate = format!("{name}.pem");
        let key = format!("{name}.key");
        self.write(&certificate, &issued.chain_pem);
        self.write(&key, &issued.key_pem);
        CredentialFiles { certificate: self.path(&certificate), key: self.path(&key) }
    }

    /// Writes the device CA's CRL, with the CA's certificate since that is no root.
    pub(super) fn write_crl(&self, revoked: &[&Issued], number: u64) {
        let now = self.now.load(Ordering::Relaxed);
        let revoked: Vec<Revoked> = revoked
            .iter()
            .map(|issued| Revoked { serial_hex: issued.certificate.serial_hex(), at: at(now) })
            .collect();
        let crl = self.devices.crl(&revoked, number, at(now), at(now + 7 * DAY)).unwrap();
        self.write("devices.crl", &(self.devices.certificate_pem() + &crl));
    }

    pub(super) fn server(&self) -> Arc<ServerCredentials> {
        self.try_server().unwrap()
    }

    pub(super) fn try_server(&self) -> Result<Arc<ServerCredentials>, CredentialError> {
        let roles =
            vec![(Role::Device, self.path("devices.pem")), (Role::Operator, self.path("operators.pem"))];
        self.server_for(roles)
    }

    pub(super) fn server_for(
        &self,
        roles: Vec<(Role, PathBuf)>,
    ) -> Result<Arc<ServerCredentials>, CredentialError> {
        let files = CredentialFiles { certificate: self.path("server.pem"), key: self.path("server.key") };
        let crls = vec![self.path("devices.crl")];
        credentials::server(files, roles, crls, vec![b"muster/1".to_vec()], Role::Switch, self.clock())
    }

    /// A client that presents `issued`, written to disk under its serial number.
    pub(super) fn client(&self, issued: &Issued, role: Role) -> Arc<ClientCredentials> {
        let files = self.write_pair(&issued.certificate.serial_hex(), issued);
        let alpn = vec![b"muster/1".to_vec()];
        credentials::client(Some(files), self.path("servers.pem"), Vec::new(), alpn, role, self.clock())
            .unwrap()
    }
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}
