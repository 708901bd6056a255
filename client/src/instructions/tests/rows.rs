//! Rows on their way into a result: what is one part, what is several, and what is left out.

use muster_proto::frame;
use muster_proto::limits::RESULT_BYTES_MAX;
use muster_proto::session::v1::frame::Body;
use muster_proto::session::v1::{Frame, Result as InstructionResult};
use prost::Message as _;
use tempfile::TempDir;

use super::*;
use crate::config::OutboxConfig;
use crate::instructions::outcome;
use crate::instructions::rows::{PART_ROWS_BYTES_MAX, RowsProblem};
use crate::store::{QueueLane, Store};

/// The most that a definition may allow.
const MOST: u32 = 16 << 20;

#[tokio::test]
async fn rows_that_fill_a_message_to_its_last_byte_are_one_part_and_a_byte_more_makes_two() {
    let folder = TempDir::new().unwrap();
    let exact = rows_of(PART_ROWS_BYTES_MAX);
    let mut more = exact.clone();
    let SqlValue::Text(last) = &mut more.last_mut().unwrap()[0] else { panic!("a text") };
    last.push('x');

    let (one, two) =
        (sent(&folder, &wide(), exact.clone()).await, sent(&folder, &wide(), more.clone()).await);

    assert_eq!(rows(&one), exact);
    assert_eq!(numbers(&one), [(0, true)]);
    assert_eq!(rows(&two), more);
    assert_eq!(numbers(&two), [(0, false), (1, true)]);
    for part in one.iter().chain(&two) {
        assert!(!part.truncated && part.encoded_len() <= RESULT_BYTES_MAX);
    }
}

#[tokio::test]
async fn parts_of_the_most_that_may_be_signed_are_taken_by_a_switch_and_are_all_the_rows_in_order() {
    let folder = TempDir::new().unwrap();
    let all: Vec<Vec<SqlValue>> = (0..16_000).map(|at| vec![SqlValue::Text(format!("{at:01000}"))]).collect();

    let parts = sent(&folder, &wide(), all.clone()).await;

    assert_eq!(rows(&parts), all);
    assert_eq!(parts.len(), 21);
    let sequences: Vec<u64> = parts.iter().map(|part| part.sequence).collect();
    assert_eq!(sequences, (1..=21).collect::<Vec<_>>());
    // What the Switch takes beyond `limits.bytes`: one message.
    let bytes: usize = parts.iter().map(|part| part.encoded_len()).sum();
    assert!(bytes <= MOST as usize + RESULT_BYTES_MAX, "{bytes}");
    for (at, part) in parts.iter().enumerate() {
        assert_eq!((part.part, part.last), (u32::try_from(at).unwrap(), at == 20));
        assert_eq!((part.state(), &part.columns), (TargetState::Answered, &parts[0].columns));
        frame::check(&Frame { body: Some(Body::Result(part.clone())), proof: None }).unwrap();
    }
}

#[tokio::test]
async fn many_columns_and_missing_layers_leave_room_for_the_rows_of_a_full_part() {
    let folder = TempDir::new().unwrap();
    let named = |at: usize| Column { name: format!("{at:064}"), kind: ColumnKind::Text };
    let wide = Summary {
        columns: (0..64).map(named).collect(),
        truncated: true,
        sandbox_missing: vec!["l".repeat(64); 16],
    };
    let row = || vec![SqlValue::Text("x".repeat(1_000)); 64];
    let room = Room { bytes_max: MOST, folder: folder.path().to_owned() };
    let plan = self::wide();
    let mut collecting = Collecting::new(&plan, &room);
    collecting.take((0..40).map(|_| row()).collect()).await;

    let parts = stored(&folder, &plan, collecting.finish(wide).await).await;

    assert_eq!(parts.iter().map(|part| part.rows.len()).sum::<usize>(), 40);
    assert!(parts.len() > 2);
    for part in &parts {
        frame::check(&Frame { body: Some(Body::Result(part.clone())), proof: None }).unwrap();
        // Told with the last one, whose end it is.
        assert_eq!((part.truncated, part.sandbox_missing.len() == 16), (part.last, part.last));
    }
}

