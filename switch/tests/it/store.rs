//! A store that cannot be used: the exit code says whether a restart may help.

use muster_switch::{StartError, StoreError};

use crate::world::World;

#[tokio::test]
async fn a_store_held_by_another_switch_may_be_free_later() {
    let world = World::new();
    let running = world.start().await;

    let refused = world.try_start().await.err().unwrap();

    assert!(matches!(refused, StartError::Store(StoreError::Held { .. })), "{refused}");
    assert_eq!(refused.exit_code(), 69);
    assert!(refused.to_string().contains("is held by another Switch (process "), "{refused}");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_damaged_store_is_for_people() {
    let world = World::new();
    std::fs::create_dir(&world.config.data_dir).unwrap();
    let file = world.config.data_dir.join("switch.db");
    std::fs::write(&file, [b'x'; 8192]).unwrap();

    let refused = world.try_start().await.err().unwrap();

    assert!(matches!(refused, StartError::Store(StoreError::Damaged { .. })), "{refused}");
    assert_eq!(refused.exit_code(), 78);
    assert!(refused.to_string().starts_with(&format!("store {}: damaged", file.display())), "{refused}");
}
