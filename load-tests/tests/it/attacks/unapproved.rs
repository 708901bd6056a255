//! Orders that lack the signatures that their author asks for.

use muster_pki::{Role, UnixTime};
use muster_proto::common::v1::{Refusal, TargetState};
use muster_signing::envelope::{self, Signer};

use super::{Lab, text};
use crate::support::orders::{authority, issued, stranger};

#[test]
fn attack_an_order_without_its_approvals_is_refused_and_runs_once_it_has_them() {
    let lab = Lab::new();
    let liar = lab.liar();
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let asking = text("Acme-Test-Asking", "1.0.0", "").replacen("says", "approvals = 1\nsays", 1);
    let asking = lab.publish(&liar, &asking);
    let order = lab.order(&asking);
    let alone = lab.signed(&order);
    let orders = authority(&lab.place, "orders");
    let with = |signer: &Signer| envelope::cosign(&alone, signer, UnixTime::now()).expect("an envelope");

    for (what, envelope, refusal) in [
        ("nobody's", alone.clone(), Refusal::Unapproved),
        (
            "the operator's own, by another certificate",
            with(&issued(&orders, "operator", Role::OrderSigner)),
            Refusal::Unapproved,
        ),
        ("a stranger's", with(&stranger(Role::OrderSigner)), Refusal::UntrustedSigner),
        ("the publisher's", with(&lab.publisher), Refusal::UntrustedSigner),
    ] {
        assert_eq!(lab.tried(&mut session, &order, &envelope), (TargetState::Refused, refusal), "{what}");
    }
    let bob = issued(&orders, "bob", Role::OrderSigner);
    lab.runs(&mut session, &order, &with(&bob));

    // Also not by what a client remembers of the definition, once it was started again.
    client.kill();
    drop(session);
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let order = lab.order(&asking);
    let alone = lab.signed(&order);
    let told = lab.tried(&mut session, &order, &alone);
    assert_eq!(told, (TargetState::Refused, Refusal::Unapproved));
    let approved = envelope::cosign(&alone, &bob, UnixTime::now()).expect("an envelope");
    lab.runs(&mut session, &order, &approved);
}
