//! Definitions of several steps, of scripts and of typed actions, with real processes: what people are told, and what a client that is killed
//! leaves behind.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{
    Place, Service, Systemd, children, rows, run, sign_definition, wait_for, wait_until, write,
};

const DEVICE: &str = "web1.example.org";

/// A Switch and a client that is online, with nothing of the others.
fn fleet() -> (Place, Service, Service) {
    let (place, switch) = switch();
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    (place, switch, client)
}

fn switch() -> (Place, Service) {
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config("");
    place.background_config();
    place.client_config(DEVICE);
    place.record_starts(DEVICE);
    place.add_context();
    let switch = place.start_switch();
    place.import_all();
    (place, switch)
}

#[track_caller]
fn author(place: &Place, name: &str, kind: &str, rest: &str) {
    let text = format!(
        "name = \"{name}\"\nversion = \"1.0.0\"\nkind = \"{kind}\"\nsays = \"What does it do?\"\napprovals = 0\n{rest}"
    );
    let signed = sign_definition(place.path("").as_path(), name, &text, &place.home());
    run(place.command().args(["definition", "import"]).arg(signed)).with_code(0);
}

#[track_caller]
fn show(place: &Place, id: &str) -> Value {
    place.muster(["instruction", "show", id, "-o", "json"]).with_code(0).json()
}

