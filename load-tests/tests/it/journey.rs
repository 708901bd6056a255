//! The whole way once: what README promises of a fleet of three, as a person would type it.

use std::path::Path;

use muster_load_tests::dev_fleet::DevFleet;
use muster_load_tests::history::{History, Promise, mutation};
use serde_json::{Value, json};

use crate::support::{Said, binary, rows, run, sign_definition, system, with};

const DEVICES: [&str; 3] = ["client-1.dev.muster", "client-2.dev.muster", "client-3.dev.muster"];

#[test]
fn a_fleet_of_three_answers_and_accounts_for_everything() {
    let fleet = DevFleet::start(3).unwrap();
    assert_eq!(fleet.ready.pid.clients.len(), 3, "{:?}", fleet.ready);
    let publisher = fleet.ready.home.join("publisher");
    assert_eq!(fleet.ready.publisher_key, publisher.join("key.pem"));
    assert_eq!(fleet.ready.publisher_cert, publisher.join("cert.pem"));

    let instruction = the_first_ask_answers_in_table_json_and_csv(&fleet);
    the_second_ask_counts_processes_of_an_audience(&fleet);
    what_if_tells_the_targets_and_sends_nothing(&fleet);
    a_definition_of_ones_own_runs_with_a_parameter_and_a_resource(&fleet);
    listings_show_what_there_is(&fleet, &instruction);
    let sequence = an_event_is_listed_once(&fleet);
    the_export_holds_and_whatever_is_broken_in_it_is_found(&fleet, &instruction, sequence);
    with(fleet.muster(), ["doctor"]).with_code(0);
}

#[test]
fn a_fleet_that_is_told_to_stop_stops_its_clients_and_ends_with_0() {
    let mut fleet = DevFleet::start(2).unwrap();
    let clients = fleet.ready.pid.clients.clone();

    let crl_url = std::fs::read_to_string(fleet.ready.home.join("pki/crl-url")).unwrap();
    let ready_file = fleet.folder().join("ready.json");
    assert!(ready_file.exists());
    let authority = fleet.ready.home.join("pki/devices/issuing.pem");
    let authority = system("openssl", &["x509", "-noout", "-text", "-in", authority.to_str().unwrap()]).out;
    assert!(authority.contains(&format!("{}/devices-root.crl", crl_url.trim())), "{crl_url}: {authority}");

    let code = fleet.stop().unwrap();

    assert_eq!(code, Some(0), "{}", fleet.logs());
    assert!(!ready_file.exists(), "it names ports at which nobody listens any more");
    for client in clients {
        assert!(!Path::new(&format!("/proc/{client}")).exists(), "client {client} outlived its fleet");
    }
}

#[test]
fn a_resource_that_was_changed_on_the_way_is_refused_and_never_used() {
    let fleet = DevFleet::start(1).unwrap();
    let (text, root) = put_and_author(&fleet, "Acme-Journey-Corrupt");
    sign_and_import(&fleet, "Acme-Journey-Corrupt", &text);
    let stored = fleet.folder().join("background-channel/resources").join(&root);
    let good = std::fs::read(&stored).unwrap();
    let mut changed = good.clone();
    changed[good.len() / 2] ^= 1;
    std::fs::write(&stored, &changed).unwrap();

    let refused = run_definition(&fleet, "Acme-Journey-Corrupt", "json");

    let answer = refused.with_code(4);
    assert!(format!("{}{}", answer.out, answer.err).contains("RESOURCE"), "{answer:?}");
    assert_eq!(answer.json()["states"], json!({"refused": 1}));
    assert_eq!(rows(&answer.json()), Vec::<Value>::new());
    let cached = fleet.folder().join("clients").join(DEVICES[0]).join("data/resources").join(&root);
    assert!(!cached.exists(), "bytes that were not verified are in the cache");

    std::fs::write(&stored, &good).unwrap();
    let answered = run_definition(&fleet, "Acme-Journey-Corrupt", "json").with_code(0);
    assert_eq!(rows(&answered.json()).len(), 1, "the right bytes are taken afterwards");
}

