//! A store whose files are taken away while it is written to, and why an engine ended.

use super::world::*;
use crate::engine::{EngineEnd, EngineError};

#[tokio::test]
async fn a_store_that_was_deleted_or_replaced_under_the_switch_acks_nothing_more_and_ends_it() {
    for file in ["switch.db", "switch.db-wal", "switch.lock"] {
        for then in [Then::Nothing, Then::Another] {
            let world = World::new().await;
            let path = world.dir.path().join(file);

            match then {
                Then::Nothing => std::fs::remove_file(&path).unwrap(),
                Then::Another => {
                    std::fs::copy(&path, world.dir.path().join("backup")).unwrap();
                    std::fs::rename(world.dir.path().join("backup"), &path).unwrap();
                }
            }
            // Either its commit finds the store gone, or the engine has seen it before.
            let again = world.engine.import_licence(world.licence(2)).await;

            let EngineEnd::Store { says, exit_code } = ended(&world).await else { panic!("{file} {then:?}") };
            assert_eq!(again.unwrap_err(), EngineError::Closed, "{file} {then:?}");
            assert!(says.contains(&path.display().to_string()), "{says}");
            assert!(says.contains("while the Switch ran"), "{says}");
            assert_eq!(exit_code, 78, "{says}");
        }
    }
}

#[tokio::test]
async fn a_store_whose_folder_was_renamed_ends_a_switch_that_has_nothing_to_write() {
    let world = World::new().await;
    let elsewhere = tempfile::tempdir().unwrap();

    std::fs::rename(world.dir.path(), elsewhere.path().join("data")).unwrap();

    let EngineEnd::Store { says, .. } = ended(&world).await else { panic!("the engine lives") };
    assert!(says.contains("its folder renamed"), "{says}");
}

#[tokio::test]
async fn a_close_whose_last_commit_failed_says_so_and_one_that_did_not_is_closed() {
    let (sound, gone) = (World::new().await, World::new().await);
    std::fs::remove_file(gone.dir.path().join("switch.db")).unwrap();

    assert_eq!(sound.engine.close(), EngineEnd::Closed);
    assert!(matches!(gone.engine.close(), EngineEnd::Store { .. }));
}

/// What comes in a file's place.
#[derive(Debug, Clone, Copy)]
enum Then {
    Nothing,
    Another,
}

async fn ended(world: &World) -> EngineEnd {
    tokio::time::timeout(PATIENCE, world.engine.failed()).await.expect("the engine ends")
}
