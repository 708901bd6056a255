//! Preparing and submitting.

use muster_pki::Role;
use muster_proto::common::v1::TargetState;
use muster_proto::frame;
use muster_proto::order::v1::Order;
use muster_proto::session::v1::frame::Body;
use muster_signing::envelope::ContentType;
use muster_signing::merkle;
use prost::Message;

use super::world::*;
use crate::engine::{EngineError, Prepare, ShardMessage};

#[tokio::test]
async fn an_instruction_goes_from_prepare_to_its_answers() {
    let mut world = World::new().await;
    let (first, second) = (world.connect("w1.acme.local").await, world.connect("w2.acme.local").await);

    let prepared = world.prepare("os == \"linux\"").await.unwrap();
    let envelope = world.orders.sign(&prepared.order, ContentType::Order, world.now_ms());
    let id = world.engine.submit(envelope.clone(), "key".to_owned(), OPERATOR).await.unwrap();

    assert_eq!((prepared.targets, prepared.online), (2, 2));
    assert_eq!(
        prepared.sample.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["w1.acme.local", "w2.acme.local"]
    );
    let order = world.next(order_message).await;
    assert_eq!(order.envelope, envelope);
    assert_eq!(order.targets, [first.connected.number, second.connected.number]);
    let audience = Order::decode(&prepared.order[..]).unwrap().audience.unwrap();
    let root: [u8; 32] = audience.members_root.try_into().unwrap();
    let proof = order.proofs.proof(second.connected.number).unwrap();
    assert!(merkle::verify(&"w2.acme.local".parse().unwrap(), &proof, &root, audience.members_count));

    world.answer(&first, id, 1).await;
    world.answer(&second, id, 1).await;
    let shown = world.until(id, |instruction| instruction.complete).await;
    assert_eq!(counts(&shown), [(TargetState::Answered, 2)]);
    assert_eq!(shown.targets, 2);
    assert_eq!(world.engine.reader().results(id, &Default::default(), 10).unwrap().items.len(), 2);
}

#[tokio::test]
async fn the_same_key_and_envelope_twice_make_one_instruction() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let prepared = world.prepare("").await.unwrap();
    let envelope = world.orders.sign(&prepared.order, ContentType::Order, world.now_ms());

    let first = world.engine.submit(envelope.clone(), "key".to_owned(), OPERATOR).await.unwrap();
    let again = world.engine.submit(envelope.clone(), "key".to_owned(), OPERATOR).await.unwrap();
    let other_key = world.engine.submit(envelope.clone(), "other".to_owned(), OPERATOR).await;
    let world = world.restart(|_| ());
    let after_restart = world.engine.submit(envelope, "key".to_owned(), OPERATOR).await.unwrap();

    assert_eq!((first, first), (again, after_restart));
    assert!(
        matches!(other_key, Err(EngineError::InvalidArgument(_))),
        "prepared again, it would run twice: {other_key:?}"
    );
    assert_eq!(world.engine.reader().instructions(&Default::default(), 10).unwrap().items.len(), 1);
}

#[tokio::test]
async fn an_instruction_shows_who_asked_and_whose_key_signed() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;

    let id = world.issue("").await;

    let shown = world.restart(|_| ()).engine.reader().instruction(id).unwrap();
    assert_eq!(shown.operator, OPERATOR);
    assert!(shown.signer.contains("signer.acme.local"), "{}", shown.signer);
    assert_eq!(shown.signer_thumbprint.len(), 64);
}

#[tokio::test]
async fn refuses_an_order_that_its_operator_did_not_sign_as_prepared() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let prepared = world.prepare("").await.unwrap();
    let mut changed = Order::decode(&prepared.order[..]).unwrap();
    changed.expires_at_ms += 1;
    let changed = world.orders.sign(&changed.encode_to_vec(), ContentType::Order, world.now_ms());
    let envelope = world.orders.sign(&prepared.order, ContentType::Order, world.now_ms());
    let stranger = Party::new(Role::OrderSigner).sign(&prepared.order, ContentType::Order, world.now_ms());
    let as_definition = world.orders.sign(&prepared.order, ContentType::Definition, world.now_ms());

    let submit = |envelope, operator| world.engine.submit(envelope, "key".to_owned(), operator);

    assert!(matches!(submit(changed, OPERATOR).await, Err(EngineError::InvalidArgument(_))));
    assert!(matches!(submit(stranger, OPERATOR).await, Err(EngineError::PermissionDenied(_))));
    assert!(matches!(submit(as_definition, OPERATOR).await, Err(EngineError::PermissionDenied(_))));
    assert!(matches!(
        submit(envelope.clone(), "eve.acme.local").await,
        Err(EngineError::PermissionDenied(_))
    ));
    submit(envelope, OPERATOR).await.unwrap();
}

#[tokio::test]
async fn a_prepared_order_is_forgotten_after_its_time() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let prepared = world.prepare("").await.unwrap();
    let envelope = world.orders.sign(&prepared.order, ContentType::Order, world.now_ms());

    world.advance(std::time::Duration::from_secs(601));
    let late = world.engine.submit(envelope, "key".to_owned(), OPERATOR).await;

    let Err(EngineError::NotPrepared(text)) = late else { panic!("{late:?}") };
    assert!(text.contains("prepare it again"), "{text}");
}

