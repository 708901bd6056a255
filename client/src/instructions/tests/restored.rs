use super::*;
use crate::instructions::restored::{Hold, STOPS_WAIT, WELCOME_WAIT};

#[test]
fn a_recovered_intent_starts_once_and_not_before_a_welcome_was_judged() {
    let mut test = restarted();

    test.machine.handle_timeout(test.now);
    assert_eq!((test.effects(), test.machine.counts()), (Vec::new(), (1, 0)));

    test.machine.handle_judged(Standing::Own, 0, 0, test.now);
    assert_eq!(test.effects(), ["start 1", "running 1", "run 1"]);
    test.machine.handle_judged(Standing::Own, 0, 0, test.now);
    assert_eq!(test.effects(), Vec::<String>::new());
}

#[test]
fn a_recovered_intent_of_a_store_that_is_a_copy_never_starts() {
    let mut test = restarted();

    test.machine.handle_judged(Standing::Copy, NOW_MS, 0, test.now);
    test.machine.handle_judged(Standing::Own, NOW_MS, 0, test.now);

    assert_eq!((test.effects(), test.machine.counts()), (Vec::new(), (0, 0)));
}

#[test]
fn an_order_from_before_the_restore_is_answered_as_interrupted_and_a_later_one_runs() {
    let mut test = restarted();
    test.machine.handle_judged(Standing::Copy, id(7).made_at_ms(), 0, test.now);

    test.order("7 d");
    test.recalled(7, None, Some("d"));
    assert_eq!(test.effects(), ["recall 7", "refuse 7 Interrupted journaled"]);

    let mut test = restarted();
    test.machine.handle_judged(Standing::Copy, id(7).made_at_ms() - 1, 0, test.now);
    test.admitted(7);
    assert_eq!(test.effects(), ["recall 7", "intent 7", "acked 7", "start 7", "running 7", "run 7"]);
}

#[test]
fn a_restore_that_is_taken_back_keeps_no_later_order_out_and_ends_nothing_that_runs() {
    let mut test = Test::new();
    test.machine.handle_judged(Standing::Copy, i64::MAX, 0, test.now);
    test.order("7 d");
    test.recalled(7, None, Some("d"));
    assert_eq!(test.effects(), ["recall 7", "refuse 7 Interrupted journaled"]);
    test.machine.handle_judged(Standing::Own, id(7).made_at_ms(), 0, test.now);
    test.admitted(8);
    test.effects();

    test.machine.handle_judged(Standing::Own, id(7).made_at_ms(), 0, test.now);

    assert_eq!((test.effects(), test.machine.counts()), (Vec::new(), (0, 1)));
}

#[test]
fn a_copy_that_is_shown_together_with_an_earlier_time_lets_go_of_what_it_held() {
    let mut test = Test::new();
    test.machine.handle_judged(Standing::Copy, i64::MAX, 0, test.now);
    test.machine.handle_judged(Standing::Own, 0, 0, test.now);
    test.admitted(1);
    test.effects();
    test.machine.memory.restored_at_ms = i64::MAX;

    test.machine.handle_judged(Standing::Copy, NOW_MS, 0, test.now);

    assert_eq!((test.effects(), test.machine.counts()), (vec!["end 1".to_owned()], (0, 0)));
}

#[test]
fn what_ran_or_waited_when_the_machine_was_brought_back_is_ended_and_let_go() {
    let mut test = Test::new();
    for number in 1..=3 {
        test.admitted(number);
    }
    test.effects();

    test.machine.handle_judged(Standing::Copy, NOW_MS, 0, test.now);
    assert_eq!(
        (test.effects(), test.machine.counts()),
        (vec!["end 1".to_owned(), "end 2".to_owned()], (0, 0))
    );
    test.finish(1);
    test.machine.handle_ended(id(2), test.now);

    assert_eq!((test.effects(), test.machine.counts()), (Vec::new(), (0, 0)));
}

