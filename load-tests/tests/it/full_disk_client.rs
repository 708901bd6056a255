//! A full disk under a running client: what it takes it keeps, what it cannot take it says, and it lives on.

use muster_load_tests::history::{History, Promise};
use serde_json::{Value, json};
use std::collections::BTreeSet;

use crate::stops::author_endless;
use crate::support::{Place, Said, Service, SmallDisk, children, lacks_root, rows, wait_until};

const DEVICE: &str = "web1.example.org";
/// Bytes of a large event: an event may have 64 KiB.
const LARGE: usize = 40 * 1024;
/// More events than fit on the small disk.
const MANY: usize = 400;

#[test]
fn a_client_on_a_full_disk_says_so_keeps_what_it_took_and_lives_on() {
    if lacks_root() {
        return;
    }
    let place = Place::with_pki(&[DEVICE]);
    let small = SmallDisk::mount(place.path(DEVICE));
    place.switch_config("");
    place.client_config_to(DEVICE, place.ports.sessions, "");
    place.add_context();
    let switch = place.start_switch();
    place.import_all();
    let mut client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    let before = place.ask("SELECT name FROM os", 0);
    let mut taken = vec![sequence(&post(&place, 1).with_code(0))];

    small.fill(0);
    // The log of the store has some room left.
    let refused = post_until_refused(&place, LARGE, &mut taken);
    refused.with_code(69).naming(&["disk", "full", "free some space"]);
    post_until_refused(&place, 1, &mut taken).with_code(69).naming(&["disk", "full", "free some space"]);
    assert!(client.runs(), "{}", client.log());
    assert!(place.status(DEVICE).is_some(), "it tells how it is");
    let during = place.muster(["ask", "SELECT name FROM os", "-o", "json", "--wait", "2s"]);
    assert!(during.code == 0 || during.code == 3, "answered, or not yet: {during:?}");
    let during = during.json();

    small.free();
    let words = ["instruction", "watch", &id(&during), "-o", "json", "--wait", "60s"];
    let watched = place.muster(words).with_code(0).json();
    assert_eq!(rows(&watched), rows(&before), "it is answered when there is room");
    taken.push(sequence(&post(&place, 1).with_code(0)));
    let wanted: BTreeSet<u64> = taken.into_iter().collect();
    let known = || place.events("test.posted").iter().map(number).collect::<Vec<u64>>();
    wait_until("every event that was taken", || known().len() >= wanted.len());
    let known = known();
    assert_eq!(known.len(), wanted.len(), "each once, and none that was refused");
    assert_eq!(known.into_iter().collect::<BTreeSet<u64>>(), wanted);
    let promises = [&before, &during].map(|answer| Promise::Accepted { instruction: id(answer) });
    let export = place.muster(["export"]).with_code(0);
    assert_eq!(History::read(&export.out).check(&promises), []);
    client.stop();
    switch.stop();
}

#[test]
fn a_client_that_is_stopped_on_a_full_disk_ends_and_has_everything_it_took_when_it_starts_again() {
    if lacks_root() {
        return;
    }
    let place = Place::with_pki(&[DEVICE]);
    let small = SmallDisk::mount(place.path(DEVICE));
    place.switch_config("");
    place.client_config_to(DEVICE, place.ports.sessions, "");
    place.add_context();
    // No Switch yet: everything waits.
    let client = place.start_client(DEVICE);
    small.fill(0);
    let mut taken = Vec::new();
    post_until_refused(&place, LARGE, &mut taken).with_code(69).naming(&["disk", "full"]);

    client.stop();
    let mut refused = place.start("muster-client", DEVICE);
    assert_eq!(refused.ends(), Some(69), "{}", refused.log());
    assert!(refused.log().contains("keep every file there"), "{}", refused.log());

    small.free();
    let switch = place.start_switch();
    let client = place.start_client(DEVICE);
    wait_until("every event that was taken", || place.events("test.posted").len() >= taken.len());
    let known: Vec<u64> = place.events("test.posted").iter().map(number).collect();
    assert_eq!(known, taken);
    client.stop();
    switch.stop();
}

