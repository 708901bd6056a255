//! A store that was brought back from an older copy of itself.

use super::world::*;

#[tokio::test]
async fn a_store_brought_back_from_a_copy_is_told_with_how_many_devices_remember_more() {
    let world = World::new().await;
    for device in ["w1.acme.local", "w2.acme.local", "w3.acme.local"] {
        world.connect(device).await;
    }
    let copy = world.copied();
    let [first, second] =
        [world.connect_after("w1.acme.local", 1).await, world.connect_after("w2.acme.local", 2).await];
    assert_eq!(told(&world), None, "it is the newest store");

    let world = world.brought_back(copy);
    let third = world.connect_after("w3.acme.local", 3).await;
    assert_eq!(told(&world), None, "nothing was forgotten of this one");
    assert_eq!(
        third.connected.epoch, first.connected.epoch,
        "an epoch is given twice, so it must not be the measure"
    );
    let again = world.connect_after("w1.acme.local", first.connected.epoch.0).await;
    world.connect_after("w2.acme.local", second.connected.epoch.0).await;
    world.connect_after("w1.acme.local", again.connected.epoch.0).await;

    let told = told(&world).unwrap();
    assert!(
        told.starts_with("2 of the 3 devices that came since the start (first: w1.acme.local)"),
        "{told}"
    );
    assert!(told.contains("put it back") && told.contains("issue again"), "{told}");
    assert!(world.engine.reader().status().warnings.contains(&told));
}

#[tokio::test]
async fn a_device_that_says_any_epoch_is_told_once_and_moves_no_epoch() {
    let world = World::new().await;
    let before = world.connect("w1.acme.local").await;

    let liar = world.connect_after("w9.acme.local", u64::MAX).await;
    world.connect_after("w9.acme.local", u64::MAX).await;
    world.engine.remove("w9.acme.local".parse().unwrap()).await.unwrap();
    let back = world.connect_after("w9.acme.local", u64::MAX - 1).await;
    let after = world.connect_after("w1.acme.local", before.connected.epoch.0).await;

    let epochs = [before, liar, back, after].map(|session| session.connected.epoch.0);
    assert_eq!(epochs, [1, 2, 4, 5]);
    let told = told(&world).unwrap();
    assert!(told.starts_with("1 of the "), "{told}");
}

#[tokio::test]
async fn a_device_that_was_removed_or_comes_after_a_restart_is_no_evidence() {
    let world = World::new().await;
    let first = world.connect("w1.acme.local").await;
    world.engine.remove("w1.acme.local".parse().unwrap()).await.unwrap();
    let second = world.connect_after("w1.acme.local", first.connected.epoch.0).await;
    let within = told(&world);

    let world = world.restart(|_| ());
    world.connect_after("w1.acme.local", second.connected.epoch.0).await;

    assert_eq!((within, told(&world)), (None, None));
}

fn told(world: &World) -> Option<String> {
    world.engine.reader().status().older_copy
}
