//! Devices that an operator keeps out.

use std::ops::ControlFlow;
use std::time::Duration;

use muster_proto::common::v1::TargetState;
use muster_proto::operator::v1::{BlockClientResponse, ExportResponse, Transition, export_response::Record};
use muster_proto::relay::v1::{RelayRefusal, RelayedEvent};
use muster_proto::session::v1::CloseReason;

use super::world::*;
use crate::engine::{Connect, EngineError, Prepare, ShardMessage};

const OUT: &str = "w1.acme.local";
const STAYS: &str = "w2.acme.local";

async fn block(world: &World, device: &str) -> Result<BlockClientResponse, EngineError> {
    world.engine.block(device.parse().unwrap(), "alice".to_owned(), "stolen".to_owned()).await
}

async fn unblock(world: &World, device: &str) {
    world.engine.unblock(device.parse().unwrap()).await.unwrap();
}

/// Tries to begin a session; returns why there is none.
async fn refused(world: &World, device: &str) -> Option<EngineError> {
    let connect = Connect {
        device: device.parse().unwrap(),
        thumbprint: "ab".repeat(32),
        certificate_not_after_ms: world.now_ms() + 1_000_000,
        address: "127.0.0.1:4000".parse().unwrap(),
        shard: 0,
        slot: 6,
        hello: Default::default(),
    };
    world.engine.connect(connect).await.err()
}

fn causes(world: &World) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<Transition> = Vec::new();
    let take = |response: ExportResponse| {
        if let Some(Record::Transition(transition)) = response.record {
            all.push(transition);
        }
        ControlFlow::Continue(())
    };
    world.engine.reader().export(take).unwrap();
    all.into_iter().map(|transition| (transition.cause, transition.devices)).collect()
}

#[tokio::test]
async fn r2_a_blocked_device_loses_its_session_and_what_still_comes_of_it_gets_no_ack() {
    let mut world = World::new().await;
    let (out, stays) = (world.connect(OUT).await, world.connect(STAYS).await);

    let blocked = block(&world, OUT).await.unwrap();
    world.tell_event(&out, event(1)).await;
    world.tell_event(&stays, event(3)).await;

    assert!(blocked.was_online && blocked.known);
    let key = out.key;
    let reason = world
        .next(|message| match message {
            ShardMessage::Close { session, reason, .. } if session == key => Some(reason),
            ShardMessage::Ack { .. } => panic!("an ack before the close: {message:?}"),
            ShardMessage::Order { .. }
            | ShardMessage::Close { .. }
            | ShardMessage::PolicyNotice { .. }
            | ShardMessage::LicenceNotice { .. } => None,
        })
        .await;
    assert_eq!(reason, CloseReason::Revoked);
    assert_eq!(world.next_ack().await.1, [range(3, 3)]);
    assert_eq!(world.engine.online(), 1);
    assert!(matches!(refused(&world, OUT).await, Some(EngineError::PermissionDenied(_))));

    let world = world.restart(|_| ());
    assert!(matches!(refused(&world, OUT).await, Some(EngineError::PermissionDenied(_))));
    assert_eq!(world.engine.block_of(&OUT.parse().unwrap()), blocked.block);
    unblock(&world, OUT).await;
    let world = world.restart(|_| ());
    assert_eq!(refused(&world, OUT).await, None);
}

#[tokio::test]
async fn a_blocked_device_is_no_target_of_new_instructions() {
    let world = World::new().await;
    world.connect(OUT).await;
    world.connect(STAYS).await;
    let before = world.prepare("").await.unwrap();

    block(&world, OUT).await.unwrap();
    let after = (
        world.prepare("").await.unwrap().targets,
        world.prepare("os == 'linux'").await.unwrap().targets,
        world.prepare(&format!("device == '{OUT}'")).await,
    );
    let id = world.submit(&before).await;

    assert_eq!((before.targets, after.0, after.1), (2, 1, 1));
    let Err(EngineError::NoTargets(why)) = after.2 else { panic!("{:?}", after.2) };
    assert!(why.contains("1 of them blocked"), "{why}");
    // The signed root of an order that was prepared before has the device in it; its target ends at once.
    let states = [(TargetState::Queued, 1), (TargetState::Cancelled, 1)];
    assert_eq!(counts(&world.engine.reader().instruction(id).unwrap()), states);
    assert!(causes(&world).contains(&("blocked".to_owned(), vec![OUT.to_owned()])));

    unblock(&world, OUT).await;
    assert_eq!(world.prepare("").await.unwrap().targets, 2);
}

