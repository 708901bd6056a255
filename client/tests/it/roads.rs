//! By which road the client comes: QUIC where it can, WebSocket where it cannot, and never both.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use muster_client::{Config, TransportChoice};
use muster_proto::session::quic::Close;
use muster_proto::session::v1::{CloseReason, Lane};
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::lab::{Lab, instruction};
use crate::policies::{at, switches};
use crate::switch::FakeSwitch;

/// Long enough for a handshake on a busy machine.
const HEAD_START: Duration = Duration::from_secs(10);

fn racing(lab: &Lab) -> Config {
    let mut config = lab.config();
    config.session.transport = TransportChoice::Race;
    config.session.quic_head_start = HEAD_START;
    config
}

#[tokio::test]
async fn quic_is_preferred_and_websocket_not_even_tried() {
    let (switch, lab) = FakeSwitch::listen_both().await;
    let client = lab.start_with(racing(&lab)).await;

    let session = switch.accept_by_quic(&lab).await;

    client.wait_for(|status| status.connected && status.transport == "quic").await;
    assert!(switch.listener.accept().now_or_never().is_none());
    drop(session);
    client.stop().await;
}

#[tokio::test]
async fn where_udp_is_dropped_websocket_is_taken_and_the_head_start_lost_once() {
    for swallows in [false, true] {
        let switch = FakeSwitch::listen().await;
        let lab = Lab::new(switch.port(), 1);
        // Nobody listens, or somebody who never answers.
        let swallowing =
            swallows.then(|| std::net::UdpSocket::bind(switch.listener.local_addr().unwrap()).unwrap());
        let mut config = racing(&lab);
        config.session.quic_head_start = Duration::from_millis(300);
        let client = lab.start_with(config).await;

        let mut session = switch.accept(&lab).await;
        client.wait_for(|status| status.connected && status.transport == "websocket").await;
        session.close(CloseReason::Shutdown).await;
        let second = switch.accept(&lab).await;

        if let Some(socket) = swallowing {
            // Each attempt has a socket of its own.
            assert_eq!(senders(&socket).len(), 1);
        }
        drop((session, second));
        client.stop().await;
    }
}

#[tokio::test]
async fn what_lets_a_handshake_over_quic_through_and_no_more_is_left_for_websocket() {
    let (switch, lab) = FakeSwitch::listen_both().await;
    let client = lab.start_with(racing(&lab)).await;
    // It stands, and nothing of the protocol comes back.
    let silent = switch.quic().accept().await.unwrap().await.unwrap();

    let session = tokio::time::timeout(Duration::from_secs(60), switch.accept(&lab)).await.unwrap();

    client.wait_for(|status| status.connected && status.transport == "websocket").await;
    drop((silent, session));
    client.stop().await;
}

#[tokio::test]
async fn a_trial_of_a_policy_leaves_quic_for_websocket_where_no_welcome_comes_by_it() {
    let (old, lab) = FakeSwitch::listen_both().await;
    let new = loop {
        if let Some(new) = FakeSwitch::listen().await.with_quic(&lab) {
            break new;
        }
    };
    let mut config = racing(&lab);
    config.policy.trial = Duration::from_secs(300);
    let client = lab.start_with(config).await;
    let mut session = old.accept_by_quic(&lab).await;
    session.policy = Some(lab.policy(1, &switches(&[&at(&new)])));
    session.follows(0).await;
    client.wait_for_trial(&mut session, 1).await;

    let trial = async {
        let silent = new.quic().accept().await.unwrap().await.unwrap();
        let moved = new.accept_living(&lab).await;
        (silent, moved)
    };
    let tried = tokio::select! {
        () = session.answer() => unreachable!(),
        tried = tokio::time::timeout(Duration::from_secs(60), trial) => tried.unwrap(),
    };

    session.end().await;
    client.wait_for(|status| status.policy_serial == 1 && status.transport == "websocket").await;
    drop(tried);
    client.stop().await;
}

#[tokio::test]
async fn two_sessions_running_that_fall_silent_over_quic_are_followed_by_one_over_websocket() {
    let (switch, lab) = FakeSwitch::listen_both().await;
    switch.end_the_silent(&lab, Duration::from_secs(2));
    let client = lab.start_with(racing(&lab)).await;

    for epoch in [1, 2] {
        let silent = switch.accept_by_quic(&lab).await;
        client.wait_for(|status| status.transport == "quic" && status.epoch == epoch).await;
        client.wait_for(|status| !status.connected || status.epoch > epoch).await;
        drop(silent);
    }
    let session = switch.accept(&lab).await;

    client.wait_for(|status| status.connected && status.transport == "websocket").await;
    assert!(switch.quic().accept().now_or_never().is_none(), "QUIC was tried once more");
    drop(session);
    client.stop().await;
}

