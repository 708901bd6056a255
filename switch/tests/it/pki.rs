//! A development PKI in a folder: one root and issuing CA for each role.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use muster_pki::authority::{Authority, Issued, Request, Revoked};
use muster_pki::{Role, UnixTime, pem};
use rustls::{ClientConfig, RootCertStore};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const DAY: u64 = 24 * 3600;

/// The CAs of every role.
pub(crate) struct Pki {
    folder: PathBuf,
    roles: Vec<(Role, Authority, Authority)>,
}

/// Until when a certificate is valid, from a day before the present.
#[derive(Clone, Copy)]
pub(crate) enum Ends {
    InAYear,
    /// It has ended by now.
    Yesterday,
    /// Seconds from now.
    In(u64),
}

impl Pki {
    pub(crate) fn new(folder: &Path) -> Self {
        let now = UnixTime::now();
        let roles = [
            (Role::Device, "devices"),
            (Role::Operator, "operators"),
            (Role::Service, "services"),
            (Role::Switch, "servers"),
            (Role::Author, "authors"),
            (Role::OrderSigner, "orders"),
            (Role::Licensor, "licences"),
            (Role::Policy, "policies"),
        ]
        .map(|(role, name)| {
            let root = Authority::root(&format!("{name} root"), 10 * YEAR, now).unwrap();
            let issuing = root.issue_authority(&format!("{name} issuing"), 5 * YEAR, now).unwrap();
            std::fs::write(folder.join(format!("{name}.pem")), root.certificate_pem()).unwrap();
            (role, root, issuing)
        });
        Self { folder: folder.to_owned(), roles: roles.into() }
    }

    pub(crate) fn roots_file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pem"))
    }

    pub(crate) fn roots(&self, role: Role) -> muster_pki::Roots {
        muster_pki::Roots::from_certificates([self.role(role).1.certificate().clone()]).unwrap()
    }

    pub(crate) fn issue(&self, role: Role, name: &str, ends: Ends) -> Issued {
        let now = UnixTime::now().as_secs();
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let not_after = match ends {
            Ends::InAYear => now + YEAR.as_secs(),
            Ends::Yesterday => now - DAY,
            Ends::In(seconds) => now + seconds,
        };
        let is_tls = matches!(role, Role::Device | Role::Operator | Role::Service | Role::Switch);
        let request = Request {
            common_name: name.to_owned(),
            dns_names: if is_tls { vec![name.to_owned()] } else { Vec::new() },
            ip_addresses: Vec::new(),
            role,
            not_before: at(now - 2 * DAY),
            not_after: at(not_after),
            crl_url: Some("http://pki.test/muster.crl".to_owned()),
        };
        self.role(role).2.issue(&request).unwrap()
    }

    /// Writes certificate and key where the configuration looks for them.
    pub(crate) fn write_server(&self, issued: &Issued) -> (PathBuf, PathBuf) {
        let (certificate, key) = (self.folder.join("switch.pem"), self.folder.join("switch.key"));
        std::fs::write(&certificate, &issued.chain_pem).unwrap();
        std::fs::write(&key, &issued.key_pem).unwrap();
        (certificate, key)
    }

    /// Writes the devices' CRL; returns its file.
    pub(crate) fn write_device_crl(&self, revoked: &[&Issued], number: u64) -> PathBuf {
        self.write_crl(Role::Device, revoked, number)
    }

    /// Writes a role's CRL, with the certificate of the CA that signed it; returns its file.
    pub(crate) fn write_crl(&self, role: Role, revoked: &[&Issued], number: u64) -> PathBuf {
        let now = UnixTime::now();
        let entry = |issued: &&Issued| Revoked { serial_hex: issued.certificate.serial_hex(), at: now };
        let entries: Vec<Revoked> = revoked.iter().map(entry).collect();
        let next = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + DAY));
        let issuing = &self.role(role).2;
        let crl = issuing.crl(&entries, number, now, next).unwrap() + &issuing.certificate_pem();
        let (file, fresh) = (self.folder.join(format!("{role}.crl.pem")), self.folder.join("fresh.crl.pem"));
        std::fs::write(&fresh, crl).unwrap();
        std::fs::rename(&fresh, &file).unwrap();
        file
    }

    /// Makes a TLS client that trusts the Switch and shows `own`.
    pub(crate) fn tls(&self, own: Option<&Issued>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.role(Role::Switch).1.certificate().der().to_vec().into()).unwrap();
        let builder = ClientConfig::builder_with_provider(muster_service::credentials::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = pem::certificates(own.chain_pem.as_bytes(), "chain").unwrap();
                let key = pem::private_key(own.key_pem.as_bytes(), "key").unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    fn role(&self, role: Role) -> &(Role, Authority, Authority) {
        self.roles.iter().find(|(known, ..)| *known == role).unwrap()
    }
}
