//! Sessions that come and go, and orders that end.

use std::time::Duration;

use muster_proto::common::v1::TargetState;
use muster_proto::ids::InstructionId;
use muster_proto::session::v1::{CloseReason, Result as SessionResult};

use super::world::*;
use crate::engine::ShardMessage;

const HOUR: Duration = Duration::from_secs(3_600);

/// More than a target that was reached may take after the end.
const GRACE: Duration = Duration::from_secs(600);

#[tokio::test]
async fn an_offline_target_gets_its_order_when_it_connects() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    world.engine.disconnected(session.connected.number, session.connected.epoch).await.unwrap();
    let id = world.issue("").await;

    let back = world.connect("w1.acme.local").await;
    world.answer(&back, id, 1).await;
    let again = world.connect("w1.acme.local").await;

    assert_eq!(back.connected.due.iter().map(|due| due.instruction).collect::<Vec<_>>(), [id]);
    assert!(
        muster_proto::frame::decode(&back.connected.due[0].frame.clone().into_bytes())
            .unwrap()
            .proof
            .is_some()
    );
    assert!(again.connected.due.is_empty());
}

#[tokio::test]
async fn a_queued_target_expires_at_the_end() {
    let world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    world.engine.disconnected(session.connected.number, session.connected.epoch).await.unwrap();
    let id = world.issue("").await;

    world.advance(HOUR);

    world.until_state(id, TargetState::Expired).await;
    assert!(world.connect("w1.acme.local").await.connected.due.is_empty());
}

#[tokio::test]
async fn an_instruction_outlives_a_wall_clock_that_was_wrong_for_a_second() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;

    world.put_wall_wrong_by(48 * HOUR);
    world.advance(Duration::from_millis(1_200));
    // Each of these is a commit, and each commit looks for what has ended.
    let during = world.connect("w2.acme.local").await;
    world.issue("").await;
    world.put_wall_wrong_by(Duration::ZERO);
    world.answer(&session, id, 1).await;

    assert!(during.connected.due.is_empty());
    let shown = world.until(id, |instruction| instruction.complete).await;
    assert_eq!(counts(&shown), [(TargetState::Answered, 1)]);
    world.advance(HOUR);
    let later = world.connect("w3.acme.local").await;
    assert!(later.connected.due.is_empty());
}

#[tokio::test]
async fn a_wall_clock_that_stays_ahead_is_followed_in_the_end() {
    let world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    world.engine.disconnected(session.connected.number, session.connected.epoch).await.unwrap();
    let id = world.issue("").await;

    world.put_wall_wrong_by(48 * HOUR);
    world.connect("w2.acme.local").await;
    world.advance(Duration::from_secs(600));

    world.until_state(id, TargetState::Expired).await;
}

#[tokio::test]
async fn a_running_target_may_answer_after_the_end_but_not_for_ever() {
    let mut world = World::new().await;
    let (slow, stuck) = (world.connect("w1.acme.local").await, world.connect("w2.acme.local").await);
    let id = world.issue("").await;
    for session in [&slow, &stuck] {
        world.engine.progress(id, TargetState::Running, [session.connected.number].into()).await.unwrap();
    }

    world.advance(HOUR + Duration::from_secs(20));
    world.answer(&slow, id, 1).await;
    world.advance(Duration::from_secs(20));

    let shown = world.until(id, |instruction| instruction.complete).await;
    assert_eq!(counts(&shown), [(TargetState::Answered, 1), (TargetState::Expired, 1)]);
}

#[tokio::test]
async fn a_result_after_expiry_is_kept_and_the_target_stays_expired() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    world.advance(HOUR + GRACE);
    world.until_state(id, TargetState::Expired).await;

    world.answer(&session, id, 1).await;

    let results = world.engine.reader().results(id, &Default::default(), 10).unwrap().items;
    assert_eq!(results.iter().map(|result| &result.detail[..]).collect::<Vec<_>>(), ["number 1"]);
    let shown = world.engine.reader().instruction(id).unwrap();
    assert_eq!(counts(&shown), [(TargetState::Expired, 1)]);
}

