use super::*;

#[test]
fn an_order_is_on_disk_before_it_is_acked_and_marked_before_it_runs() {
    let mut test = Test::new();

    test.order("1 d");
    assert_eq!(test.effects(), ["recall 1"]);
    test.recalled(1, None, Some("d"));

    assert_eq!(test.effects(), ["intent 1", "acked 1", "start 1", "running 1", "run 1"]);
    test.finish(1);
    assert_eq!(test.effects(), ["result 1 Answered"]);
}

#[test]
fn a_missing_definition_is_asked_for_and_kept() {
    let mut test = Test::new();
    test.order("1 d");
    test.effects();

    test.recalled(1, None, None);
    assert_eq!(test.effects(), ["ask definition"]);
    test.machine.handle_definition(digest("d"), b"d", test.now);

    assert_eq!(test.effects(), ["keep definition", "intent 1", "acked 1", "start 1", "running 1", "run 1"]);
}

#[test]
fn another_definition_than_the_one_asked_for_is_refused() {
    for (sent, told) in [("other", "sent another"), ("", "does not have")] {
        let mut test = Test::new();
        test.order("1 d");
        test.recalled(1, None, None);
        test.effects();

        test.machine.handle_definition(digest("d"), sent.as_bytes(), test.now);

        let effects = test.effects_with_detail();
        assert!(
            effects[0].starts_with("refuse 1 WrongDefinition journaled") && effects[0].contains(told),
            "{effects:?}"
        );
    }
}

#[test]
fn a_definition_that_does_not_come_in_time_is_asked_for_once_more_and_then_refused() {
    let mut test = Test::new();
    test.order("1 d");
    test.recalled(1, None, None);
    test.effects();

    test.now.instant = test.machine.poll_timeout(test.now).unwrap();
    test.machine.handle_timeout(test.now);
    assert_eq!(test.effects(), ["ask definition"]);
    test.now.instant = test.machine.poll_timeout(test.now).unwrap();
    test.machine.handle_timeout(test.now);

    assert_eq!(test.effects(), ["refuse 1 WrongDefinition journaled"]);
    assert_eq!(test.machine.poll_timeout(test.now), None);
}

#[test]
fn the_same_order_again_is_acked_and_never_started_again() {
    for (state, told) in [
        (JournalState::Intent, "acked 1"),
        (JournalState::Started, "running 1"),
        (JournalState::Done, "acked 1"),
    ] {
        let mut test = Test::new();
        test.order("1 d");
        test.effects();

        test.recalled(1, Some((state, digest("1 d"))), Some("d"));

        assert_eq!(test.effects(), [told], "{state:?}");
    }
}

#[test]
fn the_same_instruction_under_other_bytes_is_a_replay() {
    let mut test = Test::new();
    test.order("1 d again");
    test.effects();

    test.recalled(1, Some((JournalState::Started, digest("1 d"))), Some("d"));

    assert_eq!(test.effects(), ["refuse 1 Replayed"]);
}

#[test]
fn the_same_instruction_under_other_bytes_is_a_replay_while_the_first_waits_for_its_definition() {
    let mut test = Test::new();
    test.order("1 d");
    test.recalled(1, None, None);
    test.effects();

    test.order("1 d");
    assert_eq!(test.effects(), Vec::<String>::new());
    test.order("1 d other");
    assert_eq!(test.effects(), ["refuse 1 Replayed"]);
}

#[test]
fn a_forged_order_does_not_touch_the_journal() {
    let mut test = Test::new();

    test.order("1 d forged");
    assert_eq!(test.effects(), ["refuse 1 BadSignature"]);
    test.order("junk");
    assert_eq!(test.effects(), ["unreadable"]);
}

#[test]
fn what_is_not_admitted_is_remembered_and_answered() {
    let mut test = Test::new();
    test.order("1 wrong-audience");
    test.effects();

    test.recalled(1, None, Some("wrong-audience"));

    assert_eq!(test.effects(), ["refuse 1 WrongAudience journaled"]);
}

#[test]
fn a_version_that_was_seen_in_a_refused_order_is_kept_before_it_is_told_and_no_older_one_runs() {
    let mut test = Test::new();
    test.order("1 newer-for-others");
    test.recalled(1, None, Some("newer-for-others"));

    assert_eq!(test.effects(), ["recall 1", "keep Acme-A 2.0.0", "refuse 1 WrongAudience journaled"]);
    test.admitted(2);
    assert_eq!(test.effects(), ["recall 2", "refuse 2 RolledBack journaled"]);
    test.order("3 newer-for-others");
    test.recalled(3, None, Some("newer-for-others"));
    assert_eq!(test.effects(), ["recall 3", "refuse 3 WrongAudience journaled"], "once");
}

