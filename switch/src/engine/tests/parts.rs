//! Results in parts: their order and their bound.

use std::time::Duration;

use muster_proto::common::v1::TargetState;
use muster_proto::ids::{InstructionId, OutboxId};
use muster_proto::operator::v1::DeviceResult;
use muster_proto::relay::v1::RelayedEvent;
use muster_proto::seen::{GAP_EVENT, gap_field};
use muster_proto::session::v1::{Event, Result as SessionResult};
use prost::Message as _;

use super::world::*;

/// Two of these are more than the definition's 64 KiB and one message allow, one is not.
const BIG: usize = 500 << 10;

#[tokio::test]
async fn parts_beyond_the_signed_limit_are_acked_and_fail_the_target() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;

    for number in 0..4 {
        let ranges = bring(&mut world, &session, part(id, number, BIG)).await;
        assert_eq!(ranges, [range(u64::from(number) + 1, u64::from(number) + 1)], "the outbox must drain");
    }

    world.until_state(id, TargetState::Failed).await;
    let stored = stored(&world, id);
    assert_eq!(stored.len(), 2, "the first part, and why there are no more");
    assert_eq!(stored[1].state(), TargetState::Failed);
    assert!(stored[1].detail.contains("limits.bytes"), "{}", stored[1].detail);
}

#[tokio::test]
async fn a_part_that_is_not_due_fails_the_target() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;

    bring(&mut world, &session, part(id, 0, 0)).await;
    bring(&mut world, &session, SessionResult { sequence: 2, last: true, ..part(id, 2, 0) }).await;

    world.until_state(id, TargetState::Failed).await;
    let detail = &stored(&world, id)[1].detail;
    assert!(detail.contains("part 2") && detail.contains("part 1 was due"), "{detail}");
}

#[tokio::test]
async fn parts_from_before_a_restart_count() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let (whole, endless) = (world.issue("").await, world.issue("").await);
    bring(&mut world, &session, part(whole, 0, 0)).await;
    bring(&mut world, &session, SessionResult { sequence: 2, ..part(endless, 0, BIG) }).await;

    let mut world = world.restart(|_| ());
    let session = world.connect("w1.acme.local").await;
    bring(&mut world, &session, SessionResult { sequence: 3, last: true, ..part(whole, 1, 0) }).await;
    bring(&mut world, &session, SessionResult { sequence: 4, ..part(endless, 1, BIG) }).await;

    world.until_state(whole, TargetState::Answered).await;
    world.until_state(endless, TargetState::Failed).await;
}

#[tokio::test]
async fn a_gap_that_names_the_parts_of_a_result_takes_none_of_them_away() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let (open, late) = (world.issue("").await, world.issue("").await);
    relay_gap(&world).await;

    for part in three_parts(open, 1) {
        bring(&mut world, &session, part).await;
    }
    world.until_state(open, TargetState::Answered).await;
    world.advance(Duration::from_secs(2 * 3_600));
    world.until_state(late, TargetState::Expired).await;
    for _ in 0..2 {
        for part in three_parts(late, 4) {
            bring(&mut world, &session, part).await;
        }
    }

    assert_eq!(numbers(&world, open), [0, 1, 2]);
    assert_eq!(numbers(&world, late), [0, 1, 2]);
}

#[tokio::test]
async fn a_client_that_sends_a_result_again_from_another_outbox_fails_no_target() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let (open, late) = (world.issue("").await, world.issue("").await);
    for part in three_parts(open, 1).into_iter().take(2) {
        bring(&mut world, &session, part).await;
    }

    let restored = OutboxId::from([8; 16]);
    let session = world.connect_with("w1.acme.local", restored, Vec::new()).await;
    for part in three_parts(open, 1) {
        bring_from(&mut world, &session, restored, part).await;
    }
    world.until_state(open, TargetState::Answered).await;
    world.advance(Duration::from_secs(2 * 3_600));
    world.until_state(late, TargetState::Expired).await;
    for outbox in [outbox(), restored] {
        for part in three_parts(late, 4) {
            bring_from(&mut world, &session, outbox, part).await;
        }
    }

    assert_eq!(numbers(&world, open), [0, 1, 2]);
    assert_eq!(numbers(&world, late), [0, 1, 2]);
}

#[tokio::test]
async fn a_late_result_has_the_same_limit() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    world.advance(Duration::from_secs(2 * 3_600));
    world.until_state(id, TargetState::Expired).await;

    for number in 0..4 {
        bring(&mut world, &session, part(id, number, BIG)).await;
    }

    assert_eq!(stored(&world, id).len(), 1);
}

/// Brings a result, and returns what is acked.
async fn bring(
    world: &mut World,
    session: &Session,
    result: SessionResult,
) -> Vec<muster_proto::session::v1::SequenceRange> {
    bring_from(world, session, outbox(), result).await
}

async fn bring_from(
    world: &mut World,
    session: &Session,
    outbox: OutboxId,
    result: SessionResult,
) -> Vec<muster_proto::session::v1::SequenceRange> {
    let bytes = u32::try_from(result.encoded_len()).unwrap();
    world.engine.result(session.connected.number, outbox, session.key, result, bytes).await.unwrap();
    world.next_ack().await.1
}

/// Lets a Background Channel say that the device has dropped its first eight records.
async fn relay_gap(world: &World) {
    let fields = vec![gap_field(&[range(1, 8)])];
    let gap = Event { sequence: 9, occurred_at_ms: 1, name: GAP_EVENT.to_owned(), fields };
    let relayed =
        RelayedEvent { device: "w1.acme.local".to_owned(), outbox_id: outbox().to_vec(), event: Some(gap) };
    assert_eq!(world.engine.relay(vec![relayed]).await.unwrap().accepted, 1);
}

/// A whole result, numbered from `first` on.
fn three_parts(id: InstructionId, first: u64) -> Vec<SessionResult> {
    let numbered = |number: u32| SessionResult {
        sequence: first + u64::from(number),
        last: number == 2,
        ..part(id, number, 0)
    };
    (0..3).map(numbered).collect()
}

fn numbers(world: &World, id: InstructionId) -> Vec<u32> {
    stored(world, id).iter().map(|result| result.part).collect()
}

/// A part that is not the last, of about so many bytes.
fn part(id: InstructionId, number: u32, bytes: usize) -> SessionResult {
    SessionResult {
        part: number,
        last: false,
        detail: "x".repeat(bytes),
        ..result(id, u64::from(number) + 1, TargetState::Answered)
    }
}

fn stored(world: &World, id: InstructionId) -> Vec<DeviceResult> {
    world.engine.reader().results(id, &Default::default(), 10).unwrap().items
}
