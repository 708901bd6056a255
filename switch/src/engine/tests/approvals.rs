//! Approvals: to whom an order goes that lacks some, and who may give them.

use std::time::Duration;

use muster_proto::common::v1::TargetState;
use muster_proto::frame;
use muster_proto::ids::InstructionId;
use muster_proto::operator::v1::Instruction;
use muster_proto::order::v1::Order;
use muster_proto::session::v1::frame::Body;
use muster_signing::envelope::{self, ContentType, Signer};
use muster_signing::order;
use prost::Message as _;

use super::damage::flip;
use super::world::*;
use crate::engine::{EngineError, PrepareStop, ShardMessage, Urgency};

const DEVICE: &str = "w1.acme.local";

#[tokio::test]
async fn an_order_goes_out_with_the_last_approval_and_to_nobody_before() {
    let mut world = asking_for_two().await;
    let session = world.connect(DEVICE).await;
    let id = world.issue("").await;
    let shown = of(&world, id);
    assert_eq!((shown.approvals_wanted, shown.approvals_missing), (2, 2));

    approve(&world, id, "ben").await.unwrap();

    let shown = of(&world, id);
    assert_eq!((shown.approvals_missing, counts(&shown)), (1, vec![(TargetState::Queued, 1)]));
    world.advance(Duration::from_secs(30));
    let session = world.connect_after(DEVICE, session.connected.epoch.0).await;
    assert!(session.connected.due.is_empty(), "also not to who connects now");

    approve(&world, id, "carol").await.unwrap();

    let (signers, targets) = world.next(order_message).await;
    assert_eq!((signers, targets), (3, vec![session.connected.number]), "and nothing was sent before");
    let shown = of(&world, id);
    let given: Vec<_> =
        shown.approvals.iter().map(|given| (&given.operator[..], &given.signer[..])).collect();
    assert_eq!(given, [("ben", "CN=ben"), ("carol", "CN=carol")]);
    assert_eq!(shown.approvals_missing, 0);
    world.answer(&session, id, 1).await;
    assert_eq!(
        approve(&world, id, "dave").await,
        Err(EngineError::FailedPrecondition(format!(
            "instruction {id} has ended, or is not known here; there is nothing to approve"
        )))
    );
}

#[tokio::test]
async fn a_switch_that_is_killed_forgets_no_approval() {
    let world = asking_for_two().await;
    leave(&world).await;
    let id = world.issue("").await;
    approve(&world, id, "ben").await.unwrap();

    let world = world.killed();
    assert_eq!(of(&world, id).approvals_missing, 1);
    assert!(world.connect(DEVICE).await.connected.due.is_empty());
    approve(&world, id, "carol").await.unwrap();
    let world = world.killed();

    let due = world.connect(DEVICE).await.connected.due;
    assert_eq!(due.iter().map(|due| signers_in(&due.frame.clone().into_bytes())).collect::<Vec<_>>(), [3]);
}

#[tokio::test]
async fn one_person_counts_once_whatever_they_call_themselves() {
    let world = asking_for_two().await;
    world.connect(DEVICE).await;
    let id = world.issue("").await;
    let envelope = envelope_of(&world, id);
    let denied = async |signer: &Signer, operator: &str| {
        let signed = envelope::cosign(&envelope, signer, now(&world)).unwrap();
        world.engine.approve(signed, operator).await.unwrap_err()
    };

    let by_issuer = denied(&world.orders.signer("ben"), OPERATOR).await;
    let by_issuers_name = denied(&world.orders.signer("signer.acme.local"), "ben").await;
    let by_stranger = denied(&Party::new(muster_pki::Role::OrderSigner).signer("ben"), "ben").await;
    for refused in [by_issuer, by_issuers_name, by_stranger] {
        assert!(matches!(refused, EngineError::PermissionDenied(_)), "{refused:?}");
    }

    approve(&world, id, "ben").await.unwrap();
    let envelope = envelope_of(&world, id);
    for (signer, operator) in [("carol", "ben"), ("ben", "carol")] {
        let signed = envelope::cosign(&envelope, &world.orders.signer(signer), now(&world)).unwrap();
        let refused = world.engine.approve(signed, operator).await.unwrap_err();
        assert!(matches!(refused, EngineError::PermissionDenied(_)), "{signer} by {operator}: {refused:?}");
    }
    assert_eq!(of(&world, id).approvals_missing, 1);
    let again = world.engine.approve(envelope.clone(), "ben").await;
    assert_eq!(again, Ok(id), "the same again changes nothing");
    approve_only(&world, &envelope, "carol").await;
    let again = world.engine.approve(envelope, "ben").await;
    assert_eq!(again, Ok(id), "also not behind another's");
    assert_eq!(of(&world, id).approvals.len(), 2);
}

