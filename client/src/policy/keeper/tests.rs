use muster_proto::common::v1::value::Kind;

use super::*;

const NOW: i64 = 1_800_000_000_000;
const DEVICE: &str = "web1.acme.local";

fn kept(serial: u64, more: &str) -> Kept {
    let text = format!("serial = {serial}\ntenant = \"acme\"\n{more}");
    Kept { policy: Policy::parse(&text).unwrap(), envelope: text.into_bytes() }
}

fn moving(serial: u64, to: &str) -> Kept {
    kept(serial, &format!("switch = [\"wss://{to}:4000/v1/session\"]"))
}

fn keeper() -> Keeper {
    with(Memory::default())
}

fn with(memory: Memory) -> Keeper {
    let device = Value { kind: Some(Kind::Text(DEVICE.to_owned())) };
    Keeper::new("acme", BTreeMap::from([("device".to_owned(), device)]), TRIAL, memory, NOW)
}

fn trial_ms() -> i64 {
    i64::try_from(TRIAL.as_millis()).unwrap()
}

#[test]
fn k4_a_change_of_address_is_followed_only_after_a_session_under_it() {
    let mut keeper = keeper();

    assert_eq!(keeper.handle_policy(moving(1, "b"), NOW), Verdict::Tried);
    assert_eq!(keeper.serial(), 0);
    // A session under the old one says nothing about the new one.
    assert!(!keeper.handle_session(0));
    assert!(keeper.handle_session(1));

    assert_eq!((keeper.serial(), keeper.trial()), (1, None));
    assert_eq!(keeper.handle_time(NOW + trial_ms()), None);
}

#[test]
fn k4_without_a_session_in_time_the_old_policy_returns() {
    let mut keeper = keeper();
    keeper.handle_policy(kept(3, ""), NOW);
    keeper.handle_policy(moving(4, "b"), NOW);

    assert_eq!(keeper.handle_time(NOW + trial_ms() - 1), None);
    assert_eq!(keeper.handle_time(NOW + trial_ms()), Some(RolledBack { serial: 4, back_to: 3 }));

    assert_eq!((keeper.serial(), keeper.trial()), (3, None));
    assert!(!keeper.handle_session(4), "a session that came too late");
}

#[test]
fn k1_the_serial_never_goes_back_and_what_was_tried_in_vain_is_not_tried_again() {
    let mut keeper = keeper();
    keeper.handle_policy(kept(3, ""), NOW);
    keeper.handle_policy(moving(5, "b"), NOW);
    keeper.handle_time(NOW + trial_ms());

    assert_eq!(keeper.handle_policy(moving(5, "b"), NOW), Verdict::Older { highest: 5 });
    assert_eq!(keeper.handle_policy(kept(4, ""), NOW), Verdict::Older { highest: 5 });
    assert_eq!(keeper.handle_policy(kept(3, ""), NOW), Verdict::Held);
    assert_eq!(keeper.handle_policy(kept(6, ""), NOW), Verdict::Adopted);
    assert_eq!(keeper.serial(), 6);
}

#[test]
fn k4_what_was_tried_in_vain_is_tried_again_if_somebody_here_says_so_and_nothing_else_is() {
    let mut keeper = keeper();
    keeper.handle_policy(kept(3, ""), NOW);
    keeper.handle_policy(moving(5, "b"), NOW);
    keeper.handle_time(NOW + trial_ms());
    assert_eq!(keeper.rolled_back(), 5);
    let mut after = with(keeper.memory().clone());
    assert_eq!(after.handle_policy(moving(5, "b"), NOW), Verdict::Older { highest: 5 });

    after.handle_retry();

    for other in [kept(4, ""), moving(5, "c"), kept(2, "")] {
        assert_eq!(after.handle_policy(other, NOW), Verdict::Older { highest: 5 });
    }
    assert_eq!(after.handle_policy(moving(5, "b"), NOW), Verdict::Tried);
    assert_eq!(after.rolled_back(), 0);
    // Once more in vain: it takes another word.
    after.handle_time(NOW + trial_ms());
    assert_eq!(after.handle_policy(moving(5, "b"), NOW), Verdict::Older { highest: 5 });
    assert_eq!(after.handle_policy(kept(6, ""), NOW), Verdict::Adopted);
    assert_eq!(after.memory().rolled_back, None, "a later one has taken its place");
}

