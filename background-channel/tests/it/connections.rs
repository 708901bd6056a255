//! Who gets a connection, in which protocol, and for how long.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, StatusCode};
use muster_pki::Role;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::pki::{A_MONTH, Pki};
use crate::world::{CHANNEL_NAME, Channel, PATIENCE, World};

const NO_SUCH: &str = "/resources/0000000000000000000000000000000000000000000000000000000000000000";

#[tokio::test]
async fn connections_that_say_nothing_or_end_no_handshake_do_not_keep_a_device_of_another_address_out() {
    let long = Duration::from_secs(300);
    let mut world = World::new().await;
    let limits = &mut world.config.limits;
    limits.connections_max = 1;
    (limits.handshakes_max, limits.handshakes_per_source_max) = (4, 2);
    (limits.waiting_max, limits.waiting_per_source_max) = (16, 6);
    (limits.first_byte_deadline, limits.tls_deadline) = (long, long);
    let channel = world.start().await;

    // The head of a TLS record (RFC 8446 §5.1) that never comes.
    let slow = connections("127.0.0.3", &channel, 6, &[0x16, 3, 1, 2, 0]).await;
    let silent = connections("127.0.0.2", &channel, 7, b"").await;
    let device = world.caller(&channel, Role::Device, "w701.acme.local");
    let answer = tokio::time::timeout(PATIENCE, device.call(Method::GET, NO_SUCH, "")).await.unwrap();

    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let metrics = world.admin(&channel, "/metrics").await;
    let refused = "muster_background_connections_refused_total{cause=\"source_full\"} 1\n";
    assert!(metrics.contains(refused), "{metrics}");
    drop(slow);
    channel.stop().await.unwrap();
    drop(silent);
}