fn the_first_ask_answers_in_table_json_and_csv(fleet: &DevFleet) -> String {
    let sql = "SELECT name, version FROM os";
    let release = |key: &str| {
        let script = format!(". /etc/os-release; printf %s \"${key}\"");
        system("sh", &["-c", &script]).out
    };
    let (name, version) = (release("NAME"), release("VERSION_ID"));

    let table = with(fleet.muster(), ["ask", sql]).with_code(0);
    let csv = with(fleet.muster(), ["ask", sql, "-o", "csv"]).with_code(0);
    let answer = with(fleet.muster(), ["ask", sql, "-o", "json"]).with_code(0).json();

    let heading: Vec<&str> = table.lines()[0].split_whitespace().collect();
    assert_eq!(heading, ["DEVICE", "NAME", "VERSION"]);
    assert_eq!(table.lines().len(), 4, "{}", table.out);
    for device in DEVICES {
        let line = table.lines().into_iter().find(|line| line.trim_start().starts_with(device));
        assert!(line.is_some_and(|line| line.contains(&name) && line.ends_with(&version)), "{}", table.out);
    }
    let mut csv_lines = csv.lines();
    assert_eq!(csv_lines.remove(0), "device,name,version");
    csv_lines.sort_unstable();
    assert_eq!(csv_lines, DEVICES.map(|device| format!("{device},{name},{version}")));

    let keys: Vec<&String> = answer.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 5, "{keys:?}");
    assert_eq!(answer["targets"], 3);
    assert_eq!(answer["states"], json!({"answered": 3}));
    assert_eq!(answer["columns"], json!(["name", "version"]));
    let wanted = DEVICES.map(|device| json!({"device": device, "name": name, "version": version}));
    assert_eq!(answer["rows"], json!(wanted));
    // A column of the question that is called `device` does not hide whose row it is.
    let sql = "SELECT 'mine' AS device";
    let clash = with(fleet.muster(), ["ask", sql, "-o", "json"]).with_code(0).json();
    assert_eq!(clash["rows"], json!(DEVICES.map(|device| json!({"device": device, "device_1": "mine"}))));
    answer["instruction"].as_str().unwrap().to_owned()
}

fn the_second_ask_counts_processes_of_an_audience(fleet: &DevFleet) {
    let sql = "SELECT name, count(*) AS n FROM processes GROUP BY name ORDER BY n DESC LIMIT 5";

    let answer =
        with(fleet.muster(), ["ask", sql, "--on", "os == \"linux\"", "-o", "json"]).with_code(0).json();

    assert_eq!(answer["states"], json!({"answered": 3}));
    for device in DEVICES {
        let counts: Vec<i64> = rows(&answer)
            .iter()
            .filter(|row| row["device"] == device)
            .map(|row| row["n"].as_i64().unwrap())
            .collect();
        assert_eq!(counts.len(), 5, "{answer}");
        assert!(counts.is_sorted_by(|a, b| a >= b), "{counts:?}");
    }
    let one = format!("device == \"{}\"", DEVICES[1]);
    let answer = with(fleet.muster(), ["ask", sql, "--on", &one, "-o", "json"]).with_code(0).json();
    assert_eq!(answer["targets"], 1);
    with(fleet.muster(), ["ask", sql, "--on", "os == \"plan9\""])
        .with_code(3)
        .naming(&["no device", "plan9"]);
}

fn what_if_tells_the_targets_and_sends_nothing(fleet: &DevFleet) {
    let before = instructions(fleet).len();

    let words = ["ask", "SELECT 1 AS one", "--on", "os == \"linux\"", "--what-if", "-o", "json"];
    let answer = with(fleet.muster(), words).with_code(0).json();

    assert_eq!((&answer["targets"], &answer["online"]), (&json!(3), &json!(3)));
    assert_eq!(instructions(fleet).len(), before);
}

