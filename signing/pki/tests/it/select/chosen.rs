//! The choice that stays (S4), its successor (N1, N2), and the exception of the pinned thumbprint (S5).

use muster_pki::select::{
    Availability, Candidate, Cause, Chosen, Outcome, PrivateKey, Purpose, Selection, SelectionSettings,
    Unfit, Why,
};
use muster_pki::{Finding, RevocationIndex, Rule, Severity, UnixTime};
use proptest::prelude::*;
use rcgen::ExtendedKeyUsagePurpose;

use super::lab::{LAB, Spec, selection, store};
use crate::support::{DAY, NOW, at, now};

#[test]
fn s4_a_better_certificate_does_not_displace_the_chosen_one() {
    let (first, better) = (good("w701", 10), good("w701.acme.local", 90));
    let mut chosen = chosen_of(&[&first]);

    let outcome = chosen.handle_store(now(), &store([&better, &first]), None);

    let Outcome::Kept { choice, preferred } = outcome.clone() else { panic!("{outcome}") };
    assert_eq!((choice.certificate(), choice.why()), (first.certificate(), Why::Kept));
    assert_eq!(choice.position(), 1);
    assert_eq!(preferred, Some(better.certificate().thumbprint()));
    let text = outcome.to_string();
    assert!(text.starts_with("kept certificate CN=w701 of CN=w701"), "{text}");
    assert!(text.ends_with("would be preferred, but does not displace it"), "{text}");
}

#[test]
fn s4_the_choice_goes_when_it_expires_and_not_before() {
    let (first, other) = (good("w701.acme.local", 10), good("w702", 5));
    let mut chosen = chosen_of(&[&first, &other]);
    let end = NOW + 10 * DAY;
    assert_eq!(chosen.poll_timeout(), Some(at(end + 1)));
    let other = good("w702", 90);

    let last = chosen.handle_store(at(end), &store([&first, &other]), None);
    let after = chosen.handle_store(at(end + 1), &store([&first, &other]), None);

    assert!(matches!(last, Outcome::Kept { .. }), "{last}");
    assert_changed(&after, &other, &Cause::Unfit(vec![Unfit::Expired { at: at(end) }]));
}

#[test]
fn s4_the_choice_goes_when_it_leaves_the_store_or_loses_its_key() {
    let (first, other) = (good("w701.acme.local", 10), good("w702", 90));
    let keyless = Candidate::new(first.certificate().clone(), Vec::new(), PrivateKey::Missing, "moved");

    let gone = chosen_of(&[&first, &other]).handle_store(now(), &store([&other]), None);
    let locked = chosen_of(&[&first, &other]).handle_store(now(), &store([&keyless, &other]), None);

    assert_changed(&gone, &other, &Cause::LeftStore);
    assert_changed(&locked, &other, &Cause::Unfit(vec![Unfit::KeyMissing]));
}

#[test]
fn s4_the_choice_goes_when_it_is_revoked() {
    let (first, other) = (good("w701.acme.local", 90), good("w702", 10));
    let mut chosen = chosen_of(&[&first, &other]);
    let revocation = LAB.revoke(&[first.certificate()], &[]);

    let outcome = chosen.handle_store(now(), &store([&first, &other]), Some(&revocation));
    let again = chosen.handle_store(now(), &store([&first, &other]), Some(&revocation));

    assert_changed(&outcome, &other, &Cause::Unfit(vec![Unfit::Revoked]));
    assert!(matches!(again, Outcome::Kept { preferred: None, .. }), "{again}");
}

#[test]
fn r8_the_choice_goes_when_its_ca_is_revoked() {
    let (first, other) = (good("w701", 90), Spec::new("globex", "w701", 10).candidate("globex"));
    let mut chosen = chosen_of(&[&first, &other]);
    let revocation = LAB.revoke(&[], &["acme"]);

    let outcome = chosen.handle_store(now(), &store([&first, &other]), Some(&revocation));

    let subject = "CN=Acme One Issuing".to_owned();
    assert_changed(&outcome, &other, &Cause::Unfit(vec![Unfit::IssuerRevoked { subject }]));
}

