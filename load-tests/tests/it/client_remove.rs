//! Devices that come and go by the operator's word: removed ones, and those the Switch has never seen.

use muster_load_tests::history::History;
use serde_json::{Value, json};

use crate::support::{Place, http, rows, wait_until};

const GONE: &str = "web1.example.org";
const STAYS: &str = "web2.example.org";

#[test]
fn a_removed_device_leaves_all_but_the_record_and_comes_again_as_a_new_one() {
    let place = Place::with_pki(&[GONE, STAYS]);
    place.switch_config("");
    for device in [GONE, STAYS] {
        place.client_config_to(device, place.ports.sessions, "");
    }
    place.add_context();
    let switch = place.start_switch();
    place.import_all();
    let (gone, stays) = (place.start_client(GONE), place.start_client(STAYS));
    place.wait_online(GONE);
    place.wait_online(STAYS);
    place.ask("SELECT 1 AS one", 0);
    post(&place, 1);
    gone.stop();
    wait_until("the Switch to see it go", || listed(&place).contains(&(GONE.to_owned(), false)));
    let asked = place.muster(["ask", "SELECT 2 AS two", "-o", "json", "--wait", "2s"]).with_code(3).json();
    let waiting = asked["instruction"].as_str().unwrap();

    let unconfirmed = place.muster(["client", "remove", GONE]).with_code(2);
    let removed = place.muster(["client", "remove", GONE, "--yes", "-o", "json"]).with_code(0).json();
    place.muster(["client", "remove", GONE, "--yes"]).with_code(2);
    place.muster(["client", "show", GONE]).with_code(2);
    switch.kill();
    let switch = place.start_switch();

    assert!(unconfirmed.err.contains("--yes"), "{}", unconfirmed.err);
    assert_eq!(removed, json!({ "device": GONE, "was_online": false, "cancelled_targets": 1 }));
    place.wait_online(STAYS);
    assert_eq!(listed(&place), [(STAYS.to_owned(), true)]);
    let ended = place.muster(["instruction", "show", waiting, "-o", "json"]).with_code(0).json();
    assert_eq!((&ended["complete"], &ended["targets"]), (&json!(true), &json!(2)));
    assert_eq!(ended["states"], json!({ "answered": 1, "cancelled": 1 }));
    assert_eq!(rows(&place.ask("SELECT 3 AS three", 0)).len(), 1);

    // It comes again, and so does one that was removed while it was online.
    let gone = place.start_client(GONE);
    place.wait_online(GONE);
    post(&place, 2);
    let online = place.muster(["client", "remove", STAYS, "--yes", "-o", "json"]).with_code(0).json();
    assert_eq!(online["was_online"], true);
    place.wait_online(STAYS);
    assert_eq!(rows(&place.ask("SELECT 4 AS four", 0)).len(), 2);

    // A person sees the instruction's id once.
    let table = place.muster(["ask", "SELECT 5 AS five", "--wait", "30s"]).with_code(0);
    assert_eq!(table.err.matches("instruction").count(), 1, "{}", table.err);

    let export = place.muster(["export"]).with_code(0);
    assert_eq!(History::read(&export.out).check(&[]), []);
    for service in [gone, stays, switch] {
        service.stop();
    }
}

#[test]
fn events_of_a_device_that_never_had_a_session_wait_at_the_background_channel() {
    let place = Place::with_pki(&[GONE]);
    place.switch_config("");
    place.background_config();
    place.client_config(GONE);
    place.add_context();
    let background = place.start_background();
    let client = place.start_client(GONE);
    place.client_command(GONE, &["event", "post"], &["test.posted", "n=1"]).with_code(0);
    wait_until("the Background Channel to have it", || {
        place.status(GONE).is_some_and(|status| status["outbox"]["events"] == 0)
    });
    client.stop();

    let switch = place.start_switch();
    wait_until("the Switch to refuse it", || {
        let metrics = http(place.ports.background_admin, "/metrics");
        metrics.contains("muster_background_refused_events_total{cause=\"unknown_device\"}")
    });
    assert_eq!(listed(&place), []);
    assert_eq!(place.events("test.posted").len(), 0);
    let client = place.start_client(GONE);

    wait_until("the event", || place.events("test.posted").len() == 1);
    assert_eq!(place.events("test.posted")[0]["road"], "background");
    for service in [client, background, switch] {
        service.stop();
    }
}

/// Posts an event, and waits until the Switch has so many of the device.
fn post(place: &Place, count: usize) {
    place.client_command(GONE, &["event", "post"], &["test.posted", "n=1"]).with_code(0);
    wait_until("the event", || place.events("test.posted").len() == count);
}

/// The devices that the Switch lists, and whether each is online.
fn listed(place: &Place) -> Vec<(String, bool)> {
    let listed = place.muster(["client", "list", "-o", "json"]).with_code(0).json();
    let told =
        |client: &Value| (client["device"].as_str().unwrap().to_owned(), client["online"].as_bool().unwrap());
    listed.as_array().unwrap().iter().map(told).collect()
}