#[tokio::test]
async fn what_the_switch_itself_ends_before_a_welcome_does_not_speak_against_quic() {
    let (switch, lab) = FakeSwitch::listen_both().await;
    let client = lab.start_with(racing(&lab)).await;

    let connection = switch.quic().accept().await.unwrap().await.unwrap();
    connection.close(Close::Done.code().into(), b"the Switch stops");
    let session = switch.accept_by_quic(&lab).await;

    client.wait_for(|status| status.connected && status.transport == "quic").await;
    assert!(switch.listener.accept().now_or_never().is_none(), "it went by TCP first");
    drop(session);
    client.stop().await;
}

#[tokio::test]
async fn a_switch_that_has_no_room_by_quic_is_called_so_again_next_time() {
    let (switch, lab) = FakeSwitch::listen_both().await;
    let client = lab.start_with(racing(&lab)).await;

    switch.quic().accept().await.unwrap().refuse();
    let mut session = switch.accept(&lab).await;
    client.wait_for(|status| status.connected && status.transport == "websocket").await;
    session.close(CloseReason::Shutdown).await;

    let session = switch.accept_by_quic(&lab).await;
    client.wait_for(|status| status.connected && status.transport == "quic").await;
    assert!(switch.listener.accept().now_or_never().is_none(), "it went by TCP first");
    drop(session);
    client.stop().await;
}

#[tokio::test]
async fn where_quic_held_last_it_is_waited_for_longer_than_where_nothing_is_known() {
    let (switch, lab) = FakeSwitch::listen_both().await;
    let mut config = racing(&lab);
    config.session.quic_head_start = Duration::from_secs(1);
    let client = lab.start_with(config).await;
    let mut session = switch.accept_by_quic(&lab).await;
    client.wait_for(|status| status.connected && status.transport == "quic").await;
    session.close(CloseReason::Shutdown).await;

    // A Switch to which everyone comes back at once.
    let incoming = switch.quic().accept().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(switch.listener.accept().now_or_never().is_none(), "it went by TCP");
    let connection = incoming.await.unwrap();

    let (_send, mut receive) = connection.accept_bi().await.unwrap();
    let hello = receive.read_chunk(1 << 10, true).await.unwrap();
    assert!(hello.is_some());
    drop(connection);
    client.stop().await;
}

#[tokio::test]
async fn where_tcp_is_dropped_quic_is_taken_whoever_comes_first() {
    let (switch, lab) = FakeSwitch::listen_both().await;
    let mut config = racing(&lab);
    // TCP connects, in the kernel's backlog, and shakes no hands.
    config.session.quic_head_start = Duration::ZERO;
    let client = lab.start_with(config).await;

    let session = switch.accept_by_quic(&lab).await;

    client.wait_for(|status| status.connected && status.transport == "quic").await;
    drop(session);
    client.stop().await;
}

#[tokio::test]
async fn whichever_road_wins_the_client_says_hello_once_and_delivers_once() {
    let (switch, lab) = FakeSwitch::listen_both().await;
    let mut config = racing(&lab);
    // Both begin at once, each time.
    (config.session.quic_head_start, config.session.quic_rest) = (Duration::ZERO, Duration::ZERO);
    let client = lab.start_with(config).await;
    let mut sequences = BTreeSet::new();

    for round in 0..12_u8 {
        let mut session = switch.accept_by_any(&lab).await;
        if round == 0 {
            session.order(&lab.order(1)).await;
            let (result, _) = session.result().await;
            assert!(sequences.insert(result.sequence));
            session.ack(Lane::Results, result.sequence).await;
        }
        // A second Hello beside this one would be a session, too.
        let beside = tokio::time::timeout(Duration::from_millis(50), switch.accept_by_any(&lab)).await;
        assert!(beside.is_err(), "round {round}");
        session.close(CloseReason::Shutdown).await;
    }
    client.stop().await;
}

#[tokio::test]
async fn a_session_survives_a_change_of_the_address_on_the_way() {
    check_survives(|relay| relay.change.notify_one()).await;
}

