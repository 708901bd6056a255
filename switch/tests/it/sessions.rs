//! What only WebSocket has of a client's way in: the upgrade.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use muster_pki::Role;
use muster_proto::session::PATH;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::client::dial;
use crate::pki::Ends;
use crate::world::{PATIENCE, SWITCH_NAME, World};

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
