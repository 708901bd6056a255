//! Results and events.

use muster_proto::common::v1::TargetState;
use muster_proto::ids::OutboxId;
use muster_proto::limits::SEEN_RANGES_MAX;
use muster_proto::relay::v1::{RelayEventsResponse, RelayRefusal, RelayedEvent};
use muster_proto::seen::{GAP_EVENT, gap_field};
use muster_proto::session::v1::{Event, Lane, Result as SessionResult};

use super::restart::forget_roads;
use super::world::*;

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
    let new = world.engine.relay((40..=50).map(relayed).collect()).await.unwrap();
    let again = world.engine.relay((40..=50).map(relayed).collect()).await.unwrap();
    world.tell_event(&session, event(45)).await;

    assert_eq!((lane, ranges, credit), (Lane::Events, vec![range(50, 50)], 100));
    assert_eq!((new.accepted, again.accepted), (10, 0));
    assert_eq!((new.refused, again.refused), (vec![], vec![]));
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
async fn a_relayed_event_makes_no_device_known_and_is_taken_once_it_is() {
    let world = World::new().await;
    world.connect("w2.acme.local").await;
    let other = RelayedEvent { device: "w2.acme.local".to_owned(), ..relayed(1) };

    let early = world.engine.relay(vec![relayed(1), other, relayed(2)]).await.unwrap();
    let known_then = world.engine.reader().clients("", &Default::default(), 10).unwrap().items.len();
    world.connect("w1.acme.local").await;
    let later = world.engine.relay(vec![relayed(1), relayed(2)]).await.unwrap();

    assert_eq!((early.accepted, known_then), (1, 1));
    assert_eq!(refusals(&early), [(0, RelayRefusal::UnknownDevice), (2, RelayRefusal::UnknownDevice)]);
    assert!(early.refused[0].detail.contains("w1.acme.local never had a session here"), "{early:?}");
    assert_eq!((later.accepted, later.refused), (2, vec![]));
    assert_eq!(world.engine.reader().events(None, 0, 10).unwrap().len(), 3);
}

#[tokio::test]
async fn a_relayed_event_passes_the_check_of_those_by_session_and_refuses_no_other() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let with = |change: fn(&mut Event)| {
        let mut event = event(2);
        change(&mut event);
        RelayedEvent { event: Some(event), ..relayed(2) }
    };
    let long = |bytes| text("long", &"x".repeat(bytes));
    let bad = vec![
        RelayedEvent { outbox_id: vec![1, 2, 3], ..relayed(2) },
        RelayedEvent { device: "no name!".to_owned(), ..relayed(2) },
        RelayedEvent { event: None, ..relayed(2) },
        with(|event| event.sequence = 0),
        with(|event| event.name = "Client\u{1b}[2J".to_owned()),
        with(|event| event.fields = vec![text("Not A Name", "1")]),
        RelayedEvent { event: Some(Event { fields: vec![long(1 << 20)], ..event(2) }), ..relayed(2) },
    ];
    let count = u32::try_from(bad.len()).unwrap();

    let answer = world.engine.relay([bad, vec![relayed(1)]].concat()).await.unwrap();

    let expected: Vec<_> = (0..count).map(|index| (index, RelayRefusal::Malformed)).collect();
    assert_eq!(refusals(&answer), expected);
    assert_eq!(answer.accepted, 1);
    assert_eq!(world.engine.reader().events(None, 0, 10).unwrap().len(), 1);
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
async fn outboxes_that_only_the_relay_names_are_few_and_outlive_a_restart_without_pushing_out_a_clients() {
    let mut world = World::new().await;
    let session = world.connect("w1.acme.local").await;
    world.tell_event(&session, event(1)).await;
    world.next_ack().await;
    let outboxes = |numbers: std::ops::Range<u8>| {
        numbers.map(|number| RelayedEvent { outbox_id: vec![number; 16], ..relayed(1) }).collect::<Vec<_>>()
    };
    world.engine.relay(outboxes(100..116)).await.unwrap();

    let mut rows = 0;
    let world = world.restart(|database| {
        rows = database.query_row("SELECT count(*) FROM seen", [], |row| row.get(0)).unwrap();
    });
    world.engine.relay(outboxes(116..140)).await.unwrap();

    assert_eq!(rows, 5, "the client's, and four that were relayed");
    assert_eq!(world.engine.relay(outboxes(136..140)).await.unwrap().accepted, 0, "those are remembered");
    assert_eq!(world.engine.relay(vec![relayed(1)]).await.unwrap().accepted, 0, "and so is the client's");
    assert_eq!(world.engine.relay(outboxes(135..136)).await.unwrap().accepted, 1, "this one is forgotten");
}

