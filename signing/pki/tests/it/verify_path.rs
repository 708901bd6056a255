//! The path alone: what `verify_path` asks, and what it leaves to the roles. NIST's paths are in `pkits`.

use std::time::Duration;

use muster_pki::authority::{Authority, Request, Revoked};
use muster_pki::{
    Certificate, CertificateDer, Facts, Refused, RevocationIndex, Role, Roots, Rule, Severity, verify_path,
};

use crate::support::{DAY, NOW, Pki, at, chain, now, request};

#[test]
fn c2_verifies_what_the_root_issued_whatever_it_is_for() {
    let pki = Pki::new();

    for role in Role::ALL {
        let issued = pki.issuing.issue(&Request { crl_url: None, ..request(role) }).unwrap();
        let path = verify_path(&chain(&issued), &pki.roots, &Facts::at(now())).unwrap();

        assert_eq!(
            path,
            [&issued.certificate, pki.issuing.certificate(), pki.root.certificate()].map(Clone::clone)
        );
    }
}

#[test]
fn c2_verifies_a_ca_below_its_root() {
    let pki = Pki::new();
    let third = pki.issuing.issue_authority("Third", Duration::from_secs(DAY), now()).unwrap();

    let direct = verify(&[pki.issuing.certificate()], &pki.roots);
    let below = verify(&[third.certificate(), pki.issuing.certificate()], &pki.roots);
    let gap = verify(&[third.certificate()], &pki.roots);

    assert_eq!(direct.unwrap().len(), 2);
    assert_eq!(below.unwrap().len(), 3);
    assert_eq!(rules(&gap.unwrap_err()), [Rule::C2]);
}

#[test]
fn c2_refuses_a_ca_of_another_root_and_of_a_namesake() {
    let (ours, theirs, namesake) = (Pki::new(), Pki::named("Their Root"), Pki::new());

    for other in [theirs, namesake] {
        let refused = verify(&[other.issuing.certificate(), other.root.certificate()], &ours.roots);

        assert_eq!(rules(&refused.unwrap_err()), [Rule::C2]);
    }
}

#[test]
fn c2_refuses_a_ca_whose_bytes_were_changed() {
    let pki = Pki::new();
    let der = pki.issuing.certificate().der();

    for byte in 0..der.len() {
        let mut changed = der.to_vec();
        changed[byte] ^= 1;
        let changed = [CertificateDer::from(changed)];

        assert!(verify_path(&changed, &pki.roots, &Facts::at(now())).is_err(), "byte {byte}");
    }
}

#[test]
fn c2_refuses_a_ca_below_name_constraints_which_are_not_held_on_names_of_cas() {
    let pki = Pki::new();
    let constraints = rcgen::NameConstraints {
        permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("acme.local".to_owned())],
        excluded_subtrees: Vec::new(),
    };

    for (constraints, is_accepted) in [(None, true), (Some(constraints), false)] {
        let say = |params: &mut rcgen::CertificateParams| params.name_constraints.clone_from(&constraints);
        let (upper, key) = ca("Upper", say, &pki.root.certificate_pem(), &pki.root.key_pem());
        let (lower, _) = ca("Lower", |_| (), &upper.pem(), &key);

        assert!(verify(&[&upper], &pki.roots).is_ok());
        assert_eq!(verify(&[&lower, &upper], &pki.roots).is_ok(), is_accepted);
    }
}

#[test]
fn c2_refuses_a_ca_with_an_unknown_critical_extension() {
    let pki = Pki::new();

    for is_critical in [false, true] {
        let say = |params: &mut rcgen::CertificateParams| {
            let mut unknown = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
            unknown.set_criticality(is_critical);
            params.custom_extensions.push(unknown);
        };
        let (odd, _) = ca("Odd", say, &pki.root.certificate_pem(), &pki.root.key_pem());

        assert_eq!(verify(&[&odd], &pki.roots).is_ok(), !is_critical);
    }
}

#[test]
fn r5_of_two_paths_of_a_ca_the_one_with_fresh_crls_is_taken() {
    let (first, second) = (Pki::named("First"), Pki::named("Second"));
    let (_, key) = ca("Cross", |_| (), &first.root.certificate_pem(), &first.root.key_pem());
    let crossed = [&first, &second].map(|pki| {
        let (upper, _) = ca_of("Cross", &key, |_| (), &pki.root.certificate_pem(), &pki.root.key_pem());
        upper
    });
    let (lower, _) = ca("Lower", |_| (), &crossed[0].pem(), &key);
    let authority = Authority::from_pem(&crossed[0].pem(), &key).unwrap();
    let crls = authority.crl(&[], 1, now(), at(NOW + DAY)).unwrap()
        + &second.root.crl(&[], 1, now(), at(NOW + DAY)).unwrap();
    let issuers = [crossed[0].clone(), second.root.certificate().clone()];
    let index = RevocationIndex::default().with_crl(crls.as_bytes(), &issuers, now()).unwrap();
    let roots = [first.root.certificate().clone(), second.root.certificate().clone()];
    let roots = Roots::from_certificates(roots).unwrap();
    let ders = [&lower, &crossed[0], &crossed[1]].map(|one| one.certificate_der().clone());

    let path = verify_path(&ders, &roots, &Facts { revocation: Some(&index), ..Facts::at(now()) }).unwrap();

    assert_eq!(path, [lower, crossed[1].clone(), second.root.certificate().clone()]);
}

