//! Issuing CAs that nobody named: trust holds roots, and peers show the CAs between (the way a PKI is installed).

use std::sync::Arc;
use std::time::Duration;

use muster_pki::authority::Request;
use muster_pki::{RevocationMode, Role};

use super::meet;
use super::pki::Pki;
use super::points::learn;
use super::revocation::pair_of;
use super::urls::{Published, eventually, serve};
use crate::credentials::{
    FetchSettings, PathElement, Reload, Revocation, RevocationFiles, RevocationSettings,
};
use crate::health::Health;
use crate::shutdown::{DrainOutcome, Shutdown};

const DAY: u64 = 24 * 3_600;

fn load(pki: &Pki, settings: RevocationSettings) -> Arc<Revocation> {
    let mut files = pki.revocation_files();
    // The root publishes; its issuing CA is what nobody named.
    pki.write("root.crl", &pki.root_crl(1));
    files.crls = vec![pki.path("root.crl")];
    Revocation::load(files, settings, pki.clock()).unwrap()
}

#[tokio::test]
async fn r1_the_list_of_an_issuing_ca_that_only_peers_show_is_fetched_and_counts_over_a_restart() {
    let pki = Pki::new();
    let published = Arc::new(Published::default());
    let (tasks, url) = serve(&published).await;
    let device = pki.issue_with_url("w701", &url);
    *published.body.lock().unwrap() = pki.crl(&[&device], 1).into_bytes();
    let fetching = FetchSettings { start_spread: Duration::ZERO, ..FetchSettings::default() };
    let settings = RevocationSettings { fetching, ..RevocationSettings::default() };
    let path = [PathElement::of(&device.certificate)];
    let revocation = load(&pki, settings.clone());
    let (shutdown, health) = (Shutdown::new(), Health::new());
    revocation.watch(&shutdown, &health);
    let (server, client) = pair_of(&pki, &revocation, &device);

    let first = meet(&server, &client, "localhost").await.server;
    eventually("its list is in use", async || revocation.is_any_revoked(&path)).await;
    let second = meet(&server, &client, "localhost").await.server;

    assert!(first.is_ok(), "{first:?}");
    assert!(second.as_ref().is_err_and(|refused| refused.contains("R2")), "{second:?}");
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
    drop(tasks);
    let again = load(&pki, settings);
    assert!(again.is_any_revoked(&path), "whose list it is was not forgotten over the restart");
}

#[tokio::test]
async fn r5_an_older_file_than_what_was_fetched_is_told_and_no_reason_not_to_start() {
    let pki = Pki::new();
    let published = Arc::new(Published::default());
    let (_tasks, url) = serve(&published).await;
    let device = pki.issue_with_url("w701", &url);
    *published.body.lock().unwrap() = pki.crl(&[&device], 2).into_bytes();
    pki.write_crl(&[], 1);
    let fetching = FetchSettings { start_spread: Duration::ZERO, ..FetchSettings::default() };
    let settings = RevocationSettings { fetching, ..RevocationSettings::default() };
    let path = [PathElement::of(&device.certificate)];
    let load = || Revocation::load(pki.revocation_files(), settings.clone(), pki.clock()).unwrap();
    let revocation = load();
    let (shutdown, health) = (Shutdown::new(), Health::new());
    revocation.watch(&shutdown, &health);
    let (server, client) = pair_of(&pki, &revocation, &device);
    drop(meet(&server, &client, "localhost").await);
    eventually("the newer list is in use", async || revocation.is_any_revoked(&path)).await;
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);

    let again = load();

    assert!(again.is_any_revoked(&path));
    let complaints = again.complaints().join("; ");
    assert!(complaints.contains("devices.crl"), "{complaints}");
}

