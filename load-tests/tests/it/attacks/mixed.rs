//! Parts that are good each for itself, and do not belong together.

use muster_proto::common::v1::Refusal;
use muster_proto::order::v1::Order;
use muster_proto::session::v1::DocumentKind;
use muster_signing::envelope;

use super::{Lab, text};
use crate::liar::Welcome;

#[test]
fn attack_mix_and_match_of_orders_and_definitions_is_refused_as_the_wrong_definition() {
    let lab = Lab::new();
    let liar = lab.liar();
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let other = lab.publish(&liar, &text("Acme-Test-Other", "1.0.0", ""));
    let digest = envelope::digest(&other);

    // Another definition than the order names.
    let wanted = lab.publish(&liar, &text("Acme-Test-Wanted", "1.0.0", ""));
    liar.serve(envelope::digest(&wanted), &other);
    lab.refused(&mut session, &lab.order(&wanted), Refusal::WrongDefinition, "other bytes");
    liar.serve(envelope::digest(&wanted), &[]);
    lab.refused(&mut session, &lab.order(&wanted), Refusal::WrongDefinition, "none");
    session.push(DocumentKind::Definition, envelope::digest(&wanted), &other);
    // A digest under another's name, or another version.
    let renamed = Order { definition_digest: digest.to_vec(), ..lab.order(&lab.honest) };
    lab.refused(&mut session, &renamed, Refusal::WrongDefinition, "the digest of another");
    let dated = Order { definition_version: "1.0.1".to_owned(), ..lab.order(&other) };
    lab.refused(&mut session, &dated, Refusal::WrongDefinition, "another version");
    // A licence in place of a definition.
    let licence = envelope::digest(&lab.licence);
    let swapped = Order { definition_digest: licence.to_vec(), ..lab.order(&other) };
    lab.refused(&mut session, &swapped, Refusal::BadSignature, "a licence as the definition");

    liar.shelve(&wanted);
    for definition in [&wanted, &other] {
        let order = lab.order(definition);
        lab.runs(&mut session, &order, &lab.signed(&order));
    }
    lab.goes_on(&mut session);
}

#[test]
fn attack_mix_and_match_with_an_older_licence_than_the_order_names_is_refused_as_stale() {
    let lab = Lab::new();
    let liar = lab.liar();
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    lab.goes_on(&mut session);
    let later = |lab: &Lab| Order { licence_serial: 2, ..lab.order(&lab.honest) };

    lab.refused(&mut session, &later(&lab), Refusal::LicenceStale, "the device holds licence 1");
    // Told of, and not given: the licence as a definition, and something else as the licence.
    let newer = lab.licence(2, |_| {});
    let digest = envelope::digest(&newer);
    liar.serve(digest, &lab.honest);
    session.tell_licence(digest);
    lab.refused(&mut session, &later(&lab), Refusal::LicenceStale, "the licence was kept away");

    liar.shelve(&newer);
    session.tell_licence(digest);
    let order = later(&lab);
    lab.runs(&mut session, &order, &lab.signed(&order));
    lab.goes_on(&mut session);
}

#[test]
fn attack_mix_and_match_without_any_licence_is_refused_as_unlicensed() {
    let lab = Lab::new();
    let liar = lab.liar();
    let _client = lab.start();
    let mut session = liar.accept(Welcome::default());

    lab.refused(&mut session, &lab.order(&lab.honest), Refusal::Unlicensed, "no licence was told of");

    session.tell_licence(envelope::digest(&lab.licence));
    lab.goes_on(&mut session);
}
