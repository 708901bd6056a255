//! Downloads while there is no certificate (S6).

use muster_pki::select::Availability;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn s6_a_download_without_a_certificate_waits_and_no_other_runs_meanwhile() {
    let mut test = waiting_with(24 * HOUR);
    with_resource(&mut test, 1);
    test.effects();

    test.machine.handle_fetched(id(1), Err(FetchFailure::NoCertificate), test.now);
    assert_eq!(test.effects(), ["stop fetching", "look", "wait, missing 1"]);
    test.machine.handle_certificate(Availability::Missing, test.now);
    with_resource(&mut test, 2);
    assert_eq!(test.effects(), ["recall 2", "intent 2", "acked 2"]);
    test.admitted(3);
    assert_eq!(
        test.effects(),
        ["recall 3", "intent 3", "acked 3", "start 3", "running 3", "run 3"],
        "what needs no download is not held back"
    );

    test.now.wall_ms += 5_000;
    test.machine.handle_certificate(Availability::Present, test.now);

    assert_eq!(test.effects(), ["no wait, recovered 1 after 5 s", "fetch 1", "fetch 2"]);
    assert_eq!(test.machine.download_waiting(), None);
}

#[test]
fn s6_at_the_deadline_the_instruction_is_refused_with_0x209a_and_the_next_one_is_let_in() {
    let mut test = waiting_with(Duration::from_secs(30));
    for number in 1..=2 {
        with_resource(&mut test, number);
    }
    test.machine.handle_fetched(id(1), Err(FetchFailure::NoCertificate), test.now);
    test.effects();
    let woken = test.machine.poll_timeout(test.now).unwrap();
    assert_eq!(woken, test.now.instant + Duration::from_secs(30));

    test.now.wall_ms += 30_000;
    test.machine.handle_timeout(test.now);

    let effects = test.effects_with_detail();
    let [result, wait, fetch] = &effects[..] else { panic!("{effects:?}") };
    assert!(
        result.starts_with("result 1 Refused: ERROR_CLIENT_CERT_MISSING (0x209A)") && result.contains("30s"),
        "{result}"
    );
    assert_eq!((wait.as_str(), fetch.as_str()), ("no wait", "fetch 2"));
}

#[test]
fn s6_an_order_whose_window_ends_while_it_waits_expires_at_once() {
    let mut test = waiting_with(24 * HOUR);
    with_resource(&mut test, 1);
    test.machine.handle_fetched(id(1), Err(FetchFailure::NoCertificate), test.now);
    test.effects();
    assert_eq!(test.machine.poll_timeout(test.now), Some(test.now.instant + Duration::from_secs(60)));

    test.now.wall_ms += 60_000;
    test.machine.handle_timeout(test.now);

    assert_eq!(test.effects(), ["result 1 Expired", "no wait"]);
}

#[test]
fn s6_a_store_that_turns_out_to_be_a_copy_ends_the_wait_with_everything_else() {
    let mut test = waiting_with(24 * HOUR);
    with_resource(&mut test, 1);
    test.machine.handle_fetched(id(1), Err(FetchFailure::NoCertificate), test.now);
    test.effects();

    test.machine.handle_judged(Standing::Copy, NOW_MS, 0, test.now);

    assert_eq!(test.effects(), ["no wait"], "the journal has answered it");
}

#[test]
fn s6_a_restart_goes_on_waiting_looks_every_ten_minutes_and_keeps_the_deadline() {
    let stored = stored_wait(24 * HOUR);
    let mut test = restarted(24 * HOUR, &stored);
    test.now.wall_ms += 3_600_000;
    test.machine.handle_timeout(test.now);
    assert_eq!(test.effects(), ["look", "wait"]);

    let deadline_ms = NOW_MS + 24 * 3_600_000;
    assert_eq!(test.machine.download_waiting(), Some((id(1), deadline_ms)));
    for _ in 0..3 {
        let next = test.machine.poll_timeout(test.now).unwrap().duration_since(test.now.instant);
        assert_eq!(next, Duration::from_secs(600));
        test.now.wall_ms += 600_000;
        test.machine.handle_timeout(test.now);
        test.machine.handle_certificate(Availability::Missing, test.now);
        assert_eq!(test.effects(), ["look", "wait"]);
    }
    test.now.wall_ms = deadline_ms;
    test.machine.handle_timeout(test.now);

    assert_eq!(test.effects(), ["result 1 Refused", "no wait"], "no Welcome is needed for it");
}