#[test]
fn s4_an_expired_choice_without_another_is_missing_until_one_arrives() {
    let first = good("w701", 10);
    let mut chosen = chosen_of(&[&first]);
    let (later, arrival) = (at(NOW + 11 * DAY), good("w702", 90));

    let missing = chosen.handle_store(later, &store([&first]), None);
    let still = chosen.handle_store(later, &store([&first]), None);
    let back = chosen.handle_store(later, &store([&first, &arrival]), None);

    let Outcome::Missing { missing: tells, previous, cause } = missing.clone() else { panic!("{missing}") };
    assert_eq!(tells.code().to_string(), "0x209A");
    assert_eq!(previous.as_ref(), Some(first.certificate()));
    assert_eq!(cause, Cause::Unfit(vec![Unfit::Expired { at: at(NOW + 10 * DAY) }]));
    assert_eq!(missing.availability(), Availability::Missing);
    assert!(matches!(still, Outcome::Missing { previous: None, cause: Cause::First, .. }), "{still}");
    assert_changed(&back, &arrival, &Cause::First);
    assert_eq!(back.availability(), Availability::Present);
}

#[test]
fn s4_wakes_when_a_certificate_becomes_valid() {
    let mut spec = Spec::new("acme", "w701", 90);
    spec.not_before = NOW + 60;
    let future = spec.candidate("future");
    let mut chosen = Chosen::new(Selection::default(), Purpose::Switch);

    let outcome = chosen.handle_store(now(), &store([&future]), None);
    let timeout = chosen.poll_timeout();
    let then = chosen.handle_store(timeout.unwrap(), &store([&future]), None);

    assert!(matches!(outcome, Outcome::Missing { .. }));
    assert_eq!(timeout, Some(at(NOW + 60)));
    assert_changed(&then, &future, &Cause::First);
    assert_eq!(chosen.poll_timeout(), Some(at(NOW + 90 * DAY + 1)));
}

#[test]
fn n1_the_successor_displaces_the_choice_at_once() {
    let (old, new, better) = (good("w701", 10), good("w701", 90), good("w701.acme.local", 90));
    let mut chosen = chosen_of(&[&old]);

    let outcome = chosen.handle_store(now(), &store([&better, &old, &new]), None);

    let successor = Why::Successor { of: old.certificate().thumbprint() };
    assert_changed(&outcome, &new, &Cause::Successor);
    assert_eq!(outcome.choice().map(|choice| choice.why()), Some(successor));
}

#[test]
fn n1_a_renewal_that_replaces_the_file_goes_to_the_successor_and_not_to_a_better_one() {
    let (old, new, better) = (good("w701", 10), good("w701", 90), good("w701.acme.local", 90));
    let mut chosen = chosen_of(&[&old]);
    let kept = chosen.handle_store(now(), &store([&old, &better]), None);

    let outcome = chosen.handle_store(now(), &store([&better, &new]), None);

    assert!(matches!(kept, Outcome::Kept { .. }));
    assert_changed(&outcome, &new, &Cause::Successor);
}

#[test]
fn n2_what_is_no_successor_does_not_displace() {
    let old = good("w701", 10);
    let mut both = Spec::new("acme", "w701", 90);
    both.usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    let keyless = Spec { key: PrivateKey::Missing, ..Spec::new("acme", "w701", 90) };

    for (case, other) in [
        ("subject", Spec::new("acme", "w702", 90)),
        ("issuer", Spec::new("acme2", "w701", 90)),
        ("purpose", both),
        ("earlier end", Spec::new("acme", "w701", 9)),
        ("same end", Spec::new("acme", "w701", 10)),
        ("no key", keyless),
    ] {
        let other = other.candidate(case);

        let outcome = chosen_of(&[&old]).handle_store(now(), &store([&other, &old]), None);

        assert!(matches!(outcome, Outcome::Kept { .. }), "{case}: {outcome}");
    }
}

