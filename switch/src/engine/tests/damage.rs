//! Flipped bits: detected, never served, set aside and counted.

use muster_proto::common::v1::TargetState;
use rusqlite::Connection;

use super::world::*;
use crate::engine::{Cursor, EngineError};

#[tokio::test]
async fn a_damaged_result_is_never_served() {
    let mut world = World::new().await;
    let (first, second) = (world.connect("w1.acme.local").await, world.connect("w2.acme.local").await);
    let id = world.issue("").await;
    world.answer(&first, id, 1).await;
    world.answer(&second, id, 1).await;

    let world = world.restart(|database| flip(database, "results", "position = 1"));

    let results = world.engine.reader().results(id, &Cursor::default(), 10).unwrap();
    assert_eq!(results.items.iter().map(|result| &result.device[..]).collect::<Vec<_>>(), ["w2.acme.local"]);
    assert_eq!(warnings(&world), ["results"]);
}

#[tokio::test]
async fn an_instruction_with_a_damaged_transition_is_set_aside_but_its_results_are_taken() {
    let mut world = World::new().await;
    world.connect("w1.acme.local").await;
    let (damaged, sound) = (world.issue("").await, world.issue("").await);
    world = world.restart(|database| flip(database, "transitions", "instruction = 1"));

    let session = world.connect("w1.acme.local").await;
    world.answer(&session, damaged, 1).await;

    assert_eq!(session.connected.due.iter().map(|due| due.instruction).collect::<Vec<_>>(), [sound]);
    let shown = world.engine.reader().instruction(damaged);
    assert!(matches!(shown, Err(EngineError::Damaged(_))), "{shown:?}");
    assert_eq!(world.engine.reader().results(damaged, &Cursor::default(), 10).unwrap().items.len(), 1);
    let warnings = world.engine.reader().status().warnings;
    assert!(warnings.iter().any(|warning| warning.contains(&damaged.to_string())), "{warnings:?}");
}

#[tokio::test]
async fn a_transition_that_is_gone_is_missed() {
    let world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    world.engine.progress(session.connected.number, id, TargetState::Running).await.unwrap();
    world.until_state(id, TargetState::Running).await;

    let world = world.restart(|database| {
        database.execute("DELETE FROM transitions WHERE position = 2", []).unwrap();
    });

    assert!(matches!(world.engine.reader().instruction(id), Err(EngineError::Damaged(_))));
}

#[tokio::test]
async fn a_damaged_seen_set_is_gathered_again() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    world.answer(&session, id, 1).await;
    world.tell_event(&session, event(2)).await;
    world.next_ack().await;

    let mut world = world.restart(|database| flip(database, "seen", "true"));
    let session = world.connect("w1.acme.local").await;
    world.tell_event(&session, event(2)).await;
    world.next_ack().await;

    assert_eq!(world.engine.reader().events(None, 0, 10).unwrap().len(), 1);
    assert_eq!(warnings(&world), ["seen"]);
}

#[tokio::test]
async fn damaged_facts_and_names_keep_the_devices_number() {
    let world = World::new().await;
    let numbers =
        [world.connect("w1.a").await.connected.number, world.connect("w2.a").await.connected.number];

    let world = world.restart(|database| {
        flip(database, "facts", "number = 0");
        database.execute("UPDATE devices SET device = 'w9.a' WHERE number = 1", []).unwrap();
    });
    let again = [world.connect("w1.a").await.connected.number, world.connect("w2.a").await.connected.number];

    assert_eq!(numbers, again);
    assert_eq!(world.connect("w9.a").await.connected.number, 2);
}

#[tokio::test]
async fn a_damaged_epoch_never_goes_back() {
    let world = World::new().await;
    let before = world.connect("w1.acme.local").await.connected.epoch;

    let world = world.restart(|database| {
        database.execute("UPDATE marks SET value = 0 WHERE name = 'epoch'", []).unwrap();
    });

    assert!(world.connect("w1.acme.local").await.connected.epoch > before);
    assert_eq!(warnings(&world), ["marks"]);
}

#[tokio::test]
async fn refuses_a_store_of_a_later_version() {
    let world = World::new().await;
    world.engine.clone().close();
    let database = Connection::open(world.dir.path().join("switch.db")).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();

    let opened = world.open_again();

    let Err(EngineError::Internal(text)) = opened else { panic!("opened") };
    assert!(text.contains("version 99"), "{text}");
}

/// Flips the last bit of the records.
fn flip(database: &Connection, table: &str, which: &str) {
    let sql = format!("SELECT rowid, record FROM {table} WHERE {which}");
    let sql = if table == "seen" { sql.replace("rowid", "number") } else { sql };
    let key = if table == "seen" { "number" } else { "rowid" };
    let mut statement = database.prepare(&sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))).unwrap();
    let rows: Vec<(i64, Vec<u8>)> = rows.collect::<Result<_, _>>().unwrap();
    assert!(!rows.is_empty(), "no record to flip");
    for (row, mut record) in rows {
        *record.last_mut().unwrap() ^= 1;
        let sql = format!("UPDATE {table} SET record = ?1 WHERE {key} = ?2");
        database.execute(&sql, rusqlite::params![record, row]).unwrap();
    }
}

/// Returns the tables that the status warns of.
fn warnings(world: &World) -> Vec<String> {
    let table = |warning: &String| {
        let (_, rest) = warning.split_once("in table ")?;
        rest.split_once(' ').map(|(table, _)| table.to_owned())
    };
    world.engine.reader().status().warnings.iter().filter_map(table).collect()
}