fn a_definition_of_ones_own_runs_with_a_parameter_and_a_resource(fleet: &DevFleet) {
    let (text, root) = put_and_author(fleet, "Acme-Journey-Marker");
    let sha256 = system("sha256sum", &[marker(fleet).to_str().unwrap()]).out[..64].to_owned();
    let listed = with(fleet.muster(), ["resource", "list", "-o", "json"]).with_code(0).json();
    assert_eq!(listed[0]["root"], root.as_str());

    sign_and_import(fleet, "Acme-Journey-Marker", &text);
    let table = run_definition(fleet, "Acme-Journey-Marker", "table").with_code(0);
    let csv = run_definition(fleet, "Acme-Journey-Marker", "csv").with_code(0);
    let answer = run_definition(fleet, "Acme-Journey-Marker", "json").with_code(0).json();

    let wanted = DEVICES.map(
        |device| json!({"device": device, "label": "blue", "next": 8, "size": 100_000, "sha256": sha256}),
    );
    assert_eq!(answer["rows"], json!(wanted));
    assert_eq!(table.lines().len(), 4, "{}", table.out);
    assert_eq!(csv.lines().len(), 4, "{}", csv.out);
    for (argument, word) in
        [("count=ten", "count"), ("count=10", "9"), ("label=BLUE", "label"), ("lable=x", "label")]
    {
        with(fleet.muster(), ["run", "Acme-Journey-Marker", "-p", argument]).with_code(2).naming(&[word]);
    }
    let shown =
        with(fleet.muster(), ["definition", "show", "Acme-Journey-Marker", "-o", "json"]).with_code(0);
    assert_eq!(shown.json()["text"], text.as_str());
    let listed = with(fleet.muster(), ["definition", "list", "-o", "json"]).with_code(0).json();
    let names: Vec<&str> = listed.as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
    assert!(names.contains(&"Acme-Journey-Marker") && names.contains(&"Muster-Core-Query"), "{names:?}");
}

fn listings_show_what_there_is(fleet: &DevFleet, instruction: &str) {
    let listed = instructions(fleet);
    let shown = with(fleet.muster(), ["instruction", "show", instruction, "-o", "json"]).with_code(0).json();
    let results =
        with(fleet.muster(), ["instruction", "results", instruction, "-o", "json"]).with_code(0).json();
    let clients = with(fleet.muster(), ["client", "list", "-o", "json"]).with_code(0).json();
    let client = with(fleet.muster(), ["client", "show", DEVICES[2], "-o", "json"]).with_code(0).json();

    assert!(listed.iter().any(|one| one["id"] == instruction), "{listed:?}");
    assert_eq!((&shown["states"], &shown["complete"]), (&json!({"answered": 3}), &json!(true)));
    assert_eq!(rows(&results).len(), 3);
    let names: Vec<&str> =
        clients.as_array().unwrap().iter().filter_map(|one| one["device"].as_str()).collect();
    assert_eq!(names, DEVICES);
    assert_eq!((&client["online"], &client["host"]), (&json!(true), &json!("client-3")));
    with(fleet.muster(), ["client", "show", "nobody.dev.muster"]).with_code(2).naming(&["nobody.dev.muster"]);
}

fn an_event_is_listed_once(fleet: &DevFleet) -> u64 {
    let data = fleet.folder().join("clients").join(DEVICES[0]).join("data");
    let mut post = binary("muster-client");
    post.args(["event", "post", "--data-dir"]).arg(&data).args(["journey.done", "count=3", "who=me"]);
    let sequence: u64 = run(&mut post).with_code(0).out.trim().parse().unwrap();

    let events = crate::support::wait_for("the event", || {
        let listed = with(fleet.muster(), ["event", "list", "-o", "json"]).with_code(0).json();
        let ours: Vec<Value> =
            listed.as_array()?.iter().filter(|event| event["name"] == "journey.done").cloned().collect();
        (!ours.is_empty()).then_some(ours)
    });

    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["fields"], json!({"count": 3, "who": "me"}));
    assert_eq!((&events[0]["device"], &events[0]["sequence"]), (&json!(DEVICES[0]), &json!(sequence)));
    sequence
}

