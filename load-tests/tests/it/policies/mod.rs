//! Client policies under a Switch that lies, and under an honest one whose administrators erred (K1, K4): real processes.

use muster_pki::{Role, UnixTime};
use muster_proto::session::v1::DocumentKind;
use muster_signing::envelope::{self, ContentType, Signer};
use serde_json::Value;

use crate::liar::{Liar, Welcome};
use crate::support::orders::{operator, signer_of, stranger};
use crate::support::{Place, run, wait_for, wait_until, write};

const DEVICE: &str = "web1.example.org";
const OTHER: &str = "web2.example.org";

/// Nobody listens there.
const NOWHERE: &str = "switch = [\"wss://localhost:1/v1/session\"]";

#[test]
fn k1_a_lying_switch_with_the_real_key_changes_no_policy_and_is_reported_to_the_real_one() {
    let place = place();
    let switch = place.start_switch();
    import(&place, 5, "says = \"the fifth\"");
    let _client = place.start_client(DEVICE);
    wait_follows(&place, 5);
    switch.stop();
    let here = format!("switch = [\"wss://localhost:{}/v1/session\"]", place.ports.sessions);
    let administrator = administrator(&place);
    let signed = |serial, more: &str| sign(&text("dev", serial, more), &administrator);
    let mut flipped = signed(9, &here);
    let at = flipped.windows(3).position(|window| window == b"wss").expect("the text");
    flipped[at] ^= 1;
    let lies = [
        ("signature", "by a root of the liar's own", sign(&text("dev", 9, &here), &stranger(Role::Policy))),
        ("signature", "by an operator", sign(&text("dev", 9, &here), &operator(&place))),
        ("signature", "one bit is another", flipped),
        ("older", "an older serial", signed(4, &here)),
        ("not_ours", "another audience", signed(9, &format!("audience = 'device == {OTHER:?}'\n{here}"))),
        ("not_ours", "another organisation", sign(&text("elsewhere", 9, &here), &administrator)),
    ];

    let liar = Liar::listen(&place);
    let mut session = liar.accept(Welcome::default());
    session.until("what the client follows", |told| told.followed.first().copied());
    let mut offered = Vec::new();
    for (_, _, envelope) in &lies {
        offered.push((DocumentKind::Policy, liar.shelve(envelope)));
        session.tell_policy(offered.last().map(|(_, digest)| *digest));
        session.until("the refusal", |told| {
            let refused = told.events.iter().filter(|event| event.name == "policy.refused");
            (refused.count() == offered.len()).then_some(())
        });
    }

    assert_eq!(session.told.asked, offered, "each was looked at");
    assert!(session.told.followed.iter().all(|serial| *serial == 5), "{:?}", session.told.followed);
    drop(session);
    let shown = policy(&place);
    assert_eq!((&shown["serial"], &shown["trial"]), (&Value::from(5), &Value::from(0)), "{shown}");
    assert!(shown["text"].as_str().is_some_and(|text| text.contains("the fifth")), "{shown}");

    // The real Switch hears of it, and takes nothing from the client's word but that.
    drop(liar);
    let _switch = place.start_switch();
    let events = wait_for("six refusals", || {
        Some(place.events("policy.refused")).filter(|events| events.len() >= lies.len())
    });
    let reasons: Vec<_> = events.iter().map(|event| field(event, "reason")).collect();
    for (reason, what, envelope) in &lies {
        let digest = envelope::digest(envelope).to_string();
        let found = events.iter().find(|event| field(event, "digest") == digest.as_str());
        let found = found.unwrap_or_else(|| panic!("{what}: {events:?}"));
        assert_eq!(field(found, "reason"), *reason, "{what}: {reasons:?}");
    }
    wait_until("the Switch to show it", || serial_at_switch(&place) == 5);
}

