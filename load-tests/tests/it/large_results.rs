//! Answers of several messages, as people see them: whole.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Place, children, kill, rows, run, sign_definition, wait_for, wait_until};

const DEVICE: &str = "web1.example.org";

/// About 3 MiB of rows; the free question may have 4.
const ASKED: i64 = 3_000;

#[test]
fn an_answer_of_several_messages_is_shown_whole_by_ask_and_run_also_when_switch_and_client_are_killed() {
    let place = Place::with_pki(&[DEVICE]);
    place.switch_config("");
    place.client_config_to(DEVICE, place.ports.sessions, "");
    place.record_starts(DEVICE);
    place.add_context();
    let switch = place.start_switch();
    place.import_all();
    let client = place.start_client(DEVICE);
    place.wait_online(DEVICE);

    let answer = place.ask(&numbers(ASKED), 0);
    assert_eq!(told(&answer), (1..=ASKED).collect::<Vec<_>>());

    // The Switch is held while the client still runs, so that all of the answer waits for it on the device's disk.
    let slow = "WITH RECURSIVE slow(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM slow WHERE x < 15000000), \
                n(i) AS (SELECT count(*) - 14999999 FROM slow UNION ALL";
    let text = crate::attacks::large("8 MiB").replace("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL", slow);
    let signed = sign_definition(place.path("").as_path(), "Acme-Test-Large", &text, &place.home());
    run(place.command().args(["definition", "import"]).arg(signed)).with_code(0);
    let before = place.starts();
    let said = place.muster(["run", "Acme-Test-Large", "--wait", "1s", "-o", "json"]).with_code(3).json();
    let id = said["instruction"].as_str().unwrap().to_owned();
    wait_until("its start", || place.starts() > before);
    kill(switch.pid(), Signal::SIGSTOP);
    wait_until("the end of the run", || children(client.pid()).is_empty());
    wait_for("the parts in the outbox", || {
        let waiting = place.status(DEVICE)?["outbox"]["results"].as_u64()?;
        (waiting > 6).then_some(())
    });
    client.kill();
    switch.kill();
    let _switch = place.start_switch();
    let _client = place.start_client(DEVICE);

    let watched =
        place.muster(["instruction", "watch", &id, "--wait", "30s", "-o", "json"]).with_code(0).json();
    let listed = place.muster(["instruction", "results", &id, "-o", "json"]).with_code(0).json();
    assert_eq!(told(&watched), (1..=6_000).collect::<Vec<_>>());
    assert_eq!(told(&listed), told(&watched));
    assert_eq!(place.starts(), before + 1, "it ran once");
}

fn numbers(count: i64) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
         SELECT i AS number, printf('%01000d', i) AS text FROM n"
    )
}

fn told(answer: &Value) -> Vec<i64> {
    rows(answer).iter().map(|row| row["number"].as_i64().unwrap()).collect()
}