#[test]
fn s5_the_pinned_certificate_is_taken_when_it_arrives() {
    let (first, pinned) = (good("w701.acme.local", 90), good("w701", 10));
    let mut chosen = Chosen::new(pin(&pinned), Purpose::BackgroundChannel);

    let before = chosen.handle_store(now(), &store([&first]), None);
    let arrived = chosen.handle_store(now(), &store([&first, &pinned]), None);
    let renewed = chosen.handle_store(now(), &store([&good("w701", 90), &pinned]), None);

    assert_changed(&before, &first, &Cause::First);
    assert_changed(&arrived, &pinned, &Cause::Pinned);
    assert!(matches!(renewed, Outcome::Kept { .. }), "a valid pin stays: {renewed}");
}

#[test]
fn n2_a_pinned_certificate_that_was_archived_hands_over_to_its_successor() {
    let (pinned, new, better) = (good("w701", 10), good("w701", 90), good("w701.acme.local", 95));
    let mut chosen = Chosen::new(pin(&pinned), Purpose::BackgroundChannel);
    let taken = chosen.handle_store(now(), &store([&pinned, &better]), None);

    let archived = chosen.handle_store(now(), &store([&better, &new]), None);
    let later = chosen.handle_store(now(), &store([&better, &new]), None);

    assert_changed(&taken, &pinned, &Cause::First);
    assert_changed(&archived, &new, &Cause::Successor);
    assert!(matches!(&later, Outcome::Kept { choice, .. } if *choice.candidate() == new), "{later}");
    let record = later.choice().and_then(|choice| choice.report().pin()).unwrap().to_string();
    let (old, new) = (pinned.certificate().thumbprint(), new.certificate().thumbprint());
    assert_eq!(record, format!("pinned thumbprint {old}: not in the store; its successor {new} is taken"));
}

#[test]
fn n2_a_pinned_certificate_that_may_not_hand_over_is_followed_by_preference_alone_and_the_record_says_one_thing()
 {
    let (pinned, new) = (good("w701", 10), good("w701", 90));
    let settings = SelectionSettings { follow_successor: false, ..pin(&pinned).into() };
    let mut chosen = Chosen::new(selection(settings), Purpose::BackgroundChannel);
    drop(chosen.handle_store(now(), &store([&pinned, &new]), None));

    let ended = chosen.handle_store(at(NOW + 11 * DAY), &store([&pinned, &new]), None);

    let choice = ended.choice().unwrap();
    assert_eq!((choice.certificate(), choice.why()), (new.certificate(), Why::OnlyOne));
    let record = choice.report().pin().unwrap().to_string();
    assert!(record.ends_with("its successor is not taken, since follow_successor is off"), "{record}");
}

#[test]
fn c4_what_every_peer_would_refuse_is_no_candidate_and_no_successor_and_each_rule_is_told_once() {
    let (old, newer) = (good("w701", 10), Spec::new("acme", "w701", 90).candidate("newer"));
    let finding = |rule, severity| Finding {
        rule,
        severity,
        got: "no Key Usage".to_owned(),
        wanted: "Key Usage".to_owned(),
        fix: "reissue it".to_owned(),
        subject: String::new(),
        serial: String::new(),
        thumbprint: None,
        issuer: String::new(),
    };
    let expired = Spec::new("acme", "w701", -5).candidate("expired");
    let refused = newer.clone().with_findings([finding(Rule::C4, Severity::Refusal)]);
    let warned = newer.with_findings([finding(Rule::C4, Severity::Warning)]);
    let twice = expired.with_findings([Rule::C9, Rule::C6].map(|rule| finding(rule, Severity::Refusal)));

    let kept = chosen_of(&[&old]).handle_store(now(), &store([&old, &refused, &twice]), None);
    let at_start = Chosen::new(Selection::default(), Purpose::Switch).handle_store(
        now(),
        &store([&refused, &old]),
        None,
    );
    let followed = chosen_of(&[&old]).handle_store(now(), &store([&old, &warned]), None);

    let Outcome::Kept { choice, preferred: None } = &kept else { panic!("{kept}") };
    let told: Vec<String> = choice.report().rows().iter().map(|row| row.standing().to_string()).collect();
    assert_eq!(told[1], "unfit: C4 no Key Usage: reissue it");
    assert_eq!((told[2].matches("C9").count(), told[2].matches("C6").count()), (1, 1), "{}", told[2]);
    assert_eq!(at_start.choice().unwrap().certificate(), old.certificate());
    assert_changed(&followed, &warned, &Cause::Successor);
}

