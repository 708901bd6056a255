//! Clients' way in and out.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use muster_pki::Role;
use muster_proto::session::PATH;
use muster_proto::session::v1::CloseReason;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::client::{Client, dial};
use crate::pki::{Ends, Pki};
use crate::world::{PATIENCE, SWITCH_NAME, World};

#[tokio::test]
async fn a_device_gets_its_welcome() {
    let world = World::new();
    let switch = world.start().await;

    let (_client, welcome) =
        Client::connect(switch.running.session_addr(), device(&world, "w701.acme.local"), 1).await;

    assert!(welcome.epoch > 0);
    assert_eq!(welcome.idle_timeout_ms, 150_000);
    assert_eq!(welcome.results_credit_bytes, world.config.sessions.results_credit);
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let world = World::new();
    let switch = world.start().await;

    let refused = dial(switch.running.session_addr(), world.pki.tls(None, &[]), "/v1/session").await;

    assert!(refused.is_err());
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_device_of_another_root_is_refused() {
    let world = World::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Pki::new(elsewhere.path()).issue(Role::Device, "w701.acme.local", Ends::InAYear);
    let switch = world.start().await;

    let refused =
        dial(switch.running.session_addr(), world.pki.tls(Some(&foreign), &[]), "/v1/session").await;

    assert!(refused.is_err());
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_device_whose_certificate_has_expired_is_refused() {
    let world = World::new();
    let expired = world.pki.issue(Role::Device, "w701.acme.local", Ends::Yesterday);
    let switch = world.start().await;

    let refused =
        dial(switch.running.session_addr(), world.pki.tls(Some(&expired), &[]), "/v1/session").await;

    assert!(refused.is_err());
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn an_operator_gets_no_session() {
    let world = World::new();
    let operator = world.pki.issue(Role::Operator, "alice.acme.local", Ends::InAYear);
    let switch = world.start().await;

    let refused =
        dial(switch.running.session_addr(), world.pki.tls(Some(&operator), &[]), "/v1/session").await;

    assert!(refused.is_err());
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn another_path_is_not_found() {
    let world = World::new();
    let switch = world.start().await;

    let refused =
        dial(switch.running.session_addr(), device(&world, "w701.acme.local"), "/").await.unwrap_err();

    assert!(refused.to_string().contains("404"), "{refused}");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn whoever_asks_the_session_port_for_something_else_is_told_what_it_is() {
    let world = World::new();
    let switch = world.start().await;
    let tls = device(&world, "w701.acme.local");
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n";
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(64 << 10));
    let cases = [
        ("GET /v1/session HTTP/1.1\r\nhost: switch.test\r\n\r\n", "426 Upgrade Required"),
        ("GET /nowhere HTTP/1.1\r\nhost: switch.test\r\n\r\n", "426 Upgrade Required"),
        ("POST /v1/session HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}", "426 Upgrade Required"),
        ("GET /v1/session HTTP/1.0\r\n\r\n", "426 Upgrade Required"),
        (&format!("GET /v1/session HTTP/1.1\r\n{upgrade}\r\n"), "426 Upgrade Required"),
        ("EHLO switch.test\r\n\r\n", "400 Bad Request"),
        (&long, "400 Bad Request"),
    ];

    for (request, status) in cases {
        let answer = ask(switch.running.session_addr(), tls.clone(), request.as_bytes()).await;

        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {answer}");
        assert!(answer.contains("\r\nupgrade: websocket\r\n"), "{answer}");
        assert!(answer.contains("sessions of Muster's clients: WebSocket at /v1/session"), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{answer}");
    }
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_live_session_ends_with_its_certificate() {
    let world = World::new();
    let brief = world.pki.issue(Role::Device, "w701.acme.local", Ends::In(3));
    let switch = world.start().await;
    let (mut client, _) =
        Client::connect(switch.running.session_addr(), world.pki.tls(Some(&brief), &[]), 1).await;

    let (reason, _) = client.until_sent_away().await;

    assert_eq!(reason, CloseReason::CertificateExpired);
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_revoked_device_is_sent_away_and_its_neighbour_is_not() {
    let mut world = World::new();
    world.config.crls = vec![world.pki.write_device_crl(&[], 1)];
    let switch = world.start().await;
    let address = switch.running.session_addr();
    let stolen = world.pki.issue(Role::Device, "w701.acme.local", Ends::InAYear);
    // One configuration, so that it comes back with a resumed handshake.
    let tls = world.pki.tls(Some(&stolen), &[]);
    let (mut client, _) = Client::connect(address, Arc::clone(&tls), 1).await;
    let (mut neighbour, _) = Client::connect(address, device(&world, "w702.acme.local"), 2).await;

    world.pki.write_device_crl(&[&stolen], 2);
    let (reason, _) = client.until_sent_away().await;
    let resumed = dial(address, tls, "/v1/session").await;
    let again = dial(address, world.pki.tls(Some(&stolen), &[]), "/v1/session").await;
    switch.trigger();
    let (neighbours_reason, _) = neighbour.until_sent_away().await;

    assert_eq!(reason, CloseReason::Revoked);
    let Err(Error::Http(answer)) = resumed else { panic!("wanted a refusal by HTTP: {resumed:?}") };
    let text = String::from_utf8(answer.body().clone().unwrap()).unwrap();
    assert!(answer.status() == 403 && text.contains("(R2)"), "{answer:?} {text}");
    assert!(again.is_err());
    assert_eq!(neighbours_reason, CloseReason::Shutdown);
    neighbour.vanish();
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_session_of_a_device_supersedes_the_first() {
    let world = World::new();
    let switch = world.start().await;
    let address = switch.running.session_addr();
    let (mut first, older) = Client::connect(address, device(&world, "w701.acme.local"), 1).await;

    let (_second, newer) = Client::connect(address, device(&world, "w701.acme.local"), 1).await;
    let (reason, _) = first.until_sent_away().await;

    assert_eq!(reason, CloseReason::Superseded);
    assert!(newer.epoch > older.epoch);
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn garbage_ends_the_session_with_a_protocol_error() {
    let world = World::new();
    let switch = world.start().await;
    let (mut client, _) =
        Client::connect(switch.running.session_addr(), device(&world, "w701.acme.local"), 1).await;

    client.send_raw(&[0xff; 64]).await;
    let (reason, _) = client.until_sent_away().await;

    assert_eq!(reason, CloseReason::ProtocolError);
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn the_close_frame_says_what_was_wrong_with_the_messages() {
    let world = World::new();
    let switch = world.start().await;
    let cases = [
        (Message::text("hello"), CloseCode::Unsupported),
        (Message::binary(vec![0xff; 64]), CloseCode::Invalid),
    ];

    for (message, wanted) in cases {
        let tls = device(&world, "w701.acme.local");
        let mut socket = dial(switch.running.session_addr(), tls, PATH).await.unwrap();
        socket.send(message).await.unwrap();
        let closed = async {
            loop {
                if let Message::Close(frame) = socket.next().await.unwrap().unwrap() {
                    return frame.map(|frame| frame.code);
                }
            }
        };

        assert_eq!(tokio::time::timeout(PATIENCE, closed).await.unwrap(), Some(wanted));
    }
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_full_switch_says_so_before_it_upgrades() {
    let mut world = World::new();
    world.config.sessions.sessions_max = 1;
    let switch = world.start().await;
    let address = switch.running.session_addr();
    let (_first, _) = Client::connect(address, device(&world, "w701.acme.local"), 1).await;

    let refused = dial(address, device(&world, "w702.acme.local"), "/v1/session").await.unwrap_err();

    assert!(refused.to_string().contains("503"), "{refused}");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_switch_that_stops_tells_its_clients_when_to_come_back() {
    let world = World::new();
    let switch = world.start().await;
    let (mut client, _) =
        Client::connect(switch.running.session_addr(), device(&world, "w701.acme.local"), 1).await;

    switch.trigger();
    let (reason, reconnect_after) = client.until_sent_away().await;
    client.vanish();

    assert_eq!(reason, CloseReason::Shutdown);
    assert!(reconnect_after <= world.config.shutdown.reconnect_spread);
    switch.stop().await.unwrap();
}

fn device(world: &World, name: &str) -> Arc<ClientConfig> {
    world.pki.tls(Some(&world.pki.issue(Role::Device, name, Ends::InAYear)), &[])
}

/// Sends bytes over good TLS, and reads until the Switch ends the connection as TLS wants it.
async fn ask(address: SocketAddr, tls: Arc<ClientConfig>, request: &[u8]) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = TlsConnector::from(tls).connect(SWITCH_NAME.try_into().unwrap(), stream).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}
