//! When a device was last seen: now while it has a session, then when the session ended.

use std::time::Duration;

use super::world::*;

const DEVICE: &str = "w1.acme.local";

#[tokio::test]
async fn a_device_was_last_seen_when_its_session_ended() {
    let world = World::new().await;
    let session = world.connect(DEVICE).await;
    world.advance(Duration::from_secs(60));
    assert_eq!(shown(&world), (true, world.now_ms()));

    world.engine.disconnected(session.connected.number, session.key.epoch).await.unwrap();
    settle(&world).await;
    let ended_ms = world.now_ms();
    world.advance(Duration::from_secs(60));

    assert_eq!(shown(&world), (false, ended_ms));
    let listed = world.engine.reader().clients("", &Default::default(), 10).unwrap();
    let listed = listed.items.iter().find(|client| client.device == DEVICE).unwrap();
    assert_eq!(listed.last_seen_at_ms, ended_ms);
    assert_eq!(shown(&world.restart(|_| ())), (false, ended_ms));
}

#[tokio::test]
async fn a_superseded_session_is_no_end() {
    let world = World::new().await;
    let older = world.connect(DEVICE).await;
    world.connect(DEVICE).await;
    world.advance(Duration::from_secs(60));

    world.engine.disconnected(older.connected.number, older.key.epoch).await.unwrap();
    settle(&world).await;

    assert_eq!(shown(&world), (true, world.now_ms()));
}

#[tokio::test]
async fn who_is_online_when_the_switch_stops_was_seen_until_then() {
    let world = World::new().await;
    world.connect(DEVICE).await;
    world.advance(Duration::from_secs(60));
    let stopped_ms = world.now_ms();

    let world = world.restart(|_| ());
    world.advance(Duration::from_secs(60));
    settle(&world).await;

    assert_eq!(shown(&world), (false, stopped_ms));
}

#[tokio::test]
async fn who_was_online_when_the_switch_was_killed_was_seen_some_minutes_before() {
    let world = World::new().await;
    world.connect(DEVICE).await;
    let gone = world.connect("gone.acme.local").await;
    world.advance(Duration::from_secs(6 * 60));
    settle(&world).await;
    let noted_ms = world.now_ms();
    world.advance(Duration::from_secs(60));
    world.engine.disconnected(gone.connected.number, gone.key.epoch).await.unwrap();
    settle(&world).await;
    let ended_ms = world.now_ms();

    let world = world.killed();
    world.advance(Duration::from_secs(60));
    settle(&world).await;

    assert_eq!(shown(&world), (false, noted_ms));
    let gone = world.engine.reader().client(&"gone.acme.local".parse().unwrap()).unwrap();
    assert_eq!(gone.last_seen_at_ms, ended_ms);
    // What was noted is stored for good: it does not depend on the note, which is another one by now.
    assert_eq!(shown(&world.killed()), (false, noted_ms));
}

/// Waits for a commit: what was told before it is on disk.
async fn settle(world: &World) {
    world.connect("other.acme.local").await;
}

fn shown(world: &World) -> (bool, i64) {
    let client = world.engine.reader().client(&DEVICE.parse().unwrap()).unwrap();
    (client.online, client.last_seen_at_ms)
}
