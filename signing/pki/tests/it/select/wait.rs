//! A download job that waits for a certificate (S6).

use std::time::Duration;

use muster_pki::UnixTime;
use muster_pki::select::{
    Admission, Availability, CertificateWait, ErrorCode, Event, Failure, Gate, Origin, RETRY_INTERVAL, Start,
    SuccessCodes, WAIT_PERIOD_DEFAULT, WaitMode, WaitSnapshot,
};
use proptest::prelude::*;

use crate::support::{DAY, NOW, at, now};

type Wait = CertificateWait<String>;

const RETRY: u64 = RETRY_INTERVAL.as_secs();
const OWN_CODE: ErrorCode = ErrorCode::new(0x4C7);

#[test]
fn s6_looks_every_10_minutes_and_fails_at_24_hours() {
    let mut wait = waiting();
    let mut looks = Vec::new();

    let failed = loop {
        let time = wait.poll_timeout().unwrap();
        wait.handle_timeout(time);
        match wait.poll_event() {
            Some(Event::LookForCertificate) => {
                looks.push(time.as_secs() - NOW);
                wait.handle_certificate(Availability::Missing, time);
            }
            Some(Event::Failed { job, code, failure }) => break (job, code, failure, time.as_secs() - NOW),
            other => panic!("{other:?}"),
        }
    };

    assert_eq!(looks, (1..144).map(|n| n * RETRY).collect::<Vec<_>>());
    assert_eq!(failed, ("a".to_owned(), ErrorCode::CLIENT_CERT_MISSING, Failure::Deadline, DAY));
    assert_eq!((wait.poll_event(), wait.poll_timeout(), wait.snapshot()), (None, None, None));
    assert_eq!(SuccessCodes::default().origin_after(failed.1), Origin::Forbidden);
}

#[test]
fn s6_tells_that_it_waits_and_until_when() {
    let mut wait = new();

    assert_eq!(wait.handle_missing("a".to_owned(), now()), Admission::Taken);

    assert_eq!(events(&mut wait), [Event::Missing { job: "a".to_owned(), deadline: at(NOW + DAY) }]);
    assert_eq!(wait.waiting(), Some((&"a".to_owned(), at(NOW + DAY))));
}

#[test]
fn s6_an_arrival_starts_an_election_whenever_it_comes() {
    for seconds in [0, 1, RETRY - 1, RETRY, DAY - 1] {
        let mut wait = waiting();

        wait.handle_certificate(Availability::Present, at(NOW + seconds));

        assert_eq!(events(&mut wait), [election(Start::Now, seconds)]);
        assert_eq!((wait.gate(&"b".to_owned()), wait.poll_timeout()), (Gate::Open, None));
    }
}

#[test]
fn s6_a_certificate_after_the_deadline_comes_too_late() {
    let mut wait = waiting();

    wait.handle_certificate(Availability::Present, at(NOW + DAY));

    assert_eq!(events(&mut wait), [failed(ErrorCode::CLIENT_CERT_MISSING, Failure::Deadline)]);
}

#[test]
fn s6_no_other_job_runs_meanwhile() {
    let mut wait = waiting();
    let (waits, other) = ("a".to_owned(), "b".to_owned());

    assert_eq!((wait.gate(&waits), wait.gate(&other)), (Gate::Open, Gate::Closed));
    assert_eq!(wait.handle_missing(other.clone(), at(NOW + 1)), Admission::Held);
    assert_eq!(wait.handle_missing(waits, at(NOW + 1)), Admission::Taken);
    assert_eq!(wait.waiting().map(|(_, deadline)| deadline), Some(at(NOW + DAY)), "its deadline stays");
    assert_eq!(events(&mut wait), []);

    wait.handle_certificate(Availability::Present, at(NOW + 2));

    assert_eq!(wait.gate(&other), Gate::Open);
    assert_eq!(
        wait.handle_missing(other.clone(), at(NOW + 3)),
        Admission::Held,
        "until the events are taken"
    );
    assert_eq!(events(&mut wait), [election(Start::Now, 2)]);
    assert_eq!(wait.handle_missing(other, at(NOW + 3)), Admission::Taken);
}

