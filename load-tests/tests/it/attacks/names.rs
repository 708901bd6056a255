//! Names that look like a licensed one: the prefix is the first component, compared exactly, and names are ASCII.

use muster_pki::Role;
use muster_proto::common::v1::Refusal;
use muster_proto::common::v1::value::Kind;
use muster_proto::order::v1::Order;
use muster_signing::envelope;

use super::{Lab, definition, text};
use crate::support::orders::{authority, issued};

#[test]
fn attack_prefix_squatting_by_names_like_a_licensed_one_is_refused() {
    let lab = Lab::new();
    let liar = lab.liar();
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());

    for name in [
        "AcmeX-Test-One",
        "acme-Test-One",
        "ACME-Test-One",
        "Acm-Test-One",
        "Acme1-Test-One",
        "X-Acme-Test-One",
    ] {
        let definition = lab.publish(&liar, &text(name, "1.0.0", ""));
        lab.refused(&mut session, &lab.order(&definition), Refusal::Unlicensed, name);
    }
    // Names that are none, in the definition, under an order for what they look like.
    for name in [
        "\u{410}cme-Test-One",
        "Acme\u{2010}Test-One",
        "Acme\u{200b}-Test-One",
        "Acme -Test-One",
        "Acme_-Test-One",
        "\u{ff21}cme-Test-One",
    ] {
        let definition = lab.publish(&liar, &text(name, "1.0.0", ""));
        let order =
            Order { definition_digest: envelope::digest(&definition).to_vec(), ..lab.order(&lab.honest) };
        lab.refused(&mut session, &order, Refusal::Unsupported, name);
    }
    // And in the order, which then is none.
    let order = Order { definition_name: "\u{410}cme-Test-Honest".to_owned(), ..lab.order(&lab.honest) };
    session.deliver(&lab.signed(&order));
    let refusal = session.until("the event", |told| {
        let event = told.events.iter().find(|event| event.name == "order.unreadable")?;
        let field = event.fields.iter().find(|field| field.name == "refusal")?;
        match field.value.as_ref()?.kind.as_ref()? {
            Kind::Text(text) => Some(text.clone()),
            other @ (Kind::Integer(_) | Kind::Real(_) | Kind::Blob(_)) => panic!("{other:?}"),
        }
    });
    assert_eq!(refusal, "BAD_SIGNATURE");

    assert_eq!(lab.place.starts(), 0);
    lab.goes_on(&mut session);
}

#[test]
fn attack_prefix_squatting_by_another_author_is_refused_as_unlicensed() {
    let lab = Lab::new();
    let liar = lab.liar();
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let ca = authority(&lab.place, "authors");
    // As the licensed one is called.
    let subject = lab.publisher.certificate().unwrap().subject().to_owned();
    for name in ["somebody", subject.trim_start_matches("CN=")] {
        let author = issued(&ca, name, Role::Author);
        let squatted = definition(&author, &text("Acme-Test-Honest", "1.0.1", ""));
        liar.shelve(&squatted);

        lab.refused(&mut session, &lab.order(&squatted), Refusal::Unlicensed, name);
    }

    lab.goes_on(&mut session);
    // The licence is what they lack.
    let author = issued(&ca, "somebody", Role::Author);
    let thumbprint = author.certificate().unwrap().thumbprint();
    let licence =
        lab.licence(2, |terms| drop(terms.prefixes.insert("Other".to_owned(), [thumbprint].into())));
    session.tell_licence(liar.shelve(&licence));
    let own = definition(&author, &text("Other-Test-Own", "1.0.0", ""));
    liar.shelve(&own);
    let order = Order { licence_serial: 2, ..lab.order(&own) };
    lab.runs(&mut session, &order, &lab.signed(&order));
    let copied = definition(&author, &text("Acme-Test-Honest", "1.0.1", ""));
    liar.shelve(&copied);
    lab.refused(&mut session, &lab.order(&copied), Refusal::Unlicensed, "a copy under its own key");
}
