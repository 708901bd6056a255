//! A folder of certificates under a running service.

use std::path::PathBuf;
use std::sync::Arc;

use muster_pki::Role;
use muster_pki::authority::{Issued, Request};
use muster_pki::select::{Purpose, Selection, SelectionSettings, Wanted};

use super::meet;
use super::pki::{DAY, Pki};
use crate::credentials::store::STORE_FILES_MAX;
use crate::credentials::{
    self, CertificateStore, ClientCredentials, OneDevice, Own, Reload, Rules, StoreSettings,
};
use crate::health::State;

#[tokio::test]
async fn n1_a_successor_that_is_put_into_the_folder_is_shown_and_a_better_one_is_not() {
    let pki = Pki::new();
    let first = pki.issue("w701", Role::Device, 30);
    put(&pki, "a", &first);
    let (server, client) = (pki.server(), store(&pki, SelectionSettings::default()));
    assert_eq!(shown(&client), Some(first.certificate.thumbprint()));

    // S1 would prefer the longer one of another subject; S4 keeps what was chosen.
    put(&pki, "b", &pki.issue("w702", Role::Device, 300));
    assert_eq!(client.reload(), Reload::Swapped);
    assert_eq!(shown(&client), Some(first.certificate.thumbprint()));
    let renewed = pki.issue("w701", Role::Device, 60);
    put(&pki, "c", &renewed);
    assert_eq!(client.reload(), Reload::Swapped);

    assert_eq!(shown(&client), Some(renewed.certificate.thumbprint()));
    let peer = meet(&server, &client, "localhost").await.server.unwrap();
    assert_eq!(peer.certificate().thumbprint(), renewed.certificate.thumbprint());
}

#[test]
fn s3_without_a_certificate_of_the_issuer_there_is_none_and_health_says_why_and_a_later_one_is_taken() {
    let pki = Pki::new();
    put(&pki, "a", &pki.issue("w701", Role::Device, 30));
    let wanted =
        SelectionSettings { cert_issuer: "Operator Root".to_owned(), ..SelectionSettings::default() };

    let client = store(&pki, wanted);

    assert_eq!(shown(&client), None);
    let state = client.state();
    assert!(matches!(&state, State::Degraded(why) if why.contains("0x209A")), "{state:?}");
    let right = pki.issue("w701", Role::Operator, 30);
    put(&pki, "b", &right);
    assert_eq!(client.reload(), Reload::Swapped);
    assert_eq!(shown(&client), Some(right.certificate.thumbprint()));
    assert_eq!(
        client.state(),
        State::Degraded("certificate CN=w701 expires in 30 days; renew it".to_owned())
    );
}

#[tokio::test]
async fn s6_without_a_certificate_nobody_is_called_and_the_reason_is_each_ones() {
    let pki = Pki::new();
    let mut request = pki.request("w701", Role::Device, 30);
    request.crl_url = None;
    let client = store(&pki, SelectionSettings::default());
    let empty = dial_nobody(&client).await;

    // Every server would refuse it.
    put(&pki, "a", &pki.issue_as(&request));
    drop(client.reload());
    let unfit = dial_nobody(&client).await;
    let again = store(&pki, SelectionSettings::default());

    assert!(empty.contains("0x209A") && empty.contains("the store is empty"), "{empty}");
    assert!(unfit.contains("C6"), "{unfit}");
    assert!(again.lacks_own() && dial_nobody(&again).await.contains("C6"), "a start waits as well");
    put(&pki, "b", &pki.issue("w701", Role::Device, 60));
    assert_eq!(again.reload(), Reload::Swapped);
    assert!(!again.lacks_own());
}

#[test]
fn s2_a_certificate_that_every_server_would_refuse_takes_no_good_ones_place_at_a_start_and_as_a_successor() {
    let pki = Pki::new();
    let good = pki.issue("w701", Role::Device, 30);
    put(&pki, "good", &good);
    put(&pki, "no distribution point", &without_distribution_point(&pki, "w701", 60));

    // S1 would prefer the one that is valid longest.
    let client = store(&pki, SelectionSettings::default());
    let at_start = shown(&client);
    // N2 would follow the one that is valid longer still.
    put(&pki, "successor", &without_distribution_point(&pki, "w701", 300));
    drop(client.reload());
    let after = shown(&client);
    let renewed = pki.issue("w701", Role::Device, 90);
    put(&pki, "renewed", &renewed);
    let reload = client.reload();

    let good = Some(good.certificate.thumbprint());
    assert_eq!((at_start, after), (good, good));
    assert_eq!((reload, shown(&client)), (Reload::Swapped, Some(renewed.certificate.thumbprint())));
}

