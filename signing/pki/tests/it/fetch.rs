//! R1: when a CRL is fetched, with virtual time and chosen random numbers.

use std::time::Duration;

use muster_pki::{
    CRL_BYTES_MAX, CrlUrl, Fetch, FetchError, FetchLimits, FetchRequest, FetchResponse, Fetched,
    REDIRECTS_MAX, REFRESH_MAX, RETRY_MAX, UnixTime, Validators,
};
use proptest::prelude::*;

use crate::support::{DAY, NOW, at, now};

const HOUR: u64 = 3_600;

#[test]
fn r1_fetches_at_once_then_by_etag_and_date() {
    let mut fetch = Fetch::new(url("http://crl/a"), FetchLimits::default(), now(), 0);

    let first = fetch.poll_fetch(now()).unwrap();
    let while_asking = fetch.poll_fetch(now());
    let got = fetch.handle_response(crl(), now(), 0);
    fetch.handle_loaded(at(NOW + 7 * DAY), now(), u32::MAX);
    let too_early = fetch.poll_fetch(at(NOW + HOUR - 1));
    let second = fetch.poll_fetch(at(NOW + HOUR)).unwrap();
    let unchanged = fetch.handle_response(status(304), at(NOW + HOUR), u32::MAX);
    let third = fetch.poll_fetch(at(NOW + 2 * HOUR)).unwrap();

    assert_eq!(first.url.as_str(), "http://crl/a");
    assert_eq!((first.validators, first.body_bytes_max), (Validators::default(), CRL_BYTES_MAX));
    assert!(first.timeout > Duration::ZERO);
    assert_eq!((while_asking, too_early), (None, None));
    assert_eq!(got, Ok(Fetched::Crl(b"crl".to_vec())));
    assert_eq!(second.validators, crl().validators);
    assert_eq!(unchanged, Ok(Fetched::NotModified));
    assert_eq!(third.validators, crl().validators);
    assert_eq!(fetch.failures(), 0);
}

#[test]
fn r1_refreshes_before_the_next_update() {
    for (left, latest) in [(7 * DAY, REFRESH_MAX.as_secs()), (HOUR, HOUR / 2), (600, 300), (60, 30), (0, 30)]
    {
        for random in [0, u32::MAX / 2, u32::MAX] {
            let mut fetch = asked();
            assert!(fetch.handle_response(crl(), now(), random).is_ok());
            fetch.handle_loaded(at(NOW + left), now(), random);

            let due = fetch.poll_timeout().as_secs() - NOW;

            assert!(due <= latest && due >= latest * 3 / 4, "{left} s left, {random}: after {due} s");
            assert!(left < 60 || due < left, "before nextUpdate");
        }
    }
}

#[test]
fn r1_backs_off_exponentially_with_jitter() {
    let waits = |random| -> Vec<u64> {
        let mut fetch = Fetch::new(url("http://crl/a"), FetchLimits::default(), now(), 0);
        let mut time = now();
        let mut waits = Vec::new();
        for _ in 0..9 {
            fetch.poll_fetch(time).unwrap();
            fetch.handle_failure(time, random);
            waits.push(fetch.poll_timeout().as_secs() - time.as_secs());
            time = fetch.poll_timeout();
        }
        waits
    };

    let mut recovered = asked();
    recovered.handle_failure(now(), 0);
    recovered.handle_failure(now(), 0);
    assert!(recovered.poll_fetch(recovered.poll_timeout()).is_some());
    assert!(recovered.handle_response(crl(), now(), 0).is_ok());
    recovered.handle_loaded(at(NOW + DAY), now(), 0);
    let failures = recovered.failures();
    recovered.handle_failure(now(), u32::MAX);

    assert_eq!((failures, recovered.poll_timeout()), (0, at(NOW + 30)), "it begins anew after a success");
    assert_eq!(waits(u32::MAX), [30, 60, 120, 240, 480, 960, 1_800, 1_800, 1_800]);
    assert_eq!(waits(0), [23, 45, 90, 180, 360, 720, 1_350, 1_350, 1_350]);
    assert_eq!(RETRY_MAX, Duration::from_secs(1_800));
}

#[test]
fn r1_waits_as_long_as_the_server_asks_but_not_longer_than_an_hour() {
    for (asked_for, expected) in [(1, 30), (600, 600), (30 * DAY, HOUR)] {
        let mut fetch = asked();
        let response = FetchResponse { retry_after: Some(Duration::from_secs(asked_for)), ..status(503) };

        let refused = fetch.handle_response(response, now(), u32::MAX);

        assert!(matches!(refused, Err(FetchError::Status { status: 503, .. })), "{refused:?}");
        assert_eq!(fetch.poll_timeout(), at(NOW + expected));
        assert_eq!(fetch.failures(), 1);
    }
}

