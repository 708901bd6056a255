use super::*;

#[test]
fn without_a_licence_nothing_runs() {
    let mut test = Test::new();
    test.machine.licence = None;
    test.order("1 d");
    test.effects();

    test.recalled(1, None, Some("d"));

    assert_eq!(test.effects(), ["refuse 1 Unlicensed journaled"]);
}

#[test]
fn an_order_waits_for_the_licence_that_is_on_its_way() {
    let mut test = Test::new();
    test.machine.licence = None;
    test.machine.handle_licence_notice(digest("licence 3"), test.now);
    test.order("1 d");
    test.recalled(1, None, Some("d"));
    assert_eq!(test.effects(), ["ask licence", "recall 1"]);

    test.machine.handle_licence(digest("licence 3"), b"licence 3", test.now);

    assert_eq!(test.effects(), ["keep licence 3", "intent 1", "acked 1", "start 1", "running 1", "run 1"]);
}

#[test]
fn g1_an_order_waits_for_a_licence_that_is_asked_for_also_if_it_names_the_one_that_is_held() {
    let mut test = Test::new();
    test.machine.handle_licence_notice(digest("licence 4"), test.now);
    test.order("1 d");
    test.recalled(1, None, Some("d"));
    assert_eq!(test.effects(), ["ask licence", "recall 1"], "the next licence may take it away");

    test.machine.handle_licence(digest("licence 4"), b"licence 4", test.now);

    assert_eq!(test.effects(), ["keep licence 4", "intent 1", "acked 1", "start 1", "running 1", "run 1"]);
}

#[test]
fn g1_an_order_waits_no_longer_than_any_document_for_a_licence_that_does_not_come() {
    let mut test = Test::new();
    test.machine.handle_licence_notice(digest("licence 4"), test.now);
    test.order("1 d");
    test.recalled(1, None, Some("d"));
    test.effects();

    test.pass(30);
    test.machine.handle_timeout(test.now);

    assert_eq!(test.effects(), ["ask licence", "intent 1", "acked 1", "start 1", "running 1", "run 1"]);
}

#[test]
fn an_order_under_a_licence_after_next_waits_where_the_one_asked_for_is_superseded_meanwhile() {
    for is_told in [true, false] {
        let mut test = Test::new();
        test.machine.licence = None;
        test.machine.handle_licence_notice(digest("licence 2"), test.now);
        test.order("1 d");
        test.recalled(1, None, Some("d"));
        assert_eq!(test.effects(), ["ask licence", "recall 1"]);

        test.machine.handle_licence(digest("licence 2"), b"", test.now);
        assert_eq!(test.effects(), Vec::<String>::new());

        if is_told {
            test.machine.handle_licence_notice(digest("licence 3"), test.now);
            test.machine.handle_licence(digest("licence 3"), b"licence 3", test.now);
            let taken =
                ["ask licence", "keep licence 3", "intent 1", "acked 1", "start 1", "running 1", "run 1"];
            assert_eq!(test.effects(), taken);
        } else {
            test.pass(30);
            assert_eq!(test.effects(), ["refuse 1 Unlicensed journaled"], "no longer than for any document");
        }
    }
}

#[test]
fn the_licence_serial_never_goes_back() {
    let mut test = Test::new();
    test.licence("licence 9");
    assert_eq!(test.effects(), ["ask licence", "keep licence 9"]);

    test.licence("licence 8");

    assert_eq!(test.effects(), ["ask licence"]);
    assert_eq!(test.machine.licence().unwrap().serial, 9);
}

#[test]
fn g6_a_licence_whose_refresh_by_lapsed_is_told_of_and_goes_on_working() {
    let mut test = Test::new();
    let (before, after) = (test.now.wall_ms - 1, test.now.wall_ms + 1);
    test.licence(&format!("licence 4 refreshed by {after}"));
    let fresh = test.machine.licence().unwrap().overdue(test.now.wall_ms);
    test.licence(&format!("licence 5 refreshed by {before}"));
    test.effects();
    let told = test.machine.licence().unwrap().overdue(test.now.wall_ms);

    test.order("1 d");
    test.recalled(1, None, Some("d"));

    assert_eq!(fresh, None);
    assert!(told.unwrap().contains("licence 5 should have had a successor"));
    assert!(test.effects().contains(&"start 1".to_owned()));
}

