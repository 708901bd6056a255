//! What is told before it ends: certificates, the CAs above them, roots, CRLs (N3 of trust.md).

use muster_pki::{RevocationMode, Role};

use super::pki::{DAY, Pki};
use crate::credentials::{self, IssuerSettings, Revocation, RevocationSettings};
use crate::health::State;
use crate::telemetry;

/// How long the CAs of [`Pki`] live.
const CA_LIFE: u64 = 3_650 * DAY;

#[test]
fn n3_roots_and_issuing_cas_of_files_are_told_of_thirty_days_before_they_end() {
    let pki = Pki::new();
    let mut files = pki.revocation_files();
    files.crls.clear();
    files.roots.truncate(1);
    let issuing = IssuerSettings { certificates: pki.write_issuing_ca(), ..IssuerSettings::default() };
    let settings = RevocationSettings {
        mode: RevocationMode::Soft,
        fetch: false,
        issuers: vec![issuing],
        ..RevocationSettings::default()
    };
    let revocation = Revocation::load(files, settings, pki.clock()).unwrap();
    let told = |what: &str| revocation.complaints().iter().any(|one| one.contains(what));

    pki.advance(CA_LIFE - 31 * DAY);
    let early = told("expires in");
    pki.advance(11 * DAY + 60);

    assert!(!early, "{:?}", revocation.complaints());
    assert!(told("devices.pem: CA CN=Device Root expires in 19 days"), "{:?}", revocation.complaints());
    assert!(told("issuing.pem: CA CN=Device CA expires in 19 days"), "{:?}", revocation.complaints());
    assert!(
        matches!(revocation.state(), State::Degraded(why) if why.contains("Device Root expires in 19 days"))
    );
    pki.advance(20 * DAY);
    assert!(told("CA CN=Device Root expired"), "{:?}", revocation.complaints());
}

#[test]
fn n3_a_ca_that_is_sent_with_our_own_certificate_is_told_of_before_it_ends() {
    let pki = Pki::new();
    pki.advance(CA_LIFE - 20 * DAY + 60);
    let files = pki.write_pair("server", &pki.issue_under_devices("localhost", Role::Switch));
    let roles = vec![(Role::Operator, pki.path("operators.pem"))];
    let server = credentials::server(files, roles, Vec::new(), Role::Switch, pki.rules()).unwrap();

    let state = server.state();

    assert!(
        matches!(&state, State::Degraded(why) if why.contains("CA CN=Device CA expires in 19 days")),
        "{state:?}"
    );
}

#[test]
fn n3_a_crl_is_told_of_in_the_last_tenth_of_its_life_and_a_newer_one_ends_it() {
    let pki = Pki::new();
    let revocation = pki.revocation();
    let told =
        || revocation.complaints().into_iter().filter(|one| one.contains("devices.crl")).collect::<Vec<_>>();

    pki.advance(6 * DAY);
    let early = told();
    pki.advance(DAY - 10 * 60 * 60);
    let late = told();
    pki.write_crl(&[], 2);
    assert_eq!(revocation.reload(), credentials::Reload::Swapped);

    assert_eq!(early, Vec::<String>::new());
    assert!(late.len() == 1 && late[0].contains("Device CA") && late[0].contains("expires in"), "{late:?}");
    assert_eq!(told(), Vec::<String>::new());
}

#[test]
fn a_stale_crl_is_a_metric_until_a_fresh_one_comes() {
    let metrics = telemetry::metrics();
    let pki = Pki::new();
    let mut files = pki.revocation_files();
    files.roots.truncate(1);
    let issuing = IssuerSettings { certificates: pki.write_issuing_ca(), ..IssuerSettings::default() };
    pki.write("root.crl", &pki.root_crl(1));
    files.crls.push(pki.path("root.crl"));
    let settings =
        RevocationSettings { fetch: false, issuers: vec![issuing], ..RevocationSettings::default() };
    let revocation = Revocation::load(files, settings, pki.clock()).unwrap();
    let stale = || {
        let _complaints = revocation.complaints();
        metrics.render().lines().find_map(|line| line.strip_prefix("muster_crl_stale ")).map(str::to_owned)
    };

    let fresh = stale();
    pki.advance(7 * DAY + 60);
    let lapsed = stale();
    pki.write("root.crl", &pki.root_crl(2));
    pki.write_crl(&[], 2);
    assert_eq!(revocation.reload(), credentials::Reload::Swapped);

    assert_eq!((fresh.as_deref(), lapsed.as_deref(), stale().as_deref()), (Some("0"), Some("1"), Some("0")));
    let rendered = metrics.render();
    for name in ["muster_crl_next_update_seconds{crl=", "muster_authorities_not_after_seconds{file="] {
        assert!(rendered.contains(name), "{name}: {rendered}");
    }
}
