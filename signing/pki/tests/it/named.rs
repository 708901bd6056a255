//! A finding names the certificate that breaks the rule, and no other.

use std::time::Duration;

use muster_pki::authority::{Authority, Request};
use muster_pki::{CertificateDer, Facts, Role, Roots, Rule, Severity, Verdict, check};

use crate::support::{DAY, NOW, Pki, at, chain, now, request};

const LEAF: &str = "CN=w701.acme.local";

/// First and last day of validity, counted from [`NOW`].
type Days = (i64, i64);

#[test]
fn c9_names_exactly_those_that_are_out_of_their_time() {
    let always = (-10, 1_000);
    for (name, root, ca, leaf, day, wanted) in [
        ("the leaf expired", always, always, (-1, 10), 60, vec![LEAF]),
        ("the leaf expired before its CA was renewed", always, (50, 900), (-1, 10), 60, vec![LEAF]),
        ("the leaf begins after its CA's end", always, (-1, 80), (100, 200), 60, vec![LEAF]),
        ("the leaf is not valid yet", always, always, (100, 200), 60, vec![LEAF]),
        ("the CA expired", always, (-1, 50), (-1, 90), 60, vec!["CN=CA"]),
        ("the CA is not valid yet", always, (70, 900), (-1, 90), 60, vec!["CN=CA"]),
        ("the root expired", (-10, 50), always, (-1, 90), 60, vec!["CN=Root"]),
        ("leaf and CA, at times apart", always, (20, 30), (-1, 10), 60, vec!["CN=CA", LEAF]),
        ("all", (-10, 30), (-10, 30), (-1, 10), 60, vec!["CN=CA", "CN=Root", LEAF]),
        ("none", always, always, (-1, 90), 60, vec![]),
    ] {
        let verdict = judged(root, ca, leaf, day);

        let mut named = subjects(&verdict);
        named.sort();
        let wanted: Vec<(Rule, String)> =
            wanted.into_iter().map(|name| (Rule::C9, name.to_owned())).collect();
        assert_eq!(named, wanted, "{name}: {verdict}");
        assert_eq!(verdict.is_accepted(), wanted.is_empty(), "{name}");
    }
}

#[test]
fn c2_names_where_the_chain_breaks_off() {
    let (ours, theirs) = (Pki::new(), Pki::named("Their Root"));
    let namesake = Pki::new();
    let theirs_whole = [chain(&theirs.issue(Role::Device)), vec![der(&theirs.root)]].concat();
    let issuing = "CN=Test Root Issuing";
    for (name, chain, subject, words) in [
        (
            "no CA",
            chain(&ours.issue(Role::Device))[..1].to_vec(),
            LEAF,
            "no path from the issuer CN=Test Root Issuing",
        ),
        (
            "no root",
            chain(&theirs.issue(Role::Device)),
            LEAF,
            "up to CN=Their Root Issuing, whose issuer CN=Their Root is",
        ),
        ("another root", theirs_whole, LEAF, "up to CN=Their Root, which is no root"),
        ("a namesake's CA", chain(&namesake.issue(Role::Device)), issuing, "the issuer's key did not make"),
    ] {
        let verdict = check(Role::Device, &chain, &ours.roots, &Facts::at(now()));

        assert_eq!(subjects(&verdict), [(Rule::C2, subject.to_owned())], "{name}: {verdict}");
        assert!(verdict.to_string().contains(words), "{name}: {verdict}");
    }
}

#[test]
fn c2_names_an_issuer_that_is_no_ca() {
    let pki = Pki::new();
    let middle =
        pki.issuing.issue(&Request { common_name: "middle".to_owned(), ..request(Role::Device) }).unwrap();
    let key = rcgen::KeyPair::from_pem(&middle.key_pem).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&middle.certificate_pem, key).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["w999.acme.local".to_owned()]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = params.signed_by(&rcgen::KeyPair::generate().unwrap(), &issuer).unwrap().into();

    let verdict = check(Role::Device, &[vec![leaf], chain(&middle)].concat(), &pki.roots, &Facts::at(now()));

    let named = subjects(&verdict);
    assert!(named.contains(&(Rule::C2, "CN=middle".to_owned())), "{verdict}");
}

/// Returns rule and subject of each refusal.
fn subjects(verdict: &Verdict) -> Vec<(Rule, String)> {
    let refusals = verdict.findings().iter().filter(|finding| finding.severity == Severity::Refusal);
    refusals.map(|finding| (finding.rule, finding.subject.clone())).collect()
}

/// Judges a chain of these validities on a day.
fn judged(root: Days, ca: Days, leaf: Days, day: i64) -> Verdict {
    let root = authority(root, |validity, from| Authority::root("Root", validity, from));
    // A root that is expired issues all the same: whoever has its key does.
    let ca = authority(ca, |validity, from| long_lived(&root).issue_authority("CA", validity, from));
    let wanted = Request { not_before: on(leaf.0), not_after: on(leaf.1), ..request(Role::Device) };
    let issued = ca.issue(&wanted).unwrap();
    let roots = Roots::from_certificates([root.certificate().clone()]).unwrap();
    check(Role::Device, &chain(&issued), &roots, &Facts::at(on(day)))
}

fn authority<E: std::fmt::Debug>(
    (first, last): Days,
    make: impl FnOnce(Duration, muster_pki::UnixTime) -> Result<Authority, E>,
) -> Authority {
    let days = u64::try_from(last - first).unwrap();
    make(Duration::from_secs(days * DAY), on(first)).unwrap()
}

/// The same CA by name and key, but valid for long: what it issues is not cut to its own end.
fn long_lived(authority: &Authority) -> Authority {
    let key = rcgen::KeyPair::from_pem(&authority.key_pem()).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "Root");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    Authority::from_pem(&pem, &authority.key_pem()).unwrap()
}

fn on(day: i64) -> muster_pki::UnixTime {
    let seconds = i64::try_from(NOW).unwrap() + day * i64::try_from(DAY).unwrap();
    at(u64::try_from(seconds).unwrap())
}

fn der(authority: &Authority) -> CertificateDer<'static> {
    authority.certificate().certificate_der().clone()
}
