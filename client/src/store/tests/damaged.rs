//! Records whose checksum does not hold.

use super::*;

#[tokio::test]
async fn a_damaged_event_is_set_aside_and_the_others_are_served() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    for name in ["a", "b", "c"] {
        post(&store, name).await;
    }

    let store = damage(
        store,
        &folder,
        "UPDATE outbox SET record = CAST(x'00' || substr(record, 2) AS BLOB) WHERE sequence = 2",
    )
    .await;

    assert_eq!(event_names(&store).await, [(1, "a".to_owned()), (3, "c".to_owned())]);
    assert_eq!(store.write(|tables| tables.damaged()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_record_that_was_moved_to_another_number_is_damaged() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    post(&store, "a").await;

    let store = damage(store, &folder, "UPDATE outbox SET sequence = 77").await;

    assert_eq!(event_names(&store).await, []);
}

#[tokio::test]
async fn a_damaged_result_leaves_interrupted_behind() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    store.write(|tables| tables.append_result(result(9), NOW)).await.unwrap();

    let store = damage(store, &folder, "UPDATE outbox SET crc = crc + 1").await;

    let results = results(&store).await;
    assert_eq!(results.len(), 1);
    assert_eq!(
        (results[0].state(), results[0].instruction.as_slice()),
        (TargetState::Interrupted, &id(9).as_bytes()[..])
    );
}

#[tokio::test]
async fn an_instruction_whose_journal_record_is_damaged_never_starts() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    store.write(|tables| tables.record_intent(&entry(1))).await.unwrap();

    let store = damage(store, &folder, "UPDATE journal SET expires_at_ms = expires_at_ms + 1").await;

    assert_eq!(store.write(|tables| tables.recover(NOW)).await.unwrap(), []);
    assert_eq!(recall(&store, 1).await, Some(JournalState::Done));
    assert_eq!(results(&store).await[0].state(), TargetState::Interrupted);
}

#[tokio::test]
async fn an_outbox_that_lost_its_name_takes_another_and_higher_numbers() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    post(&store, "a").await;
    let before = outbox_id(&store).await;

    let store = damage(store, &folder, "UPDATE meta SET value = zeroblob(24) WHERE name = 'outbox'").await;

    assert_ne!(outbox_id(&store).await, before);
    assert_eq!(post(&store, "b").await, 2);
}

#[tokio::test]
async fn definitions_are_kept_by_digest_and_a_damaged_one_is_not_served() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let digest = muster_signing::envelope::digest(b"definition");
    store.write(move |tables| tables.keep_definition(digest, b"definition", NOW)).await.unwrap();
    let found = store.write(move |tables| tables.definition(digest, NOW)).await.unwrap();
    assert_eq!(found.as_deref(), Some(&b"definition"[..]));

    let store = damage(store, &folder, "UPDATE definitions SET envelope = x'00'").await;

    assert_eq!(store.write(move |tables| tables.definition(digest, NOW)).await.unwrap(), None);
}

pub(super) async fn damage(store: Store, folder: &TempDir, sql: &str) -> Store {
    store.close().await;
    Connection::open(folder.path().join(FILE)).unwrap().execute_batch(sql).unwrap();
    open(folder)
}
