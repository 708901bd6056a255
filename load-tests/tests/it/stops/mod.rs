//! Stops with real processes: at every place where an instruction can be, and under a Switch that lies.

use muster_load_tests::history::History;
use muster_pki::Role;
use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::order::v1::Order;
use serde_json::{Value, json};

use crate::liar::{Liar, Welcome};
use crate::support::orders::{id, operator, order_of, order_without, sign_order, stranger};
use crate::support::{Place, children, run, sign_definition, wait_for, wait_until, write};

const RUNS: &str = "web1.example.org";
const AWAY: &str = "web2.example.org";

const REASON: &str = "wrong fleet";

#[test]
fn a_stop_ends_what_runs_cancels_what_waits_and_leaves_what_has_answered() {
    let place = Place::with_pki(&[RUNS, AWAY]);
    place.switch_config("");
    for device in [RUNS, AWAY] {
        place.client_config_to(device, place.ports.sessions, "");
    }
    place.record_starts(AWAY);
    place.add_context();
    let switch = place.start_switch();
    place.import_all();
    author_endless(&place);
    let (runs, away) = (place.start_client(RUNS), place.start_client(AWAY));
    place.wait_online(RUNS);
    place.wait_online(AWAY);
    let answered = place.ask("SELECT 1 AS one", 0);
    away.stop();
    wait_until("the Switch to see it go", || !is_online(&place, AWAY));
    let issued = place.muster(["run", "Acme-Test-Endless", "--wait", "1s", "-o", "json"]).with_code(3).json();
    let id = text(&issued, "instruction");
    wait_until("it to run on the one and wait for the other", || {
        show(&place, &id)["states"] == json!({ "queued": 1, "running": 1 })
    });
    wait_until("the helper", || !children(runs.pid()).is_empty());

    let stopped = stop(&place, &id, 0);

    assert_eq!(stopped["states"], json!({ "cancelled": 2 }), "{stopped}");
    assert_eq!((&stopped["targets"], &stopped["complete"]), (&json!(2), &json!(true)));
    assert_eq!(stopped["stop_reason"], REASON);
    wait_until("the helper to be gone", || children(runs.pid()).is_empty());
    let results = place.muster(["instruction", "results", &id, "-o", "json"]).with_code(0).json();
    let told = &results["problems"][0];
    assert_eq!(told["device"], RUNS, "{results}");
    assert!(told["problem"].as_str().is_some_and(|what| what.contains(REASON)), "{told}");

    // A Switch that is killed forgets no stop, and who was away never runs it.
    switch.kill();
    let switch = place.start_switch();
    let away = place.start_client(AWAY);
    place.wait_online(AWAY);
    place.wait_online(RUNS);
    place.ask("SELECT 2 AS two", 0);
    assert_eq!(place.starts(), 2, "the two questions, and never what was stopped");
    assert_eq!(show(&place, &id)["states"], json!({ "cancelled": 2 }));

    // Again, and of what has ended: nothing to stop is nothing wrong.
    assert_eq!(stop(&place, &id, 0)["states"], json!({ "cancelled": 2 }));
    let over = text(&answered, "instruction");
    let said = stop(&place, &over, 0);
    assert_eq!((&said["states"], said.get("stop_reason")), (&json!({ "answered": 2 }), None), "{said}");
    place.muster(["instruction", "stop", "0197a6c8-0000-7000-8000-000000000001"]).with_code(2);

    let export = place.muster(["export"]).with_code(0);
    assert_eq!(History::read(&export.out).check(&[]), []);
    let is_stopped = |record: &Value| record["id"] == id.as_str() && record["stop"]["reason"] == REASON;
    assert!(export.json_lines().iter().any(is_stopped));
    for service in [runs, away, switch] {
        service.stop();
    }
}

#[test]
fn what_waited_when_its_client_ended_never_starts_once_it_was_stopped_meanwhile() {
    let place = Place::with_pki(&[RUNS]);
    place.switch_config("");
    let path = place.client_config_to(RUNS, place.ports.sessions, "");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    // By TCP the kernel says at once that a killed client is gone.
    let text = text.replace("[session]\n", "[session]\ntransport = \"websocket\"\n");
    write(&path, &format!("{text}\n[instructions]\nparallel = 1\n"));
    place.record_starts(RUNS);
    place.add_context();
    let switch = place.start_switch();
    place.import_all();
    author_endless(&place);
    let client = place.start_client(RUNS);
    place.wait_online(RUNS);
    let issue = || {
        let said = place.muster(["run", "Acme-Test-Endless", "--wait", "1s", "-o", "json"]).with_code(3);
        self::text(&said.json(), "instruction")
    };
    let first = issue();
    wait_until("it to run", || show(&place, &first)["states"] == json!({ "running": 1 }));
    let second = issue();
    wait_until("it to wait", || show(&place, &second)["states"] == json!({ "acked": 1 }));
    client.kill();
    wait_until("the Switch to see it go", || !is_online(&place, RUNS));
    place.muster(["instruction", "stop", &second, "--reason", REASON, "--wait", "1s"]).with_code(3);

    let client = place.start_client(RUNS);

    wait_until("both to be answered", || {
        show(&place, &first)["states"] == json!({ "interrupted": 1 })
            && show(&place, &second)["states"] == json!({ "cancelled": 1 })
    });
    assert_eq!(place.starts(), 1, "the first: {}", client.log());
    client.stop();
    switch.stop();
}

