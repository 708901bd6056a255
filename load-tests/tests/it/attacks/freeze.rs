//! A Switch that keeps what is newer to itself: old orders end, old licences are told.

use std::time::Duration;

use muster_pki::UnixTime;
use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::order::v1::Order;

use super::{DEVICE, Lab};
use crate::liar::{Welcome, now_ms};
use crate::support::orders::MINUTE_MS;
use crate::support::{wait_for, wait_until};

#[test]
fn attack_freeze_of_an_order_ends_with_its_window_and_no_window_is_longer_than_its_definition_allows() {
    let lab = Lab::new();
    let liar = lab.liar();
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());

    let late = Order {
        not_before_ms: now_ms() - 5 * MINUTE_MS,
        expires_at_ms: now_ms() - 1,
        ..lab.order(&lab.honest)
    };
    let envelope = lab.signed(&late);
    let (state, _) = lab.tried(&mut session, &late, &envelope);
    assert_eq!(state, TargetState::Expired);
    let short = "[time_to_live]\ngather = { default = \"1h\", min = \"1m\", max = \"1h\" }\n";
    let short = lab.publish(&liar, &super::text("Acme-Test-Short", "1.0.0", short));
    let endless = Order { expires_at_ms: now_ms() + 120 * MINUTE_MS, ..lab.order(&short) };
    lab.refused(&mut session, &endless, Refusal::BadArgument, "two hours, and the definition allows one");
    let brief =
        Order { not_before_ms: now_ms() - 5_000, expires_at_ms: now_ms() + 50_000, ..lab.order(&short) };
    lab.refused(&mut session, &brief, Refusal::BadArgument, "55 s, and the definition asks for a minute");
    let early = Order {
        not_before_ms: now_ms() + 5 * MINUTE_MS,
        expires_at_ms: now_ms() + 6 * MINUTE_MS,
        ..lab.order(&lab.honest)
    };
    lab.refused(&mut session, &early, Refusal::NotYetValid, "for later");

    let allowed = lab.order(&short);
    lab.runs(&mut session, &allowed, &lab.signed(&allowed));
    lab.goes_on(&mut session);
}

#[test]
fn attack_freeze_of_the_licence_is_told_once_its_refresh_by_has_passed_and_what_is_newer_ends_it() {
    let lab = Lab::new();
    let liar = lab.liar();
    let at = |seconds: i64| {
        let now = i64::try_from(UnixTime::now().as_secs()).unwrap();
        UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now + seconds).unwrap()))
    };
    let overdue = liar.shelve(&lab.licence(2, |terms| terms.refresh_by = Some(at(-60))));
    let client = lab.start();
    let mut session = liar.accept(Welcome { licence: Some(overdue), ..Welcome::default() });
    // It goes on working, since nobody else could end what the Switch keeps away.
    lab.goes_on(&mut session);

    let problem = || {
        let status = lab.place.status(DEVICE).unwrap();
        status["licence_problem"].as_str().unwrap().to_owned()
    };
    let told = wait_for("the alarm", || Some(problem()).filter(|problem| !problem.is_empty()));
    assert!(told.contains("licence 2 should have had a successor"), "{told}");
    assert!(client.log().contains("should have had a successor"), "{}", client.log());
    // What is older does not end the alarm.
    session.tell_licence(muster_signing::envelope::digest(&lab.licence));
    lab.goes_on(&mut session);
    assert!(!problem().is_empty());

    let newer = lab.licence(3, |terms| terms.refresh_by = Some(at(3_600)));
    session.tell_licence(liar.shelve(&newer));
    lab.goes_on(&mut session);
    wait_until("the alarm to end", || problem().is_empty());
}
