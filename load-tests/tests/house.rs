//! Holds the walls of ARCHITECTURE.md that the compiler can't: who may use whom, what pure crates may not touch, where
//! `unsafe` may stand, how long a file may be.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A crate, its folder, and the workspace crates it may use (dev-dependencies apart).
const LAYERS: &[(&str, &str, &[&str])] = &[
    ("muster-proto", "proto", &[]),
    ("muster-proto-grpc", "proto/grpc", &["muster-proto"]),
    ("muster-pki", "signing/pki", &[]),
    ("muster-signing", "signing", &["muster-proto", "muster-pki"]),
    ("muster-sign", "signing/tool", &["muster-signing", "muster-pki"]),
    ("muster-service", "deploy/service", &["muster-pki"]),
    (
        "muster-switch",
        "switch",
        &["muster-proto", "muster-proto-grpc", "muster-signing", "muster-pki", "muster-service"],
    ),
    ("muster-endpoint", "client/endpoint", &[]),
    (
        "muster-client",
        "client",
        &["muster-proto", "muster-signing", "muster-pki", "muster-service", "muster-endpoint"],
    ),
    (
        "muster-background-channel",
        "background-channel",
        &["muster-proto", "muster-proto-grpc", "muster-pki", "muster-service"],
    ),
    (
        "muster-load-tests",
        "load-tests",
        &["muster-proto", "muster-proto-grpc", "muster-pki", "muster-signing"],
    ),
    (
        "muster",
        "deploy/muster",
        &[
            "muster-background-channel",
            "muster-client",
            "muster-endpoint",
            "muster-pki",
            "muster-proto",
            "muster-proto-grpc",
            "muster-service",
            "muster-sign",
            "muster-signing",
            "muster-switch",
        ],
    ),
];

/// Crates that take bytes and time as arguments and return values.
const PURE: &[&str] = &["muster-proto", "muster-pki", "muster-signing"];

/// What a pure crate may not depend on, directly or through others.
const IO_CRATES: &[&str] =
    &["tokio", "mio", "hyper", "quinn", "tokio-rustls", "tonic", "axum", "rusqlite", "socket2", "notify"];

/// What a pure crate's own code may not say. `rand` and clocks included: randomness and time are arguments.
const IO_WORDS: &[&str] = &[
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "std::fs",
    "std::process",
    "std::thread",
    "SystemTime::now",
    "Instant::now",
];

/// What nothing in the workspace may depend on (DESIGN.md, Decisions).
const BANNED: &[&str] = &["ring", "openssl-sys", "rsa", "rustls-pemfile", "sqlx"];

/// What the programs run on. For browsers quinn-proto would take `ring`.
const TARGETS: [&str; 4] = [
    "x86_64-unknown-linux-gnu",
    "x86_64-unknown-linux-musl",
    "aarch64-unknown-linux-gnu",
    "aarch64-unknown-linux-musl",
];

/// Crates that open whatever file a person names, on a command line or in a configuration.
const BOUNDED: &[&str] = &[
    "muster-sign",
    "muster",
    "muster-service",
    "muster-switch",
    "muster-client",
    "muster-background-channel",
];

/// The only files of those crates that read to an end without a bound: what the system itself says, the program's own lock, and the
/// answer of the machine's own client.
const UNBOUNDED_FILES: &[&str] = &[
    "deploy/service/src/credentials/server_store.rs",
    "switch/src/engine/reader/aggregate/bounds.rs",
    "switch/src/engine/store/mod.rs",
    "client/src/local.rs",
];

/// The only files that may say `unsafe`.
const UNSAFE_FILES: &[&str] = &["client/endpoint/src/vtab.rs"];

/// Lines a file may have; 400 is what to aim at.
const LINES_MAX: usize = 600;

/// How the names of metrics begin; that of every program's crates does, too.
const METRIC_PREFIXES: [&str; 11] = [
    "muster_switch_",
    "muster_client_",
    "muster_background_",
    "muster_admin_",
    "muster_authorities_",
    "muster_credentials_",
    "muster_crl_",
    "muster_health_",
    "muster_peers_",
    "muster_refusals_",
    "muster_tasks_",
];

#[test]
fn crates_use_only_what_stands_below_them() {
    let metadata = metadata();
    let members = members(&metadata);

    let broken: Vec<String> = members
        .iter()
        .flat_map(|(name, package)| {
            let allowed = layer(name).2;
            normal_dependencies(package)
                .into_iter()
                .filter(|target| members.contains_key(target.as_str()) && !allowed.contains(&target.as_str()))
                .map(move |target| format!("{name} must not use {target}"))
                .collect::<Vec<_>>()
        })
        .collect();

    assert!(broken.is_empty(), "walls of DESIGN.md, \"The house\":\n{}", broken.join("\n"));
}

