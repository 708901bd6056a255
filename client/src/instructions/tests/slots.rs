use super::*;

#[test]
fn no_more_run_at_once_than_there_are_slots() {
    let mut test = Test::new();
    for number in 1..=4 {
        test.admitted(number);
    }
    assert_eq!(test.machine.counts(), (2, 2));
    test.effects();

    test.finish(1);

    assert_eq!(test.effects(), ["result 1 Answered", "start 3", "running 3", "run 3"]);
}

#[test]
fn what_waited_beyond_its_window_expires() {
    let mut test = Test::new();
    for number in 1..=3 {
        test.admitted(number);
    }
    test.effects();

    test.now.wall_ms += 3_600_000;
    test.finish(1);

    assert_eq!(test.effects(), ["result 1 Answered", "result 3 Expired"]);
}

#[test]
fn what_waited_is_verified_again_when_it_starts() {
    let mut test = Test::new();
    for number in 1..=3 {
        test.admitted(number);
    }
    test.effects();

    test.now.instant += Duration::from_secs(2);
    test.machine.admission.is_revoked = true;
    test.finish(1);

    assert_eq!(test.effects(), ["result 1 Answered", "result 3 Refused"]);
}

#[test]
fn a_resource_that_cannot_be_had_is_a_refusal_and_nothing_starts() {
    let mut test = Test::new();
    test.order("1 with-resource");
    test.recalled(1, None, Some("with-resource"));
    assert_eq!(test.effects(), ["recall 1", "intent 1", "acked 1", "fetch 1"]);

    test.machine.handle_fetched(id(1), Err("other bytes".to_owned()), test.now);

    let effects = test.effects_with_detail();
    assert_eq!(effects, ["result 1 Refused: other bytes"]);
}

#[test]
fn resources_come_before_the_start() {
    let mut test = Test::new();
    test.order("1 with-resource");
    test.recalled(1, None, Some("with-resource"));
    test.effects();

    test.machine.handle_fetched(id(1), Ok(vec![("resource_a".to_owned(), "/a".into())]), test.now);

    assert_eq!(test.effects(), ["start 1", "running 1", "run 1"]);
}

#[test]
fn what_was_downloaded_for_is_verified_again_before_it_starts() {
    let mut test = Test::new();
    test.order("1 with-resource");
    test.recalled(1, None, Some("with-resource"));
    test.effects();

    test.machine.admission.is_revoked = true;
    test.machine.handle_fetched(id(1), Ok(vec![("resource_a".to_owned(), "/a".into())]), test.now);

    assert_eq!(test.effects(), ["result 1 Refused"]);
}

#[test]
fn a_download_that_outlasts_the_window_expires() {
    let mut test = Test::new();
    test.order("1 with-resource");
    test.recalled(1, None, Some("with-resource"));
    test.effects();

    test.now.wall_ms += 60_000;
    test.machine.handle_fetched(id(1), Err("its window ended".to_owned()), test.now);

    assert_eq!(test.effects(), ["result 1 Expired"]);
}

#[test]
fn a_task_that_breaks_fails_its_instruction_and_frees_its_slot() {
    let mut test = Test::new();
    for number in 1..=3 {
        test.admitted(number);
    }
    test.effects();

    test.machine.handle_broken(id(1), "broke", test.now);

    assert_eq!(test.effects(), ["result 1 Failed", "start 3", "running 3", "run 3"]);
}

#[test]
fn a_stopping_client_starts_nothing() {
    let mut test = Test::new();
    for number in 1..=3 {
        test.admitted(number);
    }
    test.effects();

    test.machine.handle_stopping();
    test.finish(1);

    assert_eq!(test.effects(), ["result 1 Answered"]);
}

#[test]
fn a_download_that_ends_while_the_client_stops_starts_nothing_and_stays_journaled() {
    let ends: [fn(&mut Test); 3] = [
        |test| {
            let resources = vec![("resource_a".to_owned(), "/a".into())];
            test.machine.handle_fetched(id(1), Ok(resources), test.now);
        },
        |test| test.machine.handle_fetched(id(1), Err("the client hung up".to_owned()), test.now),
        |test| test.machine.handle_broken(id(1), "broke", test.now),
    ];
    for end in ends {
        let mut test = Test::new();
        test.order("1 with-resource");
        test.recalled(1, None, Some("with-resource"));
        assert_eq!(test.effects(), ["recall 1", "intent 1", "acked 1", "fetch 1"]);

        test.machine.handle_stopping();
        end(&mut test);

        assert_eq!(test.effects(), Vec::<String>::new());
        assert_eq!(test.machine.counts(), (0, 0));
    }
}