#[tokio::test]
async fn a_relayed_event_that_finds_no_room_among_the_gaps_is_refused_and_not_said_to_be_taken() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let every_other = (1..=u64::try_from(SEEN_RANGES_MAX).unwrap()).map(|number| relayed(2 * number));
    for events in every_other.collect::<Vec<_>>().chunks(1_000) {
        world.engine.relay(events.to_vec()).await.unwrap();
    }
    let next = relayed(2 * (u64::try_from(SEEN_RANGES_MAX).unwrap() + 1));

    let full = world.engine.relay(vec![next.clone(), relayed(2)]).await.unwrap();
    let closed = world.engine.relay(vec![relayed(1), relayed(3), next]).await.unwrap();

    assert_eq!((full.accepted, refusals(&full)), (0, vec![(0, RelayRefusal::OutboxFull)]));
    assert_eq!((closed.accepted, closed.refused), (3, vec![]));
}

#[tokio::test]
async fn a_session_is_told_the_highest_sequence_seen_of_its_outbox_and_of_no_other() {
    let mut world = World::new().await;
    let first = world.connect("w1.acme.local").await;
    world.tell_event(&first, event(7)).await;
    world.next_ack().await;

    let again = world.connect("w1.acme.local").await;
    let other = world.connect_with("w1.acme.local", OutboxId::from([9; 16]), Vec::new()).await;

    let told = [first, again, other].map(|session| session.connected.highest_sequence);
    assert_eq!(told, [0, 7, 0]);
}

#[tokio::test]
async fn what_is_relayed_never_raises_the_number_that_shows_a_copy_of_a_store() {
    let mut world = World::new().await;
    let first = world.connect("w1.acme.local").await;
    world.tell_event(&first, event(7)).await;
    world.next_ack().await;
    let answer = world.engine.relay(vec![relayed(1 << 62), relayed(9)]).await.unwrap();
    assert_eq!(answer.accepted, 2);

    let again = world.connect("w1.acme.local").await;
    // The client has sent it as well; whether it is a repeat is another question.
    world.tell_event(&again, event(9)).await;
    world.next_ack().await;
    let world = world.restart(|_| ());
    let restarted = world.connect("w1.acme.local").await;
    let removed = world.engine.remove("w1.acme.local".parse().unwrap()).await;
    removed.unwrap();
    let back = world.connect("w1.acme.local").await;
    let mut world = world.restart(|database| {
        assert_eq!(database.execute("UPDATE seen SET by_session = x'7fffffffffffffff'", []).unwrap(), 1);
    });
    let gathered = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    world.answer(&gathered, id, 30).await;
    let answered = world.connect("w1.acme.local").await;

    let told = [first, again, restarted, back, gathered, answered]
        .map(|session| (session.connected.highest_sequence, session.connected.highest_by_session));
    let claimed = 1 << 62;
    // Of the repeat there is no record.
    let wanted = [(0, 0), (claimed, 7), (claimed, 9), (claimed, 9), (claimed, 7), (claimed, 30)];
    assert_eq!(told, wanted.map(|(highest, by_session)| (highest, Some(by_session))));
}

#[tokio::test]
async fn of_an_outbox_from_before_nothing_is_said_of_sessions_until_one_brings_its_highest_number() {
    let mut world = World::new().await;
    let first = world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    world.tell_event(&first, event(1)).await;
    world.next_ack().await;
    world.answer(&first, id, 2).await;
    world.engine.relay(vec![relayed(3)]).await.unwrap();

    let world = world.restart(|database| {
        forget_roads(database);
        database.execute_batch("DROP TABLE kept; PRAGMA user_version = 8").unwrap();
    });
    let upgraded = world.connect("w1.acme.local").await;
    let mut world = world;
    // It is sent again, and says nothing of what came after it.
    world.tell_event(&upgraded, event(1)).await;
    world.next_ack().await;
    let mut world = world.restart(|_| ());
    let repeated = world.connect("w1.acme.local").await;
    let other = world.connect_with("w1.acme.local", OutboxId::from([9; 16]), Vec::new()).await;
    world.tell_event(&repeated, event(4)).await;
    world.next_ack().await;
    let world = world.restart(|_| ());
    let known = world.connect("w1.acme.local").await;

    let told = [upgraded, repeated, other, known]
        .map(|session| (session.connected.highest_sequence, session.connected.highest_by_session));
    assert_eq!(told, [(3, None), (3, None), (0, Some(0)), (4, Some(4))]);
    assert_eq!(world.engine.reader().status().warnings, Vec::<String>::new());
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

fn refusals(answer: &RelayEventsResponse) -> Vec<(u32, RelayRefusal)> {
    answer.refused.iter().map(|refused| (refused.index, refused.cause())).collect()
}