#[test]
fn s6_provisioning_mode_fails_at_once() {
    let mut wait = Wait::new(WaitMode::Provisioning, WAIT_PERIOD_DEFAULT);

    assert_eq!(wait.handle_missing("a".to_owned(), now()), Admission::Taken);

    assert_eq!(events(&mut wait), [failed(ErrorCode::CLIENT_CERT_MISSING, Failure::Provisioning)]);
    assert_eq!((wait.poll_timeout(), wait.snapshot()), (None, None));
}

#[test]
fn s6_a_restart_in_provisioning_mode_fails_what_waited() {
    let snapshot = waiting().snapshot().unwrap();

    let mut wait = Wait::restore(WaitMode::Provisioning, WAIT_PERIOD_DEFAULT, snapshot, at(NOW + 1));

    assert_eq!(events(&mut wait), [failed(ErrorCode::CLIENT_CERT_MISSING, Failure::Provisioning)]);
    assert_eq!((wait.poll_timeout(), wait.snapshot()), (None, None));
}

#[test]
fn s6_a_stopped_service_a_cancelled_and_an_expired_job_fail_at_once_with_their_own_code() {
    type Interrupt = fn(&mut Wait);
    let cases: [(Interrupt, Failure); 3] = [
        (|wait| wait.handle_stopped(OWN_CODE), Failure::ServiceStopped),
        (|wait| wait.handle_cancelled(&"a".to_owned(), OWN_CODE), Failure::Cancelled),
        (|wait| wait.handle_expired(&"a".to_owned(), OWN_CODE), Failure::Expired),
    ];
    for (interrupt, failure) in cases {
        let mut wait = waiting();
        wait.handle_timeout(at(NOW + RETRY));

        interrupt(&mut wait);
        interrupt(&mut wait);

        assert_eq!(events(&mut wait), [failed(OWN_CODE, failure)], "{failure:?}");
        assert_eq!((wait.poll_timeout(), wait.snapshot()), (None, None));
        assert_eq!(wait.gate(&"b".to_owned()), Gate::Open);
    }
}

#[test]
fn s6_the_end_of_another_job_changes_nothing() {
    let mut wait = waiting();

    wait.handle_cancelled(&"b".to_owned(), OWN_CODE);
    wait.handle_expired(&"b".to_owned(), OWN_CODE);
    wait.handle_paused(&"b".to_owned());

    assert_eq!(events(&mut wait), []);
    assert_eq!(wait.poll_timeout(), Some(at(NOW + RETRY)));
    wait.handle_certificate(Availability::Present, at(NOW + 1));
    assert_eq!(events(&mut wait), [election(Start::Now, 1)], "it is not the paused one");
}

#[test]
fn s6_the_deadline_survives_a_restart() {
    let mut before = waiting();
    before.handle_timeout(at(NOW + RETRY));
    let text = serde_json::to_string(&before.snapshot()).unwrap();

    let snapshot: Option<WaitSnapshot<String>> = serde_json::from_str(&text).unwrap();
    let mut after = restore(snapshot.unwrap(), NOW + 20 * 3_600);

    assert_eq!(events(&mut after), [Event::LookForCertificate]);
    assert_eq!(after.gate(&"b".to_owned()), Gate::Closed);
    after.handle_timeout(at(NOW + DAY - 1));
    assert_eq!(events(&mut after), [Event::LookForCertificate]);
    after.handle_timeout(at(NOW + DAY));
    assert_eq!(events(&mut after), [failed(ErrorCode::CLIENT_CERT_MISSING, Failure::Deadline)]);
}

#[test]
fn s6_a_restart_after_the_deadline_fails() {
    let mut after = restore(waiting().snapshot().unwrap(), NOW + DAY);

    assert_eq!(events(&mut after), [failed(ErrorCode::CLIENT_CERT_MISSING, Failure::Deadline)]);
}

#[test]
fn s6_a_restart_goes_on_waiting_however_often() {
    let mut wait = waiting();

    for seconds in 1..1_000 {
        wait = restore(wait.snapshot().unwrap(), NOW + seconds);
        assert_eq!(events(&mut wait), [Event::LookForCertificate]);
    }
    wait.handle_certificate(Availability::Present, at(NOW + 1_000));

    assert_eq!(events(&mut wait), [election(Start::Now, 1_000)]);
}

