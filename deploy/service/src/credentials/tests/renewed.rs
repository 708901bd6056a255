//! Issuing CAs of chains that have several certificates for one name and key, several keys for one name, or many distribution points.

use std::sync::Arc;
use std::time::Duration;

use muster_pki::authority::{Authority, Request};
use muster_pki::{RevocationMode, Role, URLS_PER_ISSUER_MAX, Validators};

use super::pki::{DAY, Pki};
use super::points::{fetching, impatient, learn};
use super::urls::{Published, eventually, serve};
use crate::credentials::{
    FetchSettings, IssuerSettings, PathElement, Reload, Revocation, RevocationSettings,
};
use crate::health::Health;
use crate::shutdown::{DrainOutcome, Shutdown};

fn load(pki: &Pki, settings: RevocationSettings) -> Arc<Revocation> {
    let mut files = pki.revocation_files();
    files.crls.clear();
    Revocation::load(files, settings, pki.clock()).unwrap()
}

#[test]
fn r6_a_renewed_issuing_ca_is_told_of_after_its_first_certificate_has_ended() {
    let pki = Pki::new();
    let short = pki.issuing_ca("Short CA", 10);
    let long = pki.renewed(&short, 99);
    let revocation = load(&pki, RevocationSettings::default());
    let is_told = || revocation.complaints().join("; ").contains("CRL of CN=Short CA");
    for (authority, name) in [(&short, "w701"), (&long, "w702")] {
        learn(&pki, &revocation, &authority.issue(&pki.request(name, Role::Device, 9)).unwrap());
        assert_eq!(revocation.reload(), Reload::Swapped);
    }
    assert_eq!(revocation.reload(), Reload::Unchanged);

    pki.advance(11 * DAY);
    let renewed = is_told();
    pki.advance(99 * DAY);

    assert!(renewed, "it goes on under the other certificate");
    assert!(!is_told(), "it has ended under both");
}

#[test]
fn r6_the_mode_of_a_named_issuing_ca_holds_under_the_certificate_that_chains_show() {
    let pki = Pki::new();
    let named = pki.issuing_ca("Named CA", 99);
    let shown = pki.renewed(&named, 99);
    pki.write("named.pem", &named.certificate_pem());
    let mode = Some(RevocationMode::Hard);
    let issuer = IssuerSettings { certificates: pki.path("named.pem"), mode, urls: Vec::new() };
    let revocation =
        load(&pki, RevocationSettings { issuers: vec![issuer], ..RevocationSettings::default() });

    learn(&pki, &revocation, &shown.issue(&pki.request("w701", Role::Device, 9)).unwrap());
    assert_eq!(revocation.reload(), Reload::Swapped);

    let complaints = revocation.complaints().join("; ");
    assert!(
        complaints.contains("CN=Named CA: missing or lapsed, nobody new is let in (mode hard)"),
        "{complaints}"
    );
}

#[test]
fn r1_the_list_of_a_cross_signed_ca_counts_over_a_restart_when_the_root_it_was_met_below_first_is_gone() {
    let pki = Pki::new();
    let (url, year) = ("http://127.0.0.1:1/cross.crl", Duration::from_secs(365 * DAY));
    let other = Authority::root("Other Root", year, pki.clock().now()).unwrap();
    let first = pki.issuing_ca("Cross CA", 99);
    let second = other.certify_again(&first, year, pki.clock().now()).unwrap();
    pki.write("devices.pem", &(pki.read("devices.pem") + &other.certificate_pem()));
    let request = Request { crl_url: Some(url.to_owned()), ..pki.request("w701", Role::Device, 9) };
    let devices = [&first, &second].map(|authority| authority.issue(&request).unwrap());
    let path = [PathElement::of(&devices[1].certificate)];
    let revocation = load(&pki, RevocationSettings::default());
    for device in &devices {
        learn(&pki, &revocation, device);
        assert_eq!(revocation.reload(), Reload::Swapped);
    }
    let list = pki.crl_by(&first, &[&devices[1]], 1);
    assert_eq!(revocation.load_fetched(url, list.as_bytes(), &Validators::default()).unwrap().len(), 1);
    assert!(revocation.is_any_revoked(&path));
    drop(revocation);

    pki.write("devices.pem", &other.certificate_pem());
    let again = load(&pki, RevocationSettings::default());

    assert!(again.is_any_revoked(&path));
}

#[tokio::test]
async fn r1_a_distribution_point_that_a_ca_has_left_is_no_fault_once_another_one_serves_its_list() {
    let pki = Pki::new();
    let (left, new) = (Arc::new(Published::default()), Arc::new(Published::default()));
    let ((_left, left_url), (_new, new_url)) = (serve(&left).await, serve(&new).await);
    left.fail(true);
    *new.body.lock().unwrap() = pki.crl(&[], 1).into_bytes();
    let fetching = FetchSettings { alarm_after: 1, ..impatient() };
    let revocation = super::points::fetching(&pki, Vec::new(), fetching);
    let (shutdown, health) = (Shutdown::new(), Health::new());
    revocation.watch(&shutdown, &health);
    let is_told = || revocation.complaints().join("; ").contains(&format!("CRL from {left_url}"));
    learn(&pki, &revocation, &pki.issue_with_url("w701", &left_url));
    eventually("it is told while nobody serves the list", async || is_told()).await;

    // Of two that the same certificates tell, each is missed.
    learn(&pki, &revocation, &pki.issue_with_url("w702", &new_url));
    let before = left.requests();
    eventually("both are asked", async || new.requests() > 0 && left.requests() > before + 1).await;
    assert!(is_told());
    pki.advance(1);
    learn(&pki, &revocation, &pki.issue_with_url("w703", &new_url));

    eventually("it is told no more", async || !is_told()).await;
    // Nor once the new one has failed once, and has nothing newer then.
    new.fail(true);
    pki.advance(24 * 3_600);
    eventually("it is told that both fail", async || is_told()).await;
    new.fail(false);
    eventually("it is told no more again", async || !is_told()).await;
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
}

#[test]
fn r1_more_distribution_points_than_are_fetched_are_told_with_what_mends_it() {
    let pki = Pki::new();
    let revocation = fetching(&pki, Vec::new(), impatient());
    let url = |n| format!("http://crl{n}.test/");
    for n in 0..URLS_PER_ISSUER_MAX {
        learn(&pki, &revocation, &pki.issue_with_url("w701", &url(n)));
    }
    let fetched = revocation.distribution_points();
    let before = revocation.complaints().join("; ");

    learn(&pki, &revocation, &pki.issue_with_url("w701", &url(URLS_PER_ISSUER_MAX)));

    assert_eq!(fetched.len(), 128);
    assert!(!before.contains("distribution points"), "{before}");
    let complaints = revocation.complaints().join("; ");
    let told = format!("more than 128 distribution points, {}", url(URLS_PER_ISSUER_MAX));
    assert!(complaints.contains(&told) && complaints.contains("`urls`"), "{complaints}");
}
