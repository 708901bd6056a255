//! A large CRL comes into use under sessions: none ends, and none waits for it (R7).

use crate::support::{binary, run};

/// `muster-load crl --entries 1000000` is the figure.
const ENTRIES: u64 = 50_000;
/// A session that waited for the list would wait for all of its load.
const STALL_MS: f64 = 250.0;

#[test]
fn r7_sessions_answer_pings_while_a_list_of_fifty_thousand_is_loaded() {
    let mut command = binary("muster-load");
    command.args(["crl", "--entries", &ENTRIES.to_string(), "-o", "json"]);

    let report = run(&mut command).with_code(0).json();

    let told = |phase: &str, name: &str| report[phase][name].as_f64().unwrap_or(f64::NAN);
    let seconds = report["load_seconds"].as_f64().unwrap_or(f64::NAN);
    eprintln!("{ENTRIES} entries in use after {seconds:.3} s");
    for phase in ["idle", "loading", "after"] {
        let [count, p50, p99, max] = ["count", "p50_ms", "p99_ms", "max_ms"].map(|name| told(phase, name));
        eprintln!("pings {phase:<7} p50 {p50:.1} ms   p99 {p99:.1} ms   last {max:.1} ms   of {count}");
        assert!(count >= 100.0, "too few pings: {report}");
        assert!(p99 < STALL_MS, "a stall: {report}");
    }
    assert_eq!(report["lost_sessions"], 0, "{report}");
}
