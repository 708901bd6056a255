use super::*;

#[test]
fn r6_an_order_that_came_before_its_signers_crl_is_opened_once_there_is_one() {
    let mut test = Test::new();
    test.order("1 d early");
    test.order("1 d early");
    test.machine.handle_lists(test.now);
    assert!(test.effects().is_empty(), "another CRL than the one that is needed");

    test.list();

    assert_eq!(test.effects(), ["recall 1"]);
    assert!(test.machine.unopened.is_empty());
}

#[test]
fn r6_an_order_whose_crl_does_not_come_is_refused_at_the_deadline() {
    let mut test = Test::new();
    test.order("1 d early");
    assert_eq!(test.machine.poll_timeout(test.now), Some(test.now.instant + Duration::from_secs(30)));
    test.pass(29);
    test.machine.handle_lists(test.now);
    assert!(test.effects().is_empty());

    test.pass(1);

    assert_eq!(test.effects_with_detail(), ["refuse 1 UntrustedSigner: R6"]);
}

#[test]
fn r6_a_definition_that_came_before_its_authors_crl_is_judged_once_there_is_one_or_at_the_deadline() {
    for comes in [true, false] {
        let mut test = Test::new();
        test.order("1 d");
        test.recalled(1, None, Some("early"));
        test.pass(29);
        test.machine.handle_lists(test.now);
        assert_eq!(test.effects(), ["recall 1"]);

        if comes {
            test.list();
            assert_eq!(test.effects(), ["intent 1", "acked 1", "start 1", "running 1", "run 1"]);
        } else {
            test.pass(1);
            assert_eq!(test.effects_with_detail(), ["refuse 1 UntrustedSigner journaled: R6"]);
        }
    }
}

#[test]
fn r6_a_licence_that_came_before_its_licensors_crl_is_judged_again_and_orders_wait_for_it() {
    for comes in [true, false] {
        let mut test = Test::new();
        test.machine.licence = None;
        test.licence("early licence 3");
        test.machine.handle_licence_notice(digest("early licence 3"), test.now);
        test.admitted(1);
        assert_eq!(test.effects(), ["ask licence", "recall 1"], "it is asked for once");

        if comes {
            test.list();
            let runs = ["keep licence 3", "intent 1", "acked 1", "start 1", "running 1", "run 1"];
            assert_eq!(test.effects(), runs);
        } else {
            test.pass(30);
            let why = "the licence that came is not taken yet: R6";
            assert_eq!(test.effects_with_detail(), [format!("refuse 1 Unlicensed journaled: {why}")]);
        }
    }
}

#[test]
fn r6_orders_that_wait_for_a_crl_are_bounded() {
    let mut test = Test::new();
    for number in 1..=3 {
        test.order(&format!("{number} d early"));
    }
    assert!(test.effects().is_empty());

    test.order("4 d early");

    assert_eq!(test.effects(), ["refuse 4 UntrustedSigner"]);
}