#[test]
fn a_stop_ends_what_runs_while_the_disk_is_full_and_is_answered_when_there_is_room() {
    if lacks_root() {
        return;
    }
    let place = Place::with_pki(&[DEVICE]);
    let Endless { small, switch, client, instruction: endless } = Endless::on_a_small_disk(&place);

    small.fill(0);
    // What is taken on meanwhile waits for room.
    let during =
        place.muster(["ask", "SELECT name FROM os", "-o", "json", "--wait", "1s"]).with_code(3).json();
    wait_until("it to wait", || client.log().contains("instructions wait for room"));
    assert!(!children(client.pid()).is_empty(), "it runs");
    stop_without_room(&place, &client, &endless);

    small.free();
    wait_for_its_answer(&place, &endless);
    let watch = ["instruction", "watch", &id(&during), "-o", "json", "--wait", "60s"];
    assert_eq!(rows(&place.muster(watch).with_code(0).json()).len(), 1, "what waited runs");
    client.stop();
    switch.stop();
}

#[test]
fn a_stop_ends_what_runs_where_the_session_has_to_be_made_anew_while_the_disk_is_full() {
    if lacks_root() {
        return;
    }
    let place = Place::with_pki(&[DEVICE]);
    let Endless { small, switch, client, instruction: endless } = Endless::on_a_small_disk(&place);

    small.fill(0);
    switch.stop();
    let switch = place.start_switch();
    stop_without_room(&place, &client, &endless);
    assert!(client.log().contains("this session hears stops of what runs"), "{}", client.log());

    small.free();
    wait_for_its_answer(&place, &endless);
    client.stop();
    switch.stop();
}

/// A query without end on a client whose disk is small.
struct Endless {
    small: SmallDisk,
    switch: Service,
    client: Service,
    instruction: String,
}

impl Endless {
    fn on_a_small_disk(place: &Place) -> Self {
        let small = SmallDisk::mount(place.path(DEVICE));
        place.switch_config("");
        place.client_config_to(DEVICE, place.ports.sessions, "");
        place.add_context();
        let switch = place.start_switch();
        place.import_all();
        author_endless(place);
        let client = place.start_client(DEVICE);
        place.wait_online(DEVICE);
        let run = ["run", "Acme-Test-Endless", "--wait", "1s", "-o", "json"];
        let instruction = id(&place.muster(run).with_code(3).json());
        wait_until("the helper", || !children(client.pid()).is_empty());
        Self { small, switch, client, instruction }
    }
}

/// Stops it: nothing of it runs any more, and its answer waits for room.
fn stop_without_room(place: &Place, client: &Service, instruction: &str) {
    let stop =
        ["instruction", "stop", instruction, "--reason", "it fills the disk", "--wait", "1s", "-o", "json"];
    let stopped = place.muster(stop).json();
    wait_until("the helper to be gone", || children(client.pid()).is_empty());
    assert_ne!(stopped["states"], json!({ "cancelled": 1 }), "there is no room for the answer");
}

fn wait_for_its_answer(place: &Place, instruction: &str) {
    let show = || place.muster(["instruction", "show", instruction, "-o", "json"]).with_code(0).json();
    wait_until("the answer", || show()["states"] == json!({ "cancelled": 1 }));
}

/// Posts events of one size until one is refused; the numbers of the others are noted.
#[track_caller]
fn post_until_refused(place: &Place, bytes: usize, taken: &mut Vec<u64>) -> Said {
    for _ in 0..MANY {
        let said = post(place, bytes);
        if said.code != 0 {
            return said;
        }
        taken.push(sequence(&said));
    }
    panic!("{MANY} events of {bytes} bytes fit on a full disk");
}

fn post(place: &Place, bytes: usize) -> Said {
    let field = format!("text={}", "x".repeat(bytes));
    place.client_command(DEVICE, &["event", "post"], &["test.posted", &field])
}

#[track_caller]
fn sequence(said: &Said) -> u64 {
    said.out.trim().parse().unwrap()
}

fn number(event: &Value) -> u64 {
    event["sequence"].as_u64().unwrap()
}

fn id(answer: &Value) -> String {
    answer["instruction"].as_str().unwrap().to_owned()
}
