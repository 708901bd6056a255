//! Stops with real processes: at every place where an instruction can be, and under a Switch that lies.

mod liar;

use std::time::Duration;

use muster_load_tests::history::History;
use muster_pki::authority::{Authority, Request};
use muster_pki::{Role, UnixTime};
use muster_proto::common::v1::TargetState;
use muster_proto::ids::InstructionId;
use muster_proto::order::v1::{Audience, Order};
use muster_proto::session::v1::Result as InstructionResult;
use muster_signing::envelope::{self, ContentType, Signer};
use muster_signing::order;
use serde_json::{Value, json};

use self::liar::Liar;
use crate::support::{Place, children, run, sign_definition, wait_for, wait_until};

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
fn a_lying_switch_stops_nothing_and_cannot_run_what_an_operator_has_stopped() {
    let place = Place::with_pki(&[RUNS]);
    place.switch_config("");
    place.client_config_to(RUNS, place.ports.sessions, "");
    place.record_starts(RUNS);
    place.add_context();
    let documents = ["home/definitions/Muster-Os-Version.cms", "home/licence.cms"]
        .map(|name| std::fs::read(place.path(name)).expect("a document"));
    let issue = |number: u8| sign(&order(&documents[0], number), &operator(&place));
    let liar = Liar::listen(&place, documents.to_vec());

    // Made up, by somebody with a certificate for it and by the Switch's own key.
    let client = place.start_client(RUNS);
    let mut session = liar.accept();
    session.deliver(&sign(&stop_of(1), &stranger()));
    session.deliver(&issue(1));
    assert_eq!(session.result(), (id(1), TargetState::Answered));

    // A real one, before its order; and the client dies in between.
    session.deliver(&sign(&stop_of(2), &operator(&place)));
    assert_eq!(session.result(), (id(2), TargetState::Cancelled));
    client.kill();
    drop(session);
    let client = place.start_client(RUNS);
    let mut session = liar.accept();
    session.deliver(&issue(2));
    session.deliver(&issue(3));
    let mut ended = vec![session.result()];
    while ended.last().is_some_and(|(instruction, _)| *instruction != id(3)) {
        ended.push(session.result());
    }

    let of = |number| ended.iter().filter(move |(instruction, _)| *instruction == id(number));
    assert!(of(2).all(|(_, state)| *state == TargetState::Cancelled), "{ended:?}");
    assert!(of(3).all(|(_, state)| *state == TargetState::Answered), "{ended:?}");
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
fn author_endless(place: &Place) {
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

/// An instruction's id, made long before now.
fn id(number: u8) -> InstructionId {
    InstructionId::from([1, 0x97, 0xa6, 0xc8, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, number])
}

fn order(definition: &[u8], number: u8) -> Order {
    Order {
        definition_name: "Muster-Os-Version".to_owned(),
        definition_version: version(definition),
        definition_digest: envelope::digest(definition).to_vec(),
        ..common(number)
    }
}

fn stop_of(number: u8) -> Order {
    Order { stops: id(number).to_vec(), reason: REASON.to_owned(), ..common(number + 100) }
}

fn common(number: u8) -> Order {
    let now_ms = i64::try_from(UnixTime::now().as_secs()).expect("a time") * 1_000;
    Order {
        tenant: "dev".to_owned(),
        instruction: id(number).to_vec(),
        licence_serial: 1,
        audience: Some(Audience::default()),
        not_before_ms: now_ms - 60_000,
        expires_at_ms: now_ms + 600_000,
        sequence: u64::from(number),
        operator: "operator".to_owned(),
        ..Order::default()
    }
}

fn version(definition: &[u8]) -> String {
    let text = envelope::inspect(definition).expect("a definition").content;
    let text = String::from_utf8(text).expect("a text");
    let definition = muster_signing::definition::Definition::parse(&text).expect("a definition");
    definition.version().to_string()
}

fn sign(content: &Order, signer: &Signer) -> Vec<u8> {
    envelope::sign(&order::encode(content), ContentType::Order, signer, UnixTime::now()).expect("an envelope")
}

fn operator(place: &Place) -> Signer {
    let read = |name: &str| std::fs::read(place.home().join(name)).expect("a file of the home");
    Signer::from_pem(read("operator/order.pem"), read("operator/order.key")).expect("a signer")
}

/// Somebody with a certificate for orders, of a CA that nobody here knows.
fn stranger() -> Signer {
    let day = Duration::from_secs(86_400);
    let now = UnixTime::now();
    let root = Authority::root("Liars", day, now).expect("a root");
    let issued = root.issue(&Request {
        common_name: "operator".to_owned(),
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        role: Role::OrderSigner,
        not_before: now,
        not_after: UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + day / 2),
        crl_url: Some("http://localhost/crl".to_owned()),
    });
    let issued = issued.expect("a certificate");
    Signer::from_pem(&issued.chain_pem, &issued.key_pem).expect("a signer")
}

/// What is told of a result.
fn told(result: &InstructionResult) -> (InstructionId, TargetState) {
    (InstructionId::try_from(&result.instruction[..]).expect("an id"), result.state())
}