#[test]
fn a_licence_that_does_not_come_is_asked_for_again_ever_more_rarely() {
    let mut test = Test::new();
    test.machine.handle_licence_notice(digest("licence 4"), test.now);
    test.machine.handle_licence_notice(digest("licence 4"), test.now);
    assert_eq!(test.effects(), ["ask licence"], "the answer may be on its way");

    let mut pauses = Vec::new();
    for _ in 0..10 {
        let at = test.machine.poll_timeout(test.now).unwrap();
        let pause = at.duration_since(test.now.instant).as_secs();
        test.pass(pause - 1);
        assert!(test.effects().is_empty());
        test.pass(1);
        assert_eq!(test.effects(), ["ask licence"]);
        pauses.push(pause);
    }

    assert_eq!(pauses, [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600, 3_600]);
    test.machine.handle_licence(digest("licence 4"), b"licence 4", test.now);
    assert_eq!(test.effects(), ["keep licence 4"]);
    assert_eq!(test.machine.poll_timeout(test.now), None);
}

#[test]
fn a_notice_asks_again_for_a_licence_that_should_have_come() {
    let mut test = Test::new();
    test.machine.handle_licence_notice(digest("licence 4"), test.now);
    test.pass(30);
    test.effects();

    test.pass(30);
    test.machine.handle_licence_notice(digest("licence 4"), test.now);

    assert_eq!(test.effects(), ["ask licence"]);
}

#[test]
fn a_licence_that_comes_after_the_orders_that_waited_for_it_is_taken() {
    let mut test = Test::new();
    test.machine.licence = None;
    test.machine.handle_licence_notice(digest("licence 4"), test.now);
    test.admitted(1);
    test.effects();
    test.pass(30);
    assert_eq!(test.effects(), ["ask licence", "refuse 1 Unlicensed journaled"]);

    test.machine.handle_licence(digest("licence 4"), b"licence 4", test.now);

    assert_eq!(test.effects(), ["keep licence 4"]);
}

#[test]
fn a_switch_that_does_not_have_its_licence_or_is_gone_is_not_asked_again() {
    let answers: [fn(&mut Test); 2] = [
        |test| test.machine.handle_licence(digest("licence 4"), b"", test.now),
        |test| test.machine.handle_disconnected(),
    ];
    for answer in answers {
        let mut test = Test::new();
        test.machine.handle_licence_notice(digest("licence 4"), test.now);
        test.effects();

        answer(&mut test);
        test.pass(3_600);

        assert!(test.effects().is_empty());
    }
}

#[test]
fn a_licence_refused_for_its_signer_is_judged_again_when_roots_or_crls_change() {
    let changes: [fn(&mut Test); 2] =
        [|test| test.machine.handle_refreshed(test.now), |test| test.machine.handle_lists(test.now)];
    for change in changes {
        let mut test = Test::new();
        test.licence("strange licence 4");
        change(&mut test);
        assert_eq!(test.effects(), ["ask licence"]);
        assert!(test.machine.licence_refused().unwrap().contains("no root"));

        test.machine.admission.has_root = true;
        change(&mut test);

        assert_eq!(test.effects(), ["keep licence 4"]);
        assert_eq!(test.machine.licence_refused(), None);
    }
}

#[test]
fn another_licence_of_the_same_serial_is_refused_and_told_and_the_one_held_stays() {
    let mut test = Test::new();
    test.licence("other licence 3");

    assert_eq!(test.effects(), ["ask licence"]);
    assert_eq!(test.machine.licence().unwrap().digest, digest("licence 3"));
    assert!(test.machine.licence_refused().unwrap().contains("serial 3"));
    test.machine.handle_licence_notice(digest("licence 3"), test.now);
    assert_eq!(test.machine.licence_refused(), None, "the Switch has ours again");

    // Of a licence whose record was damaged, only the serial is known.
    test.machine.licence = None;
    test.licence("other licence 3");
    assert_eq!(test.effects(), ["ask licence", "keep licence 3"]);
}