#[tokio::test]
async fn a_row_that_no_message_has_room_for_is_left_out_with_all_behind_it_and_told() {
    let folder = TempDir::new().unwrap();
    let small = || vec![SqlValue::Text("small".to_owned()); 13];
    let large = vec![SqlValue::Text("x".repeat(60_000)); 13];

    let parts = sent(&folder, &wide(), vec![small(), large, small()]).await;

    assert_eq!(rows(&parts), [small()]);
    assert!(parts[0].truncated && parts[0].last);
}

#[tokio::test]
async fn rows_beyond_what_is_signed_or_what_the_device_has_room_for_are_left_out_and_told() {
    let folder = TempDir::new().unwrap();
    let all = || rows_of(1 << 20);
    let bytes = |parts: &[InstructionResult]| -> usize {
        let rows: Vec<_> = parts.iter().flat_map(|part| part.rows.clone()).collect();
        InstructionResult { rows, ..InstructionResult::default() }.encoded_len()
    };
    let signed = Plan { bytes: 900_000, ..wide() };
    let plan = wide();
    let room = Room { bytes_max: 900_000, folder: folder.path().to_owned() };
    let mut collecting = Collecting::new(&plan, &room);
    collecting.take(all()).await;

    let by_definition = sent(&folder, &signed, all()).await;
    let by_device = stored(&folder, &plan, collecting.finish(summary()).await).await;

    for parts in [by_definition, by_device] {
        assert!((840_000..=900_000).contains(&bytes(&parts)), "{}", bytes(&parts));
        assert_eq!(numbers(&parts), [(0, false), (1, true)]);
        assert_eq!(parts.iter().map(|part| part.truncated).collect::<Vec<_>>(), [false, true]);
    }
}

#[tokio::test]
async fn the_file_of_parts_has_no_name_and_rows_that_cannot_be_kept_fail_the_instruction() {
    let folder = TempDir::new().unwrap();
    let names = || std::fs::read_dir(folder.path()).unwrap().count();
    let plan = wide();
    let room = |folder: &std::path::Path| Room { bytes_max: MOST, folder: folder.to_owned() };
    let mut collecting = Collecting::new(&plan, &room(folder.path()));
    collecting.take(rows_of(2 << 20)).await;
    let during = names();
    let mut nowhere = Collecting::new(&plan, &room(&folder.path().join("nowhere")));
    nowhere.take(rows_of(2 << 20)).await;

    let (collected, unkept) = (collecting.finish(summary()).await, nowhere.finish(summary()).await);

    assert_eq!((during, names()), (0, 0));
    assert!(collected.parts.is_some());
    assert!(matches!(unkept.problem, Some(RowsProblem::Unkept(_))), "{:?}", unkept.problem);
    let (result, parts) = outcome::finished(id(1), &plan, Ok(unkept), NOW_MS, NOW_MS);
    assert_eq!(result.state(), TargetState::Failed);
    assert!(parts.is_none() && result.detail.starts_with("it ran"), "{}", result.detail);
}

