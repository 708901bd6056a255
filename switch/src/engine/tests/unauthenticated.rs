//! Devices without a certificate (C1 of trust.md).

use muster_pki::DeviceId;
use muster_proto::common::v1::{TargetState, Value, value::Kind};
use muster_proto::relay::v1::{RelayRefusal, RelayedEvent};
use muster_proto::session::v1::CloseReason;
use muster_signing::envelope::ContentType;
use prost::Message as _;
use rusqlite::{Connection, params};

use super::world::*;
use crate::engine::core::POLICIES_MAX;
use crate::engine::store::{DocumentRecord, checksum, key};
use crate::engine::{Connect, Cursor, EngineError, Prepare, Prepared, ShardMessage};

const CERTIFIED: &str = "w1.acme.local";

fn keyed(of: u8) -> String {
    DeviceId::of_key(&[of]).to_string()
}

fn names(prepared: &Prepared) -> Vec<String> {
    prepared.sample.iter().map(ToString::to_string).collect()
}

fn action() -> String {
    definition_text("2.0.0", "SELECT 1 AS one").replace("\"question\"", "\"action\"")
}

async fn refused(world: &World, device: &str) -> Option<EngineError> {
    let connect = Connect {
        device: device.parse().unwrap(),
        thumbprint: String::new(),
        certificate_not_after_ms: 0,
        address: "127.0.0.1:4000".parse().unwrap(),
        shard: 0,
        slot: 6,
        hello: Default::default(),
    };
    world.engine.connect(connect).await.err()
}

#[tokio::test]
async fn c1_an_audience_holds_a_device_without_a_certificate_only_if_it_asks_for_such() {
    let world = World::new().await;
    world.connect(CERTIFIED).await;
    world.connect(&keyed(1)).await;

    for (audience, wanted) in [
        ("", vec![CERTIFIED.to_owned()]),
        ("os == \"linux\"", vec![CERTIFIED.to_owned()]),
        ("true", vec![CERTIFIED.to_owned()]),
        ("authenticated", vec![CERTIFIED.to_owned()]),
        ("authenticated == false", vec![keyed(1)]),
        ("os == \"linux\" && !authenticated", vec![keyed(1)]),
        ("has(authenticated)", vec![keyed(1), CERTIFIED.to_owned()]),
    ] {
        assert_eq!(names(&world.prepare(audience).await.unwrap()), wanted, "{audience}");
        if !audience.is_empty() {
            let listed = world.engine.reader().clients(audience, &Cursor::default(), 10).unwrap().items;
            let listed: Vec<String> = listed.into_iter().map(|client| client.device).collect();
            assert_eq!(listed, wanted, "{audience}");
        }
    }
    let by_name = world.prepare(&format!("device == \"{}\"", keyed(1))).await;
    let Err(EngineError::NoTargets(text)) = by_name else { panic!("{by_name:?}") };
    assert!(text.contains("1 of them unauthenticated") && text.contains("`authenticated`"), "{text}");
}

#[tokio::test]
async fn c1_a_device_without_a_certificate_is_shown_as_unauthenticated_also_after_a_restart() {
    let world = World::new().await;
    world.connect(CERTIFIED).await;
    // It says otherwise.
    let says = vec![integer("authenticated", 1), text("os", "linux"), text("room", "a1")];
    world.connect_with(&keyed(1), outbox(), says).await;

    let world = world.restart(|_| ());

    let shown = world.engine.reader().clients("", &Cursor::default(), 10).unwrap().items;
    let standing: Vec<(&str, bool)> =
        shown.iter().map(|client| (&client.device[..], client.unauthenticated)).collect();
    assert_eq!(standing, [(&keyed(1)[..], true), (CERTIFIED, false)]);
    let said: Vec<&str> = shown[0].attributes.iter().map(|attribute| &attribute.name[..]).collect();
    assert_eq!(said, ["authenticated", "device", "os"], "its own names would crowd out those of others");
    assert_eq!(shown[0].attributes[0].value, Some(Value { kind: Some(Kind::Integer(0)) }));
    assert_eq!(names(&world.prepare("").await.unwrap()), [CERTIFIED]);
    assert!(world.prepare("room == \"a1\"").await.is_err());
}