#[tokio::test]
async fn its_open_targets_stay_open_and_are_answered_after_the_unblocking() {
    let mut world = World::new().await;
    world.connect(OUT).await;
    let id = world.issue("").await;

    block(&world, OUT).await.unwrap();
    let open = counts(&world.engine.reader().instruction(id).unwrap());
    unblock(&world, OUT).await;
    let again = world.connect(OUT).await;
    world.answer(&again, id, 1).await;

    assert_eq!(open, [(TargetState::Queued, 1)]);
    assert_eq!(again.connected.due.len(), 1);
    assert_eq!(counts(&world.engine.reader().instruction(id).unwrap()), [(TargetState::Answered, 1)]);
}

#[tokio::test]
async fn its_open_targets_expire_like_those_of_a_device_that_is_away() {
    let world = World::new().await;
    world.connect(OUT).await;
    let id = world.issue("").await;

    block(&world, OUT).await.unwrap();
    world.advance(Duration::from_secs(3_600));

    world.until_state(id, TargetState::Expired).await;
}

#[tokio::test]
async fn events_of_a_blocked_device_that_came_by_a_background_channel_wait_there() {
    let world = World::new().await;
    world.connect(OUT).await;
    let relayed =
        || RelayedEvent { device: OUT.to_owned(), outbox_id: outbox().to_vec(), event: Some(event(1)) };

    block(&world, OUT).await.unwrap();
    let refused = world.engine.relay(vec![relayed()]).await.unwrap();
    unblock(&world, OUT).await;
    let taken = world.engine.relay(vec![relayed()]).await.unwrap();

    assert_eq!((refused.accepted, refused.refused[0].cause()), (0, RelayRefusal::Blocked));
    assert_eq!((taken.accepted, taken.refused.len()), (1, 0));
}

#[tokio::test]
async fn blocks_are_bounded_and_blocking_again_takes_no_room() {
    let world = World::new().await;
    block(&world, "w0.acme.local").await.unwrap();

    let first = block(&world, OUT).await.unwrap();
    let again = block(&world, OUT).await;
    let second = block(&world, STAYS).await;
    let long =
        world.engine.block(OUT.parse().unwrap(), "alice".to_owned(), "x".repeat(257)).await.unwrap_err();

    assert!(!first.known && !first.was_online);
    assert!(again.is_ok());
    let Err(EngineError::ResourceExhausted(why)) = second else { panic!("{second:?}") };
    assert!(why.contains("engine.blocked_max"), "{why}");
    assert!(matches!(long, EngineError::InvalidArgument(_)));
    let missing = world.engine.unblock(STAYS.parse().unwrap()).await.unwrap_err();
    assert!(matches!(missing, EngineError::NotFound(_)));
}

#[tokio::test]
async fn a_damaged_block_keeps_its_device_out_and_a_removed_device_stays_blocked() {
    let world = World::new().await;
    world.connect(OUT).await;
    block(&world, OUT).await.unwrap();
    world.engine.remove(OUT.parse().unwrap()).await.unwrap();

    let world = world.restart(|database| {
        database.execute("UPDATE blocked SET record = x'00'", []).unwrap();
    });

    assert!(matches!(refused(&world, OUT).await, Some(EngineError::PermissionDenied(_))));
    assert_eq!(world.engine.reader().status().warnings.len(), 1);
    // Who only prepares is told the same as before.
    let prepare =
        Prepare { definition: DEFINITION.to_owned(), operator: OPERATOR.to_owned(), ..Prepare::default() };
    assert!(matches!(world.engine.prepare(prepare, admitted).await, Err(EngineError::NoTargets(_))));
}
