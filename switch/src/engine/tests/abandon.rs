//! Sessions whose shard gave up waiting for the engine's answer.

use super::world::*;

#[tokio::test]
async fn an_abandoned_session_leaves_its_device_offline() {
    let world = World::new().await;
    let device = "w1.acme.local";
    let session = world.connect(device).await;
    assert_eq!(world.engine.online(), 1);

    world.engine.abandon(device.parse().unwrap(), session.key.shard, session.key.slot).await.unwrap();
    // What was asked before an answered question was done before it.
    world.connect("w2.acme.local").await;

    assert!(!world.engine.is_online(&device.parse().unwrap()));
    assert_eq!(world.prepare("").await.unwrap().online, 1);
}

#[tokio::test]
async fn a_device_that_came_back_at_another_place_keeps_its_session() {
    let world = World::new().await;
    let device = "w1.acme.local";
    let session = world.connect(device).await;

    let (shard, slot) = (session.key.shard, session.key.slot);
    world.engine.abandon(device.parse().unwrap(), shard, slot + 1).await.unwrap();
    world.engine.abandon(device.parse().unwrap(), shard + 1, slot).await.unwrap();
    world.engine.abandon("unknown.acme.local".parse().unwrap(), shard, slot).await.unwrap();
    world.connect("w2.acme.local").await;

    assert!(world.engine.is_online(&device.parse().unwrap()));
    assert_eq!(world.engine.online(), 2);
}