#[test]
fn s6_a_window_that_ends_before_a_welcome_ends_the_wait_as_expired() {
    let mut test = restarted(72 * HOUR, &stored_wait(72 * HOUR));

    test.now.wall_ms += 48 * 3_600_000;
    test.machine.handle_timeout(test.now);

    assert_eq!(test.effects(), ["result 1 Expired", "no wait"]);
}

#[test]
fn s6_a_certificate_that_came_while_the_client_was_down_starts_the_download_after_the_welcome() {
    let mut test = restarted(24 * HOUR, &stored_wait(24 * HOUR));

    test.machine.handle_certificate(Availability::Present, test.now);
    assert_eq!(test.effects(), ["no wait, recovered 1 after 0 s"]);
    test.machine.handle_judged(Standing::Own, 0, 0, test.now);

    assert_eq!(test.effects(), ["fetch 1"]);
}

#[test]
fn s6_a_wait_whose_instruction_is_gone_is_forgotten() {
    let stored = stored_wait(24 * HOUR);
    let mut test = waiting_with(24 * HOUR);
    test.machine = test.machine.with_download_wait(DownloadWait::restore(24 * HOUR, Some(&stored), NOW_MS));

    test.machine.handle_timeout(test.now);

    assert_eq!(test.effects(), ["no wait"]);
}

#[test]
fn s6_a_stored_wait_that_cannot_be_read_is_none() {
    let mut test = waiting_with(24 * HOUR);
    test.machine = test.machine.with_download_wait(DownloadWait::restore(HOUR, Some(b"{}"), NOW_MS));

    assert_eq!(test.machine.download_waiting(), None);
}

fn waiting_with(period: Duration) -> Test {
    let mut test = Test::new();
    test.machine = test.machine.with_download_wait(DownloadWait::new(period));
    test
}

fn with_resource(test: &mut Test, number: u8) {
    test.order(&format!("{number} with-resource"));
    test.recalled(number, None, Some("with-resource"));
}

/// Returns what is on disk of a wait of instruction 1 that begins at [`NOW_MS`].
fn stored_wait(period: Duration) -> Vec<u8> {
    let mut test = waiting_with(period);
    with_resource(&mut test, 1);
    test.machine.handle_fetched(id(1), Err(FetchFailure::NoCertificate), test.now);
    let is_wait = |effect: Effect| if let Effect::RecordWait { stored, .. } = effect { stored } else { None };
    let stored = std::iter::from_fn(|| test.machine.poll_effect()).find_map(is_wait);
    stored.unwrap()
}

/// Makes a machine as a restart does: instruction 1 is journaled, with a window of two days, and no Welcome was judged.
fn restarted(period: Duration, stored: &[u8]) -> Test {
    let now = Now { instant: Instant::now(), wall_ms: NOW_MS };
    let limits = Limits { parallel: 2, queued: 3, document: Duration::from_secs(30) };
    let licence = held_licence();
    let memory = Memory { time_floor_ms: NOW_MS - 1_000, ..Memory::default() };
    let machine = Instructions::new(Spoken::default(), limits, Some(licence), 3, memory, now.instant);
    let mut machine = machine.with_download_wait(DownloadWait::restore(period, Some(stored), NOW_MS));
    let entry = Entry {
        instruction: id(1),
        order_digest: digest("1 with-resource"),
        definition: digest("with-resource"),
        expires_at_ms: NOW_MS + 48 * 3_600_000,
        envelope: b"1 with-resource".to_vec(),
        proof: None,
    };
    machine.handle_recovered(entry, Some(b"with-resource".to_vec()));
    Test { machine, now }
}