#[test]
fn what_waits_starts_only_once_the_announced_stops_have_come() {
    let mut test = restarted();

    test.machine.handle_judged(Standing::Own, 0, 2, test.now);
    assert_eq!(test.effects(), Vec::<String>::new());
    test.order("9 stop 7");
    assert_eq!(test.effects(), ["stop 7 Cancelled"]);
    test.order("8 stop 1");
    assert_eq!((test.effects(), test.machine.counts()), (vec!["stop 1 Cancelled".to_owned()], (0, 0)));

    // What none of them stops goes on.
    let mut test = restarted();
    test.machine.handle_judged(Standing::Own, 0, 2, test.now);
    test.order("9 stop 7");
    test.order("8 stop 6 forged");
    assert_eq!(
        test.effects(),
        ["stop 7 Cancelled", "stop of 6 refused BadSignature", "start 1", "running 1", "run 1"]
    );
}

#[test]
fn a_switch_that_announces_stops_that_do_not_come_delays_what_waits_by_a_bounded_time() {
    for again in [0, 3] {
        let mut test = restarted();
        test.machine.handle_judged(Standing::Own, 0, u32::MAX, test.now);
        test.pass(again);
        test.machine.handle_judged(Standing::Own, 0, u32::MAX, test.now);
        test.pass(STOPS_WAIT.as_secs() - again - 1);
        assert_eq!(test.effects(), Vec::<String>::new());
        assert!(test.machine.poll_timeout(test.now).is_some());

        test.pass(1);

        assert_eq!(test.effects(), ["start 1", "running 1", "run 1"], "announced again after {again} s");
    }
}

#[test]
fn stops_that_a_session_announced_and_did_not_bring_are_waited_for_in_the_next_one() {
    let mut test = restarted();
    test.machine.handle_judged(Standing::Own, 0, 1, test.now);
    test.pass(1);
    test.machine.handle_disconnected();

    test.pass(2 * STOPS_WAIT.as_secs());
    assert_eq!(test.effects(), Vec::<String>::new());
    test.machine.handle_judged(Standing::Own, 0, 1, test.now);
    test.pass(STOPS_WAIT.as_secs() - 1);
    test.order("9 stop 1");

    assert_eq!((test.effects(), test.machine.counts()), (vec!["stop 1 Cancelled".to_owned()], (0, 0)));
}

#[test]
fn stops_of_a_welcome_that_came_at_the_last_moment_have_their_own_time() {
    let mut test = restarted();
    test.machine.handle_judged(Standing::Own, 0, 1, test.now);
    test.machine.handle_disconnected();
    test.pass(WELCOME_WAIT.as_secs() - 1);
    test.machine.handle_judged(Standing::Own, 0, 1, test.now);

    test.pass(STOPS_WAIT.as_secs() - 1);
    assert_eq!(test.effects(), Vec::<String>::new());
    test.pass(1);

    assert_eq!(test.effects(), ["start 1", "running 1", "run 1"]);
}

#[test]
fn without_another_session_what_waits_for_announced_stops_starts_after_a_bounded_time() {
    // However often they are announced in between.
    for sessions in [0, 1, 5] {
        let mut test = restarted();
        test.machine.handle_judged(Standing::Own, 0, 1, test.now);
        test.machine.handle_disconnected();
        for _ in 0..sessions {
            test.pass(10);
            test.machine.handle_judged(Standing::Own, 0, u32::MAX, test.now);
            test.machine.handle_disconnected();
        }

        test.pass(WELCOME_WAIT.as_secs() - 10 * sessions - 1);
        assert_eq!(test.effects(), Vec::<String>::new());
        assert!(test.machine.poll_timeout(test.now).is_some());
        test.pass(1);

        assert_eq!(test.effects(), ["start 1", "running 1", "run 1"], "{sessions} further sessions");
    }
}

#[test]
fn a_session_that_ends_when_its_stops_have_come_holds_nothing() {
    let mut test = restarted();
    test.machine.handle_judged(Standing::Own, 0, 1, test.now);
    test.order("9 stop 7");

    test.machine.handle_disconnected();

    assert_eq!(test.effects(), ["stop 7 Cancelled", "start 1", "running 1", "run 1"]);
}

