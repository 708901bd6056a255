//! A folder of certificates under a server (S7).

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use muster_pki::authority::Issued;
use muster_pki::select::SelectionSettings;
use muster_pki::{Role, Thumbprint, UnixTime};

use super::meet;
use super::pki::{DAY, Pki};
use crate::credentials::{self, CredentialError, Own, Reload, ServerCredentials, ServerTls};
use crate::health::{Health, State};
use crate::shutdown::{DrainOutcome, Shutdown};

const FULL_NAME: &str = "localhost.acme.local";

#[tokio::test]
async fn s7_the_folders_best_is_shown_its_successor_displaces_it_and_a_better_one_does_not() {
    let pki = Pki::new();
    let first = put(&pki, "a", &pki.issue("localhost", Role::Switch, 30));
    put(&pki, "other", &pki.issue("elsewhere.acme.local", Role::Switch, 900));
    let server = server(&pki, &SelectionSettings::default()).unwrap();
    assert_eq!(shown(&server), Some(first));

    put(&pki, "b", &pki.issue(FULL_NAME, Role::Switch, 300));
    assert_eq!(server.reload(), Reload::Swapped);
    assert_eq!(shown(&server), Some(first), "S4: a better one does not displace it");
    let renewed = put(&pki, "c", &pki.issue("localhost", Role::Switch, 60));
    assert_eq!(server.reload(), Reload::Swapped);

    assert_eq!(shown(&server), Some(renewed), "N1: its successor does");
    let client = pki.client(&pki.issue("w701", Role::Device, 30), Role::Device);
    let met = meet(&server, &client, "localhost").await;
    assert_eq!(met.server.unwrap().role(), Role::Device);
}

