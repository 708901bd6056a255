//! Approvals with real processes: nothing runs before as many people have signed as the author asks for, whatever is killed meanwhile.

use std::path::{Path, PathBuf};

use muster_load_tests::history::History;
use serde_json::{Value, json};

use crate::support::{Place, Said, binary, run, sign_definition, system, wait_until};

const HERE: &str = "web1.example.org";
const AWAY: &str = "web2.example.org";
const NAME: &str = "Acme-Test-Approved";

const DEFINITION: &str = r#"name = "Acme-Test-Approved"
version = "1.0.0"
kind = "question"
says = "Is it %answer%?"
approvals = 2

[[parameter]]
name = "answer"
type = "integer"
min = 0
max = 100
default = 42

[[step]]
query = "SELECT :answer AS answer"

[[result]]
name = "answer"
type = "integer"
"#;

/// The store of the Switch goes back to before the version that wants approvals, as a lying Switch would have it.
#[test]
fn attack_rollback_a_switch_cannot_take_approvals_away_by_a_version_that_nobody_typed() {
    let place = Place::with_pki(&[HERE]);
    place.switch_config("");
    place.client_config_to(HERE, place.ports.sessions, "");
    place.add_context();
    let switch = place.start_switch();
    place.import_all();
    let version = |version: &str, approvals: &str| {
        let text = DEFINITION.replace("1.0.0", version).replace("approvals = 2\n", approvals);
        let signed = sign_definition(&place.path(""), &format!("{NAME}-{version}"), &text, &place.home());
        place.muster(["definition", "import", signed.to_str().unwrap()]).with_code(0);
    };
    version("1.0.0", "");
    let client = place.start_client(HERE);
    place.wait_online(HERE);
    client.stop();
    switch.stop();
    let (held, copy) = (place.path("switch"), place.path("copy"));
    let cp = |from: &Path, to: &Path| {
        system("cp", &["-a", from.to_str().unwrap(), to.to_str().unwrap()]).with_code(0)
    };
    cp(&held, &copy);
    let switch = place.start_switch();
    version("2.0.0", "approvals = 2\n");
    switch.stop();
    std::fs::remove_dir_all(&held).unwrap();
    cp(&copy, &held);
    let switch = place.start_switch();

    let issued = place.muster(["run", NAME, "-p", "answer=7", "--wait", "1s", "-o", "json"]);

    let refused = issued.with_code(4);
    refused.naming(&[
        "Acme-Test-Approved 1.0.0",
        "wanted 2.0.0 or later",
        "no version was typed",
        "nothing was signed",
    ]);
    assert_eq!(place.muster(["instruction", "list", "-o", "jsonl"]).with_code(0).json_lines().len(), 0);
    let typed =
        ["run", NAME, "--definition-version", "1.0.0", "-p", "answer=7", "--wait", "1s", "-o", "json"];
    place.muster(typed).with_code(3);
    switch.stop();
}

