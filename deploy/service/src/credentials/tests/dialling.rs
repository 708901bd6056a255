//! The way out, over real sockets.

use std::sync::Arc;
use std::time::Duration;

use muster_pki::{Role, UnixTime};
use rustls::HandshakeKind;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::pki::Pki;
use crate::credentials::{
    Address, ClientCredentials, Deadlines, DialError, PeerRefused, Reload, ServerCredentials, dial,
};

const PATIENT: Deadlines = Deadlines { connect: Duration::from_secs(20), tls: Duration::from_secs(20) };

#[tokio::test]
async fn connects_to_a_server_that_is_one() {
    let pki = Pki::new();
    let client = pki.client(&pki.issue("w701", Role::Device, 30), Role::Device);
    let (_tasks, address) = serve(pki.server()).await;

    assert_eq!(greeted(&client, &address).await, Ok(HandshakeKind::Full));
    assert_eq!(greeted(&client, &address).await, Ok(HandshakeKind::Resumed));
}

#[tokio::test]
async fn c9_a_server_whose_certificate_ended_is_refused_when_its_session_is_resumed() {
    let pki = Pki::new();
    let ends = pki.clock().now().as_secs() + 3_600;
    pki.issue_server_until("localhost", UnixTime::since_unix_epoch(Duration::from_secs(ends)));
    let client = pki.client(&pki.issue("w701", Role::Device, 30), Role::Device);
    let (_tasks, address) = serve(pki.server()).await;
    greeted(&client, &address).await.unwrap();

    pki.advance(2 * 3_600);
    let refused = greeted(&client, &address).await.unwrap_err();

    assert!(refused.contains("the certificate of localhost:"), "{refused}");
    assert!(refused.contains("C9"), "{refused}");
}