#[test]
fn crates_live_in_the_folders_of_the_design() {
    let metadata = metadata();
    let members = members(&metadata);

    for (name, folder, _) in LAYERS {
        let package = members.get(name).unwrap_or_else(|| panic!("{name}: no such package"));
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        let expected = root().canonicalize().expect("root exists").join(folder).join("Cargo.toml");

        assert_eq!(manifest, expected, "{name} lives in {folder}");
    }
    assert_eq!(members.len(), LAYERS.len(), "every member has its line in LAYERS: {:?}", members.keys());
}

#[test]
fn pure_crates_reach_no_io_crate() {
    for name in PURE {
        let reached = tree(&["-p", name, "-e", "normal"]);

        let io: Vec<&&str> = IO_CRATES.iter().filter(|banned| reached.contains(**banned)).collect();
        assert!(io.is_empty(), "{name} is pure and must not reach {io:?}");
    }
}

#[test]
fn pure_crates_name_no_clock_socket_or_file() {
    for name in PURE {
        let source = root().join(layer(name).1).join("src");
        for file in rust_files(&source).into_iter().filter(|file| !is_test_module(file)) {
            for (number, line) in non_test_lines(&read(&file)) {
                let said = IO_WORDS.iter().find(|word| line.contains(**word));
                assert!(said.is_none(), "{}:{number}: a pure crate says {said:?}", file.display());
            }
        }
    }
}

#[test]
fn no_program_reads_a_file_whole_without_a_bound() {
    for name in BOUNDED {
        let source = root().join(layer(name).1).join("src");
        let is_bounded = |file: &PathBuf| !UNBOUNDED_FILES.contains(&relative(file).as_str());
        let files = rust_files(&source).into_iter().filter(|file| !is_test_module(file));
        for file in files.filter(is_bounded) {
            for (number, line) in non_test_lines(&read(&file)) {
                let says = |word: &&&str| line.contains(**word);
                let whole = ["fs::read(", "fs::read_to_string("].iter().find(says);
                let endless = ["read_to_end(", "read_to_string("].iter().find(says);
                let found = whole.or(endless.filter(|_| !line.contains(".take(")));
                assert!(
                    found.is_none(),
                    "{}:{number}: {found:?} has no bound; use muster_sign::read_file, or read_at_most of muster_service",
                    relative(&file)
                );
            }
        }
    }
}

#[test]
fn the_client_reaches_no_tonic() {
    let reached = tree(&["-p", "muster-client", "-e", "normal"]);

    assert!(!reached.contains("tonic"), "clients speak the session protocol only");
}

#[test]
fn nothing_reaches_a_banned_crate() {
    for target in TARGETS {
        let reached = tree(&["--workspace", "-e", "normal,build,dev", "--target", target]);

        let banned: Vec<&&str> = BANNED.iter().filter(|banned| reached.contains(**banned)).collect();
        assert!(banned.is_empty(), "{target}: found {banned:?}; `cargo tree -i NAME` says who brings it");
    }
}

#[test]
fn unsafe_stands_in_the_named_files_only() {
    for file in rust_files(&root()) {
        let relative = relative(&file);
        if UNSAFE_FILES.contains(&relative.as_str()) || relative == "load-tests/tests/house.rs" {
            continue;
        }
        for (number, line) in read(&file).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let has = code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
            assert!(!has, "{relative}:{}: `unsafe` outside {UNSAFE_FILES:?}", number + 1);
        }
    }
}

