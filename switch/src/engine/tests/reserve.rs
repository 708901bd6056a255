//! Events when the disk is short.

use std::time::Duration;

use muster_proto::common::v1::TargetState;
use muster_proto::relay::v1::RelayedEvent;
use muster_proto::session::v1::{CloseReason, Lane};
use tokio::sync::oneshot;

use super::world::*;
use crate::engine::core::{Command, Core, CoreConfig, EventIn, Moment, Output, UnauthenticatedLimits};
use crate::engine::shared::Catalogue;
use crate::engine::store::Loaded;
use crate::engine::{Connect, EngineError, SessionKey, ShardMessage};

const RESERVE: u64 = 1_000;

#[tokio::test]
async fn below_the_reserve_results_go_in_and_events_do_not() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let id = world.issue("").await;
    let mut world = world.with_disk_reserve(u64::MAX / 2);
    let session = world.connect("w1.acme.local").await;

    world.tell_event(&session, event(1)).await;
    let relayed = RelayedEvent {
        device: "w1.acme.local".to_owned(),
        outbox_id: outbox().to_vec(),
        event: Some(event(2)),
    };
    let refused = world.engine.relay(vec![relayed]).await;
    world.tell_result(&session, result(id, 3, TargetState::Answered)).await;
    let (lane, ranges, _) = world.next_ack().await;

    assert!(matches!(refused, Err(EngineError::ResourceExhausted(_))), "{refused:?}");
    assert_eq!((lane, ranges), (Lane::Results, vec![range(3, 3)]), "the event got an ack or credit");
    world.until_state(id, TargetState::Answered).await;
    assert_eq!(world.engine.reader().events(None, 0, 10).unwrap(), []);
}

#[test]
fn sessions_whose_events_waited_come_back_when_there_is_space_and_not_at_its_edge() {
    let mut core = core_of(Loaded::default());
    let session = connect(&mut core);
    core.handle(event_in(session, 1), moment(0, RESERVE));
    assert_eq!(acks(&core.poll_output(0)), [Some(1)]);

    core.handle(event_in(session, 2), moment(1, RESERVE - 1));
    core.handle(event_in(session, 1), moment(1, RESERVE - 1));
    assert_eq!(acks(&core.poll_output(1)), [Some(1)], "only what was stored before is acked");
    assert!(core.awaits_disk());

    core.release_events(moment(2, RESERVE));
    assert!(closes(&core.poll_output(2)).is_empty());
    core.release_events(moment(3, 2 * RESERVE));
    assert_eq!(closes(&core.poll_output(3)), [(session, CloseReason::Shutdown)]);
    assert!(!core.awaits_disk());

    core.handle(event_in(session, 2), moment(4, 2 * RESERVE));
    assert_eq!(acks(&core.poll_output(4)), [Some(2)]);
}

/// A core of its own, with what was stored.
pub(super) fn core_of(loaded: Loaded) -> Core {
    let config = CoreConfig {
        tenant: TENANT.to_owned(),
        prepared_ttl: Duration::from_secs(600),
        disk_reserve_bytes: RESERVE,
        stops_max: 1,
        blocked_max: 1,
        policy_asks_per_second: 1,
        unauthenticated: UnauthenticatedLimits { devices_max: 1, new_per_minute: 1, events_per_minute: 1 },
    };
    Core::new(config, loaded, Catalogue::default())
}

fn connect(core: &mut Core) -> SessionKey {
    let connect = Connect {
        device: "w1.acme.local".parse().unwrap(),
        thumbprint: "ab".repeat(32),
        certificate_not_after_ms: 1_000_000,
        address: "127.0.0.1:4000".parse().unwrap(),
        shard: 0,
        slot: 5,
        hello: muster_proto::session::v1::Hello { outbox_id: outbox().to_vec(), ..Default::default() },
    };
    let (reply, mut answer) = oneshot::channel();
    core.handle(Command::Connect(Box::new(connect), reply), moment(0, RESERVE));
    core.poll_output(0).replies.into_iter().for_each(|reply| reply.send());
    SessionKey { shard: 0, slot: 5, epoch: answer.try_recv().unwrap().unwrap().epoch }
}

fn event_in(session: SessionKey, sequence: u64) -> Command {
    Command::Event(Box::new(EventIn {
        number: 0,
        outbox: outbox(),
        session,
        event: event(sequence),
        encoded_len: 100,
    }))
}

fn moment(now_ms: i64, disk_free_bytes: u64) -> Moment {
    Moment { now_ms, disk_free_bytes }
}

fn acks(output: &Output) -> Vec<Option<u64>> {
    output.acks.iter().map(|ack| ack.sequence).collect()
}

fn closes(output: &Output) -> Vec<(SessionKey, CloseReason)> {
    let close = |message: &ShardMessage| match message {
        ShardMessage::Close { session, reason, .. } => Some((*session, *reason)),
        ShardMessage::Ack { .. }
        | ShardMessage::Order { .. }
        | ShardMessage::LicenceNotice { .. }
        | ShardMessage::PolicyNotice { .. } => None,
    };
    output.messages.iter().filter_map(|(_, message)| close(message)).collect()
}
