mod damaged;
mod forgotten;
mod parts;
mod policies;
mod stopped;
mod undecoded;

use std::time::Duration;

use muster_proto::common::v1::{NamedValue, Refusal, TargetState};
use muster_proto::ids::{Digest, InstructionId, OutboxId};
use muster_proto::session::v1::{Event, InclusionProof, Result as InstructionResult, SequenceRange};
use prost::Message;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::value;

const NOW: i64 = 1_800_000_000_000;

#[tokio::test]
async fn events_survive_a_restart_in_order_under_the_same_outbox_id() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    for name in ["a", "b", "c"] {
        post(&store, name).await;
    }
    let id = outbox_id(&store).await;

    let store = reopen(store, &folder).await;

    assert_eq!(outbox_id(&store).await, id);
    assert_eq!(event_names(&store).await, [(1, "a".to_owned()), (2, "b".to_owned()), (3, "c".to_owned())]);
}

#[tokio::test]
async fn a_number_is_never_used_twice_even_after_everything_was_acked() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    post(&store, "a").await;
    post(&store, "b").await;
    ack(&store, QueueLane::Events, 1, 2).await;

    let store = reopen(store, &folder).await;

    assert_eq!(post(&store, "c").await, 3);
}

#[tokio::test]
async fn an_ack_deletes_its_own_lane_only() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    post(&store, "a").await;
    store.write(|tables| tables.append_result(result(7), NOW)).await.unwrap();
    post(&store, "b").await;

    ack(&store, QueueLane::Events, 1, 3).await;

    let counts = store.write(|tables| Ok(tables.outbox_counts())).await.unwrap();
    assert_eq!((counts.results, counts.events, counts.events_bytes), (1, 0, 0));
}

#[tokio::test]
async fn concurrent_writers_share_commits_and_get_distinct_numbers() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let store = store.clone();
        writers.spawn(async move { post(&store, "x").await });
    }

    let mut numbers = writers.join_all().await;

    numbers.sort_unstable();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_intent_without_start_may_start_after_a_crash() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    store.write(|tables| tables.record_intent(&entry(1))).await.unwrap();

    let store = reopen(store, &folder).await;

    let recovered = store.write(|tables| tables.recover(NOW)).await.unwrap();
    assert_eq!(recovered, [entry(1)]);
    assert_eq!(results(&store).await, []);
}

#[tokio::test]
async fn a_start_without_result_is_interrupted_once_and_never_recovered() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    store
        .write(|tables| {
            tables.record_intent(&entry(1))?;
            tables.record_start(id(1), NOW)
        })
        .await
        .unwrap();

    let mut store = reopen(store, &folder).await;
    for _ in 0..3 {
        let recovered = store.write(|tables| tables.recover(NOW + 5)).await.unwrap();
        assert_eq!(recovered, []);
        store = reopen(store, &folder).await;
    }

    let results = results(&store).await;
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].state(), TargetState::Interrupted);
    assert_eq!((results[0].started_at_ms, results[0].finished_at_ms), (NOW, NOW + 5));
    assert_eq!(recall(&store, 1).await, Some(JournalState::Done));
}

#[tokio::test]
async fn a_result_and_the_end_of_its_instruction_are_one() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    store
        .write(|tables| {
            tables.record_intent(&entry(1))?;
            tables.record_start(id(1), NOW)?;
            tables.record_result(result(1), NOW)
        })
        .await
        .unwrap();

    let store = reopen(store, &folder).await;

    let recovered = store.write(|tables| tables.recover(NOW)).await.unwrap();
    assert_eq!(recovered, []);
    assert_eq!(results(&store).await.len(), 1);
}

#[tokio::test]
async fn what_has_ended_gets_no_second_result() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);

    for _ in 0..2 {
        let end = |tables: &mut Tables| {
            if tables.recall(id(1))?.is_none() {
                tables.record_intent(&entry(1))?;
            }
            tables.record_result(result(1), NOW)
        };
        store.write(end).await.unwrap();
    }

    assert_eq!(results(&store).await.len(), 1);
}

#[tokio::test]
async fn a_refusal_is_answered_once_for_each_order() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);

    let first = refuse(&store, 1, Refusal::BadSignature).await;
    let again = refuse(&store, 1, Refusal::BadSignature).await;

    assert_eq!((first, again), (Some(1), None));
}