#[test]
fn r1_follows_three_redirects_to_http_and_https_and_starts_over() {
    let mut fetch = asked();
    for (n, code) in [301, 302, 307].into_iter().enumerate() {
        let to = format!("https://crl{n}/b");
        assert_eq!(fetch.handle_response(redirect(code, &to), now(), 0), Ok(Fetched::Redirected));
        assert_eq!(fetch.poll_fetch(now()).unwrap().url, url(&to));
    }

    let mut followed = fetch.clone();
    let one_more = fetch.handle_response(redirect(308, "http://crl4/b"), now(), 0);
    let got = followed.handle_response(crl(), now(), 0);
    followed.handle_loaded(at(NOW + DAY), now(), 0);
    let next = followed.poll_fetch(followed.poll_timeout()).unwrap();

    assert_eq!(REDIRECTS_MAX, 3);
    assert!(matches!(one_more, Err(FetchError::TooManyRedirects { .. })), "{one_more:?}");
    assert_eq!(got, Ok(Fetched::Crl(b"crl".to_vec())));
    assert_eq!(next.url.as_str(), "http://crl/a");
}

#[test]
fn r1_follows_no_redirect_elsewhere() {
    for location in ["ldap://crl/a", "file:///etc/passwd", "ftp://crl/a", "http://user@crl/a"] {
        let refused = asked().handle_response(redirect(302, location), now(), 0);

        assert!(matches!(refused, Err(FetchError::Location { .. })), "{location}: {refused:?}");
    }
    let refused = asked().handle_response(status(302), now(), 0);
    assert!(matches!(refused, Err(FetchError::NoLocation { .. })), "{refused:?}");
}

#[test]
fn r1_refuses_what_is_no_answer() {
    let large = FetchResponse { body: vec![0; CRL_BYTES_MAX + 1], ..status(200) };
    for (response, expected) in [
        (large, "bytes"),
        (status(304), "unconditional"),
        (status(404), "status 404"),
        (status(206), "status 206"),
        (status(500), "status 500"),
    ] {
        let mut fetch = asked();

        let refused = fetch.handle_response(response, now(), u32::MAX).unwrap_err();

        assert!(refused.to_string().contains(expected), "{refused}");
        assert_eq!(fetch.poll_timeout(), at(NOW + 30));
    }
    assert_eq!(
        Fetch::new(url("http://crl/a"), FetchLimits::default(), now(), 0).handle_response(crl(), now(), 0),
        Err(FetchError::Unasked)
    );
}

#[test]
fn r4_a_refused_crl_is_fetched_whole_again() {
    let mut fetch = loaded();
    fetch.poll_fetch(fetch.poll_timeout()).unwrap();
    let time = at(NOW + HOUR);
    assert!(fetch.handle_response(crl(), time, 0).is_ok());

    fetch.handle_refused(time, 0);

    let next = fetch.poll_fetch(fetch.poll_timeout()).unwrap();
    assert_eq!(next.validators, Validators::default());
    assert_eq!(fetch.failures(), 1);
}

#[test]
fn r1_keeps_validators_over_a_failure_and_a_restart() {
    let mut fetch = loaded();
    fetch.poll_fetch(fetch.poll_timeout()).unwrap();
    fetch.handle_failure(at(NOW + HOUR), 0);

    let mut restarted = Fetch::new(fetch.url().clone(), FetchLimits::default(), at(NOW + HOUR), 0)
        .with_kept(fetch.validators().clone(), at(NOW + DAY));

    for fetch in [&mut fetch, &mut restarted] {
        let request: FetchRequest = fetch.poll_fetch(fetch.poll_timeout()).unwrap();
        assert_eq!(request.validators, crl().validators);
    }
    let time = at(NOW + DAY - 600);
    assert_eq!(restarted.handle_response(status(304), time, u32::MAX), Ok(Fetched::NotModified));
    assert_eq!(restarted.poll_timeout(), at(NOW + DAY - 300), "as its nextUpdate wants it");
}

#[test]
fn r1_keeps_no_validator_that_could_forge_a_header() {
    for bad in ["a\r\nHost: b", "", &"a".repeat(257), "ä"] {
        let mut fetch = asked();
        let validators = Validators { etag: Some(bad.to_owned()), last_modified: Some("x".to_owned()) };
        let response = FetchResponse { validators: validators.clone(), ..crl() };
        assert!(fetch.handle_response(response, now(), 0).is_ok());
        fetch.handle_loaded(at(NOW + DAY), now(), 0);
        let from_disk = Fetch::new(url("http://crl/a"), FetchLimits::default(), now(), 0)
            .with_kept(validators, at(NOW + DAY));

        for kept in [fetch.validators(), from_disk.validators()] {
            assert_eq!((kept.etag.as_deref(), kept.last_modified.as_deref()), (None, Some("x")));
        }
    }
}

#[test]
fn r1_asks_again_where_an_answer_never_came_and_where_the_clock_went_back() {
    let mut unanswered = asked();
    let mut unloaded = asked();
    assert!(unloaded.handle_response(crl(), now(), 0).is_ok());
    let mut ahead = Fetch::new(url("http://crl/a"), FetchLimits::default(), at(NOW + 365 * DAY), 0);

    for fetch in [&mut unanswered, &mut unloaded] {
        assert_eq!(fetch.poll_fetch(at(NOW + 60)), None);
        assert!(fetch.poll_fetch(at(NOW + 120)).is_some());
    }
    assert!(ahead.poll_fetch(now()).is_some());
}