#[tokio::test]
async fn a_session_survives_that_nothing_more_comes_through_from_its_socket() {
    check_survives(|relay| relay.block.notify_one()).await;
}

async fn check_survives(happens: impl FnOnce(&Relay)) {
    let switch = FakeSwitch::listen().await;
    let relay = Relay::to(switch.listener.local_addr().unwrap()).await;
    let lab = Lab::new(relay.port, 1);
    let switch = switch.with_quic(&lab).expect("a port that is free by UDP, too");
    let mut config = racing(&lab);
    config.session.transport = TransportChoice::Quic;
    config.session.quic_keep_alive = Duration::from_millis(200);
    let client = lab.start_with(config).await;
    let mut session = switch.accept_by_quic(&lab).await;
    let before = session.remote();

    happens(&relay);
    session.order(&lab.order(1)).await;
    let (result, _) = session.result().await;

    assert_eq!(result.instruction, instruction(1).to_vec());
    assert_ne!(session.remote(), before);
    session.ack(Lane::Results, result.sequence).await;
    drop(session);
    client.stop().await;
}

#[tokio::test]
async fn a_switch_that_takes_no_session_over_quic_says_why_and_for_how_long() {
    for (close, text, told) in [
        (Close::Refused, "blocked (R2)".to_owned(), "the Switch refuses this device: blocked (R2)"),
        (
            Close::Busy,
            Close::busy(Duration::from_secs(3), "it is full"),
            "503 Service Unavailable: it is full",
        ),
    ] {
        let (switch, lab) = FakeSwitch::listen_both().await;
        let mut config = racing(&lab);
        config.session.transport = TransportChoice::Quic;
        let client = lab.start_with(config).await;

        let connection = switch.quic().accept().await.unwrap().await.unwrap();
        connection.close(close.code().into(), text.as_bytes());

        client.wait_for(|status| status.disconnected_because.contains(told)).await;
        client.stop().await;
    }
}

#[tokio::test]
async fn c1_a_device_without_a_certificate_proves_its_key_before_its_hello() {
    let (switch, lab) = FakeSwitch::listen_both().await;
    let mut config = lab.without_certificate();
    config.session.transport = TransportChoice::Quic;
    let client = lab.start_with(config).await;

    let (session, device) = switch.accept_by_key_over_quic(&lab).await;

    client.wait_for(|status| status.connected && status.device == device.to_string()).await;
    drop(session);
    client.stop().await;
}

/// Returns who has sent something to a socket that nobody reads.
fn senders(socket: &std::net::UdpSocket) -> BTreeSet<SocketAddr> {
    socket.set_nonblocking(true).unwrap();
    let mut found = BTreeSet::new();
    let mut datagram = [0; 2048];
    while let Ok((_, from)) = socket.recv_from(&mut datagram) {
        found.insert(from);
    }
    found
}

/// What translates addresses on the way, as many do: each client has a port of its own there.
struct Relay {
    port: u16,
    /// Takes another port for the client.
    change: Arc<Notify>,
    /// Lets nothing through any more from or to where the client is.
    block: Arc<Notify>,
    _task: JoinSet<()>,
}

impl Relay {
    async fn to(switch: SocketAddr) -> Self {
        let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = near.local_addr().unwrap().port();
        let (change, block) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (told, blocks) = (Arc::clone(&change), Arc::clone(&block));
        let far = move || async move { UdpSocket::bind(SocketAddr::new(switch.ip(), 0)).await.unwrap() };
        let mut task = JoinSet::new();
        task.spawn(async move {
            let (mut out, mut client, mut blocked) = (far().await, None, None);
            let (mut from_client, mut from_switch) = ([0; 2048], [0; 2048]);
            loop {
                tokio::select! {
                    () = told.notified() => out = far().await,
                    () = blocks.notified() => blocked = client,
                    Ok((length, from)) = near.recv_from(&mut from_client) => {
                        if blocked == Some(from) {
                            continue;
                        }
                        if blocked.is_some() && client != Some(from) {
                            out = far().await;
                        }
                        client = Some(from);
                        drop(out.send_to(&from_client[..length], switch).await);
                    }
                    Ok((length, _)) = out.recv_from(&mut from_switch) => {
                        if let Some(client) = client.filter(|client| blocked != Some(*client)) {
                            drop(near.send_to(&from_switch[..length], client).await);
                        }
                    }
                }
            }
        });
        Self { port, change, block, _task: task }
    }
}
