//! Distribution points that serve somebody else's list, and servers that hang, over real sockets.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use muster_pki::authority::Issued;
use muster_pki::trust_store::TrustSettings;
use muster_pki::{RevocationMode, Role, Roots};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::meet;
use super::pki::Pki;
use super::urls::{Published, eventually, serve, woken};
use crate::credentials::{
    self, FetchSettings, IssuerSettings, Own, PathElement, Reload, Revocation, RevocationSettings, Rules,
    Servers, TrustFolder,
};
use crate::health::Health;
use crate::shutdown::{DrainOutcome, Shutdown};

/// Revocation that fetches the list of the devices' issuing CA from `urls`; the operators' root is configured, too.
pub(super) fn fetching(pki: &Pki, urls: Vec<String>, fetching: FetchSettings) -> Arc<Revocation> {
    let mut files = pki.revocation_files();
    files.crls.clear();
    let issuing = IssuerSettings { certificates: pki.write_issuing_ca(), mode: None, urls };
    let mode = RevocationMode::Soft;
    let settings =
        RevocationSettings { mode, issuers: vec![issuing], fetching, ..RevocationSettings::default() };
    Revocation::load(files, settings, pki.clock()).unwrap()
}

/// Tries again after a second, as often as that.
pub(super) fn impatient() -> FetchSettings {
    let second = Duration::from_secs(1);
    FetchSettings {
        retry_min: second,
        retry_max: second,
        start_spread: Duration::ZERO,
        ..FetchSettings::default()
    }
}

#[tokio::test]
async fn r1_a_distribution_point_that_serves_another_configured_cas_list_is_a_fault_until_it_serves_its_own()
{
    let pki = Pki::new();
    let (device, operator) = (pki.issue("w701", Role::Device, 30), pki.issue("alice", Role::Operator, 30));
    let published = Arc::new(Published::default());
    let (_tasks, url) = serve(&published).await;
    *published.body.lock().unwrap() = pki.operators_crl(&operator, 1).into_bytes();
    let revocation = fetching(&pki, vec![url.clone()], impatient());
    let (shutdown, health) = (Shutdown::new(), Health::new());
    revocation.watch(&shutdown, &health);

    // It is good for a week: a good fetch is followed by the next in an hour.
    eventually("it is asked again and again", async || published.requests.load(Ordering::Relaxed) >= 3).await;
    let wrong = revocation.complaints().join("; ");
    let is_used = revocation.is_any_revoked(&[PathElement::of(&operator.certificate)]);
    *published.body.lock().unwrap() = pki.crl(&[&device], 1).into_bytes();
    eventually("its own list is in use", async || {
        revocation.is_any_revoked(&[PathElement::of(&device.certificate)])
    })
    .await;

    let told = format!("{url}: serves the CRL of CN=Operator Root, wanted that of CN=Device CA");
    assert!(wrong.contains(&told), "{wrong}");
    assert!(is_used, "it passes R5 where it belongs");
    eventually("the fault is over", async || !revocation.complaints().join("; ").contains("serves")).await;
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
}

#[tokio::test]
async fn r1_another_cas_list_that_was_kept_for_a_distribution_point_is_not_what_it_goes_on_with() {
    let pki = Pki::new();
    let device = pki.issue("w701", Role::Device, 30);
    let published = Arc::new(Published::default());
    let (_tasks, url) = serve(&published).await;
    *published.body.lock().unwrap() = pki.crl(&[&device], 1).into_bytes();
    let is_revoked =
        |revocation: &Revocation| revocation.is_any_revoked(&[PathElement::of(&device.certificate)]);
    let revocation = fetching(&pki, vec![url.clone()], impatient());
    let (shutdown, health) = (Shutdown::new(), Health::new());
    revocation.watch(&shutdown, &health);
    eventually("the list is in use", async || is_revoked(&revocation)).await;
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
    // The same server, now said to publish for the operators' root only.
    let before = published.requests.load(Ordering::Relaxed);
    let mut files = pki.revocation_files();
    files.crls.clear();
    let issuer = |name: &str, urls| IssuerSettings { certificates: pki.path(name), mode: None, urls };
    let issuers = vec![issuer("issuing.pem", Vec::new()), issuer("operators.pem", vec![url.clone()])];
    let mode = RevocationMode::Soft;
    let settings =
        RevocationSettings { mode, issuers, fetching: impatient(), ..RevocationSettings::default() };
    let again = Revocation::load(files, settings, pki.clock()).unwrap();
    let (shutdown, health) = (Shutdown::new(), Health::new());
    again.watch(&shutdown, &health);

    let is_fault = || again.complaints().join("; ").contains("wanted that of CN=Operator Root");
    eventually("the fault is told", async || is_fault()).await;

    assert!(is_revoked(&again), "what it said of its own devices holds");
    assert!(published.requests.load(Ordering::Relaxed) > before);
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
}

