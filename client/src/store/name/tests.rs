use std::path::Path;

use muster_proto::common::v1::TargetState;
use muster_proto::ids::{Digest, InstructionId, OutboxId};
use muster_proto::numbers::Standing;
use muster_proto::session::v1::{Event, Result as InstructionResult, SequenceRange};
use prost::Message as _;
use rusqlite::Connection;
use tempfile::TempDir;

use super::SeenNumbers;
use crate::config::OutboxConfig;
use crate::store::{Entry, FILE, JournalState, QueueLane, Tables, event_record};

const NOW: i64 = 1_800_000_000_000;

/// The Switch's clock when it welcomes.
const RESTORED: i64 = NOW + 7;

#[test]
fn a_store_brought_back_from_a_copy_takes_another_name_and_keeps_it_and_everything_that_waits() {
    let folder = TempDir::new().unwrap();
    let mut tables = open(folder.path());
    append(&mut tables, "waits");
    assert_eq!(welcomed(&mut tables, 0), Standing::Own);
    append(&mut tables, "also.waits");
    let before = tables.outbox_id();
    let copy = copied(tables, &folder);

    // The original went on to 3; the copy gives 3 to something else, and has not sent it.
    let mut tables = open(copy.path());
    assert_eq!(append(&mut tables, "new"), 3);
    assert_eq!(welcomed(&mut tables, 3), Standing::Copy);

    let after = tables.outbox_id();
    assert_ne!(after, before);
    drop(tables);
    let mut tables = open(copy.path());
    assert_eq!(tables.outbox_id(), after);
    assert_eq!(waiting(&mut tables), [(1, "waits".into()), (2, "also.waits".into()), (3, "new".into())]);
    assert_eq!(append(&mut tables, "next"), 4);
    assert_eq!(welcomed(&mut tables, 0), Standing::Own, "nobody has seen the new name");
}

#[test]
fn another_name_that_was_not_committed_is_not_taken() {
    let folder = TempDir::new().unwrap();
    let mut tables = open(folder.path());
    append(&mut tables, "waits");
    let before = tables.outbox_id();

    tables.begin().unwrap();
    assert_eq!(tables.welcomed(by_session(7), RESTORED, NOW).unwrap(), Standing::Copy);
    tables.roll_back().unwrap();

    assert_eq!(tables.outbox_id(), before);
    assert_eq!(welcomed(&mut tables, 7), Standing::Copy, "the next Welcome tells it again");
}

#[test]
fn what_was_offered_by_a_session_or_posted_is_remembered_across_a_restart() {
    let folder = TempDir::new().unwrap();
    let mut tables = open(folder.path());
    append(&mut tables, "posted");
    append(&mut tables, "waits");
    tables.begin().unwrap();
    tables.offer(1).unwrap();
    tables.commit().unwrap();
    drop(tables);
    let mut tables = open(folder.path());
    assert_eq!(welcomed(&mut tables, 1), Standing::Own, "the Background Channel handed 1 on");
    // Sent at once, and the ack was lost with the client.
    append(&mut tables, "sent");
    drop(tables);
    let mut tables = open(folder.path());
    append(&mut tables, "client.started");

    assert_eq!(welcomed(&mut tables, 3), Standing::Own);
    tables.parted();
    append(&mut tables, "unsent");
    assert_eq!(welcomed(&mut tables, 5), Standing::Copy);
}

#[test]
fn acks_of_an_older_name_delete_nothing() {
    let folder = TempDir::new().unwrap();
    let mut tables = open(folder.path());
    append(&mut tables, "posted");
    let before = tables.outbox_id();
    assert_eq!(welcomed(&mut tables, 1), Standing::Copy);
    let one = [SequenceRange { first: 1, last: 1 }];

    tables.acked_of(before, QueueLane::Events, &one).unwrap();

    assert_eq!(waiting(&mut tables).len(), 1);
    let after: OutboxId = tables.outbox_id();
    tables.acked_of(after, QueueLane::Events, &one).unwrap();
    assert_eq!(waiting(&mut tables), []);
}

