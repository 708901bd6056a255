//! Each scenario with two hundred devices.

use muster_load_tests::dev_fleet::DevFleet;
use serde_json::json;

use super::{UNSTEADY, measured, number};
use crate::support::{binary, folder, run, with};

#[test]
fn idle_tells_what_a_session_costs_and_writes_its_report() {
    let folder = folder();
    let (html, svg) = (folder.path().join("idle.html"), folder.path().join("idle.svg"));
    let mut command = binary("muster-load");
    command.args(["idle", "--sessions", "1200", "--plot", "-o", "json", "--report"]).arg(&html);

    let told = run(command.arg("--svg").arg(&svg).args(UNSTEADY)).with_code(0).json();

    // A session has state of TLS at least, and no buffers of its own.
    for key in ["bytes_per_session", "bytes_per_session_after_traffic"] {
        assert!((3_000.0..40_000.0).contains(&number(&told, key)), "{key}: {told:#}");
    }
    let (all, tenth) = (number(&told, "process_bytes"), number(&told, "process_bytes_tenth"));
    assert!(all > tenth + 1_080.0 * 3_000.0, "{told:#}");
    let html = std::fs::read_to_string(html).expect("a report");
    assert!(html.contains("<svg ") && html.contains("--sessions 1200"), "{html}");
    let svg = std::fs::read_to_string(svg).expect("a chart");
    // One point at 120 sessions, one at 1,000, one at 1,200.
    let curve = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a curve");
    assert_eq!(curve.split(' ').count(), 3, "{svg}");
}

#[test]
fn idle_needs_nothing_but_the_folder_of_a_fleet_that_runs() {
    let mut fleet = DevFleet::start(0).expect("a fleet");
    let folder = fleet.folder().to_string_lossy().into_owned();

    let told = measured(&["idle", "--sessions", "1000", "--home", &folder]);

    assert!(number(&told, "bytes_per_session") > 3_000.0, "{told:#}");
    assert!(number(&told["machine"], "shards") >= 1.0 && told["machine"]["suite"] == "x25519", "{told:#}");
    let home = fleet.ready.home.to_string_lossy().into_owned();
    let asked = with(binary("muster-load"), ["ask", "--sessions", "50", "--home", &home, "-o", "json"]);
    assert_eq!(asked.with_code(0).json()["answered"], 50);
    let left = with(fleet.muster(), ["client", "list", "-o", "json"]).with_code(0);
    assert!(
        !left.out.contains("load-"),
        "devices that were only for the measurement are left:\n{}",
        left.out
    );
    fleet.stop().expect("an end in order");
}

#[test]
fn connect_tells_full_handshakes_from_resumed_ones() {
    let told = measured(&["connect", "--sessions", "200", "--rounds", "2"]);

    assert_eq!(told["full_latency"]["count"], 400, "{told:#}");
    assert_eq!(told["resumed_latency"]["count"], 400, "{told:#}");
    assert!(number(&told, "full_resumed_share") == 0.0 && number(&told, "resumed_share") == 1.0, "{told:#}");
    for key in ["floor_full_us", "floor_resumed_us", "full_cpu_us", "resumed_cpu_us", "full_cpu_by_floor"] {
        assert!(number(&told, key) > 0.0, "{key}: {told:#}");
    }
}

#[test]
fn broadcast_counts_every_message_at_every_device() {
    let told = measured(&["broadcast", "--sessions", "200", "--rounds", "1", "--burst", "3"]);

    assert_eq!(told["latency"]["count"], 200, "{told:#}");
    assert_eq!(told["burst_latency"]["count"], 600, "{told:#}");
    assert_eq!((&told["repeats"], &told["burst_repeats"]), (&json!(0), &json!(0)), "{told:#}");
    for key in
        ["floor_us", "burst_floor_us", "cpu_us", "prepare_cpu_us", "cpu_by_floor", "last_ms", "burst_cpu_us"]
    {
        assert!(number(&told, key) > 0.0, "{key}: {told:#}");
    }
    // An envelope with a signature and its certificates; what is floored is as long as what is sent.
    assert!(number(&told, "message_bytes") > 1_200.0, "{told:#}");
}

