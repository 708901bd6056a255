//! Clients that never stop sending: their deadlines hold all the same, and others do not wait for them.

use std::time::Duration;

use muster_pki::Role;
use muster_proto::session::PATH;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use crate::client::{Client, Socket, dial};
use crate::pki::Ends;
use crate::strangers::until_counted;
use crate::world::{PATIENCE, Switch, World};

/// Longer than any test waits: what passes within a test did not wait for it.
const LONG: Duration = Duration::from_secs(300);

/// Long enough to be told apart from none.
const SHORT: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_does_not_put_off_the_deadline_of_the_hello() {
    let mut world = World::new();
    (world.config.sessions.hello_deadline, world.config.sessions.write_deadline) = (SHORT, LONG);
    let switch = world.start().await;
    let (mut reading, mut writing) = tokio::io::split(connection(&world, &switch, "w701.acme.local").await);

    let flood = async { while writing.write_all(&pongs()).await.is_ok() {} };
    let ended = async { while reading.read(&mut [0; 4096]).await.is_ok_and(|bytes| bytes > 0) {} };
    tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            () = flood => {}
            () = ended => {}
        }
    })
    .await
    .unwrap();

    until_ended(&switch, "HELLO_TIMEOUT").await;
    switch.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_who_never_reads_does_not_put_off_the_deadline_of_a_write() {
    let mut world = World::new();
    (world.config.sessions.hello_deadline, world.config.sessions.write_deadline) = (LONG, SHORT);
    let switch = world.start().await;
    let mut flooding = connection(&world, &switch, "w701.acme.local").await;

    let pings = block(0x89, 125);
    let flood = async { while flooding.write_all(&pings).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, flood).await.unwrap();

    until_ended(&switch, "stalled").await;
    switch.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_broke_the_websocket_behind_a_flood_of_pings_hears_why() {
    let world = World::new();
    let switch = world.start().await;
    for pings in [0_usize, 1, 7, 128, 129, 256, 20_000] {
        let (mut reading, mut writing) =
            tokio::io::split(connection(&world, &switch, "w701.acme.local").await);
        let mut sent = frame(0x89, 125).repeat(pings);
        // RFC 6455 §5.1: a client masks.
        sent.extend([0x81, 0x01, b'x']);

        let send = async { writing.write_all(&sent).await.unwrap() };
        let mut heard = Vec::new();
        let hear = async { while reading.read_buf(&mut heard).await.is_ok_and(|bytes| bytes > 0) {} };
        tokio::time::timeout(PATIENCE, async { tokio::join!(send, hear) }).await.unwrap();

        assert!(
            heard.ends_with(&[0x88, 0x02, 0x03, 0xea]),
            "{pings} pings before it: {:?}",
            heard.last_chunk::<64>()
        );
        let why = b"without a mask";
        assert!(heard.windows(why.len()).any(|some| some == why), "{pings} pings before it");
    }
    switch.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_with_a_client_that_floods_takes_others_in() {
    let mut world = World::new();
    world.config.shards = 1;
    let switch = world.start().await;
    let mut flooding = connection(&world, &switch, "w701.acme.local").await;
    let mut floods = JoinSet::new();
    floods.spawn(async move { while flooding.write_all(&pongs()).await.is_ok() {} });

    for outbox in 1..=20 {
        let tls = world
            .pki
            .tls(Some(&world.pki.issue(Role::Device, &format!("x{outbox}.acme.local"), Ends::InAYear)), &[]);
        let (client, _) = Client::connect(switch.running.session_addr(), tls, outbox).await;
        client.vanish();
    }

    assert!(floods.try_join_next().is_none(), "it flooded all the while");
    drop(floods);
    switch.stop().await.unwrap();
}

/// A WebSocket's connection whose client has said nothing yet.
async fn connection(
    world: &World,
    switch: &Switch,
    name: &str,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let tls = world.pki.tls(Some(&world.pki.issue(Role::Device, name, Ends::InAYear)), &[]);
    let socket: Socket = dial(switch.running.session_addr(), tls, PATH).await.unwrap();
    socket.into_inner()
}

/// A frame of a client, whose mask changes nothing.
fn frame(head: u8, bytes: u8) -> Vec<u8> {
    let mut frame = vec![head, 0x80 | bytes, 0, 0, 0, 0];
    frame.extend(std::iter::repeat_n(b'x', bytes.into()));
    frame
}

/// Frames of 64 KiB in all.
fn block(head: u8, bytes: u8) -> Vec<u8> {
    let frame = frame(head, bytes);
    frame.repeat((64 << 10) / frame.len())
}

/// What needs no answer.
fn pongs() -> Vec<u8> {
    block(0x8a, 0)
}

async fn until_ended(switch: &Switch, reason: &str) {
    until_counted(switch, &format!("muster_switch_sessions_ended_total{{reason=\"{reason}\"}}"), 1).await;
}