#[tokio::test]
async fn c1_an_action_is_not_prepared_for_a_device_without_a_certificate() {
    let world = World::new().await;
    world.connect(CERTIFIED).await;
    world.connect(&keyed(1)).await;
    let action = world.author.sign(action().as_bytes(), ContentType::Definition, world.now_ms());
    world.engine.import_definition(action).await.unwrap();

    let asked = world.prepare("has(authenticated)").await;
    let everybody = world.prepare("").await.unwrap();
    let without = world.prepare("authenticated == true").await.unwrap();
    let question = Prepare {
        definition: DEFINITION.to_owned(),
        version: "1.0.0".to_owned(),
        audience: "has(authenticated)".to_owned(),
        operator: OPERATOR.to_owned(),
        ..Prepare::default()
    };
    let question = world.engine.prepare(question, admitted).await.unwrap();

    let Err(EngineError::FailedPrecondition(text)) = asked else { panic!("{asked:?}") };
    assert!(text.contains("unauthenticated") && text.contains("`authenticated == true`"), "{text}");
    assert_eq!(
        (names(&everybody), names(&without)),
        (vec![CERTIFIED.to_owned()], vec![CERTIFIED.to_owned()])
    );
    assert_eq!(question.targets, 2);
}

#[tokio::test]
async fn c1_no_order_of_an_action_is_sent_to_a_device_without_a_certificate_even_if_a_ledger_says_so() {
    let mut world = World::new().await;
    world.connect(CERTIFIED).await;
    world.connect(&keyed(1)).await;
    let id = world.issue("has(authenticated)").await;

    // Somebody has made an action of what both are targets of.
    world = world.restart(make_it_an_action);
    let unauthenticated = world.connect(&keyed(1)).await;
    let certified = world.connect(CERTIFIED).await;
    world.advance(std::time::Duration::from_secs(5));
    let online = certified.connected.number;
    let sent = world
        .next(|message| match message {
            ShardMessage::Order { targets, .. } => Some(targets),
            ShardMessage::Ack { .. }
            | ShardMessage::Close { .. }
            | ShardMessage::PolicyNotice { .. }
            | ShardMessage::LicenceNotice { .. } => None,
        })
        .await;

    assert!(unauthenticated.connected.due.is_empty());
    assert_eq!(certified.connected.due.len(), 1);
    assert_eq!(sent.iter().collect::<Vec<_>>(), [online]);
    let shown = world.engine.reader().instruction(id).unwrap();
    assert_eq!(counts(&shown), [(TargetState::Queued, 2)]);
}