#[test]
fn held_sessions_have_their_heartbeats_and_all_answer_in_the_end() {
    let told = measured(&["hold", "--sessions", "200", "--for", "5s", "--ping-interval", "1s"]);

    // At least four of each: a ping comes a second after the one before, or a tenth later.
    assert!(number(&told, "heartbeats") >= 800.0, "{told:#}");
    assert!((6.0..100.0).contains(&number(&told, "heartbeat_bytes")), "{told:#}");
    assert!((0.001..50.0).contains(&number(&told, "core_share_percent")), "{told:#}");
    assert_eq!(told["push"]["count"], 200, "{told:#}");
    assert_eq!(told["answers"]["count"], 200, "{told:#}");
}

#[test]
fn a_fleet_over_several_workers_is_counted_as_one() {
    let told =
        measured(&["broadcast", "--sessions", "200", "--rounds", "1", "--burst", "2", "--workers", "3"]);

    assert_eq!(told["latency"]["count"], 200, "{told:#}");
    let folder = folder();
    let (promises, export) = (folder.path().join("promises.jsonl"), folder.path().join("export.jsonl"));
    let mut fleet = DevFleet::start(0).expect("a fleet");
    let mut command = binary("muster-load");
    command
        .args(["ask", "--sessions", "200", "--workers", "3", "-o", "json", "--home"])
        .arg(&fleet.ready.home);
    let asked = run(command.arg("--promises").arg(&promises)).with_code(0).json();
    assert_eq!((&asked["answered"], &asked["workers"]), (&json!(200), &json!(3)), "{asked:#}");
    let exported = run(fleet.muster().args(["export", "--format", "jsonl"])).with_code(0).out;
    std::fs::write(&export, exported).expect("the export");
    let promised = std::fs::read_to_string(&promises).expect("the promises");
    assert_eq!(promised.lines().count(), 201, "an order that was accepted, and an ack for each answer");
    run(binary("muster-load").arg("check").arg(&export).arg("--promises").arg(&promises)).with_code(0);
    fleet.stop().expect("an end in order");
}

#[test]
fn a_storm_ends_with_all_sessions_back() {
    let told = measured(&["storm", "--sessions", "200"]);

    assert!(number(&told, "back_seconds") > 0.0, "{told:#}");
    assert!(number(&told, "peak_by_steady") > 0.0, "{told:#}");
    // Each of nine messages at each device, none left out.
    assert_eq!(told["push_before"]["count"], 1_800, "{told:#}");
    assert_eq!(told["lost_sessions"], 200, "{told:#}");
    assert!(number(&told, "peak_bytes") > 10e6, "{told:#}");
}

#[test]
fn slow_readers_are_told_apart_from_the_others() {
    let told = measured(&["slow-readers", "--sessions", "200", "--rounds", "2"]);

    assert_eq!(told["slow_readers"], 20, "{told:#}");
    assert_eq!(told["latency_without"]["count"], 400, "{told:#}");
    assert_eq!(told["latency_with"]["count"], 360, "{told:#}");
    assert!(number(&told, "queue_bytes") > 0.0, "{told:#}");
    assert!(number(&told, "slow_at_end") > 0.0, "{told:#}");
    assert!(number(&told, "filled_bytes") >= number(&told, "held_bytes"), "{told:#}");
}

#[test]
fn churn_brings_as_many_sessions_as_it_takes() {
    let told = measured(&["churn", "--sessions", "200", "--rate", "50", "--seconds", "3"]);

    assert_eq!(told["latency"]["count"], 150, "{told:#}");
    assert!((47.5..50.1).contains(&number(&told, "per_second")), "{told:#}");
    assert!(number(&told, "cpu_us") > 0.0, "{told:#}");
}

#[test]
fn events_are_all_acked() {
    let told = measured(&["events", "--sessions", "200", "--rounds", "2", "--each", "5"]);

    assert_eq!(told["events"], 1_000, "{told:#}");
    assert_eq!(told["latency"]["count"], 2_000, "{told:#}");
}

#[test]
fn a_soak_has_everything_at_once_and_no_session_dies() {
    let told = measured(&["soak", "--sessions", "200", "--for", "6s"]);

    assert_eq!(told["dead_sessions"], 0, "{told:#}");
    for key in ["questions", "events", "comings", "memory_growth"] {
        assert!(number(&told, key) > 0.0, "{key}: {told:#}");
    }
}
