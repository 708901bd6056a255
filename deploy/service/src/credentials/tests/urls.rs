//! CRLs from distribution points, over real sockets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use muster_pki::authority::Issued;
use muster_pki::{Policy, RevocationMode, Role, Roots, TrailOf};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::meet;
use super::pki::Pki;
use crate::credentials::{
    self, CredentialFiles, IssuerSettings, Keeping, PathElement, Revocation, RevocationSettings, Rules,
    ServerCredentials,
};
use crate::health::{Health, State};
use crate::shutdown::{DrainOutcome, Shutdown};

/// What the publishing server says.
#[derive(Default)]
pub(super) struct Published {
    pub(super) body: Mutex<Vec<u8>>,
    status: Mutex<Option<StatusCode>>,
    pub(super) requests: AtomicUsize,
    not_modified: AtomicUsize,
}

impl Published {
    /// From now on, every answer is an error, or none is.
    pub(super) fn fail(&self, fails: bool) {
        *self.status.lock().unwrap() = fails.then_some(StatusCode::INTERNAL_SERVER_ERROR);
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn crl(Shared(published): Shared<Arc<Published>>, headers: HeaderMap) -> Response {
    published.requests.fetch_add(1, Ordering::Relaxed);
    if let Some(status) = *published.status.lock().unwrap() {
        return status.into_response();
    }
    let body = published.body.lock().unwrap().clone();
    let etag = format!("\"{}\"", body.len());
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        published.not_modified.fetch_add(1, Ordering::Relaxed);
        return StatusCode::NOT_MODIFIED.into_response();
    }
    ([(header::ETAG, etag)], body).into_response()
}

/// Serves `published` at `http://127.0.0.1:PORT/ca.crl`, as long as the tasks live.
pub(super) async fn serve(published: &Arc<Published>) -> (JoinSet<()>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/ca.crl", listener.local_addr().unwrap());
    let app = Router::new().route("/ca.crl", get(crl)).with_state(Arc::clone(published));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (tasks, url)
}

/// Revocation that fetches, with the issuing CA named and no CRL files.
fn fetching(pki: &Pki, mode: RevocationMode) -> Arc<Revocation> {
    let mut files = pki.revocation_files();
    files.crls.clear();
    files.roots.truncate(1);
    let issuing = IssuerSettings {
        certificates: pki.write_issuing_ca(),
        mode: Some(mode),
        ..IssuerSettings::default()
    };
    let settings = RevocationSettings {
        mode: RevocationMode::Soft,
        issuers: vec![issuing],
        ..RevocationSettings::default()
    };
    Revocation::load(files, settings, pki.clock()).unwrap()
}

fn server(pki: &Pki, revocation: &Arc<Revocation>) -> Arc<ServerCredentials> {
    let rules = Rules {
        revocation: Arc::clone(revocation),
        policy: Policy::default(),
        trail: TrailOf::All,
        clock: pki.clock(),
        device: credentials::OneDevice::default(),
        roles: Vec::new(),
    };
    let (certificate, key) = (pki.path("server.pem"), pki.path("server.key"));
    let own = CredentialFiles { certificate, key, password_file: None };
    let roles = vec![(Role::Device, pki.path("devices.pem"))];
    credentials::server(own, roles, vec![b"muster/1".to_vec()], Role::Switch, rules).unwrap()
}

pub(super) async fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) {
    within(Duration::from_secs(30), what, holds).await;
}

/// As [`eventually`], for what whoever waits is woken for: without that it would take 20 s at least.
pub(super) async fn woken(what: &str, holds: impl AsyncFnMut() -> bool) {
    within(Duration::from_secs(15), what, holds).await;
}

async fn within(limit: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(limit, waiting).await.is_ok(), "{what}");
}

#[tokio::test]
async fn r1_the_url_that_a_verified_certificate_tells_is_fetched_and_its_crl_is_used() {
    let pki = Pki::new();
    let published = Arc::new(Published::default());
    let (_tasks, url) = serve(&published).await;
    let (device, other) = (pki.issue_with_url("w701", &url), pki.issue_with_url("w702", &url));
    *published.body.lock().unwrap() = pki.crl(&[&device], 1).into_bytes();
    let revocation = fetching(&pki, RevocationMode::Hard);
    let (shutdown, health) = (Shutdown::new(), Health::new());
    revocation.watch(&shutdown, &health);
    let server = server(&pki, &revocation);
    let (revoked, good) = (pki.client(&device, Role::Device), pki.client(&other, Role::Device));

    let first = meet(&server, &good, "localhost").await.server.unwrap_err();
    eventually("the CRL is fetched", async || meet(&server, &good, "localhost").await.server.is_ok()).await;

    assert!(first.contains("R6"), "hard: no session before there is a CRL: {first}");
    let refused = meet(&server, &revoked, "localhost").await.server.unwrap_err();
    assert!(refused.contains("R2"), "{refused}");
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
}

#[tokio::test]
async fn r1_the_url_of_a_certificate_that_no_root_vouches_for_is_never_fetched() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let (bait, published) = (Arc::new(Published::default()), Arc::new(Published::default()));
    let ((_bait, bait_url), (_tasks, url)) = (serve(&bait).await, serve(&published).await);
    *published.body.lock().unwrap() = pki.crl(&[], 1).into_bytes();
    let revocation = fetching(&pki, RevocationMode::Hard);
    let (shutdown, health) = (Shutdown::new(), Health::new());
    revocation.watch(&shutdown, &health);
    let server = server(&pki, &revocation);
    let rogue = pki.client(&stranger.issue_with_url("w666", &bait_url), Role::Device);
    let honest = pki.client(&pki.issue_with_url("w701", &url), Role::Device);

    meet(&server, &rogue, "localhost").await.server.unwrap_err();
    eventually("the CRL is fetched", async || meet(&server, &honest, "localhost").await.server.is_ok()).await;
    meet(&server, &rogue, "localhost").await.server.unwrap_err();

    assert_eq!(bait.requests.load(Ordering::Relaxed), 0);
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
}

