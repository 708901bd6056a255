//! Devices that an operator removes.

use std::ops::ControlFlow;
use std::time::Duration;

use muster_proto::common::v1::TargetState;
use muster_proto::operator::v1::export_response::Record;
use muster_proto::operator::v1::{RemoveClientResponse, Transition};
use muster_proto::relay::v1::RelayedEvent;
use muster_proto::session::v1::Result as SessionResult;

use super::restart::forget_roads;
use super::world::*;
use crate::engine::{EngineError, ShardMessage};

const GONE: &str = "w1.acme.local";
const STAYS: &str = "w2.acme.local";

#[tokio::test]
async fn a_removed_device_leaves_audiences_and_lists_for_good() {
    let world = World::new().await;
    world.connect(GONE).await;
    world.connect(STAYS).await;

    let removed = remove(&world, GONE).await.unwrap();
    let before = (devices(&world), world.prepare("").await.unwrap().targets);
    let world = world.restart(|_| ());

    let expected = RemoveClientResponse { device: GONE.to_owned(), was_online: true, cancelled_targets: 0 };
    assert_eq!(removed, expected);
    assert_eq!(before, (vec![STAYS.to_owned()], 1));
    assert_eq!((devices(&world), world.prepare("").await.unwrap().targets), before);
    assert!(matches!(world.engine.reader().client(&GONE.parse().unwrap()), Err(EngineError::NotFound(_))));
    assert!(matches!(remove(&world, GONE).await, Err(EngineError::NotFound(_))));
    assert_eq!(world.engine.reader().status().devices, 1);
    assert_eq!(world.engine.reader().status().warnings, Vec::<String>::new());
}

#[tokio::test]
async fn an_attribute_that_only_a_removed_device_had_is_unknown() {
    let world = World::new().await;
    world.connect_with(GONE, outbox(), vec![text("site", "ulm")]).await;
    world.connect(STAYS).await;
    assert_eq!(world.prepare("site == 'ulm'").await.unwrap().targets, 1);

    remove(&world, GONE).await.unwrap();

    assert!(matches!(world.prepare("site == 'ulm'").await, Err(EngineError::InvalidArgument(_))));
}

#[tokio::test]
async fn its_open_targets_are_cancelled_and_the_ledger_stays_a_partition() {
    let mut world = World::new().await;
    let (gone, stays) = (world.connect(GONE).await, world.connect(STAYS).await);
    let (done, open) = (world.issue("").await, world.issue("").await);
    world.answer(&gone, done, 1).await;
    world.answer(&stays, done, 2).await;
    world.engine.progress(open, TargetState::Running, [gone.connected.number].into()).await.unwrap();

    let removed = remove(&world, GONE).await.unwrap();
    let world = world.restart(|_| ());

    assert_eq!(removed.cancelled_targets, 1);
    let reader = world.engine.reader();
    assert_eq!(counts(&reader.instruction(done).unwrap()), [(TargetState::Answered, 2)]);
    let states = [(TargetState::Queued, 1), (TargetState::Cancelled, 1)];
    assert_eq!(counts(&reader.instruction(open).unwrap()), states);
    let targets = reader.targets(open, Some(TargetState::Cancelled), &Default::default(), 10).unwrap();
    assert_eq!(targets.items[0].device, GONE);
    assert_eq!(reader.results(done, &Default::default(), 10).unwrap().items[0].device, GONE);
    let last = transitions(&world).pop().unwrap();
    assert_eq!((&last.cause[..], last.devices), ("removed", vec![GONE.to_owned()]));
}

#[tokio::test]
async fn the_others_of_an_audience_still_get_the_order_with_its_proof_after_a_restart() {
    let mut world = World::new().await;
    world.connect(GONE).await;
    world.connect(STAYS).await;
    let id = world.issue("").await;

    remove(&world, GONE).await.unwrap();
    world = world.restart(|_| ());
    let stays = world.connect(STAYS).await;
    let gone = world.connect(GONE).await;

    assert_eq!(stays.connected.due.iter().map(|due| due.instruction).collect::<Vec<_>>(), [id]);
    assert_eq!(gone.connected.due.len(), 0);
}

