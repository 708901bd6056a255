//! The choice against a naive oracle that compares tuples, over every order of the store.

use std::cmp::Reverse;
use std::sync::LazyLock;

use muster_pki::select::{Candidate, Candidates, Purpose, Question, SelectionSettings, Step, Why, select};
use muster_pki::{RevocationIndex, select::PrivateKey};
use proptest::prelude::*;
use rcgen::ExtendedKeyUsagePurpose;

use super::lab::{LAB, Spec, selection, store};
use crate::support::now;

static POOL: LazyLock<Pool> = LazyLock::new(Pool::new);

struct Pool {
    members: Vec<Member>,
    revocation: RevocationIndex,
}

/// A certificate, and what the oracle knows of it without reading it.
struct Member {
    candidate: Candidate,
    issuer: &'static str,
    name: &'static str,
    days: i64,
    is_fit: bool,
}

impl Pool {
    fn new() -> Self {
        let mut members = Vec::new();
        for issuer in ["acme", "globex"] {
            for name in ["w701", "kiosk", "w701.acme.local", "kiosk.acme.local"] {
                for days in [10, 10, 90] {
                    members.push(Member::new(issuer, name, days, None));
                }
                for (days, fault) in [(-5, "expired"), (95, "no key"), (95, "no purpose"), (95, "revoked")] {
                    members.push(Member::new(issuer, name, days, Some(fault)));
                }
            }
        }
        let revoked = members.iter().filter(|member| member.candidate.source() == "revoked");
        let revoked: Vec<_> = revoked.map(|member| member.candidate.certificate()).collect();
        let revocation = LAB.revoke(&revoked, &[]);
        Self { members, revocation }
    }
}

impl Member {
    fn new(issuer: &'static str, name: &'static str, days: i64, fault: Option<&'static str>) -> Self {
        let mut spec = Spec::new(issuer, name, days);
        match fault {
            Some("no key") => spec.key = PrivateKey::Missing,
            Some("no purpose") => spec.usages = vec![ExtendedKeyUsagePurpose::CodeSigning],
            Some(_) | None => {}
        }
        let candidate = spec.candidate(fault.unwrap_or("good"));
        Self { candidate, issuer, name, days, is_fit: fault.is_none() }
    }
}

#[derive(Debug, Clone)]
struct Configuration {
    issuer: &'static [&'static str],
    subject: &'static [&'static str],
    pinned: Option<usize>,
    purpose: Purpose,
    follow_successor: bool,
}

/// Returns all that only store order tells apart, in store order.
fn oracle<'p>(stored: &[&'p Member], configuration: &Configuration) -> Vec<&'p Member> {
    let is_listed = |parts: &[&str], text: &str| parts.iter().any(|part| text.contains(&part.to_lowercase()));
    let fit = || stored.iter().copied().filter(|member| member.is_fit);
    let counts = configuration.purpose == Purpose::BackgroundChannel
        || configuration.issuer.is_empty() && configuration.subject.is_empty();
    if let Some(pinned) = configuration.pinned.filter(|_| counts).map(|index| &POOL.members[index]) {
        let is_stored = stored.iter().any(|member| std::ptr::eq(*member, pinned));
        if is_stored && pinned.is_fit {
            return vec![pinned];
        }
        if is_stored && configuration.follow_successor && pinned.candidate.source() != "no purpose" {
            let newer: Vec<&Member> = fit()
                .filter(|one| {
                    (one.issuer, one.name) == (pinned.issuer, pinned.name) && one.days > pinned.days
                })
                .collect();
            let latest = newer.iter().map(|one| one.days).max();
            if latest.is_some() {
                return newer.into_iter().filter(|one| Some(one.days) == latest).collect();
            }
        }
    }
    let key = |member: &Member| {
        (
            is_listed(configuration.issuer, member.issuer),
            is_listed(configuration.subject, member.name),
            member.name.contains('.'),
            member.days,
        )
    };
    let Some(best) = fit().map(key).max() else { return Vec::new() };
    if !configuration.issuer.is_empty() && !best.0 {
        return Vec::new();
    }
    fit().filter(|member| key(member) == best).collect()
}

