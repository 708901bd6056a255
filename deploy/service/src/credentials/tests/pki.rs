//! A development PKI in a temporary folder, with a clock that tests move ahead.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use muster_pki::authority::{Authority, Issued, Request, Revoked};
use muster_pki::{Certificate, Policy, RevocationMode, Role, TrailOf, UnixTime};
use tempfile::TempDir;

use crate::credentials::{
    self, ClientCredentials, Clock, CredentialError, CredentialFiles, Keeping, OneDevice, Revocation,
    RevocationFiles, RevocationSettings, Rules, ServerCredentials,
};

pub(super) const DAY: u64 = 24 * 60 * 60;
const START: u64 = 1_800_000_000;
const YEARS: Duration = Duration::from_secs(10 * 365 * DAY);

pub(super) struct Pki {
    pub(super) folder: TempDir,
    now: Arc<AtomicU64>,
    started: Instant,
    device_root: Authority,
    devices: Authority,
    operators: Authority,
    servers: Authority,
    revocation: OnceLock<Arc<Revocation>>,
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
            started: Instant::now(),
            device_root,
            devices,
            operators: root("Operator Root"),
            servers: root("Server Root"),
            revocation: OnceLock::new(),
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
        let (now, started) = (Arc::clone(&self.now), self.started);
        Clock::new(move || at(now.load(Ordering::Relaxed) + started.elapsed().as_secs()))
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

    /// Issues to a device as the request says.
    pub(super) fn issue_as(&self, request: &Request) -> Issued {
        self.devices.issue(request).unwrap()
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

    /// As [`Self::issue_server`], with a distribution point of `url`.
    pub(super) fn issue_server_with_url(&self, name: &str, url: &str) -> Issued {
        let request = Request { crl_url: Some(url.to_owned()), ..self.request(name, Role::Switch, 30) };
        let issued = self.servers.issue(&request).unwrap();
        self.write_pair("server", &issued);
        issued
    }

    /// Issues a server's certificate without a distribution point (C6).
    pub(super) fn issue_server_without_url(&self, name: &str, days: u64) -> Issued {
        let request = Request { crl_url: None, ..self.request(name, Role::Switch, days) };
        self.servers.issue(&request).unwrap()
    }

    /// Makes a CRL of the servers' root.
    pub(super) fn servers_crl(&self, revoked: &[&Issued], number: u64) -> String {
        let revoked = revoked.iter().map(|issued| &issued.certificate);
        Self::crl_of(&self.servers, revoked, number, self.clock().now())
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
        CredentialFiles { certificate: self.path(&certificate), key: self.path(&key), password_file: None }
    }

    /// The files that revocation is read from: the CRL of the devices' CA, the roots.
    pub(super) fn revocation_files(&self) -> RevocationFiles {
        let roots = ["devices.pem", "operators.pem", "servers.pem"].map(|name| self.path(name));
        RevocationFiles {
            crls: vec![self.path("devices.crl")],
            roots: roots.to_vec(),
            own: None,
            servers: None,
            kept: Keeping::In(self.path("kept")),
        }
    }

    /// What servers and clients of this PKI look revocation up in; read at the first call.
    pub(super) fn revocation(&self) -> Arc<Revocation> {
        let load = || {
            let settings = RevocationSettings {
                mode: RevocationMode::Soft,
                fetch: false,
                ..RevocationSettings::default()
            };
            Revocation::load(self.revocation_files(), settings, self.clock()).unwrap()
        };
        Arc::clone(self.revocation.get_or_init(load))
    }

    pub(super) fn rules(&self) -> Rules {
        Rules {
            revocation: self.revocation(),
            policy: Policy::default(),
            trail: TrailOf::All,
            clock: self.clock(),
            device: OneDevice::default(),
            roles: Vec::new(),
        }
    }

    /// Writes the device CA's CRL, with the CA's certificate since that is no root.
    pub(super) fn write_crl(&self, revoked: &[&Issued], number: u64) {
        self.write("devices.crl", &(self.devices.certificate_pem() + &self.crl(revoked, number)));
    }

    /// Makes a CRL of the device CA, valid for a week.
    pub(super) fn crl(&self, revoked: &[&Issued], number: u64) -> String {
        Self::crl_of(
            &self.devices,
            revoked.iter().map(|issued| &issued.certificate),
            number,
            self.clock().now(),
        )
    }

    /// Makes a CRL of the device root, which revokes the device CA.
    pub(super) fn root_crl_against_the_issuing_ca(&self, number: u64) -> String {
        let revoked = std::iter::once(self.devices.certificate());
        Self::crl_of(&self.device_root, revoked, number, self.clock().now())
    }

    /// Makes an empty CRL of the device root.
    pub(super) fn root_crl(&self, number: u64) -> String {
        Self::crl_of(&self.device_root, std::iter::empty(), number, self.clock().now())
    }

    /// Makes a CRL of the operators' root, which revokes an operator.
    pub(super) fn operators_crl(&self, revoked: &Issued, number: u64) -> String {
        Self::crl_of(&self.operators, std::iter::once(&revoked.certificate), number, self.clock().now())
    }

    /// Makes a CRL by a CA that nobody trusts, in the name of the device CA.
    pub(super) fn forged_crl(&self, revoked: &[&Issued]) -> String {
        let now = self.clock().now();
        let mallory = Authority::root("Device CA", YEARS, now).unwrap();
        Self::crl_of(&mallory, revoked.iter().map(|issued| &issued.certificate), 99, now)
    }

    fn crl_of<'a>(
        authority: &Authority,
        revoked: impl Iterator<Item = &'a Certificate>,
        number: u64,
        now: UnixTime,
    ) -> String {
        let revoked: Vec<Revoked> =
            revoked.map(|one| Revoked { serial_hex: one.serial_hex(), at: now }).collect();
        authority.crl(&revoked, number, now, at(now.as_secs() + 7 * DAY)).unwrap()
    }

