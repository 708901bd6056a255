//! What was committed is there again.

use std::ops::ControlFlow;

use muster_proto::common::v1::TargetState;
use muster_proto::operator::v1::export_response::Record;

use super::world::*;
use crate::engine::store::{checksum, key};
use crate::engine::{Cursor, EngineEnd, EngineError, OpenError};

#[tokio::test]
async fn everything_is_as_it_was_after_a_restart() {
    let mut world = World::new().await;
    let (first, second) = (world.connect("w1.acme.local").await, world.connect("w2.acme.local").await);
    let id = world.issue("").await;
    world.answer(&first, id, 1).await;
    world.engine.progress(id, TargetState::Acked, [second.connected.number].into()).await.unwrap();
    world.tell_event(&second, event(1)).await;
    world.next_ack().await;
    let before = (told(&world), world.engine.reader().instruction(id).unwrap());

    let mut world = world.restart(|_| ());
    let after = (told(&world), world.engine.reader().instruction(id).unwrap());
    let again = world.connect("w2.acme.local").await;
    world.answer(&again, id, 2).await;

    assert_eq!(before, after);
    assert_eq!(again.connected.number, second.connected.number);
    assert!(again.connected.epoch > second.connected.epoch);
    assert_eq!(again.connected.due.iter().map(|due| due.instruction).collect::<Vec<_>>(), [id]);
    let done = world.until(id, |instruction| instruction.complete).await;
    assert_eq!(counts(&done), [(TargetState::Answered, 2)]);
    assert_eq!(world.engine.reader().status().warnings, Vec::<String>::new());
}

#[tokio::test]
async fn the_export_adds_up() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    world.connect("w2.acme.local").await;
    let id = world.issue("").await;
    world.answer(&session, id, 1).await;
    world.tell_event(&session, event(2)).await;
    world.next_ack().await;

    let mut records = Vec::new();
    let take = |response: muster_proto::operator::v1::ExportResponse| {
        records.push(response.record.unwrap());
        ControlFlow::Continue(())
    };
    world.engine.reader().export(take).unwrap();

    let kinds: Vec<&str> = records.iter().map(kind).collect();
    assert_eq!(kinds, ["definition", "instruction", "transition", "transition", "result", "event"]);
    let Record::Transition(queued) = &records[2] else { panic!("{:?}", records[2]) };
    assert_eq!((queued.state(), &queued.cause[..]), (TargetState::Queued, "submitted"));
    assert_eq!(queued.devices, ["w1.acme.local", "w2.acme.local"]);
    let Record::Instruction(instruction) = &records[1] else { panic!("{:?}", records[1]) };
    assert_eq!(counts(instruction), [(TargetState::Queued, 1), (TargetState::Answered, 1)]);
    let Record::Result(result) = &records[4] else { panic!("{:?}", records[4]) };
    assert_eq!((&result.instruction, result.sequence), (&id.to_string(), 1));
}

#[tokio::test]
async fn a_store_of_the_first_version_still_knows_what_it_has_seen() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    world.tell_event(&session, event(1)).await;
    world.next_ack().await;

    let mut world = world.restart(|database| {
        forget_roads(database);
        database.execute_batch(
            "ALTER TABLE seen DROP COLUMN greeted; ALTER TABLE seen DROP COLUMN used; DROP TABLE last_seen; DROP TABLE online; DROP TABLE removed; DROP TABLE policies; DROP TABLE policy_followed; DROP TABLE blocked; DROP TABLE stops; DROP TABLE approvals; DROP TABLE kept; PRAGMA user_version = 1;",
        ).unwrap();
    });
    let session = world.connect("w1.acme.local").await;
    world.tell_event(&session, event(1)).await;
    world.next_ack().await;
    world.tell_event(&session, event(2)).await;
    world.next_ack().await;

    assert_eq!(world.engine.reader().events(None, 0, 10).unwrap().len(), 2);
    assert_eq!(world.engine.reader().status().warnings, Vec::<String>::new());
}

#[tokio::test]
async fn a_store_serves_one_switch_at_a_time() {
    let world = World::new().await;

    let second = world.open_again();

    let Err(OpenError::Store(error)) = second else { panic!("opened twice") };
    let text = error.to_string();
    let holder = format!("is held by another Switch (process {})", std::process::id());
    assert!(text.contains(&holder) && text.contains(&world.dir.path().display().to_string()), "{text}");
    assert!(!error.is_for_people(), "{text}");
}

#[tokio::test]
async fn a_closed_engine_says_so() {
    let world = World::new().await;
    let engine = world.engine.clone();

    engine.clone().close();

    assert_eq!(engine.failed().await, EngineEnd::Closed);
    assert!(matches!(world.prepare("").await, Err(EngineError::Closed)));
}

#[tokio::test]
async fn instructions_and_devices_are_listed_page_by_page() {
    let world = World::new().await;
    for number in 0..3 {
        world.connect(&format!("w{number}.acme.local")).await;
    }
    let (older, newer) = (world.issue("").await, world.issue("").await);

    let reader = world.engine.reader();
    let newest = reader.instructions(&Cursor::default(), 1).unwrap();
    let oldest = reader.instructions(&Cursor::from_token(&newest.next_page_token()), 1).unwrap();
    let devices = reader.clients("", &Cursor::default(), 2).unwrap();
    let last = reader.clients("", &devices.cursor, 2).unwrap();

    assert_eq!((&newest.items[0].id, &oldest.items[0].id), (&newer.to_string(), &older.to_string()));
    assert!(newest.more && !oldest.more);
    assert_eq!((devices.items.len(), last.items.len(), last.more), (2, 1, false));
    assert!(devices.items[0].online);
    assert!(matches!(reader.client(&"w9.acme.local".parse().unwrap()), Err(EngineError::NotFound(_))));
}

fn kind(record: &Record) -> &'static str {
    match record {
        Record::Definition(_) => "definition",
        Record::Instruction(_) => "instruction",
        Record::Transition(_) => "transition",
        Record::Result(_) => "result",
        Record::Event(_) => "event",
    }
}

/// Everything that an export tells, as text.
fn told(world: &World) -> Vec<String> {
    let mut records = Vec::new();
    let take = |response| {
        records.push(format!("{response:?}"));
        ControlFlow::Continue(())
    };
    world.engine.reader().export(take).unwrap();
    records
}

/// Makes the seen sets as they were before the roads were told apart.
pub(super) fn forget_roads(database: &rusqlite::Connection) {
    let mut statement = database.prepare("SELECT number, outbox_id, record FROM seen").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    let rows: Vec<(i64, Vec<u8>, Vec<u8>)> = rows.collect::<Result<_, _>>().unwrap();
    for (number, outbox, record) in rows {
        let crc = checksum("seen", &[&key(number), &outbox], &record);
        let sql = "UPDATE seen SET crc = ?1 WHERE number = ?2 AND outbox_id = ?3";
        database.execute(sql, rusqlite::params![crc, number, outbox]).unwrap();
    }
    database.execute_batch("ALTER TABLE seen DROP COLUMN by_session").unwrap();
}
