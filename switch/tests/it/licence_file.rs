//! A Switch that follows a licence's file (G6).

use crate::degraded::{status, until_ready, until_ready_says};
use crate::licence_server::licence;
use crate::world::World;

#[tokio::test]
async fn g6_a_licence_that_is_put_into_the_watched_file_is_taken_and_an_older_one_is_told() {
    let mut world = World::new();
    let file = world.folder().join("licence.cms");
    world.config.licence_file = Some(file.clone());
    let put = |serial: u64| {
        let partial = world.folder().join("licence.partial");
        std::fs::write(&partial, licence(&world, serial)).unwrap();
        std::fs::rename(&partial, &file).unwrap();
    };

    let switch = world.start().await;
    let without = until_ready_says(&switch, "no licence").await;
    put(2);
    until_ready(&switch, |ready| !ready.contains("no licence")).await;
    put(1);
    let older = until_ready_says(&switch, "a serial never goes back").await;
    put(3);
    until_ready(&switch, |ready| !ready.contains("never goes back")).await;

    assert_eq!(status(&world, &switch).await.licence_serial, 3);
    assert!(without.contains(r#""licence_file":{"state":"ready""#), "{without}");
    assert!(older.contains(r#""licence_file":{"state":"degraded""#), "{older}");
    switch.stop().await.unwrap();
}
