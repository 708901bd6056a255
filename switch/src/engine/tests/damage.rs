//! Flipped bits: detected, never served, set aside and counted.

use std::path::Path;
use std::time::Duration;

use muster_pki::Role;
use muster_proto::common::v1::TargetState;
use muster_proto::operator::v1::StateCount;
use prost::Message as _;
use rusqlite::{Connection, params};

use super::world::*;
use crate::engine::store::{CountsRecord, DocumentRecord, checksum, key};
use crate::engine::{Cursor, EngineError, OpenError};

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
async fn a_licence_serial_is_used_once_and_never_goes_back_also_when_its_licence_is_damaged() {
    let world = World::new().await;
    let other_text = world.engine.import_licence(world.licence_for(1, "Other")).await;
    let third = world.licence(3);
    world.engine.import_licence(third.clone()).await.unwrap();

    let world = world.restart(|database| flip(database, "licences", "position = 2"));
    let older = world.engine.import_licence(world.licence(2)).await;
    let again = world.engine.import_licence(third).await;

    assert!(matches!(other_text, Err(EngineError::FailedPrecondition(_))), "{other_text:?}");
    assert!(matches!(older, Err(EngineError::FailedPrecondition(_))), "{older:?}");
    assert_eq!(again.map(|imported| imported.serial), Ok(3));
}

#[tokio::test]
async fn no_older_licence_comes_back_into_force_when_the_last_one_is_damaged() {
    type Harm = fn(&Connection);
    let harms: [(Harm, &str); 4] = [
        (|database| flip(database, "licences", "position = 2"), "licence 3 is damaged"),
        (
            |database| {
                database.execute("DELETE FROM licences WHERE position = 2", []).unwrap();
            },
            "licence 3 is damaged",
        ),
        (
            |database| {
                flip(database, "licences", "position = 2");
                // As of a store from before the mark.
                database.execute("DELETE FROM marks WHERE name = 'licence_serial'", []).unwrap();
            },
            "the licence after 1 is damaged",
        ),
        (|database| flip(database, "licences", "true"), "licence 3 is damaged"),
    ];
    for (harm, said) in harms {
        let world = World::new().await;
        world.connect("w1.acme.local").await;
        assert!(world.prepare("").await.is_ok());
        // It binds the prefix no more, as one does that distrusts a stolen key.
        let third = world.licence_for(3, "Other");
        world.engine.import_licence(third.clone()).await.unwrap();

        let world = world.restart(harm);
        let connected = world.connect("w1.acme.local").await.connected;
        let refused = world.prepare("").await.unwrap_err();
        let status = world.engine.reader().status();
        let shown = world.engine.reader().definition(DEFINITION, "").unwrap().0;
        let first = world.engine.import_licence(world.licence(1)).await;

        assert!(refused.to_string().contains(said), "{refused}");
        assert_eq!((connected.licence_digest, world.engine.reader().licence()), (None, None));
        assert_eq!((status.licence_serial, status.licence_problem.contains(said)), (0, true), "{status:?}");
        let warned = status.warnings.iter().filter(|warning| warning.contains(said)).count();
        assert_eq!(warned, 1, "{:?}", status.warnings);
        assert!(!shown.licensed && shown.problem.contains(said), "{shown:?}");
        assert!(matches!(first, Err(EngineError::FailedPrecondition(_))), "{first:?}");

        let again = world.engine.import_licence(third.clone()).await;
        let in_force = |world: &World| world.engine.reader().licence().map(|held| held.to_vec());
        assert_eq!(again.map(|imported| imported.serial), Ok(3));
        assert_eq!(in_force(&world), Some(third.clone()));
        let refused = world.prepare("").await.unwrap_err();
        assert!(refused.to_string().contains("prefix"), "{refused}");
        let world = world.restart(|_| ());
        assert_eq!(in_force(&world), Some(third), "it stands behind the damaged one");
        assert_eq!(world.engine.reader().status().licence_problem, "");
    }
}