#[test]
fn a_lying_switch_stops_nothing_and_cannot_run_what_an_operator_has_stopped() {
    let place = Place::with_pki(&[RUNS]);
    place.switch_config("");
    place.client_config_to(RUNS, place.ports.sessions, "");
    place.record_starts(RUNS);
    place.add_context();
    let [definition, licence] = ["home/definitions/Muster-Os-Version.cms", "home/licence.cms"]
        .map(|name| std::fs::read(place.path(name)).expect("a document"));
    let issue = |number: u8| sign_order(&order_of(&definition, id(number)), &operator(&place));
    let liar = Liar::listen(&place);
    liar.shelve(&definition);
    let welcome = Welcome { licence: Some(liar.shelve(&licence)), ..Welcome::default() };

    // Made up, by somebody with a certificate for it and by the Switch's own key.
    let client = place.start_client(RUNS);
    let mut session = liar.accept(welcome);
    session.deliver(&sign_order(&stop_of(1), &stranger(Role::OrderSigner)));
    session.deliver(&issue(1));
    assert_eq!(session.result(id(1)), (TargetState::Answered, Refusal::Unspecified));

    // A real one, before its order; and the client dies in between.
    session.deliver(&sign_order(&stop_of(2), &operator(&place)));
    assert_eq!(session.result(id(2)), (TargetState::Cancelled, Refusal::Unspecified));
    client.kill();
    drop(session);
    let client = place.start_client(RUNS);
    let mut session = liar.accept(welcome);
    session.deliver(&issue(2));
    session.deliver(&issue(3));
    assert_eq!(session.result(id(3)), (TargetState::Answered, Refusal::Unspecified));
    // What was never acked comes again.
    let of_two = session.told.results.iter().filter(|result| result.instruction == id(2).to_vec());
    assert!(of_two.clone().count() > 0, "{:?}", session.told);
    assert!(of_two.clone().all(|result| result.state() == TargetState::Cancelled), "{:?}", session.told);
    assert_eq!(place.starts(), 2, "the first and the third");
    drop(session);
    drop(liar);

    // What was not believed is told to the real Switch.
    let switch = place.start_switch();
    let events =
        wait_for("the refusal", || Some(place.events("stop.refused")).filter(|events| !events.is_empty()));
    assert_eq!(events.len(), 1, "{events:?}");
    let fields = &events[0]["fields"];
    assert_eq!(fields["instruction"], id(1).to_string(), "{fields}");
    assert_eq!(fields["refusal"], "UNTRUSTED_SIGNER", "{fields}");
    client.stop();
    switch.stop();
}

/// A definition that runs until it is ended.
pub(crate) fn author_endless(place: &Place) {
    let name = "Acme-Test-Endless";
    let text = format!(
        r#"name = "{name}"
version = "1.0.0"
kind = "question"
says = "When does it end?"

[[step]]
query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS answer FROM n"

[[result]]
name = "answer"
type = "integer"

[limits]
run_time = "10m"
"#
    );
    let signed = sign_definition(place.path("").as_path(), name, &text, &place.home());
    run(place.command().args(["definition", "import"]).arg(signed)).with_code(0);
}

#[track_caller]
fn stop(place: &Place, id: &str, code: i32) -> Value {
    let words = ["instruction", "stop", id, "--reason", REASON, "--wait", "30s", "-o", "json"];
    place.muster(words).with_code(code).json()
}

#[track_caller]
fn show(place: &Place, id: &str) -> Value {
    place.muster(["instruction", "show", id, "-o", "json"]).with_code(0).json()
}

fn is_online(place: &Place, device: &str) -> bool {
    place.muster(["client", "show", device, "-o", "json"]).with_code(0).json()["online"] == true
}

#[track_caller]
fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no {name}: {value}")).to_owned()
}

fn stop_of(number: u8) -> Order {
    Order { stops: id(number).to_vec(), reason: REASON.to_owned(), ..order_without(id(number + 100)) }
}
