//! Stops at every place where an instruction can be.

use super::*;

#[test]
fn what_waits_never_starts() {
    let mut test = Test::new();
    for number in 1..=3 {
        test.admitted(number);
    }
    test.effects();

    test.order("9 stop 3");
    assert_eq!(test.effects(), ["stop 3 Cancelled"]);
    test.finish(1);
    test.finish(2);

    assert_eq!(test.effects(), ["result 1 Answered", "result 2 Answered"]);
}

#[test]
fn what_has_yet_to_be_judged_is_let_go() {
    let mut test = Test::new();
    test.order("1 d");
    test.recalled(1, None, None);
    test.effects();

    test.order("9 stop 1");
    test.machine.handle_definition(digest("d"), b"d", test.now);

    assert_eq!(test.effects(), ["stop 1 Cancelled"]);
}

#[test]
fn what_is_downloaded_for_is_given_up() {
    let mut test = Test::new();
    test.order("1 with-resource");
    test.recalled(1, None, Some("with-resource"));
    assert_eq!(test.effects(), ["recall 1", "intent 1", "acked 1", "fetch 1"]);

    test.order("9 stop 1");
    test.machine.handle_fetched(id(1), Ok(Vec::new()), test.now);

    assert_eq!(test.effects(), ["stop fetching", "stop 1 Cancelled"]);
    assert!(!test.machine.is_fetching(id(1)));
}

#[test]
fn what_runs_is_ended_and_then_answered_as_cancelled() {
    let mut test = Test::new();
    test.admitted(1);
    test.effects();

    test.order("9 stop 1");
    assert_eq!(test.effects(), ["end 1", "stop 1 Cancelled"], "its answer waits for its end");
    test.machine.handle_ended(id(1), test.now);

    assert_eq!(test.effects_with_detail(), ["result 1 Cancelled: stopped by ann"]);
    assert_eq!(test.machine.counts(), (0, 0));
}

#[test]
fn what_ended_before_its_stop_took_hold_keeps_its_answer() {
    let mut test = Test::new();
    test.admitted(1);
    test.effects();
    test.order("9 stop 1");
    test.effects();

    test.finish(1);
    test.machine.handle_ended(id(1), test.now);

    assert_eq!(test.effects(), ["result 1 Answered"]);
}

#[test]
fn a_stop_that_is_made_up_or_late_is_reported_and_changes_nothing() {
    let mut test = Test::new();
    test.admitted(1);
    test.effects();

    test.order("9 stop 1 forged");
    test.order("9 stop 1 late");
    assert_eq!(test.effects(), ["stop of 1 refused BadSignature", "stop of 1 refused Expired"]);
    test.finish(1);

    assert_eq!(test.effects(), ["result 1 Answered"]);
}

#[test]
fn the_slot_of_what_was_stopped_is_for_the_next() {
    let mut test = Test::new();
    for number in 1..=3 {
        test.admitted(number);
    }
    test.effects();
    test.order("9 stop 1");
    test.effects();

    test.machine.handle_ended(id(1), test.now);

    assert_eq!(test.effects(), ["result 1 Cancelled", "start 3", "running 3", "run 3"]);
}

#[test]
fn a_stop_while_a_write_waits_is_let_through_to_what_was_taken_on_once_and_nothing_else_is() {
    let mut test = Test::new();
    test.admitted(1);
    test.effects();
    test.admitted(2);
    test.effects_until_recorded();
    for other in ["9 stop 1 forged", "9 stop 1 late", "9 stop 3", "3 d", "junk"] {
        assert!(!test.machine.handle_urgent(other.as_bytes(), test.now), "{other}");
    }
    assert_eq!(test.effects(), Vec::<String>::new());

    test.order("3 d");
    assert!(test.machine.handle_urgent(b"9 stop 1", test.now));
    assert!(!test.machine.handle_urgent(b"9 stop 1", test.now), "once");

    assert_eq!(test.machine.poll_end(), Some(id(1)));
    assert_eq!(test.machine.poll_end(), None);
    assert_eq!(test.effects(), ["recall 3", "stop 1 Cancelled"]);
}