#[test]
fn s6_a_paused_job_goes_on_waiting_and_its_election_starts_when_it_is_resumed() {
    let job = "a".to_owned();
    let mut paused = waiting();
    paused.handle_paused(&job);
    let mut paused = restore(paused.snapshot().unwrap(), NOW + 60);
    let mut resumed = paused.clone();
    let mut late = paused.clone();
    resumed.handle_resumed(&job);

    paused.handle_certificate(Availability::Present, at(NOW + 90));
    resumed.handle_certificate(Availability::Present, at(NOW + 90));
    late.handle_timeout(at(NOW + DAY));

    assert_eq!(events(&mut paused), [election(Start::AtResume, 90)]);
    assert_eq!(events(&mut resumed), [election(Start::Now, 90)]);
    assert_eq!(events(&mut late), [failed(ErrorCode::CLIENT_CERT_MISSING, Failure::Deadline)]);
}

#[test]
fn s6_sleep_counts() {
    let (mut short, mut long) = (waiting(), waiting());

    short.handle_timeout(at(NOW + RETRY));
    short.handle_timeout(at(NOW + DAY - 1));
    long.handle_timeout(at(NOW + 3 * DAY));

    assert_eq!(events(&mut short), [Event::LookForCertificate], "one look, however many were slept through");
    assert_eq!(short.poll_timeout(), Some(at(NOW + DAY)));
    assert_eq!(events(&mut long), [failed(ErrorCode::CLIENT_CERT_MISSING, Failure::Deadline)]);
}

#[test]
fn s6_a_clock_that_was_set_back_makes_the_wait_neither_blind_nor_endless() {
    let mut wait = waiting();
    wait.handle_timeout(at(NOW - 365 * DAY));
    let mut clock = NOW - 365 * DAY;
    assert_eq!(events(&mut wait), [Event::LookForCertificate]);
    assert_eq!(wait.poll_timeout(), Some(at(clock + RETRY)));

    let mut looks = 1;
    while wait.waiting().is_some() {
        clock += RETRY;
        wait.handle_timeout(at(clock));
        looks += events(&mut wait).iter().filter(|event| **event == Event::LookForCertificate).count();
        // Set back again and again.
        clock -= 5 * RETRY;
    }

    assert_eq!(looks, 143);
}

#[test]
fn s6_restarts_do_not_make_a_wait_endless_whose_clock_is_set_back_again_and_again() {
    let mut wait = waiting();
    let (mut clock, mut restarts) = (NOW, 0);

    while let Some(snapshot) = wait.snapshot() {
        assert!(restarts < 1_000, "it waits for ever");
        wait = restore(snapshot, clock);
        clock += RETRY;
        wait.handle_timeout(at(clock));
        clock -= 5 * RETRY;
        restarts += 1;
    }

    assert_eq!(restarts, 144);
    assert_eq!(events(&mut wait).pop(), Some(failed(ErrorCode::CLIENT_CERT_MISSING, Failure::Deadline)));
}

#[test]
fn s6_a_restart_with_a_clock_that_was_set_back_goes_on_looking() {
    let mut wait = restore(waiting().snapshot().unwrap(), NOW - 365 * DAY);

    assert_eq!(events(&mut wait), [Event::LookForCertificate]);
    assert_eq!(wait.poll_timeout(), Some(at(NOW - 365 * DAY + RETRY)));
    wait.handle_timeout(at(NOW + RETRY));
    assert_eq!(events(&mut wait), [Event::LookForCertificate], "set right again");
    assert_eq!(wait.waiting().map(|(_, deadline)| deadline), Some(at(NOW + DAY)));
}

#[test]
fn s6_a_clock_that_was_set_back_by_a_second_costs_no_look() {
    let mut wait = waiting();

    wait.handle_timeout(at(NOW + RETRY));
    wait.handle_timeout(at(NOW + RETRY - 1));

    assert_eq!(events(&mut wait).len(), 1);
    assert_eq!(wait.poll_timeout(), Some(at(NOW + 2 * RETRY)));
}

#[test]
fn s6_the_period_is_configurable() {
    for (minutes, timeouts) in [(0, 0), (5, 1), (10, 1), (25, 3), (600, 60)] {
        let mut wait = Wait::new(WaitMode::Installed, Duration::from_secs(minutes * 60));
        assert_eq!(wait.handle_missing("a".to_owned(), now()), Admission::Taken);

        let mut count = 0;
        let mut last = now();
        while let Some(time) = wait.poll_timeout() {
            assert_eq!(wait.handle_missing("a".to_owned(), time), Admission::Taken);
            wait.handle_timeout(time);
            (count, last) = (count + 1, time);
        }

        assert_eq!((count, last), (timeouts, at(NOW + minutes * 60)), "{minutes}");
        let end = events(&mut wait).pop();
        assert_eq!(end, Some(failed(ErrorCode::CLIENT_CERT_MISSING, Failure::Deadline)), "{minutes}");
    }
}