#[test]
fn n2_a_restart_after_the_pinned_certificate_was_archived_still_finds_its_successor() {
    let (pinned, new, better) = (good("w701", 10), good("w701", 90), good("w701.acme.local", 95));
    let mut before = Chosen::new(pin(&pinned), Purpose::Switch);
    assert_changed(&before.handle_store(now(), &store([&pinned]), None), &pinned, &Cause::First);
    let kept_on_disk = before.pinned_certificate().unwrap().clone();

    let mut after = Chosen::new(pin(&pinned), Purpose::Switch).with_pinned_certificate(kept_on_disk);
    let mut forgetful =
        Chosen::new(pin(&pinned), Purpose::Switch).with_pinned_certificate(better.certificate().clone());

    assert_changed(&after.handle_store(now(), &store([&better, &new]), None), &new, &Cause::First);
    assert_changed(&forgetful.handle_store(now(), &store([&better, &new]), None), &better, &Cause::First);
    assert_eq!(forgetful.pinned_certificate(), None);
}

#[test]
fn a_changed_configuration_chooses_anew_and_an_equal_one_does_not() {
    let (first, better) = (good("w701", 10), good("w701.acme.local", 90));
    let mut chosen = chosen_of(&[&first]);
    let both = store([&first, &better]);
    let issuer = |text: &str| {
        selection(SelectionSettings { cert_issuer: text.to_owned(), ..SelectionSettings::default() })
    };

    chosen.push_selection(Selection::default());
    let equal = chosen.handle_store(now(), &both, None);
    chosen.push_selection(issuer("acme"));
    let changed = chosen.handle_store(now(), &both, None);
    chosen.push_selection(issuer("one"));
    let same = chosen.handle_store(now(), &both, None);
    chosen.push_selection(issuer("globex"));
    let missing = chosen.handle_store(now(), &both, None);

    assert!(matches!(equal, Outcome::Kept { .. }), "{equal}");
    assert_changed(&changed, &better, &Cause::SelectionChanged);
    assert!(matches!(same, Outcome::Kept { preferred: None, .. }), "{same}");
    assert!(matches!(missing, Outcome::Missing { cause: Cause::SelectionChanged, .. }), "{missing}");
}

#[test]
fn c14_a_missing_certificate_is_told_as_a_line_and_as_a_table() {
    let mut spec = Spec::new("acme", "w701", -5);
    spec.key = PrivateKey::Missing;
    let mut candidates =
        store([&spec.candidate("old.pem"), &Spec::new("globex", "w701", 5).candidate("g.pem")]);
    candidates.push_unread("new.pfx", "the password\nis wrong");
    let issuer = SelectionSettings { cert_issuer: "acme".to_owned(), ..SelectionSettings::default() };

    let outcome = Chosen::new(selection(issuer), Purpose::Switch).handle_store(now(), &candidates, None);

    let Outcome::Missing { missing, .. } = outcome else { panic!("{outcome}") };
    let [old, globex] = [0, 1].map(|n| candidates.iter().nth(n).unwrap().certificate().thumbprint());
    let pad = " ".repeat(54);
    assert_eq!(
        format!("{missing:#}"),
        format!(
            "ERROR_CLIENT_CERT_MISSING (0x209A): no valid client certificate
#  SOURCE   SUBJECT  ISSUER               VALID UNTIL           THUMBPRINT{pad}  RESULT
1  old.pem  CN=w701  CN=Acme One Issuing  2026-05-27T00:00:00Z  {old}  unfit: C9 expired at 2026-05-27T00:00:00Z: renew it; C5 no private key: put its private key beside it
2  g.pem    CN=w701  CN=Globex Issuing    2026-06-06T00:00:00Z  {globex}  unfit: S3 issuer not in cert_issuer: add its issuer to cert_issuer, or enrol at one that is listed
not read: new.pfx: the password\\u{{a}}is wrong"
        )
    );
    let line = missing.to_string();
    assert!(
        !line.contains('\n') && line.contains("1 old.pem (CN=w701, ") && line.contains("not read: new.pfx"),
        "{line}"
    );
}

