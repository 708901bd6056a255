//! What messages cost while their clients take nothing, over real sockets; and that nothing of them is lost.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;
use std::time::{Duration, Instant};

use muster_pki::authority::{Authority, Request};
use muster_pki::{Role, UnixTime, pem};
use muster_proto::frame;
use muster_proto::ids::{Epoch, InstructionId, OutboxId};
use muster_proto::limits::FRAME_BYTES_MAX;
use muster_proto::session::quic::ALPN;
use muster_proto::session::switch::{SwitchSession, SwitchSessionConfig, WelcomeArgs};
use muster_proto::session::v1::frame::Body;
use muster_proto::session::v1::{Frame, Hello, InclusionProof, Lane, SequenceRange};
use muster_service::credentials::provider;
use muster_service::line::Keying;
use muster_service::quic;
use rustls::pki_types::{PrivateKeyDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::drive::End;
use super::super::pace::Turn;
use super::super::session::{Due, Identity, Session};
use super::super::table::Table;
use super::*;
use crate::engine::{ShardMessage, Urgency};

/// The longest envelope.
const LONG: usize = 256 << 10;

/// Clients that read nothing.
const READERS: usize = 120;

/// What a test may need besides: buffers of the thread, the allocator's pages.
const SLACK_BYTES: usize = 6 << 20;

#[tokio::test]
async fn a_long_order_costs_a_record_for_each_who_does_not_read_and_arrives_whole_when_it_does() {
    let order = long_order();
    let mut pairs = over_tls(READERS, 16 << 10).await;
    let before = resident_bytes();

    for (wire, _) in &mut pairs {
        until_blocked(wire, &order).await;
    }

    let grown = resident_bytes().saturating_sub(before);
    let bound = READERS * (BATCH_BYTES + 64);
    assert!(unsent_bytes() <= bound, "{} sealed, wanted {bound} at most", unsent_bytes());
    assert!(grown <= bound + SLACK_BYTES, "grew by {grown}, wanted {bound} at most: one copy has {LONG}");
    arrives_whole(pairs.swap_remove(7), &order).await;
    drop(pairs);
    assert_eq!(unsent_bytes(), 0);
}

#[tokio::test]
async fn beyond_the_bound_of_a_shard_records_are_small_and_arrive_all_the_same() {
    let order = long_order();
    let mut pairs = over_tls(READERS, 16 << 10).await;
    let max = 10 * BATCH_BYTES;
    bound_unsent_bytes(max);

    for (wire, _) in &mut pairs {
        until_blocked(wire, &order).await;
    }

    let bound = max + BATCH_BYTES + 64 + READERS * (CROWDED_BATCH_BYTES + 64);
    assert!(unsent_bytes() <= bound, "{} sealed, wanted {bound} at most", unsent_bytes());
    assert!(is_crowded());
    arrives_whole(pairs.swap_remove(90), &order).await;
}

#[tokio::test]
async fn who_is_behind_waits_for_its_next_order_while_too_much_waits_and_others_do_not() {
    let mut pairs = over_tls(2, 16 << 10).await;
    until_blocked(&mut pairs[0].0, &long_order()).await;
    let table = Table::default();
    let clients: Vec<_> =
        pairs.into_iter().map(|(wire, client)| (table_session(&table, wire), client)).collect();
    let order = ShardMessage::Order {
        instruction: InstructionId::from([1; 16]),
        frame: Bytes::from_static(b"an order"),
        targets: Arc::new([0, 1].into_iter().collect()),
        proofs: None,
        urgency: Urgency::Order,
    };
    let told = RefCell::new(Vec::new());
    let turn = || table.turn(|session| told.borrow_mut().push(session.slot));

    bound_unsent_bytes(1);
    table.handle([order], |_| {});
    assert_eq!((turn(), turn()), (Turn::More, Turn::Behind));
    bound_unsent_bytes(usize::MAX);

    assert_eq!(turn(), Turn::Done);
    assert_eq!(*told.borrow(), [1, 0]);
    drop(clients);
}

#[tokio::test]
async fn a_long_order_over_quic_is_held_once_for_all_who_do_not_read() {
    let order = long_order();
    let mut pairs = over_quic(READERS).await;
    let before = resident_bytes();

    for (wire, _) in &mut pairs {
        until_blocked(wire, &order).await;
    }

    let grown = resident_bytes().saturating_sub(before);
    let bound = READERS * (16 << 10);
    assert!(grown <= bound + SLACK_BYTES, "grew by {grown}, wanted {bound} at most: one copy has {LONG}");
    let (mut wire, (_connection, mut receive)) = pairs.swap_remove(7);
    let mut wanted = Vec::new();
    item::put(&mut wanted, &order.into_bytes());
    let mut heard = vec![0; wanted.len()];
    let (read, ()) = tokio::join!(receive.read_exact(&mut heard), all_told(&mut wire));
    read.unwrap();
    assert!(heard == wanted, "what came is not what was said");
}

#[tokio::test]
async fn a_session_that_is_closed_by_what_it_is_told_is_ended_by_its_task_at_once() {
    let (wire, client) = over_tls(1, 256 << 10).await.swap_remove(0);
    let session = established(wire);
    let woken = Arc::new(Woken::default());
    session.waker.register(&Arc::clone(&woken).into());
    assert!(session.tell(), "the Welcome leaves at once");
    let order = Due {
        instruction: InstructionId::from([1; 16]),
        frame: long_order(),
        since: Instant::now(),
        urgency: Urgency::Order,
    };
    session.push_order(order);
    session.fill();
    assert_eq!(woken.0.load(Ordering::SeqCst), 0);

    // Every other one, so that none follows on another.
    let ranges = (1..=4_097).map(|at| SequenceRange { first: 2 * at, last: 2 * at }).collect();
    session.push_ack(Lane::Events, ranges, 0);
    session.tell();

    assert!(session.half(|half| half.is_closed()));
    assert!(woken.0.load(Ordering::SeqCst) > 0, "its task is not woken");
    assert!(session.take_written().is_empty(), "the order was dropped, and counts as sent");
    drop(client);
}

#[tokio::test]
async fn orders_that_a_broken_socket_did_not_take_were_not_sent() {
    let (wire, client) = over_tls(1, 64 << 10).await.swap_remove(0);
    let session = established(wire);
    assert!(session.tell(), "the Welcome leaves at once");
    // It is reset: its Welcome is unread.
    drop(client);

    session.push_order(Due {
        instruction: InstructionId::from([1; 16]),
        frame: Bytes::from_static(b"an order").into(),
        since: Instant::now(),
        urgency: Urgency::Order,
    });

    assert!(!session.tell());
    assert_eq!(session.over(), Some(End::Peer));
    assert!(session.take_written().is_empty(), "what was not written counts as sent");
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A session that has its Welcome to write.
fn established(wire: Wire) -> Session {
    let now = Instant::now();
    let mut half = SwitchSession::new(SwitchSessionConfig::default(), now);
    let hello = Hello { outbox_id: vec![1; 16], versions: vec![1], ..Hello::default() };
    half.handle_message(&frame::encode(&Frame { proof: None, body: Some(Body::Hello(hello)) }), now);
    let welcome = WelcomeArgs {
        epoch: Epoch(1),
        time_ms: 1,
        licence_digest: None,
        highest_sequence: 0,
        highest_by_session: None,
        stops_due: 0,
    };
    half.push_welcome(welcome, now);
    Session::new(0, "w1.acme.local".parse().unwrap(), wire, half, 1 << 20)
}

/// An order as it goes to many, with one's proof behind it.
fn long_order() -> Encoded {
    frame::with_proof(
        &Bytes::from(vec![7; LONG]),
        &InclusionProof { leaf_index: 1, hashes: vec![vec![3; 32]; 17] },
    )
}

/// Says a message, as far as it goes while nobody reads.
async fn until_blocked(wire: &mut Wire, message: &Encoded) {
    let mut left = Some((Kind::Binary, message.clone()));
    poll_fn(|context| match wire.poll_tell(context, || left.take()).unwrap() {
        Written::All => panic!("its socket takes everything"),
        Written::Blocked { .. } => Poll::Ready(()),
        Written::Yielded => Poll::Pending,
    })
    .await;
}

/// Waits until what was said has left.
async fn all_told(wire: &mut Wire) {
    poll_fn(|context| match wire.poll_tell(context, || None).unwrap() {
        Written::All => Poll::Ready(()),
        Written::Blocked { .. } | Written::Yielded => Poll::Pending,
    })
    .await;
}

/// Reads what was said.
async fn arrives_whole((mut wire, mut client): (Wire, TlsStream<TcpStream>), message: &Encoded) {
    let mut wanted = Vec::new();
    websocket::write_message(&mut wanted, Kind::Binary, &message.clone().into_bytes());
    let mut heard = vec![0; wanted.len()];
    let (read, ()) = tokio::join!(client.read_exact(&mut heard), all_told(&mut wire));
    read.unwrap();
    assert!(heard == wanted, "what came is not what was said");
}

/// Puts a session with an identity into a table; the number of its device is its slot.
fn table_session(table: &Table, wire: Wire) -> Rc<Session> {
    let half = SwitchSession::new(SwitchSessionConfig::default(), Instant::now());
    let session = table.insert("w1.acme.local".parse().unwrap(), wire, half, 1 << 20).unwrap();
    let identity = Identity { number: session.slot, epoch: Epoch(1), outbox: OutboxId::from([1; 16]) };
    table.connecting();
    table.connected(&session, identity, &[]);
    session
}

/// Returns the bytes of this process that are in memory.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

/// Connections whose sockets take about so many bytes.
async fn over_tls(count: usize, socket_bytes: u32) -> Vec<(Wire, TlsStream<TcpStream>)> {
    let (server, client) = configs();
    let socket = TcpSocket::new_v4().unwrap();
    // Connections have it of their listener.
    socket.set_send_buffer_size(socket_bytes).unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener: TcpListener = socket.listen(16).unwrap();
    let address = listener.local_addr().unwrap();
    let mut pairs = Vec::new();
    for _ in 0..count {
        let near = async {
            Line::accept(Arc::clone(&server), listener.accept().await.unwrap().0, Keying::Closed).await
        };
        let far = async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(socket_bytes).unwrap();
            let stream = socket.connect(address).await.unwrap();
            TlsConnector::from(Arc::clone(&client)).connect(name(), stream).await
        };
        let (near, far) = tokio::join!(near, far);
        pairs.push((Wire::new(near.unwrap().line, FRAME_BYTES_MAX), far.unwrap()));
    }
    pairs
}

type QuicEnd = (quinn::Connection, quinn::RecvStream);

/// Connections whose clients let a few kilobytes come before they read.
async fn over_quic(count: usize) -> Vec<(Wire, QuicEnd)> {
    let (server, client) = configs();
    let (mut server, mut client) = (ServerConfig::clone(&server), ClientConfig::clone(&client));
    (server.alpn_protocols, client.alpn_protocols) = (vec![ALPN.to_vec()], vec![ALPN.to_vec()]);
    let transport = Arc::new(quic::server_transport(Duration::from_secs(60)));
    let server = quic::server_config(Arc::new(server), &transport).unwrap();
    let mut transport = quic::client_transport(None);
    transport.stream_receive_window(4_096_u32.into());
    let client = quic::client_config(client, &Arc::new(transport)).unwrap();
    let near = quinn::Endpoint::server(server, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let far = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = near.local_addr().unwrap();
    let mut pairs = Vec::new();
    for _ in 0..count {
        let accepted = async {
            let connection = near.accept().await.unwrap().await.unwrap();
            let streams = connection.accept_bi().await.unwrap();
            Wire::over_quic(QuicLine::new(connection, streams), Vec::new(), FRAME_BYTES_MAX)
        };
        let called = async {
            let connection = far.connect_with(client.clone(), address, "localhost").unwrap().await.unwrap();
            let (mut send, receive) = connection.open_bi().await.unwrap();
            send.write_all(b"x").await.unwrap();
            // It ends the stream when it is dropped, which is all the same here.
            (connection, receive)
        };
        pairs.push(tokio::join!(accepted, called));
    }
    pairs
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let (now, day) = (UnixTime::now(), Duration::from_secs(24 * 60 * 60));
    let root = Authority::root("Root", 30 * day, now).unwrap();
    let request = Request {
        common_name: "localhost".to_owned(),
        dns_names: vec!["localhost".to_owned()],
        ip_addresses: Vec::new(),
        role: Role::Switch,
        not_before: now,
        not_after: UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + day),
        crl_url: None,
    };
    let issued = root.issue(&request).unwrap();
    let chain = pem::certificates(issued.chain_pem.as_bytes(), "chain").unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    for root in pem::certificates(root.certificate_pem().as_bytes(), "root").unwrap() {
        roots.add(root).unwrap();
    }
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}