#[test]
fn k1_a_restart_forgets_no_serial() {
    let mut before = keeper();
    before.handle_policy(moving(5, "b"), NOW);
    before.handle_time(NOW + trial_ms());

    let mut after = with(before.memory().clone());

    assert_eq!(after.handle_policy(moving(5, "b"), NOW), Verdict::Older { highest: 5 });
    // The record of the highest serial alone was lost.
    let mut damaged = with(Memory { current: Some(kept(7, "")), ..Memory::default() });
    assert_eq!(damaged.handle_policy(kept(6, ""), NOW), Verdict::Older { highest: 7 });
}

#[test]
fn k3_a_policy_whose_own_record_was_damaged_is_taken_once_more_and_no_earlier_one() {
    let mut keeper = with(Memory { highest_serial: 7, ..Memory::default() });

    assert_eq!(keeper.handle_policy(kept(6, ""), NOW), Verdict::Older { highest: 7 });
    assert_eq!(keeper.handle_policy(kept(7, ""), NOW), Verdict::Adopted);
    assert_eq!(keeper.serial(), 7);
}

#[test]
fn k4_a_trial_goes_on_over_a_restart_and_no_longer_than_a_whole_one() {
    let mut before = keeper();
    before.handle_policy(moving(1, "b"), NOW);
    let mut memory = before.memory().clone();
    let mut after = with(memory.clone());
    assert_eq!(after.handle_time(NOW + trial_ms()), Some(RolledBack { serial: 1, back_to: 0 }));

    // It was begun by a clock that was years ahead.
    memory.trial.as_mut().unwrap().until_ms = NOW + 1_000_000_000_000;
    let mut after = with(memory);

    assert_eq!(after.handle_time(NOW + trial_ms()), Some(RolledBack { serial: 1, back_to: 0 }));
}

#[test]
fn a_later_policy_takes_the_place_of_the_one_that_is_tried() {
    let mut keeper = keeper();
    keeper.handle_policy(moving(1, "b"), NOW);

    assert_eq!(keeper.handle_policy(moving(1, "b"), NOW + 1), Verdict::Held);
    assert_eq!(keeper.handle_policy(moving(2, "c"), NOW + 1_000), Verdict::Tried);
    assert!(!keeper.handle_session(1), "a session under what is no longer tried");
    assert_eq!(keeper.handle_time(NOW + trial_ms()), None, "the later one has its whole time");
    assert!(keeper.handle_session(2));

    // One that goes back to what is followed ends the trial at once.
    keeper.handle_policy(moving(3, "d"), NOW);
    assert_eq!(keeper.handle_policy(moving(4, "c"), NOW), Verdict::Adopted);
    assert_eq!((keeper.serial(), keeper.trial()), (4, None));
}

#[test]
fn t12_a_policy_for_another_device_or_organisation_changes_nothing() {
    let mut keeper = keeper();
    let other = kept(9, "audience = 'device == \"web2.acme.local\"'");
    let foreign = Policy::parse("serial = 9\ntenant = \"other\"").unwrap();

    assert_eq!(keeper.handle_policy(other, NOW), Verdict::NotOurs);
    assert_eq!(keeper.handle_policy(Kept { policy: foreign, envelope: Vec::new() }, NOW), Verdict::NotOurs);

    assert_eq!(keeper.memory(), &Memory::default());
    let ours = kept(1, &format!("audience = 'device == \"{DEVICE}\"'"));
    assert_eq!(keeper.handle_policy(ours, NOW), Verdict::Adopted);
}

#[test]
fn k4_whatever_a_session_depends_on_is_tried_and_nothing_else() {
    let tried = [
        "switch = [\"wss://b/v1/session\"]",
        "background_channel = \"https://b/Background/v1\"",
        "[trust]\nverify_host = \"no\"",
        "[selection]\ncert_issuer = \"Acme\"",
    ];
    for more in tried {
        assert_eq!(keeper().handle_policy(kept(1, more), NOW), Verdict::Tried, "{more}");
        let mut follows = keeper();
        follows.handle_policy(kept(1, more), NOW);
        follows.handle_session(1);
        assert_eq!(follows.handle_policy(kept(2, &format!("says = \"x\"\n{more}")), NOW), Verdict::Adopted);
        assert_eq!(follows.handle_policy(kept(3, ""), NOW), Verdict::Tried, "back to what was installed");
    }
    assert_eq!(keeper().handle_policy(kept(1, "says = \"words\""), NOW), Verdict::Adopted);
}
