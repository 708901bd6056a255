//! Devices without a certificate (C1): who is let in by a key, and who is not.

use std::net::SocketAddr;
use std::sync::Arc;

use muster_pki::device_key::{DEVICE_KEY_HEADER, DeviceKey, EXPORTER_BYTES, EXPORTER_LABEL};
use muster_pki::{DeviceId, Role};
use muster_proto::operator::v1::{
    BlockClientRequest, Client as Shown, GetClientRequest, GetStatusRequest, ListRefusedClientsRequest,
    RefusedClient, UnblockClientRequest,
};
use muster_proto::session::v1::CloseReason;
use muster_proto::session::{PATH, SUBPROTOCOL};
use muster_proto_grpc::operator::v1::client_service_client::ClientServiceClient;
use muster_proto_grpc::operator::v1::status_service_client::StatusServiceClient;
use muster_switch::ClientCertificate;
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tonic::transport::Channel;

use crate::client::{Client, Socket, dial};
use crate::operators::connect_as;
use crate::pki::{Ends, Pki};
use crate::strangers::ask;
use crate::world::{PATIENCE, SWITCH_NAME, Switch, World};

const DEVICE: &str = "w701.acme.local";

fn world(asks: ClientCertificate) -> World {
    let mut world = World::new();
    world.config.sessions.client_certificate = asks;
    world
}

fn key() -> DeviceKey {
    DeviceKey::generate().unwrap().0
}

async fn tls(address: SocketAddr, tls: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(tls).connect(SWITCH_NAME.try_into().unwrap(), stream).await
}

fn proof(key: &DeviceKey, stream: &TlsStream<TcpStream>) -> String {
    let tls = stream.get_ref().1;
    key.prove(&tls.export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None).unwrap())
}

/// Asks for a session with these proofs.
async fn upgrade(stream: TlsStream<TcpStream>, proofs: &[String]) -> Result<Socket, Error> {
    let mut request = format!("wss://{SWITCH_NAME}{PATH}").into_client_request()?;
    request.headers_mut().insert("Sec-WebSocket-Protocol", SUBPROTOCOL.parse().unwrap());
    for proof in proofs {
        request.headers_mut().append(DEVICE_KEY_HEADER, proof.parse().unwrap());
    }
    let upgrade = tokio_tungstenite::client_async(request, stream);
    Ok(tokio::time::timeout(PATIENCE, upgrade).await.unwrap()?.0)
}

async fn dial_by_key(switch: &Switch, config: Arc<ClientConfig>, key: &DeviceKey) -> Result<Socket, Error> {
    let stream = tls(switch.running.session_addr(), config).await?;
    let proof = proof(key, &stream);
    upgrade(stream, &[proof]).await
}

async fn session(switch: &Switch, config: Arc<ClientConfig>, key: &DeviceKey) -> Client {
    let mut client = Client::over(dial_by_key(switch, config, key).await.unwrap(), 1);
    client.until_welcome().await;
    client
}

fn refusal(refused: Result<Socket, Error>) -> (u16, String) {
    match refused {
        Err(Error::Http(answer)) => {
            let body = answer.body().clone().unwrap_or_default();
            (answer.status().as_u16(), String::from_utf8(body).unwrap())
        }
        other => panic!("wanted a refusal by HTTP: {other:?}"),
    }
}

async fn operator(world: &World, switch: &Switch) -> ClientServiceClient<Channel> {
    ClientServiceClient::new(connect_as(world, switch, Role::Operator, "alice.acme.local").await)
}

async fn shown(alice: &mut ClientServiceClient<Channel>, device: &DeviceId) -> Shown {
    let request = GetClientRequest { device: device.to_string() };
    alice.get_client(request).await.unwrap().into_inner().client.unwrap()
}