#[test]
fn k4_an_address_that_does_not_answer_is_rolled_back_reported_and_survives_kill_9_until_somebody_retries() {
    let place = place();
    let _switch = place.start_switch();
    place.import_all();
    import(&place, 5, "");
    let client = place.start_client(DEVICE);
    wait_follows(&place, 5);

    import(&place, 6, NOWHERE);
    // Killed while it is tried: the trial goes on, and ends.
    wait_until("the trial", || policy(&place)["trial"] == 6);
    client.kill();
    let client = place.start_client(DEVICE);
    let event = wait_for("the event", || place.events("policy.rolled_back").into_iter().next());
    assert_eq!((field(&event, "serial"), field(&event, "back_to")), (Value::from(6), Value::from(5)));
    let shown = policy(&place);
    assert_eq!((&shown["serial"], &shown["rolled_back"]), (&Value::from(5), &Value::from(6)), "{shown}");
    assert_eq!(serial_at_switch(&place), 5);

    // Killed after it, and asked to look for a later one: what was tried in vain is not tried again.
    client.kill();
    let _client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    wait_until("the Switch to hear of it", || behind(&place, 6) == 1);
    refresh(&place, &[]);
    place.ask("SELECT name FROM os", 0);
    assert_eq!(policy(&place)["trial"], 0);
    assert_eq!(place.events("policy.rolled_back").len(), 1);

    // Until somebody on the machine says so, or a later one comes.
    refresh(&place, &["--retry"]);
    wait_until("a second trial", || place.events("policy.rolled_back").len() == 2);
    let is_named =
        |event: &Value| field(event, "reason").as_str().is_some_and(|why| why.contains("localhost:1"));
    let events = place.events("policy.rolled_back");
    // The first one may have been over before the restarted client could try anything.
    assert!(events.iter().any(is_named), "{events:?}");
    import(&place, 7, "says = \"the seventh\"");
    wait_follows(&place, 7);
    assert_eq!(policy(&place)["rolled_back"], 0);
    assert_eq!(place.events("policy.refused"), Vec::<Value>::new());
}

#[test]
fn k2_what_a_policy_does_not_grant_is_refused_by_its_code_and_the_rest_is_answered() {
    let place = place();
    let _switch = place.start_switch();
    place.import_all();
    let _client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    import(&place, 1, "[grants]\ntables = [\"os\"]");
    wait_follows(&place, 1);

    place.ask("SELECT name FROM os", 0);
    let refused = place.muster(["ask", "SELECT os.name FROM os JOIN users", "-o", "json", "--wait", "30s"]);

    assert_eq!(refused.code, 4, "{refused:?}");
    let said = format!("{}{}", refused.out, refused.err);
    assert!(said.contains("NOT_GRANTED"), "{said}");
    let shown = policy(&place);
    assert_eq!(shown["grants"]["tables"], serde_json::json!(["os"]), "{shown}");
}

/// A place with a PKI, and a client that believes its administrators of policies and tries for two seconds.
fn place() -> Place {
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config("");
    place.add_context();
    let config = place.client_config(DEVICE);
    let roots = place.home().join("trust/policies.pem");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let text = text.replace("[trust]\n", &format!("[trust]\npolicies = {roots:?}\n"));
    write(&config, &format!("{text}\n[policy]\ntrial = \"2s\"\n"));
    place
}

fn text(tenant: &str, serial: u64, more: &str) -> String {
    format!("serial = {serial}\ntenant = {tenant:?}\n{more}\n")
}

fn sign(text: &str, signer: &Signer) -> Vec<u8> {
    envelope::sign(text.as_bytes(), ContentType::Policy, signer, UnixTime::now()).expect("an envelope")
}

fn administrator(place: &Place) -> Signer {
    signer_of(&place.home(), "policy/cert.pem", "policy/key.pem")
}

#[track_caller]
fn import(place: &Place, serial: u64, more: &str) {
    let file = place.path(&format!("policy-{serial}.cms"));
    std::fs::write(&file, sign(&text("dev", serial, more), &administrator(place))).expect("a file");
    run(place.command().args(["policy", "import"]).arg(file)).with_code(0);
}

/// What `muster-client policy show` tells.
#[track_caller]
fn policy(place: &Place) -> Value {
    place.client_command(DEVICE, &["policy", "show"], &[]).with_code(0).json()
}

#[track_caller]
fn refresh(place: &Place, more: &[&str]) {
    place.client_command(DEVICE, &["policy", "refresh"], more).with_code(0);
}

#[track_caller]
fn wait_follows(place: &Place, serial: u64) {
    wait_until("the device to follow the policy", || serial_at_switch(place) == serial);
}

/// The serial that `muster client show` tells; 0 before the device is known.
fn serial_at_switch(place: &Place) -> u64 {
    let said = place.muster(["client", "show", DEVICE, "-o", "json"]);
    let shown: Value = serde_json::from_str(&said.out).unwrap_or_default();
    shown["policy_serial"].as_u64().or_else(|| shown["policy"].as_u64()).unwrap_or_default()
}

/// How many are to follow a policy and do not.
#[track_caller]
fn behind(place: &Place, serial: u64) -> u64 {
    let shown = place.muster(["policy", "show", &serial.to_string(), "-o", "json"]).with_code(0).json();
    shown["behind"].as_u64().unwrap_or_default()
}

fn field(event: &Value, name: &str) -> Value {
    event["fields"][name].clone()
}
