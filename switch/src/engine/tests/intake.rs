//! Results and events.

use muster_proto::common::v1::TargetState;
use muster_proto::relay::v1::RelayedEvent;
use muster_proto::seen::{GAP_EVENT, gap_field};
use muster_proto::session::v1::{Event, Lane, Result as SessionResult};

use super::world::*;
use crate::engine::EngineError;

#[tokio::test]
async fn a_repeated_result_is_acked_again_and_stored_once() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;

    world.answer(&session, id, 1).await;
    world.answer(&session, id, 1).await;
    let mut world = world.restart(|_| ());
    let session = world.connect("w1.acme.local").await;
    world.answer(&session, id, 1).await;

    let results = world.engine.reader().results(id, &Default::default(), 10).unwrap();
    assert_eq!(results.items.len(), 1);
    assert_eq!(results.items[0].device, "w1.acme.local");
    assert_eq!(results.items[0].state(), TargetState::Answered);
}

#[tokio::test]
async fn events_by_both_roads_are_stored_once() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;

    world.tell_event(&session, event(50)).await;
    let (lane, ranges, credit) = world.next_ack().await;
    let accepted = world.engine.relay((40..=50).map(relayed).collect()).await.unwrap();
    let again = world.engine.relay((40..=50).map(relayed).collect()).await.unwrap();
    world.tell_event(&session, event(45)).await;

    assert_eq!((lane, ranges, credit), (Lane::Events, vec![range(50, 50)], 100));
    assert_eq!((accepted, again), (10, 0));
    assert_eq!(world.next_ack().await.1, [range(45, 45)]);
    let events = world.engine.reader().events(None, 0, 100).unwrap();
    let sequences: Vec<u64> = events.iter().map(|logged| logged.event.as_ref().unwrap().sequence).collect();
    assert_eq!(sequences, [50, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49]);
    assert_eq!(events[0].road, "session");
    assert_eq!(events[1].road, "background");
    assert_eq!(
        world.engine.reader().events(Some(&"w1.acme.local".parse().unwrap()), 10, 5).unwrap().len(),
        1
    );
}

#[tokio::test]
async fn events_of_a_device_never_seen_make_it_known() {
    let world = World::new().await;

    let accepted = world.engine.relay(vec![relayed(1)]).await.unwrap();
    let session = world.connect("w1.acme.local").await;

    assert_eq!(accepted, 1);
    assert_eq!(session.connected.number, 0);
    assert_eq!(world.engine.reader().clients("", &Default::default(), 10).unwrap().items.len(), 1);
}

#[tokio::test]
async fn one_bad_relayed_event_refuses_them_all() {
    let world = World::new().await;
    let bad = RelayedEvent { outbox_id: vec![1, 2, 3], ..relayed(2) };

    let refused = world.engine.relay(vec![relayed(1), bad]).await;

    assert!(matches!(refused, Err(EngineError::InvalidArgument(_))), "{refused:?}");
    assert_eq!(world.engine.reader().events(None, 0, 10).unwrap(), []);
}

#[tokio::test]
async fn what_a_gap_event_says_was_dropped_counts_as_seen() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let fields = vec![gap_field(&[range(1, 4), range(6, 8)])];
    let gap = Event { sequence: 9, occurred_at_ms: 1, name: GAP_EVENT.to_owned(), fields };

    world.tell_event(&session, gap).await;
    world.next_ack().await;
    world.tell_event(&session, event(4)).await;

    assert_eq!(world.next_ack().await.1, [range(4, 4)]);
    assert_eq!(world.engine.reader().events(None, 0, 10).unwrap().len(), 1);
}

#[tokio::test]
async fn what_waits_between_dropped_events_is_stored_when_it_comes() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let fields = vec![integer("first", 1), integer("last", 8), gap_field(&[range(1, 4), range(6, 8)])];
    world
        .tell_event(&session, Event { sequence: 9, occurred_at_ms: 1, name: GAP_EVENT.to_owned(), fields })
        .await;
    world.next_ack().await;

    world.tell_event(&session, event(5)).await;
    world.next_ack().await;

    assert_eq!(
        world.engine.reader().events(None, 0, 10).unwrap().len(),
        2,
        "the gap and the event within it"
    );
}

