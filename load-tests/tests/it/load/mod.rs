//! `muster-load` as people call it, at small scale: each scenario, its peers, how it ends, what fails it, and the chaos proxy.

mod ends;
mod failing;
mod faults;
mod peers;
mod proxy;
mod scenarios;

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::{binary, repository, run};

/// Other tests run beside these, so no floor is steady.
const UNSTEADY: [&str; 2] = ["--tolerance", "1000000%"];

/// Where `deploy/ci/install-test-needs` puts programs of PyPI.
fn pip() -> PathBuf {
    repository().join("target/python/bin")
}

/// The program, which finds what is installed for tests behind all else.
fn load() -> Command {
    let mut command = binary("muster-load");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([pip()]);
    command.env("PATH", std::env::join_paths(folders).expect("folders without a colon"));
    command
}

/// What a scenario told, and that it counts.
#[track_caller]
fn measured(words: &[&str]) -> Value {
    let told = run(load().args(words).args(UNSTEADY).args(["-o", "json"])).with_code(0).json();
    assert_eq!(told["problems"], serde_json::json!([]), "{told:#}");
    told
}

/// A figure, or the median of its rounds.
#[track_caller]
fn number(told: &Value, key: &str) -> f64 {
    let figure = &told[key];
    figure
        .as_f64()
        .or_else(|| figure["median"].as_f64())
        .unwrap_or_else(|| panic!("no number {key}: {told:#}"))
}