#[tokio::test]
async fn arguments_are_checked_and_only_those_given_are_in_the_order() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let prepare = |days| Prepare {
        definition: DEFINITION.to_owned(),
        arguments: vec![integer("days", days)],
        operator: OPERATOR.to_owned(),
        ..Prepare::default()
    };

    let given = world.engine.prepare(prepare(7), admitted).await.unwrap();
    let left_out = world.prepare("").await.unwrap();
    let beyond = world.engine.prepare(prepare(1_000), admitted).await;

    assert_eq!(Order::decode(&given.order[..]).unwrap().arguments, [integer("days", 7)]);
    assert_eq!(Order::decode(&left_out.order[..]).unwrap().arguments, []);
    assert!(matches!(beyond, Err(EngineError::InvalidArgument(_))), "{beyond:?}");
}

#[tokio::test]
async fn without_disk_new_instructions_are_refused_but_results_go_in() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    let mut world_full = world.with_disk_reserve(u64::MAX / 2);

    let session = Session { ..world_full.connect(&name(&session)).await };
    let refused = world_full.prepare("").await;
    let import = world_full.engine.import_definition(world_full.definition("2.0.0")).await;
    world_full.answer(&session, id, 1).await;
    world = world_full;

    let Err(EngineError::ResourceExhausted(text)) = refused else { panic!("{refused:?}") };
    assert!(text.contains("bytes free") && text.contains("disk_reserve"), "{text}");
    assert!(matches!(import, Err(EngineError::ResourceExhausted(_))), "{import:?}");
    world.until_state(id, TargetState::Answered).await;
}

#[tokio::test]
async fn a_full_mailbox_gets_its_order_later() {
    let mut world = World::empty(Party::new(Role::Author), 1);
    world.engine.import_licence(world.licence(1)).await.unwrap();
    world.engine.import_definition(world.definition("1.0.0")).await.unwrap();
    let session = world.connect("w1.acme.local").await;

    let (first, second) = (world.issue("").await, world.issue("").await);

    let mut seen =
        vec![world.next(order_message).await.instruction, world.next(order_message).await.instruction];
    seen.sort();
    assert_eq!(seen, [first.min(second), first.max(second)]);
    world.engine.sent(first, [session.connected.number].into()).await.unwrap();
    world.until_state(first, TargetState::Sent).await;
}

#[tokio::test]
async fn a_connected_target_that_stays_queued_gets_the_order_again() {
    let mut world = World::new().await;
    world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    assert_eq!(world.next(order_message).await.instruction, id);

    world.advance(std::time::Duration::from_secs(2));

    assert_eq!(world.next(order_message).await.instruction, id);
}

#[tokio::test]
async fn an_order_is_sent_again_after_ever_longer_so_that_a_large_one_is_not_late_by_its_repetitions() {
    let mut world = World::new().await;
    world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    assert_eq!(world.next(order_message).await.instruction, id);

    let mut times = 0;
    for _ in 0..60 {
        world.advance(std::time::Duration::from_secs(1));
        // The engine looks at the clock between two commands.
        world.connect("w2.acme.local").await;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        while let Ok(message) = world.shard.try_recv() {
            times += usize::from(order_message(message).is_some_and(|seen| seen.instruction == id));
        }
    }

    assert!((4..=6).contains(&times), "{times} times in a minute");
}

struct OrderSeen {
    instruction: muster_proto::ids::InstructionId,
    envelope: Vec<u8>,
    targets: Vec<u32>,
    proofs: std::sync::Arc<crate::engine::Proofs>,
}

fn order_message(message: ShardMessage) -> Option<OrderSeen> {
    let ShardMessage::Order { instruction, frame, targets, proofs, urgency: _ } = message else {
        return None;
    };
    let Some(Body::Order(delivery)) = frame::decode(&frame).unwrap().body else { panic!("wanted an order") };
    let (envelope, targets) = (delivery.envelope.to_vec(), targets.iter().collect());
    Some(OrderSeen { instruction, envelope, targets, proofs: proofs.unwrap() })
}

fn name(_session: &Session) -> String {
    "w1.acme.local".to_owned()
}

#[tokio::test]
async fn an_operator_who_prepares_many_orders_forgets_his_own_and_nobody_elses() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let (bens, first) = (by("ben.acme.local"), by(OPERATOR));
    world.engine.prepare(bens.clone(), admitted).await.unwrap();
    let first = world.engine.prepare(first, admitted).await.unwrap();
    // Of one millisecond's ids none is the older one.
    world.advance(std::time::Duration::from_millis(1));
    let annas = world.prepare("").await.unwrap();

    for _ in 0..100 {
        world.engine.prepare(bens.clone(), admitted).await.unwrap();
    }
    world.submit(&annas).await;
    for _ in 0..100 {
        world.prepare("").await.unwrap();
    }

    let envelope = world.orders.sign(&first.order, ContentType::Order, world.now_ms());
    let forgotten = world.engine.submit(envelope, "key".to_owned(), OPERATOR).await;
    assert!(matches!(forgotten, Err(EngineError::NotPrepared(_))), "{forgotten:?}");
}

#[tokio::test]
async fn an_order_that_its_operator_may_not_sign_for_takes_no_room() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let kept = world.prepare("").await.unwrap();
    // Of one millisecond's ids none is the older one.
    world.advance(std::time::Duration::from_millis(1));

    for _ in 0..100 {
        let denied = |_| Err(EngineError::PermissionDenied("not this kind".to_owned()));
        assert!(world.engine.prepare(by(OPERATOR), denied).await.is_err());
    }

    world.submit(&kept).await;
}

fn by(operator: &str) -> Prepare {
    Prepare { definition: DEFINITION.to_owned(), operator: operator.to_owned(), ..Prepare::default() }
}
