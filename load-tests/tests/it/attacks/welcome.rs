//! What a Welcome says of the time and of the numbers that were seen, which nobody signs.

use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::ids::InstructionId;

use super::{Lab, instruction, text};
use crate::liar::{Session, Welcome, now_ms};
use crate::support::orders::order_of;
use crate::support::{children, wait_until};

const YEAR_MS: i64 = 365 * 86_400_000;

#[test]
fn attack_by_a_welcome_that_calls_the_store_a_copy_of_the_future_is_taken_back_by_an_honest_one() {
    let lab = Lab::new();
    let liar = lab.liar();
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    issued_now(&lab, &mut session, 1, TargetState::Answered);
    drop(session);

    // Every number was seen, and the restore is a year from now.
    let time_ms = Some(now_ms() + YEAR_MS);
    let lie = Welcome { highest_by_session: Some(u64::MAX), time_ms, ..lab.welcome() };
    let mut session = liar.accept(lie);
    session.until("the session to end", |told| told.ended.clone());
    // A Switch whose time is not that of the device takes nothing back, earlier or later.
    for time_ms in [now_ms() + YEAR_MS, 1] {
        drop(session);
        session = liar.accept(Welcome { time_ms: Some(time_ms), ..lab.welcome() });
        issued_now(&lab, &mut session, u8::from(time_ms == 1) + 2, TargetState::Interrupted);
    }
    assert_eq!(lab.place.starts(), 1);
    client.kill();
    drop(session);

    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    issued_now(&lab, &mut session, 4, TargetState::Answered);
    // What was issued before the lie may have run before, for all that the device knows.
    let order = lab.order(&lab.honest);
    session.deliver(&lab.signed(&order));
    assert_eq!(session.result(instruction(&order)), (TargetState::Interrupted, Refusal::Unspecified));
    assert_eq!(lab.place.starts(), 2);
}

#[test]
fn attack_by_a_welcome_that_calls_the_store_a_copy_leaves_nothing_running_that_nobody_could_stop() {
    let lab = Lab::new();
    let liar = lab.liar();
    let endless = lab.publish(&liar, &endless());
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let order = lab.order(&endless);
    session.deliver(&lab.signed(&order));
    session.until("it to run", |told| {
        told.progress.contains(&(instruction(&order), TargetState::Running)).then_some(())
    });
    wait_until("the helper", || !children(client.pid()).is_empty());
    drop(session);

    // A Switch that does not tell the roads apart says so by its only number.
    let mut session = liar.accept(Welcome { highest_sequence: u64::MAX, ..lab.welcome() });
    session.until("the session to end", |told| told.ended.clone());
    drop(session);

    let mut session = liar.accept(lab.welcome());
    assert_eq!(session.result(instruction(&order)), (TargetState::Interrupted, Refusal::Unspecified));
    wait_until("the helper to be gone", || children(client.pid()).is_empty());
}

#[test]
fn attack_by_a_welcome_that_announces_stops_and_sends_none_delays_what_waits_by_some_seconds() {
    let lab = Lab::new();
    let liar = lab.liar();
    let _client = lab.start();

    let mut session = liar.accept(Welcome { stops_due: u32::MAX, ..lab.welcome() });

    lab.goes_on(&mut session);
}

#[test]
fn attack_by_a_welcome_with_the_last_epoch_of_all_keeps_no_later_session_out() {
    let lab = Lab::new();
    let liar = lab.liar();
    let _client = lab.start();
    let mut session =
        liar.accept(Welcome { epoch: Some(u64::MAX), time_ms: Some(i64::MAX), ..lab.welcome() });
    lab.goes_on(&mut session);
    drop(session);

    let mut session = liar.accept(Welcome { epoch: Some(2), ..lab.welcome() });
    assert_eq!(session.told.hello.last_epoch, u64::MAX);
    lab.goes_on(&mut session);
    drop(session);

    let mut session = liar.accept(lab.welcome());
    assert_eq!(session.told.hello.last_epoch, 2);
    lab.goes_on(&mut session);
}

/// A definition that runs until it is ended.
fn endless() -> String {
    let query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS one FROM n";
    text("Acme-Test-Endless", "1.0.0", "[limits]\nrun_time = \"3m\"\n").replace("SELECT 1 AS one", query)
}

/// Issues an instruction whose id is of now.
#[track_caller]
fn issued_now(lab: &Lab, session: &mut Session<'_>, number: u8, wanted: TargetState) {
    let made_ms = u64::try_from(now_ms() + 999).unwrap().to_be_bytes();
    let mut id = [0; 16];
    id[..6].copy_from_slice(&made_ms[2..]);
    (id[6], id[8], id[15]) = (0x70, 0x80, number);
    let order = order_of(&lab.honest, InstructionId::from(id));
    session.deliver(&lab.signed(&order));
    let (state, refusal, detail) = session.result_with_detail(instruction(&order));
    assert_eq!((state, refusal), (wanted, Refusal::Unspecified), "{number}: {detail}");
}
