//! Events: acked from the spool, relayed to the Switch when it is there.

use http::{Method, StatusCode};
use muster_background_channel::Spool;
use muster_pki::Role;
use muster_proto::relay::v1::RelayedEvent;
use muster_proto::session::v1::{Event, EventBatch, EventBatchAck, SequenceRange};
use prost::Message as _;

use crate::switch::Switch;
use crate::world::World;

const DEVICE: &str = "w701.acme.local";

fn batch(sequences: impl IntoIterator<Item = u64>) -> EventBatch {
    let event = |sequence| Event { sequence, name: "test.happened".to_owned(), ..Event::default() };
    EventBatch { outbox_id: vec![7; 16], events: sequences.into_iter().map(event).collect() }
}

/// What the Switch is to be told of a device's batch.
fn relayed(device: &str, batch: &EventBatch) -> Vec<RelayedEvent> {
    let relayed = |event: &Event| RelayedEvent {
        device: device.to_owned(),
        outbox_id: batch.outbox_id.clone(),
        event: Some(event.clone()),
    };
    batch.events.iter().map(relayed).collect()
}

#[tokio::test]
async fn acked_events_survive_a_restart_and_reach_the_switch_when_it_comes_up() {
    let world = World::new().await;
    let (first, second) = (batch([1, 2, 3, 9]), batch([4, 9]));
    let channel = world.start().await;
    let device = world.caller(&channel, Role::Device, DEVICE);
    let ack = device.call(Method::POST, "/events", first.encode_to_vec()).await;
    channel.stop().await.unwrap();
    let channel = world.start().await;
    let other = world.caller(&channel, Role::Device, "w702.acme.local");
    let second_ack = other.call(Method::POST, "/events", second.encode_to_vec()).await;
    // Again, as a client does that missed its ack.
    let device = world.caller(&channel, Role::Device, DEVICE);
    let again = device.call(Method::POST, "/events", first.encode_to_vec()).await;
    // The Switch is away: its port closes on whoever calls.
    drop(world.switch.accept().await.unwrap());

    let mut switch = Switch::serve(&world.pki, world.switch);
    let arrived = switch.events(6).await;
    let third = batch([10]);
    device.call(Method::POST, "/events", third.encode_to_vec()).await;
    let all = switch.events(7).await;
    channel.stop().await.unwrap();

    for ack in [&ack, &again] {
        assert_eq!(ack.status, StatusCode::OK);
        let ranges = EventBatchAck::decode(&ack.body[..]).unwrap().ranges;
        assert_eq!(ranges, [SequenceRange { first: 1, last: 3 }, SequenceRange { first: 9, last: 9 }]);
    }
    assert_eq!(second_ack.status, StatusCode::OK);
    let spooled = [relayed(DEVICE, &first), relayed("w702.acme.local", &second)].concat();
    assert_eq!(arrived, spooled);
    assert_eq!(all, [spooled, relayed(DEVICE, &third)].concat());
    let (spool, _writer) = Spool::open(&world.config.data_dir, world.config.limits.spool()).unwrap();
    assert!(spool.read(0, 10, 0).unwrap().iter().all(|left| left.event == relayed(DEVICE, &third)[0]));
}

#[tokio::test]
async fn events_of_a_device_that_the_switch_does_not_know_hold_up_no_other_and_arrive_when_it_does() {
    let world = World::new().await;
    let (first, second, third) = (batch([1, 2]), batch([1]), batch([2]));
    let channel = world.start().await;
    let stranger = world.caller(&channel, Role::Device, DEVICE);
    let other = world.caller(&channel, Role::Device, "w702.acme.local");
    stranger.call(Method::POST, "/events", first.encode_to_vec()).await;
    other.call(Method::POST, "/events", second.encode_to_vec()).await;

    let (mut switch, learns) = Switch::serve_without(&world.pki, world.switch, DEVICE);
    let before = switch.events(1).await;
    other.call(Method::POST, "/events", third.encode_to_vec()).await;
    let meanwhile = switch.events(2).await;
    learns.send_replace(String::new());
    let after = switch.events(4).await;
    channel.stop().await.unwrap();

    let others = [relayed("w702.acme.local", &second), relayed("w702.acme.local", &third)].concat();
    assert_eq!(before, others[..1]);
    assert_eq!(meanwhile, others);
    assert_eq!(after, [others, relayed(DEVICE, &first)].concat());
}

#[tokio::test]
async fn an_operator_posts_no_events_and_garbage_is_refused() {
    let world = World::new().await;
    let channel = world.start().await;
    let operator = world.caller(&channel, Role::Operator, "alice.acme.local");
    let device = world.caller(&channel, Role::Device, DEVICE);

    let denied = operator.call(Method::POST, "/events", batch([1]).encode_to_vec()).await;
    let garbage = device.call(Method::POST, "/events", vec![0xff; 64]).await;
    let large = device.call(Method::POST, "/events", vec![0; (1 << 20) + 1]).await;
    channel.stop().await.unwrap();

    assert_eq!(denied.status, StatusCode::FORBIDDEN);
    assert_eq!(garbage.status, StatusCode::BAD_REQUEST);
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    let (spool, _writer) = Spool::open(&world.config.data_dir, world.config.limits.spool()).unwrap();
    assert_eq!(spool.read(0, 10, 0).unwrap(), []);
}
