//! What is kept of policies, and what is told of it when it is damaged.

use super::damaged::damage;
use super::*;

fn followed(envelope: &[u8]) -> StoredPolicies {
    let current = StoredPolicy::Envelope(envelope.to_vec());
    StoredPolicies { current, highest_serial: 3, ..StoredPolicies::default() }
}

async fn policies(store: &Store) -> StoredPolicies {
    store.write(|tables| tables.policies(NOW)).await.unwrap()
}

async fn keep(store: &Store, policies: StoredPolicies) {
    store.write(move |tables| tables.keep_policies(&policies)).await.unwrap();
}

#[tokio::test]
async fn a_policy_whose_record_is_damaged_or_gone_is_lost_and_not_none() {
    let (cut, gone, all) = (
        "UPDATE meta SET value = substr(value, 2) WHERE name = 'policy'",
        "DELETE FROM meta WHERE name = 'policy'",
        "UPDATE meta SET value = X'ff' WHERE name LIKE 'policy%'",
    );
    for sql in [cut, gone, all] {
        let folder = TempDir::new().unwrap();
        let store = open(&folder);
        assert_eq!(policies(&store).await, StoredPolicies::default(), "nothing was ever kept");
        keep(&store, followed(b"signed")).await;

        let store = damage(store, &folder, sql).await;

        assert_eq!(policies(&store).await.current, StoredPolicy::Lost, "{sql}");
        let store = reopen(store, &folder).await;
        let found = policies(&store).await;
        assert_eq!(found.current, StoredPolicy::Lost, "{sql}: at the next start as well");
        keep(&store, found).await;
        assert_eq!(policies(&store).await.current, StoredPolicy::Lost, "{sql}: whatever else is kept");
        keep(&store, followed(b"a later one")).await;
        assert_eq!(policies(&store).await, followed(b"a later one"));
    }
}

#[tokio::test]
async fn that_no_policy_is_followed_beside_one_that_is_tried_survives_a_restart() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let tried = StoredPolicies {
        trial: Some((NOW, b"tried".to_vec())),
        highest_serial: 1,
        ..StoredPolicies::default()
    };
    keep(&store, tried.clone()).await;

    let store = reopen(store, &folder).await;

    assert_eq!(policies(&store).await, tried);
}