async fn approve_only(world: &World, envelope: &[u8], name: &str) {
    let signed = envelope::cosign(envelope, &world.orders.signer(name), now(world)).unwrap();
    world.engine.approve(signed, name).await.unwrap();
}

#[tokio::test]
async fn an_approval_of_what_another_approval_changed_is_to_be_given_again() {
    let world = asking_for_two().await;
    world.connect(DEVICE).await;
    let id = world.issue("").await;
    let before = envelope_of(&world, id);
    approve(&world, id, "ben").await.unwrap();

    let late = envelope::cosign(&before, &world.orders.signer("carol"), now(&world)).unwrap();
    let refused = world.engine.approve(late, "carol").await.unwrap_err();

    assert!(matches!(refused, EngineError::NotPrepared(_)), "{refused:?}");
    approve(&world, id, "carol").await.unwrap();
}

#[tokio::test]
async fn an_approval_is_of_the_very_bytes_of_an_instruction_that_still_waits_for_it() {
    let world = asking_for_two().await;
    world.connect(DEVICE).await;
    let id = world.issue("").await;
    let mut other = Order::decode(&envelope::inspect(&envelope_of(&world, id)).unwrap().content[..]).unwrap();
    other.sequence += 1;
    let signed = world.orders.sign(&order::encode(&other), ContentType::Order, world.now_ms());
    let signed = envelope::cosign(&signed, &world.orders.signer("ben"), now(&world)).unwrap();
    let refused = world.engine.approve(signed, "ben").await.unwrap_err();
    assert!(matches!(refused, EngineError::InvalidArgument(_)), "{refused:?}");

    // Its prefix is licensed to nobody any more: it is over, also when the licence comes back.
    let lost = world.issue("").await;
    world.engine.import_licence(world.licence_for(2, "Other")).await.unwrap();
    world.engine.import_licence(world.licence(3)).await.unwrap();
    assert_eq!(counts(&of(&world, lost)), [(TargetState::Refused, 1)]);
    let refused = approve(&world, lost, "ben").await.unwrap_err();
    assert!(matches!(&refused, EngineError::FailedPrecondition(_)), "{refused:?}");
    let id = world.issue("").await;

    let prepare = PrepareStop { instruction: id, reason: String::new(), operator: OPERATOR.to_owned() };
    let stop = world.engine.prepare_stop(prepare).await.unwrap().unwrap();
    let stop = world.orders.sign(&stop, ContentType::Order, world.now_ms());
    world.engine.submit_stop(stop, OPERATOR).await.unwrap();
    assert_eq!(counts(&of(&world, id)), [(TargetState::Cancelled, 1)], "nobody ever had it");
    let refused = world.engine.approve(envelope_of(&world, id), "ben").await.unwrap_err();
    assert!(matches!(refused, EngineError::FailedPrecondition(_)), "{refused:?}");
}

#[tokio::test]
async fn g8_nothing_is_approved_whose_author_was_revoked_since_it_was_submitted() {
    let world = asking_for_two().await;
    world.connect(DEVICE).await;
    let id = world.issue("").await;

    let crl = world.author.revoked(world.now_ms());
    world.believe(|trust| trust.revocation = Some(crl));
    let refused = approve(&world, id, "ben").await.unwrap_err();
    world.believe(|_| ());

    assert!(refused.to_string().contains("SIGNER_REVOKED"), "{refused:?}");
    approve(&world, id, "ben").await.unwrap();
}

#[tokio::test]
async fn an_instruction_without_its_approvals_ends_with_its_window() {
    let world = asking_for_two().await;
    world.connect(DEVICE).await;
    let id = world.issue("").await;

    world.advance(Duration::from_secs(3_601));

    world.until_state(id, TargetState::Expired).await;
}

