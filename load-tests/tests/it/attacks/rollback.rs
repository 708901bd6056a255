//! What was true once: definitions, licences and CRLs after newer ones.

use std::time::Duration;

use muster_pki::authority::Revoked;
use muster_pki::{Role, UnixTime};
use muster_proto::common::v1::Refusal;
use muster_proto::order::v1::{Audience, Order};
use muster_proto::session::v1::DocumentKind;
use muster_signing::envelope;

use super::{DEVICE, Lab, instruction, text};
use crate::liar::Welcome;
use crate::support::orders::{authority, issued, sign_order, stranger};
use crate::support::{wait_until, write};

#[test]
fn attack_old_definition_after_a_newer_one_is_refused_as_rolled_back_also_after_kill_9() {
    let lab = Lab::new();
    let liar = lab.liar();
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let old = lab.publish(&liar, &text("Acme-Test-Version", "1.9.0", ""));
    let new = lab.publish(&liar, &text("Acme-Test-Version", "1.10.0", ""));

    let first = lab.order(&old);
    lab.runs(&mut session, &first, &lab.signed(&first));
    let newer = lab.order(&new);
    lab.runs(&mut session, &newer, &lab.signed(&newer));
    lab.refused(&mut session, &lab.order(&old), Refusal::RolledBack, "a newer one ran");
    client.kill();
    drop(session);
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    lab.refused(&mut session, &lab.order(&old), Refusal::RolledBack, "a newer one ran before kill -9");

    let again = lab.order(&new);
    lab.runs(&mut session, &again, &lab.signed(&again));
}

#[test]
fn attack_old_definition_after_a_newer_one_that_was_refused_is_refused_as_rolled_back_also_after_kill_9() {
    let lab = Lab::new();
    let liar = lab.liar();
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let of = |name: &str, version: &str| lab.publish(&liar, &text(name, version, ""));
    let [alone, elsewhere, forged] = ["Acme-Test-Alone", "Acme-Test-Elsewhere", "Acme-Test-Forged"];
    let asking = text(alone, "2.0.0", "").replacen("says", "approvals = 1\nsays", 1);
    let asking = lab.publish(&liar, &asking);
    let old = [of(alone, "1.0.0"), of(elsewhere, "1.0.0")];

    lab.refused(&mut session, &lab.order(&asking), Refusal::Unapproved, "nobody approved of it");
    let audience = Audience { expression: "os == 'none'".to_owned(), ..Audience::default() };
    let for_others = Order { audience: Some(audience), ..lab.order(&of(elsewhere, "2.0.0")) };
    lab.refused(&mut session, &for_others, Refusal::WrongAudience, "it is for others");
    for old in &old {
        lab.refused(&mut session, &lab.order(old), Refusal::RolledBack, "a newer one was seen");
    }
    client.kill();
    drop(session);
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    for old in &old {
        lab.refused(
            &mut session,
            &lab.order(old),
            Refusal::RolledBack,
            "a newer one was seen before kill -9",
        );
    }

    // What its author or an operator did not sign, nobody has seen.
    let newer = lab.order(&of(forged, "2.0.0"));
    let told = lab.tried(&mut session, &newer, &sign_order(&newer, &stranger(Role::OrderSigner)));
    assert_eq!(told.1, Refusal::UntrustedSigner);
    let of_stranger = super::definition(&stranger(Role::Author), &text(forged, "3.0.0", ""));
    liar.shelve(&of_stranger);
    lab.refused(&mut session, &lab.order(&of_stranger), Refusal::UntrustedSigner, "a stranger's");
    let first = lab.order(&of(forged, "1.0.0"));
    lab.runs(&mut session, &first, &lab.signed(&first));
    lab.goes_on(&mut session);
}