#[track_caller]
fn problem(place: &Place, id: &str) -> String {
    let results = place.muster(["instruction", "results", id, "-o", "json"]).with_code(0).json();
    results["problems"][0]["problem"].as_str().unwrap_or_else(|| panic!("no problem: {results}")).to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn steps_run_in_their_order_and_the_last_ones_rows_are_the_answer() {
    let (place, switch, client) = fleet();
    let (words, canary) = (place.path("words"), place.path("canary"));
    write(&words, "one\ntwo two\nthree\n");
    author(
        &place,
        "Acme-Test-Lines",
        "question",
        r#"
[[parameter]]
name = "word"
type = "string"

[[parameter]]
name = "path"
type = "string"

[[parameter]]
name = "exact"
type = "boolean"
default = false

[[step]]
query = "SELECT :word AS word"

[[step]]
script = { interpreter = "/bin/sh", text = '''
read -r json
lines=$(grep -cF -- "$1" "$2")
printf '{"lines":%d,"word":"%s","exact":%s,"all":%s}\n' "$lines" "$1" "$3" "$(printf %s "$json" | grep -c '"exact":false')"
''', arguments = ["word", "path", "exact"] }

[[result]]
name = "word"
type = "text"
max_length = 100

[[result]]
name = "lines"
type = "integer"

[[result]]
name = "exact"
type = "boolean"

[[result]]
name = "all"
type = "integer"
"#,
    );
    let hostile = format!("--file=$(touch {})", canary.display());
    for (word, lines) in [("two", 1), ("e", 2), (hostile.as_str(), 0)] {
        let (word_is, path_is) = (format!("word={word}"), format!("path={}", words.display()));
        let words = ["run", "Acme-Test-Lines", "-p", &word_is, "-p", &path_is, "--wait", "30s", "-o", "json"];
        let answer = place.muster(words).with_code(0).json();

        let row = &rows(&answer)[0];
        assert_eq!(
            (&row["word"], &row["lines"], &row["exact"], &row["all"]),
            (&json!(word), &json!(lines), &json!(false), &json!(1)),
            "{answer}"
        );
    }
    assert_eq!(read(&canary), "");
    client.stop();
    switch.stop();
}

#[test]
fn the_first_step_that_fails_ends_it_and_is_told_by_its_number() {
    let (place, switch, client) = fleet();
    let canary = place.path("canary");
    author(
        &place,
        "Acme-Test-Fails",
        "action",
        &format!(
            r#"
[[step]]
script = {{ interpreter = "/bin/sh", text = "echo first >> '{0}'" }}

[[step]]
script = {{ interpreter = "/bin/sh", text = "echo second >> '{0}'; echo why >&2; exit 3" }}

[[step]]
script = {{ interpreter = "/bin/sh", text = "echo third >> '{0}'" }}

[[result]]
name = "none"
type = "integer"
"#,
            canary.display()
        ),
    );
    let words = ["run", "Acme-Test-Fails", "--yes", "--wait", "30s", "-o", "json"];
    let failed = place.muster(words).with_code(3).json();
    assert_eq!(failed["states"], json!({ "failed": 1 }), "{failed}");
    assert_eq!(
        problem(&place, failed["instruction"].as_str().unwrap()),
        "failed: step 2 of 3: the script ended with exit code 3; the end of its standard error: why"
    );
    assert_eq!(read(&canary), "first\nsecond\n");
    client.stop();
    switch.stop();
}

/// Definitions that put a file; the slow one then runs a script that takes its time.
#[track_caller]
fn author_putting(place: &Place, canary: &Path, put: &Path) {
    let marker = place.path("marker.bin");
    std::fs::write(&marker, vec![7; 70_000]).unwrap();
    let words = ["resource", "put", marker.to_str().unwrap(), "--name", "marker"];
    let resource = place.muster(words).with_code(0).out;
    author(
        place,
        "Acme-Test-Put",
        "action",
        &format!(
            r#"
[[parameter]]
name = "path"
type = "string"

{resource}
[[step]]
action = {{ do = "file.put", resource = "marker", path = ":path", mode = "0600" }}

[[result]]
name = "changed"
type = "boolean"

[[result]]
name = "detail"
type = "text"
"#
        ),
    );
    author(
        place,
        "Acme-Test-Slow",
        "action",
        &format!(
            r#"
{resource}
[[step]]
action = {{ do = "file.put", resource = "marker", path = "{1}", mode = "0600" }}

[[step]]
script = {{ interpreter = "/bin/sh", text = "echo begun >> '{0}'; setsid sh -c 'sleep 3; echo daemon >> {0}' & sleep 3; echo ended >> '{0}'" }}

[[result]]
name = "none"
type = "integer"
"#,
            canary.display(),
            put.display()
        ),
    );
}

#[test]
fn an_action_whose_client_is_killed_in_its_middle_is_interrupted_and_never_run_again() {
    let (place, switch, client) = fleet();
    let background = place.start_background();
    let (canary, put) = (place.path("canary"), place.path("").canonicalize().unwrap().join("put"));
    author_putting(&place, &canary, &put);
    let words = ["run", "Acme-Test-Slow", "--yes", "--wait", "1s", "-o", "json"];
    let issued = place.muster(words).with_code(3).json();
    let id = issued["instruction"].as_str().unwrap();
    wait_until("the script to begin", || read(&canary) == "begun\n");
    assert!(!children(client.pid()).is_empty());
    assert_eq!(std::fs::read(&put).unwrap(), vec![7; 70_000], "the step before it");

    client.kill();
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);

    let states = wait_for("its end", || {
        let shown = show(&place, id);
        (shown["complete"] == true).then(|| shown["states"].clone())
    });
    assert_eq!(states, json!({ "interrupted": 1 }));
    // Longer than what was left of it: nothing of it lives, and nothing runs it again.
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(read(&canary), "begun\n");
    assert_eq!(place.starts(), 2, "one helper for each step, once");

    let path = format!("path={}", put.display());
    for changed in [false, true] {
        let words = ["run", "Acme-Test-Put", "-p", &path, "--yes", "--wait", "30s", "-o", "json"];
        let answer = place.muster(words).with_code(0).json();
        assert_eq!(rows(&answer)[0]["changed"], json!(changed), "{answer}");
        write(&put, "another");
    }
    for bad in ["path=put", "path=/tmp/../put", "path=--help"] {
        let words = ["run", "Acme-Test-Put", "-p", bad, "--yes", "--wait", "30s"];
        place.muster(words).with_code(2).naming(&["path", "an absolute path of a file"]);
    }
    client.stop();
    background.stop();
    switch.stop();
}

