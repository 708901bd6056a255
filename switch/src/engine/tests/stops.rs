//! Stops: whom they reach, when, and what becomes of the targets.

use std::time::Duration;

use muster_pki::Role;
use muster_proto::common::v1::TargetState;
use muster_proto::frame;
use muster_proto::ids::InstructionId;
use muster_proto::order::v1::Order;
use muster_proto::session::v1::frame::Body;
use muster_signing::envelope::{self, ContentType};
use muster_signing::order;
use prost::Message;
use roaring::RoaringBitmap;

use super::damage::{flip, warnings};
use super::world::*;
use crate::engine::{DueOrder, EngineError, PrepareStop, ShardMessage, Urgency};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_stop_cancels_what_was_not_sent_reaches_what_was_and_leaves_what_has_answered() {
    let mut world = World::new().await;
    let running = world.connect("w1.acme.local").await;
    let done = world.connect("w2.acme.local").await;
    leave(&world, &world.connect("w3.acme.local").await).await;
    let id = world.issue("").await;
    run(&world, &running, id).await;
    world.answer(&done, id, 1).await;

    let stop = stop(&world, id).await;

    let shown = world.engine.reader().instruction(id).unwrap();
    let expected = [(TargetState::Running, 1), (TargetState::Answered, 1), (TargetState::Cancelled, 1)];
    assert_eq!(counts(&shown), expected, "it is so when the stop is acked");
    let sent = world.next(stop_message).await;
    assert_eq!((sent.envelope, sent.targets), (stop, vec![running.connected.number]));

    world.tell_result(&running, result(id, 2, TargetState::Cancelled)).await;
    let shown = world.until(id, |instruction| instruction.complete).await;
    assert_eq!(counts(&shown), [(TargetState::Answered, 1), (TargetState::Cancelled, 2)]);
}

#[tokio::test]
async fn who_comes_back_gets_the_stop_before_all_else_and_never_the_stopped_order() {
    let world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    leave(&world, &session).await;
    let (stopped, other) = (world.issue("").await, world.issue("").await);
    let stop = stop(&world, stopped).await;

    // Whatever the Switch forgets when it is killed, this is not among it.
    let world = world.killed();
    let back = world.connect("w1.acme.local").await;

    let due: Vec<_> = back.connected.due.iter().map(|due| (due.urgency, due.instruction)).collect();
    assert_eq!(due.len(), 2, "{due:?}");
    assert_eq!((due[0].0, due[1]), (Urgency::Stop, (Urgency::Order, other)));
    assert_eq!(envelope_of(&back.connected.due[0]), stop);
}

#[tokio::test]
async fn a_device_that_has_answered_gets_the_stop_no_more() {
    let world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    leave(&world, &session).await;
    let id = world.issue("").await;
    stop(&world, id).await;

    let back = world.connect("w1.acme.local").await;
    assert_eq!(back.connected.due.len(), 1, "its order may have reached it all the same");
    world.tell_result(&back, result(id, 1, TargetState::Cancelled)).await;

    let again = world.connect("w1.acme.local").await;
    assert!(again.connected.due.is_empty());
    let world = world.restart(|_| ());
    assert!(world.connect("w1.acme.local").await.connected.due.is_empty(), "also not after a restart");
    let reader = world.engine.reader();
    assert_eq!(counts(&reader.instruction(id).unwrap()), [(TargetState::Cancelled, 1)]);
}

#[tokio::test]
async fn a_stop_comes_until_the_window_of_its_order_is_over() {
    let world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    leave(&world, &session).await;
    let id = world.issue("").await;
    stop(&world, id).await;

    world.advance(HOUR - Duration::from_secs(1));
    assert_eq!(world.connect("w1.acme.local").await.connected.due.len(), 1);
    world.advance(HOUR);

    assert!(world.connect("w1.acme.local").await.connected.due.is_empty());
}

