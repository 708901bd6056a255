//! Certificates for tests: one root for each role, and signers below it.

use std::time::Duration;

use muster_pki::authority::{Authority, Overrides, Request};
use muster_pki::{Certificate, ExtendedKeyUsage, Facts, Role, Roots, UnixTime};

use crate::envelope::Signer;

/// The moment at which tests take place: 2027-01-15.
pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

pub(crate) fn facts() -> Facts<'static> {
    Facts::at(at(NOW))
}

/// A root and, where asked for, a CA between it and its signers.
#[derive(Debug)]
pub(crate) struct Pki {
    root: Authority,
    issuing: Option<Authority>,
}

impl Pki {
    pub(crate) fn flat(name: &str) -> Self {
        let root = Authority::root(name, Duration::from_secs(10 * 365 * 86_400), at(NOW)).unwrap();
        Self { root, issuing: None }
    }

    pub(crate) fn deep(name: &str) -> Self {
        let flat = Self::flat(name);
        let issuing =
            flat.root.issue_authority("issuing", Duration::from_secs(365 * 86_400), at(NOW)).unwrap();
        Self { issuing: Some(issuing), ..flat }
    }

    pub(crate) fn authority(&self) -> &Authority {
        self.issuing.as_ref().unwrap_or(&self.root)
    }

    pub(crate) fn root(&self) -> &Certificate {
        self.root.certificate()
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::from_certificates([self.root().clone()]).unwrap()
    }

    pub(crate) fn signer(&self, name: &str, role: Role) -> Signer {
        self.signer_with(name, role, &Overrides::default())
    }

    pub(crate) fn signer_for(&self, name: &str, usage: ExtendedKeyUsage) -> Signer {
        let overrides = Overrides { extended_key_usages: Some(vec![usage]), ..Overrides::default() };
        self.signer_with(name, Role::Author, &overrides)
    }

    fn signer_with(&self, name: &str, role: Role, overrides: &Overrides) -> Signer {
        let request = Request {
            common_name: name.to_owned(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            role,
            not_before: at(NOW - 3_600),
            not_after: at(NOW + 86_400),
            crl_url: None,
        };
        let issued = self.authority().issue_with(&request, overrides).unwrap();
        Signer::from_pem(issued.chain_pem, issued.key_pem).unwrap()
    }
}
