use super::*;

fn failed<T>(detail: &str) -> Result<T, FetchFailure> {
    Err(FetchFailure::Failed(detail.to_owned()))
}

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

    test.machine.handle_fetched(id(1), failed("other bytes"), test.now);

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
    test.machine.handle_fetched(id(1), failed("its window ended"), test.now);

    assert_eq!(test.effects(), ["result 1 Expired"]);
}

#[test]
fn the_detail_of_a_download_that_outlasts_the_window_is_told() {
    let mut test = Test::new();
    with_resource(&mut test, 1);
    test.effects();

    test.now.wall_ms += 60_000;
    test.machine.handle_fetched(id(1), failed("the Background Channel is away"), test.now);

    assert_eq!(test.effects_with_detail(), ["result 1 Expired: the Background Channel is away"]);
}

#[test]
fn downloads_that_wait_for_their_source_keep_nothing_else_from_running() {
    let mut test = Test::new();
    for number in 1..=3 {
        with_resource(&mut test, number);
    }
    test.effects();

    test.admitted(4);

    assert_eq!(test.effects(), ["recall 4", "intent 4", "acked 4", "start 4", "running 4", "run 4"]);
    assert_eq!(test.machine.counts(), (3, 1));
}

#[test]
fn what_was_downloaded_for_waits_for_a_slot_and_is_the_next_to_run() {
    let mut test = Test::new();
    with_resource(&mut test, 1);
    for number in 2..=4 {
        test.admitted(number);
    }
    test.effects();

    fetched(&mut test, 1);
    assert_eq!((test.effects(), test.machine.counts()), (Vec::new(), (2, 2)));
    test.finish(2);
    assert_eq!(test.effects(), ["result 2 Answered", "start 1", "running 1", "run 1"]);
    test.finish(1);
    assert_eq!(test.effects(), ["result 1 Answered", "start 4", "running 4", "run 4"]);
}

#[test]
fn a_download_waits_for_a_slot_of_downloads_and_expires_there_with_its_window() {
    let mut test = Test::new();
    for number in 1..=3 {
        with_resource(&mut test, number);
    }
    test.effects();

    fetched(&mut test, 1);
    assert_eq!(test.effects(), ["start 1", "fetch 3", "running 1", "run 1"]);
    with_resource(&mut test, 4);
    test.effects();
    test.now.wall_ms += 60_000;
    test.finish(1);

    assert_eq!(test.effects(), ["result 1 Answered", "result 4 Expired"]);
}

#[test]
fn a_download_is_wanted_until_it_ends_or_the_store_turns_out_to_be_a_copy() {
    let mut test = Test::new();
    with_resource(&mut test, 1);
    with_resource(&mut test, 2);
    fetched(&mut test, 1);
    assert!(!test.machine.is_fetching(id(1)) && test.machine.is_fetching(id(2)));

    test.machine.handle_judged(Standing::Copy, NOW_MS, 0, test.now);

    assert!(!test.machine.is_fetching(id(2)));
}

fn with_resource(test: &mut Test, number: u8) {
    test.order(&format!("{number} with-resource"));
    test.recalled(number, None, Some("with-resource"));
}

fn fetched(test: &mut Test, number: u8) {
    let resources = vec![("resource_a".to_owned(), "/a".into())];
    test.machine.handle_fetched(id(number), Ok(resources), test.now);
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
        |test| test.machine.handle_fetched(id(1), failed("the client hung up"), test.now),
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