#[tokio::test]
async fn an_order_that_was_answered_refused_counts_as_ended_as_long_as_its_window_may_last() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    assert_eq!(refuse(&store, 1, Refusal::UntrustedSigner).await, Some(1));
    let digest = |number| Digest::from([number; 32]);
    let recalled = move |tables: &mut Tables| {
        Ok((tables.recall_order(id(1), digest(1))?, tables.recall_order(id(1), digest(2))?))
    };
    let ended = Some(Recalled { order_digest: digest(1), state: JournalState::Done });

    // The order itself is ended; another order of the instruction is not kept out.
    assert_eq!(store.write(recalled).await.unwrap(), (ended, None));

    let window_ms = i64::try_from(muster_signing::order::WINDOW_MAX.as_millis()).unwrap();
    store.write(move |tables| tables.forget(NOW + window_ms)).await.unwrap();
    assert_eq!(store.write(recalled).await.unwrap(), (ended, None));
    store.write(move |tables| tables.forget(NOW + window_ms + 1)).await.unwrap();
    assert_eq!(store.write(recalled).await.unwrap(), (None, None));
}

#[tokio::test]
async fn a_forged_order_says_nothing_about_an_instruction_that_the_journal_knows() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    store.write(|tables| tables.record_intent(&entry(1))).await.unwrap();

    assert_eq!(refuse(&store, 1, Refusal::BadSignature).await, None);
    assert_eq!(refuse(&store, 1, Refusal::Expired).await, None);
    assert_eq!(refuse(&store, 1, Refusal::Replayed).await, Some(1));
}

#[tokio::test]
async fn a_refusal_leaves_an_instruction_alone_that_was_taken_on_and_is_not_told() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    store.write(|tables| tables.record_intent(&entry(7))).await.unwrap();

    let refusal = InstructionResult { state: TargetState::Failed.into(), ..result(7) };
    let told = store
        .write(move |tables| tables.record_refusal(Digest::from([7; 32]), Some(&entry(7)), refusal, NOW))
        .await
        .unwrap();

    assert_eq!((told, recall(&store, 7).await), (None, Some(JournalState::Intent)));
    assert_eq!(results(&store).await, []);
}

#[tokio::test]
async fn an_error_of_the_disk_is_told_to_its_caller_and_to_all_behind_it_as_what_it_is() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let break_it = store.write(|_| -> rusqlite::Result<()> {
        Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC),
            None,
        ))
    });
    let behind = store.write(|tables| Ok(tables.outbox_id()));

    let (broke, behind) = tokio::join!(break_it, behind);

    assert!(matches!(broke, Err(StoreError::Broken(_))), "{broke:?}");
    assert!(matches!(behind, Err(StoreError::Broken(_))), "{behind:?}");
    let later = store.write(|tables| Ok(tables.outbox_id())).await;
    assert!(matches!(later, Err(StoreError::Broken(_))), "{later:?}");
}

#[tokio::test]
async fn too_many_events_leave_one_gap_that_counts_them() {
    let folder = TempDir::new().unwrap();
    let limits = OutboxConfig { events_bytes_max: 4_000, ..OutboxConfig::default() };
    let store = Store::open(folder.path(), &limits, NOW).unwrap();

    for _ in 0..1_000 {
        post(&store, "some.event.of.a.certain.length").await;
    }

    let counts = store.write(|tables| Ok(tables.outbox_counts())).await.unwrap();
    let events = events(&store).await;
    let gaps: Vec<&Event> = events.iter().filter(|event| event.name == "outbox.gap").collect();
    let told: i64 = gaps.iter().map(|gap| field(gap, "dropped")).sum();
    let kept = i64::try_from(events.len() - gaps.len()).unwrap();
    assert!(counts.events_bytes <= 4_000 + 200, "{counts:?}");
    assert_eq!(told + kept, 1_000, "every event is there or counted");
    assert_eq!(gaps.iter().map(|gap| field(gap, "first")).min(), Some(1));
}

