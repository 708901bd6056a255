//! The spool on real SQLite: bounds, removals, and what a failed write means.

use muster_proto::session::v1::Event;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::tables::record_size;
use super::writer::{CHECKPOINT_BYTES, Unchecked};
use super::*;

fn bounds(bytes_max: u64) -> SpoolBounds {
    SpoolBounds {
        bytes_max,
        bytes_per_device_max: u64::MAX,
        refused_kept_for: Duration::from_secs(1_000),
        set_aside_bytes_max: 1_000_000,
    }
}

fn events_of(spool: &Spool) -> Vec<RelayedEvent> {
    spool.read(0, 1_000, 0).unwrap().into_iter().map(|spooled| spooled.event).collect()
}

fn positions_of(spool: &Spool) -> Vec<i64> {
    spool.read(0, 1_000, 0).unwrap().into_iter().map(|spooled| spooled.position).collect()
}

fn event(device: &str, sequence: u64) -> RelayedEvent {
    let event = Event { sequence, name: "test.happened".to_owned(), ..Event::default() };
    RelayedEvent { device: device.to_owned(), outbox_id: vec![7; 16], event: Some(event) }
}

#[tokio::test]
async fn an_acked_event_is_there_after_a_restart_and_a_repeat_is_kept_once() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, writer) = Spool::open(folder.path(), bounds(1_000_000)).unwrap();
    spool.append(vec![event("a", 1), event("a", 2)]).await.unwrap();
    spool.append(vec![event("a", 2), event("b", 2)]).await.unwrap();
    drop(spool);
    writer.join().unwrap();

    let (spool, _writer) = Spool::open(folder.path(), bounds(1_000_000)).unwrap();

    let found: Vec<RelayedEvent> =
        spool.read(0, 10, 0).unwrap().into_iter().map(|spooled| spooled.event).collect();
    assert_eq!(found, [event("a", 1), event("a", 2), event("b", 2)]);
}

#[tokio::test]
async fn a_full_spool_refuses_and_takes_again_what_fits_after_a_removal() {
    let folder = tempfile::tempdir().unwrap();
    let size = record_size(&event("a", 1));
    let (spool, _writer) = Spool::open(folder.path(), bounds(size)).unwrap();
    spool.append(vec![event("a", 1)]).await.unwrap();
    assert!(matches!(spool.append(vec![event("a", 2)]).await, Err(SpoolError::Full { .. })));

    let position = spool.read(0, 1, 0).unwrap()[0].position;
    spool.settle(Settled { taken: vec![position], ..Settled::default() }, 0).await.unwrap();

    spool.append(vec![event("a", 2)]).await.unwrap();
    assert_eq!(spool.read(0, 10, 0).unwrap().len(), 1);
}

#[tokio::test]
async fn the_write_ahead_log_is_copied_into_the_database_before_it_grows_large() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _writer) = Spool::open(folder.path(), bounds(1 << 30)).unwrap();
    let large = |sequence| {
        let name = "n".repeat(256 << 10);
        let event = Event { sequence, name, ..Event::default() };
        RelayedEvent { device: "a".to_owned(), outbox_id: vec![7; 16], event: Some(event) }
    };

    for sequence in 1..=64 {
        spool.append(vec![large(sequence)]).await.unwrap();
    }

    let log = std::fs::metadata(folder.path().join("spool.sqlite-wal")).unwrap().len();
    assert!(log < 2 * CHECKPOINT_BYTES, "{log} bytes after 16 MiB of events");
}

#[test]
fn sqlite_runs_no_checkpoint_whose_failure_it_would_keep_to_itself() {
    let folder = tempfile::tempdir().unwrap();
    let connection = tables::open(&folder.path().join("spool.sqlite")).unwrap();

    let pages: i64 = connection.pragma_query_value(None, "wal_autocheckpoint", |row| row.get(0)).unwrap();

    assert_eq!(pages, 0);
}