#[tokio::test]
async fn r6_an_issuing_ca_without_a_list_is_an_alarm_from_its_first_handshake_on_and_has_its_day() {
    let pki = Pki::new();
    let settings = RevocationSettings { fetch: false, ..RevocationSettings::default() };
    let revocation = load(&pki, settings);
    let device = pki.issue("w701", Role::Device, 30);
    let (server, client) = pair_of(&pki, &revocation, &device);
    let is_told = || revocation.complaints().iter().any(|told| told.contains("CRL of CN=Device CA"));
    let before = is_told();
    // Long after the start: its day begins when it is seen.
    pki.advance(5 * DAY);

    let first = meet(&server, &client, "localhost").await.server;
    let reload = revocation.reload();
    pki.advance(DAY - 60);
    let within = meet(&server, &client, "localhost").await.server;
    let complaints = revocation.complaints().join("; ");
    pki.advance(120);
    let after = meet(&server, &client, "localhost").await.server;

    assert!(!before && is_told());
    assert!(first.is_ok() && within.is_ok(), "{first:?} {within:?}");
    assert_eq!(reload, Reload::Swapped);
    assert!(complaints.contains("CRL of CN=Device CA: missing or lapsed, let pass until"), "{complaints}");
    assert!(complaints.contains("put a new one into the files of `crls`"), "{complaints}");
    assert!(after.as_ref().is_err_and(|refused| refused.contains("R6")), "{after:?}");
    assert_eq!(revocation.reload(), Reload::Unchanged, "it is taken up once");
}

#[tokio::test]
async fn r6_in_mode_hard_a_missing_list_says_that_nobody_is_let_in() {
    let pki = Pki::new();
    let mode = RevocationMode::Hard;
    let revocation = load(&pki, RevocationSettings { mode, fetch: false, ..RevocationSettings::default() });
    let device = pki.issue("w701", Role::Device, 30);
    let (server, client) = pair_of(&pki, &revocation, &device);

    let refused = meet(&server, &client, "localhost").await.server;
    let reload = revocation.reload();

    assert!(refused.as_ref().is_err_and(|refused| refused.contains("R6")), "{refused:?}");
    assert_eq!(reload, Reload::Swapped, "it is taken up all the same: only so can it be let in later");
    let complaints = revocation.complaints().join("; ");
    assert!(
        complaints.contains("CN=Device CA: missing or lapsed, nobody new is let in (mode hard)"),
        "{complaints}"
    );
}

#[tokio::test]
async fn r1_what_an_issuing_ca_revoked_that_has_ended_is_known_for_documents_that_outlive_it() {
    let pki = Pki::new();
    let short = pki.issuing_ca("Short CA", 10);
    let author = short.issue(&pki.request("author", Role::Device, 9)).unwrap();
    let revocation = load(&pki, RevocationSettings::default());
    learn(&pki, &revocation, &author);
    pki.write("root.crl", &(pki.root_crl(2) + &pki.crl_by(&short, &[&author], 1)));
    assert_eq!(revocation.reload(), Reload::Swapped);
    let path = [PathElement::of(&author.certificate)];
    assert!(revocation.is_any_revoked(&path), "the list counts");

    pki.advance(20 * DAY);
    // The issuers are read anew.
    pki.write("servers.pem", &(pki.read("servers.pem") + &Pki::new().read("servers.pem")));
    drop(revocation.reload());
    let complaints = revocation.complaints().join("; ");
    drop(revocation);
    let files = RevocationFiles { crls: vec![pki.path("root.crl")], ..pki.revocation_files() };
    let again = Revocation::load(files, RevocationSettings::default(), pki.clock());

    assert!(!complaints.contains("Short CA"), "nobody publishes for it any more: {complaints}");
    let again = again.unwrap();
    assert!(again.is_any_revoked(&path), "nor does a restart free whom it revoked");
    pki.write("devices.pem", &pki.read("operators.pem"));
    drop(again.reload());
    assert!(!again.is_any_revoked(&path), "it goes with its root");
}

#[tokio::test]
async fn r1_an_issuing_ca_that_comes_has_nobody_asked_again_who_answered() {
    let pki = Pki::new();
    let (before, new) = (Arc::new(Published::default()), Arc::new(Published::default()));
    let ((_before, before_url), (_new, new_url)) = (serve(&before).await, serve(&new).await);
    let issuing = pki.issuing_ca("Other CA", 365);
    let (first, second) = (pki.issue_with_url("w701", &before_url), pki.issue("w702", Role::Device, 30));
    let request = Request { crl_url: Some(new_url), ..pki.request("w703", Role::Device, 30) };
    let other = issuing.issue(&request).unwrap();
    *before.body.lock().unwrap() = pki.crl(&[&second], 1).into_bytes();
    *new.body.lock().unwrap() = pki.crl_by(&issuing, &[&other], 1).into_bytes();
    let fetching = FetchSettings { start_spread: Duration::ZERO, ..FetchSettings::default() };
    let revocation = load(&pki, RevocationSettings { fetching, ..RevocationSettings::default() });
    let (shutdown, health) = (Shutdown::new(), Health::new());
    revocation.watch(&shutdown, &health);
    let is_in_use = |path: &[PathElement]| revocation.is_any_revoked(path);
    learn(&pki, &revocation, &first);
    eventually("the first list", async || is_in_use(&[PathElement::of(&second.certificate)])).await;

    learn(&pki, &revocation, &other);
    eventually("that of the CA that came", async || is_in_use(&[PathElement::of(&other.certificate)])).await;

    assert_eq!((before.requests(), new.requests()), (1, 1));
    assert!(is_in_use(&[PathElement::of(&second.certificate)]));
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
}

