//! Revocation lists of those who sign, and what they sign again.

use muster_pki::authority::{Authority, Revoked};
use muster_pki::{Role, UnixTime};
use muster_signing::envelope::{self, ContentType};

use super::{Lab, issue, seconds, sign, signer};

impl Lab {
    /// Returns a list that revokes the operator's certificate.
    pub(crate) fn list_of_the_operator(&self) -> String {
        let serial_hex = self.operator.certificate.serial_hex();
        list(&self.orders, &[Revoked { serial_hex, at: UnixTime::now() }], 1)
    }

    /// Publishes lists of the CAs of all signers, which revoke nobody, in the file that has the servers' list.
    pub(crate) fn publish_lists_of_signers(&self) {
        let authorities = [&self.servers, &self.authors, &self.orders, &self.licences, &self.policies];
        self.replace("servers.crl", &authorities.map(|one| list(one, &[], 2)).concat());
    }

    /// Publishes a list of the CA of the Switch's own keys, which revokes nobody.
    pub(crate) fn publish_list_of_order_keys(&self) {
        let lists = [list(&self.servers, &[], 2), list(&self.switch_orders, &[], 1)];
        self.replace("servers.crl", &lists.concat());
    }

    /// As [`Self::publish_list_of_order_keys`], one that revokes the Switch's first key.
    pub(crate) fn revoke_order_key(&self) {
        let serial_hex = self.order_keys[0].certificate.serial_hex();
        let revoked = list(&self.switch_orders, &[Revoked { serial_hex, at: UnixTime::now() }], 2);
        self.replace("servers.crl", &[list(&self.servers, &[], 3), revoked].concat());
    }

    /// Signs the licence once more, by a renewed certificate of the licensor.
    pub(crate) fn licence_signed_again(&self) -> Vec<u8> {
        let renewed = issue(&self.licences, "licensor", Role::Licensor);
        sign(&envelope::inspect(&self.licence).unwrap().content, ContentType::Licence, &signer(&renewed))
    }
}

fn list(authority: &Authority, revoked: &[Revoked], number: u64) -> String {
    let now = UnixTime::now().as_secs();
    authority.crl(revoked, number, seconds(now - 10), seconds(now + 3_600)).unwrap()
}
