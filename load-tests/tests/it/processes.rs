//! Clients and SQL helpers are processes of their own: what happens when one of them is killed in the middle.

use std::process::{Child, Command, Stdio};

use muster_load_tests::history::{History, Promise};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Place, Service, children, kill, rows, sign_definition, wait_for, wait_until};

const DEVICE: &str = "web1.example.org";

/// A query that takes longer than the test waits for it, and returns no row on the way.
const SLOW: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000000000) \
                    SELECT count(*) AS n FROM n";

#[test]
fn a_killed_helper_fails_its_instruction_and_the_client_lives() {
    let (place, _switch, mut client) = running();
    let ask = start_ask(&place, SLOW);
    let helper = wait_for("the helper", || helper_of(&client));
    assert_ne!(helper, client.pid(), "the helper is a process of its own");

    kill(helper, Signal::SIGKILL);
    let (code, answer, errors) = ended(ask);

    assert_eq!(code, 3, "{answer} {errors}");
    assert_eq!(answer["states"], json!({"failed": 1}));
    assert_eq!(rows(&answer), Vec::<Value>::new());
    let detail = detail(&place, &answer);
    assert!(detail.contains("helper") && detail.contains("kill"), "not clear: {detail}");
    assert!(client.runs(), "the client ended with its helper:\n{}", client.log());
    assert_eq!(rows(&place.ask("SELECT name FROM os", 0)).len(), 1, "the next question is answered");
    assert_eq!(place.status(DEVICE).map(|status| status["running"].clone()), Some(json!(0)));
    one_result_each(&place);
}

#[test]
fn who_interrupts_an_ask_is_told_which_instruction_goes_on() {
    let (place, _switch, client) = running();
    let ask = start_ask(&place, SLOW);
    let helper = wait_for("the helper", || helper_of(&client));

    kill(ask.id(), Signal::SIGINT);
    let output = ask.wait_with_output().unwrap();

    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{errors}");
    let listed = place.muster(["instruction", "list", "-o", "json"]).with_code(0).json();
    let id = listed[0]["id"].as_str().unwrap();
    assert!(
        errors.contains("interrupted") && errors.contains(&format!("instruction watch {id}")),
        "{errors}"
    );
    kill(helper, Signal::SIGKILL);
}

#[test]
fn a_query_over_its_time_is_ended_with_its_helper() {
    let (place, _switch, client) = running();
    let text = format!(
        "name = \"Acme-Slow-Count\"\nversion = \"1.0.0\"\nkind = \"question\"\nsays = \"Does it ever end?\"\n\
         [[step]]\nquery = \"{SLOW}\"\n[[result]]\nname = \"n\"\ntype = \"integer\"\n[limits]\nrun_time = \"2s\"\n"
    );
    let signed = sign_definition(&place.path(""), "Acme-Slow-Count", &text, &place.home());
    place.muster(["definition", "import", signed.to_str().unwrap()]).with_code(0);
    let run = start(&place, &["run", "Acme-Slow-Count"]);
    let helper = wait_for("the helper", || helper_of(&client));

    let (code, answer, errors) = ended(run);

    assert_eq!(code, 3, "{answer} {errors}");
    assert_eq!(answer["states"], json!({"failed": 1}));
    let detail = detail(&place, &answer);
    assert!(detail.contains("2s") && detail.contains("limits.run_time"), "not clear: {detail}");
    wait_until("the helper to be gone", || helper_of(&client).is_none());
    assert!(!children(client.pid()).contains(&helper));
}

#[test]
fn a_killed_client_ends_what_it_ran_once_and_only_once() {
    let (place, _switch, client) = running();
    let ask = start_ask(&place, SLOW);
    let helper = wait_for("the helper", || helper_of(&client));

    client.kill();
    wait_until("the helper to end with its client", || {
        !std::path::Path::new(&format!("/proc/{helper}")).exists()
    });
    let client = place.start_client(DEVICE);
    let (code, answer, errors) = ended(ask);

    assert_eq!(code, 3, "{answer} {errors}");
    assert_eq!(answer["states"], json!({"interrupted": 1}), "{errors}");
    assert!(!detail(&place, &answer).is_empty());
    assert_eq!(rows(&place.ask("SELECT name FROM os", 0)).len(), 1, "the same store goes on");
    one_result_each(&place);
    client.stop();
}

#[test]
fn a_client_killed_between_questions_never_answers_one_twice() {
    let (place, _switch, client) = running();
    let mut client = Some(client);

    for _ in 0..3 {
        let ask = start_ask(&place, "SELECT count(*) AS n FROM packages");
        if let Some(client) = client.take() {
            client.kill();
        }
        client = Some(place.start_client(DEVICE));
        let (_, answer, errors) = ended(ask);
        let states = answer["states"].as_object().unwrap();
        let ends = ["answered", "interrupted"].iter().any(|state| states.contains_key(*state));
        assert!(ends && states.len() == 1, "{answer} {errors}");
    }

    one_result_each(&place);
}

/// A Switch with one client, started by hand.
fn running() -> (Place, Service, Service) {
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config("");
    place.client_config(DEVICE);
    place.add_context();
    let switch = place.start_switch();
    place.import_all();
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    (place, switch, client)
}

/// Starts an ask that is left to wait.
fn start_ask(place: &Place, sql: &str) -> Child {
    start(place, &["ask", sql])
}

fn start(place: &Place, words: &[&str]) -> Child {
    let mut command: Command = place.command();
    command.args(words).args(["-o", "json", "--wait", "60s"]).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended(ask: Child) -> (i32, Value, String) {
    let output = ask.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let answer = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}\n{errors}", String::from_utf8_lossy(&output.stdout)));
    (output.status.code().unwrap_or(-1), answer, errors)
}

/// The client's youngest process: the helper, or the one inside the helper's own process namespace.
fn helper_of(client: &Service) -> Option<u32> {
    children(client.pid()).last().copied()
}

/// What the device said of its end, by the export.
fn detail(place: &Place, answer: &Value) -> String {
    let export = place.muster(["export"]).with_code(0);
    let own = |record: &Value| record["kind"] == "result" && record["instruction"] == answer["instruction"];
    let results: Vec<Value> = export.json_lines().into_iter().filter(own).collect();
    assert_eq!(results.len(), 1, "{results:?}");
    results[0]["detail"].as_str().unwrap_or_default().to_lowercase()
}

/// Every instruction of the place has exactly one result and a ledger that adds up.
fn one_result_each(place: &Place) {
    let export = place.muster(["export"]).with_code(0);
    let accepted: Vec<Promise> = export
        .json_lines()
        .iter()
        .filter(|record| record["kind"] == "instruction")
        .map(|record| Promise::Accepted { instruction: record["id"].as_str().unwrap().to_owned() })
        .collect();

    let history = History::read(&export.out);

    assert_eq!(history.check(&accepted), []);
    let (instructions, results, _) = history.counts();
    assert_eq!(results, instructions, "one result an instruction");
}