fn new() -> Wait {
    Wait::new(WaitMode::Installed, WAIT_PERIOD_DEFAULT)
}

fn waiting() -> Wait {
    let mut wait = new();
    assert_eq!(wait.handle_missing("a".to_owned(), now()), Admission::Taken);
    assert_eq!(events(&mut wait).len(), 1);
    wait
}

fn restore(snapshot: WaitSnapshot<String>, seconds: u64) -> Wait {
    Wait::restore(WaitMode::Installed, WAIT_PERIOD_DEFAULT, snapshot, at(seconds))
}

fn events(wait: &mut Wait) -> Vec<Event<String>> {
    std::iter::from_fn(|| wait.poll_event()).collect()
}

fn election(start: Start, seconds: u64) -> Event<String> {
    Event::StartElection { job: "a".to_owned(), start, waited: Duration::from_secs(seconds) }
}

fn failed(code: ErrorCode, failure: Failure) -> Event<String> {
    Event::Failed { job: "a".to_owned(), code, failure }
}

/// What happens to a waiting job.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Timeout,
    Missing,
    Present,
    Paused,
    Resumed,
    OtherJob,
    Restart,
}

fn history() -> impl Strategy<Value = Vec<(u64, Happening)>> {
    use Happening::{Missing, OtherJob, Paused, Present, Restart, Resumed, Timeout};
    let kinds = vec![Timeout, Timeout, Missing, Present, Paused, Resumed, OtherJob, Restart, Restart];
    // From a second to a night of sleep.
    let gap = prop::sample::select(vec![0, 1, 59, RETRY - 1, RETRY, RETRY + 1, 3_600, 30_000]);
    prop::collection::vec((gap, prop::sample::select(kinds)), 0..60)
}

/// Plays a history and returns the events but for looks, with their times.
fn play(history: &[(u64, Happening)], restarts: bool) -> Vec<(UnixTime, Event<String>)> {
    let (job, other) = ("a".to_owned(), "b".to_owned());
    let mut wait = waiting();
    let mut time = NOW;
    let mut seen = Vec::new();
    for (gap, happening) in history {
        time += gap;
        let now = at(time);
        // A program that sleeps until the timeout is woken by it first.
        wait.handle_timeout(now);
        match happening {
            Happening::Timeout => {}
            Happening::Missing => wait.handle_certificate(Availability::Missing, now),
            Happening::Present => wait.handle_certificate(Availability::Present, now),
            Happening::Paused => wait.handle_paused(&job),
            Happening::Resumed => wait.handle_resumed(&job),
            Happening::OtherJob => {
                let before = wait.waiting().is_some();
                assert_eq!(wait.gate(&other) == Gate::Closed, before);
                assert!(!before || wait.handle_missing(other.clone(), now) == Admission::Held);
            }
            Happening::Restart => {}
        }
        seen.extend(
            events(&mut wait)
                .into_iter()
                .filter(|event| *event != Event::LookForCertificate)
                .map(|event| (now, event)),
        );
        if let (Happening::Restart, true, Some(snapshot)) = (happening, restarts, wait.snapshot()) {
            wait = restore(snapshot, time);
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn s6_restarts_change_nothing_and_the_deadline_is_kept_to_the_second(history in history()) {
        let seen = play(&history, true);

        prop_assert_eq!(&seen, &play(&history, false));
        prop_assert!(seen.len() <= 1, "one end: {:?}", seen);
        for (time, event) in seen {
            let is_over = time.as_secs() >= NOW + DAY;
            match event {
                Event::StartElection { .. } => prop_assert!(!is_over),
                Event::Failed { code, failure, .. } => {
                    prop_assert_eq!((code, failure, is_over), (ErrorCode::CLIENT_CERT_MISSING, Failure::Deadline, true));
                }
                Event::Missing { .. } | Event::LookForCertificate => prop_assert!(false, "{:?}", event),
            }
        }
    }
}