#[tokio::test]
async fn a_damaged_licence_can_be_imported_again_whatever_its_serial_was_where_nothing_tells_of_that() {
    type Harm = fn(&Connection);
    let without_mark: Harm = |database| {
        database.execute("DELETE FROM marks WHERE name = 'licence_serial'", []).unwrap();
    };
    let damaged_mark: Harm = |database| {
        database.execute("UPDATE marks SET value = value + 1 WHERE name = 'licence_serial'", []).unwrap();
    };
    // A serial that is a moment, alone and after others.
    for (before, harm) in [(&[][..], without_mark), (&[1_000_000_000, 1_900_000_000], damaged_mark)] {
        let world = World::empty(Party::new(Role::Author), 64);
        for serial in before {
            world.engine.import_licence(world.licence(*serial)).await.unwrap();
        }
        let last = world.licence(2_026_080_101);
        world.engine.import_licence(last.clone()).await.unwrap();

        let world = world.restart(|database| {
            flip(database, "licences", if before.is_empty() { "true" } else { "position > 1" });
            harm(database);
        });
        // What was guessed is no mark at the next start.
        world.connect("w1.acme.local").await;
        let world = world.restart(|_| ());
        for serial in before.iter().take(1) {
            let older = world.engine.import_licence(world.licence(*serial)).await;
            assert!(matches!(older, Err(EngineError::FailedPrecondition(_))), "{older:?}");
        }
        let again = world.engine.import_licence(last).await;

        assert_eq!(again.map(|imported| imported.serial), Ok(2_026_080_101), "{before:?}");
    }
}

#[tokio::test]
async fn a_damaged_licence_that_a_later_one_followed_changes_nothing() {
    let world = World::new().await;
    for serial in [2, 3] {
        world.engine.import_licence(world.licence(serial)).await.unwrap();
    }

    let world = world.restart(|database| flip(database, "licences", "position < 3"));

    assert_eq!(world.engine.reader().status().licence_serial, 3);
    assert_eq!(world.engine.reader().status().licence_problem, "");
    assert_eq!(warnings(&world), ["licences"]);
}

#[tokio::test]
async fn a_transition_that_is_gone_is_missed() {
    let world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    world.engine.progress(id, TargetState::Running, [session.connected.number].into()).await.unwrap();
    world.until_state(id, TargetState::Running).await;

    let world = world.restart(|database| {
        database.execute("DELETE FROM transitions WHERE position = 2", []).unwrap();
    });

    assert!(matches!(world.engine.reader().instruction(id), Err(EngineError::Damaged(_))));
}

#[tokio::test]
async fn a_ledger_that_lost_a_target_still_shows_how_many_were_decided_at_submit() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    world.connect("w2.acme.local").await;
    let id = world.issue("").await;
    world.answer(&session, id, 1).await;
    let one_answered =
        CountsRecord { states: vec![StateCount { state: TargetState::Answered.into(), count: 1 }] }
            .encode_to_vec();
    let crc = checksum("counts", &[&key(1)], &one_answered);

    // A sound row, of a ledger that forgot the second.
    let world = world.restart(|database| {
        let sql = "UPDATE counts SET record = ?1, crc = ?2 WHERE instruction = 1";
        assert_eq!(database.execute(sql, params![one_answered, crc]).unwrap(), 1);
    });
    let shown = world.engine.reader().instruction(id).unwrap();

    assert_eq!((shown.targets, shown.complete), (2, false));
    assert_eq!(
        counts(&shown),
        [(TargetState::Queued, 1), (TargetState::Answered, 1)],
        "counted of the ledger"
    );
    assert_eq!(warnings(&world), ["counts"]);
}