fn good(name: &str, days: i64) -> Candidate {
    Spec::new("acme", name, days).candidate(&format!("CN={name}"))
}

fn chosen_of(stored: &[&Candidate]) -> Chosen {
    let mut chosen = Chosen::new(Selection::default(), Purpose::Switch);
    let outcome = chosen.handle_store(now(), &store(stored.iter().copied()), None);
    assert_changed(&outcome, stored[0], &Cause::First);
    chosen
}

fn pin(candidate: &Candidate) -> Selection {
    let thumbprint = candidate.certificate().thumbprint().to_string();
    selection(SelectionSettings { thumbprint, ..SelectionSettings::default() })
}

#[track_caller]
fn assert_changed(outcome: &Outcome, to: &Candidate, because: &Cause) {
    let Outcome::Changed { choice, cause, .. } = outcome else { panic!("{outcome}") };
    assert_eq!((choice.candidate(), cause), (to, because), "{outcome}");
}

/// What a random history does with the store.
#[derive(Debug, Clone)]
struct Step {
    stored: Vec<usize>,
    days: u64,
    revoked: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (prop::collection::vec(0_usize..8, 0..6), 0_u64..40, any::<bool>());
    let step = step.prop_map(|(stored, days, revoked)| Step { stored, days, revoked });
    prop::collection::vec(step, 1..12)
}

struct History {
    pool: Vec<Candidate>,
    revocation: RevocationIndex,
}

static HISTORY: std::sync::LazyLock<History> = std::sync::LazyLock::new(|| {
    let mut pool = Vec::new();
    for name in ["w701", "w701.acme.local"] {
        for days in [10, 20, 20, 30] {
            pool.push(good(name, days));
        }
    }
    let revocation = LAB.revoke(&[pool[0].certificate(), pool[7].certificate()], &[]);
    History { pool, revocation }
});

impl History {
    fn is_fit(&self, candidate: &Candidate, now: UnixTime, revoked: bool) -> bool {
        let certificate = candidate.certificate();
        certificate.is_valid_at(now) && !(revoked && self.revocation.is_revoked(certificate))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn s4_in_every_history_the_choice_stays_while_it_is_fit_and_has_no_successor(steps in steps()) {
        let history = &*HISTORY;
        let mut chosen = Chosen::new(Selection::default(), Purpose::Switch);
        let mut before: Option<Candidate> = None;

        for step in steps {
            let now = at(NOW + step.days * DAY);
            let stored: Vec<&Candidate> = step.stored.iter().map(|index| &history.pool[*index]).collect();
            let revocation = step.revoked.then_some(&history.revocation);
            let outcome = chosen.handle_store(now, &store(stored.iter().copied()), revocation);
            let fit: Vec<&Candidate> =
                stored.into_iter().filter(|one| history.is_fit(one, now, step.revoked)).collect();
            let after = outcome.choice().map(|choice| choice.candidate().clone());

            prop_assert_eq!(after.is_some(), !fit.is_empty());
            prop_assert!(after.as_ref().is_none_or(|after| fit.contains(&after)));
            if let Some(before) = &before {
                let newer = fit.iter().filter(|one| {
                    one.source() == before.source()
                        && one.certificate().not_after() > before.certificate().not_after()
                });
                let latest = newer.map(|one| one.certificate().not_after()).max();
                if latest.is_some() {
                    prop_assert_eq!(after.as_ref().map(|after| after.certificate().not_after()), latest);
                    prop_assert!(after.as_ref().is_some_and(|after| after.source() == before.source()));
                } else if fit.contains(&before) {
                    prop_assert_eq!(after.as_ref(), Some(before));
                }
                let is_kept = matches!(outcome, Outcome::Kept { .. });
                prop_assert_eq!(is_kept, after.as_ref() == Some(before));
            }
            prop_assert_eq!(chosen.choice().map(|choice| choice.candidate().clone()), after.clone());
            before = after;
        }
    }
}