#[tokio::test]
async fn r1_a_crl_that_was_fetched_is_in_use_after_a_restart_without_its_server() {
    let pki = Pki::new();
    let published = Arc::new(Published::default());
    let (tasks, url) = serve(&published).await;
    let device = pki.issue_with_url("w701", &url);
    *published.body.lock().unwrap() = pki.crl(&[&device], 1).into_bytes();
    let revocation = fetching(&pki, RevocationMode::Soft);
    let (shutdown, health) = (Shutdown::new(), Health::new());
    let client = pki.client(&device, Role::Device);
    let first = server(&pki, &revocation);
    revocation.watch(&shutdown, &health);
    eventually("the CRL is fetched", async || meet(&first, &client, "localhost").await.server.is_err()).await;
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
    drop((tasks, first, revocation));

    let again = fetching(&pki, RevocationMode::Soft);

    let refused = meet(&server(&pki, &again), &client, "localhost").await.server.unwrap_err();
    assert!(refused.contains("R2"), "{refused}");
}

#[tokio::test]
async fn r4_garbage_and_errors_of_the_publishing_server_change_nothing_and_are_told() {
    let pki = Pki::new();
    let published = Arc::new(Published::default());
    let (_tasks, url) = serve(&published).await;
    let device = pki.issue_with_url("w701", &url);
    *published.body.lock().unwrap() = b"<html>not found</html>".to_vec();
    let revocation = fetching(&pki, RevocationMode::Soft);
    let (shutdown, health) = (Shutdown::new(), Health::new());
    let client = pki.client(&device, Role::Device);
    let server = server(&pki, &revocation);
    meet(&server, &client, "localhost").await.server.unwrap();
    revocation.watch(&shutdown, &health);

    eventually(
        "garbage is told",
        async || matches!(revocation.state(), State::Degraded(why) if why.contains("ca.crl")),
    )
    .await;

    meet(&server, &client, "localhost").await.server.unwrap();
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
}

#[tokio::test]
async fn r1_the_url_that_a_signers_certificate_tells_is_fetched_though_no_peer_shows_it() {
    let pki = Pki::new();
    let published = Arc::new(Published::default());
    let (_tasks, url) = serve(&published).await;
    let (signer, stranger) = (pki.issue_with_url("author", &url), Pki::new().issue_with_url("author", &url));
    *published.body.lock().unwrap() = pki.crl(&[&signer], 1).into_bytes();
    let revocation = fetching(&pki, RevocationMode::Hard);
    let (shutdown, health) = (Shutdown::new(), Health::new());
    revocation.watch(&shutdown, &health);
    let roots = Roots::from_pem(pki.read("devices.pem").as_bytes(), "devices.pem").unwrap();
    let chain =
        |issued: &Issued| muster_pki::pem::certificates(issued.chain_pem.as_bytes(), "chain").unwrap();

    revocation.learn_signer(Role::Device, &chain(&stranger), &roots, None);
    let (learned, of_stranger) = (revocation.distribution_points(), revocation.index().len());
    revocation.learn_signer(Role::Device, &chain(&signer), &roots, None);
    woken("the CRL is fetched", async || revocation.index().len() == 1).await;

    assert_eq!((learned, of_stranger), (Vec::<String>::new(), 0), "a stranger's certificate tells nothing");
    assert!(revocation.is_any_revoked(&[PathElement::of(&signer.certificate)]));
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
}

#[tokio::test]
async fn r1_an_issuer_that_is_taken_out_and_put_back_has_its_fetched_crl_again() {
    let pki = Pki::new();
    let published = Arc::new(Published::default());
    let (_tasks, url) = serve(&published).await;
    let device = pki.issue_with_url("w701", &url);
    *published.body.lock().unwrap() = pki.crl(&[&device], 1).into_bytes();
    let load = |is_kept: bool| {
        let mut files = pki.revocation_files();
        files.crls.clear();
        files.roots.truncate(1);
        if !is_kept {
            files.kept = Keeping::Nothing;
        }
        let urls = vec![url.clone()];
        let issuing =
            IssuerSettings { certificates: pki.write_issuing_ca(), urls, ..IssuerSettings::default() };
        let settings = RevocationSettings { issuers: vec![issuing], ..RevocationSettings::default() };
        Revocation::load(files, settings, pki.clock()).unwrap()
    };
    let path = [PathElement::of(&device.certificate)];
    // The last of them begins with what the one before kept, so that its first request is conditional.
    for (is_kept, is_resumed) in [(false, false), (true, false), (true, true)] {
        let revocation = load(is_kept);
        let (shutdown, health) = (Shutdown::new(), Health::new());
        revocation.watch(&shutdown, &health);
        eventually("the CRL is in use", async || revocation.is_any_revoked(&path)).await;
        let not_modified = || published.not_modified.load(Ordering::Relaxed);
        eventually("the server was asked", async || !is_resumed || not_modified() > 0).await;

        // One right after the other, before the fetching looks.
        pki.write("issuing.pem", &pki.read("operators.pem"));
        assert_eq!(revocation.reload(), credentials::Reload::Swapped);
        assert!(!revocation.is_any_revoked(&path));
        pki.write_issuing_ca();
        assert_eq!(revocation.reload(), credentials::Reload::Swapped);

        assert_eq!(revocation.is_any_revoked(&path), is_kept, "what is on the disk is in use at once");
        eventually("the CRL is in use again", async || revocation.is_any_revoked(&path)).await;
        assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
    }
}
