//! Who is let in, and what the others are told.

use muster_pki::Role;
use rustls::HandshakeKind;

use super::pki::{DAY, Pki};
use super::{meet, meet_with};
use crate::credentials::{self, CredentialError};

#[tokio::test]
async fn admits_a_device_and_knows_its_name() {
    let pki = Pki::new();
    let client = pki.client(&pki.issue("w701.acme.local", Role::Device, 30), Role::Device);

    let met = meet(&pki.server(), &client, "localhost").await;

    let peer = met.server.unwrap();
    assert_eq!(met.client, Ok(HandshakeKind::Full));
    assert_eq!(peer.role(), Role::Device);
    assert_eq!(peer.device_id().unwrap().as_str(), "w701.acme.local");
}

#[tokio::test]
async fn the_role_is_that_of_the_roots() {
    let pki = Pki::new();
    let client = pki.client(&pki.issue("alice", Role::Operator, 30), Role::Operator);

    let peer = meet(&pki.server(), &client, "localhost").await.server.unwrap();

    assert_eq!(peer.role(), Role::Operator);
    assert_eq!(peer.name(), "alice");
    assert_eq!(peer.device_id(), None);
}

#[tokio::test]
async fn a_peer_in_another_role_is_refused_where_one_role_is_wanted() {
    let pki = Pki::new();
    let server = pki.server();
    let device = pki.issue("w701", Role::Device, 30);
    let chain = muster_pki::pem::certificates(device.chain_pem.as_bytes(), "device").unwrap();

    let refused = server.check_peer_role(Some(&chain), &[Role::Operator], pki.clock().now()).unwrap_err();

    assert!(refused.to_string().contains("got role device, wanted operator"), "{refused}");
}

#[tokio::test]
async fn c9_refuses_an_expired_device_with_the_rule() {
    let pki = Pki::new();
    let client = pki.client(&pki.issue("w701", Role::Device, 1), Role::Device);
    pki.advance(2 * DAY);

    let refused = meet(&pki.server(), &client, "localhost").await.server.unwrap_err();

    assert!(refused.contains("not accepted as device: certificate refused: C9"), "{refused}");
    assert!(refused.contains("C9"), "{refused}");
}

#[tokio::test]
async fn c3_refuses_a_wrong_extended_key_usage() {
    let pki = Pki::new();
    let client = pki.client(&pki.issue_under_devices("w701", Role::Switch), Role::Switch);

    let refused = meet(&pki.server(), &client, "localhost").await.server.unwrap_err();

    assert!(refused.contains("C3"), "{refused}");
    assert!(refused.contains("clientAuth"), "{refused}");
}

#[tokio::test]
async fn c2_refuses_a_device_of_an_unknown_root() {
    let pki = Pki::new();
    let client = pki.client(&Pki::new().issue("w701", Role::Device, 30), Role::Device);

    let met = meet_with(&pki.server(), client.config(), "localhost").await;

    let refused = met.server.unwrap_err();
    assert!(refused.contains("C2"), "{refused}");
    assert!(met.client.is_err());
}

#[tokio::test]
async fn c1_refuses_a_client_without_a_certificate() {
    let pki = Pki::new();
    let alpn = vec![b"muster/1".to_vec()];
    let client = credentials::client(
        credentials::Own::None,
        credentials::Servers::Roots(pki.path("servers.pem")),
        alpn,
        Role::Device,
        pki.rules(),
    )
    .unwrap();

    let met = meet(&pki.server(), &client, "localhost").await;

    assert!(met.server.is_err());
    assert!(met.client.is_err());
    assert_eq!(client.own(), None);
}

#[tokio::test]
async fn c7_a_client_refuses_a_server_of_another_name() {
    let pki = Pki::new();
    let client = pki.client(&pki.issue("w701", Role::Device, 30), Role::Device);

    let refused = meet(&pki.server(), &client, "switch.acme.local").await.client.unwrap_err();

    assert!(refused.contains("C7"), "{refused}");
    assert!(refused.contains("switch.acme.local"), "{refused}");
}

