//! Results that have been kept long enough.

use std::ops::ControlFlow;
use std::time::Duration;

use muster_proto::common::v1::TargetState;
use muster_proto::ids::InstructionId;
use muster_proto::operator::v1::export_response::Record;
use muster_proto::session::v1::Result as SessionResult;
use muster_signing::envelope::ContentType;
use rusqlite::{Connection, params};
use tokio_util::sync::CancellationToken;

use super::damage::{flip, warnings};
use super::reserve::core_of;
use super::world::*;
use crate::engine::core::{Command, DELETED_AT_ONCE, Moment, Output, ResultIn};
use crate::engine::damage::Damage;
use crate::engine::store::kept::{First, Kept, LoadedKept, Stage};
use crate::engine::store::{Loaded, Store, Write, checksum, key};
use crate::engine::{Cursor, EngineError, Prepare, SessionKey};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// How long a clock stands until it is believed to the last.
const SETTLE: Duration = Duration::from_secs(600);

#[tokio::test]
async fn results_are_kept_as_long_as_the_definition_says_and_what_became_of_the_targets_for_ever() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let (short, long) = (world.issue("").await, issue_kept_for(&world, 2 * DAY).await);
    world.answer(&session, short, 1).await;
    world.answer(&session, long, 2).await;
    let shown = world.until(short, |instruction| instruction.complete).await;
    assert_eq!(shown.results_until_ms, shown.expires_at_ms + 86_400_000);

    world.advance(HOUR + DAY - Duration::from_secs(60));
    world.connect("w2.acme.local").await;
    assert_eq!(kept(&world, short), Ok(1));
    world.advance(Duration::from_secs(60));

    let shown = world.until(short, |instruction| instruction.results_deleted).await;
    assert_eq!((counts(&shown), shown.complete), (vec![(TargetState::Answered, 1)], true));
    assert_eq!(world.engine.reader().targets(short, None, &Cursor::default(), 10).unwrap().items.len(), 1);
    let (Err(EngineError::NotFound(said)), Err(EngineError::NotFound(summed))) =
        (kept(&world, short), summed(&world, short))
    else {
        panic!("{:?}, {:?}", kept(&world, short), summed(&world, short))
    };
    assert!(said.contains("kept until 20") && said.contains("muster instruction targets"), "{said}");
    assert_eq!(said, summed);
    assert_eq!((kept(&world, long), exported(&world)), (Ok(1), vec![(short, true, 0), (long, false, 1)]));
    // No restart brings anything back, and what is kept still goes in its time.
    let world = world.restart(|_| ());
    assert!(world.engine.reader().instruction(short).unwrap().results_deleted);
    world.advance(DAY);
    // The first batch finds that nothing is left of the other.
    look(&world).await;
    world.advance(Duration::from_millis(50));
    world.until(long, |instruction| instruction.results_deleted).await;
}

#[tokio::test]
async fn many_results_go_bit_by_bit_and_a_kill_between_leaves_none_behind_and_shows_none_of_the_rest() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    let parts = u32::try_from(DELETED_AT_ONCE).unwrap() * 2 + 1;
    for number in 0..parts {
        let sequence = u64::from(number) + 1;
        let whole = result(id, sequence, TargetState::Answered);
        let part = SessionResult { part: number, last: number + 1 == parts, detail: String::new(), ..whole };
        world.tell_result(&session, part).await;
        while world.next_ack().await.1.iter().all(|range| range.last < sequence) {}
    }
    world.until_state(id, TargetState::Answered).await;
    world.advance(HOUR + DAY);

    // The clock stands, so that the next of them are due in no time.
    world.until(id, |instruction| instruction.results_deleted).await;
    world.connect("w2.acme.local").await;
    assert_eq!(left(&world), (i64::from(parts / 2 + 1), 1));
    assert!(matches!(kept(&world, id), Err(EngineError::NotFound(_))), "{:?}", kept(&world, id));
    assert_eq!(exported(&world), [(id, true, 0)]);

    let world = world.killed();
    assert!(world.engine.reader().instruction(id).unwrap().results_deleted);
    world.advance(SETTLE);
    until_none_is_left(&world).await;
}

