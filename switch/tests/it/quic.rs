//! What only QUIC has: addresses that change or are forged, streams, early data.

use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use muster_pki::{DeviceKey, Role};
use muster_proto::frame::{self, item};
use muster_proto::operator::v1::{GetClientRequest, ListRefusedClientsRequest};
use muster_proto::session::client::ClientEvent;
use muster_proto::session::quic::Close;
use muster_proto::session::v1::frame::Body;
use muster_proto::session::v1::{CloseReason, DocumentKind, DocumentRequest, Frame};
use muster_proto_grpc::operator::v1::client_service_client::ClientServiceClient;
use muster_switch::ClientCertificate;
use rustls::ClientConfig;

use crate::client::{Client, hello};
use crate::operators::connect_as;
use crate::pki::Ends;
use crate::quic_client::{Denied, begin, dial_quic, dial_quic_with, quic_config};
use crate::world::{PATIENCE, SWITCH_NAME, World};

const DEVICE: &str = "w701.acme.local";

fn device(world: &World, name: &str) -> Arc<ClientConfig> {
    world.pki.tls(Some(&world.pki.issue(Role::Device, name, Ends::InAYear)), &[])
}

async fn session(address: SocketAddr, tls: &ClientConfig) -> Client {
    let mut client = Client::over_quic(dial_quic(address, tls).await.unwrap(), hello(1));
    client.until_welcome().await;
    client
}

/// Asks the Switch something that it answers, and waits for the answer.
async fn ask(client: &mut Client) {
    client.session.push_policy_check(0).unwrap();
    let answered = |event| matches!(event, ClientEvent::PolicyNotice { .. }).then_some(());
    client.until(answered).await;
}

