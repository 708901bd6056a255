//! Records whose checksum holds and that cannot be read.

use muster_proto::common::v1::TargetState;
use muster_proto::seen::{GAP_EVENT, gap_ranges};
use muster_proto::session::v1::SequenceRange;
use tempfile::TempDir;

use super::{NOW, QueueLane, Tables, id, open, post, results};

#[tokio::test]
async fn an_event_that_does_not_decode_is_set_aside_counted_and_told_as_a_gap_on_the_way_to_a_post() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let broken = store.write(|tables| tables.append_bytes(QueueLane::Events, &[], b"\xff")).await.unwrap();

    // Nothing but what is broken: it must not look as if nothing waited.
    let gap = store.write(|tables| tables.queued_events(0, 1 << 20, 100, NOW)).await.unwrap();
    post(&store, "later").await;
    let all = store.write(|tables| tables.queued_events(0, 1 << 20, 100, NOW)).await.unwrap();
    let one = store.write(|tables| tables.queued_events(0, 1 << 20, 1, NOW)).await.unwrap();

    let told = SequenceRange { first: broken, last: broken };
    assert_eq!((gap.len(), &gap[0].name[..], gap_ranges(&gap[0])), (1, GAP_EVENT, vec![told]));
    let names: Vec<_> = all.iter().map(|event| (event.sequence, &event.name[..])).collect();
    assert_eq!((names, one.len()), (vec![(2, GAP_EVENT), (3, "later")], 1));
    assert_eq!(store.write(|tables| tables.damaged()).await.unwrap(), 1);
    assert_eq!(store.write(|tables| Ok(tables.outbox_counts().events)).await.unwrap(), 2);
}

#[tokio::test]
async fn a_result_that_does_not_decode_leaves_interrupted_and_a_gap_behind() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let instruction = id(9).as_bytes().to_vec();
    let append = move |tables: &mut Tables| tables.append_bytes(QueueLane::Results, &instruction, b"\xff");
    let broken = store.write(append).await.unwrap();

    store.write(move |tables| tables.set_undecoded_aside(QueueLane::Results, broken, NOW)).await.unwrap();

    assert_eq!(results(&store).await[0].state(), TargetState::Interrupted);
    let events = store.write(|tables| tables.queued_events(0, 1 << 20, 100, NOW)).await.unwrap();
    let told = SequenceRange { first: broken, last: broken };
    assert_eq!(gap_ranges(&events[0]), [told]);
    assert_eq!(store.write(|tables| tables.damaged()).await.unwrap(), 1);
}
