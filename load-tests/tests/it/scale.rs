//! Two thousand devices, each with its own key and certificate, connect to one Switch and all answer one ask.

use crate::support::{binary, run};

const SESSIONS: u64 = 2_000;

#[test]
fn two_thousand_devices_connect_and_all_answer_one_ask() {
    let mut command = binary("muster-load");
    command.args(["ask", "--sessions", &SESSIONS.to_string(), "-o", "json"]);

    let report = run(&mut command).with_code(0).json();

    let told = |name: &str| report[name].to_string();
    let quantiles = |name: &str| {
        let of = |quantile: &str| report[name][quantile].as_f64().unwrap_or(f64::NAN);
        format!("p50 {:.1} ms   p99 {:.1} ms   last {:.1} ms", of("p50_ms"), of("p99_ms"), of("max_ms"))
    };
    eprintln!("sessions           {} ({} dead)", told("sessions"), told("dead_sessions"));
    eprintln!("connects/s         {:.0}", report["connects_per_second"].as_f64().unwrap_or(f64::NAN));
    eprintln!("bytes a session    {}", told("bytes_per_session"));
    eprintln!("order at devices   {}", quantiles("order_at_device"));
    eprintln!("answers acked      {}", quantiles("answer_acked"));
    eprintln!("complete after     {} s", told("complete_seconds"));
    assert_eq!(report["sessions"], SESSIONS, "{report:#}");
    assert_eq!(report["dead_sessions"], 0, "{report:#}");
    assert_eq!(report["answered"], SESSIONS, "{report:#}");
    for measured in ["connect", "order_at_device", "answer_acked"] {
        assert_eq!(report[measured]["count"], SESSIONS, "{measured}: {report:#}");
    }
    assert!(report["bytes_per_session"].as_u64().is_some_and(|bytes| bytes > 0), "{report:#}");
}