#[tokio::test]
async fn a_clock_that_is_wrong_at_the_start_deletes_no_results_whether_it_is_set_right_or_not_for_its_time_to_settle()
 {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    world.answer(&session, id, 1).await;
    world.until_state(id, TargetState::Answered).await;

    // A machine that starts with its clock 40 days ahead.
    world.put_wall_wrong_by(40 * DAY);
    let world = world.restart(|_| ());
    look(&world).await;
    world.advance(SETTLE - Duration::from_secs(1));
    look(&world).await;
    assert_eq!(left(&world), (1, 0), "it has yet to settle");
    world.put_wall_wrong_by(Duration::ZERO);
    look(&world).await;
    world.advance(10 * SETTLE);
    look(&world).await;
    assert_eq!(left(&world), (1, 0), "it was set back, and is not believed");

    let world = world.restart(|_| ());
    world.advance(SETTLE);
    look(&world).await;
    assert_eq!((kept(&world, id), left(&world)), (Ok(1), (1, 0)), "right from the start");
    world.advance(2 * DAY);
    world.until(id, |instruction| instruction.results_deleted).await;
}

#[tokio::test]
async fn a_clock_that_jumps_deletes_no_results_until_it_is_believed() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    world.answer(&session, id, 1).await;
    world.until_state(id, TargetState::Answered).await;
    world.advance(SETTLE);
    look(&world).await;

    world.put_wall_wrong_by(40 * DAY);
    look(&world).await;
    world.advance(SETTLE - Duration::from_secs(1));
    look(&world).await;
    assert_eq!(left(&world), (1, 0));
    world.advance(Duration::from_secs(1));

    world.until(id, |instruction| instruction.results_deleted).await;
}

#[tokio::test]
async fn a_late_result_that_comes_as_the_deletion_begins_goes_with_the_others() {
    // With results of others, and without.
    for others in [&["w2.acme.local"][..], &[]] {
        let mut world = World::new().await;
        let late = world.connect("w1.acme.local").await;
        let mut answering = Vec::new();
        for other in others {
            answering.push(world.connect(other).await);
        }
        let id = world.issue("").await;
        for session in &answering {
            world.answer(session, id, 1).await;
        }
        world.advance(2 * HOUR);
        world.until_state(id, TargetState::Expired).await;
        world.advance(DAY);

        // It wakes the writer, so that it is taken in the batch in which the deletion begins.
        world.tell_result(&late, result(id, 1, TargetState::Answered)).await;
        assert_eq!(world.next_ack().await.1, [range(1, 1)]);

        until_none_is_left(&world).await;
    }
}

#[tokio::test]
async fn what_comes_for_a_damaged_instruction_whose_results_are_deleted_is_acked_and_not_kept() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    world.answer(&session, id, 1).await;
    // Open once more, as far as anybody can tell.
    let mut world = world.restart(|database| {
        flip(database, "transitions", "instruction = 1");
        database.execute("DELETE FROM counts", []).unwrap();
    });
    let session = world.connect("w1.acme.local").await;
    world.answer(&session, id, 2).await;
    assert_eq!(left(&world), (2, 0), "until then what comes is kept");
    world.advance(HOUR + DAY);
    until_none_is_left(&world).await;

    world.answer(&session, id, 3).await;
    let now = left(&world);
    let mut world = world.restart(|_| ());
    let session = world.connect("w1.acme.local").await;
    world.answer(&session, id, 4).await;

    assert_eq!((now, left(&world)), ((0, 2), (0, 2)));
}

#[tokio::test]
async fn a_position_of_a_deleted_result_is_not_given_again_after_a_restart() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let older = world.issue("").await;
    world.answer(&session, older, 1).await;
    world.advance(HOUR + DAY);
    until_none_is_left(&world).await;

    let mut world = world.restart(|_| ());
    let session = world.connect("w1.acme.local").await;
    let newer = world.issue("").await;
    world.answer(&session, newer, 2).await;

    let database = Connection::open(world.dir.path().join("switch.db")).unwrap();
    let position: i64 = database.query_row("SELECT position FROM results", [], |row| row.get(0)).unwrap();
    assert_eq!(position, 2);
}