#[test]
fn c8_refuses_to_begin_at_a_root() {
    let pki = Pki::new();

    let refused = verify(&[pki.root.certificate()], &pki.roots);

    assert_eq!(rules(&refused.unwrap_err()), [Rule::C8]);
}

#[test]
fn c9_refuses_a_ca_that_expired() {
    let pki = Pki::new();
    let short = pki.root.issue_authority("Short", Duration::from_secs(DAY), now()).unwrap();
    let below = short.issue_authority("Below", Duration::from_secs(DAY), now()).unwrap();
    let later = Facts::at(at(NOW + 2 * DAY));
    let ders = [&below, &short].map(|authority| authority.certificate().certificate_der().clone());

    assert!(verify_path(&ders, &pki.roots, &Facts::at(now())).is_ok());
    assert_eq!(rules(&verify_path(&ders, &pki.roots, &later).unwrap_err()), [Rule::C9]);
}

#[test]
fn r6_refuses_a_path_without_a_fresh_crl_of_every_issuer() {
    let pki = Pki::new();
    let issued = pki.issue(Role::Device);
    let issuers = [pki.root.certificate().clone(), pki.issuing.certificate().clone()];
    let crl = |authority: &Authority| authority.crl(&[], 1, now(), at(NOW + 7 * DAY)).unwrap();
    let empty = RevocationIndex::default();
    let partial = RevocationIndex::default().with_crl(crl(&pki.issuing).as_bytes(), &issuers, now()).unwrap();
    let whole = partial.clone().with_crl(crl(&pki.root).as_bytes(), &issuers, now()).unwrap();
    let verify = |index, seconds| {
        let facts = Facts { revocation: Some(index), ..Facts::at(at(seconds)) };
        verify_path(&chain(&issued), &pki.roots, &facts)
    };

    assert!(verify(&whole, NOW).is_ok());
    assert_eq!(rules(&verify(&empty, NOW).unwrap_err()), [Rule::R6]);
    assert_eq!(rules(&verify(&partial, NOW).unwrap_err()), [Rule::R6]);
    assert_eq!(rules(&verify(&whole, NOW + 8 * DAY).unwrap_err()), [Rule::R6]);
}

#[test]
fn r2_and_r8_refuse_a_revoked_ca_and_what_is_below_it() {
    let pki = Pki::new();
    let revoked = Revoked { serial_hex: pki.issuing.certificate().serial_hex(), at: now() };
    let crls = pki.root.crl(&[revoked], 1, now(), at(NOW + DAY)).unwrap()
        + &pki.issuing.crl(&[], 1, now(), at(NOW + DAY)).unwrap();
    let issuers = [pki.root.certificate().clone(), pki.issuing.certificate().clone()];
    let index = RevocationIndex::default().with_crl(crls.as_bytes(), &issuers, now()).unwrap();
    let facts = Facts { revocation: Some(&index), ..Facts::at(now()) };
    let authority = [pki.issuing.certificate().certificate_der().clone()];

    let own = verify_path(&authority, &pki.roots, &facts).unwrap_err();
    let below = verify_path(&chain(&pki.issue(Role::Device)), &pki.roots, &facts).unwrap_err();

    assert_eq!(rules(&own), [Rule::R2]);
    assert_eq!(rules(&below), [Rule::R8]);
}

/// Makes a CA with a fresh key below another; `say` changes what it says.
fn ca(
    name: &str,
    say: impl Fn(&mut rcgen::CertificateParams),
    issuer: &str,
    issuer_key: &str,
) -> (Certificate, String) {
    ca_of(name, &rcgen::KeyPair::generate().unwrap().serialize_pem(), say, issuer, issuer_key)
}

fn ca_of(
    name: &str,
    key: &str,
    say: impl Fn(&mut rcgen::CertificateParams),
    issuer: &str,
    issuer_key: &str,
) -> (Certificate, String) {
    let issuer_key = rcgen::KeyPair::from_pem(issuer_key).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(issuer, issuer_key).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    say(&mut params);
    let certificate = params.signed_by(&rcgen::KeyPair::from_pem(key).unwrap(), &issuer).unwrap();
    (Certificate::from_der(certificate.der()).unwrap(), key.to_owned())
}

fn verify(certificates: &[&Certificate], roots: &Roots) -> Result<Vec<Certificate>, Refused> {
    let ders: Vec<_> = certificates.iter().map(|one| one.certificate_der().clone()).collect();
    verify_path(&ders, roots, &Facts::at(now()))
}

fn rules(refused: &Refused) -> Vec<Rule> {
    let refusals = refused.findings().iter().filter(|finding| finding.severity == Severity::Refusal);
    let mut rules: Vec<Rule> = refusals.map(|finding| finding.rule).collect();
    rules.dedup();
    rules
}
