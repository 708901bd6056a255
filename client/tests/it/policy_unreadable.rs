//! A policy that was followed, and that the client cannot read any more: it may have forbidden anything.

use muster_client::Config;
use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::session::v1::Lane;
use rusqlite::{Connection, params};

use crate::lab::{Client, Lab};
use crate::policies::{event, integer, outcome, runs, text};
use crate::switch::{FakeSwitch, Session};

/// What a later version of the client would read.
const LATER: &str = "[grants]\nkinds = [\"action\"]\nmoons = [\"full\"]";

#[tokio::test(flavor = "multi_thread")]
async fn k2_a_policy_that_this_version_cannot_read_grants_nothing_and_stays_until_a_later_one_is_followed() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    let config = lab.config();
    follow_first(&switch, &lab).await;
    let unread = lab.policy(1, LATER);
    write(&config, "policy", &unread);

    let (client, mut session) = refuses_everything(&switch, &lab, 1).await;
    assert!(client.policy().await.unreadable.contains("moons"), "{:?}", client.policy().await);
    assert!(config.data_dir.join("policy.toml").exists(), "the copy is what people have left of it");
    // A policy that is tried beside it is kept, and the record of what was followed as well.
    session.offer(lab.policy(2, "switch = [\"wss://localhost:1/v1/session\"]")).await;
    client.wait_for_trial(&mut session, 2).await;
    client.stop().await;
    assert_eq!(read(&config), unread);

    let (client, mut session) = refuses_everything(&switch, &lab, 2).await;
    session.offer(lab.policy(3, "[grants]\nkinds = [\"question\"]")).await;
    session.follows(3).await;
    runs(&mut session, &lab, 3).await;
    let status = client.running.status().await.unwrap();
    assert_eq!((status.policy_serial, status.policy_problem.as_str()), (3, ""));
    client.stop().await;
    assert_ne!(read(&config), unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn k2_a_policy_whose_record_was_damaged_grants_nothing_until_it_came_again() {
    let switch = FakeSwitch::listen().await;
    let lab = Lab::new(switch.port(), 1);
    follow_first(&switch, &lab).await;
    let database = Connection::open(lab.config().data_dir.join("client.db")).unwrap();
    let cut = "UPDATE meta SET value = substr(value, 2) WHERE name = 'policy'";
    assert_eq!(database.execute(cut, []).unwrap(), 1);
    drop(database);

    for number in 1..=2 {
        let (client, _session) = refuses_everything(&switch, &lab, number).await;
        client.stop().await;
    }

    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    session.policy = Some(lab.policy(1, ""));
    session.follows(1).await;
    runs(&mut session, &lab, 3).await;
    client.stop().await;
}

/// A client follows policy 1, and stops.
async fn follow_first(switch: &FakeSwitch, lab: &Lab) {
    let client = lab.start().await;
    let mut session = switch.accept(lab).await;
    session.policy = Some(lab.policy(1, ""));
    session.follows(1).await;
    client.stop().await;
}

/// Starts a client that runs nothing, says why, and takes stops.
async fn refuses_everything(switch: &FakeSwitch, lab: &Lab, number: u8) -> (Client, Session) {
    let client = lab.start().await;
    let mut session = switch.accept(lab).await;
    let told = event(&mut session, "policy.unreadable").await;
    assert_ne!(text(&told, "detail"), "");
    assert!(integer(&told, "highest_serial") >= 1);

    let (refused, progress) = outcome(&mut session, lab, number).await;
    assert_eq!((refused.state(), refused.refusal()), (TargetState::Refused, Refusal::NotGranted));
    assert!(refused.detail.contains("cannot be read") && progress.is_empty(), "{refused:?} {progress:?}");
    session.order(&lab.stop(100 + number, 200 + number)).await;
    let (stopped, _) = session.result().await;
    session.ack(Lane::Results, stopped.sequence).await;
    assert_eq!(stopped.state(), TargetState::Cancelled, "{stopped:?}");
    let status = client.running.status().await.unwrap();
    assert!(status.policy_serial == 0 && !status.policy_problem.is_empty(), "{status:?}");
    (client, session)
}

fn read(config: &Config) -> Vec<u8> {
    let database = Connection::open(config.data_dir.join("client.db")).unwrap();
    database.query_row("SELECT value FROM meta WHERE name = 'policy'", [], |row| row.get(0)).unwrap()
}

/// Writes a record of the store, with a checksum that holds.
pub(crate) fn write(config: &Config, name: &str, value: &[u8]) {
    let mut crc = crc32c::crc32c(b"meta");
    for field in [name.as_bytes(), value] {
        crc = crc32c::crc32c_append(crc, &(field.len() as u64).to_be_bytes());
        crc = crc32c::crc32c_append(crc, field);
    }
    let database = Connection::open(config.data_dir.join("client.db")).unwrap();
    let update = "INSERT OR REPLACE INTO meta (name, value, crc) VALUES (?1, ?2, ?3)";
    assert_eq!(database.execute(update, params![name, value, i64::from(crc)]).unwrap(), 1);
}