#[test]
fn a_failed_checkpoint_ends_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.sqlite");
    let mut connection = tables::open(&path).unwrap();
    let deny = |context: AuthContext<'_>| {
        let is_checkpoint =
            matches!(context.action, AuthAction::Pragma { pragma_name: "wal_checkpoint", .. });
        if is_checkpoint { Authorization::Deny } else { Authorization::Allow }
    };
    connection.authorizer(Some(deny)).unwrap();
    let (commands, queue) = mpsc::channel(1);
    let (bump, _appended) = watch::channel(0);
    let mut writer = Writer::new(connection, path, bounds(1_000), queue, bump).unwrap();
    writer.unchecked = Unchecked { bytes: CHECKPOINT_BYTES, commits: 0 };
    let (reply, _replied) = oneshot::channel();
    let command = Command::Append { events: vec![event("a", 1)], place: None, reply };
    assert!(commands.try_send(command).is_ok());
    drop(commands);

    let ended = writer.run();

    assert!(matches!(ended, Err(SpoolError::Store { .. })), "{ended:?}");
}

#[test]
fn a_batch_that_the_disk_has_no_room_for_is_undone_and_the_next_that_fits_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.sqlite");
    let connection = tables::open(&path).unwrap();
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    connection.pragma_update(None, "max_page_count", pages).unwrap();
    let (_commands, queue) = mpsc::channel(1);
    let (bump, _appended) = watch::channel(0);
    let mut writer = Writer::new(connection, path, bounds(1 << 20), queue, bump).unwrap();
    let mut post = |events: Vec<RelayedEvent>| {
        let (reply, mut replied) = oneshot::channel();
        writer.commit(vec![Command::Append { events, place: None, reply }]).unwrap();
        (replied.try_recv().unwrap(), writer.held.all())
    };

    let many = post((1..=1_000).map(|sequence| event("a", sequence)).collect());
    let few = post(vec![event("b", 1)]);

    assert!(matches!(many, (Err(SpoolError::DiskFull { .. }), 0)), "{many:?}");
    assert!(few.0.is_ok(), "{few:?}");
    assert_eq!(few.1, record_size(&event("b", 1)));
}

#[tokio::test]
async fn a_damaged_record_is_set_aside_and_the_others_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _writer) = Spool::open(folder.path(), bounds(1_000_000)).unwrap();
    spool.append(vec![event("a", 1), event("a", 2)]).await.unwrap();
    let connection = Connection::open(folder.path().join("spool.sqlite")).unwrap();
    connection.execute("UPDATE event SET record = zeroblob(length(record)) WHERE sequence = 1", []).unwrap();

    let found = spool.read(0, 10, 0).unwrap();

    assert_eq!(found.len(), 1);
    assert_eq!(found[0].event, event("a", 2));
    // A reply comes after all that was sent before.
    spool.settle(Settled::default(), 0).await.unwrap();
    assert_eq!(set_aside(folder.path()), [("a".to_owned(), "damaged".to_owned())]);
}