#[test]
fn c14_where_no_certificate_fits_each_ones_reason_is_told() {
    let pki = Pki::new();
    put(&pki, "a", &without_distribution_point(&pki, "w701", 60));
    put(&pki, "b", &pki.issue("w701", Role::Switch, 60));

    let client = store(&pki, SelectionSettings::default());

    let State::Degraded(why) = client.state() else { panic!("{:?}", client.state()) };
    for part in ["a.pem", "C6 no CRL distribution point: add the CDP", "b.pem", "C3 no clientAuth"] {
        assert!(why.contains(part), "{part:?} in {why}");
    }
}

#[test]
fn n4_a_store_that_holds_only_another_devices_certificate_has_none_for_this_one() {
    let pki = Pki::new();
    put(&pki, "a", &pki.issue("w701", Role::Device, 30));
    let client = store(&pki, SelectionSettings::default());
    put(&pki, "b", &pki.issue("w702", Role::Device, 300));

    std::fs::remove_file(pki.path("store/a.pem")).unwrap();
    drop(client.reload());
    let State::Degraded(why) = client.state() else { panic!("{:?}", client.state()) };
    let missing = shown(&client);
    let renewed = pki.issue("w701", Role::Device, 60);
    put(&pki, "c", &renewed);
    drop(client.reload());

    assert_eq!(missing, None);
    assert!(why.contains("b.pem") && why.contains("the device w702, and this one is w701"), "{why}");
    assert_eq!(shown(&client), Some(renewed.certificate.thumbprint()));
}

#[test]
fn n4_the_name_that_is_configured_decides_whose_certificate_of_a_store_is_taken() {
    let pki = Pki::new();
    let own = pki.issue("w701", Role::Device, 30);
    put(&pki, "a", &own);
    put(&pki, "b", &pki.issue("w702.acme.local", Role::Device, 300));
    let rules = Rules { device: OneDevice::named("W701"), ..pki.rules() };

    let client = store_by(&pki, SelectionSettings::default(), rules);

    assert_eq!(shown(&client), Some(own.certificate.thumbprint()));
}

#[test]
fn c9_a_certificate_without_its_ca_that_begins_later_is_told_by_its_time_alone() {
    let pki = Pki::new();
    let begins = muster_pki::UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        pki.clock().now().as_secs() + DAY,
    ));
    let issued = pki.issue_as(&Request { not_before: begins, ..pki.request("w701", Role::Device, 30) });
    std::fs::write(folder(&pki).join("a.pem"), issued.certificate.pem() + &issued.key_pem).unwrap();

    let client = store(&pki, SelectionSettings::default());

    let told = client.problem().unwrap_or_default();
    assert!(told.contains("unfit: C9 not valid before") && !told.contains("C2"), "{told}");
    pki.advance(2 * DAY);
    drop(client.reload());
    assert_eq!(shown(&client), Some(issued.certificate.thumbprint()));
}

#[test]
fn s4_the_choice_goes_when_it_expires_though_no_file_changed() {
    let pki = Pki::new();
    let (short, long) = (pki.issue("w701", Role::Device, 3), pki.issue("w701", Role::Device, 2));
    put(&pki, "a", &short);
    put(&pki, "b", &long);
    let client = store(&pki, SelectionSettings::default());
    assert_eq!(shown(&client), Some(short.certificate.thumbprint()));
    std::fs::remove_file(pki.path("store/a.pem")).unwrap();
    assert_eq!(client.reload(), Reload::Swapped);
    assert_eq!(shown(&client), Some(long.certificate.thumbprint()));

    pki.advance(3 * DAY);
    assert_eq!(client.reload(), Reload::Unchanged);

    assert_eq!(shown(&client), None, "an expired certificate is shown to nobody");
}

#[test]
fn n2_the_successor_of_a_pinned_certificate_is_found_after_a_restart_without_it() {
    let pki = Pki::new();
    let pinned = pki.issue("w701", Role::Device, 3);
    put(&pki, "a", &pinned);
    put(&pki, "z", &pki.issue("w999", Role::Device, 300));
    let settings = SelectionSettings {
        thumbprint: pinned.certificate.thumbprint().to_string(),
        ..SelectionSettings::default()
    };
    assert_eq!(shown(&store(&pki, settings.clone())), Some(pinned.certificate.thumbprint()));
    std::fs::remove_file(pki.path("store/a.pem")).unwrap();
    let successor = pki.issue("w701", Role::Device, 60);
    put(&pki, "b", &successor);

    let client = store(&pki, settings);

    assert_eq!(shown(&client), Some(successor.certificate.thumbprint()));
}

