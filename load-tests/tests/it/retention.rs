//! Results of a real client that the Switch has kept long enough.

use muster_load_tests::history::History;

use crate::support::{Place, http, run, sign_definition, wait_until};

const DEVICE: &str = "web1.example.org";
const NAME: &str = "Acme-Test-Brief";

fn definition(place: &Place) {
    let text = format!(
        r#"name = "{NAME}"
version = "1.0.0"
kind = "question"
says = "What is there?"

[[step]]
query = "SELECT 'there' AS word"

[[result]]
name = "word"
type = "text"
max_length = 10

[limits]
run_time = "1s"

[time_to_live]
gather = {{ default = "5s", min = "1s", max = "1h" }}
keep = {{ default = "1h", min = "1s", max = "7d" }}
"#
    );
    let signed = sign_definition(place.path("").as_path(), NAME, &text, &place.home());
    run(place.command().args(["definition", "import"]).arg(signed)).with_code(0);
}

#[test]
fn results_go_when_their_time_is_up_and_an_operator_is_told_of_what_stays() {
    let place = Place::with_pki(&[DEVICE]);
    // Nothing is deleted before the clock has stood for so long.
    place.switch_config("[clock]\nsettle = \"1s\"\n");
    place.background_config();
    place.add_context();
    let switch = place.start_switch();
    place.import_all();
    place.client_config(DEVICE);
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);
    definition(&place);

    let asked = |keep: &str| place.muster(["run", NAME, "--keep", keep, "--wait", "20s", "-o", "json"]);
    asked("8d").with_code(2).naming(&["keep time", NAME]);
    let id = |said: crate::support::Said| {
        said.with_code(0).json()["instruction"].as_str().expect("an id").to_owned()
    };
    let (brief, long) = (id(asked("1s")), id(asked("1h")));
    let show = |id: &str| place.muster(["instruction", "show", id, "-o", "json"]).with_code(0).json();
    assert!(show(&brief)["results_kept_until"].is_string(), "{}", show(&brief));
    let rows = |id: &str| place.muster(["instruction", "results", id]).with_code(0).out;
    assert!(rows(&brief).contains("there"), "{}", rows(&brief));

    // What runs at its end may bring its result for half a minute more, so results are never kept for less.
    wait_until("the results to go", || show(&brief)["results_deleted"] == true);

    let told = ["were kept until", "muster instruction targets"];
    place.muster(["instruction", "results", &brief]).with_code(2).naming(&told);
    let sum = "SELECT count(*) AS n FROM results";
    place.muster(["instruction", "aggregate", &brief, "--query", sum]).with_code(2).naming(&told);
    let targets = place.muster(["instruction", "targets", &brief]).with_code(0).out;
    assert!(targets.contains(DEVICE) && targets.contains("answered"), "{targets}");
    assert!(rows(&long).contains("there"), "{}", rows(&long));
    let metrics = http(place.ports.admin, "/metrics");
    assert!(metrics.contains("muster_switch_results_deleted_total 1"), "{metrics}");

    drop(switch);
    let switch = place.start_switch();
    assert_eq!(show(&brief)["results_deleted"], true);
    let export = place.muster(["export"]).with_code(0).out;
    assert_eq!(History::read(&export).check(&[]), []);
    assert_eq!(export.lines().filter(|line| line.contains("\"kind\":\"result\"")).count(), 1, "{export}");
    client.stop();
    switch.stop();
}
