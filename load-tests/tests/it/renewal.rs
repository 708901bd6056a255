//! Certificates that are renewed beneath a thousand sessions: nobody is lost but whom the hand-over names (N1, N4).

use std::path::Path;
use std::time::Duration;

use muster_load_tests::tls::{self, Identity};
use muster_pki::authority::Authority;
use muster_pki::{Certificate, Role, UnixTime};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{PATIENCE, Place, Sessions, shown, wait_for, wait_until};

const SESSIONS: usize = 1_000;
/// Devices that have their certificate of the new root before the old one goes.
const RENEWED: usize = 100;
/// Devices whose certificates expire while they have a session, and how many of them are renewed before.
const EXPIRING: usize = 100;
const RENEWED_IN_TIME: usize = 50;
/// How long those are valid: time enough to connect and to renew them on a slow machine.
const SHORT: Duration = Duration::from_secs(20);
/// How long sessions are watched after each renewal.
const WATCHED: Duration = Duration::from_secs(2);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const DEVICE: &str = "web1.example.org";
const CDP: &str = "http://pki.localhost/devices.crl";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n1_switch_leaf_issuing_ca_and_root_are_renewed_under_a_thousand_sessions() {
    let place = Place::with_pki(&[]);
    place.switch_config("");
    let mut switch = place.start_switch();
    let mut sessions = Sessions::new(&format!("127.0.0.1:{}", place.ports.sessions), &place.home());
    let old = tls::issue_devices(&place.home(), &names("old", SESSIONS)).unwrap();
    sessions.connect(&old).await;

    the_switch_shows_its_new_leaf(&place, &mut sessions).await;
    devices_of_two_issuing_cas_connect(&place, &mut sessions).await;
    let (new_root, renewed) = the_bundle_is_extended(&place, &mut sessions).await;
    the_old_root_goes(&place, &mut sessions, &new_root, &old, &renewed).await;

    assert!(switch.runs());
}