#[tokio::test]
async fn a_definition_that_this_version_refuses_is_told_as_that_until_a_mended_one_is_held() {
    let world = World::new().await;
    let explained = world.restart(|database| say(database, "SELECT 1 AS one", "EXPLAIN SELECT 1 AS one"));
    let engine = &explained.engine;
    let told = || engine.reader().status().warnings;

    let issued = explained.prepare("").await;
    let shown = engine.reader().definition(DEFINITION, "1.0.0");
    assert_eq!(warnings(&explained), Vec::<String>::new(), "nothing is damaged");
    assert_eq!(told().len(), 1, "{:?}", told());
    for said in [told().remove(0), issued.unwrap_err().to_string(), shown.unwrap_err().to_string()] {
        assert!(said.contains(&format!("{DEFINITION} 1.0.0 (line ")) && said.contains("EXPLAIN"), "{said}");
        assert!(said.contains("mend the text, raise its version, have it signed, and import that"), "{said}");
        assert!(!said.contains("damaged") && !said.contains("backup"), "{said}");
    }
    engine.import_definition(explained.definition("0.9.0")).await.unwrap();
    assert_eq!(told().len(), 1, "an older one does not take its place");
    engine.import_definition(explained.definition("1.0.1")).await.unwrap();
    assert_eq!(told(), Vec::<String>::new());
    explained.connect("w1.acme.local").await;
    explained.prepare("").await.unwrap();

    let unnamed = explained.restart(|database| say(database, "name = \"Acme-", "name = \"Acme "));
    let told = unnamed.engine.reader().status().warnings;
    assert!(told.len() == 1 && told[0].contains("the one at position 1 of the store (line "), "{told:?}");
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
async fn a_damaged_page_is_told_as_damage_to_who_reads_it() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    world.answer(&session, id, 1).await;

    let file = world.dir.path().join("switch.db");
    let world = world.restart(|database| {
        database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'results_by_instruction'";
        let page: u32 = database.query_row(sql, [], |row| row.get(0)).unwrap();
        let page = usize::try_from(page).unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[(page - 1) * 4096..page * 4096].fill(0xff);
        std::fs::write(&file, bytes).unwrap();
    });
    let read = world.engine.reader().results(id, &Cursor::default(), 10);

    let Err(EngineError::Damaged(text)) = read else { panic!("{read:?}") };
    assert!(text.contains("malformed") && text.contains("restore a backup"), "{text}");
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
async fn damaged_times_are_counted_and_leave_what_the_facts_say() {
    let world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let began_ms = world.now_ms();
    world.advance(Duration::from_secs(60));
    world.engine.disconnected(session.connected.number, session.key.epoch).await.unwrap();

    let world = world.restart(|database| {
        database.execute("UPDATE last_seen SET at_ms = at_ms + 1", []).unwrap();
        database.execute("INSERT OR REPLACE INTO online VALUES (0, 1, x'00', 1)", []).unwrap();
    });
    let client = world.engine.reader().client(&"w1.acme.local".parse().unwrap()).unwrap();

    assert_eq!(client.last_seen_at_ms, began_ms);
    assert_eq!(warnings(&world), ["last_seen", "online"]);
}

#[tokio::test]
async fn a_store_that_cannot_be_used_says_where_it_is_what_was_found_and_what_to_do() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm, &[&str]); 6] = [
        (
            "no database",
            |file| std::fs::write(file, [b'x'; 8192]).unwrap(),
            &["damaged (", "restore a backup"],
        ),
        ("damaged pages", overwrite_pages, &["damaged (", "malformed", "switch.db-wal"]),
        (
            "a later version",
            |file| pragma(file, "user_version", 99),
            &["has layout 99", "layouts up to 10", "newer version"],
        ),
        (
            "another program",
            |file| pragma(file, "application_id", 7),
            &["application_id 0x00000007", "data_dir of its own"],
        ),
        ("tables of nobody", of_nobody, &["another program's database", "data_dir of its own"]),
        (
            "a folder",
            |file| {
                std::fs::remove_file(file).unwrap();
                std::fs::create_dir(file).unwrap();
            },
            &["unable to open", "the right to read and write"],
        ),
    ];
    for (name, harm, words) in harms {
        let world = World::new().await;
        world.connect("w1.acme.local").await;
        world.engine.clone().close();
        let file = world.dir.path().join("switch.db");
        let database = Connection::open(&file).unwrap();
        database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(database);
        harm(&file);

        let Err(OpenError::Store(error)) = world.open_again() else { panic!("{name}: opened") };

        let text = error.to_string();
        assert!(text.starts_with(&format!("store {}", file.display())), "{name}: {text}");
        assert!(words.iter().all(|word| text.contains(word)), "{name}: {text}");
        assert!(error.is_for_people(), "{name}: {text}");
    }
}

/// Leaves SQLite's first page and spoils the others.
fn overwrite_pages(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[4096..].fill(0xff);
    std::fs::write(file, bytes).unwrap();
}

fn of_nobody(file: &Path) {
    std::fs::remove_file(file).unwrap();
    Connection::open(file).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
}

fn pragma(file: &Path, name: &str, value: i64) {
    Connection::open(file).unwrap().pragma_update(None, name, value).unwrap();
}

/// Flips the last bit of the records.
pub(super) fn flip(database: &Connection, table: &str, which: &str) {
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

/// Puts other words into the definition that was stored first, as an earlier version may have taken them.
fn say(database: &Connection, from: &str, to: &str) {
    let sql = "SELECT record FROM definitions WHERE position = 1";
    let record: Vec<u8> = database.query_row(sql, [], |row| row.get(0)).unwrap();
    let mut held = DocumentRecord::decode(&record[..]).unwrap();
    assert!(held.text.contains(from), "{}", held.text);
    held.text = held.text.replace(from, to);
    let record = held.encode_to_vec();
    let crc = checksum("definitions", &[&key(1)], &record);
    let sql = "UPDATE definitions SET record = ?1, crc = ?2 WHERE position = 1";
    database.execute(sql, params![record, crc]).unwrap();
}

/// Returns the tables that the status warns of.
pub(super) fn warnings(world: &World) -> Vec<String> {
    let table = |warning: &String| {
        let (_, rest) = warning.split_once("in table ")?;
        rest.split_once(' ').map(|(table, _)| table.to_owned())
    };
    world.engine.reader().status().warnings.iter().filter_map(table).collect()
}