/// Takes up at most one issuing CA of chains.
fn one_only() -> RevocationSettings {
    RevocationSettings { met_max: 1, ..RevocationSettings::default() }
}

#[tokio::test]
async fn r6_the_day_of_an_issuing_ca_that_cannot_be_taken_up_ends_over_a_restart_too() {
    let pki = Pki::new();
    let revocation = load(&pki, one_only());
    learn(&pki, &revocation, &pki.issue("w701", Role::Device, 30));
    assert_eq!(revocation.reload(), Reload::Swapped);
    let other = pki.issuing_ca("Other CA", 365);
    let device = other.issue(&pki.request("w702", Role::Device, 30)).unwrap();
    let (server, client) = pair_of(&pki, &revocation, &device);

    let first = meet(&server, &client, "localhost").await.server;
    drop(revocation.reload());
    let complaints = revocation.complaints().join("; ");
    pki.advance(DAY - 60);
    let within = meet(&server, &client, "localhost").await.server;
    pki.advance(120);
    let after = meet(&server, &client, "localhost").await.server;
    let again = load(&pki, one_only());
    let (server, client) = pair_of(&pki, &again, &device);
    let restarted = meet(&server, &client, "localhost").await.server;

    assert!(first.is_ok() && within.is_ok(), "{first:?} {within:?}");
    let told = "CRL of CN=Other CA: missing or lapsed, let pass until";
    assert!(complaints.contains(told) && complaints.contains("name its certificate"), "{complaints}");
    assert!(complaints.contains("more than 1 issuing CAs, CN=Other CA"), "{complaints}");
    for refused in [after, restarted] {
        assert!(refused.as_ref().is_err_and(|refused| refused.contains("R6")), "{refused:?}");
    }
    assert!(again.complaints().join("; ").contains("CN=Other CA is one too many"));
    assert_eq!(again.reload(), Reload::Unchanged, "one that is remembered is no reason to look again");
}

#[tokio::test]
async fn r1_that_there_is_no_room_for_an_issuing_ca_is_told_as_long_as_it_is_so() {
    let pki = Pki::new();
    let revocation = load(&pki, one_only());
    let (short, long) = (pki.issuing_ca("Short CA", 10), pki.issuing_ca("Long CA", 365));
    let devices = [(&short, "w701"), (&long, "w702")]
        .map(|(authority, name)| authority.issue(&pki.request(name, Role::Device, 9)).unwrap());
    let is_told = || revocation.complaints().join("; ").contains("issuing CAs");
    for device in &devices {
        learn(&pki, &revocation, device);
        drop(revocation.reload());
    }
    let before = is_told();
    pki.write("root.crl", &(pki.root_crl(2) + &pki.crl_by(&long, &[&devices[1]], 1)));
    drop(revocation.reload());
    let (path, is_known) = ([PathElement::of(&devices[1].certificate)], revocation.index().len());

    pki.advance(11 * DAY);
    drop(revocation.reload());

    assert!(before && !is_told(), "the other one ended and makes room");
    assert!(is_known == 0 && revocation.is_any_revoked(&path), "its list counts from then on");
}

#[tokio::test]
async fn r1_an_issuing_ca_that_comes_while_files_cannot_be_read_is_taken_up_when_they_can() {
    let pki = Pki::new();
    let revocation = load(&pki, RevocationSettings::default());
    let is_taken_up = || revocation.complaints().join("; ").contains("CRL of CN=Device CA");
    let good = pki.read("operators.pem");
    pki.write("operators.pem", "no roots");
    learn(&pki, &revocation, &pki.issue("w701", Role::Device, 30));
    let unread = revocation.reload();
    let before = is_taken_up();

    pki.write("operators.pem", &good);
    let reload = revocation.reload();

    assert!(matches!(unread, Reload::Kept { .. }) && !before, "{unread:?}");
    assert_eq!(reload, Reload::Swapped);
    assert!(is_taken_up());
}