#[tokio::test]
async fn r1_a_server_that_hangs_with_all_of_its_distribution_points_holds_back_no_other_server() {
    let pki = Pki::new();
    let device = pki.issue("w701", Role::Device, 30);
    let published = Arc::new(Published::default());
    let (_tasks, good) = serve(&published).await;
    *published.body.lock().unwrap() = pki.crl(&[&device], 1).into_bytes();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hanging = listener.local_addr().unwrap();
    let mut hung = JoinSet::new();
    hung.spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let mut urls: Vec<String> = (0..40).map(|number| format!("http://{hanging}/{number}.crl")).collect();
    urls.push(good);
    let revocation =
        fetching(&pki, urls, FetchSettings { start_spread: Duration::ZERO, ..FetchSettings::default() });
    let (shutdown, health) = (Shutdown::new(), Health::new());
    revocation.watch(&shutdown, &health);

    eventually("the list of the server that answers", async || {
        revocation.is_any_revoked(&[PathElement::of(&device.certificate)])
    })
    .await;

    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
}

#[tokio::test]
async fn r1_the_list_of_a_ca_that_only_a_policy_brings_is_fetched_as_long_as_the_policy_is_followed_or_tried()
{
    for is_tried in [false, true] {
        let pki = Pki::new();
        let published = Arc::new(Published::default());
        let (_tasks, url) = serve(&published).await;
        let server = pki.issue_server_with_url("localhost", &url);
        *published.body.lock().unwrap() = pki.servers_crl(&[&server], 1).into_bytes();
        let mut files = pki.revocation_files();
        files.crls.clear();
        // The servers' root stands in no file.
        files.roots = vec![pki.path("operators.pem")];
        let mode = RevocationMode::Soft;
        let settings = RevocationSettings { mode, fetching: impatient(), ..RevocationSettings::default() };
        let revocation = Revocation::load(files, settings, pki.clock()).unwrap();
        std::fs::create_dir_all(pki.path("trust")).unwrap();
        let root = Roots::from_pem(pki.read("servers.pem").as_bytes(), "servers.pem").unwrap();
        let folder = TrustFolder::new(pki.path("trust"), TrustSettings::default())
            .with_authorities("policy 1", root.iter().cloned().collect());
        let rules = Rules { revocation: Arc::clone(&revocation), ..pki.rules() };
        let client = credentials::client(
            Own::Files(pki.write_pair("device", &pki.issue("w701", Role::Device, 30))),
            Servers::Folder(folder.clone()),
            vec![b"muster/1".to_vec()],
            Role::Device,
            rules,
        )
        .unwrap();
        let (shutdown, health) = (Shutdown::new(), Health::new());
        revocation.watch(&shutdown, &health);

        if is_tried {
            revocation.try_servers(Some(folder));
        } else {
            revocation.trust_servers(Some(folder));
        }
        let mut refused = String::new();
        eventually("the server is refused", async || {
            match meet(&pki.server(), &client, "localhost").await.client {
                Ok(_) => false,
                Err(why) => {
                    refused = why;
                    true
                }
            }
        })
        .await;
        let fetched = revocation.distribution_points();
        if is_tried {
            revocation.end_trial();
        } else {
            revocation.trust_servers(None);
        }

        assert!(refused.contains("R2"), "{refused}");
        assert_eq!(fetched, [url]);
        woken("its list is forgotten", async || revocation.distribution_points().is_empty()).await;
        assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
    }
}

#[tokio::test]
async fn r1_what_certificates_told_of_an_issuer_is_known_when_another_one_is_configured() {
    let pki = Pki::new();
    let device = pki.issue_with_url("w701", "http://127.0.0.1:1/devices.crl");
    let revocation = fetching(&pki, Vec::new(), impatient());
    learn(&pki, &revocation, &device);
    assert_eq!(revocation.distribution_points(), ["http://127.0.0.1:1/devices.crl"]);

    pki.write("servers.pem", &(pki.read("servers.pem") + &Pki::new().read("servers.pem")));
    assert_eq!(revocation.reload(), Reload::Swapped);

    assert_eq!(revocation.distribution_points(), ["http://127.0.0.1:1/devices.crl"]);
    pki.write("issuing.pem", &pki.read("operators.pem"));
    assert_eq!(revocation.reload(), Reload::Swapped);
    assert!(revocation.distribution_points().is_empty(), "its issuer is gone");
}

#[tokio::test]
async fn r1_what_was_wrong_with_a_distribution_point_goes_with_its_issuer() {
    let pki = Pki::new();
    let published = Arc::new(Published::default());
    let (_tasks, url) = serve(&published).await;
    *published.body.lock().unwrap() = b"no list".to_vec();
    let revocation = fetching(&pki, Vec::new(), impatient());
    learn(&pki, &revocation, &pki.issue_with_url("w701", &url));
    let (shutdown, health) = (Shutdown::new(), Health::new());
    revocation.watch(&shutdown, &health);
    let is_told = || revocation.complaints().join("; ").contains("ca.crl");
    eventually("garbage is told", async || is_told()).await;

    pki.write("issuing.pem", &pki.read("operators.pem"));
    // Whoever follows the files may have come first.
    drop(revocation.reload());

    eventually("its fault is forgotten", async || !is_told()).await;
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
}

/// Takes the distribution point that a device's certificate tells.
pub(super) fn learn(pki: &Pki, revocation: &Revocation, device: &Issued) {
    let roots = Roots::from_pem(pki.read("devices.pem").as_bytes(), "devices.pem").unwrap();
    let chain = muster_pki::pem::certificates(device.chain_pem.as_bytes(), "chain").unwrap();
    revocation.learn_signer(Role::Device, &chain, &roots, None);
}