/// N1: new handshakes get the new certificate, and nobody is dropped.
async fn the_switch_shows_its_new_leaf(place: &Place, sessions: &mut Sessions) {
    let probes = tls::issue_devices(&place.home(), &names("leaf", 2)).unwrap();
    let before = sessions.shown(&probes[0]).await;
    assert_eq!(before, leaf(&place.path("certs/localhost.pem")));

    place.issue(&["localhost", "--role", "switch", "--ip", "127.0.0.1"]);

    let renewed = leaf(&place.path("certs/localhost.pem"));
    assert_ne!(before, renewed);
    let waiting = async {
        while sessions.shown(&probes[0]).await != renewed {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("new handshakes get the new certificate");
    sessions.connect(&probes).await;
    assert_eq!(sessions.losses(WATCHED).await, [], "sessions from before the renewal");
}

/// A second issuing CA under the same root: devices of both connect.
async fn devices_of_two_issuing_cas_connect(place: &Place, sessions: &mut Sessions) {
    let root = authority(&place.home().join("pki/devices"), "root");
    let issuing = root.issue_authority("issuing CA of next year", YEAR, UnixTime::now()).unwrap();

    let next = tls::issue_below(&issuing, Role::Device, &names("next", 10), CDP).unwrap();
    sessions.connect(&next).await;
    let same = tls::issue_devices(&place.home(), &names("same", 10)).unwrap();
    sessions.connect(&same).await;

    assert_eq!(sessions.losses(WATCHED).await, [], "sessions of the issuing CA before");
}

/// Both roots stand in the bundle for a while: devices of both connect, and those who are connected stay.
async fn the_bundle_is_extended(place: &Place, sessions: &mut Sessions) -> (Authority, Vec<Identity>) {
    let root = Authority::root("devices root of next year", YEAR, UnixTime::now()).unwrap();
    let issuing = root.issue_authority("devices CA of next year", YEAR, UnixTime::now()).unwrap();
    let renewed = tls::issue_below(&issuing, Role::Device, &names("renewed", RENEWED), CDP).unwrap();
    let refused = sessions.try_connect(&renewed[0]).await;
    assert!(refused.is_err(), "nobody knows the new root yet");

    let bundle = place.home().join("trust/devices.pem");
    let both = std::fs::read_to_string(&bundle).unwrap() + &root.certificate_pem();
    replace(&bundle, &both);

    let waiting = async {
        while sessions.try_connect(&renewed[0]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the new root is in use");
    sessions.connect(&renewed[1..]).await;
    assert_eq!(sessions.losses(WATCHED).await, [], "sessions under the old root");
    (root, renewed)
}

/// A root that is taken out ends the sessions below it, each with the reason, and no other: hand over first. Their devices
/// come back with a certificate of the new root.
async fn the_old_root_goes(
    place: &Place,
    sessions: &mut Sessions,
    root: &Authority,
    old: &[Identity],
    renewed: &[Identity],
) {
    let below_the_old = sessions.standing() - renewed.len();
    assert!(below_the_old >= SESSIONS, "{below_the_old}");

    replace(&place.home().join("trust/devices.pem"), &root.certificate_pem());

    let lost = sessions.next_losses(below_the_old).await;
    let wrong: Vec<_> = lost
        .iter()
        .filter(|lost| {
            lost.device.starts_with("renewed-")
                || !lost.problem.contains("Revoked")
                || !lost.problem.contains("C2")
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}: {:?}", wrong.len(), lost.len(), wrong.first());
    assert_eq!(sessions.losses(WATCHED).await, [], "sessions of devices that were renewed in time");
    assert_eq!(sessions.standing(), renewed.len());
    assert!(sessions.try_connect(&old[0]).await.is_err(), "its root is gone");

    let issuing = root.issue_authority("devices CA of next year", YEAR, UnixTime::now()).unwrap();
    let back = tls::issue_below(&issuing, Role::Device, &names("old", SESSIONS), CDP).unwrap();
    sessions.connect(&back).await;
    assert_eq!(sessions.losses(WATCHED).await, []);
    assert_eq!(sessions.standing(), renewed.len() + SESSIONS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c9_certificates_that_expire_in_mid_session_end_their_sessions_and_no_other_of_a_thousand() {
    let place = Place::with_pki(&[]);
    place.switch_config("");
    let mut switch = place.start_switch();
    let mut sessions = Sessions::new(&format!("127.0.0.1:{}", place.ports.sessions), &place.home());
    sessions.connect(&tls::issue_devices(&place.home(), &names("long", SESSIONS)).unwrap()).await;
    let issuing = authority(&place.home().join("pki/devices"), "issuing");
    let devices = names("short", EXPIRING);

    let short = tls::issue_for(&issuing, Role::Device, &devices, CDP, SHORT).unwrap();
    let ends = not_after(&short[0]).as_secs();
    sessions.connect(&short).await;
    let renewed = tls::issue_devices(&place.home(), &devices[..RENEWED_IN_TIME]).unwrap();
    sessions.connect(&renewed).await;
    // The sessions of before: each gave way to its device's next.
    let given_way = sessions.next_losses(RENEWED_IN_TIME).await;
    assert!(UnixTime::now().as_secs() < ends, "too slow to see a certificate expire in mid-session");
    assert!(given_way.iter().all(|lost| lost.problem.contains("Superseded")), "{:?}", given_way[0]);

    let expired = sessions.next_losses(EXPIRING - RENEWED_IN_TIME).await;

    assert!(UnixTime::now().as_secs() >= ends, "they end with their certificates and not before");
    let late = &devices[RENEWED_IN_TIME..];
    for lost in &expired {
        assert!(lost.problem.contains("CertificateExpired") && late.contains(&lost.device), "{lost:?}");
    }
    assert_eq!(sessions.losses(WATCHED).await, [], "sessions whose certificates have not expired");
    assert_eq!(sessions.standing(), SESSIONS + RENEWED_IN_TIME);
    assert!(switch.runs());
}

#[test]
fn n4_a_client_uses_its_renewed_certificate_without_a_restart_and_stays_the_same_device() {
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config("");
    place.client_config(DEVICE);
    place.add_context();
    let switch = place.start_switch();
    let mut client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    let before = listed(&place);
    let epoch = place.status(DEVICE).unwrap()["epoch"].clone();

    place.issue(&[DEVICE]);

    let file = place.path("certs/web1.example.org.pem");
    let renewed = Certificate::from_der(&leaf(&file)).unwrap().thumbprint().to_string();
    assert_ne!(before["thumbprint"], Value::from(renewed.clone()));
    wait_until("the client to have read its new certificate", || {
        client.log().contains("renewed files are in use")
    });
    let status = place.status(DEVICE).unwrap();
    assert_eq!((&status["connected"], &status["epoch"]), (&Value::from(true), &epoch), "its session stays");
    // The next handshake.
    switch.stop();
    let _switch = place.start_switch();
    let after = wait_for("the client to come with its new certificate", || {
        let now = listed(&place);
        (now["online"] == true && now["thumbprint"] == renewed.as_str()).then_some(now)
    });
    assert_eq!(after["device"], before["device"]);
    assert_eq!(after["first_seen"], before["first_seen"], "the same device as before");
    assert!(client.runs(), "it was not restarted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n1_the_background_channel_shows_its_renewed_leaf_and_keeps_its_connections() {
    let place = Place::with_pki(&[DEVICE]);
    place.background_config();
    let mut background = place.start_background();
    let address = format!("127.0.0.1:{}", place.ports.background);
    let identity = tls::issue_devices(&place.home(), &[DEVICE.to_owned()]).unwrap().swap_remove(0);
    let mut connection = connect(&address, &place.home(), &identity).await;
    let first = ask(&mut connection).await;
    let before = shown(&address, &place.home(), &identity).await;

    place.issue(&["localhost", "--role", "switch", "--ip", "127.0.0.1"]);

    let renewed = leaf(&place.path("certs/localhost.pem"));
    assert_ne!(before, renewed);
    let waiting = async {
        while shown(&address, &place.home(), &identity).await != renewed {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("new handshakes get the new certificate");
    assert_eq!(ask(&mut connection).await, first, "the connection from before goes on");
    assert!(background.runs());
}

/// The one device that the Switch knows.
fn listed(place: &Place) -> Value {
    let listed = place.muster(["client", "list", "-o", "json"]).with_code(0).json();
    let devices = listed.as_array().unwrap();
    assert_eq!(devices.len(), 1, "{listed}");
    devices[0].clone()
}

async fn connect(address: &str, home: &Path, identity: &Identity) -> TlsStream<TcpStream> {
    let config = tls::client(&tls::server_roots(home).unwrap(), identity, &[b"http/1.1"]).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(config).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
}

/// Asks for what is not there, over a connection that is kept, and gives the status line.
async fn ask(connection: &mut TlsStream<TcpStream>) -> String {
    let request = "HEAD /Background/v1/nothing HTTP/1.1\r\nhost: localhost\r\n\r\n";
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer");
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 "), "{head}");
    head.lines().next().unwrap().to_owned()
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

fn authority(folder: &Path, name: &str) -> Authority {
    let read = |kind: &str| std::fs::read_to_string(folder.join(format!("{name}.{kind}"))).unwrap();
    Authority::from_pem(&read("pem"), &read("key")).unwrap()
}

fn leaf(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

fn not_after(identity: &Identity) -> UnixTime {
    let leaf = CertificateDer::from_pem_slice(identity.chain_pem.as_bytes()).unwrap();
    Certificate::from_der(&leaf).unwrap().not_after()
}

/// As an administrator should: beside it, then renamed.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}