#[test]
fn attack_old_definition_below_the_licences_minimum_is_refused_though_the_device_saw_no_newer_one() {
    let lab = Lab::new();
    let liar = lab.liar();
    let minimum = |terms: &mut muster_signing::licence::Terms| {
        terms.minimum_versions.insert("Acme-Test-Version".parse().unwrap(), "2.0.0".parse().unwrap());
    };
    let licence = liar.shelve(&lab.licence(2, minimum));
    let _client = lab.start();
    let mut session = liar.accept(Welcome { licence: Some(licence), ..Welcome::default() });
    let old = lab.publish(&liar, &text("Acme-Test-Version", "1.9.9", ""));
    let new = lab.publish(&liar, &text("Acme-Test-Version", "2.0.0", ""));

    lab.refused(&mut session, &lab.order(&old), Refusal::RolledBack, "the licence asks for 2.0.0");

    let newer = lab.order(&new);
    lab.runs(&mut session, &newer, &lab.signed(&newer));
    lab.goes_on(&mut session);
}

#[test]
fn attack_old_licence_is_not_taken_for_a_newer_one_also_after_kill_9() {
    let lab = Lab::new();
    let liar = lab.liar();
    // The home's licence has the prefix `Muster`, the newer one has not.
    let newer = liar.shelve(&lab.licence(7, |terms| drop(terms.prefixes.remove("Muster"))));
    let lost = lab.publish(&liar, &text("Muster-Test-Lost", "1.0.0", ""));
    let old = envelope::digest(&lab.licence);
    let client = lab.start();
    let mut session = liar.accept(Welcome { licence: Some(newer), ..Welcome::default() });
    lab.goes_on(&mut session);

    session.tell_licence(old);
    lab.refused(&mut session, &lab.order(&lost), Refusal::Unlicensed, "told of the old one");
    assert!(session.told.asked.contains(&(DocumentKind::Licence, old)), "{:?}", session.told.asked);
    client.kill();
    drop(session);
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    lab.refused(&mut session, &lab.order(&lost), Refusal::Unlicensed, "welcomed with the old one");
    assert!(session.told.asked.contains(&(DocumentKind::Licence, old)), "{:?}", session.told.asked);
    assert_eq!(lab.place.status(DEVICE).unwrap()["licence_serial"], 7);

    lab.goes_on(&mut session);
    let latest = liar.shelve(&lab.licence(8, |_| {}));
    session.tell_licence(latest);
    let found = Order { licence_serial: 8, ..lab.order(&lost) };
    lab.runs(&mut session, &found, &lab.signed(&found));
}

#[test]
fn attack_old_crl_frees_nobody_whom_a_newer_one_revokes_also_after_kill_9() {
    let lab = Lab::new();
    let path = lab.place.path("orders.crl");
    lab.configure(&format!("crls = [{path:?}]"), "", "");
    let ca = authority(&lab.place, "orders");
    let mallory = issued(&ca, "mallory", Role::OrderSigner);
    let now = UnixTime::now();
    let day = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 86_400));
    let list =
        |number: u64, revoked: &[Revoked]| ca.crl(revoked, number, now, day).unwrap() + &ca.certificate_pem();
    let serial_hex = mallory.certificate().unwrap().serial_hex();
    write(&path, &list(5, &[Revoked { serial_hex, at: now }]));
    let liar = lab.liar();
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let refused = |session: &mut crate::liar::Session<'_>, what: &str| {
        let order = lab.order(&lab.honest);
        let told = lab.tried(session, &order, &sign_order(&order, &mallory));
        assert_eq!(told.1, Refusal::SignerRevoked, "{what}");
    };
    refused(&mut session, "number 5 lists the signer");

    write(&path, &list(3, &[]));
    wait_until("the older list to be looked at", || client.log().contains("wanted a newer one"));
    refused(&mut session, "number 3 came after number 5");
    client.kill();
    drop(session);
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    refused(&mut session, "number 3 is all that there is at a start");
    assert!(client.log().matches("wanted a newer one").count() > 1, "{}", client.log());

    lab.goes_on(&mut session);
    write(&path, &list(6, &[]));
    wait_until("the newer list to count", || {
        let order = lab.order(&lab.honest);
        session.deliver(&sign_order(&order, &mallory));
        session.result(instruction(&order)) == super::ANSWERED
    });
}
