//! Who connects and shows no certificate: how much it may hold, for how long, and what it is told.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use muster_pki::Role;
use muster_proto::operator::v1::GetStatusRequest;
use muster_proto_grpc::operator::v1::status_service_client::StatusServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::client::Client;
use crate::operators::{channel, connect_as};
use crate::pki::{Ends, Pki};
use crate::world::{PATIENCE, SWITCH_NAME, Switch, World};

/// Longer than any test waits: what passes within a test did not wait for it.
const LONG: Duration = Duration::from_secs(300);

/// The first bytes of a TLS handshake record of 512 bytes (RFC 8446 §5.1).
const RECORD_HEAD: [u8; 5] = [0x16, 0x03, 0x01, 0x02, 0x00];

/// A host that opens connections.
const SILENT: &str = "127.0.0.2";

/// A host that begins handshakes and does not end them.
const SLOW: &str = "127.0.0.3";

#[tokio::test]
async fn connections_that_say_nothing_or_end_no_handshake_do_not_keep_a_client_of_another_address_out() {
    let mut world = World::new();
    world.config.shards = 1;
    let limits = &mut world.config.sessions;
    (limits.handshakes_max, limits.handshakes_per_source_max) = (4, 2);
    (limits.waiting_max, limits.waiting_per_source_max) = (16, 6);
    (limits.first_byte_deadline, limits.tls_deadline) = (LONG, LONG);
    world.config.shutdown.drain_timeout = LONG;
    let switch = world.start().await;
    let address = switch.running.session_addr();

    let silent = connections(SILENT, address, 6, b"").await;
    let slow = connections(SLOW, address, 6, &RECORD_HEAD).await;
    for mut turned_away in connections(SILENT, address, 3, b"").await {
        assert!(is_closed(&mut turned_away).await);
    }
    let client = Client::connect(address, device(&world), 1);
    let (_client, welcome) = tokio::time::timeout(PATIENCE, client).await.unwrap();

    assert!(welcome.epoch > 0);
    until_outcomes(&switch, "sessions", "source_full", 3).await;
    // Neither those who say nothing nor those in mid-handshake hold up the stop.
    switch.stop().await.unwrap();
    drop((silent, slow));
}

#[tokio::test]
async fn connections_that_say_nothing_do_not_keep_an_operator_of_another_address_out() {
    let mut world = World::new();
    let limits = &mut world.config.operators;
    limits.connections_max = 1;
    (limits.handshakes_max, limits.handshakes_per_source_max) = (4, 2);
    (limits.waiting_max, limits.waiting_per_source_max) = (16, 6);
    (limits.first_byte_deadline, limits.tls_deadline) = (LONG, LONG);
    world.config.shutdown.drain_timeout = LONG;
    let switch = world.start().await;
    let address = switch.running.operator_addr();

    let slow = connections(SLOW, address, 6, &RECORD_HEAD).await;
    let silent = connections(SILENT, address, 7, b"").await;
    // The last of them is turned away, so the others are in.
    until_outcomes(&switch, "operators", "source_full", 1).await;
    let alice = connect_as(&world, &switch, Role::Operator, "alice.acme.local");
    let alice = tokio::time::timeout(PATIENCE, alice).await.unwrap();
    let status = StatusServiceClient::new(alice.clone()).get_status(GetStatusRequest {}).await;

    assert!(status.is_ok(), "{status:?}");
    drop(alice);
    switch.stop().await.unwrap();
    drop((silent, slow));
}