#[test]
fn an_order_that_came_before_its_approvals_is_refused_and_runs_with_them() {
    let mut test = Test::new();
    test.order("1 unapproved");
    test.recalled(1, None, Some("unapproved"));
    assert!(test.effects().contains(&"refuse 1 Unapproved".to_owned()), "and leaves the journal alone");

    test.order("1 unapproved approved");
    test.recalled(1, None, Some("unapproved"));

    assert!(test.effects().contains(&"intent 1".to_owned()));
}

#[test]
fn one_too_many_fails_with_advice() {
    let mut test = Test::new();
    for number in 1..=5 {
        test.admitted(number);
    }
    test.effects();

    test.admitted(6);

    let effects = test.effects_with_detail();
    assert_eq!(effects[0], "recall 6");
    assert!(
        effects[1].starts_with("refuse 6 Failed journaled") && effects[1].contains("issue it again later"),
        "{effects:?}"
    );
}

#[test]
fn a_version_that_there_was_no_room_to_wait_for_counts_as_seen() {
    let mut test = Test::new();
    for number in 1..=5 {
        test.admitted(number);
    }
    test.effects();

    test.order("6 newer");
    test.recalled(6, None, Some("newer"));
    assert_eq!(test.effects(), ["recall 6", "keep Acme-A 2.0.0", "refuse 6 Failed journaled"]);
    test.admitted(7);

    assert_eq!(test.effects(), ["recall 7", "refuse 7 RolledBack journaled"]);
}

#[test]
fn a_lost_session_forgets_what_was_not_acked() {
    let mut test = Test::new();
    test.order("1 d");
    test.recalled(1, None, None);
    test.effects();

    test.machine.handle_disconnected();
    test.machine.handle_definition(digest("d"), b"d", test.now);

    assert_eq!(test.effects(), Vec::<String>::new());
    assert_eq!(test.machine.poll_timeout(test.now), None);
}

#[test]
fn a_signer_that_is_not_yet_valid_by_a_clock_that_is_set_back_is_refused_for_the_clock() {
    let mut test = Test::new();
    test.now.instant += Duration::from_secs(60);
    test.now.wall_ms += 60_000;
    test.machine.handle_timeout(test.now);
    test.now.wall_ms -= 3_600_000;

    test.order("1 d young");
    test.order("2 d young forged");

    let effects = test.effects_with_detail();
    assert!(effects[0].starts_with("refuse 1 Clock: this device's clock is"), "{effects:?}");
    assert!(effects[1].starts_with("refuse 2 BadSignature"), "{effects:?}");
}

#[test]
fn a_signer_that_is_not_yet_valid_is_refused_for_the_clock_where_the_switch_shows_another_time() {
    let mut test = Test::new();
    test.now.wall_ms -= 3_600_000;
    // A device that has seen nothing yet has no floor.
    let memory = Memory::default();
    let licence = held_licence();
    let limits = test.machine.limits.clone();
    test.machine = Instructions::new(Spoken::default(), limits, Some(licence), 3, memory, test.now.instant);
    test.order("1 d young");
    assert_eq!(test.effects(), ["refuse 1 UntrustedSigner"]);

    test.machine.handle_switch_time(NOW_MS, test.now);
    test.order("1 d young");
    assert_eq!(test.effects(), ["refuse 1 Clock"]);

    test.machine.handle_switch_time(test.now.wall_ms, test.now);
    test.order("1 d young");
    assert_eq!(test.effects(), ["refuse 1 UntrustedSigner"], "nothing contradicts the clock");
}

#[test]
fn a_clock_that_is_set_back_while_the_client_runs_is_noticed_without_any_order_before() {
    let mut test = Test::new();
    test.now.instant += Duration::from_secs(3_600);
    test.now.wall_ms += 3_600_000;
    test.machine.handle_timeout(test.now);

    test.now.wall_ms -= 1_800_000;
    test.admitted(1);

    assert_eq!(test.effects(), ["recall 1", "refuse 1 NotYetValid journaled"]);
}
