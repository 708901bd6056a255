//! A client whose store was brought back from a copy: the numbers it gives are known to the Switch as another's.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Place, system, wait_until};

const DEVICE: &str = "web1.example.org";

#[test]
fn events_of_a_store_brought_back_from_a_backup_are_not_taken_for_repeats() {
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config("");
    place.client_config_to(DEVICE, place.ports.sessions, "");
    place.add_context();
    let switch = place.start_switch();
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    post(&place, "before");
    wait_until("the event before the copy", || texts(&place).contains("before"));
    client.stop();
    copy(&place, DEVICE, "backup");
    let client = place.start_client(DEVICE);
    for text in ["lost1", "lost2", "lost3"] {
        post(&place, text);
    }
    wait_until("the events after the copy", || texts(&place).len() == 4);
    client.stop();
    let outbox_ids = |place: &Place| -> BTreeSet<String> {
        place.events("test.posted").iter().map(|event| field(event, "outbox_id")).collect()
    };
    assert_eq!(outbox_ids(&place).len(), 1);

    std::fs::remove_dir_all(place.path(DEVICE)).unwrap();
    copy(&place, "backup", DEVICE);
    // The first of them is posted before the session, under a number that was given to `lost1` or to a start.
    let client = place.start_client(DEVICE);
    for text in ["after1", "after2", "after3", "after4", "after5"] {
        post(&place, text);
    }

    wait_until("the events after the restore", || texts(&place).len() == 9);
    assert_eq!(place.events("test.posted").len(), 9, "each of them once");
    assert_eq!(outbox_ids(&place).len(), 2, "the restored store took another outbox_id");
    assert_eq!(place.events("client.started").len(), 3, "its start was not swallowed either");
    assert!(client.log().contains("brought back from a copy"), "{}", client.log());
    // The name it took is its own for good.
    client.stop();
    let client = place.start_client(DEVICE);
    post(&place, "last");
    wait_until("the last event", || texts(&place).contains("last"));
    assert_eq!(outbox_ids(&place).len(), 2);
    client.stop();
    switch.stop();
}

/// The copy holds an order that had not started when it was made, and has run since.
#[test]
fn an_order_that_ran_after_the_backup_is_not_started_again_by_the_restored_store() {
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config("");
    place.background_config();
    place.client_config(DEVICE);
    place.record_starts(DEVICE);
    place.add_context();
    let switch = place.start_switch();
    let background = place.start_background();
    place.import_all();
    place.author_with_resource("Acme-Restored-Marker");
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    background.stop();
    let words = ["run", "Acme-Restored-Marker", "--wait", "1s", "-o", "json"];
    let order = field(&place.muster(words).with_code(3).json(), "instruction");
    client.stop();
    copy(&place, DEVICE, "backup");
    let background = place.start_background();
    let client = place.start_client(DEVICE);
    let show = || place.muster(["instruction", "show", &order, "-o", "json"]).with_code(0).json();
    wait_until("the order to run", || show()["complete"] == true);
    client.stop();
    assert_eq!(place.starts(), 1);

    std::fs::remove_dir_all(place.path(DEVICE)).unwrap();
    copy(&place, "backup", DEVICE);
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);

    place.ask("SELECT name FROM os", 0);
    assert_eq!(place.starts(), 2, "the order of the copy and one question: {}", client.log());
    assert_eq!(show()["states"], serde_json::json!({"answered": 1}));
    client.stop();
    background.stop();
    switch.stop();
}

fn post(place: &Place, text: &str) {
    place.client_command(DEVICE, &["event", "post"], &["test.posted", &format!("text={text}")]).with_code(0);
}

/// What the committed events say.
fn texts(place: &Place) -> BTreeSet<String> {
    place
        .events("test.posted")
        .iter()
        .map(|event| event["fields"]["text"].to_string())
        .map(unquoted)
        .collect()
}

fn unquoted(text: String) -> String {
    text.trim_matches('"').to_owned()
}

fn field(event: &Value, name: &str) -> String {
    event[name].as_str().unwrap_or_else(|| panic!("no {name}: {event}")).to_owned()
}

/// Copies a store whose client is stopped, as a backup does.
fn copy(place: &Place, from: &str, to: &str) {
    let (from, to) = (place.path(from), place.path(to));
    system("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]);
}
