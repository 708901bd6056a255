//! The licence that a client holds, across damage and against another one of its serial.

use muster_client::Config;
use rusqlite::Connection;

use crate::lab::{Lab, TENANT};
use crate::switch::{FakeSwitch, Session};

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_of_the_highest_serial_lets_no_older_licence_in_as_long_as_the_licence_is_there() {
    let switch = FakeSwitch::listen().await;
    let mut lab = Lab::new(switch.port(), 1);
    lab.licence = lab.licence_of(TENANT, 5);
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    until(&mut session, client.wait_for(|status| status.licence_serial == 5)).await;
    client.stop().await;
    damage_serial(&lab.config());

    lab.licence = lab.licence_of(TENANT, 4);
    let client = lab.start().await;
    client.wait_for(|status| status.licence_serial == 5).await;
    let mut session = switch.accept(&lab).await;
    until(&mut session, client.wait_for(|status| status.licence_problem.contains("4"))).await;

    client.wait_for(|status| status.licence_serial == 5).await;
    client.stop().await;
}

async fn until(session: &mut Session, happens: impl Future<Output = ()>) {
    tokio::select! {
        () = happens => {}
        () = session.answer() => {}
    }
}

/// Changes the record without its checksum.
fn damage_serial(config: &Config) {
    let store = Connection::open(config.data_dir.join("client.db")).unwrap();
    let damaged =
        store.execute("UPDATE meta SET value = x'0000000000000009' WHERE name = 'licence_serial'", []);
    assert_eq!(damaged.unwrap(), 1);
}