#[tokio::test]
async fn values_decide_the_type_of_a_column_across_parts_where_none_is_declared() {
    use muster_proto::common::v1::ColumnType::{Integer, Text, Unspecified};
    let folder = TempDir::new().unwrap();
    let long = || SqlValue::Text("x".repeat(50_000));
    let row = |number: SqlValue| vec![number, long(), SqlValue::Null];
    let columns = ["n", "t", "nothing"].map(|name| Column { name: name.to_owned(), kind: ColumnKind::Text });
    let types = async |last: SqlValue| {
        let plan = wide();
        let room = Room { bytes_max: MOST, folder: folder.path().to_owned() };
        let mut collecting = Collecting::new(&plan, &room);
        collecting.take((0..40).map(|_| row(SqlValue::Integer(1))).collect()).await;
        collecting.take(vec![row(last)]).await;
        let collected = collecting.finish(Summary { columns: columns.to_vec(), ..summary() }).await;
        assert!(collected.parts.is_some());
        collected.columns.iter().map(|column| column.r#type()).collect::<Vec<_>>()
    };
    assert_eq!(types(SqlValue::Null).await, [Integer, Text, Unspecified]);
    assert_eq!(types(SqlValue::Real(1.5)).await, [Unspecified, Text, Unspecified]);
}

/// A plan that allows what may be allowed at most.
fn wide() -> Plan {
    Plan { rows: 1_000_000, bytes: MOST, ..plan("Acme-A") }
}

/// Rows of one text each that take so many bytes of a result.
fn rows_of(bytes: usize) -> Vec<Vec<SqlValue>> {
    let row = |length: usize| vec![SqlValue::Text("x".repeat(length))];
    let size = |length: usize| {
        let value = muster_proto::common::v1::Value {
            kind: Some(muster_proto::common::v1::value::Kind::Text("x".repeat(length))),
        };
        let rows = vec![muster_proto::common::v1::Row { values: vec![value] }];
        InstructionResult { rows, ..InstructionResult::default() }.encoded_len()
    };
    let each = size(50_000);
    let count = bytes / each - 1;
    let rest = bytes - count * each;
    let last = (0..rest / 2).rev().find(|length| size(*length) <= rest / 2).unwrap();
    let left = rest - size(last);
    let end = (0..left).rev().find(|length| size(*length) == left).unwrap();
    let mut rows: Vec<_> = (0..count).map(|_| row(50_000)).collect();
    rows.extend([row(last), row(end)]);
    rows
}

/// What is in the outbox once these rows have come.
async fn sent(folder: &TempDir, plan: &Plan, rows: Vec<Vec<SqlValue>>) -> Vec<InstructionResult> {
    let room = Room { bytes_max: MOST, folder: folder.path().to_owned() };
    let mut collecting = Collecting::new(plan, &room);
    let columns = rows[0].iter().enumerate();
    let columns = columns.map(|(at, _)| Column { name: format!("c{at}"), kind: ColumnKind::Text }).collect();
    for batch in rows.chunks(7) {
        collecting.take(batch.to_vec()).await;
    }
    stored(folder, plan, collecting.finish(Summary { columns, ..summary() }).await).await
}

/// What is in the outbox of a new store for an answer.
async fn stored(folder: &TempDir, plan: &Plan, collected: Collected) -> Vec<InstructionResult> {
    let (result, parts) = outcome::finished(id(1), plan, Ok(collected), NOW_MS, NOW_MS);
    assert_eq!(result.state(), TargetState::Answered, "{}", result.detail);
    let of_its_own = TempDir::new_in(folder.path()).unwrap();
    let store = Store::open(of_its_own.path(), &OutboxConfig::default(), NOW_MS).unwrap();
    store.write(move |tables| tables.record_answer(result, parts.as_ref(), NOW_MS)).await.unwrap();
    let queued =
        store.write(|tables| tables.queued(QueueLane::Results, 0, usize::MAX, NOW_MS)).await.unwrap();
    queued.iter().map(|queued| InstructionResult::decode(&queued.record[..]).unwrap()).collect()
}

fn rows(parts: &[InstructionResult]) -> Vec<Vec<SqlValue>> {
    use muster_proto::common::v1::value::Kind;
    let value = |value: &muster_proto::common::v1::Value| match &value.kind {
        Some(Kind::Text(text)) => SqlValue::Text(text.clone()),
        other => panic!("{other:?}"),
    };
    let rows = parts.iter().flat_map(|part| &part.rows);
    rows.map(|row| row.values.iter().map(value).collect()).collect()
}

fn numbers(parts: &[InstructionResult]) -> Vec<(u32, bool)> {
    parts.iter().map(|part| (part.part, part.last)).collect()
}