fn the_export_holds_and_whatever_is_broken_in_it_is_found(
    fleet: &DevFleet,
    instruction: &str,
    sequence: u64,
) {
    let export = with(fleet.muster(), ["export", "--format", "jsonl"]).with_code(0);
    let event = export
        .json_lines()
        .into_iter()
        .find(|record| {
            record["kind"] == "event" && record["sequence"] == sequence && record["name"] == "journey.done"
        })
        .expect("the event is in the export");
    let promises = [
        Promise::Accepted { instruction: instruction.to_owned() },
        Promise::EventAcked {
            device: DEVICES[0].to_owned(),
            outbox_id: event["outbox_id"].as_str().unwrap().to_owned(),
            sequence,
        },
    ];

    let history = History::read(&export.out);
    let violations = history.check(&promises);

    assert_eq!(violations, []);
    let (asks, results, events) = history.counts();
    assert!(
        asks >= 7 && results >= 19 && events >= 1,
        "{asks} instructions, {results} results, {events} events"
    );
    for mutation in mutation::ALL {
        let broken =
            mutation.of(&export.out).unwrap_or_else(|| panic!("{}: nothing to change", mutation.name));
        let found = History::read(&broken).check(&[]);
        let is_found = found.iter().any(|one| one.rule == mutation.breaks);
        assert!(is_found, "{}: {:?} in {found:?}", mutation.name, mutation.breaks);
    }
}

fn instructions(fleet: &DevFleet) -> Vec<Value> {
    let listed = with(fleet.muster(), ["instruction", "list", "-o", "json"]).with_code(0).json();
    listed.as_array().unwrap().clone()
}

fn marker(fleet: &DevFleet) -> std::path::PathBuf {
    fleet.folder().join("marker.bin")
}

/// Puts a resource of several 16 KiB groups and writes a definition that needs it; returns its text and the root.
fn put_and_author(fleet: &DevFleet, name: &str) -> (String, String) {
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect();
    std::fs::write(marker(fleet), bytes).unwrap();
    let path = marker(fleet);
    let put = |output: &str| {
        let words = ["resource", "put", path.to_str().unwrap(), "--name", "marker", "-o", output];
        with(fleet.muster(), words).with_code(0)
    };
    let lines = put("table").out;
    let root = put("json").json()["root"].as_str().unwrap().to_owned();
    assert!(lines.contains(&root), "{lines}");
    let text = format!(
        r#"name = "{name}"
version = "1.0.0"
kind = "question"
says = "What is in the marker, with %label% and %count%?"

[[parameter]]
name = "label"
type = "string"
pattern = '[a-z]+'
max_length = 16

[[parameter]]
name = "count"
type = "integer"
min = 1
max = 9
default = 2

{lines}
[[step]]
query = "SELECT :label AS label, :count + 1 AS next, size, sha256 FROM files WHERE path = :resource_marker"

[[result]]
name = "label"
type = "text"
max_length = 16

[[result]]
name = "next"
type = "integer"

[[result]]
name = "size"
type = "integer"

[[result]]
name = "sha256"
type = "text"
max_length = 64
"#
    );
    (text, root)
}

fn sign_and_import(fleet: &DevFleet, name: &str, text: &str) {
    let signed = sign_definition(fleet.folder(), name, text, &fleet.ready.home);
    let mut verify = binary("muster-sign");
    verify.args(["definition", "verify"]).arg(&signed).arg("--home").arg(&fleet.ready.home);
    run(&mut verify).with_code(0);
    run(fleet.muster().args(["definition", "import"]).arg(&signed)).with_code(0);
}

fn run_definition(fleet: &DevFleet, name: &str, output: &str) -> Said {
    with(fleet.muster(), ["run", name, "-p", "label=blue", "-p", "count=7", "-o", output])
}
