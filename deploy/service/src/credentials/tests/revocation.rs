//! Revocation from files: who is refused, from when on, and who is told.

use std::sync::Arc;

use muster_pki::authority::Issued;
use muster_pki::{Policy, RevocationMode, Role, TrailOf};

use super::meet;
use super::pki::{DAY, Pki};
use crate::credentials::{
    self, ClientCredentials, CredentialFiles, IssuerSettings, PathElement, Revocation, RevocationSettings,
    Rules, ServerCredentials,
};
use crate::health::State;

#[tokio::test]
async fn r3_a_reader_of_changes_gets_exactly_whom_a_new_crl_revokes() {
    let pki = Pki::new();
    let devices = ["w701", "w702", "w703"].map(|name| pki.issue(name, Role::Device, 30));
    let [first, second, third] = &devices;
    pki.write_crl(&[first], 2);
    let mut revocations = pki.revocation().revocations();

    pki.write_crl(&[first, second], 3);
    assert_eq!(pki.revocation().reload(), credentials::Reload::Swapped);
    let told = revocations.next().await.unwrap();
    pki.write_crl(&[first, second, third], 4);
    assert_eq!(pki.revocation().reload(), credentials::Reload::Swapped);
    pki.write_crl(&[first, second, third], 5);
    assert_eq!(pki.revocation().reload(), credentials::Reload::Swapped);
    let later = revocations.next().await.unwrap();

    assert_eq!(told, [PathElement::of(&second.certificate)]);
    assert_eq!(later, [PathElement::of(&third.certificate)], "two changes are read as one");
}

#[tokio::test]
async fn r8_a_revoked_issuing_ca_is_an_element_of_every_path_below_it() {
    let pki = Pki::new();
    let device = pki.issue("w701", Role::Device, 30);
    let server = pki.server();
    let peer = meet(&server, &pki.client(&device, Role::Device), "localhost").await.server.unwrap();
    let mut revocations = pki.revocation().revocations();
    assert!(!pki.revocation().is_any_revoked(&peer.path()));

    pki.write("devices.crl", &pki.root_crl_against_the_issuing_ca(1));
    assert_eq!(pki.revocation().reload(), credentials::Reload::Swapped);
    let told = revocations.next().await.unwrap();

    assert_eq!(told.len(), 1);
    assert!(peer.path().contains(&told[0]), "{told:?} is not above {}", peer.name());
    assert!(pki.revocation().is_any_revoked(&peer.path()));
    let refused = meet(&server, &pki.client(&device, Role::Device), "localhost").await.server.unwrap_err();
    assert!(refused.contains("R8"), "{refused}");
}

#[tokio::test]
async fn r6_hard_refuses_without_a_fresh_crl_and_grace_a_day_later_and_soft_never() {
    for (mode, at_once, in_grace, after_grace) in [
        (RevocationMode::Hard, false, false, false),
        (RevocationMode::Grace, true, true, false),
        (RevocationMode::Soft, true, true, true),
    ] {
        let pki = Pki::new();
        let revocation = strict(&pki, mode);
        let (server, client) = pair(&pki, &revocation);
        let accepts = async || meet(&server, &client, "localhost").await.server.is_ok();

        // The root has no CRL yet: hard refuses from the first moment on.
        assert_eq!(accepts().await, at_once, "{mode}, no CRL of the root");
        pki.write("root.crl", &pki.root_crl(1));
        assert_eq!(revocation.reload(), credentials::Reload::Swapped);
        assert!(accepts().await, "{mode}, all CRLs are fresh");
        assert_eq!(revocation.state(), State::Ready);

        pki.advance(7 * DAY + 60);
        assert_eq!(accepts().await, in_grace, "{mode}, a minute after nextUpdate");
        pki.advance(DAY);
        assert_eq!(accepts().await, after_grace, "{mode}, a day after nextUpdate");
        assert!(
            matches!(revocation.state(), State::Degraded(why) if why.contains("Device CA") && why.contains(&mode.to_string()))
        );

        pki.write_crl(&[], 9);
        pki.write("root.crl", &pki.root_crl(2));
        assert_eq!(revocation.reload(), credentials::Reload::Swapped);
        assert!(accepts().await, "{mode}, fresh again");
    }
}

