//! What the table `[revocation.fetching]` bounds, and what becomes of a distribution point's fault, over real sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use muster_pki::{Role, Validators};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::pki::{DAY, Pki};
use super::points::{fetching, impatient, learn};
use super::urls::{Published, eventually, serve, woken};
use crate::credentials::{FetchSettings, Keeping, PathElement, Reload, Revocation, RevocationSettings};
use crate::health::Health;
use crate::shutdown::{DrainOutcome, Shutdown};

#[tokio::test]
async fn r1_a_point_that_fails_is_told_of_from_as_many_failures_on_as_the_table_says() {
    let pki = Pki::new();
    let published = Arc::new(Published::default());
    let (_tasks, url) = serve(&published).await;
    published.fail(true);
    // With one place in all, that of the first try is needed again.
    let settings = FetchSettings { alarm_after: 2, parallel: 1, ..impatient() };
    let revocation = fetching(&pki, vec![url.clone()], settings);
    let (shutdown, health) = (Shutdown::new(), Health::new());
    revocation.watch(&shutdown, &health);
    let mut asked_then = 0;

    eventually("it is told", async || {
        asked_then = published.requests();
        revocation.complaints().join("; ").contains(&format!("{url}: status 500"))
    })
    .await;

    // Between two tries there is most of a second.
    assert_eq!(asked_then, 2);
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
}

#[tokio::test]
async fn r1_a_point_that_answers_again_without_anything_new_is_no_fault_any_more() {
    let pki = Pki::new();
    let published = Arc::new(Published::default());
    let (_tasks, url) = serve(&published).await;
    *published.body.lock().unwrap() = pki.crl(&[], 1).into_bytes();
    let refresh_max = Duration::from_secs(1);
    let settings = FetchSettings { alarm_after: 1, refresh_max, ..impatient() };
    let revocation = fetching(&pki, vec![url], settings);
    let (shutdown, health) = (Shutdown::new(), Health::new());
    revocation.watch(&shutdown, &health);
    let is_told = || revocation.complaints().join("; ").contains("status 500");
    eventually("it is asked again", async || published.requests() >= 2).await;

    published.fail(true);
    eventually("the fault is told", async || is_told()).await;
    published.fail(false);

    eventually("the fault is over", async || !is_told()).await;
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
}

#[tokio::test]
async fn r1_without_fetching_nobody_is_asked_and_nothing_is_learned() {
    let pki = Pki::new();
    let (silent, asked) = (Arc::new(Published::default()), Arc::new(Published::default()));
    let ((_silent, silent_url), (_asked, asked_url)) = (serve(&silent).await, serve(&asked).await);
    let fetches = fetching(&pki, vec![asked_url], impatient());
    let issuing = crate::credentials::IssuerSettings {
        certificates: pki.write_issuing_ca(),
        mode: None,
        urls: vec![silent_url.clone()],
    };
    let settings = RevocationSettings {
        fetch: false,
        issuers: vec![issuing],
        fetching: impatient(),
        ..RevocationSettings::default()
    };
    let mut files = pki.revocation_files();
    files.kept = Keeping::Nothing;
    let silent_one = Revocation::load(files, settings, pki.clock()).unwrap();
    let (shutdown, health) = (Shutdown::new(), Health::new());
    silent_one.watch(&shutdown, &health);
    fetches.watch(&shutdown, &health);
    learn(&pki, &silent_one, &pki.issue_with_url("w701", "http://127.0.0.1:1/devices.crl"));

    eventually("another asks twice", async || asked.requests() >= 2).await;

    assert_eq!(silent.requests(), 0);
    assert_eq!(silent_one.distribution_points(), [silent_url]);
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
}