#[tokio::test]
async fn what_was_recalled_of_results_that_are_deleted_stays_and_counts_none_of_them() {
    let mut world = World::new().await;
    let late = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    let part = |sequence: u64| SessionResult { last: false, ..result(id, sequence, TargetState::Answered) };
    world.tell_result(&late, part(1)).await;
    world.next_ack().await;
    world.advance(2 * HOUR);
    world.until_state(id, TargetState::Expired).await;
    world.engine.clone().close();
    let store = Store::open(world.dir.path()).unwrap();
    let recalled = |stage: i64| {
        let crc = checksum("kept", &[&key(1), &key(1_000), &key(stage)], &[]);
        let sql = "UPDATE kept SET until_ms = 1000, stage = ?1, crc = ?2";
        assert_eq!(store.connection().execute(sql, params![stage, crc]).unwrap(), 1);
        store.recall(id, &Damage::default()).unwrap().unwrap()
    };
    let (whole, begun) = (recalled(0), recalled(1));
    assert_eq!((whole.received.len(), whole.is_deleted), (1, false));
    assert_eq!((begun.received.len(), begun.is_deleted), (0, true));

    let kept = LoadedKept { instruction: 1, kept: Kept { until_ms: 1_000, stage: Stage::Whole } };
    let devices = vec![(0, "w1.acme.local".parse().unwrap())];
    let mut core = core_of(Loaded { devices, kept: vec![kept], ..Loaded::default() });
    let comes = |sequence: u64| {
        let session = SessionKey { shard: 0, slot: 5, epoch: late.connected.epoch };
        let result = SessionResult { part: u32::try_from(sequence).unwrap(), ..part(sequence) };
        Command::Result(Box::new(ResultIn { number: 0, outbox: outbox(), session, result, encoded_len: 9 }))
    };
    let stored = |output: &Output| output.writes.iter().any(|write| matches!(write, Write::Result { .. }));
    let moment = Moment { now_ms: 2_000, disk_free_bytes: u64::MAX };
    core.recall(id, whole);
    core.handle(comes(2), moment);
    assert!(stored(&core.poll_output(2_000)), "nothing is deleted yet");

    core.delete_results(1, First { last: Some(1), count: 1 }, 2_000);
    core.poll_output(2_000);

    assert_eq!(core.to_recall(&comes(3)), None, "it is not asked again");
    core.handle(comes(3), moment);
    assert!(!stored(&core.poll_output(2_000)));
}

/// Lets the writer look at what is due.
async fn look(world: &World) {
    // The answer comes with the commit, and what one batch finds due is in it.
    for _ in 0..2 {
        world.connect("w9.acme.local").await;
    }
}

/// Waits until the deletion is done and nothing is there.
async fn until_none_is_left(world: &World) {
    let emptied = async {
        while left(world) != (0, 2) {
            world.advance(Duration::from_millis(50));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, emptied).await.unwrap_or_else(|_| panic!("left: {:?}", left(world)));
}

#[tokio::test]
async fn what_comes_after_its_instructions_results_are_deleted_is_acked_and_not_kept() {
    let mut world = World::new().await;
    let (answered, late) = (world.connect("w1.acme.local").await, world.connect("w2.acme.local").await);
    let id = world.issue("").await;
    world.answer(&answered, id, 1).await;
    world.advance(2 * HOUR);
    world.until_state(id, TargetState::Expired).await;
    // It is recalled as one whose results are kept, and must not be remembered as such.
    let part = SessionResult { last: false, ..result(id, 1, TargetState::Answered) };
    world.tell_result(&late, part).await;
    assert_eq!(world.next_ack().await.1, [range(1, 1)]);
    world.advance(DAY);
    world.until(id, |instruction| instruction.results_deleted).await;

    let rest = SessionResult { part: 1, ..result(id, 2, TargetState::Answered) };
    world.tell_result(&late, rest).await;

    assert_eq!(world.next_ack().await.1, [range(2, 2)]);
    assert_eq!(left(&world).0, 0);
}

#[tokio::test]
async fn an_operator_chooses_how_long_results_are_kept_within_what_the_author_signed() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;

    let id = issue_kept_for(&world, HOUR).await;

    let shown = world.engine.reader().instruction(id).unwrap();
    assert_eq!(shown.results_until_ms, shown.expires_at_ms + 3_600_000);
    for beyond in [HOUR / 2, 31 * DAY] {
        let refused = world.engine.prepare(wish(beyond), admitted).await;
        let Err(EngineError::InvalidArgument(said)) = refused else { panic!("{refused:?}") };
        assert!(said.contains("keep time") && said.contains(DEFINITION), "{said}");
    }
}