fn configurations() -> impl Strategy<Value = Configuration> {
    (
        prop::sample::select(vec![&[][..], &["ACME"], &["globex"], &["globex", "acme"], &["nobody"]]),
        prop::sample::select(vec![&[][..], &["Kiosk"], &["w701"], &["nobody"], &["acme.local", "w701"]]),
        prop::option::of(0..POOL.members.len()),
        prop::sample::select(vec![Purpose::Switch, Purpose::BackgroundChannel]),
        any::<bool>(),
    )
        .prop_map(|(issuer, subject, pinned, purpose, follow_successor)| Configuration {
            issuer,
            subject,
            pinned,
            purpose,
            follow_successor,
        })
}

/// Returns all orders of at most five things.
fn permutations<T: Copy>(items: &[T]) -> Vec<Vec<T>> {
    let Some((first, rest)) = items.split_first() else { return vec![Vec::new()] };
    let mut all = Vec::new();
    for shorter in permutations(rest) {
        for place in 0..=shorter.len() {
            let mut longer = shorter.clone();
            longer.insert(place, *first);
            all.push(longer);
        }
    }
    all
}

fn choose(stored: &[&Member], configuration: &Configuration) -> Option<(Candidate, Why)> {
    let candidates: Candidates = store(stored.iter().map(|member| &member.candidate));
    let pinned = configuration.pinned.map(|index| POOL.members[index].candidate.certificate().thumbprint());
    let selection = selection(SelectionSettings {
        cert_issuer: configuration.issuer.join(","),
        cert_subject: configuration.subject.join(","),
        thumbprint: pinned.map(|thumbprint| thumbprint.to_string()).unwrap_or_default(),
        follow_successor: configuration.follow_successor,
    });
    let question = Question {
        purpose: configuration.purpose,
        now: now(),
        revocation: Some(&POOL.revocation),
        remembered: None,
    };
    let choice = select(&candidates, &selection, &question).ok()?;
    Some((choice.candidate().clone(), choice.why()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn s1_every_order_of_the_store_gives_the_oracles_choice(
        picks in prop::collection::btree_set(0..POOL.members.len(), 0..=5),
        configuration in configurations(),
        pins_a_stored_one in any::<bool>(),
    ) {
        let mut configuration = configuration;
        if pins_a_stored_one && configuration.pinned.is_some() {
            configuration.pinned = picks.first().copied();
        }
        let stored: Vec<&Member> = picks.iter().map(|index| &POOL.members[*index]).collect();
        let mut all = oracle(&stored, &configuration);
        all.sort_by_key(|member| Reverse(member.candidate.certificate().thumbprint()));

        for order in permutations(&stored) {
            let expected = oracle(&order, &configuration);
            let got = choose(&order, &configuration);

            prop_assert_eq!(got.as_ref().map(|(candidate, _)| candidate), expected.first().map(|one| &one.candidate));
            // Only where store order alone decides may the choice differ, and then it says so.
            if let Some((_, why @ (Why::OnlyOne | Why::Preferred(_)))) = got {
                prop_assert_eq!(why == Why::Preferred(Step::StoreOrder), all.len() > 1);
            }
            let mut same = expected;
            same.sort_by_key(|member| Reverse(member.candidate.certificate().thumbprint()));
            prop_assert!(all.iter().zip(&same).all(|(a, b)| std::ptr::eq(*a, *b)) && all.len() == same.len());
        }
    }
}

#[test]
fn the_oracle_is_asked_enough() {
    let kinds =
        |member: &&Member| (member.issuer, member.name, member.days, member.candidate.source().to_owned());
    let distinct: std::collections::BTreeSet<_> = POOL.members.iter().map(|member| kinds(&member)).collect();

    assert_eq!(POOL.members.len(), 56);
    assert_eq!(distinct.len(), 48, "the others are ties");
}