#[tokio::test]
async fn its_session_is_closed_and_what_still_comes_of_it_gets_no_ack() {
    let mut world = World::new().await;
    let gone = world.connect(GONE).await;
    let stays = world.connect_with(STAYS, outbox(), Vec::new()).await;
    let id = world.issue("").await;

    remove(&world, GONE).await.unwrap();
    world.tell_event(&gone, event(1)).await;
    world.tell_result(&gone, result(id, 2, TargetState::Answered)).await;
    world.tell_event(&stays, event(3)).await;

    let key = gone.key;
    world
        .next(|message| match message {
            ShardMessage::Close { session, detail, .. } if session == key => {
                assert!(detail.contains("removed"), "{detail}");
                Some(())
            }
            ShardMessage::Ack { .. } => panic!("an ack before the close: {message:?}"),
            ShardMessage::Close { .. }
            | ShardMessage::Order { .. }
            | ShardMessage::LicenceNotice { .. }
            | ShardMessage::PolicyNotice { .. } => None,
        })
        .await;
    assert_eq!(world.next_ack().await.1, [range(3, 3)]);
    assert_eq!(world.engine.online(), 1);
    assert_eq!(world.engine.reader().events(None, 0, 10).unwrap().len(), 1);
}

#[tokio::test]
async fn one_that_comes_again_is_new_and_what_it_sends_again_is_stored_once() {
    let mut world = World::new().await;
    let before = world.connect(GONE).await;
    world.tell_event(&before, event(1)).await;
    world.next_ack().await;

    for round in 1..=3 {
        remove(&world, GONE).await.unwrap();
        world = world.restart(|_| ());
        let again = world.connect(GONE).await;
        for sequence in 1..=round + 1 {
            world.tell_event(&again, event(sequence)).await;
            world.next_ack().await;
        }

        assert_eq!(u64::from(again.connected.number), round);
        let events = world.engine.reader().events(Some(&GONE.parse().unwrap()), 0, 10).unwrap();
        let sequences: Vec<u64> =
            events.iter().map(|logged| logged.event.as_ref().unwrap().sequence).collect();
        assert_eq!(sequences, (1..=round + 1).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn what_was_seen_of_it_is_gathered_again_also_from_its_former_number() {
    let mut world = World::new().await;
    let before = world.connect(GONE).await;
    world.tell_event(&before, event(1)).await;
    world.next_ack().await;
    remove(&world, GONE).await.unwrap();
    world.connect(GONE).await;

    let mut world = world.restart(|database| {
        assert_eq!(database.execute("UPDATE seen SET crc = 0 WHERE number = 1", []).unwrap(), 1);
    });
    let again = world.connect(GONE).await;
    world.tell_event(&again, event(1)).await;
    world.next_ack().await;

    assert_eq!(world.engine.reader().events(None, 0, 10).unwrap().len(), 1);
}

#[tokio::test]
async fn events_relayed_for_a_removed_device_wait_until_it_comes_again() {
    let world = World::new().await;
    world.connect(GONE).await;
    let relayed = || {
        let event = Some(event(1));
        vec![RelayedEvent { device: GONE.to_owned(), outbox_id: outbox().to_vec(), event }]
    };

    remove(&world, GONE).await.unwrap();
    let early = world.engine.relay(relayed()).await.unwrap();
    world.connect(GONE).await;
    let later = world.engine.relay(relayed()).await.unwrap();

    assert_eq!((early.accepted, early.refused.len()), (0, 1));
    assert_eq!((later.accepted, later.refused.len()), (1, 0));
}

#[tokio::test]
async fn the_result_of_one_that_comes_again_is_kept_beside_the_target_that_it_was() {
    let mut world = World::new().await;
    let gone = world.connect(GONE).await;
    let complete = world.issue("").await;
    world.connect(STAYS).await;
    let open = world.issue("").await;
    let part = |part, sequence| SessionResult {
        part,
        last: part == 1,
        ..result(open, sequence, TargetState::Answered)
    };
    world.tell_result(&gone, part(0, 1)).await;
    world.next_ack().await;
    for _ in 0..2 {
        remove(&world, GONE).await.unwrap();
        world.connect(GONE).await;
    }

    let again = world.connect(GONE).await;
    world.tell_result(&again, part(1, 2)).await;
    world.next_ack().await;
    let mut world = world.restart(|_| ());
    let again = world.connect(GONE).await;
    world.answer(&again, complete, 3).await;
    world.answer(&again, complete, 3).await;

    let reader = world.engine.reader();
    let brought = |id| {
        let results = reader.results(id, &Default::default(), 10).unwrap().items;
        results.into_iter().map(|result| (result.device, result.part)).collect::<Vec<_>>()
    };
    assert_eq!(brought(open), [(GONE.to_owned(), 0), (GONE.to_owned(), 1)]);
    assert_eq!(brought(complete), [(GONE.to_owned(), 0)]);
    assert_eq!(counts(&reader.instruction(complete).unwrap()), [(TargetState::Cancelled, 1)]);
}

#[tokio::test]
async fn an_order_prepared_before_the_removal_waits_for_nobody_who_is_gone() {
    let world = World::new().await;
    world.connect(GONE).await;
    world.connect(STAYS).await;
    let prepared = world.prepare("").await.unwrap();

    remove(&world, GONE).await.unwrap();
    let id = world.submit(&prepared).await;

    let states = [(TargetState::Queued, 1), (TargetState::Cancelled, 1)];
    assert_eq!(counts(&world.engine.reader().instruction(id).unwrap()), states);
}

#[tokio::test]
async fn a_removal_outlives_a_kill_and_a_damaged_record_of_it() {
    let world = World::new().await;
    world.connect(GONE).await;
    world.connect(STAYS).await;
    world.advance(Duration::from_secs(1));
    remove(&world, GONE).await.unwrap();

    let world = world.killed();
    let after_the_kill = devices(&world);
    let world = world.restart(|database| {
        assert_eq!(database.execute("UPDATE removed SET crc = 0", []).unwrap(), 1);
    });

    assert_eq!(after_the_kill, [STAYS]);
    assert_eq!(devices(&world), [STAYS]);
    assert_eq!(world.prepare("").await.unwrap().targets, 1);
    assert!(!world.engine.reader().status().warnings.is_empty());
}

#[tokio::test]
async fn a_store_of_the_third_layout_learns_to_remove() {
    let world = World::new().await;
    world.connect(GONE).await;

    let world = world.restart(|database| {
        forget_roads(database);
        database
            .execute_batch(
                "ALTER TABLE seen DROP COLUMN greeted; DROP TABLE removed; DROP TABLE policies; DROP TABLE policy_followed; DROP TABLE blocked; DROP TABLE stops; DROP TABLE approvals; DROP TABLE kept; PRAGMA user_version = 3;",
            )
            .unwrap();
    });
    remove(&world, GONE).await.unwrap();

    assert_eq!(devices(&world.restart(|_| ())), Vec::<String>::new());
}

async fn remove(world: &World, device: &str) -> Result<RemoveClientResponse, EngineError> {
    world.engine.remove(device.parse().unwrap()).await
}

fn devices(world: &World) -> Vec<String> {
    let page = world.engine.reader().clients("", &Default::default(), 10).unwrap();
    page.items.into_iter().map(|client| client.device).collect()
}

fn transitions(world: &World) -> Vec<Transition> {
    let mut transitions = Vec::new();
    let take = |response: muster_proto::operator::v1::ExportResponse| {
        if let Some(Record::Transition(transition)) = response.record {
            transitions.push(transition);
        }
        ControlFlow::Continue(())
    };
    world.engine.reader().export(take).unwrap();
    transitions
}