#[test]
fn s7_without_a_certificate_that_will_do_a_server_does_not_start_and_tells_why_each_lost() {
    let pki = Pki::new();
    put(&pki, "elsewhere", &pki.issue("elsewhere.acme.local", Role::Switch, 30));
    put(&pki, "device", &pki.issue("localhost", Role::Device, 30));
    std::fs::write(pki.path("store/broken.pfx"), b"no PFX").unwrap();

    let refused = server(&pki, &SelectionSettings::default()).unwrap_err();

    let text = refused.to_string();
    for part in [
        "the port stays closed",
        FULL_NAME,
        "elsewhere.pem",
        "S7 neither host name nor FQDN",
        "device.pem",
        "no serverAuth",
        "not read: ",
        "broken.pfx",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

#[test]
fn s7_a_certificate_that_every_client_would_refuse_takes_no_good_ones_place() {
    let pki = Pki::new();
    let good = put(&pki, "good", &pki.issue(FULL_NAME, Role::Switch, 30));
    put(&pki, "no distribution point", &pki.issue_server_without_url(FULL_NAME, 900));

    let server = server(&pki, &SelectionSettings::default()).unwrap();
    let at_start = shown(&server);
    put(&pki, "bad successor", &pki.issue_server_without_url(FULL_NAME, 950));
    drop(server.reload());
    let after = shown(&server);
    let renewed = put(&pki, "renewed", &pki.issue(FULL_NAME, Role::Switch, 60));
    let reload = server.reload();

    assert_eq!((at_start, after), (Some(good), Some(good)));
    assert_eq!((reload, shown(&server)), (Reload::Swapped, Some(renewed)));
}

#[test]
fn s7_an_issuer_that_is_not_listed_is_none_of_a_server() {
    let pki = Pki::new();
    put(&pki, "a", &pki.issue("localhost", Role::Switch, 30));
    let only_globex = SelectionSettings { cert_issuer: "Globex".to_owned(), ..SelectionSettings::default() };

    let refused = server(&pki, &only_globex).unwrap_err();

    assert!(refused.to_string().contains("S3 issuer not in cert_issuer"), "{refused}");
}

#[tokio::test]
async fn s7_a_folder_that_lost_its_certificate_keeps_the_old_one_until_it_ends_and_then_the_port_is_closed() {
    let pki = Pki::new();
    let old = put(&pki, "a", &pki.issue("localhost", Role::Switch, 3));
    let server = server(&pki, &SelectionSettings::default()).unwrap();
    std::fs::remove_file(pki.path("store/a.pem")).unwrap();
    let device = pki.issue("w701", Role::Device, 30);

    let reload = server.reload();
    let kept = meet(&server, &pki.client(&device, Role::Device), "localhost").await;
    pki.advance(4 * DAY);
    let ended = meet(&server, &pki.client(&device, Role::Device), "localhost").await;

    assert!(
        matches!(&reload, Reload::Kept { problems } if problems[0].contains("no server certificate; ") && !problems[0].contains("closed")),
        "{reload:?}"
    );
    assert!(kept.client.is_ok(), "{:?}", kept.client);
    assert_eq!(shown(&server), Some(old));
    assert!(ended.server.unwrap_err().contains("no server certificate"));
    let state = server.state();
    assert!(
        matches!(&state, State::Failed(why) if why.contains("the port is closed") && why.contains("expired")),
        "{state:?}"
    );
    put(&pki, "b", &pki.issue("localhost", Role::Switch, 60));
    assert_eq!(server.reload(), Reload::Swapped);
    let again = meet(&server, &pki.client(&device, Role::Device), "localhost").await;
    assert!(again.client.is_ok(), "{:?}", again.client);
}

#[tokio::test]
async fn s7_readiness_fails_when_the_last_certificate_ends_and_not_with_the_next_look_at_the_files() {
    let pki = Pki::new();
    let now = pki.clock().now().as_secs();
    pki.issue_server_until("localhost", UnixTime::since_unix_epoch(Duration::from_secs(now + 2)));
    std::fs::create_dir_all(pki.path("store")).unwrap();
    for file in ["server.pem", "server.key"] {
        std::fs::copy(pki.path(file), pki.path(&format!("store/{file}"))).unwrap();
    }
    let server = server(&pki, &SelectionSettings::default()).unwrap();
    let (shutdown, health) = (Shutdown::new(), Health::new());

    server.watch(&shutdown, &health, "credentials");

    // Much sooner than POLL_INTERVAL: that is for files.
    let failed = async {
        while health.snapshot().is_ready() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), failed).await.unwrap();
    assert_eq!(shutdown.drain(Duration::from_secs(10)).await, DrainOutcome::Drained);
}

#[test]
fn s4_a_revoked_server_certificate_is_replaced_by_another_of_the_folder() {
    let pki = Pki::new();
    // Below the CA whose CRL the lab writes.
    let chosen = pki.issue_under_devices("localhost", Role::Switch);
    put(&pki, "a", &chosen);
    let server = server(&pki, &SelectionSettings::default()).unwrap();
    let other = put(&pki, "b", &pki.issue("localhost", Role::Switch, 20));
    assert_eq!(shown(&server), Some(chosen.certificate.thumbprint()));

    pki.write_crl(&[&chosen], 2);
    assert_eq!(pki.revocation().reload(), Reload::Swapped);
    drop(server.reload());

    assert_eq!(shown(&server), Some(other));
}

#[test]
fn n2_s7_the_successor_of_a_pinned_server_certificate_is_found_after_a_restart_without_it() {
    let pki = Pki::new();
    let pinned = put(&pki, "a", &pki.issue("localhost", Role::Switch, 3));
    let mut better = pki.request("better", Role::Switch, 300);
    better.dns_names = vec!["localhost".to_owned(), FULL_NAME.to_owned()];
    put(&pki, "better", &pki.issue_as(&better));
    let pin = SelectionSettings { thumbprint: pinned.to_string(), ..SelectionSettings::default() };
    assert_eq!(shown(&server(&pki, &pin).unwrap()), Some(pinned));
    std::fs::remove_file(pki.path("store/a.pem")).unwrap();
    let successor = put(&pki, "c", &pki.issue("localhost", Role::Switch, 60));

    let again = server(&pki, &pin).unwrap();

    assert_eq!(shown(&again), Some(successor));
}

#[test]
fn s7_keys_with_a_password_open_with_the_one_of_its_file() {
    let pki = Pki::new();
    let issued = pki.issue("localhost", Role::Switch, 30);
    pki.write("plain.key", &issued.key_pem);
    pki.write("password", "open sesame\n");
    let key = folder(&pki).join("a.key");
    std::fs::write(key.with_extension("pem"), &issued.chain_pem).unwrap();
    let locked = Command::new("openssl")
        .args(["pkcs8", "-topk8", "-in"])
        .arg(pki.path("plain.key"))
        .arg("-passout")
        .arg(format!("file:{}", pki.path("password").display()))
        .arg("-out")
        .arg(&key)
        .output()
        .unwrap();
    assert!(locked.status.success(), "{locked:?}");
    let tls = |password_file| ServerTls {
        store: folder(&pki),
        server_name: FULL_NAME.to_owned(),
        password_file,
        ..ServerTls::default()
    };

    let without = server_of(&pki, tls(None).own(None));
    let with = server_of(&pki, tls(Some(pki.path("password"))).own(None));

    assert!(without.is_err());
    assert_eq!(shown(&with.unwrap()), Some(issued.certificate.thumbprint()));
}

fn put(pki: &Pki, name: &str, issued: &Issued) -> Thumbprint {
    let file = folder(pki).join(format!("{name}.pem"));
    std::fs::write(file, format!("{}{}", issued.chain_pem, issued.key_pem)).unwrap();
    issued.certificate.thumbprint()
}

fn folder(pki: &Pki) -> PathBuf {
    let folder = pki.path("store");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn own(pki: &Pki, selection: &SelectionSettings) -> Own {
    let tls = ServerTls {
        store: folder(pki),
        server_name: FULL_NAME.to_owned(),
        selection: selection.clone(),
        ..ServerTls::default()
    };
    assert_eq!(tls.findings(), Vec::new());
    tls.own(Some(pki.path("pinned.pem")))
}

fn server(pki: &Pki, selection: &SelectionSettings) -> Result<Arc<ServerCredentials>, CredentialError> {
    server_of(pki, own(pki, selection))
}

fn server_of(pki: &Pki, own: Own) -> Result<Arc<ServerCredentials>, CredentialError> {
    let roles = vec![(Role::Device, pki.path("devices.pem"))];
    credentials::server(own, roles, vec![b"muster/1".to_vec()], Role::Switch, pki.rules())
}

fn shown(server: &ServerCredentials) -> Option<Thumbprint> {
    server.own().map(|own| own.thumbprint())
}
