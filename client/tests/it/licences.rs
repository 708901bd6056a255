//! The licence that a client holds, across damage and against another one of its serial.

use muster_client::Config;
use rusqlite::Connection;

use crate::lab::{Lab, TENANT};
use crate::policies::runs;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_licence_that_was_signed_again_is_the_same_and_its_new_envelope_is_taken() {
    let switch = FakeSwitch::listen().await;
    let mut lab = Lab::new(switch.port(), 1);
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    until(&mut session, client.wait_for(|status| status.licence_serial == 1)).await;
    client.stop().await;
    assert_eq!(held(&lab.config()), lab.licence);

    lab.licence = lab.licence_signed_again();
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    // What was asked for before comes before.
    runs(&mut session, &lab, 1).await;
    let status = client.running.status().await.unwrap();
    assert_eq!((status.licence_serial, status.licence_problem.as_str()), (1, ""));
    client.stop().await;

    assert_eq!(held(&lab.config()), lab.licence);

    // Another text of this serial is another licence.
    lab.licence = lab.overdue_licence(1);
    let client = lab.start().await;
    let mut session = switch.accept(&lab).await;
    until(&mut session, client.wait_for(|status| status.licence_problem.contains("something else"))).await;
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

fn held(config: &Config) -> Vec<u8> {
    let store = Connection::open(config.data_dir.join("client.db")).unwrap();
    store.query_row("SELECT value FROM meta WHERE name = 'licence'", [], |row| row.get(0)).unwrap()
}