#[tokio::test]
async fn c1_a_device_is_let_in_by_its_key_and_shown_as_unauthenticated() {
    for asks in [ClientCertificate::Optional, ClientCertificate::None] {
        let world = world(asks);
        let switch = world.start().await;
        let mut alice = operator(&world, &switch).await;
        let key = key();

        let mut client = session(&switch, world.pki.tls(None, &[]), &key).await;

        let device = shown(&mut alice, key.device()).await;
        assert!(device.online && device.unauthenticated);
        assert_eq!((&device.thumbprint[..], device.certificate_not_after_ms), ("", 0));
        // Its session is what everybody's is; a second one of the same key takes over.
        let _second = session(&switch, world.pki.tls(None, &[]), &key).await;
        assert_eq!(client.until_sent_away().await.0, CloseReason::Superseded);
        switch.stop().await.unwrap();
    }
}

#[tokio::test]
async fn c1_with_optional_a_device_with_a_certificate_is_what_it_is_elsewhere() {
    let world = world(ClientCertificate::Optional);
    let switch = world.start().await;
    let mut alice = operator(&world, &switch).await;
    let certificate = world.pki.issue(Role::Device, DEVICE, Ends::InAYear);
    // One configuration, so that the second handshake resumes the first.
    let config = world.pki.tls(Some(&certificate), &[]);

    let (_client, _) = Client::connect(switch.running.session_addr(), config.clone(), 1).await;
    let device = shown(&mut alice, &DEVICE.parse().unwrap()).await;
    let resumed = tls(switch.running.session_addr(), config.clone()).await.unwrap();
    assert_eq!(resumed.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    let mut again = Client::over(upgrade(resumed, &[]).await.unwrap(), 1);
    again.until_welcome().await;

    assert!(!device.unauthenticated);
    assert_eq!(device.thumbprint, certificate.certificate.thumbprint().to_string());
    let (status, text) = refusal(dial_by_key(&switch, config, &key()).await);
    assert!(status == 403 && text.contains("beside a certificate"), "{status} {text}");
    assert!(shown(&mut alice, &DEVICE.parse().unwrap()).await.online);
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn c1_where_a_certificate_is_required_no_key_stands_in_for_it() {
    let world = World::new();
    let switch = world.start().await;

    let refused = dial_by_key(&switch, world.pki.tls(None, &[]), &key()).await;

    assert!(!matches!(refused, Ok(_) | Err(Error::Http(_))), "{refused:?}");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn c1_a_proof_is_worth_nothing_on_another_connection_resumed_or_not() {
    let world = world(ClientCertificate::Optional);
    let switch = world.start().await;
    let address = switch.running.session_addr();
    let (key, config) = (key(), world.pki.tls(None, &[]));
    let stream = tls(address, config.clone()).await.unwrap();
    let stolen = proof(&key, &stream);
    let mut client = Client::over(upgrade(stream, std::slice::from_ref(&stolen)).await.unwrap(), 1);
    client.until_welcome().await;

    let resumed = tls(address, config.clone()).await.unwrap();
    assert_eq!(resumed.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    let full = tls(address, world.pki.tls(None, &[])).await.unwrap();
    for stream in [resumed, full] {
        let (status, text) = refusal(upgrade(stream, std::slice::from_ref(&stolen)).await);
        assert!(status == 403 && text.contains("on this very connection"), "{status} {text}");
    }
    drop(dial_by_key(&switch, config, &key).await.unwrap());

    let mut alice = operator(&world, &switch).await;
    let refused = alice.list_refused_clients(ListRefusedClientsRequest { limit: 0 }).await.unwrap();
    let refused = refused.into_inner().refused;
    assert_eq!((refused.len(), refused[0].count, &refused[0].rules[..]), (1, 2, &["C1".to_owned()][..]));
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn c1_who_has_neither_certificate_nor_key_or_too_many_of_them_gets_no_session() {
    let world = world(ClientCertificate::Optional);
    let switch = world.start().await;
    let address = switch.running.session_addr();
    let (mine, theirs) = (key(), key());
    let open = || async { tls(address, world.pki.tls(None, &[])).await.unwrap() };
    let check = |refused, wanted: &str| {
        let (status, text) = refusal(refused);
        assert!(status == 403 && text.contains(wanted), "{wanted}: {status} {text}");
    };

    check(upgrade(open().await, &[]).await, "neither a certificate nor a device key");
    let stream = open().await;
    let proofs = [proof(&mine, &stream), proof(&theirs, &stream)];
    check(upgrade(stream, &proofs).await, "another key");
    for odd in ["", "AAAA", &"A".repeat(130), &"A".repeat(4000), &"%".repeat(130)] {
        check(upgrade(open().await, &[odd.to_owned()]).await, "no proof of version 1");
    }
    // The other's key, and a signature of one's own over this connection.
    let stream = open().await;
    let (one, other) = (proof(&mine, &stream), proof(&theirs, &stream));
    let spliced = format!("{}{}", &other[..44], &one[44..]);
    check(upgrade(stream, &[spliced]).await, "on this very connection");

    check(dial_by_key(&switch, over_tls12(&world), &mine).await, "wanted TLS 1.3");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn c14_who_shows_no_certificate_where_one_is_required_is_counted_and_listed_at_every_door() {
    let world = world(ClientCertificate::Required);
    let switch = world.start().await;

    for address in [switch.running.session_addr(), switch.running.operator_addr()] {
        let mut stream = tls(address, world.pki.tls(None, &[])).await.unwrap();
        // With TLS 1.3 the refusal comes after the handshake.
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.unwrap();
        assert!(ended.is_err(), "{ended:?}");
    }

    let refused = refused(&world, &switch).await;
    let mut doors: Vec<_> = refused.iter().map(|one| (&one.listener[..], &one.rules[0][..])).collect();
    doors.sort_unstable();
    assert_eq!(doors, [("operators", "C1"), ("sessions", "C1")], "{refused:?}");
    assert!(refused[0].findings[0].contains("showed no certificate"), "{refused:?}");
    switch.stop().await.unwrap();
}

async fn refused(world: &World, switch: &Switch) -> Vec<RefusedClient> {
    let mut alice = operator(world, switch).await;
    let request = ListRefusedClientsRequest { limit: 0 };
    alice.list_refused_clients(request).await.unwrap().into_inner().refused
}

fn over_tls12(world: &World) -> Arc<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let root = world.pki.roots(Role::Switch);
    for certificate in root.iter() {
        roots.add(certificate.der().to_vec().into()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(muster_service::credentials::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

#[tokio::test]
async fn c1_a_certificate_that_is_not_good_is_never_made_up_for_by_a_key() {
    let mut world = world(ClientCertificate::Optional);
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Pki::new(elsewhere.path()).issue(Role::Device, DEVICE, Ends::InAYear);
    let expired = world.pki.issue(Role::Device, DEVICE, Ends::Yesterday);
    let key = key();
    // One that a CA of ours gives for the name of a key.
    let impostor = world.pki.issue(Role::Device, key.device().as_str(), Ends::InAYear);
    let revoked = world.pki.issue(Role::Device, DEVICE, Ends::InAYear);
    world.config.crls = vec![world.pki.write_device_crl(&[&revoked], 1)];
    let switch = world.start().await;

    for certificate in [&foreign, &expired, &impostor, &revoked] {
        let config = world.pki.tls(Some(certificate), &[]);
        let refused = dial_by_key(&switch, config.clone(), &key).await;
        assert!(!matches!(refused, Ok(_) | Err(Error::Http(_))), "{refused:?}");
        assert!(dial(switch.running.session_addr(), config, PATH).await.is_err());
    }
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn c1_a_session_resumed_from_one_with_a_certificate_since_revoked_is_refused_key_or_not() {
    let mut world = world(ClientCertificate::Optional);
    let certificate = world.pki.issue(Role::Device, DEVICE, Ends::InAYear);
    world.config.crls = vec![world.pki.write_device_crl(&[], 1)];
    let switch = world.start().await;
    let config = world.pki.tls(Some(&certificate), &[]);
    let (mut client, _) = Client::connect(switch.running.session_addr(), config.clone(), 1).await;
    // A ticket or two more.
    drop(dial(switch.running.session_addr(), config.clone(), PATH).await.unwrap());

    world.pki.write_device_crl(&[&certificate], 2);
    assert_eq!(client.until_sent_away().await.0, CloseReason::Revoked);

    let stream = tls(switch.running.session_addr(), config).await.unwrap();
    assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    let proof = proof(&key(), &stream);
    let (status, text) = refusal(upgrade(stream, &[proof]).await);
    assert!(status == 403 && text.contains("R2"), "{status} {text}");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn c1_with_none_a_certificate_is_not_asked_for_and_lets_nobody_in() {
    let world = world(ClientCertificate::None);
    let certificate = world.pki.issue(Role::Device, DEVICE, Ends::InAYear);
    let switch = world.start().await;
    let config = world.pki.tls(Some(&certificate), &[]);

    let (status, text) = refusal(dial(switch.running.session_addr(), config.clone(), PATH).await);
    let key = key();
    let _client = session(&switch, config, &key).await;

    assert!(status == 403 && text.contains("neither a certificate"), "{status} {text}");
    let mut alice = operator(&world, &switch).await;
    assert!(shown(&mut alice, key.device()).await.unauthenticated);
    let named = alice.get_client(GetClientRequest { device: DEVICE.to_owned() }).await;
    assert!(named.is_err());
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn c1_a_device_without_a_certificate_can_be_blocked() {
    let world = world(ClientCertificate::Optional);
    let switch = world.start().await;
    let mut alice = operator(&world, &switch).await;
    let (key, other) = (key(), key());
    let mut client = session(&switch, world.pki.tls(None, &[]), &key).await;
    let _stays = session(&switch, world.pki.tls(None, &[]), &other).await;

    let device = key.device().to_string();
    let request = BlockClientRequest { device: device.clone(), reason: "unknown".to_owned() };
    alice.block_client(request).await.unwrap();

    assert_eq!(client.until_sent_away().await.0, CloseReason::Revoked);
    let (status, _) = refusal(dial_by_key(&switch, world.pki.tls(None, &[]), &key).await);
    assert_eq!(status, 403);
    let refused = alice.list_refused_clients(ListRefusedClientsRequest { limit: 0 }).await.unwrap();
    assert_eq!(refused.into_inner().refused[0].subject, device);
    assert!(shown(&mut alice, other.device()).await.online);
    alice.unblock_client(UnblockClientRequest { device }).await.unwrap();
    let _back = session(&switch, world.pki.tls(None, &[]), &key).await;
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn c1_sessions_without_a_certificate_have_a_bound_of_their_own_and_a_metric() {
    let mut world = world(ClientCertificate::Optional);
    world.config.sessions.unauthenticated_max = 1;
    let switch = world.start().await;
    let first = session(&switch, world.pki.tls(None, &[]), &key()).await;

    let (status, text) = refusal(dial_by_key(&switch, world.pki.tls(None, &[]), &key()).await);
    let certificate = world.pki.issue(Role::Device, DEVICE, Ends::InAYear);
    let certified = world.pki.tls(Some(&certificate), &[]);
    let (_client, _) = Client::connect(switch.running.session_addr(), certified, 1).await;

    assert!(status == 503 && text.contains("sessions.unauthenticated_max"), "{status} {text}");
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let metrics = ask(switch.running.admin_addr(), request).await;
    for wanted in [
        "muster_switch_unauthenticated_sessions 1",
        "muster_switch_unauthenticated_devices 1",
        "muster_switch_handshakes_total{listener=\"sessions\",outcome=\"unauthenticated_full\"} 1",
        "muster_switch_unauthenticated_refused_total{what=\"sessions\"} 1",
    ] {
        assert!(metrics.lines().any(|line| line == wanted), "{wanted}: {metrics}");
    }
    let refused = refused(&world, &switch).await;
    assert!(
        matches!(&refused[..], [one] if one.findings[0].contains("sessions.unauthenticated_max")),
        "{refused:?}"
    );
    let alice = connect_as(&world, &switch, Role::Operator, "alice.acme.local").await;
    let status = StatusServiceClient::new(alice).get_status(GetStatusRequest {}).await.unwrap().into_inner();
    let is_told =
        |warning: &String| warning.starts_with("devices without a certificate hold all the 1 sessions");
    assert!(status.warnings.iter().any(is_told), "{status:?}");
    first.vanish();
    switch.stop().await.unwrap();
}