#[tokio::test]
async fn a_result_that_a_gap_named_by_mistake_is_stored_once_when_it_comes() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    let fields = vec![gap_field(&[range(1, 8)])];
    world
        .tell_event(&session, Event { sequence: 9, occurred_at_ms: 1, name: GAP_EVENT.to_owned(), fields })
        .await;
    world.next_ack().await;

    world.answer(&session, id, 5).await;
    world.answer(&session, id, 5).await;

    world.until_state(id, TargetState::Answered).await;
    assert_eq!(world.engine.reader().results(id, &Default::default(), 10).unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_gap_does_not_swallow_what_is_still_to_come() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let fields = vec![gap_field(&[range(1, 1_000)])];
    world
        .tell_event(&session, Event { sequence: 9, occurred_at_ms: 1, name: GAP_EVENT.to_owned(), fields })
        .await;
    world.next_ack().await;

    world.tell_event(&session, event(10)).await;
    world.next_ack().await;

    assert_eq!(world.engine.reader().events(None, 0, 10).unwrap().len(), 2);
}

#[tokio::test]
async fn a_part_that_comes_again_before_the_last_is_stored_once() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    let part = SessionResult { last: false, ..result(id, 1, TargetState::Answered) };

    world.tell_result(&session, part.clone()).await;
    world.next_ack().await;
    world.tell_result(&session, part).await;
    world.next_ack().await;

    assert_eq!(world.engine.reader().results(id, &Default::default(), 10).unwrap().items.len(), 1);
}

#[tokio::test]
async fn only_the_latest_sixteen_outboxes_of_a_device_are_remembered() {
    let world = World::new().await;
    let outboxes = |numbers: std::ops::Range<u8>| {
        numbers.map(|number| RelayedEvent { outbox_id: vec![number; 16], ..relayed(1) }).collect::<Vec<_>>()
    };
    world.engine.relay(outboxes(0..16)).await.unwrap();
    world.engine.relay(outboxes(0..1)).await.unwrap();
    world.engine.relay(outboxes(16..40)).await.unwrap();

    let mut rows = 0;
    let world = world.restart(|database| {
        rows = database.query_row("SELECT count(*) FROM seen", [], |row| row.get(0)).unwrap();
    });

    assert_eq!(rows, 16);
    assert_eq!(world.engine.relay(outboxes(24..40)).await.unwrap(), 0, "those are remembered");
    assert_eq!(world.engine.relay(outboxes(23..24)).await.unwrap(), 1, "this one is forgotten");
}

#[tokio::test]
async fn only_the_last_part_of_a_result_ends_the_target() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    let mut part = result(id, 1, TargetState::Answered);
    part.last = false;

    world.tell_result(&session, part).await;
    world.next_ack().await;
    let between = world.engine.reader().instruction(id).unwrap();
    world.tell_result(&session, SessionResult { part: 1, ..result(id, 2, TargetState::Answered) }).await;
    world.next_ack().await;

    assert!(!between.complete);
    assert_eq!(world.engine.reader().results(id, &Default::default(), 10).unwrap().items.len(), 2);
    world.until_state(id, TargetState::Answered).await;
}

#[tokio::test]
async fn a_result_of_no_target_is_acked_and_dropped() {
    let mut world = World::new().await;
    world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    let stranger = world.connect("w2.acme.local").await;

    world.answer(&stranger, id, 1).await;

    assert_eq!(world.engine.reader().results(id, &Default::default(), 10).unwrap().items, []);
}

#[tokio::test]
async fn results_are_paged_in_the_order_of_commitment() {
    let mut world = World::new().await;
    let mut sessions = Vec::new();
    for number in 0..5 {
        sessions.push(world.connect(&format!("w{number}.acme.local")).await);
    }
    let id = world.issue("").await;
    for session in &sessions {
        world.answer(session, id, 1).await;
    }

    let reader = world.engine.reader();
    let first = reader.results(id, &Default::default(), 3).unwrap();
    let second = reader.results(id, &first.cursor, 3).unwrap();

    let devices: Vec<_> =
        first.items.iter().chain(&second.items).map(|result| result.device.clone()).collect();
    assert_eq!(devices, (0..5).map(|number| format!("w{number}.acme.local")).collect::<Vec<_>>());
    assert!(first.more && !second.more);
    assert_eq!(second.next_page_token(), "");
}

fn relayed(sequence: u64) -> RelayedEvent {
    RelayedEvent {
        device: "w1.acme.local".to_owned(),
        outbox_id: outbox().to_vec(),
        event: Some(event(sequence)),
    }
}
