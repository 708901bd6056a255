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
    test.machine.handle_licence_notice(digest("licence 3"));
    test.order("1 d");
    test.recalled(1, None, Some("d"));
    assert_eq!(test.effects(), ["ask licence", "recall 1"]);

    test.machine.handle_licence(digest("licence 3"), b"licence 3", test.now);

    assert_eq!(test.effects(), ["keep licence 3", "intent 1", "acked 1", "start 1", "running 1", "run 1"]);
}

#[test]
fn g1_an_order_waits_for_a_licence_that_is_asked_for_also_if_it_names_the_one_that_is_held() {
    let mut test = Test::new();
    test.machine.handle_licence_notice(digest("licence 4"));
    test.order("1 d");
    test.recalled(1, None, Some("d"));
    assert_eq!(test.effects(), ["ask licence", "recall 1"], "the next licence may take it away");

    test.machine.handle_licence(digest("licence 4"), b"licence 4", test.now);

    assert_eq!(test.effects(), ["keep licence 4", "intent 1", "acked 1", "start 1", "running 1", "run 1"]);
}

#[test]
fn g1_an_order_waits_no_longer_than_any_document_for_a_licence_that_does_not_come() {
    let mut test = Test::new();
    test.machine.handle_licence_notice(digest("licence 4"));
    test.order("1 d");
    test.recalled(1, None, Some("d"));
    test.effects();

    test.pass(30);
    test.machine.handle_timeout(test.now);

    assert_eq!(test.effects(), ["intent 1", "acked 1", "start 1", "running 1", "run 1"]);
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