#[tokio::test]
async fn a_late_result_is_kept_while_other_targets_are_open() {
    let mut world = World::new().await;
    let late = world.connect("w1.acme.local").await;
    let open = world.connect("w2.acme.local").await;
    let id = world.issue("").await;
    world.engine.progress(id, TargetState::Running, [open.connected.number].into()).await.unwrap();
    world.until_state(id, TargetState::Running).await;
    world.advance(HOUR);
    world.until_state(id, TargetState::Expired).await;

    world.answer(&late, id, 1).await;
    world.advance(GRACE);
    world.until(id, |instruction| counts(instruction) == [(TargetState::Expired, 2)]).await;
    world.answer(&open, id, 1).await;

    assert_eq!(devices_with_results(&world, id), ["w1.acme.local", "w2.acme.local"]);
}

#[tokio::test]
async fn a_late_result_is_kept_once_also_after_a_restart() {
    let mut world = World::new().await;
    let (first, second) = (world.connect("w1.acme.local").await, world.connect("w2.acme.local").await);
    let id = world.issue("").await;
    world.advance(HOUR + GRACE);
    world.until(id, |instruction| instruction.complete).await;
    world.answer(&first, id, 1).await;
    world.answer(&first, id, 2).await;

    let mut world = world.restart(|_| ());
    world.answer(&first, id, 1).await;
    world.answer(&first, id, 3).await;
    world.answer(&second, id, 1).await;

    assert_eq!(devices_with_results(&world, id), ["w1.acme.local", "w2.acme.local"]);
}

#[tokio::test]
async fn a_late_result_of_parts_is_kept_whole() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    world.advance(HOUR + GRACE);
    world.until_state(id, TargetState::Expired).await;
    let part = |part: u32| SessionResult {
        part,
        last: part == 2,
        ..result(id, u64::from(part) + 1, TargetState::Answered)
    };

    for number in 0..3 {
        world.tell_result(&session, part(number)).await;
        world.next_ack().await;
    }

    let results = world.engine.reader().results(id, &Default::default(), 10).unwrap().items;
    assert_eq!(results.iter().map(|result| result.part).collect::<Vec<_>>(), [0, 1, 2]);
}

#[tokio::test]
async fn a_late_result_of_no_target_or_no_instruction_is_acked_and_dropped() {
    let mut world = World::new().await;
    world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    let stranger = world.connect("w2.acme.local").await;
    world.advance(HOUR + GRACE);
    world.until_state(id, TargetState::Expired).await;

    world.answer(&stranger, id, 1).await;
    world.answer(&stranger, InstructionId::from([9; 16]), 2).await;

    assert_eq!(devices_with_results(&world, id), Vec::<String>::new());
}

#[tokio::test]
async fn a_later_session_supersedes_the_earlier() {
    let mut world = World::new().await;
    let first = world.connect("w1.acme.local").await;

    let second = world.connect("w1.acme.local").await;
    let closed = world
        .next(|message| match message {
            ShardMessage::Close { session, reason, .. } => Some((session, reason)),
            ShardMessage::Order { .. }
            | ShardMessage::Ack { .. }
            | ShardMessage::LicenceNotice { .. }
            | ShardMessage::PolicyNotice { .. } => None,
        })
        .await;
    world.engine.disconnected(first.connected.number, first.connected.epoch).await.unwrap();
    world.connect("w2.acme.local").await;

    assert_eq!(closed, (first.key, CloseReason::Superseded));
    assert!(second.connected.epoch > first.connected.epoch);
    assert_eq!(first.connected.number, second.connected.number);
    assert!(world.engine.is_online(&"w1.acme.local".parse().unwrap()));
    assert_eq!(world.engine.online(), 2);
}

#[tokio::test]
async fn states_only_move_forward() {
    let world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    let number = session.connected.number;

    world.engine.progress(id, TargetState::Running, [number].into()).await.unwrap();
    world.engine.sent(id, [number].into()).await.unwrap();
    world.engine.progress(id, TargetState::Acked, [number].into()).await.unwrap();
    world.engine.progress(id, TargetState::Answered, [number].into()).await.unwrap();
    world.connect("w2.acme.local").await;

    let targets = world.engine.reader().targets(id, None, &Default::default(), 10).unwrap();
    assert_eq!(targets.items.len(), 1);
    assert_eq!(targets.items[0].state(), TargetState::Running);
}

fn devices_with_results(world: &World, id: InstructionId) -> Vec<String> {
    let results = world.engine.reader().results(id, &Default::default(), 10).unwrap();
    results.items.into_iter().map(|result| result.device).collect()
}