#[test]
fn what_an_action_did_stays_done_when_a_resource_changes_that_it_was_not_given_by_its_path() {
    let (place, switch, client) = fleet();
    let background = place.start_background();
    let (marker, signed) = (place.path("marker.bin"), vec![7; 70_000]);
    std::fs::write(&marker, &signed).unwrap();
    let words = ["resource", "put", marker.to_str().unwrap(), "--name", "marker"];
    let resource = place.muster(words).with_code(0).out;
    let cached = place.path(DEVICE).join("resources").join(blake3::hash(&signed).to_string());
    let put = place.path("").canonicalize().unwrap().join("put");
    let change = format!("echo changed > '{}'", cached.display());
    let script = |text: &str, more: &str| {
        format!("[[step]]\nscript = {{ interpreter = \"/bin/sh\", text = \"{text}\"{more} }}\n")
    };
    let result = "[[result]]\nname = \"none\"\ntype = \"integer\"\n";
    let outcome = |name: &str, steps: &str| {
        author(&place, name, "action", &format!("{resource}\n{steps}\n{result}"));
        let answer = run(place.command().args(["run", name, "--yes", "--wait", "30s", "-o", "json"])).json();
        let id = answer["instruction"].as_str().unwrap().to_owned();
        let state = answer["states"].as_object().unwrap().keys().next().unwrap().clone();
        let told = if state == "answered" { String::new() } else { problem(&place, &id) };
        (state, told)
    };
    let given = script("cat >/dev/null", ", arguments = [\"marker\"]");

    let not_given = outcome("Acme-Test-NotGiven", &script(&change, ""));
    let was_given = outcome("Acme-Test-WasGiven", &script(&change, ", arguments = [\"marker\"]"));
    let is_given_next = outcome("Acme-Test-GivenNext", &(script(&change, "") + &given));
    let put_next = outcome(
        "Acme-Test-PutNext",
        &format!(
            "{}[[step]]\naction = {{ do = \"file.put\", resource = \"marker\", path = {put:?}, mode = \"0600\" }}\n{}",
            script(&change, ""),
            script("true", "")
        ),
    );

    assert_eq!(not_given, ("answered".to_owned(), String::new()));
    for ((state, told), words) in [
        (
            was_given,
            "it came to its end, but what it was given may not have been what was signed: resource \"marker\"",
        ),
        (is_given_next, "step 2 of 2: not begun: resource \"marker\": its file was changed or removed"),
        (put_next, "step 2 of 3: its resource is not the one that was signed"),
    ] {
        assert_eq!(state, "failed", "{told}");
        assert!(told.contains(words), "{told}");
    }
    assert!(!put.exists());
    client.stop();
    background.stop();
    switch.stop();
}

#[test]
fn a_restart_is_confirmed_by_the_count_and_tells_what_became_of_the_unit() {
    let (place, switch, client) = fleet();
    let restart = |unit: &str, more: &[&str]| {
        let unit = format!("unit={unit}");
        let mut command = place.command();
        command.args(["run", "Muster-Service-Restart", "-p", &unit, "--wait", "30s", "-o", "json"]);
        run(command.args(more))
    };

    restart("ssh", &[]).with_code(2).naming(&["is an action on 1 device"]);
    restart("--version", &["--yes"]).with_code(2).naming(&["unit"]);
    assert_eq!(place.starts(), 0);

    // There is no such unit; on a machine without systemd, there is none at all.
    let failed = restart("muster-test-none", &["--yes"]).with_code(3).json();
    let told = problem(&place, failed["instruction"].as_str().unwrap());
    assert!(told.contains("muster-test-none"), "{told}");
    client.stop();
    switch.stop();
}

#[test]
fn a_restart_of_a_unit_of_a_real_systemd_restarts_it_and_tells_what_it_was_and_is() {
    let (place, switch) = switch();
    let unit = "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/sleep 600\n";
    write(&place.path("units/muster-test.service"), unit);
    write(&place.path("units/broken.service"), &unit.replace("/bin/sleep 600", "/bin/false\nType=oneshot"));
    let Some(systemd) = Systemd::start(&place.path("units"), &place.path("systemd.log")) else { return };
    let client = place.start_client_inside(DEVICE, &systemd);
    place.wait_online(DEVICE);
    let process = || systemd.property("MainPID", Some("muster-test.service")).unwrap();
    let restart = |unit: &str| {
        let unit = format!("unit={unit}");
        let mut command = place.command();
        run(command.args([
            "run",
            "Muster-Service-Restart",
            "-p",
            &unit,
            "--wait",
            "30s",
            "--yes",
            "-o",
            "json",
        ]))
    };
    assert_eq!(process(), "0");

    let started = restart("muster-test").with_code(0).json();
    let first = process();
    let again = restart("muster-test.service").with_code(0).json();
    let second = process();
    let broken = restart("broken").with_code(3).json();

    let detail = |unit: &str, was: &str| json!([{ "device": DEVICE, "changed": true, "detail": format!("{unit}: restart done; it was {was}, is active (running)") }]);
    assert_eq!(started["rows"], detail("muster-test", "inactive (dead)"));
    assert_eq!(again["rows"], detail("muster-test.service", "active (running)"));
    assert!(first != "0" && second != "0" && first != second, "{first} {second}");
    assert_eq!(systemd.property("ActiveState", Some("broken.service")).as_deref(), Some("failed"));
    let told = problem(&place, broken["instruction"].as_str().unwrap());
    assert!(told.contains("systemctl") && told.contains("broken"), "{told}");
    // With systemd, its client ends, too.
    drop(systemd);
    client.kill();
    switch.stop();
}