#[tokio::test]
async fn what_was_written_and_may_run_long_is_stopped_after_the_end_of_its_window() {
    for (run_time, is_long) in [("1h", true), ("10s", false)] {
        let world = World::new().await;
        let text = definition_text("2.0.0", "SELECT 1 AS one").replace("10s", run_time);
        let signed = world.author.sign(text.as_bytes(), ContentType::Definition, world.now_ms());
        world.engine.import_definition(signed).await.unwrap();
        let session = world.connect("w1.acme.local").await;
        let id = world.issue("").await;
        world.engine.sent(id, RoaringBitmap::from([session.connected.number])).await.unwrap();
        world.until_state(id, TargetState::Sent).await;
        leave(&world, &session).await;

        world.advance(HOUR + Duration::from_secs(120));
        let stop = if is_long {
            Some(stop(&world, id).await)
        } else {
            world.until_state(id, TargetState::Expired).await;
            assert_eq!(prepare(&world, id).await, Ok(None), "it is over, and so is told at once");
            None
        };

        let back = world.connect("w1.acme.local").await;
        let due: Vec<_> = back.connected.due.iter().map(envelope_of).collect();
        assert_eq!(due, Vec::from_iter(stop), "{run_time}");
    }
}

#[tokio::test]
async fn what_is_on_its_way_is_not_cancelled_before_its_device_is_heard_or_gone() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    stop(&world, id).await;

    assert_eq!(world.next(stop_message).await.targets, [session.connected.number]);
    let reader = world.engine.reader();
    assert_eq!(counts(&reader.instruction(id).unwrap()), [(TargetState::Queued, 1)]);
    leave(&world, &session).await;

    world.until_state(id, TargetState::Cancelled).await;
}

#[tokio::test]
async fn a_connected_device_that_does_not_answer_gets_the_stop_again_and_no_order() {
    let mut world = World::new().await;
    world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    stop(&world, id).await;
    world.next(stop_message).await;

    world.advance(Duration::from_secs(31));

    let again = world.next(|message| match message {
        ShardMessage::Order { urgency, .. } => Some(urgency),
        ShardMessage::Ack { .. }
        | ShardMessage::Close { .. }
        | ShardMessage::LicenceNotice { .. }
        | ShardMessage::PolicyNotice { .. } => None,
    });
    assert_eq!(
        again.await,
        Urgency::Stop,
        "the order itself is not sent again, as it is a second after it was issued"
    );
}

#[tokio::test]
async fn devices_that_come_back_do_not_put_off_the_next_round_for_others() {
    let mut world = World::new().await;
    let stays = world.connect("w1.acme.local").await;
    leave(&world, &world.connect("w2.acme.local").await).await;
    let id = world.issue("").await;
    run(&world, &world.connect("w2.acme.local").await, id).await;
    stop(&world, id).await;
    world.next(stop_message).await;

    world.advance(Duration::from_secs(20));
    world.connect("w2.acme.local").await;
    world.advance(Duration::from_secs(11));

    assert!(world.next(stop_message).await.targets.contains(&stays.connected.number));
}

#[tokio::test]
async fn a_result_that_overtakes_the_stop_is_what_the_target_ends_as() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    run(&world, &session, id).await;
    stop(&world, id).await;

    world.answer(&session, id, 1).await;

    let shown = world.until(id, |instruction| instruction.complete).await;
    assert_eq!(counts(&shown), [(TargetState::Answered, 1)]);
}

#[tokio::test]
async fn a_stop_is_sent_again_after_ever_longer() {
    let mut world = World::new().await;
    world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    stop(&world, id).await;
    world.next(stop_message).await;

    let mut times = 0;
    for _ in 0..100 {
        world.advance(Duration::from_secs(10));
        // The engine looks at the clock between two commands.
        world.connect("w2.acme.local").await;
        tokio::time::sleep(Duration::from_millis(2)).await;
        while let Ok(message) = world.shard.try_recv() {
            times += usize::from(stop_message(message).is_some());
        }
    }

    assert!((4..=6).contains(&times), "{times} times in 1,000 s");
}

