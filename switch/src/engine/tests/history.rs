//! A store that was brought back from an older copy of itself.

use muster_pki::DeviceId;

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

#[tokio::test]
async fn a_device_that_has_only_a_key_is_no_evidence_whatever_it_says() {
    let world = World::new().await;
    let key = DeviceId::of_key(b"a key that somebody made up");

    world.connect_after(key.as_str(), u64::MAX).await;
    // What the one before told is shown by the time that this one is answered.
    world.connect_after("w1.acme.local", 0).await;

    assert_eq!(told(&world), None);
}

#[tokio::test]
async fn a_client_that_becomes_another_device_is_no_evidence_and_one_of_an_older_copy_is() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let copy = world.copied();
    let world = world.restart(|_| ());
    let key = DeviceId::of_key(b"the first key").to_string();

    // A lost key, then a certificate, then that of another device: one store.
    let first = world.connect_store(&key, "store", 0).await;
    let other = DeviceId::of_key(b"the next key").to_string();
    let second = world.connect_store(&other, "store", first.connected.epoch.0).await;
    let third = world.connect_store("w4.acme.local", "store", second.connected.epoch.0).await;
    let fourth = world.connect_store("w5.acme.local", "store", third.connected.epoch.0).await;
    world.connect_after("w2.acme.local", 0).await;
    assert_eq!(told(&world), None);

    let world = world.brought_back(copy);
    world.connect_store("w5.acme.local", "store", fourth.connected.epoch.0).await;
    world.connect_after("w2.acme.local", 0).await;
    assert!(told(&world).unwrap().contains("first: w5.acme.local"));
}

fn told(world: &World) -> Option<String> {
    world.engine.reader().status().older_copy
}

#[tokio::test]
async fn two_machines_with_one_certificate_are_told_and_a_lost_store_or_a_reconnect_is_not() {
    let world = World::new().await;
    let told = || {
        let warnings = world.engine.reader().status().warnings;
        warnings.into_iter().find(|warning| warning.contains("from one another"))
    };

    for store in ["before", "before", "after", "after"] {
        world.connect_store("w1.acme.local", store, 0).await;
    }
    world.connect_after("w3.acme.local", 0).await;
    assert_eq!(told(), None, "a store was lost");
    for store in ["one", "other", "one"] {
        world.connect_store("w2.acme.local", store, 0).await;
    }
    world.connect_after("w3.acme.local", 0).await;

    let told = told().unwrap();
    assert!(told.contains("w2.acme.local") && told.contains("(1 such devices"), "{told}");
}