fn make_it_an_action(database: &Connection) {
    let row = "SELECT position, record FROM definitions";
    let (position, record): (i64, Vec<u8>) =
        database.query_row(row, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let mut held = DocumentRecord::decode(&record[..]).unwrap();
    held.text = held.text.replace("\"question\"", "\"action\"");
    let record = held.encode_to_vec();
    let crc = i64::from(checksum("definitions", &[&key(position)], &record));
    database
        .execute(
            "UPDATE definitions SET record = ?1, crc = ?2 WHERE position = ?3",
            params![record, crc, position],
        )
        .unwrap();
}

#[tokio::test]
async fn c1_a_device_without_a_certificate_touches_nothing_of_one_that_has_one() {
    let mut world = World::new().await;
    let certified = world.connect(CERTIFIED).await;
    world.tell_event(&certified, event(1)).await;
    assert_eq!(world.next_ack().await.1, [range(1, 1)]);
    world.issue("").await;

    // The same outbox, and attributes of the other.
    let says = vec![text("device", CERTIFIED), text("host", "w1")];
    let other = world.connect_with(&keyed(1), outbox(), says).await;
    world.tell_event(&other, event(1)).await;

    assert_ne!(other.connected.number, certified.connected.number);
    assert_eq!((other.connected.highest_sequence, other.connected.due.len()), (0, 0));
    assert_eq!(world.engine.online(), 2);
    assert_eq!(world.next_ack().await.1, [range(1, 1)]);
    let events = world.engine.reader().events(None, 0, 10).unwrap();
    let of: Vec<&str> = events.iter().map(|event| &event.device[..]).collect();
    assert_eq!(of, [CERTIFIED, &keyed(1)]);
}

#[tokio::test]
async fn c1_no_background_channel_has_events_of_a_device_without_a_certificate() {
    let world = World::new().await;
    world.connect(&keyed(1)).await;
    let relayed = RelayedEvent { device: keyed(1), outbox_id: outbox().to_vec(), event: Some(event(1)) };

    let answer = world.engine.relay(vec![relayed]).await.unwrap();

    assert_eq!(answer.accepted, 0);
    assert_eq!(answer.refused[0].cause(), RelayRefusal::Malformed);
}

#[tokio::test]
async fn c1_devices_without_a_certificate_are_bounded_in_all_and_in_a_minute() {
    let world = World::new().await;
    for of in 1..=UNAUTHENTICATED.new_per_minute {
        world.connect(&keyed(of.try_into().unwrap())).await;
    }

    let Some(EngineError::ResourceExhausted(rate)) = refused(&world, &keyed(10)).await else { panic!() };
    assert!(refused(&world, &keyed(1)).await.is_none(), "it is known");
    world.advance(std::time::Duration::from_secs(61));
    assert!(refused(&world, &keyed(10)).await.is_none());
    let Some(EngineError::ResourceExhausted(count)) = refused(&world, &keyed(11)).await else { panic!() };

    assert!(rate.contains("engine.unauthenticated_new_per_minute"), "{rate}");
    assert!(count.contains("engine.unauthenticated_max"), "{count}");
    world.connect(CERTIFIED).await;
    world.engine.remove(keyed(1).parse().unwrap()).await.unwrap();
    assert!(refused(&world, &keyed(11)).await.is_none());
    let world = world.restart(|_| ());
    assert!(refused(&world, &keyed(12)).await.is_some(), "they are counted at the start");
}

#[tokio::test]
async fn c1_events_of_devices_without_a_certificate_are_bounded_in_a_minute_and_others_are_not() {
    let mut world = World::new().await;
    let (certified, other) = (world.connect(CERTIFIED).await, world.connect(&keyed(1)).await);
    let most = u64::from(UNAUTHENTICATED.events_per_minute);
    for sequence in 1..=most {
        world.tell_event(&other, event(sequence)).await;
        assert_eq!(world.next_ack().await.1, [range(sequence, sequence)]);
    }

    world.tell_event(&other, event(most + 1)).await;
    let session = other.key;
    let (reason, away) = world
        .next(|message| match message {
            ShardMessage::Close { session: ended, reason, reconnect_after, .. } if ended == session => {
                Some((reason, reconnect_after))
            }
            ShardMessage::Ack { .. } => panic!("an ack: {message:?}"),
            ShardMessage::Order { .. }
            | ShardMessage::Close { .. }
            | ShardMessage::PolicyNotice { .. }
            | ShardMessage::LicenceNotice { .. } => None,
        })
        .await;
    world.tell_event(&certified, event(1)).await;

    assert_eq!((reason, away.as_secs()), (CloseReason::Shutdown, 60));
    assert_eq!(world.next_ack().await.1, [range(1, 1)]);
    world.advance(std::time::Duration::from_secs(60));
    let again = world.connect(&keyed(1)).await;
    world.tell_event(&again, event(most + 1)).await;
    assert_eq!(world.next_ack().await.1, [range(most + 1, most + 1)]);
}

#[tokio::test]
async fn c1_a_policy_is_for_a_device_without_a_certificate_only_if_it_asks_for_such() {
    let world = World::new().await;
    let (certified, other) = (world.connect(CERTIFIED).await, world.connect(&keyed(1)).await);
    let policy = |serial: u64, audience: &str| {
        let text = policy_text(serial, audience).replace("audience = ''\n", "");
        world.administrator.sign(text.as_bytes(), ContentType::Policy, world.now_ms())
    };

    let asking = world.engine.import_policy(policy(1, "authenticated == false")).await.unwrap();
    let for_all = world.engine.import_policy(policy(2, "")).await.unwrap();
    let linux = world.engine.import_policy(policy(3, "os == \"linux\"")).await.unwrap();

    let digest = |policy: &muster_proto::operator::v1::ClientPolicy| policy.digest.clone();
    let offered = |later: Option<muster_proto::ids::Digest>| later.map(|later| later.to_string());
    assert_eq!(offered(world.check_policy(&other, 0).await), Some(digest(&asking)));
    assert_eq!(offered(world.check_policy(&certified, 0).await), Some(digest(&linux)));
    assert_eq!((asking.behind, for_all.behind, linux.behind), (1, 1, 1));
    let world = world.restart(|_| ());
    let other = world.connect(&keyed(1)).await;
    assert_eq!(offered(world.check_policy(&other, 0).await), Some(digest(&asking)));
    assert_eq!(world.check_policy(&other, 1).await, None);
}

#[tokio::test]
async fn a_policy_that_made_room_is_offered_to_nobody() {
    let world = World::new().await;
    let other = world.connect(&keyed(1)).await;
    let import = |serial: u64, audience: &str| {
        let text = policy_text(serial, audience).replace("audience = ''\n", "");
        world.engine.import_policy(world.administrator.sign(
            text.as_bytes(),
            ContentType::Policy,
            world.now_ms(),
        ))
    };
    let asking = import(1, "authenticated == false").await.unwrap();
    let most = u64::try_from(POLICIES_MAX).unwrap();
    for serial in 2..=most {
        import(serial, "os == \"plan9\"").await.unwrap();
    }
    assert_eq!(world.check_policy(&other, 0).await.unwrap().to_string(), asking.digest);

    import(most + 1, "").await.unwrap();

    assert_eq!(world.check_policy(&other, 0).await, None);
}