#[test]
fn a_welcome_that_could_not_be_judged_lets_nothing_start_before_the_next_one_or_a_bounded_time() {
    let mut test = Test::new();
    for number in 1..=3 {
        test.admitted(number);
    }
    test.effects();
    let waited = test.now.instant;

    test.machine.handle_unjudged(test.now);
    test.finish(1);
    assert_eq!(test.effects(), ["result 1 Answered"]);
    test.pass(WELCOME_WAIT.as_secs() / 2);
    test.machine.handle_disconnected();
    test.machine.handle_unjudged(test.now);
    assert_eq!(test.machine.poll_timeout(test.now), Some(waited + WELCOME_WAIT));
    test.machine.handle_judged(Standing::Own, 0, 0, test.now);
    assert_eq!(test.effects(), ["start 3", "running 3", "run 3"]);

    let mut test = restarted();
    test.machine.handle_unjudged(test.now);
    test.pass(WELCOME_WAIT.as_secs());
    assert_eq!(test.effects(), Vec::<String>::new(), "no Welcome of this process was judged");
}

#[test]
fn an_announced_stop_that_waits_for_a_list_holds_what_it_may_stop() {
    let mut test = restarted();
    test.machine.handle_judged(Standing::Own, 0, 1, test.now);

    test.order("9 stop 1 early");
    assert_eq!(test.effects(), Vec::<String>::new());
    test.list();

    assert_eq!((test.effects(), test.machine.counts()), (vec!["stop 1 Cancelled".to_owned()], (0, 0)));
}

#[test]
fn what_waits_for_a_slot_waits_for_the_stops_of_a_later_welcome_as_well() {
    let mut test = Test::new();
    for number in 1..=3 {
        test.admitted(number);
    }
    test.effects();

    test.machine.handle_judged(Standing::Own, 0, 1, test.now);
    test.finish(1);
    assert_eq!(test.effects(), ["result 1 Answered"]);
    test.order("9 stop 3");

    assert_eq!((test.effects(), test.machine.counts()), (vec!["stop 3 Cancelled".to_owned()], (0, 1)));
}

#[test]
fn a_start_that_the_journal_forbids_does_not_run() {
    let mut test = Test::new();
    test.admitted(1);
    for _ in 0..4 {
        test.machine.poll_effect();
    }

    test.machine.handle_forbidden(id(1), test.now);

    assert_eq!((test.effects(), test.machine.counts()), (Vec::new(), (0, 0)));
}

#[test]
fn what_has_not_started_never_does_once_its_stop_was_heard_while_a_write_waits() {
    let mut test = restarted();
    assert!(test.machine.handle_urgent(b"9 stop 1", test.now), "held since the restart");
    assert!(!test.machine.handle_urgent(b"9 stop 1", test.now), "once");
    test.machine.handle_judged(Standing::Own, 0, 0, test.now);
    assert_eq!((test.effects(), test.machine.counts()), (vec!["stop 1 Cancelled".to_owned()], (0, 0)));

    let mut test = Test::new();
    for instruction in 1..=4 {
        test.admitted(instruction);
    }
    test.effects();
    assert_eq!(test.machine.counts(), (2, 2));
    assert!(test.machine.handle_urgent(b"9 stop 4", test.now), "it waits");

    test.finish(1);
    test.finish(2);

    assert!(test.effects().iter().all(|effect| !effect.starts_with("start 4")));
}

/// A machine that was started again with an intent.
fn restarted() -> Test {
    let mut test = Test::new();
    test.machine.hold = Hold::UntilJudged;
    let entry = Entry {
        instruction: id(1),
        order_digest: digest("1 d"),
        definition: digest("d"),
        expires_at_ms: NOW_MS + 60_000,
        envelope: b"1 d".to_vec(),
        proof: None,
    };
    test.machine.handle_recovered(entry, Some(b"d".to_vec()));
    test
}