#[tokio::test]
async fn a_session_survives_a_change_of_the_clients_address() {
    let world = World::new();
    let switch = world.start().await;
    let mut client = session(switch.running.session_addr(), &device(&world, DEVICE)).await;
    let quic = client.quic();
    let (endpoint, before) = (quic.endpoint.clone(), quic.endpoint.local_addr().unwrap());

    let alice = connect_as(&world, &switch, Role::Operator, "alice.acme.local").await;
    let mut alice = ClientServiceClient::new(alice);
    for _ in 0..2 {
        endpoint.rebind(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        let now = endpoint.local_addr().unwrap();
        assert_ne!(now, before);
        ask(&mut client).await;
        let shown = alice.get_client(GetClientRequest { device: DEVICE.to_owned() }).await.unwrap();
        assert_eq!(shown.into_inner().client.unwrap().address, now.to_string());
    }
    switch.trigger();
    let (reason, _) = client.until_sent_away().await;

    assert_eq!(reason, CloseReason::Shutdown, "the session of before, which the Switch sends away");
    drop(client);
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn a_switch_starts_without_a_key_of_resets_and_makes_none_where_there_is_no_quic() {
    let mut world = World::new();
    let (data_dir, file) = (world.config.data_dir.clone(), "quic-reset.key");
    // What stands in the way of its file stands for a folder that cannot be written to.
    std::fs::create_dir_all(data_dir.join("quic-reset.new")).unwrap();
    let switch = world.start().await;
    let mut client = session(switch.running.session_addr(), &device(&world, DEVICE)).await;
    ask(&mut client).await;
    switch.stop().await.unwrap();
    assert!(!data_dir.join(file).exists());

    std::fs::remove_dir(data_dir.join("quic-reset.new")).unwrap();
    world.config.sessions.quic = false;
    world.start().await.stop().await.unwrap();

    assert!(!data_dir.join(file).exists());
    world.config.sessions.quic = true;
    world.start().await.stop().await.unwrap();
    assert!(data_dir.join(file).exists());
}

#[tokio::test]
async fn a_certificate_that_is_refused_is_told_to_its_device_and_listed() {
    let world = World::new();
    let expired = world.pki.issue(Role::Device, DEVICE, Ends::Yesterday);
    let switch = world.start().await;

    let socket = dial_quic(switch.running.session_addr(), &world.pki.tls(Some(&expired), &[])).await;
    let denied = match socket {
        Ok(socket) => Denied::from(socket.connection.closed().await),
        Err(denied) => denied,
    };

    assert_eq!(denied.close, Some(Close::Refused));
    assert!(denied.text.contains("muster client list --refused"), "{denied:?}");
    let alice = connect_as(&world, &switch, Role::Operator, "alice.acme.local").await;
    let mut alice = ClientServiceClient::new(alice);
    let refused = alice.list_refused_clients(ListRefusedClientsRequest { limit: 0 });
    let refused = refused.await.unwrap().into_inner().refused;
    assert_eq!((refused.len(), &refused[0].listener[..], &refused[0].peer[..]), (1, "quic", DEVICE));
    assert!(denied.text.contains(&refused[0].rules.join(", ")), "{denied:?} {refused:?}");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn c1_a_device_without_a_certificate_proves_its_key_on_this_very_connection() {
    let mut world = World::new();
    world.config.sessions.client_certificate = ClientCertificate::Optional;
    let switch = world.start().await;
    let address = switch.running.session_addr();
    let key = DeviceKey::generate().unwrap().0;
    let nobody = world.pki.tls(None, &[]);

    let mut socket = dial_quic(address, &nobody).await.unwrap();
    let proof = socket.proof(&key);
    socket.send(proof.as_bytes()).await.unwrap();
    let mut client = Client::over_quic(socket, hello(1));
    client.until_welcome().await;

    // The proof of another connection, none at all, and something that is none.
    for said in [proof.as_bytes(), &[], &[7; 250]] {
        let mut socket = dial_quic(address, &nobody).await.unwrap();
        socket.send(said).await.unwrap();
        let refused = Client::over_quic(socket, hello(1)).until_welcome_or_denied().await;
        let denied = refused.map(drop).unwrap_err();
        assert_eq!(denied.close, Some(Close::Refused), "{denied:?}");
    }
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn who_says_nothing_or_too_much_is_sent_away() {
    let mut world = World::new();
    world.config.sessions.upgrade_deadline = Duration::from_millis(300);
    let switch = world.start().await;
    let address = switch.running.session_addr();

    let silent = dial_quic(address, &device(&world, DEVICE)).await.unwrap();
    let late = tokio::time::timeout(PATIENCE, silent.connection.closed()).await.unwrap();
    let late = Denied::from(late);
    assert_eq!(late.close, Some(Close::Late), "{late:?}");

    // A length of 1 MiB and one byte: refused before any of it came.
    let mut client = session(address, &device(&world, "w702.acme.local")).await;
    client.quic().send.write_all(&[0x81, 0x80, 0x40]).await.unwrap();
    assert_eq!(client.until_sent_away().await.0, CloseReason::ProtocolError);
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn who_asks_and_reads_nothing_loses_its_session_and_holds_nobody_up() {
    let mut world = World::new();
    world.config.sessions.write_deadline = Duration::from_millis(500);
    let switch = world.start().await;
    let address = switch.running.session_addr();
    let mut config = quic_config(&device(&world, DEVICE));
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(4096_u32.into());
    config.transport_config(Arc::new(transport));
    let mut slow = Client::over_quic(dial_quic_with(address, config).await.unwrap(), hello(1));
    slow.until_welcome().await;
    let mut other = session(address, &device(&world, "w702.acme.local")).await;
    let request = DocumentRequest { kind: DocumentKind::Licence.into(), digest: vec![7; 32] };
    let request = frame::encode(&Frame { body: Some(Body::DocumentRequest(request)), proof: None });
    let mut requests = Vec::new();
    (0..20_000).for_each(|_| item::put(&mut requests, &request));

    // The answers are more than the windows hold; it may be sent away before it has said all.
    drop(slow.quic().send.write_all(&requests).await);
    let asked = Instant::now();
    ask(&mut other).await;
    let took = asked.elapsed();

    let ended = tokio::time::timeout(PATIENCE, slow.quic().connection.closed()).await.unwrap();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(!matches!(ended, quinn::ConnectionError::TimedOut), "{ended}");
    ask(&mut other).await;
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn n1_a_renewed_certificate_of_the_switch_is_shown_to_who_comes_next() {
    let world = World::new();
    let switch = world.start().await;
    let address = switch.running.session_addr();
    let shown = || async {
        // Tickets of its own: a resumed handshake shows what the first one did.
        let socket = dial_quic(address, &device(&world, DEVICE)).await.unwrap();
        muster_service::admission::chain(&socket.connection).unwrap()[0].clone()
    };
    let before = shown().await;

    world.pki.write_server(&world.pki.issue(Role::Switch, SWITCH_NAME, Ends::InAYear));

    let renewed = async {
        while shown().await == before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, renewed).await.unwrap();
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn no_early_data_is_ever_offered() {
    let world = World::new();
    let switch = world.start().await;
    let address = switch.running.session_addr();
    let mut tls = ClientConfig::clone(&device(&world, DEVICE));
    tls.enable_early_data = true;
    drop(session(address, &tls).await);

    // It has tickets by now.
    let (_endpoint, connecting) = begin(address, &tls);

    let refused = connecting.into_0rtt().map(drop).expect_err("the Switch takes early data");
    let connection = tokio::time::timeout(PATIENCE, refused).await.unwrap();
    assert!(connection.is_ok(), "{connection:?}");
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn under_load_addresses_are_validated_first_and_beyond_the_bound_nobody_waits() {
    let mut world = World::new();
    // From 4 on there is a Retry, however many shards there are.
    world.config.sessions.quic_handshakes_max = 8;
    world.config.sessions.quic_handshakes_per_source_max = 7;
    let switch = world.start().await;
    let address = switch.running.session_addr();
    let tls = device(&world, DEVICE);

    let mut held = Vec::new();
    for host in 2..6 {
        let (socket, first) = forge(host, address, &tls).await;
        assert!(!is_retry(first), "{first:02x}");
        held.push(socket);
    }
    let (_socket, first) = forge(6, address, &tls).await;
    assert!(is_retry(first), "{first:02x}");
    // Who is where it says gets in, if one round trip later.
    let mut client = session(address, &tls).await;
    ask(&mut client).await;
    // Handshakes are held until the stream is there.
    let mut silent = Vec::new();
    for _ in 0..4 {
        let (endpoint, connecting) = begin(address, &tls);
        silent.push((endpoint, tokio::time::timeout(PATIENCE, connecting).await.unwrap().unwrap()));
    }
    let began = Instant::now();
    let (_endpoint, connecting) = begin(address, &tls);
    let refused = tokio::time::timeout(PATIENCE, connecting).await.unwrap().unwrap_err();

    assert!(refused.to_string().contains("refused"), "{refused}");
    assert!(began.elapsed() < Duration::from_secs(2));
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn who_forges_the_address_of_another_takes_half_of_its_share_at_most() {
    let mut world = World::new();
    world.config.sessions.quic_handshakes_max = 100;
    world.config.sessions.quic_handshakes_per_source_max = 6;
    let switch = world.start().await;
    let (address, tls) = (switch.running.session_addr(), device(&world, DEVICE));

    for number in 0..10 {
        let (_socket, first) = forge(1, address, &tls).await;
        assert_eq!(is_retry(first), number >= 3, "{number}: {first:02x}");
    }
    let (_socket, of_another) = forge(2, address, &tls).await;

    assert!(!is_retry(of_another), "{of_another:02x}");
    // It has the other half.
    let mut held = Vec::new();
    for _ in 0..3 {
        let (endpoint, connecting) = begin(address, &tls);
        held.push((endpoint, tokio::time::timeout(PATIENCE, connecting).await.unwrap().unwrap()));
    }
    switch.stop().await.unwrap();
}

#[tokio::test]
async fn who_comes_while_the_switch_stops_is_refused_at_once() {
    let world = World::new();
    let switch = world.start().await;
    let (address, tls) = (switch.running.session_addr(), device(&world, DEVICE));
    // A client that takes no leave: nothing of it runs any more.
    let frozen = device(&world, "w702.acme.local");
    let (is_there, wait) = tokio::sync::oneshot::channel();
    let (over, until_over) = std::sync::mpsc::sync_channel::<()>(1);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(session(address, &frozen));
        is_there.send(()).unwrap();
        until_over.recv().unwrap_err();
        let _inside = runtime.enter();
        drop(client);
    });
    wait.await.unwrap();

    switch.trigger();
    let began = Instant::now();
    let (_endpoint, connecting) = begin(address, &tls);
    let refused = tokio::time::timeout(PATIENCE, connecting).await.unwrap().unwrap_err();

    assert!(refused.to_string().contains("refused"), "{refused}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    switch.stop().await.unwrap();
    drop(over);
    thread.join().unwrap();
}

/// Begins a handshake from 127.0.0.`host`, and never goes on; returns the first byte of the answer.
async fn forge(host: u8, address: SocketAddr, tls: &ClientConfig) -> (tokio::net::UdpSocket, u8) {
    let socket = tokio::net::UdpSocket::bind(SocketAddr::from(([127, 0, 0, host], 0))).await.unwrap();
    socket.send_to(&initial(tls).await, address).await.unwrap();
    let mut answer = [0; 2048];
    tokio::time::timeout(PATIENCE, socket.recv_from(&mut answer)).await.unwrap().unwrap();
    (socket, answer[0])
}

#[tokio::test]
async fn who_was_not_welcomed_has_little_under_way_that_may_lie_behind_a_gap() {
    let world = World::new();
    let switch = world.start().await;
    let tls = device(&world, DEVICE);
    let mut stranger = dial_quic(switch.running.session_addr(), &tls).await.unwrap();
    let mut client = session(switch.running.session_addr(), &device(&world, "w702.acme.local")).await;

    let before = ahead(&mut stranger.send);
    let mut after = 0;
    let welcomed = async {
        // What it is told with its Welcome may come a packet later.
        while after < 200 << 10 {
            after = ahead(&mut client.quic().send);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, welcomed).await.unwrap();

    assert_eq!((before, after <= 256 << 10), (32 << 10, true), "{after}");
    switch.stop().await.unwrap();
}

/// Writes of an item that never ends what the Switch lets a client send before it has read anything: it is not heard meanwhile.
fn ahead(stream: &mut quinn::SendStream) -> usize {
    let mut item = vec![0; 1 << 20];
    item[..3].copy_from_slice(&[0xff, 0xff, 0x3f]);
    let (mut nobody, mut taken) = (Context::from_waker(Waker::noop()), 0);
    while let Poll::Ready(written) = Pin::new(&mut *stream).poll_write(&mut nobody, &item[taken..]) {
        taken += written.unwrap();
    }
    taken
}

/// Returns the first datagram of a client.
async fn initial(tls: &ClientConfig) -> Vec<u8> {
    let sink = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (_endpoint, _connecting) = begin(sink.local_addr().unwrap(), tls);
    let mut datagram = vec![0; 2048];
    let (length, _) = tokio::time::timeout(PATIENCE, sink.recv_from(&mut datagram)).await.unwrap().unwrap();
    datagram.truncate(length);
    datagram
}

/// RFC 9000 §17.2.5: a long header of type 3.
fn is_retry(first: u8) -> bool {
    first & 0xf0 == 0xf0
}