#[tokio::test]
async fn c7_a_server_of_another_name_is_refused_with_the_rule() {
    let pki = Pki::new();
    pki.issue_server("switch.acme.local", 30);
    let client = pki.client(&pki.issue("w701", Role::Device, 30), Role::Device);
    let (_tasks, address) = serve(pki.server()).await;

    let refused = dial(&client, &address, PATIENT).await.unwrap_err();

    assert!(matches!(refused, DialError::Refused { .. }), "{refused}");
    assert!(refused.to_string().contains("C7"), "{refused}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_left_at_the_deadline() {
    let pki = Pki::new();
    let client = pki.client(&pki.issue("w701", Role::Device, 30), Role::Device);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::new("localhost", listener.local_addr().unwrap().port()).unwrap();

    let deadlines = Deadlines { tls: Duration::from_millis(50), ..PATIENT };
    let late = dial(&client, &address, deadlines).await.unwrap_err();

    assert!(matches!(late, DialError::Late { .. }), "{late}");
    assert!(late.to_string().contains("the TLS handshake with localhost:"), "{late}");
}

#[tokio::test]
async fn a_port_that_closes_before_tls_may_be_full_and_one_that_refuses_in_tls_is_not() {
    let pki = Pki::new();
    let client = pki.client(&pki.issue("w701", Role::Device, 30), Role::Device);
    for answer in [&b""[..], b"SSH-2.0-OpenSSH_9.9\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::new("localhost", listener.local_addr().unwrap().port()).unwrap();
        let closing = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            // Read, so that the end is one and no reset.
            drop(stream.read(&mut [0; 16_384]).await);
            drop(stream.write_all(answer).await);
        };

        let (ended, ()) = tokio::join!(dial(&client, &address, PATIENT), closing);
        let ended = ended.unwrap_err().to_string();

        assert_eq!(ended.contains("`source_full`"), answer.is_empty(), "{ended}");
        assert!(ended.contains(&address.to_string()), "{ended}");
    }
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_named() {
    let pki = Pki::new();
    let client = pki.client(&pki.issue("w701", Role::Device, 30), Role::Device);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::new("127.0.0.1", listener.local_addr().unwrap().port()).unwrap();
    drop(listener);

    let refused = dial(&client, &address, PATIENT).await.unwrap_err();

    assert!(matches!(refused, DialError::Tcp { .. }), "{refused}");
    assert!(refused.to_string().contains(&address.to_string()), "{refused}");
}

#[test]
fn addresses_print_as_they_are_read() {
    for text in ["localhost:4001", "127.0.0.1:1", "[::1]:4001"] {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
    }
    for text in
        ["localhost", ":4001", "localhost:", "localhost:70000", "::1:4001", "a b:1", "[localhost]:1", ""]
    {
        let error = text.parse::<Address>().unwrap_err().to_string();
        assert!(error.contains(text) && error.contains("HOST:PORT"), "{error}");
    }
}

#[test]
fn every_file_that_does_not_do_is_told() {
    let pki = Pki::new();
    pki.write("operators.pem", "no roots");
    std::fs::remove_file(pki.path("server.key")).unwrap();
    let roles = vec![(Role::Device, pki.path("gone.pem")), (Role::Operator, pki.path("operators.pem"))];

    let errors = pki.server_for(roles).unwrap_err().into_each();

    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    for file in ["server.key", "gone.pem", "operators.pem"] {
        assert!(told.iter().any(|line| line.contains(file)), "{file} in {told:#?}");
    }
    assert_eq!(told.len(), 3, "{told:#?}");
}

#[tokio::test]
async fn r3_a_connection_that_stands_ends_when_its_server_is_revoked_and_no_other_list_ends_it() {
    let pki = Pki::new();
    let server = pki.issue_server("localhost", 30);
    let client = pki.client(&pki.issue("w701", Role::Device, 30), Role::Device);
    let (_tasks, address) = serve(pki.server()).await;
    let mut stream = dial(&client, &address, PATIENT).await.unwrap();
    stream.read_u8().await.unwrap();
    let others = pki.read("devices.crl");

    pki.write("devices.crl", &(others.clone() + &pki.servers_crl(&[], 3)));
    drop(client.revocation().reload());
    let mut byte = [0];
    let read = std::future::poll_fn(|context| {
        let mut buffer = tokio::io::ReadBuf::new(&mut byte);
        std::task::Poll::Ready(std::pin::Pin::new(&mut stream).poll_read(context, &mut buffer).is_pending())
    });
    assert!(read.await, "it stands");
    pki.write("devices.crl", &(others + &pki.servers_crl(&[&server], 4)));
    drop(client.revocation().reload());

    let broken = stream.read_u8().await.unwrap_err();
    let refused = PeerRefused::of_live(&broken).unwrap().to_string();
    assert!(refused.contains("R2"), "{refused}");
}

#[tokio::test]
async fn n1_what_stands_outlives_the_certificate_that_was_renewed_and_a_ticket_of_it_keeps_nobody_out() {
    let pki = Pki::new();
    let ends = pki.clock().now().as_secs() + 3_600;
    pki.issue_server_until("localhost", UnixTime::since_unix_epoch(Duration::from_secs(ends)));
    let client = pki.client(&pki.issue("w701", Role::Device, 30), Role::Device);
    let server = pki.server();
    let (_tasks, address) = serve(Arc::clone(&server)).await;
    assert_eq!(greeted(&client, &address).await, Ok(HandshakeKind::Full));
    let mut stands = dial(&client, &address, PATIENT).await.unwrap();
    stands.read_u8().await.unwrap();
    pki.issue_server("localhost", 30);
    assert_eq!(server.reload(), Reload::Swapped);

    pki.advance(2 * 3_600);
    pki.write("devices.crl", &(pki.read("devices.crl") + &pki.servers_crl(&[], 3)));
    assert_eq!(client.revocation().reload(), Reload::Swapped);

    let mut byte = [0];
    let read = std::future::poll_fn(|context| {
        let mut buffer = tokio::io::ReadBuf::new(&mut byte);
        std::task::Poll::Ready(std::pin::Pin::new(&mut stands).poll_read(context, &mut buffer).is_pending())
    });
    assert!(read.await, "it stands");
    assert_eq!(greeted(&client, &address).await, Ok(HandshakeKind::Full));
    assert_eq!(greeted(&client, &address).await, Ok(HandshakeKind::Resumed));
}

/// Connects and reads the greeting, after which the session can be resumed.
async fn greeted(client: &Arc<ClientCredentials>, address: &Address) -> Result<HandshakeKind, String> {
    let mut stream = dial(client, address, PATIENT).await.map_err(|error| error.to_string())?;
    stream.read_u8().await.map_err(|error| error.to_string())?;
    stream.get_ref().1.handshake_kind().ok_or_else(|| "no handshake".to_owned())
}

/// Greets every connection with a byte, until the tasks are dropped.
async fn serve(server: Arc<ServerCredentials>) -> (JoinSet<()>, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::new("localhost", listener.local_addr().unwrap().port()).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _peer)) = listener.accept().await {
            let acceptor = TlsAcceptor::from(server.config());
            connections.spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    drop(stream.write_all(b"!").await);
                    drop(stream.read_u8().await);
                }
            });
        }
    });
    (tasks, address)
}