#[test]
fn a_store_of_the_first_layout_keeps_its_name_and_counts_all_its_numbers_as_offered() {
    let folder = TempDir::new().unwrap();
    let mut tables = open(folder.path());
    append(&mut tables, "waits");
    let before = tables.outbox_id();
    let mut value = before.to_vec();
    value.extend_from_slice(&2_u64.to_be_bytes());
    tables.set_meta("outbox", &value).unwrap();
    drop(tables);

    let mut tables = open(folder.path());

    assert_eq!(tables.outbox_id(), before);
    assert_eq!(welcomed(&mut tables, 1), Standing::Own);
    assert_eq!(append(&mut tables, "next"), 2);
}

#[test]
fn what_a_copy_had_taken_on_ends_as_interrupted_with_the_new_name_and_its_time_stays() {
    let folder = TempDir::new().unwrap();
    let mut tables = open(folder.path());
    tables.record_intent(&entry(1)).unwrap();
    tables.record_intent(&entry(2)).unwrap();
    assert!(tables.record_start(id(2), NOW).unwrap());
    assert_eq!(welcomed(&mut tables, 0), Standing::Own);
    assert_eq!((tables.restored_at_ms(NOW).unwrap(), tables.recover(NOW).unwrap().len()), (0, 1));
    let copy = copied(tables, &folder);

    let mut tables = open(copy.path());
    assert_eq!(welcomed(&mut tables, 9), Standing::Copy);
    drop(tables);

    let mut tables = open(copy.path());
    assert_eq!(tables.recover(NOW).unwrap(), []);
    let results = tables.queued(QueueLane::Results, 0, 1 << 20, NOW).unwrap();
    let result = |record: &[u8]| InstructionResult::decode(record).unwrap();
    let ended: Vec<_> =
        results.iter().map(|one| (result(&one.record).instruction[0], result(&one.record).state())).collect();
    assert_eq!(ended, [(2, TargetState::Interrupted), (1, TargetState::Interrupted)]);
    assert_eq!(tables.recall(id(1)).unwrap().map(|known| known.state), Some(JournalState::Done));
    assert!(!tables.record_start(id(1), NOW).unwrap(), "what has ended does not start");
    assert_eq!(tables.restored_at_ms(NOW).unwrap(), RESTORED);
    assert_eq!(welcomed(&mut tables, 99), Standing::Copy);
    assert_eq!(tables.restored_at_ms(NOW).unwrap(), RESTORED + 1, "each restore has a time of its own");
}

#[test]
fn numbers_that_somebody_else_has_named_change_the_name_and_end_nothing() {
    let folder = TempDir::new().unwrap();
    let mut tables = open(folder.path());
    tables.record_intent(&entry(1)).unwrap();
    tables.record_intent(&entry(2)).unwrap();
    assert!(tables.record_start(id(2), NOW).unwrap());
    append(&mut tables, "waits");
    let before = tables.outbox_id();

    let claimed = SeenNumbers { highest: 1 << 62, by_session: Some(0) };
    assert_eq!(welcomed_by(&mut tables, claimed), Standing::Claimed);

    assert_ne!(tables.outbox_id(), before);
    assert_eq!(waiting(&mut tables), [(1, "waits".into())]);
    assert_eq!(tables.restored_at_ms(NOW).unwrap(), 0);
    let states = [1, 2].map(|number| tables.recall(id(number)).unwrap().map(|known| known.state));
    assert_eq!(states, [Some(JournalState::Intent), Some(JournalState::Started)]);
    assert!(tables.queued(QueueLane::Results, 0, 1 << 20, NOW).unwrap().is_empty());
    assert_eq!(welcomed(&mut tables, 0), Standing::Own);

    // A Switch that does not tell the roads apart: nothing may start twice.
    let untold = SeenNumbers { highest: 1 << 62, by_session: None };
    assert_eq!(welcomed_by(&mut tables, untold), Standing::Copy);
    assert_eq!(tables.recall(id(1)).unwrap().map(|known| known.state), Some(JournalState::Done));
}

