//! An order that was for somebody, once.

use muster_pki::DeviceId;
use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::ids::InstructionId;
use muster_proto::order::v1::{Audience, Order};
use muster_signing::merkle::Tree;

use super::malleable::with_other_signature;
use super::{DEVICE, Lab, instruction};
use crate::liar::Session;

const OTHER: &str = "web2.example.org";

#[test]
fn attack_replay_to_the_same_device_runs_nothing_a_second_time_also_after_kill_9() {
    let lab = Lab::new();
    let liar = lab.liar();
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let order = lab.order(&lab.honest);
    let envelope = lab.signed(&order);
    lab.runs(&mut session, &order, &envelope);
    let of = instruction(&order);

    // The same bytes are acked once more, and no more than that; others of the same order are a replay.
    session.deliver(&envelope);
    session.deliver(&with_other_signature(&envelope));
    wait_replayed(&mut session, of, 1);
    session.deliver(&lab.signed(&order));
    wait_replayed(&mut session, of, 2);
    let acked =
        session.told.progress.iter().filter(|(one, state)| *one == of && *state == TargetState::Acked);
    assert_eq!(acked.count(), 2, "{:?}", session.told.progress);

    client.kill();
    drop(session);
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    session.deliver(&envelope);
    // What was told comes again, since nothing was acked.
    session.deliver(&lab.signed(&order));
    wait_replayed(&mut session, of, 3);
    session.deliver(&lab.signed(&Order { expires_at_ms: order.expires_at_ms + 1, ..order.clone() }));
    wait_replayed(&mut session, of, 4);

    assert_eq!(lab.place.starts(), 1);
    lab.goes_on(&mut session);
}

#[test]
fn attack_replay_to_the_same_device_of_an_order_that_was_refused_runs_nothing() {
    let lab = Lab::new();
    let liar = lab.liar();
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let early = Order {
        not_before_ms: crate::liar::now_ms() + 5_000,
        expires_at_ms: crate::liar::now_ms() + 600_000,
        ..lab.order(&lab.honest)
    };
    let envelope = lab.signed(&early);
    assert_eq!(lab.tried(&mut session, &early, &envelope), (TargetState::Refused, Refusal::NotYetValid));
    client.kill();
    drop(session);

    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    crate::support::wait_until("its window to begin", || crate::liar::now_ms() > early.not_before_ms);
    session.deliver(&envelope);

    lab.goes_on(&mut session);
    assert_eq!(lab.place.starts(), 1, "its operator was told that it was refused");
}

#[test]
fn attack_replay_to_another_device_is_refused_by_its_audience() {
    let lab = Lab::new();
    let liar = lab.liar();
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let others = Tree::new(&[device(OTHER)]);
    let for_others = |lab: &Lab| under(&others, lab.order(&lab.honest));

    for proof in [None, others.proof(0)] {
        let order = for_others(&lab);
        session.deliver_with(&lab.signed(&order), proof);
        assert_eq!(session.result(instruction(&order)), (TargetState::Refused, Refusal::WrongAudience));
    }
    // A proof that is right for another order.
    let both = Tree::new(&[device(DEVICE), device(OTHER)]);
    let order = for_others(&lab);
    session.deliver_with(&lab.signed(&order), both.proof(0));
    assert_eq!(session.result(instruction(&order)), (TargetState::Refused, Refusal::WrongAudience));
    // Another's proof under the right root.
    let order = under(&both, lab.order(&lab.honest));
    session.deliver_with(&lab.signed(&order), both.proof(1));
    assert_eq!(session.result(instruction(&order)), (TargetState::Refused, Refusal::WrongAudience));
    let expression = Audience { expression: format!("device == {OTHER:?}"), ..Audience::default() };
    let order = Order { audience: Some(expression), ..lab.order(&lab.honest) };
    lab.refused(&mut session, &order, Refusal::WrongAudience, "an expression for another device");
    assert_eq!(lab.place.starts(), 0);

    let order = under(&both, lab.order(&lab.honest));
    session.deliver_with(&lab.signed(&order), both.proof(0));
    assert_eq!(session.result(instruction(&order)), super::ANSWERED);
    let expression = Audience { expression: format!("device == {DEVICE:?}"), ..Audience::default() };
    let order = Order { audience: Some(expression), ..lab.order(&lab.honest) };
    lab.runs(&mut session, &order, &lab.signed(&order));
}

#[test]
fn attack_replay_to_another_tenant_is_refused_as_that() {
    let lab = Lab::new();
    let liar = lab.liar();
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());

    let order = Order { tenant: "elsewhere".to_owned(), ..lab.order(&lab.honest) };
    lab.refused(&mut session, &order, Refusal::WrongTenant, "the order of another organisation");
    let elsewhere = lab.licence(9, |terms| "elsewhere".clone_into(&mut terms.tenant));
    session.tell_licence(liar.shelve(&elsewhere));
    // It was sent before the answer to the first of these came, and judged before the second.
    lab.goes_on(&mut session);
    lab.goes_on(&mut session);

    assert_eq!(lab.place.status(DEVICE).unwrap()["licence_serial"], 1, "another organisation's licence");
}

fn device(name: &str) -> DeviceId {
    name.parse().unwrap()
}

/// The order for those of the tree and nobody else.
fn under(tree: &Tree, order: Order) -> Order {
    let members = Audience {
        members_root: tree.root().to_vec(),
        members_count: tree.len() as u64,
        ..Audience::default()
    };
    Order { audience: Some(members), ..order }
}

/// Waits until so many envelopes of an instruction were told to be replays.
#[track_caller]
fn wait_replayed(session: &mut Session<'_>, of: InstructionId, wanted: usize) {
    session.until("the replays to be told", |told| {
        let of = told.results.iter().filter(|result| result.instruction == of.to_vec());
        (of.filter(|result| result.refusal() == Refusal::Replayed).count() == wanted).then_some(())
    });
}