#[test]
fn a_bad_file_of_the_folder_is_named_and_hides_no_other() {
    let pki = Pki::new();
    let good = pki.issue("w701", Role::Device, 30);
    put(&pki, "b", &good);
    std::fs::write(pki.path("store/a.pfx"), b"no PFX").unwrap();
    std::fs::write(pki.path("store/.c.pem"), "half written").unwrap();
    let alone = pki.issue("w702", Role::Device, 300);
    std::fs::write(pki.path("store/d.pem"), &alone.chain_pem).unwrap();

    let settings = settings(&pki, SelectionSettings::default());
    let outcome = CertificateStore::new(settings).look(&pki.rules()).unwrap();

    let choice = outcome.choice().unwrap();
    assert_eq!(choice.certificate().thumbprint(), good.certificate.thumbprint());
    let report = format!("{:#}", choice.report());
    assert!(report.contains("a.pfx") && report.contains("d.pem"), "{report}");
    assert!(!report.contains(".c.pem"), "{report}");
}

#[test]
fn a_folder_with_more_files_than_anybody_has_certificates_is_refused_by_its_bound() {
    let pki = Pki::new();
    put(&pki, "a", &pki.issue("w701", Role::Device, 30));
    let settings = settings(&pki, SelectionSettings::default());
    let look = || CertificateStore::new(settings.clone()).look(&pki.rules());
    for number in 1..STORE_FILES_MAX {
        std::fs::write(pki.path(&format!("store/{number}.pem")), b"junk").unwrap();
    }
    assert!(look().unwrap().choice().is_some());

    std::fs::write(pki.path("store/one.pem"), b"too many").unwrap();

    let error = look().unwrap_err().to_string();
    assert!(error.contains(&STORE_FILES_MAX.to_string()), "{error}");
}

/// Longer than anything takes.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

fn folder(pki: &Pki) -> PathBuf {
    let folder = pki.path("store");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Writes certificate, CAs and key as one PEM file.
fn put(pki: &Pki, name: &str, issued: &Issued) {
    let file = folder(pki).join(format!("{name}.pem"));
    std::fs::write(file, format!("{}{}", issued.chain_pem, issued.key_pem)).unwrap();
}

fn without_distribution_point(pki: &Pki, name: &str, days: u64) -> Issued {
    let request = Request { crl_url: None, ..pki.request(name, Role::Device, days) };
    pki.issue_as(&request)
}

fn settings(pki: &Pki, selection: SelectionSettings) -> StoreSettings {
    StoreSettings {
        folder: folder(pki),
        password_file: None,
        selection: Selection::try_from(selection).unwrap(),
        wanted: Wanted::Client(Purpose::Switch),
        remembered: Some(pki.path("pinned.pem")),
    }
}

fn store(pki: &Pki, selection: SelectionSettings) -> Arc<ClientCredentials> {
    store_by(pki, selection, pki.rules())
}

fn store_by(pki: &Pki, selection: SelectionSettings, rules: Rules) -> Arc<ClientCredentials> {
    let store = CertificateStore::new(settings(pki, selection));
    let alpn = vec![b"muster/1".to_vec()];
    credentials::client(
        Own::Store(Arc::new(store)),
        credentials::Servers::Roots(pki.path("servers.pem")),
        alpn,
        Role::Device,
        rules,
    )
    .unwrap()
}

/// Calls a listener that must not see a connection; returns why not.
async fn dial_nobody(client: &Arc<ClientCredentials>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = credentials::Address::new("localhost", listener.local_addr().unwrap().port()).unwrap();
    let deadlines = credentials::Deadlines { connect: PATIENCE, tls: PATIENCE };
    let error = credentials::dial(client, &address, deadlines).await.unwrap_err();
    assert!(matches!(error, credentials::DialError::NoCertificate { .. }), "{error}");
    error.to_string()
}

fn shown(client: &Arc<ClientCredentials>) -> Option<muster_pki::Thumbprint> {
    client.own().map(|own| own.thumbprint())
}
