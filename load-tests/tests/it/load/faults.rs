//! Each fault with a few dozen that bring it about: the Switch's metrics show it, and every message comes.

use serde_json::Value;

use super::{measured, number};

/// Healthy sessions, and messages to them without the fault.
const SESSIONS: u64 = 100;
const MESSAGES: u64 = 6;

#[test]
fn who_sends_a_byte_now_and_then_is_ended_in_each_stage() {
    let told = under("slowloris", &["--faulty", "60", "--deadline", "2s"]);

    for key in ["tls_deadlines", "upgrade_deadlines", "hello_deadlines"] {
        assert!(number(&told, key) >= 1.0, "{key}: {told:#}");
    }
}

#[test]
fn everyone_who_vanished_without_a_word_is_found() {
    let told = under("half-open", &["--faulty", "30", "--deadline", "5s"]);

    assert_eq!(told["found"], 30, "{told:#}");
    assert_eq!(told["sessions_ended"], "IDLE 30", "{told:#}");
}

#[test]
fn devices_with_one_identity_push_one_another_out_and_are_reported() {
    let told = under("duplicate-identity", &["--faulty", "20"]);

    // Each came once at least, and found the other or was found by it.
    assert!(number(&told, "superseded") >= 10.0, "{told:#}");
    let reported = told["reported"].as_str().expect("a warning");
    assert!(reported.contains("one certificate and key") && reported.contains("-twin-"), "{told:#}");
}

#[test]
fn who_connects_without_a_descriptor_left_is_turned_away() {
    let told = under("descriptors", &["--faulty", "400", "--deadline", "5s"]);

    // There are 256 beside the healthy sessions at most.
    assert!(number(&told, "shed") >= 144.0, "{told:#}");
    assert!(number(&told, "core_share_percent") < 90.0, "{told:#}");
}

#[test]
fn who_comes_when_a_switch_is_full_is_told_to_come_later() {
    let told = under("memory-cap", &["--faulty", "30"]);

    assert!(number(&told, "shed") >= 30.0, "{told:#}");
    assert!(number(&told, "peak_by_steady") < 2.0, "{told:#}");
}

/// What a fault showed, by which no healthy session died, and every message came.
#[track_caller]
fn under(fault: &str, words: &[&str]) -> Value {
    let (sessions, messages) = (SESSIONS.to_string(), MESSAGES.to_string());
    let all = [&["faults", fault, "--sessions", &sessions, "--messages", &messages], words].concat();

    let told = measured(&all);

    assert_eq!((&told["scenario"], &told["dead_sessions"]), (&fault.into(), &0.into()), "{told:#}");
    assert_eq!(told["latency_without"]["count"], SESSIONS * MESSAGES, "{told:#}");
    let under_it = number(&told, "messages_with");
    assert!(under_it >= MESSAGES as f64, "{told:#}");
    assert_eq!(number(&told["latency_with"], "count"), under_it * SESSIONS as f64, "{told:#}");
    assert!(number(&told, "p99_with_by_without") > 0.0, "{told:#}");
    told
}