#[tokio::test]
async fn what_is_submitted_with_all_signatures_goes_out_at_once() {
    let mut world = asking_for_two().await;
    world.connect(DEVICE).await;
    let prepared = world.prepare("").await.unwrap();
    let mut signed = world.orders.sign(&prepared.order, ContentType::Order, world.now_ms());
    for name in ["ben", "carol"] {
        signed = envelope::cosign(&signed, &world.orders.signer(name), now(&world)).unwrap();
    }

    let id = world.engine.submit(signed, "key".to_owned(), OPERATOR).await.unwrap();

    assert_eq!(world.next(order_message).await.0, 3);
    let shown = of(&world, id);
    assert_eq!(shown.approvals_missing, 0);
    let came = shown.approvals.iter().map(|given| given.signer.as_str());
    let mut came: Vec<_> = came.chain([shown.signer.as_str()]).collect();
    came.sort_unstable();
    assert_eq!(came, ["CN=ben", "CN=carol", "CN=signer.acme.local"], "all of them are told");
}

#[tokio::test]
async fn a_damaged_record_of_approvals_is_told_and_they_can_be_given_again() {
    let world = asking_for_two().await;
    leave(&world).await;
    let id = world.issue("").await;
    approve(&world, id, "ben").await.unwrap();
    approve(&world, id, "carol").await.unwrap();

    let world = world.restart(|store| flip(store, "approvals", "true"));

    assert!(world.connect(DEVICE).await.connected.due.is_empty());
    assert_eq!(of(&world, id).approvals_missing, 2);
    for name in ["ben", "carol"] {
        approve(&world, id, name).await.unwrap();
    }
    assert_eq!(world.connect(DEVICE).await.connected.due.len(), 1);
}

#[tokio::test]
async fn a_damaged_record_of_approvals_of_what_a_device_has_sets_the_instruction_aside() {
    let world = asking_for_two().await;
    let session = world.connect(DEVICE).await;
    let id = world.issue("").await;
    for name in ["ben", "carol"] {
        approve(&world, id, name).await.unwrap();
    }
    world.engine.progress(id, TargetState::Acked, [session.connected.number].into()).await.unwrap();
    world.until_state(id, TargetState::Acked).await;

    let world = world.restart(|store| flip(store, "approvals", "true"));

    let shown = world.engine.reader().instruction(id);
    assert!(matches!(&shown, Err(EngineError::Damaged(why)) if why.contains("approvals")), "{shown:?}");
    assert!(world.connect(DEVICE).await.connected.due.is_empty());
}

/// A world whose definition asks for two approvals.
async fn asking_for_two() -> World {
    let world = World::new().await;
    let text = definition_text("1.1.0", "SELECT 1 AS one").replacen("says", "approvals = 2\nsays", 1);
    let signed = world.author.sign(text.as_bytes(), ContentType::Definition, world.now_ms());
    world.engine.import_definition(signed).await.unwrap();
    world
}

async fn leave(world: &World) {
    let session = world.connect(DEVICE).await;
    world.engine.disconnected(session.connected.number, session.connected.epoch).await.unwrap();
}

fn of(world: &World, id: InstructionId) -> Instruction {
    world.engine.reader().instruction(id).unwrap()
}

/// Its order with all signatures that it has.
fn envelope_of(world: &World, id: InstructionId) -> Vec<u8> {
    world.engine.reader().to_approve(id).unwrap().2.into()
}

fn now(world: &World) -> muster_pki::UnixTime {
    muster_pki::UnixTime::since_unix_epoch(Duration::from_millis(world.now_ms().unsigned_abs()))
}

/// As an operator of that name does.
async fn approve(world: &World, id: InstructionId, name: &str) -> Result<InstructionId, EngineError> {
    let envelope = envelope_of(world, id);
    if envelope.is_empty() {
        let order = world.prepare("").await.unwrap().order;
        let mut order = Order::decode(&order[..]).unwrap();
        order.instruction = id.to_vec();
        let signed = world.orders.sign(&order::encode(&order), ContentType::Order, world.now_ms());
        return world.engine.approve(signed, name).await;
    }
    let signed = envelope::cosign(&envelope, &world.orders.signer(name), now(world)).unwrap();
    world.engine.approve(signed, name).await
}

/// How many signed the order that is sent, and whom it is for.
fn order_message(message: ShardMessage) -> Option<(usize, Vec<u32>)> {
    let ShardMessage::Order { frame, targets, urgency: Urgency::Order, .. } = message else { return None };
    Some((signers_in(&frame), targets.iter().collect()))
}

fn signers_in(bytes: &[u8]) -> usize {
    let Some(Body::Order(delivery)) = frame::decode(bytes).unwrap().body else { panic!("wanted an order") };
    envelope::inspect(&delivery.envelope).unwrap().signers.len()
}
