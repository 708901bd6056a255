//! The spool on real SQLite: bounds, removals, and what a failed write means.

use muster_proto::session::v1::Event;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::*;

fn event(device: &str, sequence: u64) -> RelayedEvent {
    let event = Event { sequence, name: "test.happened".to_owned(), ..Event::default() };
    RelayedEvent { device: device.to_owned(), outbox_id: vec![7; 16], event: Some(event) }
}

#[tokio::test]
async fn an_acked_event_is_there_after_a_restart_and_a_repeat_is_kept_once() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, writer) = Spool::open(folder.path(), 1_000_000).unwrap();
    spool.append(vec![event("a", 1), event("a", 2)]).await.unwrap();
    spool.append(vec![event("a", 2), event("b", 2)]).await.unwrap();
    drop(spool);
    writer.join().unwrap();

    let (spool, _writer) = Spool::open(folder.path(), 1_000_000).unwrap();

    let found: Vec<RelayedEvent> =
        spool.read(0, 10).unwrap().into_iter().map(|spooled| spooled.event).collect();
    assert_eq!(found, [event("a", 1), event("a", 2), event("b", 2)]);
}

#[tokio::test]
async fn a_full_spool_refuses_and_takes_again_what_fits_after_a_removal() {
    let folder = tempfile::tempdir().unwrap();
    let size = record_size(&event("a", 1));
    let (spool, _writer) = Spool::open(folder.path(), size).unwrap();
    spool.append(vec![event("a", 1)]).await.unwrap();
    assert!(matches!(spool.append(vec![event("a", 2)]).await, Err(SpoolError::Full { .. })));

    let position = spool.read(0, 1).unwrap()[0].position;
    spool.remove(vec![position]).await;

    spool.append(vec![event("a", 2)]).await.unwrap();
    assert_eq!(spool.read(0, 10).unwrap().len(), 1);
}

#[tokio::test]
async fn the_write_ahead_log_is_copied_into_the_database_before_it_grows_large() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _writer) = Spool::open(folder.path(), 1 << 30).unwrap();
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
    let unchecked = Unchecked { bytes: CHECKPOINT_BYTES, commits: 0 };
    let room = Room::default();
    let writer = Writer { connection, path, bytes_max: 1_000, held: 0, unchecked, room, queue, bump };
    let (reply, _replied) = oneshot::channel();
    assert!(commands.try_send(Command::Append { events: vec![event("a", 1)], reply }).is_ok());
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
    let (unchecked, room) = (Unchecked::default(), Room::default());
    let mut writer = Writer { connection, path, bytes_max: 1 << 20, held: 0, unchecked, room, queue, bump };
    let mut post = |events: Vec<RelayedEvent>| {
        let (reply, mut replied) = oneshot::channel();
        writer.commit(vec![Command::Append { events, reply }]).unwrap();
        (replied.try_recv().unwrap(), writer.held)
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
    let (spool, _writer) = Spool::open(folder.path(), 1_000_000).unwrap();
    spool.append(vec![event("a", 1), event("a", 2)]).await.unwrap();
    let connection = Connection::open(folder.path().join("spool.sqlite")).unwrap();
    connection.execute("UPDATE event SET record = zeroblob(length(record)) WHERE sequence = 1", []).unwrap();

    let found = spool.read(0, 10).unwrap();

    assert_eq!(found.len(), 1);
    assert_eq!(found[0].event, event("a", 2));
    let kept: i64 =
        connection.query_row("SELECT count(*) FROM event WHERE damaged = 1", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 1, "set aside, not deleted");
}

#[tokio::test]
async fn a_spool_of_a_newer_layout_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.sqlite");
    let newer = Connection::open(&path).unwrap();
    newer.execute_batch("CREATE TABLE other (a); PRAGMA user_version = 99;").unwrap();
    drop(newer);
    let before = std::fs::read(&path).unwrap();

    let error = Spool::open(folder.path(), 1_000).err().unwrap();

    assert!(matches!(error, SpoolError::Newer { got: 99, wanted: 1, .. }), "{error}");
    assert!(error.to_string().contains("install the newer version"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_spool_from_before_layouts_had_numbers_keeps_its_events() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, writer) = Spool::open(folder.path(), 1_000_000).unwrap();
    spool.append(vec![event("a", 1)]).await.unwrap();
    drop(spool);
    writer.join().unwrap();
    let path = folder.path().join("spool.sqlite");
    let layout = || {
        let connection = Connection::open(&path).unwrap();
        connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(layout(), 1);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 0).unwrap();

    let (spool, _writer) = Spool::open(folder.path(), 1_000_000).unwrap();

    assert_eq!(spool.read(0, 10).unwrap().len(), 1);
    assert_eq!(layout(), 1);
}
