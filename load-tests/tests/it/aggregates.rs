//! Aggregates over the answers of real clients: what a person sees, what scripts get, and what is told of a part.

use serde_json::{Value, json};

use crate::support::{Place, http, run, sign_definition};

const DEVICES: [&str; 2] = ["web1.example.org", "web2.example.org"];

/// Signs a definition whose devices answer two rows each, and has the Switch import it.
fn import(place: &Place, name: &str, aggregate: &str) -> crate::support::Said {
    let text = format!(
        r#"name = "{name}"
version = "1.0.0"
kind = "question"
says = "What is there?"

[[step]]
query = "SELECT 'a' || char(27) || '[2J' AS name, 1 AS size UNION ALL SELECT 'b', NULL"

[[result]]
name = "name"
type = "text"
max_length = 100

[[result]]
name = "size"
type = "integer"

[aggregate]
query = "{aggregate}"

[limits]
run_time = "10s"
rows = 10
bytes = "64 KiB"
"#
    );
    let signed = sign_definition(place.path("").as_path(), name, &text, &place.home());
    run(place.command().args(["definition", "import"]).arg(signed))
}

fn sum(place: &Place, id: &str, query: &str, code: i32) -> Value {
    let words = ["instruction", "aggregate", id, "--query", query, "-o", "json"];
    place.muster(words).with_code(code).json()
}

#[test]
fn an_aggregate_is_shown_for_people_and_scripts_and_a_part_is_never_taken_for_the_whole() {
    let place = Place::with_pki(&DEVICES);
    place.switch_config("");
    place.background_config();
    place.add_context();
    let switch = place.start_switch();
    place.import_all();
    let clients = DEVICES.map(|device| {
        place.client_config(device);
        let client = place.start_client(device);
        place.wait_online(device);
        client
    });
    let own = "SELECT name, count(*) AS devices, sum(size) AS size FROM results GROUP BY name ORDER BY name";
    import(&place, "Acme-Test-Sum", own).with_code(0);
    import(&place, "Acme-Test-Broken", "SELECT bytes FROM results").with_code(1).naming(&[
        "[aggregate]",
        "no such column: bytes",
        "device, name, size",
    ]);

    let id = people_see_the_aggregate_and_scripts_the_rows(&place);
    let whole = the_aggregate_is_had_again_in_every_format(&place, &id);
    wrong_sql_is_told_with_what_there_is(&place, &id);
    a_free_question_is_summed_up_by_a_query(&place);
    let [first, second] = clients;
    second.stop();
    let words = ["run", "Acme-Test-Sum", "--wait", "3s", "-o", "json"];
    let part = place.muster(words).with_code(3).json()["instruction"].as_str().unwrap().to_owned();
    let summed = sum(&place, &part, "SELECT count(*) AS n FROM results", 3);
    assert_eq!((&summed["partial"], &summed["rows"]), (&json!(true), &json!([{ "n": 2 }])));
    place
        .muster(["instruction", "aggregate", &part])
        .with_code(3)
        .naming(&["partial: 1 of 2 targets have not answered"]);

    let metrics = http(place.ports.admin, "/metrics");
    assert!(metrics.contains("muster_switch_aggregates_total{outcome=\"partial\"} 2"), "{metrics}");
    switch.stop();
    let switch = place.start_switch();
    let again = place.muster(["instruction", "aggregate", &id, "-o", "json"]).with_code(0).json();
    assert_eq!(again, whole, "a restart changes nothing");
    first.stop();
    switch.stop();
}

fn people_see_the_aggregate_and_scripts_the_rows(place: &Place) -> String {
    let table = place.muster(["run", "Acme-Test-Sum", "--wait", "30s"]).with_code(0);
    let rows = place.muster(["run", "Acme-Test-Sum", "--wait", "30s", "--rows"]).with_code(0);
    let json = place.muster(["run", "Acme-Test-Sum", "--wait", "30s", "-o", "json"]).with_code(0).json();

    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = table.lines().into_iter().map(words).collect();
    assert_eq!(lines[0], ["NAME", "DEVICES", "SIZE"], "{}", table.out);
    assert_eq!(lines[1..], [words("a\u{fffd}[2J 2 2"), words("b 2")], "{}", table.out);
    table.naming(&["2 rows over 4 rows of 2 devices", "muster instruction results"]);
    assert_eq!(words(rows.lines()[0]), ["DEVICE", "NAME", "SIZE"]);
    assert_eq!(rows.lines().len(), 5, "{}", rows.out);
    assert_eq!(json["columns"], json!(["name", "size"]));
    assert_eq!(json["rows"].as_array().unwrap().len(), 4, "{json}");
    json["instruction"].as_str().unwrap().to_owned()
}

fn the_aggregate_is_had_again_in_every_format(place: &Place, id: &str) -> Value {
    let json = place.muster(["instruction", "aggregate", id, "-o", "json"]).with_code(0).json();
    let csv = place.muster(["instruction", "aggregate", id, "-o", "csv"]).with_code(0);
    let lines = place.muster(["instruction", "aggregate", id, "-o", "jsonl"]).with_code(0);
    let wide = place.muster(["instruction", "aggregate", id, "-o", "wide"]).with_code(0);
    let by_device = "SELECT device, sum(size) AS size FROM results GROUP BY device ORDER BY device";
    let by_device = sum(place, id, by_device, 0);

    let rows = json!([
        { "name": "a\u{1b}[2J", "devices": 2, "size": 2 },
        { "name": "b", "devices": 2, "size": null },
    ]);
    assert_eq!(json["rows"], rows);
    assert_eq!(json["states"], json!({ "answered": 2 }));
    let told = ["targets", "devices", "rows_read", "partial"].map(|key| json[key].clone());
    assert_eq!(told, [json!(2), json!(2), json!(4), json!(false)], "{json}");
    assert_eq!(csv.out, "name,devices,size\na\u{1b}[2J,2,2\nb,2,\n");
    assert_eq!(json!(lines.json_lines()), rows);
    assert!(!wide.out.contains('\u{1b}') && wide.lines().len() == 3, "{}", wide.out);
    assert_eq!(by_device["rows"], json!(DEVICES.map(|device| json!({ "device": device, "size": 1 }))));
    json
}

fn wrong_sql_is_told_with_what_there_is(place: &Place, id: &str) {
    for (query, words) in [
        ("SELECT bytes FROM results", ["no such column: bytes", "the columns device, name, size"]),
        ("SELECT * FROM processes", ["no such table: processes", "the columns device, name, size"]),
        ("ATTACH '/tmp/x.db' AS x", ["ATTACH is refused", "one SELECT over `results`"]),
        ("DELETE FROM results", ["is refused", "one SELECT over `results`"]),
    ] {
        let said = place.muster(["instruction", "aggregate", id, "--query", query]).with_code(2);
        said.naming(&words).naming(&["try: muster instruction aggregate --help"]);
    }
    place.muster(["instruction", "aggregate", "0197a6c8-0000-7000-8000-000000000001"]).with_code(2);
}

fn a_free_question_is_summed_up_by_a_query(place: &Place) {
    let answer = place.ask("SELECT name, version FROM os", 0);
    let id = answer["instruction"].as_str().unwrap();

    place.muster(["instruction", "aggregate", id]).with_code(2).naming(&[
        "Muster-Core-Query",
        "has no [aggregate]",
        "--query 'SELECT",
    ]);
    let summed =
        sum(place, id, "SELECT name, count(DISTINCT device) AS devices FROM results GROUP BY name", 0);

    let name = &answer["rows"][0]["name"];
    assert_eq!(summed["rows"], json!([{ "name": name, "devices": 2 }]));
}