#[tokio::test]
async fn only_an_operator_who_prepared_it_stops_anything() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    let bytes = prepare(&world, id).await.unwrap().unwrap();
    let sign = |bytes: &[u8]| world.orders.sign(bytes, ContentType::Order, world.now_ms());
    let changed = |change: fn(&mut Order)| {
        let mut order = Order::decode(&bytes[..]).unwrap();
        change(&mut order);
        sign(&order.encode_to_vec())
    };
    let submit = |envelope| world.engine.submit_stop(envelope, OPERATOR);

    let stranger = Party::new(Role::OrderSigner).sign(&bytes, ContentType::Order, world.now_ms());
    assert!(matches!(submit(stranger).await, Err(EngineError::PermissionDenied(_))));
    let eve = world.engine.submit_stop(sign(&bytes), "eve.acme.local").await;
    assert!(matches!(eve, Err(EngineError::PermissionDenied(_))), "{eve:?}");
    let of_others = changed(|order| order.tenant = "other".to_owned());
    assert!(matches!(submit(of_others).await, Err(EngineError::InvalidArgument(_))));
    let late = changed(|order| order.expires_at_ms = order.not_before_ms + 1);
    assert!(matches!(submit(late).await, Err(EngineError::InvalidArgument(_))));
    let unknown = changed(|order| order.stops[15] ^= 1);
    assert!(matches!(submit(unknown).await, Err(EngineError::FailedPrecondition(_))));
    let as_order = world.engine.submit(sign(&bytes), "key".to_owned(), OPERATOR).await;
    assert!(matches!(as_order, Err(EngineError::InvalidArgument(_))), "{as_order:?}");
    let prepared = world.prepare("").await.unwrap();
    let an_order = sign(&prepared.order);
    assert!(matches!(submit(an_order).await, Err(EngineError::InvalidArgument(_))));
    assert!(world.engine.reader().instruction(id).unwrap().stop.is_none());

    assert_eq!(submit(sign(&bytes)).await, Ok(id));
    assert_eq!(submit(sign(&bytes)).await, Ok(id), "the same again changes nothing");
}

#[tokio::test]
async fn an_instruction_shows_who_stopped_it_when_and_why() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    stop(&world, id).await;

    let world = world.restart(|_| ());

    let shown = world.engine.reader().instruction(id).unwrap().stop.unwrap();
    assert_eq!((shown.operator.as_str(), shown.reason.as_str()), (OPERATOR, "wrong fleet"));
    assert_eq!((shown.at_ms, shown.signer_thumbprint.len()), (world.now_ms(), 64));
    assert_eq!(prepare(&world, id).await, Ok(None), "there is nothing more to stop");
}

#[tokio::test]
async fn what_has_ended_is_not_stopped() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    world.answer(&session, id, 1).await;
    world.until(id, |instruction| instruction.complete).await;

    assert_eq!(prepare(&world, id).await, Ok(None));
}

#[tokio::test]
async fn a_stop_holds_as_long_as_its_order_however_short_its_own_window_is() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    let mut short = Order::decode(&prepare(&world, id).await.unwrap().unwrap()[..]).unwrap();
    short.expires_at_ms = world.now_ms() + 1_000;
    let short = world.orders.sign(&short.encode_to_vec(), ContentType::Order, world.now_ms());
    assert_eq!(world.engine.submit_stop(short, OPERATOR).await, Ok(id));

    world.advance(Duration::from_secs(2));
    world.connect("w2.acme.local").await;

    let due = world.connect("w1.acme.local").await.connected.due;
    assert!(due.is_empty(), "neither the stop, which is over, nor the order: {due:?}");
    assert_eq!(prepare(&world, id).await, Ok(None), "it is stopped");
}

#[tokio::test]
async fn a_damaged_stop_still_keeps_its_order_back_and_can_be_made_anew() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    stop(&world, id).await;

    let world = world.restart(|database| flip(database, "stops", "true"));

    assert_eq!(warnings(&world), ["stops"]);
    assert!(world.connect("w1.acme.local").await.connected.due.is_empty());
    let again = stop(&world, id).await;
    let world = world.restart(|_| ());
    let due = world.connect("w1.acme.local").await.connected.due;
    assert_eq!(due.iter().map(envelope_of).collect::<Vec<_>>(), [again]);
}