#[test]
fn r1_every_time_and_count_is_the_callers_to_bound() {
    let limits = FetchLimits {
        timeout: Duration::from_secs(7),
        retry_min: Duration::from_secs(4),
        retry_max: Duration::from_secs(8),
        refresh_max: Duration::from_secs(100),
        start_spread: Duration::from_secs(20),
        redirects_max: 1,
        body_bytes_max: 2,
    };
    let new = || Fetch::new(url("http://crl/a"), limits, now(), 0);
    let spread = Fetch::new(url("http://crl/a"), limits, now(), u32::MAX).poll_timeout();
    let mut fetch = new();

    let request = fetch.poll_fetch(now()).unwrap();
    let unanswered = fetch.poll_timeout();
    let large = fetch.handle_response(crl(), now(), u32::MAX);
    let first = fetch.poll_timeout();
    for _ in 0..9 {
        fetch.handle_failure(now(), u32::MAX);
    }
    let last = fetch.poll_timeout();
    let mut redirected = new();
    let followed = [(), ()].map(|()| {
        assert!(redirected.poll_fetch(now()).is_some());
        redirected.handle_response(redirect(302, "/b"), now(), 0)
    });
    let mut fresh = new();
    assert!(fresh.poll_fetch(now()).is_some());
    assert!(fresh.handle_response(FetchResponse { body: vec![1, 2], ..crl() }, now(), 0).is_ok());
    fresh.handle_loaded(at(NOW + DAY), now(), u32::MAX);

    assert_eq!((request.timeout, request.body_bytes_max), (limits.timeout, 2));
    assert_eq!(large, Err(FetchError::TooLarge { url: url("http://crl/a"), got: 3, max: 2 }));
    let due = [spread, unanswered, first, last, fresh.poll_timeout()].map(|due| due.as_secs() - NOW);
    assert_eq!(due, [20, 14, 4, 8, 100]);
    let too_many = FetchError::TooManyRedirects { url: url("http://crl/b"), max: 1 };
    assert_eq!(followed, [Ok(Fetched::Redirected), Err(too_many)]);
}

#[test]
fn r1_spreads_the_first_fetches() {
    let due = |random| {
        Fetch::new(url("http://crl/a"), FetchLimits::default(), now(), random).poll_timeout().as_secs() - NOW
    };

    assert_eq!((due(0), due(u32::MAX / 2), due(u32::MAX)), (0, 3, 5));
}

proptest! {
    #[test]
    fn r1_any_answers_leave_a_bounded_wait_and_one_request(
        steps in prop::collection::vec((0_u8..5, 100_u16..600, any::<u32>(), 0..100_000_u64), 0..40),
    ) {
        let mut fetch = Fetch::new(url("http://crl/a"), FetchLimits::default(), now(), 0);
        let mut time: UnixTime = now();
        for (step, status_code, random, passed) in steps {
            time = at(time.as_secs() + passed);
            if fetch.poll_fetch(time).is_some() {
                prop_assert_eq!(fetch.poll_fetch(time), None, "one request at a time");
            }
            let answer = FetchResponse { location: Some("/b".to_owned()), ..status(status_code) };
            match step {
                0 => drop(fetch.handle_response(answer, time, random)),
                1 => fetch.handle_failure(time, random),
                2 => fetch.handle_loaded(at(time.as_secs() + passed), time, random),
                3 => fetch.handle_refused(time, random),
                _ => {}
            }
            let wait = fetch.poll_timeout().as_secs().saturating_sub(time.as_secs());
            prop_assert!(wait <= REFRESH_MAX.as_secs(), "{} s", wait);
        }
    }
}

fn url(text: &str) -> CrlUrl {
    text.parse().unwrap()
}

fn status(status: u16) -> FetchResponse {
    FetchResponse { status, ..FetchResponse::default() }
}

fn redirect(code: u16, to: &str) -> FetchResponse {
    FetchResponse { location: Some(to.to_owned()), ..status(code) }
}

fn crl() -> FetchResponse {
    let validators = Validators {
        etag: Some("\"7\"".to_owned()),
        last_modified: Some("Mon, 01 Jun 2026 00:00:00 GMT".to_owned()),
    };
    FetchResponse { validators, body: b"crl".to_vec(), ..status(200) }
}

/// A fetch that waits for the answer to its first request.
fn asked() -> Fetch {
    let mut fetch = Fetch::new(url("http://crl/a"), FetchLimits::default(), now(), 0);
    assert!(fetch.poll_fetch(now()).is_some());
    fetch
}

/// A fetch whose CRL was loaded.
fn loaded() -> Fetch {
    let mut fetch = asked();
    assert!(fetch.handle_response(crl(), now(), 0).is_ok());
    fetch.handle_loaded(at(NOW + 7 * DAY), now(), 0);
    fetch
}