#[tokio::test]
async fn a_resumed_session_is_checked_again() {
    let pki = Pki::new();
    let server = pki.server();
    let device = pki.issue("w701", Role::Device, 30);
    let client = pki.client(&device, Role::Device);
    meet(&server, &client, "localhost").await.server.unwrap();
    let resumed = meet(&server, &client, "localhost").await;
    assert_eq!(resumed.client, Ok(HandshakeKind::Resumed));
    assert_eq!(resumed.server.unwrap().device_id().unwrap().as_str(), "w701");

    pki.write_crl(&[&device], 2);
    assert_eq!(pki.revocation().reload(), credentials::Reload::Swapped);
    let refused = meet(&server, &client, "localhost").await.server.unwrap_err();

    assert!(refused.contains("R2"), "{refused}");
}

#[tokio::test]
async fn a_resumed_session_ends_with_its_certificate() {
    let pki = Pki::new();
    let server = pki.server();
    let client = pki.client(&pki.issue("w701", Role::Device, 1), Role::Device);
    meet(&server, &client, "localhost").await.server.unwrap();
    pki.advance(DAY + 60);

    let refused = meet(&server, &client, "localhost").await.server.unwrap_err();

    assert!(refused.contains("C9"), "{refused}");
}

#[tokio::test]
async fn tls_1_2_works_and_resumes() {
    let pki = Pki::new();
    let server = pki.server();
    let client = pki.client(&pki.issue("w701", Role::Device, 30), Role::Device);
    let config = std::sync::Arc::new(only_tls12(&pki, &client));

    let full = meet_with(&server, config.clone(), "localhost").await;
    let resumed = meet_with(&server, config, "localhost").await;

    assert_eq!(full.client, Ok(HandshakeKind::Full));
    assert_eq!(resumed.client, Ok(HandshakeKind::Resumed));
    assert_eq!(resumed.server.unwrap().role(), Role::Device);
}

#[test]
fn overlapping_roots_name_both_files() {
    let pki = Pki::new();
    let both = std::fs::read_to_string(pki.path("operators.pem")).unwrap()
        + &std::fs::read_to_string(pki.path("devices.pem")).unwrap();
    pki.write("both.pem", &both);

    let error = pki
        .server_for(vec![(Role::Device, pki.path("devices.pem")), (Role::Operator, pki.path("both.pem"))])
        .unwrap_err();

    assert!(matches!(error, CredentialError::RootsOverlap { .. }), "{error}");
    assert!(error.to_string().contains("devices.pem"), "{error}");
    assert!(error.to_string().contains("both.pem"), "{error}");
}

#[test]
fn a_key_of_another_certificate_names_both_files() {
    let pki = Pki::new();
    pki.write("server.key", &pki.issue("other", Role::Switch, 30).key_pem);

    let error = pki.server_for(vec![(Role::Device, pki.path("devices.pem"))]).unwrap_err().to_string();

    assert!(error.contains("server.key"), "{error}");
    assert!(error.contains("server.pem"), "{error}");
}

#[test]
fn our_own_certificate_is_checked_before_use() {
    let pki = Pki::new();
    pki.write_pair("server", &pki.issue("w701", Role::Device, 30));

    let error = pki.server_for(vec![(Role::Device, pki.path("devices.pem"))]).unwrap_err().to_string();

    assert!(error.contains("our own certificate cannot serve as switch"), "{error}");
    assert!(error.contains("C3"), "{error}");
}

fn only_tls12(pki: &Pki, client: &credentials::ClientCredentials) -> rustls::ClientConfig {
    let modern = client.config();
    let path = pki.path("servers.pem");
    let bytes = std::fs::read(&path).unwrap();
    let roots = [(Role::Switch, path, bytes.as_slice())];
    let trust = credentials::trust::Trust::new(&roots, &[], None, &pki.rules()).unwrap();
    let verifier = credentials::verify::ServerVerifier(std::sync::Arc::new(trust));
    let mut config =
        rustls::ClientConfig::builder_with_details(credentials::provider(), std::sync::Arc::new(pki.clock()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(std::sync::Arc::new(verifier))
            .with_client_cert_resolver(modern.client_auth_cert_resolver.clone());
    config.alpn_protocols.clone_from(&modern.alpn_protocols);
    config
}