#[tokio::test]
async fn a_spool_of_a_newer_layout_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.sqlite");
    let newer = Connection::open(&path).unwrap();
    newer.execute_batch("CREATE TABLE other (a); PRAGMA user_version = 99;").unwrap();
    drop(newer);
    let before = std::fs::read(&path).unwrap();

    let error = Spool::open(folder.path(), bounds(1_000)).err().unwrap();

    assert!(matches!(error, SpoolError::Newer { got: 99, wanted: tables::LAYOUT, .. }), "{error}");
    assert!(error.to_string().contains("install the newer version"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// What is set aside, oldest first.
fn set_aside(folder: &Path) -> Vec<(String, String)> {
    let connection = Connection::open(folder.join("spool.sqlite")).unwrap();
    let mut statement = connection.prepare("SELECT device, cause FROM set_aside ORDER BY position").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn a_spool_of_an_older_layout_keeps_its_events_and_what_it_set_aside_takes_no_room() {
    for layout in [0, 1] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool.sqlite");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(tables::SCHEMA_1).unwrap();
        old.pragma_update(None, "user_version", layout).unwrap();
        for sequence in [1, 2] {
            tables::append(&old, &event("a", sequence)).unwrap();
        }
        old.execute("UPDATE event SET damaged = 1 WHERE sequence = 1", []).unwrap();
        drop(old);

        let (spool, _writer) = Spool::open(folder.path(), bounds(2 * record_size(&event("a", 1)))).unwrap();

        assert_eq!(events_of(&spool), [event("a", 2)]);
        spool.append(vec![event("a", 3)]).await.unwrap();
        assert_eq!(set_aside(folder.path()), [("a".to_owned(), "unknown".to_owned())]);
        let number =
            Connection::open(&path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0));
        assert_eq!(number, Ok(tables::LAYOUT));
    }
}

#[tokio::test]
async fn whom_operators_block_is_there_after_a_restart_also_in_a_spool_of_layout_2() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.sqlite");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(tables::SCHEMA_1).unwrap();
    old.execute_batch(tables::SCHEMA_2).unwrap();
    old.pragma_update(None, "user_version", 2).unwrap();
    tables::append(&old, &event("a", 1)).unwrap();
    drop(old);
    let told = |names: &[&str]| SyncDoorResponse {
        blocked: names.iter().map(ToString::to_string).collect(),
        state: vec![7],
        unchanged: false,
    };

    let (spool, writer) = Spool::open(folder.path(), bounds(1_000_000)).unwrap();
    let before = spool.door().clone();
    spool.keep_door(&told(&["w701", "w702"])).await.unwrap();
    spool.keep_door(&told(&["w702"])).await.unwrap();
    assert_eq!(events_of(&spool), [event("a", 1)]);
    drop(spool);
    writer.join().unwrap();
    let (spool, _writer) = Spool::open(folder.path(), bounds(1_000_000)).unwrap();

    assert_eq!((before, spool.door()), (KeptDoor::None, &KeptDoor::Told(told(&["w702"]))));
}

#[tokio::test]
async fn a_damaged_list_of_blocked_devices_is_told_and_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, writer) = Spool::open(folder.path(), bounds(1_000_000)).unwrap();
    let told = SyncDoorResponse { blocked: vec!["w701".to_owned()], ..SyncDoorResponse::default() };
    spool.keep_door(&told).await.unwrap();
    drop(spool);
    writer.join().unwrap();
    let damage = || {
        let connection = Connection::open(folder.path().join("spool.sqlite")).unwrap();
        connection.execute("UPDATE door SET crc = crc + 1", []).unwrap();
    };

    for round in 1..=2 {
        damage();
        let (spool, writer) = Spool::open(folder.path(), bounds(1_000_000)).unwrap();
        assert_eq!(*spool.door(), KeptDoor::Damaged);
        assert_eq!(set_aside(folder.path()), vec![(String::new(), "damaged".to_owned()); round]);
        spool.keep_door(&told).await.unwrap();
        drop(spool);
        writer.join().unwrap();
    }

    let (spool, _writer) = Spool::open(folder.path(), bounds(1_000_000)).unwrap();
    assert_eq!(*spool.door(), KeptDoor::Told(told));
}

#[tokio::test]
async fn one_device_fills_its_share_and_leaves_the_others_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let size = record_size(&event("a", 1));
    let share = || SpoolBounds { bytes_per_device_max: 2 * size, ..bounds(1_000_000) };
    let (spool, writer) = Spool::open(folder.path(), share()).unwrap();

    spool.append(vec![event("a", 1), event("a", 2)]).await.unwrap();
    let third = spool.append(vec![event("a", 3)]).await;
    let others = spool.append(vec![event("b", 1)]).await;
    drop(spool);
    writer.join().unwrap();
    let (spool, _writer) = Spool::open(folder.path(), share()).unwrap();
    let restarted = spool.append(vec![event("a", 3)]).await;
    let taken = vec![positions_of(&spool)[0]];
    spool.settle(Settled { taken, ..Settled::default() }, 0).await.unwrap();
    let after = spool.append(vec![event("a", 3)]).await;

    for full in [third, restarted] {
        assert!(matches!(full, Err(SpoolError::DeviceFull { held, .. }) if held == 2 * size), "{full:?}");
    }
    assert!(others.is_ok() && after.is_ok(), "{others:?}, {after:?}");
    assert_eq!(events_of(&spool), [event("a", 2), event("b", 1), event("a", 3)]);
}