#[tokio::test]
async fn n3_a_fetched_list_that_is_about_to_lapse_is_told_of_until_its_issuer_is_gone() {
    let pki = Pki::new();
    let published = Arc::new(Published::default());
    let (_tasks, url) = serve(&published).await;
    let device = pki.issue("w701", Role::Device, 30);
    *published.body.lock().unwrap() = pki.crl(&[&device], 1).into_bytes();
    let revocation = fetching(&pki, vec![url.clone()], impatient());
    let (shutdown, health) = (Shutdown::new(), Health::new());
    revocation.watch(&shutdown, &health);
    eventually("the list is in use", async || {
        revocation.is_any_revoked(&[PathElement::of(&device.certificate)])
    })
    .await;
    let near = || revocation.complaints().join("; ").contains(&format!("from {url} expires in"));
    assert!(!near());

    pki.advance(7 * DAY - 3_600);
    let told = near();
    pki.write("issuing.pem", &pki.read("operators.pem"));
    // Whoever follows the files may have done so before.
    drop(revocation.reload());

    assert!(told);
    assert!(!near(), "nobody is to publish it any more");
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
}

#[tokio::test]
async fn r1_what_hangs_when_its_issuer_goes_keeps_no_place_from_who_comes_back() {
    let pki = Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/ca.crl", listener.local_addr().unwrap());
    let called = Arc::new(AtomicUsize::new(0));
    let (mut hung, counted) = (JoinSet::new(), Arc::clone(&called));
    hung.spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let revocation = fetching(&pki, vec![url], FetchSettings { parallel: 1, ..impatient() });
    let (shutdown, health) = (Shutdown::new(), Health::new());
    revocation.watch(&shutdown, &health);
    eventually("it is called", async || called.load(Ordering::Relaxed) == 1).await;

    pki.write("issuing.pem", &pki.read("operators.pem"));
    drop(revocation.reload());
    pki.write_issuing_ca();
    drop(revocation.reload());

    // The first call would go on for a minute.
    woken("it is called again", async || called.load(Ordering::Relaxed) == 2).await;
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
}

#[test]
fn r1_a_list_whose_issuer_went_while_it_was_fetched_is_neither_used_nor_a_fault() {
    let pki = Pki::new();
    let device = pki.issue("w701", Role::Device, 30);
    let revocation = fetching(&pki, Vec::new(), impatient());
    let list = pki.crl(&[&device], 1);

    let loaded =
        revocation.load_fetched("http://127.0.0.1:1/gone.crl", list.as_bytes(), &Validators::default());

    assert_eq!(loaded.unwrap().len(), 0);
    assert!(!revocation.is_any_revoked(&[PathElement::of(&device.certificate)]));
    assert!(!revocation.complaints().join("; ").contains("gone.crl"));
}

#[tokio::test]
async fn r1_a_kept_list_whose_file_is_gone_is_asked_for_as_a_whole() {
    let pki = Pki::new();
    let published = Arc::new(Published::default());
    let (_tasks, url) = serve(&published).await;
    let device = pki.issue("w701", Role::Device, 30);
    *published.body.lock().unwrap() = pki.crl(&[&device], 1).into_bytes();
    let is_revoked =
        |revocation: &Revocation| revocation.is_any_revoked(&[PathElement::of(&device.certificate)]);
    let first = fetching(&pki, vec![url.clone()], impatient());
    let (shutdown, health) = (Shutdown::new(), Health::new());
    first.watch(&shutdown, &health);
    eventually("the list is in use", async || is_revoked(&first)).await;
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
    let revocation = fetching(&pki, vec![url], impatient());
    assert!(is_revoked(&revocation), "what was kept");

    for entry in std::fs::read_dir(pki.path("kept")).unwrap().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "crl") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    pki.write("issuing.pem", &pki.read("operators.pem"));
    assert_eq!(revocation.reload(), Reload::Swapped);
    pki.write_issuing_ca();
    assert_eq!(revocation.reload(), Reload::Swapped);
    assert!(!is_revoked(&revocation), "its file is gone");
    let (shutdown, health) = (Shutdown::new(), Health::new());
    revocation.watch(&shutdown, &health);

    // Asked with what is known of it, the server would say that there is nothing new.
    eventually("the list is in use again", async || is_revoked(&revocation)).await;
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
}
