//! Events: queued by the client while the Switch is away, committed exactly once by whichever road they came.

use std::collections::BTreeSet;

use muster_load_tests::history::{History, Promise};
use serde_json::{Value, json};

use crate::support::{Place, http, wait_for, wait_until};

const DEVICE: &str = "web1.example.org";
/// More than one batch of either road would be by accident.
const MANY: u64 = 25;

#[test]
fn events_posted_while_the_switch_is_stopped_arrive_once_by_the_session() {
    // No Background Channel: the session is the only road.
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config("");
    place.client_config_to(DEVICE, place.ports.sessions, "");
    place.add_context();
    let switch = place.start_switch();
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    let before = post(&place, 1);
    wait_until("the first event", || place.events("test.posted").len() == 1);

    switch.stop();
    let during = post(&place, MANY);
    client.kill();
    let client = place.start_client(DEVICE);
    let switch = place.start_switch();

    let all: Vec<u64> = before.into_iter().chain(during).collect();
    arrived_once(&place, &all);
    assert_eq!(roads(&place), BTreeSet::from(["session".to_owned()]));
    client.stop();
    switch.stop();
}

#[test]
fn events_posted_while_the_switch_is_stopped_arrive_once_by_the_background_channel() {
    let place = place_with_both_roads();
    let background = place.start_background();
    let client = place.start_client(DEVICE);
    wait_until("an event to be posted in vain or by the other road", || place.status(DEVICE).is_some());

    let posted = post(&place, MANY);
    wait_until("the client's outbox to drain to the Background Channel", || outbox_events(&place) == 0);
    background.kill();
    let background = place.start_background();
    let switch = place.start_switch();

    arrived_once(&place, &posted);
    assert!(roads(&place).contains("background"), "{:?}", roads(&place));
    wait_until("the session", || place.status(DEVICE).is_some_and(|status| status["connected"] == true));
    let later = post(&place, 1);
    arrived_once(&place, &[posted, later].concat());
    client.stop();
    background.stop();
    switch.stop();
}

/// The Background Channel took the events and acknowledged them, but the client never heard of it: its outbox is put
/// back to what it was. So the session sends again what the Background Channel relays.
#[test]
fn events_that_took_both_roads_are_committed_once() {
    let place = place_with_both_roads();
    // The events get into the outbox while there is no road at all.
    let client = place.start_client(DEVICE);
    let posted = post(&place, MANY);
    assert!(outbox_events(&place) >= MANY, "some left without a road");
    client.stop();
    copy(&place, DEVICE, "kept");
    let background = place.start_background();
    let client = place.start_client(DEVICE);
    wait_until("the Background Channel to have them", || outbox_events(&place) == 0);
    assert!(spool_bytes(&place).is_some_and(|bytes| bytes > 0.0), "it keeps them for the Switch");
    client.stop();

    // The power cut that takes back what the client had noted.
    std::fs::remove_dir_all(place.path(DEVICE)).unwrap();
    copy(&place, "kept", DEVICE);
    background.stop();
    let switch = place.start_switch();
    let client = place.start_client(DEVICE);
    wait_until("the session to have carried all", || outbox_events(&place) == 0);
    assert_eq!(roads(&place), BTreeSet::from(["session".to_owned()]));
    let background = place.start_background();

    wait_until("the relay to have nothing left", || spool_bytes(&place) == Some(0.0));
    arrived_once(&place, &posted);
    client.stop();
    background.stop();
    switch.stop();
}

fn place_with_both_roads() -> Place {
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config("");
    place.background_config();
    place.client_config(DEVICE);
    place.add_context();
    place
}

/// Posts events and returns their sequences.
fn post(place: &Place, count: u64) -> Vec<u64> {
    (0..count)
        .map(|n| {
            let field = format!("n={n}");
            let said =
                place.client_command(DEVICE, &["event", "post"], &["test.posted", &field]).with_code(0);
            said.out.trim().parse().unwrap()
        })
        .collect()
}

/// Events that wait in the client's outbox, those of its own included.
fn outbox_events(place: &Place) -> u64 {
    wait_for("the client's status", || {
        let status = place.status(DEVICE)?;
        status["outbox"]["events"].as_u64()
    })
}

fn roads(place: &Place) -> BTreeSet<String> {
    place.events("test.posted").iter().map(|event| event["road"].as_str().unwrap().to_owned()).collect()
}

/// Waits for every event, and looks that none is there twice and that nothing else is.
#[track_caller]
fn arrived_once(place: &Place, sequences: &[u64]) {
    let wanted: BTreeSet<u64> = sequences.iter().copied().collect();
    let events = wait_for("every event", || {
        let events = place.events("test.posted");
        (events.len() >= wanted.len()).then_some(events)
    });
    let known: Vec<u64> = events.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
    assert_eq!(known.len(), wanted.len(), "{known:?}");
    assert_eq!(known.iter().copied().collect::<BTreeSet<u64>>(), wanted);
    assert!(known.is_sorted(), "in the device's order: {known:?}");
    assert!(events.iter().all(|event| event["device"] == DEVICE && event["fields"]["n"] != Value::Null));

    let export = place.muster(["export"]).with_code(0);
    let promises: Vec<Promise> = events
        .iter()
        .map(|event| Promise::EventAcked {
            device: DEVICE.to_owned(),
            outbox_id: event["outbox_id"].as_str().unwrap().to_owned(),
            sequence: event["sequence"].as_u64().unwrap(),
        })
        .collect();
    assert_eq!(History::read(&export.out).check(&promises), []);
}

/// Bytes of events that the Background Channel has not relayed yet.
fn spool_bytes(place: &Place) -> Option<f64> {
    let metrics = http(place.ports.background_admin, "/metrics");
    metrics.lines().find_map(|line| line.strip_prefix("muster_background_spool_bytes "))?.parse().ok()
}

fn copy(place: &Place, from: &str, to: &str) {
    let (from, to) = (place.path(from), place.path(to));
    crate::support::system("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]);
}

#[test]
fn a_full_outbox_says_what_it_dropped() {
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config("");
    let config = place.client_config_to(DEVICE, place.ports.sessions, "");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}[outbox]\nevents_bytes_max = \"4 KiB\"\n")).unwrap();
    place.add_context();
    let client = place.start_client(DEVICE);
    post(&place, 200);

    let switch = place.start_switch();

    let gap = wait_for("the gap", || place.events("outbox.gap").into_iter().next());
    let kept = wait_for("the newest", || {
        let events = place.events("test.posted");
        events.iter().any(|event| event["fields"]["n"] == json!(199)).then_some(events)
    });
    let gaps = place.events("outbox.gap");
    let dropped: u64 = gaps.iter().filter_map(|event| event["fields"]["dropped"].as_u64()).sum();
    // The client's own event, that it started, is the oldest and went first.
    assert!(place.events("client.started").is_empty());
    assert_eq!(dropped, 201 - u64::try_from(kept.len()).unwrap(), "{gap}");
    client.stop();
    switch.stop();
}