#[tokio::test]
async fn a_gap_names_exactly_what_is_gone_and_never_a_result_that_waits() {
    let folder = TempDir::new().unwrap();
    let limits = OutboxConfig { events_bytes_max: 400, ..OutboxConfig::default() };
    let store = Store::open(folder.path(), &limits, NOW).unwrap();

    for n in 1..=20 {
        post(&store, "some.event.of.a.certain.length").await;
        store.write(move |tables| tables.append_result(result(n), NOW)).await.unwrap();
    }

    let gone: Vec<u64> = events(&store)
        .await
        .iter()
        .flat_map(muster_proto::seen::gap_ranges)
        .flat_map(|range| range.first..=range.last)
        .collect();
    let waiting: Vec<u64> = results(&store).await.iter().map(|result| result.sequence).collect();
    assert!(!gone.is_empty());
    assert!(waiting.iter().all(|sequence| !gone.contains(sequence)), "{gone:?} {waiting:?}");
}

#[tokio::test]
async fn an_event_that_no_switch_would_take_is_told_and_blocks_no_road() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let event = event_record(NOW, "No.Event", Vec::new());

    store.write(move |tables| tables.append_event(event, NOW)).await.unwrap();

    assert_eq!(event_names(&store).await, [(1, "event.invalid".to_owned())]);
}

#[tokio::test]
async fn what_is_too_old_leaves_a_gap() {
    let folder = TempDir::new().unwrap();
    let limits = OutboxConfig { age_max: Duration::from_secs(60), ..OutboxConfig::default() };
    let store = Store::open(folder.path(), &limits, NOW).unwrap();
    post(&store, "old").await;

    store
        .write(|tables| {
            tables.raise_time_floor(NOW)?;
            tables.drop_beyond_bounds(NOW + 61_000)
        })
        .await
        .unwrap();

    assert_eq!(event_names(&store).await, [(2, "outbox.gap".to_owned())]);
}

#[tokio::test]
async fn a_clock_that_steps_forward_makes_nothing_too_old() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    store.write(|tables| tables.raise_time_floor(NOW)).await.unwrap();
    post(&store, "young").await;

    store.write(|tables| tables.drop_beyond_bounds(NOW + 365 * 86_400_000)).await.unwrap();

    assert_eq!(event_names(&store).await, [(1, "young".to_owned())]);
}

#[tokio::test]
async fn a_result_without_room_is_kept_without_its_rows() {
    let folder = TempDir::new().unwrap();
    let limits = OutboxConfig { results_bytes_max: 100, ..OutboxConfig::default() };
    let store = Store::open(folder.path(), &limits, NOW).unwrap();
    let mut large = result(1);
    large.rows = vec![muster_proto::common::v1::Row::default(); 200];

    store.write(|tables| tables.append_result(large, NOW)).await.unwrap();

    let results = results(&store).await;
    assert_eq!(
        (results[0].state(), results[0].rows.len(), results[0].truncated),
        (TargetState::Failed, 0, true)
    );
}

#[tokio::test]
async fn the_time_floor_never_sinks_and_versions_survive() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    store
        .write(|tables| {
            tables.raise_time_floor(NOW)?;
            tables.raise_time_floor(NOW - 1)?;
            tables.keep_version("Acme-A", &semver::Version::new(1, 2, 3))?;
            tables.keep_epoch(5)
        })
        .await
        .unwrap();

    let store = reopen(store, &folder).await;

    let (floor, versions, epoch) = store
        .write(|tables| Ok((tables.time_floor_ms(NOW)?, tables.versions(NOW)?, tables.epoch(NOW)?)))
        .await
        .unwrap();
    assert_eq!((floor, epoch), (NOW, 5));
    assert_eq!(versions["Acme-A"], semver::Version::new(1, 2, 3));
}

#[tokio::test]
async fn the_log_is_copied_into_the_file_as_it_grows() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);

    for number in 0..40 {
        store.write(move |tables| tables.set_meta("large", &vec![number; 1 << 20])).await.unwrap();
    }

    let log = std::fs::metadata(folder.path().join("client.db-wal")).unwrap().len();
    assert!(log < 16 << 20, "{log}");
}