#[tokio::test]
async fn a_device_that_was_removed_and_came_back_while_it_runs_gets_the_stop() {
    let mut world = World::new().await;
    let before = world.connect("w1.acme.local").await;
    world.connect("w2.acme.local").await;
    let id = world.issue("").await;
    run(&world, &before, id).await;
    world.engine.remove("w1.acme.local".parse().unwrap()).await.unwrap();
    let back = world.connect("w1.acme.local").await;

    let envelope = stop(&world, id).await;

    let sent = world.next(stop_message).await;
    assert!(sent.targets.contains(&back.connected.number), "{:?}", sent.targets);
    let due = world.connect("w1.acme.local").await.connected.due;
    assert_eq!(due.iter().map(envelope_of).collect::<Vec<_>>(), [envelope]);
}

#[tokio::test]
async fn stops_that_wait_for_devices_have_a_bound() {
    let world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    leave(&world, &session).await;
    for _ in 0..STOPS_MAX {
        let id = world.issue("").await;
        stop(&world, id).await;
    }
    let id = world.issue("").await;

    let refused = prepare(&world, id).await;
    assert!(
        matches!(&refused, Err(EngineError::ResourceExhausted(text)) if text.contains("stops_max")),
        "{refused:?}"
    );
    world.advance(2 * HOUR);
    world.connect("w1.acme.local").await;
    let id = world.issue("").await;

    assert!(prepare(&world, id).await.unwrap().is_some(), "what is over takes no room");
}

#[tokio::test]
async fn a_stop_is_taken_however_short_the_disk_is() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let id = world.issue("").await;

    let world = world.with_disk_reserve(u64::MAX / 2);

    assert!(matches!(world.prepare("").await, Err(EngineError::ResourceExhausted(_))));
    stop(&world, id).await;
}

async fn prepare(world: &World, id: InstructionId) -> Result<Option<Vec<u8>>, EngineError> {
    let prepare =
        PrepareStop { instruction: id, reason: "wrong fleet".to_owned(), operator: OPERATOR.to_owned() };
    world.engine.prepare_stop(prepare).await
}

/// Prepares, signs and submits a stop; returns its envelope.
async fn stop(world: &World, id: InstructionId) -> Vec<u8> {
    let bytes = prepare(world, id).await.unwrap().unwrap();
    let envelope = world.orders.sign(&bytes, ContentType::Order, world.now_ms());
    assert_eq!(world.engine.submit_stop(envelope.clone(), OPERATOR).await, Ok(id));
    envelope
}

pub(super) async fn run(world: &World, session: &Session, id: InstructionId) {
    let number = session.connected.number;
    world.engine.sent(id, RoaringBitmap::from([number])).await.unwrap();
    world.engine.progress(id, TargetState::Running, [number].into()).await.unwrap();
    world.until_state(id, TargetState::Running).await;
}

pub(super) async fn leave(world: &World, session: &Session) {
    world.engine.disconnected(session.connected.number, session.connected.epoch).await.unwrap();
}

struct StopSeen {
    envelope: Vec<u8>,
    targets: Vec<u32>,
}

fn stop_message(message: ShardMessage) -> Option<StopSeen> {
    let ShardMessage::Order { frame, targets, proofs, urgency: Urgency::Stop, .. } = message else {
        return None;
    };
    assert!(proofs.is_none(), "a stop is for every device");
    Some(StopSeen { envelope: envelope_in(&frame), targets: targets.iter().collect() })
}

fn envelope_of(due: &DueOrder) -> Vec<u8> {
    envelope_in(&due.frame.clone().into_bytes())
}

/// Returns the envelope in a frame, which holds a stop.
fn envelope_in(bytes: &[u8]) -> Vec<u8> {
    let Some(Body::Order(delivery)) = frame::decode(bytes).unwrap().body else { panic!("wanted an order") };
    let stop = order::decode(&envelope::inspect(&delivery.envelope).unwrap().content).unwrap();
    assert!(order::stops(&stop).is_some());
    delivery.envelope.to_vec()
}
