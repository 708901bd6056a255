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

#[tokio::test]
async fn what_must_not_go_back_outlasts_damage_to_either_of_its_records_one_after_the_other() {
    let folder = TempDir::new().unwrap();
    let mut store = open(&folder);
    store
        .write(|tables| {
            tables.raise_time_floor(NOW)?;
            tables.keep_licence(b"licence", 7)?;
            tables.keep_policies(&StoredPolicies { highest_serial: 9, ..StoredPolicies::default() })?;
            tables.mark_restored(NOW - 5, NOW)?;
            tables.keep_version("Acme-A", &semver::Version::new(1, 2, 3))?;
            tables.keep_version("Acme-B", &semver::Version::new(2, 0, 0))
        })
        .await
        .unwrap();

    for (sql, aside) in [
        (
            "UPDATE meta SET value = zeroblob(8) WHERE name IN ('time_floor', 'licence_serial', 'policy_serial', 'restored_at')",
            4,
        ),
        ("UPDATE meta SET crc = crc + 1 WHERE name LIKE '%.again'", 8),
        ("UPDATE versions SET version = '0.0.1' WHERE name = 'Acme-A'", 9),
        ("UPDATE meta SET value = CAST('0.0.1' AS BLOB) WHERE name LIKE 'version.%'", 11),
        ("UPDATE versions SET name = name || 'x'", 13),
        ("UPDATE meta SET name = name || 'x' WHERE name LIKE 'version.%'", 15),
        // As stores of earlier versions are.
        ("DELETE FROM meta WHERE name LIKE '%.again' OR name LIKE 'version.%'", 15),
        (
            "UPDATE meta SET crc = crc + 1 WHERE name IN ('time_floor', 'licence_serial', 'policy_serial', 'restored_at')",
            19,
        ),
    ] {
        store = damage(store, &folder, sql).await;

        let (floor, licence, policy) = store
            .write(|tables| {
                Ok((
                    tables.time_floor_ms(NOW)?,
                    tables.licence_serial(NOW)?,
                    tables.policies(NOW)?.highest_serial,
                ))
            })
            .await
            .unwrap();
        assert_eq!((floor, licence, policy), (NOW, 7, 9), "{sql}");
        let (restored, versions, damaged) = store
            .write(|tables| Ok((tables.restored_at_ms(NOW)?, tables.versions(NOW)?, tables.damaged()?)))
            .await
            .unwrap();
        assert_eq!((restored, damaged), (NOW - 5, aside), "{sql}");
        let versions: Vec<String> =
            versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        assert_eq!(versions, ["Acme-A 1.2.3", "Acme-B 2.0.0"], "{sql}");
    }
}

pub(super) async fn damage(store: Store, folder: &TempDir, sql: &str) -> Store {
    store.close().await;
    Connection::open(folder.path().join(FILE)).unwrap().execute_batch(sql).unwrap();
    open(folder)
}