#[tokio::test]
async fn a_device_with_all_the_connections_that_it_may_have_leaves_the_others_theirs() {
    let mut world = World::new().await;
    world.config.limits.connections_per_device_max = 2;
    world.config.limits.connections_max = 4;
    let channel = world.start().await;
    let greedy = world.caller(&channel, Role::Device, "w701.acme.local");
    let other = world.caller(&channel, Role::Device, "w702.acme.local");
    let operator = world.caller(&channel, Role::Operator, "alice.acme.local");

    let mut lines = Vec::new();
    for _ in 0..2 {
        let mut line = greedy.connect().await.unwrap();
        assert!(line.call(Method::GET, NO_SUCH, &[], "").await.is_ok());
        lines.push(line);
    }
    let third = greedy.try_call(Method::GET, NO_SUCH, &[], "").await;
    let others = other.try_call(Method::GET, NO_SUCH, &[], "").await;
    let operators = operator.try_call(Method::GET, "/resources", &[], "").await;

    assert!(third.is_err(), "{third:?}");
    assert!(others.is_ok() && operators.is_ok(), "{others:?}, {operators:?}");
    let metrics = world.admin(&channel, "/metrics").await;
    let refused = "muster_background_connections_refused_total{cause=\"device_full\"} 1\n";
    assert!(metrics.contains(refused), "{metrics}");
    drop(lines);
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn plain_http_is_told_that_the_port_speaks_tls() {
    let world = World::new().await;
    let channel = world.start().await;
    let mut stream = TcpStream::connect(channel.running.addr()).await.unwrap();

    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();

    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.contains("this port speaks TLS"), "{answer}");
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn alpn_chooses_the_protocol() {
    let world = World::new().await;
    let channel = world.start().await;
    let device = world.pki.issue(Role::Device, "w701.acme.local", A_MONTH);

    let mut two = world.caller_with(&channel, Some(&device), b"h2").connect().await.unwrap();
    let mut one = world.caller_with(&channel, Some(&device), b"http/1.1").connect().await.unwrap();
    let by_two = two.call(Method::GET, NO_SUCH, &[], "").await.unwrap();
    let by_one = one.call(Method::GET, NO_SUCH, &[], "").await.unwrap();

    assert!(two.is_http2() && !one.is_http2());
    assert_eq!((by_two.status, by_one.status), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND));
    drop((one, two));
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn over_http2_the_server_speaks_first_so_that_a_client_knows_it_was_let_in() {
    let world = World::new().await;
    let channel = world.start().await;
    let operator = world.pki.issue(Role::Operator, "alice.acme.local", A_MONTH);
    let stream = TcpStream::connect(channel.running.addr()).await.unwrap();
    let name = ServerName::try_from(CHANNEL_NAME).unwrap();
    let connector = TlsConnector::from(world.pki.tls(Some(&operator), b"h2"));
    let mut stream = connector.connect(name, stream).await.unwrap();

    let mut first = [0; 9];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut first)).await.unwrap().unwrap();

    // RFC 9113 §6.5: a frame's type is its fourth byte, 4 is SETTINGS.
    assert_eq!(first[3], 4, "{first:?}");
    drop(stream);
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn nobody_without_a_certificate_of_a_known_root_is_let_in() {
    let world = World::new().await;
    let channel = world.start().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Pki::new(elsewhere.path()).issue(Role::Device, "w701.acme.local", A_MONTH);
    let service = world.pki.issue(Role::Service, "other.acme.local", A_MONTH);

    for own in [None, Some(&foreign), Some(&service)] {
        let caller = world.caller_with(&channel, own, b"http/1.1");
        // With TLS 1.3 the client learns of the refusal at its first read.
        let answered = caller.try_call(Method::GET, NO_SUCH, &[], "").await;
        assert!(answered.is_err(), "{answered:?}");
    }
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn a_revoked_device_loses_its_live_connection_and_its_neighbour_does_not() {
    let mut world = World::new().await;
    world.config.crls = vec![world.pki.write_crl(Role::Device, &[], 1)];
    let channel = world.start().await;
    let stolen = world.pki.issue(Role::Device, "w701.acme.local", A_MONTH);
    let caller = world.caller_with(&channel, Some(&stolen), b"h2");
    let mut line = caller.connect().await.unwrap();
    let mut neighbour = world.caller(&channel, Role::Device, "w702.acme.local").connect().await.unwrap();
    assert!(line.call(Method::GET, NO_SUCH, &[], "").await.is_ok());
    assert!(neighbour.call(Method::GET, NO_SUCH, &[], "").await.is_ok());

    world.pki.write_crl(Role::Device, &[&stolen], 2);
    line.ended().await;

    assert!(caller.try_call(Method::GET, NO_SUCH, &[], "").await.is_err());
    assert!(neighbour.call(Method::GET, NO_SUCH, &[], "").await.is_ok());
    drop(neighbour);
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn a_live_connection_ends_with_its_certificate() {
    let world = World::new().await;
    let channel = world.start().await;
    let brief = world.pki.issue(Role::Device, "w701.acme.local", Duration::from_secs(4));
    let mut line = world.caller_with(&channel, Some(&brief), b"h2").connect().await.unwrap();
    assert!(line.call(Method::GET, NO_SUCH, &[], "").await.is_ok());

    line.ended().await;

    channel.stop().await.unwrap();
}

#[tokio::test]
async fn a_refused_client_that_sends_at_once_reads_the_alert_and_no_reset() {
    let world = World::new().await;
    let channel = world.start().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Pki::new(elsewhere.path()).issue(Role::Device, "w701.acme.local", A_MONTH);
    let tls = world.pki.tls(Some(&foreign), b"http/1.1");

    // More than the kernels' buffers hold: a client that is reset while it sends never comes to read.
    let request = vec![b'x'; 4 << 20];
    for _ in 0..5 {
        let stream = TcpStream::connect(channel.running.addr()).await.unwrap();
        let name = ServerName::try_from(CHANNEL_NAME).unwrap();
        let exchange = async {
            let mut stream = TlsConnector::from(tls.clone()).connect(name, stream).await?;
            stream.write_all(&request).await?;
            stream.read_to_end(&mut Vec::new()).await
        };
        let error = tokio::time::timeout(PATIENCE, exchange).await.unwrap().unwrap_err();

        let alert = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        assert!(matches!(alert, Some(rustls::Error::AlertReceived(_))), "{error:?}");
    }
    channel.stop().await.unwrap();
}

#[tokio::test]
async fn every_error_answer_is_one_clear_line_that_drives_no_terminal() {
    let world = World::new().await;
    let channel = world.start().await;
    let device = world.caller(&channel, Role::Device, "w701.acme.local");
    let operator = world.caller(&channel, Role::Operator, "alice.acme.local");
    let too_long = vec![0; (1 << 20) + 1];
    let cases: [(_, Method, &str, &[u8], u16, &str); 8] = [
        (&device, Method::DELETE, NO_SUCH, b"", 405, "GET"),
        (&device, Method::GET, "/events", b"", 405, "it takes POST"),
        (
            &device,
            Method::GET,
            "/resources/a%1b%5b2Jb%0ac",
            b"",
            400,
            "`a\\u{1b}[2Jb\\nc` is not a BLAKE3 root",
        ),
        (&device, Method::GET, "/resources/%ff", b"", 400, "UTF-8"),
        (&device, Method::GET, "/nowhere", b"", 404, "nothing here"),
        (&device, Method::POST, "/events", &too_long, 413, "at most 1048576 bytes"),
        (&operator, Method::PUT, NO_SUCH, b"", 400, "?name=NAME"),
        (
            &operator,
            Method::PUT,
            &format!("{NO_SUCH}?name=%1b"),
            b"",
            400,
            "`\\u{1b}` is not a resource name",
        ),
    ];

    for (caller, method, path, body, status, says) in cases {
        let answer = caller.call(method, path, body.to_vec()).await;

        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert_eq!(answer.status.as_u16(), status, "{path}: {text}");
        assert!(text.contains(says), "{path}: {text}");
        assert!(text.ends_with('\n') && text.lines().count() == 1, "{path}: {text:?}");
        assert!(!text.trim_end().chars().any(char::is_control), "{path}: {text:?}");
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    }
    let readiness = world.admin(&channel, "/readyz").await;
    assert!(readiness.starts_with("HTTP/1.1 200") && readiness.contains("\"relay\""), "{readiness}");
    channel.stop().await.unwrap();
}

/// Opens connections from an address of this machine, and says the same on each.
async fn connections(from: &str, channel: &Channel, count: usize, says: &[u8]) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        let mut stream = socket.connect(channel.running.addr()).await.unwrap();
        stream.write_all(says).await.unwrap();
        all.push(stream);
    }
    all
}