#[tokio::test]
async fn a_checkpoint_that_fails_ends_the_writer() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    // A log that cannot be copied: another file, attached for reading only.
    let other = folder.path().join("other.db");
    let writer = Connection::open(&other).unwrap();
    writer.pragma_update(None, "journal_mode", "WAL").unwrap();
    writer.execute_batch("CREATE TABLE t (a)").unwrap();
    let attach = format!("COMMIT; ATTACH 'file:{}?mode=ro' AS other; BEGIN", other.display());
    store
        .write(move |tables| {
            tables.connection.execute_batch(&attach)?;
            tables.connection.query_row("SELECT count(*) FROM other.t", [], |_| Ok(()))
        })
        .await
        .unwrap();

    let large = store.write(|tables| tables.set_meta("large", &vec![1; 8 << 20])).await;

    // It was committed before the checkpoint, so it was promised.
    large.unwrap();
    let failed = tokio::time::timeout(Duration::from_secs(20), store.failed()).await.unwrap();
    assert!(matches!(&failed, StoreError::Broken(told) if told.starts_with("checkpoint")), "{failed}");
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused() {
    let folder = TempDir::new().unwrap();
    open(&folder).close().await;
    Connection::open(folder.path().join(FILE)).unwrap().pragma_update(None, "user_version", 99).unwrap();

    let error = Store::open(folder.path(), &OutboxConfig::default(), NOW).unwrap_err();

    assert!(matches!(error, StoreError::Newer { got: 99, .. }), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(FILE);
    std::fs::write(&path, vec![7; 8192]).unwrap();

    let error = Store::open(folder.path(), &OutboxConfig::default(), NOW).unwrap_err();

    assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), vec![7; 8192]);
}

fn open(folder: &TempDir) -> Store {
    Store::open(folder.path(), &OutboxConfig::default(), NOW).unwrap()
}

async fn reopen(store: Store, folder: &TempDir) -> Store {
    store.close().await;
    open(folder)
}

async fn post(store: &Store, name: &str) -> u64 {
    let event = event_record(NOW, name, vec![value::integer("n", 1)]);
    store.write(move |tables| tables.append_event(event, NOW)).await.unwrap()
}

async fn outbox_id(store: &Store) -> OutboxId {
    store.write(|tables| Ok(tables.outbox_id())).await.unwrap()
}

async fn ack(store: &Store, lane: QueueLane, first: u64, last: u64) {
    store.write(move |tables| tables.acked(lane, &[SequenceRange { first, last }])).await.unwrap();
}

async fn events(store: &Store) -> Vec<Event> {
    let queued = store.write(|tables| tables.queued(QueueLane::Events, 0, 1 << 30, NOW)).await.unwrap();
    queued.iter().map(|queued| Event::decode(&queued.record[..]).unwrap()).collect()
}

async fn event_names(store: &Store) -> Vec<(u64, String)> {
    events(store).await.into_iter().map(|event| (event.sequence, event.name)).collect()
}

async fn results(store: &Store) -> Vec<InstructionResult> {
    let queued = store.write(|tables| tables.queued(QueueLane::Results, 0, 1 << 30, NOW)).await.unwrap();
    queued.iter().map(|queued| InstructionResult::decode(&queued.record[..]).unwrap()).collect()
}

async fn recall(store: &Store, number: u8) -> Option<JournalState> {
    store.write(move |tables| tables.recall(id(number))).await.unwrap().map(|recalled| recalled.state)
}

async fn refuse(store: &Store, number: u8, refusal: Refusal) -> Option<u64> {
    let mut result = result(number);
    result.state = TargetState::Refused.into();
    result.refusal = refusal.into();
    let digest = Digest::from([number; 32]);
    store.write(move |tables| tables.record_refusal(digest, None, result, NOW)).await.unwrap()
}

fn id(number: u8) -> InstructionId {
    InstructionId::from([number; 16])
}

fn entry(number: u8) -> Entry {
    Entry {
        instruction: id(number),
        order_digest: Digest::from([number; 32]),
        definition: Digest::from([0xd0; 32]),
        expires_at_ms: NOW + 60_000,
        envelope: vec![1, 2, 3],
        proof: Some(InclusionProof { leaf_index: 4, hashes: vec![vec![5; 32]] }),
    }
}

fn result(number: u8) -> InstructionResult {
    InstructionResult {
        instruction: id(number).to_vec(),
        state: TargetState::Answered.into(),
        last: true,
        ..InstructionResult::default()
    }
}

fn field(event: &Event, name: &str) -> i64 {
    let found = event.fields.iter().find(|field| field.name == name).cloned().unwrap_or_default();
    match found {
        NamedValue { value: Some(value), .. } => match value.kind {
            Some(muster_proto::common::v1::value::Kind::Integer(number)) => number,
            _ => 0,
        },
        NamedValue { value: None, .. } => 0,
    }
}