#[test]
fn a_restore_of_the_future_is_taken_back_when_the_clocks_of_switch_and_device_agree_that_it_is_to_come() {
    let minute = 60_000;
    let year = 365 * 86_400_000;
    // What the Switch shows, what the device shows; the restore that is then believed.
    for (switch_ms, now_ms, believed) in [
        (NOW + 10 * minute, NOW + 10 * minute, NOW),
        (NOW + 10 * minute, NOW + 15 * minute, NOW),
        // One of them is wrong, and nobody knows which.
        (NOW + 10 * minute, NOW + 16 * minute, NOW + year),
        (1, NOW + 10 * minute, NOW + year),
        (NOW + 2 * year, NOW, NOW + year),
        // It can have been then.
        (NOW + year, NOW + year, NOW + year),
        // Set back since.
        (NOW - minute, NOW - minute, NOW - minute),
    ] {
        let folder = TempDir::new().unwrap();
        let mut tables = open(folder.path());
        let mut welcomed = |highest, switch_ms, now_ms| {
            tables.begin().unwrap();
            let standing = tables.welcomed(by_session(highest), switch_ms, now_ms).unwrap();
            tables.commit().unwrap();
            (standing, tables.restored_at_ms(now_ms).unwrap())
        };
        assert_eq!(welcomed(99, NOW + year, NOW), (Standing::Copy, NOW + year));

        let standing = (Standing::Own, believed);
        assert_eq!(welcomed(0, switch_ms, now_ms), standing, "{switch_ms} and {now_ms}");
        assert_eq!(welcomed(0, switch_ms, now_ms), standing, "{switch_ms} and {now_ms}, again");
    }
}

#[test]
fn a_restore_that_an_earlier_version_noted_is_taken_back_to_the_welcome_that_refutes_it() {
    let folder = TempDir::new().unwrap();
    let mut tables = open(folder.path());
    tables.set_meta("restored_at", &u64::MAX.to_be_bytes()).unwrap();

    assert_eq!(welcomed(&mut tables, 0), Standing::Own);

    assert_eq!(tables.restored_at_ms(NOW).unwrap(), RESTORED);
}

fn id(number: u8) -> InstructionId {
    InstructionId::from([number; 16])
}

fn entry(number: u8) -> Entry {
    Entry {
        instruction: id(number),
        order_digest: Digest::from([number; 32]),
        definition: Digest::from([0; 32]),
        expires_at_ms: NOW + 60_000,
        envelope: b"order".to_vec(),
        proof: None,
    }
}

/// Numbers that came over sessions.
fn by_session(highest: u64) -> SeenNumbers {
    SeenNumbers { highest, by_session: Some(highest) }
}

fn open(folder: &Path) -> Tables {
    Tables::open(&folder.join(FILE), OutboxConfig::default(), NOW).unwrap()
}

/// Closes a store and copies its file as a backup would.
fn copied(tables: Tables, folder: &TempDir) -> TempDir {
    drop(tables);
    let (from, copy) = (folder.path().join(FILE), TempDir::new().unwrap());
    Connection::open(&from).unwrap().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    std::fs::copy(from, copy.path().join(FILE)).unwrap();
    copy
}

fn append(tables: &mut Tables, name: &str) -> u64 {
    tables.append_event(event_record(NOW, name, Vec::new()), NOW).unwrap()
}

fn welcomed(tables: &mut Tables, highest: u64) -> Standing {
    welcomed_by(tables, by_session(highest))
}

fn welcomed_by(tables: &mut Tables, seen: SeenNumbers) -> Standing {
    tables.begin().unwrap();
    let standing = tables.welcomed(seen, RESTORED, NOW).unwrap();
    tables.commit().unwrap();
    standing
}

fn waiting(tables: &mut Tables) -> Vec<(u64, String)> {
    let queued = tables.queued(QueueLane::Events, 0, 1 << 20, NOW).unwrap();
    let event = |record: &[u8]| Event::decode(record).unwrap();
    queued.iter().map(|queued| (queued.sequence, event(&queued.record).name)).collect()
}
