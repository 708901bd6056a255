//! Results in parts: in the outbox all at once or not at all, and each part told again until it is acked.

use muster_proto::common::v1::{Column, ColumnType, Row, TargetState, Value, value::Kind};
use muster_proto::session::v1::Result as InstructionResult;
use prost::Message as _;
use rusqlite::Connection;
use tempfile::TempDir;

use super::{NOW, ack, entry, id, open, reopen, result, results};
use crate::config::OutboxConfig;
use crate::store::{FILE, JournalState, Parts, PartsFile, QueueLane, Store};

#[tokio::test]
async fn all_parts_and_the_end_of_their_instruction_are_one_and_each_is_told_again_until_it_is_acked() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    store.write(|tables| tables.record_intent(&entry(1))).await.unwrap();
    store.write(|tables| tables.record_start(id(1), NOW)).await.unwrap();
    record(&store, &folder, 3).await;

    let store = reopen(store, &folder).await;
    assert_eq!(numbers(&store).await, [(1, 0, false), (2, 1, false), (3, 2, true)]);
    assert_eq!(store.write(|tables| tables.recover(NOW)).await.unwrap(), []);
    ack(&store, QueueLane::Results, 1, 2).await;
    let store = reopen(store, &folder).await;

    assert_eq!(numbers(&store).await, [(3, 2, true)]);
    assert_eq!(results(&store).await[0].rows, [row(2)]);
    let recalled = store.write(|tables| tables.recall(id(1))).await.unwrap().unwrap();
    assert_eq!(recalled.state, JournalState::Done);
    assert_eq!(record(&store, &folder, 2).await, None, "what has ended gets no second result");
}

#[tokio::test]
async fn parts_that_have_no_room_together_are_one_failure_and_none_of_them_is_kept() {
    let folder = TempDir::new().unwrap();
    let limits = OutboxConfig { results_bytes_max: 200, ..OutboxConfig::default() };
    let store = Store::open(folder.path(), &limits, NOW).unwrap();

    record(&store, &folder, 3).await;

    let stored = results(&store).await;
    assert_eq!(numbers(&store).await, [(1, 0, true)]);
    assert_eq!((stored[0].state(), stored[0].rows.len()), (TargetState::Failed, 0));
    assert!(stored[0].detail.contains("outbox of this device is full"), "{}", stored[0].detail);
}

#[tokio::test]
async fn parts_that_are_not_what_was_written_are_one_failure_and_none_of_them_is_kept() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let parts = parts(&folder, 40).await;
    parts.damage();

    store.write(move |tables| tables.record_answer(answer(), Some(&parts), NOW)).await.unwrap();

    let stored = results(&store).await;
    assert_eq!(numbers(&store).await, [(1, 0, true)]);
    assert_eq!(stored[0].state(), TargetState::Failed);
    assert!(stored[0].detail.contains("could not be read back"), "{}", stored[0].detail);
}

#[tokio::test]
async fn what_takes_the_place_of_a_damaged_part_is_due_where_that_was() {
    // Whatever else of the result is there still, and also where nothing is.
    for (damaged, acked) in [(1, 0), (2, 0), (3, 0), (2, 1), (3, 2)] {
        let folder = TempDir::new().unwrap();
        let store = open(&folder);
        record(&store, &folder, 3).await;
        if acked > 0 {
            ack(&store, QueueLane::Results, 1, acked).await;
        }
        store.close().await;
        Connection::open(folder.path().join(FILE))
            .unwrap()
            .execute("UPDATE outbox SET at_ms = at_ms + 1 WHERE sequence = ?1", [damaged])
            .unwrap();

        let store = open(&folder);

        let told = results(&store).await;
        let last = told.last().unwrap();
        assert_eq!(last.state(), TargetState::Interrupted, "{damaged} {acked}");
        assert_eq!((last.part, last.last), (u32::try_from(damaged).unwrap() - 1, true), "{damaged} {acked}");
        assert_eq!(told.len(), 3 - usize::try_from(acked).unwrap(), "the others stay");
    }
}

/// Records an answer of so many parts, of a row each.
async fn record(store: &Store, folder: &TempDir, count: u8) -> Option<u64> {
    let parts = parts(folder, count).await;
    store.write(move |tables| tables.record_answer(answer(), Some(&parts), NOW)).await.unwrap()
}

async fn parts(folder: &TempDir, count: u8) -> Parts {
    let mut file = PartsFile::make(folder.path()).await.unwrap();
    for number in 0..count {
        let rows = InstructionResult { rows: vec![row(number)], ..InstructionResult::default() };
        file.add(&rows.encode_to_vec()).await.unwrap();
    }
    file.finish().await.unwrap()
}

fn row(number: u8) -> Row {
    Row { values: vec![Value { kind: Some(Kind::Integer(number.into())) }] }
}

fn answer() -> InstructionResult {
    let column = Column { name: "a".to_owned(), r#type: ColumnType::Integer.into() };
    InstructionResult { columns: vec![column], ..result(1) }
}

async fn numbers(store: &Store) -> Vec<(u64, u32, bool)> {
    results(store).await.iter().map(|result| (result.sequence, result.part, result.last)).collect()
}
