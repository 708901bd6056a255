//! Single bits that are others, and ends that are missing: refused and told, and the client lives.

use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::order::v1::Order;
use muster_signing::envelope;

use super::{DEVICE, Lab, text};

/// Places in a document where a bit is flipped, or where it ends.
const PLACES: usize = 24;

#[test]
fn attack_flipped_bits_and_truncations_of_an_order_are_refused_and_the_client_lives() {
    let lab = Lab::new();
    let liar = lab.liar();
    let mut client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let order = lab.order(&lab.honest);
    let envelope = lab.signed(&order);

    let changed = changed(&envelope);
    for bytes in &changed {
        session.deliver(bytes);
    }
    lab.goes_on(&mut session);
    let told = session.until("what became of each", |told| {
        let results = told.results.iter().filter(|result| result.state() == TargetState::Refused).count();
        let events = told.events.iter().filter(|event| event.name == "order.unreadable").count();
        (results + events == changed.len()).then_some((results, events))
    });

    assert!(told.0 > 0 && told.1 > 0, "refused and unreadable: {told:?}");
    assert_eq!(lab.place.starts(), 1);
    assert!(client.runs());
    // The real one was not kept out by any of them.
    session.told.results.clear();
    lab.runs(&mut session, &order, &envelope);
}

#[test]
fn attack_flipped_bits_and_truncations_of_a_definition_are_refused_and_the_client_lives() {
    let lab = Lab::new();
    let liar = lab.liar();
    let mut client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let definition = lab.publish(&liar, &text("Acme-Test-Flipped", "1.0.0", ""));

    for (at, bytes) in changed(&definition).iter().enumerate() {
        // Under its own digest, which an operator who was deceived has signed, or under that of the whole.
        let is_named = at % 2 == 0;
        let digest = envelope::digest(if is_named { bytes } else { &definition });
        liar.serve(digest, bytes);
        let order = Order { definition_digest: digest.to_vec(), ..lab.order(&definition) };
        let told = lab.tried(&mut session, &order, &lab.signed(&order));
        // A bit in a certificate makes it another's.
        let codes: &[Refusal] = match is_named {
            true => &[Refusal::BadSignature, Refusal::UntrustedSigner],
            false => &[Refusal::WrongDefinition],
        };
        assert!(told.0 == TargetState::Refused && codes.contains(&told.1), "{at}: {told:?}");
    }

    assert!(client.runs());
    liar.shelve(&definition);
    let order = lab.order(&definition);
    lab.runs(&mut session, &order, &lab.signed(&order));
    lab.goes_on(&mut session);
}

#[test]
fn attack_flipped_bits_and_truncations_of_a_licence_leave_the_old_one_in_use() {
    let lab = Lab::new();
    let liar = lab.liar();
    let mut client = lab.start();
    let mut session = liar.accept(lab.welcome());
    lab.goes_on(&mut session);
    let licence = lab.licence(2, |_| {});

    for bytes in changed(&licence) {
        session.tell_licence(liar.shelve(&bytes));
        let digest = envelope::digest(&bytes);
        session
            .until("the request", |told| told.asked.iter().any(|(_, asked)| *asked == digest).then_some(()));
    }

    lab.goes_on(&mut session);
    assert!(client.runs());
    let serial = || lab.place.status(DEVICE).unwrap()["licence_serial"].clone();
    assert_eq!(serial(), 1);
    session.tell_licence(liar.shelve(&licence));
    let order = Order { licence_serial: 2, ..lab.order(&lab.honest) };
    lab.runs(&mut session, &order, &lab.signed(&order));
    assert_eq!(serial(), 2);
}

/// Copies of a document, each with one bit flipped or without an end, all over it.
fn changed(document: &[u8]) -> Vec<Vec<u8>> {
    let place = |at: usize| at * (document.len() - 1) / (PLACES - 1);
    let flipped = (0..PLACES).map(|at| {
        let mut bytes = document.to_vec();
        bytes[place(at)] ^= 1 << (at % 8);
        bytes
    });
    // Nothing at all is how a Switch says that it has no such document.
    let cut = (1..PLACES).map(|at| document[..place(at)].to_vec());
    flipped.chain(cut).collect()
}