    /// Makes another issuing CA below the root of devices, which ends after so many days.
    pub(super) fn issuing_ca(&self, name: &str, days: u64) -> Authority {
        let validity = Duration::from_secs(days * DAY);
        self.device_root.issue_authority(name, validity, self.clock().now()).unwrap()
    }

    /// Has the root of devices certify such a CA again, for the same name and key.
    pub(super) fn renewed(&self, authority: &Authority, days: u64) -> Authority {
        let validity = Duration::from_secs(days * DAY);
        self.device_root.certify_again(authority, validity, self.clock().now()).unwrap()
    }

    /// Makes a CRL of such a CA, valid for a week.
    pub(super) fn crl_by(&self, authority: &Authority, revoked: &[&Issued], number: u64) -> String {
        let revoked = revoked.iter().map(|issued| &issued.certificate);
        Self::crl_of(authority, revoked, number, self.clock().now())
    }

    /// The issuing CA of devices, as configuration names it.
    pub(super) fn write_issuing_ca(&self) -> PathBuf {
        self.write("issuing.pem", &self.devices.certificate_pem());
        self.path("issuing.pem")
    }

    /// Issues to a device with a distribution point of `url`.
    pub(super) fn issue_with_url(&self, name: &str, url: &str) -> Issued {
        let request = Request { crl_url: Some(url.to_owned()), ..self.request(name, Role::Device, 30) };
        self.devices.issue(&request).unwrap()
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
        let (certificate, key) = (self.path("server.pem"), self.path("server.key"));
        let files = CredentialFiles { certificate, key, password_file: None };
        credentials::server(files, roles, vec![b"muster/1".to_vec()], Role::Switch, self.rules())
    }

    /// A client that presents `issued`, written to disk under its serial number.
    pub(super) fn client(&self, issued: &Issued, role: Role) -> Arc<ClientCredentials> {
        let files = self.write_pair(&issued.certificate.serial_hex(), issued);
        let alpn = vec![b"muster/1".to_vec()];
        credentials::client(
            credentials::Own::Files(files),
            credentials::Servers::Roots(self.path("servers.pem")),
            alpn,
            role,
            self.rules(),
        )
        .unwrap()
    }
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}