#[test]
fn an_instruction_runs_once_others_have_signed_it_and_not_before() {
    let place = Place::with_pki(&[HERE, AWAY]);
    place.switch_config("");
    for device in [HERE, AWAY] {
        place.client_config_to(device, place.ports.sessions, "");
    }
    place.record_starts(HERE);
    place.add_context();
    let switch = place.start_switch();
    place.import_all();
    import(&place);
    let (here, away) = (place.start_client(HERE), place.start_client(AWAY));
    place.wait_online(HERE);
    place.wait_online(AWAY);
    away.stop();
    let (bob, carol) = (approver(&place, "bob"), approver(&place, "carol"));

    let issued = place.muster(["run", NAME, "-p", "answer=7", "--wait", "1s", "-o", "json"]).with_code(3);
    assert!(issued.err.contains("muster instruction approve "), "{}", issued.err);
    let id = issued.json()["instruction"].as_str().expect("an id").to_owned();
    let standing = show(&place, &id);
    assert_eq!(standing["states"], json!({ "queued": 2 }), "{standing}");
    assert_eq!((&standing["approvals_wanted"], &standing["approvals_missing"]), (&json!(2), &json!(2)));

    // Who issued it cannot approve it, and nobody does without a word of what it is.
    place.muster(["instruction", "approve", &id, "--yes"]).with_code(4).naming(&["another person's"]);
    as_approver(&bob, &["instruction", "approve", &id]).with_code(2).naming(&["--yes", "2 devices"]);
    let first = as_approver(&bob, &["instruction", "approve", &id, "--yes", "-o", "json"]).with_code(3);
    for told in [NAME, "Is it %answer%?", "answer = 7", "2 devices", "operator"] {
        assert!(first.err.contains(told), "{told}: {}", first.err);
    }
    assert_eq!(first.json()["approvals_missing"], 1);
    let twice = as_approver(&bob, &["instruction", "approve", &id, "--yes"]);
    twice.with_code(4).naming(&["another person's"]);
    assert_eq!(place.starts(), 0, "nothing has run");

    // A Switch that is killed has both what waits and who approved it.
    switch.kill();
    let switch = place.start_switch();
    place.wait_online(HERE);
    let last = ["instruction", "approve", &id, "--yes", "--wait", "2s", "-o", "json"];
    let last = as_approver(&carol, &last).with_code(3).json();
    assert_eq!(last["approvals_missing"], 0, "{last}");
    wait_until("the answer of who is here", || {
        show(&place, &id)["states"] == json!({ "answered": 1, "queued": 1 })
    });
    let away = place.start_client(AWAY);
    wait_until("all answers", || show(&place, &id)["complete"] == true);
    assert_eq!(place.starts(), 1);
    let results = place.muster(["instruction", "results", &id, "-o", "json"]).with_code(0).json();
    assert_eq!(results["rows"][0]["answer"], 7, "{results}");
    let again = as_approver(&carol, &["instruction", "approve", &id, "--yes"]).with_code(0);
    assert!(again.err.contains("lacks no approval any more"), "{}", again.err);

    let export = place.muster(["export"]).with_code(0);
    assert_eq!(History::read(&export.out).check(&[]), []);
    let names = |record: &Value| {
        let given = record["approvals"].as_array()?;
        Some(given.iter().map(|given| given["operator"].clone()).collect::<Vec<_>>())
    };
    let record =
        export.json_lines().into_iter().find(|record| record["id"] == id.as_str()).expect("it is there");
    assert_eq!(names(&record), Some(vec![json!("bob"), json!("carol")]), "{record}");
    for service in [here, away, switch] {
        service.stop();
    }
}

#[track_caller]
fn import(place: &Place) {
    let signed = sign_definition(place.path("").as_path(), NAME, DEFINITION, &place.home());
    run(place.command().args(["definition", "import"]).arg(signed)).with_code(0);
}

/// Another operator's home: the same trust and context, with a certificate and an order key of their own.
pub(crate) fn approver(place: &Place, name: &str) -> PathBuf {
    let home = place.path(&format!("home-{name}"));
    for folder in ["trust", "operator"] {
        std::fs::create_dir_all(home.join(folder)).expect("a folder");
    }
    for entry in std::fs::read_dir(place.home().join("trust")).expect("the trust") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), home.join("trust").join(entry.file_name())).expect("a copy");
    }
    std::fs::copy(place.home().join("contexts.toml"), home.join("contexts.toml")).expect("a copy");
    for (role, file) in [("operator", "tls"), ("order", "order")] {
        place.issue(&[name, "--role", role]);
        for ending in ["pem", "key"] {
            let made = place.path(&format!("certs/{name}.{ending}"));
            std::fs::rename(made, home.join(format!("operator/{file}.{ending}"))).expect("a file");
        }
    }
    home
}

fn as_approver(home: &Path, words: &[&str]) -> Said {
    let mut command = binary("muster");
    run(command.env("MUSTER_HOME", home).args(words))
}

#[track_caller]
fn show(place: &Place, id: &str) -> Value {
    place.muster(["instruction", "show", id, "-o", "json"]).with_code(0).json()
}