#[tokio::test]
async fn an_operator_beyond_the_open_connections_is_turned_away_and_counted() {
    let mut world = World::new();
    world.config.operators.connections_max = 1;
    let switch = world.start().await;
    let alice = connect_as(&world, &switch, Role::Operator, "alice.acme.local").await;
    // With TLS 1.3 she is through before the Switch has counted her; an answer says that it has.
    let first = StatusServiceClient::new(alice.clone()).get_status(GetStatusRequest {}).await;
    assert!(first.is_ok(), "{first:?}");
    let bob = world.pki.issue(Role::Operator, "bob.acme.local", Ends::InAYear);
    let tls = world.pki.tls(Some(&bob), &[b"h2"]);

    let second = match channel(switch.running.operator_addr(), tls).await {
        Err(_) => None,
        Ok(bob) => StatusServiceClient::new(bob).get_status(GetStatusRequest {}).await.ok(),
    };

    assert!(second.is_none());
    // A gRPC channel tries again by itself.
    until_outcomes(&switch, "operators", "full", 1).await;
    assert!(StatusServiceClient::new(alice).get_status(GetStatusRequest {}).await.is_ok());
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_certificate_with_all_the_connections_it_may_have_leaves_room_for_others() {
    let mut world = World::new();
    world.config.operators.connections_per_certificate_max = 1;
    let switch = world.start().await;
    let address = switch.running.operator_addr();
    let service = world.pki.issue(Role::Service, "background.acme.local", Ends::InAYear);
    let _first = channel(address, world.pki.tls(Some(&service), &[b"h2"])).await.unwrap();
    // With TLS 1.3 it is through before the Switch has counted it.
    until_outcomes(&switch, "operators", "ok", 1).await;

    // Who is turned away reads a clean end, whatever was sent meanwhile, and no reset: a full Switch is no broken network.
    let tls = TlsConnector::from(world.pki.tls(Some(&service), &[b"h2"]));
    let exchange = async {
        let stream = TcpStream::connect(address).await?;
        let mut stream = tls.connect(SWITCH_NAME.try_into().unwrap(), stream).await?;
        stream.write_all(&vec![b'x'; 4 << 20]).await?;
        stream.read_to_end(&mut Vec::new()).await
    };
    let ended = tokio::time::timeout(PATIENCE, exchange).await.unwrap();
    assert_eq!(ended.unwrap(), 0);
    until_outcomes(&switch, "operators", "certificate_full", 1).await;
    let alice = connect_as(&world, &switch, Role::Operator, "alice.acme.local").await;
    let status = StatusServiceClient::new(alice).get_status(GetStatusRequest {}).await;

    assert!(status.is_ok(), "{status:?}");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_at_its_deadline() {
    let mut world = World::new();
    world.config.sessions.first_byte_deadline = Duration::from_millis(200);
    world.config.sessions.tls_deadline = LONG;
    let switch = world.start().await;
    let since = Instant::now();
    let mut silent = TcpStream::connect(switch.running.session_addr()).await.unwrap();

    assert!(is_closed(&mut silent).await);

    assert!(since.elapsed() >= Duration::from_millis(200));
    until_outcomes(&switch, "sessions", "silent", 1).await;
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_handshake_that_drips_is_cut_off_at_its_deadline() {
    let mut world = World::new();
    world.config.sessions.first_byte_deadline = LONG;
    world.config.sessions.tls_deadline = Duration::from_millis(400);
    let switch = world.start().await;
    let since = Instant::now();
    let stream = TcpStream::connect(switch.running.session_addr()).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();

    let drip = async {
        for byte in RECORD_HEAD.into_iter().chain(std::iter::repeat(0)) {
            if writing.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let closed = async { reading.read(&mut [0; 16]).await.unwrap_or(0) == 0 };
    let cut = tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            biased;
            closed = closed => closed,
            () = drip => true,
        }
    });

    assert!(cut.await.unwrap());
    assert!(since.elapsed() >= Duration::from_millis(400));
    until_outcomes(&switch, "sessions", "tls_deadline", 1).await;
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn plain_http_is_told_that_the_port_speaks_tls() {
    let world = World::new();
    let switch = world.start().await;

    for (listener, address) in
        [("sessions", switch.running.session_addr()), ("operators", switch.running.operator_addr())]
    {
        let request = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let answer = ask(address, request).await;

        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.contains("this port speaks TLS"), "{answer}");
        until_outcomes(&switch, listener, "plain_text", 1).await;
    }
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_refused_peer_that_sends_at_once_reads_the_alert_and_no_reset() {
    let world = World::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Pki::new(elsewhere.path()).issue(Role::Device, "w701.acme.local", Ends::InAYear);
    let switch = world.start().await;

    // More than the kernels' buffers hold: a client that is reset while it sends never comes to read.
    let request = vec![b'x'; 4 << 20];
    let none: &[&[u8]] = &[];
    for (address, alpn) in [(switch.running.session_addr(), none), (switch.running.operator_addr(), &[b"h2"])]
    {
        let stream = TcpStream::connect(address).await.unwrap();
        let tls = TlsConnector::from(world.pki.tls(Some(&foreign), alpn));
        let exchange = async {
            let mut stream = tls.connect(SWITCH_NAME.try_into().unwrap(), stream).await?;
            stream.write_all(&request).await?;
            stream.read_to_end(&mut Vec::new()).await
        };
        let error = tokio::time::timeout(PATIENCE, exchange).await.unwrap().unwrap_err();

        let alert = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        assert!(matches!(alert, Some(rustls::Error::AlertReceived(_))), "{error:?}");
    }
    for listener in ["sessions", "operators"] {
        until_outcomes(&switch, listener, "certificate", 1).await;
    }
    switch.stop().await.unwrap();
}

/// Opens connections from an address of this machine, and says the same on each.
async fn connections(from: &str, to: SocketAddr, count: usize, says: &[u8]) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        let mut stream = socket.connect(to).await.unwrap();
        stream.write_all(says).await.unwrap();
        all.push(stream);
    }
    all
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 16])).await.unwrap();
    read.unwrap_or(0) == 0
}

pub(crate) async fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

/// Waits until so many handshakes of a listener ended so, since a connection may end before it is counted.
async fn until_outcomes(switch: &Switch, listener: &str, outcome: &str, wanted: u64) {
    let series = format!("muster_switch_handshakes_total{{listener=\"{listener}\",outcome=\"{outcome}\"}}");
    until_counted(switch, &series, wanted).await;
}

/// Waits until a series has counted so many.
pub(crate) async fn until_counted(switch: &Switch, series: &str, wanted: u64) {
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let family = series.split('{').next().unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        let metrics = ask(switch.running.admin_addr(), request).await;
        let count = metrics.lines().find_map(|line| line.strip_prefix(series));
        if count.map_or(0, |count| count.trim().parse().unwrap()) >= wanted {
            return;
        }
        let others: Vec<&str> = metrics.lines().filter(|line| line.starts_with(family)).collect();
        assert!(Instant::now() < until, "{series} did not come to {wanted}: {others:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn device(world: &World) -> std::sync::Arc<rustls::ClientConfig> {
    world.pki.tls(Some(&world.pki.issue(Role::Device, "w701.acme.local", Ends::InAYear)), &[])
}