#[tokio::test]
async fn a_repeat_takes_no_room_and_fits_a_full_spool() {
    let folder = tempfile::tempdir().unwrap();
    let size = record_size(&event("a", 1));
    let (spool, _writer) = Spool::open(folder.path(), bounds(2 * size)).unwrap();
    spool.append(vec![event("a", 1)]).await.unwrap();

    let with_a_repeat = spool.append(vec![event("a", 1), event("a", 2)]).await;
    let repeats = spool.append(vec![event("a", 1), event("a", 2)]).await;
    let beyond = spool.append(vec![event("a", 2), event("a", 3)]).await;

    assert!(with_a_repeat.is_ok() && repeats.is_ok(), "{with_a_repeat:?}, {repeats:?}");
    assert!(matches!(beyond, Err(SpoolError::Full { .. })), "{beyond:?}");
    assert_eq!(events_of(&spool), [event("a", 1), event("a", 2)]);
}

#[tokio::test]
async fn what_the_switch_refuses_waits_for_its_time_and_then_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let size = record_size(&event("a", 1));
    let (spool, _writer) = Spool::open(folder.path(), bounds(size)).unwrap();
    spool.append(vec![event("a", 1)]).await.unwrap();
    let refused = Settled { kept: positions_of(&spool), ..Settled::default() };
    let again = || Settled { kept: refused.kept.clone(), ..Settled::default() };
    let full = spool.append(vec![event("b", 1)]).await;

    spool.settle(again(), 5_000_000).await.unwrap();
    spool.settle(again(), 5_999_999).await.unwrap();
    let before = events_of(&spool);
    spool.settle(again(), 6_000_000).await.unwrap();
    let after = spool.append(vec![event("b", 1)]).await;

    assert!(matches!(full, Err(SpoolError::Full { .. })), "{full:?}");
    assert_eq!(before, [event("a", 1)]);
    assert!(after.is_ok(), "{after:?}");
    assert_eq!(events_of(&spool), [event("b", 1)]);
}

#[tokio::test]
async fn what_the_switch_will_never_take_is_set_aside_within_a_bound_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let size = record_size(&event("a", 1));
    let bounds = SpoolBounds { set_aside_bytes_max: 2 * size, ..bounds(3 * size) };
    let (spool, _writer) = Spool::open(folder.path(), bounds).unwrap();
    spool.append(vec![event("a", 1), event("b", 1), event("c", 1)]).await.unwrap();
    let [first, second, third] = positions_of(&spool)[..] else { panic!("three were appended") };

    let settled = Settled { taken: vec![first], hopeless: vec![second], ..Settled::default() };
    spool.settle(settled, 0).await.unwrap();
    let left = events_of(&spool);
    spool.append(vec![event("d", 1), event("e", 1)]).await.unwrap();
    let hopeless = positions_of(&spool);
    spool.settle(Settled { hopeless, ..Settled::default() }, 0).await.unwrap();

    assert_eq!((left, third > second), (vec![event("c", 1)], true));
    let kept: Vec<String> = set_aside(folder.path()).into_iter().map(|(device, _)| device).collect();
    assert_eq!(kept, ["d", "e"], "the newest two, of as many bytes as are allowed");
    spool.append(vec![event("f", 1), event("g", 1), event("h", 1)]).await.unwrap();
}

#[tokio::test]
async fn damaged_records_that_fill_a_page_hide_nothing_behind_them() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _writer) = Spool::open(folder.path(), bounds(1_000_000)).unwrap();
    spool.append((1..=5).map(|sequence| event("a", sequence)).collect()).await.unwrap();
    let connection = Connection::open(folder.path().join("spool.sqlite")).unwrap();
    connection.execute("UPDATE event SET crc = 0 WHERE sequence < 5", []).unwrap();

    let found = spool.read(0, 2, 0).unwrap();

    assert_eq!(found.iter().map(|found| &found.event).collect::<Vec<_>>(), [&event("a", 5)]);
    spool.settle(Settled::default(), 0).await.unwrap();
    assert_eq!(set_aside(folder.path()).len(), 4);
}
