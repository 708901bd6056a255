//! Certificates that change while the client runs, and lists that revoke them.

use std::time::Duration;

use muster_pki::authority::{Authority, Request, Revoked};
use muster_pki::{Certificate, CertificateDer, Role, Thumbprint, UnixTime};
use rustls_pki_types::pem::PemObject as _;

use super::{DEVICE, Lab, issue, issue_at, issue_with_url, seconds, seconds_ago};

impl Lab {
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

    pub(super) fn write_servers_list(&self, number: u64, revoked: &[Revoked]) {
        let now = UnixTime::now().as_secs();
        let list = self.servers.crl(revoked, number, seconds(now - 10), seconds(now + 3_600)).unwrap();
        self.replace("servers.crl", &list);
    }
}
