//! Stopped instructions on disk, across restarts.

use super::*;

#[test]
fn a_stop_that_comes_before_its_order_keeps_it_from_ever_running_across_a_kill() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(FILE);
    opened(&path).record_stop(&stop(1), cancelled(1), NOW).unwrap();

    // The process is gone; the next one has what is on disk.
    let mut tables = opened(&path);
    let recalled = tables.recall_order(id(1), digest("1 d")).unwrap();
    assert_eq!(recalled.map(|recalled| recalled.state), Some(JournalState::Done));
    tables.record_intent(&taken_on(1)).unwrap();
    assert!(!tables.record_start(id(1), NOW).unwrap(), "the journal itself lets nothing start");
    assert_eq!(states(&mut tables), [TargetState::Cancelled]);
    // The same stop again, as after every reconnect.
    assert!(!tables.record_stop(&stop(1), cancelled(1), NOW).unwrap(), "it is known");
    assert_eq!(states(&mut tables), [TargetState::Cancelled]);
    assert!(tables.recall_order(id(2), digest("2 d")).unwrap().is_none());
}

#[test]
fn a_client_that_is_killed_while_a_stop_ends_what_runs_answers_cancelled() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(FILE);
    let mut tables = opened(&path);
    for number in [1, 2] {
        tables.record_intent(&taken_on(number)).unwrap();
        assert!(tables.record_start(id(number), NOW).unwrap());
    }
    tables.record_stop(&stop(1), cancelled(1), NOW).unwrap();
    assert_eq!(states(&mut tables), [], "what has started is answered when it has ended");
    drop(tables);

    let mut tables = opened(&path);
    let intents = tables.recover(NOW).unwrap();

    assert!(intents.is_empty());
    assert_eq!(states(&mut tables), [TargetState::Cancelled, TargetState::Interrupted]);
}

#[test]
fn a_stop_of_what_was_taken_on_or_has_ended_gives_one_answer() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(FILE);
    let mut tables = opened(&path);
    for number in [1, 2] {
        tables.record_intent(&taken_on(number)).unwrap();
    }
    assert!(tables.record_result(ended(2, TargetState::Answered), NOW).unwrap().is_some());

    tables.record_stop(&stop(1), cancelled(1), NOW).unwrap();
    tables.record_stop(&stop(2), cancelled(2), NOW).unwrap();

    assert_eq!(states(&mut tables), [TargetState::Cancelled, TargetState::Answered]);
    assert!(tables.recover(NOW).unwrap().is_empty(), "nothing of it may start");
}

#[test]
fn a_stop_of_what_was_refused_without_being_taken_on_gives_no_second_answer() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(FILE);
    let mut tables = opened(&path);
    // As by a device whose clock is behind: it cannot open the order, and the journal does not know it.
    tables.record_refusal(digest("1 o"), None, ended(1, TargetState::Refused), NOW).unwrap();
    drop(tables);

    let mut tables = opened(&path);
    assert!(tables.record_stop(&stop(1), cancelled(1), NOW).unwrap());

    assert_eq!(states(&mut tables), [TargetState::Refused]);
    tables.record_intent(&taken_on(1)).unwrap();
    assert!(!tables.record_start(id(1), NOW).unwrap(), "it is stopped all the same");
}

#[test]
fn stops_and_orders_that_are_made_up_are_told_once_each_and_no_further_than_a_bound() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(FILE);
    let mut tables = opened(&path);
    let event = || event_record(NOW, crate::events::STOP_REFUSED, Vec::new());

    for number in 0..1_000 {
        for _ in 0..2 {
            tables.report_refused(digest(&number.to_string()), event(), NOW).unwrap();
        }
    }

    assert_eq!(tables.outbox_counts().events, 256);
}

#[test]
fn a_stop_is_remembered_as_long_as_its_order_may_come() {
    const DAY_MS: i64 = 86_400_000;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(FILE);
    let mut tables = opened(&path);
    tables.record_stop(&stop(1), cancelled(1), NOW).unwrap();

    tables.forget(NOW + 7 * DAY_MS).unwrap();
    assert!(tables.stopped(id(1)).unwrap().is_some());
    tables.forget(NOW + 7 * DAY_MS + 1).unwrap();

    assert!(tables.stopped(id(1)).unwrap().is_none());
}

#[test]
fn a_store_of_the_first_layout_learns_to_stop() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(FILE);
    opened(&path).record_intent(&taken_on(1)).unwrap();
    let before = Connection::open(&path).unwrap();
    before.execute_batch("DROP TABLE stopped; PRAGMA user_version = 1;").unwrap();
    drop(before);

    let mut tables = opened(&path);

    assert!(tables.record_stop(&stop(1), cancelled(1), NOW).unwrap());
    assert!(!tables.record_start(id(1), NOW).unwrap(), "what it held is stopped, too");
}

fn stop(number: u8) -> StopEntry {
    StopEntry {
        instruction: id(number),
        digest: digest(&format!("9 stop {number}")),
        expires_at_ms: NOW + 60_000,
        detail: "stopped by ann".to_owned(),
    }
}

fn taken_on(number: u8) -> Entry {
    Entry {
        instruction: id(number),
        order_digest: digest(&format!("{number} d")),
        definition: digest("d"),
        expires_at_ms: NOW + 60_000,
        envelope: format!("{number} d").into_bytes(),
        proof: None,
    }
}

fn cancelled(number: u8) -> InstructionResult {
    ended(number, TargetState::Cancelled)
}

fn ended(number: u8, state: TargetState) -> InstructionResult {
    let instruction = id(number).to_vec();
    InstructionResult { instruction, state: state.into(), last: true, ..InstructionResult::default() }
}

fn id(number: u8) -> InstructionId {
    InstructionId::from([number; 16])
}

fn digest(text: &str) -> Digest {
    muster_signing::envelope::digest(text.as_bytes())
}

fn opened(path: &Path) -> Tables {
    Tables::open(path, OutboxConfig::default(), NOW).unwrap()
}

/// The states of the results that wait, in order of instruction.
fn states(tables: &mut Tables) -> Vec<TargetState> {
    let queued = tables.queued(QueueLane::Results, 0, usize::MAX, NOW).unwrap();
    let read = |Queued { record, .. }: Queued| InstructionResult::decode(&record[..]).unwrap();
    let mut results: Vec<_> = queued.into_iter().map(read).collect();
    results.sort_by(|one, next| one.instruction.cmp(&next.instruction));
    results.iter().map(InstructionResult::state).collect()
}
