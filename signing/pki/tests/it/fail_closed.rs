//! What must never be accepted, whatever webpki's reason is: a verdict without a verified path.

use muster_pki::{CertificateDer, Facts, Role, Rule, check};

use crate::support::{DAY, NOW, Pki, now, refusals, request};

#[test]
fn a_forged_intermediate_that_ends_before_it_begins_opens_nothing() {
    let ours = Pki::new();
    let forged = backward_authority("Forged Issuing");
    let key = rcgen::KeyPair::from_pem(&forged.1).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(&forged.0, key).unwrap();
    let leaf = leaf_below(&issuer);

    for (chain, rules) in
        [(vec![leaf.clone(), forged.0.clone()], vec![Rule::C2, Rule::C9]), (vec![leaf], vec![Rule::C2])]
    {
        let verdict = check(Role::Device, &chain, &ours.roots, &Facts::at(now()));

        assert!(!verdict.is_accepted(), "{verdict}");
        assert!(verdict.path().is_empty());
        assert_eq!(refusals(&verdict), rules, "{verdict}");
    }
}

/// A CA of the attacker's own whose notBefore lies after its notAfter, with its key.
fn backward_authority(name: &str) -> (CertificateDer<'static>, String) {
    let signer = rcgen::KeyPair::generate().unwrap();
    let mut above = rcgen::CertificateParams::default();
    above.distinguished_name.push(rcgen::DnType::CommonName, "Whoever");
    above.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let above = rcgen::Issuer::new(above, signer);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_before = moment(NOW + DAY);
    params.not_after = moment(NOW - DAY);
    (params.signed_by(&key, &above).unwrap().into(), key.serialize_pem())
}

/// A leaf that nothing is wrong with but its issuer.
fn leaf_below(issuer: &rcgen::Issuer<'_, rcgen::KeyPair>) -> CertificateDer<'static> {
    let wanted = request(Role::Device);
    let mut params = rcgen::CertificateParams::new(wanted.dns_names).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    let point = rcgen::CrlDistributionPoint { uris: vec!["http://pki.example.org/ca.crl".to_owned()] };
    params.crl_distribution_points = vec![point];
    params.not_before = moment(NOW - DAY);
    params.not_after = moment(NOW + DAY);
    params.signed_by(&rcgen::KeyPair::generate().unwrap(), issuer).unwrap().into()
}

fn moment(seconds: u64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(seconds.try_into().unwrap()).unwrap()
}
