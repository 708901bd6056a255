//! Results in parts: their order and their bound.

use std::time::Duration;

use muster_proto::common::v1::TargetState;
use muster_proto::ids::InstructionId;
use muster_proto::operator::v1::DeviceResult;
use muster_proto::session::v1::Result as SessionResult;

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
    bring(&mut world, &session, SessionResult { sequence: 2, last: true, ..part(id, 0, 0) }).await;

    world.until_state(id, TargetState::Failed).await;
    let detail = &stored(&world, id)[1].detail;
    assert!(detail.contains("part 0") && detail.contains("part 1 was due"), "{detail}");
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
    world.tell_result(session, result).await;
    world.next_ack().await.1
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