#[test]
fn files_stay_short() {
    let long: Vec<String> = rust_files(&root())
        .iter()
        .map(|file| (relative(file), read(file).lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(file, lines)| format!("{file}: {lines} lines"))
        .collect();

    assert!(long.is_empty(), "over {LINES_MAX} lines; is there a second subject?\n{}", long.join("\n"));
}

#[test]
fn main_files_are_tables_of_contents() {
    for file in rust_files(&root()).iter().filter(|file| file.ends_with("src/main.rs")) {
        let lines = read(file).lines().count();

        assert!(lines <= 60, "{}: {lines} lines; at most 60", relative(file));
    }
}

#[test]
fn every_member_takes_the_workspace_lints() {
    for (name, folder, _) in LAYERS {
        let manifest = read(&root().join(folder).join("Cargo.toml"));

        assert!(manifest.contains("[lints]\nworkspace = true"), "{name}: no `[lints] workspace = true`");
    }
}

#[test]
fn every_dependency_of_the_workspace_says_what_it_is_for() {
    let manifest = read(&root().join("Cargo.toml"));
    let section = manifest.split("[workspace.dependencies]").nth(1).expect("section").split("\n[").next();

    for line in
        section.expect("section").lines().filter(|line| !line.is_empty() && !line.starts_with("muster"))
    {
        assert!(line.contains("# "), "no reason: {line}");
    }
}

#[test]
fn every_metric_stands_in_metrics_md_and_nothing_else_does() {
    let words = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
        words.filter(|word| word.starts_with("muster_")).map(str::to_owned).collect()
    };
    let is_metric = |name: &str| METRIC_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let quoted = |line: &str| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let programs = ["switch/src", "client/src", "background-channel/src", "deploy/service/src"];
    let files = programs.iter().flat_map(|folder| rust_files(&root().join(folder)));
    let made: BTreeSet<String> = files
        .filter(|file| !is_test_module(file))
        .flat_map(|file| non_test_lines(&read(&file)))
        .flat_map(|(_, line)| quoted(&line))
        .filter(|name| is_metric(name) && words(name).contains(name))
        .collect();
    let page = read(&root().join("deploy/METRICS.md"));
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let told: BTreeSet<String> = rows.map(str::to_owned).collect();

    assert!(made.len() > 50, "{made:?}");
    assert_eq!(made.difference(&told).collect::<Vec<_>>(), Vec::<&String>::new(), "not in deploy/METRICS.md");
    assert_eq!(told.difference(&made).collect::<Vec<_>>(), Vec::<&String>::new(), "in no program");
}

#[test]
fn every_proto_field_has_a_comment() {
    for file in files_with_extension(&root().join("proto/muster"), "proto") {
        let text = read(&file);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for pair in lines.windows(2) {
            let declares =
                pair[1].ends_with(';') && pair[1].contains(" = ") && !pair[1].starts_with("syntax")
                    || ["message ", "enum ", "service ", "rpc ", "oneof "]
                        .iter()
                        .any(|word| pair[1].starts_with(word));
            assert!(
                !declares || pair[0].starts_with("//"),
                "{}: no comment above `{}`",
                file.display(),
                pair[1]
            );
        }
    }
}

fn layer(name: &str) -> &'static (&'static str, &'static str, &'static [&'static str]) {
    LAYERS
        .iter()
        .find(|(crate_name, _, _)| *crate_name == name)
        .unwrap_or_else(|| panic!("{name}: add it to LAYERS"))
}

fn members(metadata: &Value) -> BTreeMap<&str, &Value> {
    let packages = metadata["packages"].as_array().expect("packages");
    packages.iter().map(|package| (text(&package["name"]), package)).collect()
}

fn normal_dependencies(package: &Value) -> Vec<String> {
    let dependencies = package["dependencies"].as_array().expect("dependencies");
    dependencies
        .iter()
        .filter(|dependency| dependency["kind"] != "dev")
        .map(|dependency| text(&dependency["name"]).to_owned())
        .collect()
}

fn metadata() -> Value {
    serde_json::from_slice(&cargo(&["metadata", "--no-deps", "--format-version=1", "--offline"]))
        .expect("valid JSON")
}

/// The names of all packages in a dependency tree.
fn tree(arguments: &[&str]) -> BTreeSet<String> {
    // What it names for other systems may not have been downloaded yet.
    let all: Vec<&str> = ["tree", "--locked", "--prefix", "none", "--format", "{p}"]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    String::from_utf8_lossy(&cargo(&all))
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

fn cargo(arguments: &[&str]) -> Vec<u8> {
    let output =
        Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Lines with their numbers, up to the file's test module.
fn non_test_lines(text: &str) -> Vec<(usize, String)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.contains("#[cfg(test)]"))
        .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default().to_owned()))
        .collect()
}

/// A test module in a file of its own.
fn is_test_module(file: &Path) -> bool {
    file.ends_with("tests.rs") || file.components().any(|part| part.as_os_str() == "tests")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    files_with_extension(folder, "rs")
}

fn files_with_extension(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("readable").flatten() {
        let path = entry.path();
        if path.ends_with("target") || path.ends_with(".git") {
            continue;
        }
        if path.is_dir() {
            found.extend(files_with_extension(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn relative(file: &Path) -> String {
    file.strip_prefix(root()).expect("below the root").display().to_string()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("string")
}
