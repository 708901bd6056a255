//! A development PKI in a folder: one root and issuing CA for each role.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use muster_pki::authority::{Authority, Issued, Request, Revoked};
use muster_pki::{Role, UnixTime, pem};
use rustls::{ClientConfig, RootCertStore};

/// In seconds.
pub(crate) const HOUR: i64 = 3_600;
const DAY: u64 = 24 * 3600;
const YEAR: Duration = Duration::from_secs(365 * DAY);

/// A certificate that does not end while a test runs.
pub(crate) const A_MONTH: Duration = Duration::from_secs(30 * DAY);

/// The CAs of every role.
pub(crate) struct Pki {
    folder: PathBuf,
    roles: Vec<(Role, Authority, Authority)>,
}

impl Pki {
    pub(crate) fn new(folder: &Path) -> Self {
        let now = UnixTime::now();
        let roles = [Role::Device, Role::Operator, Role::Service, Role::Switch].map(|role| {
            let root = Authority::root(&format!("{role} root"), 10 * YEAR, now).unwrap();
            let issuing = root.issue_authority(&format!("{role} issuing"), 5 * YEAR, now).unwrap();
            std::fs::write(folder.join(format!("{role}.pem")), root.certificate_pem()).unwrap();
            (role, root, issuing)
        });
        Self { folder: folder.to_owned(), roles: roles.into() }
    }

    pub(crate) fn roots_file(&self, role: Role) -> PathBuf {
        self.folder.join(format!("{role}.pem"))
    }

    /// Issues a TLS certificate that is valid from yesterday until `left` from now.
    pub(crate) fn issue(&self, role: Role, name: &str, left: Duration) -> Issued {
        let now = UnixTime::now().as_secs();
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let request = Request {
            common_name: name.to_owned(),
            dns_names: vec![name.to_owned()],
            ip_addresses: Vec::new(),
            role,
            not_before: at(now - DAY),
            not_after: at(now + left.as_secs()),
            crl_url: Some("http://pki.test/muster.crl".to_owned()),
        };
        self.role(role).2.issue(&request).unwrap()
    }

    /// Writes certificate and key; returns their files.
    pub(crate) fn write(&self, name: &str, issued: &Issued) -> (PathBuf, PathBuf) {
        let certificate = self.folder.join(format!("{name}.tls.pem"));
        let key = self.folder.join(format!("{name}.tls.key"));
        std::fs::write(&certificate, &issued.chain_pem).unwrap();
        std::fs::write(&key, &issued.key_pem).unwrap();
        (certificate, key)
    }

    /// Writes a role's CRL, with the certificate of the CA that signed it; returns its file.
    pub(crate) fn write_crl(&self, role: Role, revoked: &[&Issued], number: u64) -> PathBuf {
        let now = UnixTime::now();
        let entry = |issued: &&Issued| Revoked { serial_hex: issued.certificate.serial_hex(), at: now };
        let entries: Vec<Revoked> = revoked.iter().map(entry).collect();
        let next = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + DAY));
        let issuing = &self.role(role).2;
        let crl = issuing.crl(&entries, number, now, next).unwrap() + &issuing.certificate_pem();
        let file = self.folder.join(format!("{role}.crl.pem"));
        let fresh = self.folder.join("fresh.crl.pem");
        std::fs::write(&fresh, crl).unwrap();
        std::fs::rename(&fresh, &file).unwrap();
        file
    }

    /// Writes the issuing CA of a role; returns its file.
    pub(crate) fn issuing_file(&self, role: Role) -> PathBuf {
        let file = self.folder.join(format!("{role}.issuing.pem"));
        std::fs::write(&file, self.role(role).2.certificate_pem()).unwrap();
        file
    }

    /// Makes a CRL of a role's issuing CA, from and until so many hours from now.
    pub(crate) fn crl(&self, role: Role, revoked: &[&Issued], number: u64, hours: Range<i64>) -> String {
        let now = UnixTime::now();
        let at = |hours: i64| {
            UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().saturating_add_signed(hours * HOUR)))
        };
        let entry = |issued: &&Issued| Revoked { serial_hex: issued.certificate.serial_hex(), at: now };
        let entries: Vec<Revoked> = revoked.iter().map(entry).collect();
        self.role(role).2.crl(&entries, number, at(hours.start), at(hours.end)).unwrap()
    }

    /// Makes a TLS client that trusts the Background Channel and shows `own`.
    pub(crate) fn tls(&self, own: Option<&Issued>, alpn: &[u8]) -> Arc<ClientConfig> {
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
        config.alpn_protocols = vec![alpn.to_vec()];
        Arc::new(config)
    }

    fn role(&self, role: Role) -> &(Role, Authority, Authority) {
        self.roles.iter().find(|(known, ..)| *known == role).unwrap()
    }
}
