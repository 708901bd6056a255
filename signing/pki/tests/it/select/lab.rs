//! Certificates with any fault, and stores of them.

use std::sync::LazyLock;

use muster_pki::authority::{Authority, Revoked};
use muster_pki::select::{Candidate, Candidates, PrivateKey, Selection, SelectionSettings};
use muster_pki::{Certificate, RevocationIndex};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, SanType,
};
use time::OffsetDateTime;

use crate::support::{DAY, NOW, Pki, at, now};

/// The CAs of the tests: `acme` and `acme2` are of one organisation, `globex` of another.
pub(super) static LAB: LazyLock<Lab> = LazyLock::new(Lab::new);

pub(super) struct Lab {
    acme: Pki,
    acme2: Pki,
    globex: Pki,
}

/// What a certificate says, and what is beside it.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    pub(super) issuer: String,
    /// The subject's CN; empty: an empty subject.
    pub(super) common_name: String,
    pub(super) dns_names: Vec<String>,
    pub(super) not_before: u64,
    pub(super) not_after: u64,
    pub(super) usages: Vec<ExtendedKeyUsagePurpose>,
    pub(super) key: PrivateKey,
    pub(super) is_ca: bool,
    pub(super) is_self_signed: bool,
}

impl Spec {
    /// A client certificate that nothing is wrong with.
    pub(super) fn new(issuer: &str, name: &str, days: i64) -> Self {
        Self {
            issuer: issuer.to_owned(),
            common_name: name.to_owned(),
            dns_names: vec![name.to_owned()],
            not_before: NOW - 400 * DAY,
            not_after: NOW.checked_add_signed(days * DAY.cast_signed()).unwrap(),
            usages: vec![ExtendedKeyUsagePurpose::ClientAuth],
            key: PrivateKey::Present,
            is_ca: false,
            is_self_signed: false,
        }
    }

    pub(super) fn server(name: &str, dns_names: &[&str], days: i64) -> Self {
        let dns_names = dns_names.iter().map(|name| (*name).to_owned()).collect();
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Self { dns_names, usages, ..Self::new("acme", name, days) }
    }

    pub(super) fn candidate(&self, source: &str) -> Candidate {
        let authority = LAB.authority(&self.issuer);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if !self.common_name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, self.common_name.as_str());
        }
        for name in &self.dns_names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().unwrap()));
        }
        params.not_before = date(self.not_before);
        params.not_after = date(self.not_after);
        params.extended_key_usages = self.usages.clone();
        params.is_ca =
            if self.is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        let key = KeyPair::generate().unwrap();
        let der = if self.is_self_signed {
            params.self_signed(&key).unwrap()
        } else {
            let issuer_key = KeyPair::from_pem(&authority.key_pem()).unwrap();
            let issuer = Issuer::from_ca_cert_pem(&authority.certificate_pem(), issuer_key).unwrap();
            params.signed_by(&key, &issuer).unwrap()
        };
        let certificate = Certificate::from_der(der.der()).unwrap();
        Candidate::new(certificate, authority.chain(), self.key, source)
    }
}

impl Lab {
    fn new() -> Self {
        Self { acme: Pki::named("Acme One"), acme2: Pki::named("Acme Two"), globex: Pki::named("Globex") }
    }

    pub(super) fn authority(&self, name: &str) -> &Authority {
        &self.pki(name).issuing
    }

    /// Returns an index in which these certificates are revoked, and the CAs with these names.
    pub(super) fn revoke(&self, leaves: &[&Certificate], authorities: &[&str]) -> RevocationIndex {
        let mut index = RevocationIndex::default();
        for name in ["acme", "acme2", "globex"] {
            let pki = self.pki(name);
            let issuing = pki.issuing.certificate();
            let leaves = leaves.iter().copied().filter(|leaf| leaf.issuer_der() == issuing.subject_der());
            let above = authorities.contains(&name).then_some(issuing);
            index = publish(index, &pki.issuing, leaves);
            index = publish(index, &pki.root, above);
        }
        index
    }

    fn pki(&self, name: &str) -> &Pki {
        match name {
            "acme" => &self.acme,
            "acme2" => &self.acme2,
            "globex" => &self.globex,
            other => panic!("no CA {other:?}"),
        }
    }
}

fn publish<'a>(
    index: RevocationIndex,
    authority: &Authority,
    revoked: impl IntoIterator<Item = &'a Certificate>,
) -> RevocationIndex {
    let revoked: Vec<Revoked> = revoked
        .into_iter()
        .map(|certificate| Revoked { serial_hex: certificate.serial_hex(), at: at(NOW - DAY) })
        .collect();
    let crl = authority.crl(&revoked, 1, now(), at(NOW + 1_000 * DAY)).unwrap();
    index.with_crl(crl.as_bytes(), &[authority.certificate().clone()], now()).unwrap()
}

pub(super) fn store<'a>(candidates: impl IntoIterator<Item = &'a Candidate>) -> Candidates {
    candidates.into_iter().cloned().collect()
}

pub(super) fn selection(settings: SelectionSettings) -> Selection {
    Selection::try_from(settings).unwrap()
}

fn date(seconds: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds.try_into().unwrap()).unwrap()
}
