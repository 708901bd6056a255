//! The development CA: what it issues, and that it comes back from its own PEM.

use std::time::Duration;

use muster_pki::authority::{Authority, AuthorityError, Request};
use muster_pki::{Facts, Role, check};

use crate::support::{DAY, Pki, chain, now, request};

#[test]
fn comes_back_from_its_own_pem_and_issues_the_same_chain() {
    let pki = Pki::new();
    let again = Authority::from_pem(&pki.issuing.chain_pem(), &pki.issuing.key_pem()).unwrap();

    let issued = again.issue(&request(Role::Device)).unwrap();
    let verdict = check(Role::Device, &chain(&issued), &pki.roots, &Facts::at(now()));

    assert_eq!(again.certificate(), pki.issuing.certificate());
    assert_eq!(again.chain_pem(), pki.issuing.chain_pem());
    assert!(verdict.is_accepted(), "{verdict}");
    assert!(again.crl(&[], 1, now(), crate::support::at(crate::support::NOW + 1)).is_ok());
}

#[test]
fn refuses_a_foreign_key_and_a_leaf_as_ca() {
    let (pki, other) = (Pki::new(), Pki::new());
    let leaf = pki.issue(Role::Device);

    let foreign = Authority::from_pem(&pki.root.certificate_pem(), &other.root.key_pem());
    let no_ca = Authority::from_pem(&leaf.certificate_pem, &leaf.key_pem);

    assert!(matches!(foreign, Err(AuthorityError::ForeignKey(_))));
    assert!(matches!(no_ca, Err(AuthorityError::NotACa(_))));
}

#[test]
fn a_ca_never_outlives_the_one_above_it() {
    let root = Authority::root("Root", Duration::from_secs(10 * DAY), now()).unwrap();

    let below = root.issue_authority("Below", Duration::from_secs(20 * DAY), now()).unwrap();

    assert_eq!(below.certificate().not_after(), root.certificate().not_after());
}

#[test]
fn three_levels_of_cas_build_one_path() {
    let pki = Pki::new();
    let third = pki.issuing.issue_authority("Third", Duration::from_secs(DAY), now()).unwrap();

    let issued = third.issue(&request(Role::Switch)).unwrap();
    let verdict = check(Role::Switch, &chain(&issued), &pki.roots, &Facts::at(now()));

    assert!(verdict.is_accepted(), "{verdict}");
    assert_eq!(verdict.path().len(), 4);
}

#[test]
fn writes_what_was_asked_for() {
    let pki = Pki::new();
    let asked = Request { ip_addresses: vec!["10.0.0.1".parse().unwrap()], ..request(Role::Device) };

    let certificate = pki.issuing.issue(&asked).unwrap().certificate;

    assert_eq!(certificate.common_name(), Some("w701.acme.local"));
    assert_eq!(certificate.dns_names(), ["w701.acme.local"]);
    assert_eq!(certificate.ip_addresses(), asked.ip_addresses);
    assert_eq!(certificate.not_before(), asked.not_before);
    assert_eq!(certificate.not_after(), asked.not_after);
    assert_eq!(certificate.crl_distribution_points(), ["http://crl.acme.local/issuing.crl"]);
    assert_eq!(certificate.key_algorithm(), "ECDSA P-256");
    assert_eq!(certificate.issuer(), "CN=Test Root Issuing");
    assert!(!certificate.is_ca() && !certificate.is_self_signed());
    assert!(pki.root.certificate().is_self_signed());
}

#[test]
fn issues_two_thousand_leaves_each_with_its_own_serial() {
    let pki = Pki::new();

    let mut serials: Vec<String> =
        (0..2_000).map(|_| pki.issue(Role::Device).certificate.serial_hex()).collect();

    serials.sort_unstable();
    serials.dedup();
    assert_eq!(serials.len(), 2_000);
}