#[tokio::test]
async fn r6_the_day_of_an_issuer_without_a_crl_goes_on_over_a_restart() {
    let pki = Pki::new();
    std::fs::remove_file(pki.path("devices.crl")).unwrap();
    let load = || {
        let mut files = pki.revocation_files();
        files.crls.clear();
        let settings = RevocationSettings { fetch: false, ..RevocationSettings::default() };
        let revocation = Revocation::load(files, settings, pki.clock()).unwrap();
        // As the task that follows the files does, which keeps what there is to keep.
        assert_eq!(revocation.reload(), credentials::Reload::Unchanged);
        revocation
    };
    let revocation = load();
    let (server, client) = pair(&pki, &revocation);
    meet(&server, &client, "localhost").await.server.unwrap();
    assert_eq!(revocation.reload(), credentials::Reload::Swapped, "the issuing CA is taken up");
    pki.advance(DAY - 60);
    let (server, client) = pair(&pki, &load());
    meet(&server, &client, "localhost").await.server.unwrap();

    pki.advance(120);

    let refused = meet(&server, &client, "localhost").await.server.unwrap_err();
    assert!(refused.contains("R6"), "the verdict that was remembered ends with the grace: {refused}");
    let (server, client) = pair(&pki, &load());
    let refused = meet(&server, &client, "localhost").await.server.unwrap_err();
    assert!(refused.contains("R6"), "a restart does not begin the day anew: {refused}");
}

#[tokio::test]
async fn r5_a_crl_of_a_ca_that_no_root_vouches_for_is_refused_though_its_certificate_stands_beside_it() {
    let pki = Pki::new();
    let device = pki.issue("w701", Role::Device, 30);
    let revocation = pki.revocation();

    pki.write("devices.crl", &pki.forged_crl(&[&device]));
    let reload = revocation.reload();

    assert!(matches!(&reload, credentials::Reload::Kept { .. }), "{reload:?}");
    let peer = meet(&pki.server(), &pki.client(&device, Role::Device), "localhost").await.server.unwrap();
    assert!(!revocation.is_any_revoked(&peer.path()));
}

#[tokio::test]
async fn c2_a_configured_issuing_ca_completes_the_path_of_a_peer_that_does_not_send_it() {
    let pki = Pki::new();
    let device = pki.issue("w701", Role::Device, 30);
    let alone = Issued { chain_pem: device.certificate.pem(), ..device };
    let client = pki.client(&alone, Role::Device);
    let without = meet(&pki.server(), &client, "localhost").await.server.unwrap_err();
    let revocation = strict(&pki, RevocationMode::Soft);

    let (server, _) = pair(&pki, &revocation);

    assert!(without.contains("C2"), "{without}");
    meet(&server, &client, "localhost").await.server.unwrap();
}

/// Revocation in one mode, with CRL files of the devices' issuing CA and of their root; the latter holds nothing yet.
fn strict(pki: &Pki, mode: RevocationMode) -> Arc<Revocation> {
    let mut files = pki.revocation_files();
    // Only the devices' roots: the others have no CRLs.
    files.roots.truncate(1);
    files.crls.push(pki.path("root.crl"));
    pki.write("root.crl", &pki.crl(&[], 1));
    let issuing = IssuerSettings { certificates: pki.write_issuing_ca(), ..IssuerSettings::default() };
    let settings =
        RevocationSettings { mode, fetch: false, issuers: vec![issuing], ..RevocationSettings::default() };
    Revocation::load(files, settings, pki.clock()).unwrap()
}

/// A server that judges by `revocation`, and a device that does not.
fn pair(pki: &Pki, revocation: &Arc<Revocation>) -> (Arc<ServerCredentials>, Arc<ClientCredentials>) {
    pair_of(pki, revocation, &pki.issue("w701", Role::Device, 30))
}

/// A server that looks revocation up there, and a device that shows `issued`.
pub(super) fn pair_of(
    pki: &Pki,
    revocation: &Arc<Revocation>,
    issued: &Issued,
) -> (Arc<ServerCredentials>, Arc<ClientCredentials>) {
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
    let alpn = vec![b"muster/1".to_vec()];
    let server = credentials::server(own, roles, alpn.clone(), Role::Switch, rules).unwrap();
    let files = pki.write_pair("device", issued);
    let lenient = Rules::lenient(pki.clock());
    let roots = credentials::Servers::Roots(pki.path("servers.pem"));
    let client =
        credentials::client(credentials::Own::Files(files), roots, alpn, Role::Device, lenient).unwrap();
    (server, client)
}