#[tokio::test]
async fn results_are_kept_until_what_runs_at_the_end_has_brought_its_own() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let brief = definition_text("1.1.0", "SELECT 1 AS one")
        .replace("min = \"1h\", max = \"30d\"", "min = \"1s\", max = \"30d\"");
    let signed = world.author.sign(brief.as_bytes(), ContentType::Definition, world.now_ms());
    world.engine.import_definition(signed).await.unwrap();

    let id = issue_kept_for(&world, Duration::from_secs(1)).await;

    // The run time of 10 s that the definition allows, and 30 s to bring the answer.
    let shown = world.engine.reader().instruction(id).unwrap();
    assert_eq!(shown.results_until_ms, shown.expires_at_ms + 40_000);
}

#[tokio::test]
async fn results_of_which_nobody_can_tell_how_long_they_are_kept_stay() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let mut ids = Vec::new();
    for sequence in 1..=4 {
        ids.push(world.issue("").await);
        world.answer(&session, ids[ids.len() - 1], sequence).await;
    }
    let [older, damaged, gone, sound] = ids[..] else { panic!("{ids:?}") };

    let world = world.restart(|database| {
        database.execute("DELETE FROM kept WHERE instruction = 1", []).unwrap();
        database.execute("UPDATE kept SET until_ms = until_ms - 1 WHERE instruction = 2", []).unwrap();
        database.execute("UPDATE kept SET stage = 2 WHERE instruction = 3", []).unwrap();
    });
    world.advance(60 * DAY);
    world.until(sound, |instruction| instruction.results_deleted).await;

    for id in [older, damaged, gone] {
        let shown = world.engine.reader().instruction(id).unwrap();
        assert_eq!((shown.results_until_ms, shown.results_deleted, kept(&world, id)), (0, false, Ok(1)));
    }
    let told = [(older, false, 1), (damaged, false, 1), (gone, false, 1), (sound, true, 0)];
    assert_eq!(exported(&world), told);
    assert_eq!(warnings(&world), ["kept"]);
}

/// An order whose results are kept for so long after its end.
fn wish(keep: Duration) -> Prepare {
    Prepare {
        definition: DEFINITION.to_owned(),
        operator: OPERATOR.to_owned(),
        keep_ms: u64::try_from(keep.as_millis()).unwrap(),
        ..Prepare::default()
    }
}

async fn issue_kept_for(world: &World, keep: Duration) -> InstructionId {
    let prepared = world.engine.prepare(wish(keep), admitted).await.unwrap();
    world.submit(&prepared).await
}

/// How many results are served.
fn kept(world: &World, id: InstructionId) -> Result<usize, EngineError> {
    world.engine.reader().results(id, &Cursor::default(), 10).map(|page| page.items.len())
}

fn summed(world: &World, id: InstructionId) -> Result<u64, EngineError> {
    let query = "SELECT count(*) AS n FROM results";
    world.engine.reader().aggregate(id, query, &CancellationToken::new()).map(|answer| answer.results)
}

/// The instructions of the export: whether their results are deleted, and how many results it has of them.
fn exported(world: &World) -> Vec<(InstructionId, bool, usize)> {
    let mut found: Vec<(String, bool, usize)> = Vec::new();
    let take = |response: muster_proto::operator::v1::ExportResponse| {
        match response.record.unwrap() {
            Record::Instruction(shown) => found.push((shown.id, shown.results_deleted, 0)),
            Record::Result(result) => {
                found.iter_mut().filter(|(id, ..)| *id == result.instruction).for_each(|found| found.2 += 1);
            }
            Record::Definition(_) | Record::Transition(_) | Record::Event(_) => {}
        }
        ControlFlow::Continue(())
    };
    world.engine.reader().export(take).unwrap();
    found.into_iter().map(|(id, deleted, results)| (id.parse().unwrap(), deleted, results)).collect()
}

/// How many results lie in the store, and how far their deletion has come at most.
fn left(world: &World) -> (i64, i64) {
    let database = Connection::open(world.dir.path().join("switch.db")).unwrap();
    let results = database.query_row("SELECT count(*) FROM results", [], |row| row.get(0)).unwrap();
    (results, database.query_row("SELECT max(stage) FROM kept", [], |row| row.get(0)).unwrap())
}
