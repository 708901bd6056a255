//! `definition lint` and `definition schema`, as authors call them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use muster_pki::text::is_misleading;
use serde_json::Value;

/// No finding.
const GOOD: &str = "name = \"Acme-Os-Version\"\nversion = \"1.0.0\"\nkind = \"question\"\nsays = \"Which?\"\n\n\
                    [[step]]\nquery = \"SELECT version FROM os\"\n\n\
                    [[result]]\nname = \"version\"\ntype = \"text\"\nmax_length = 64\n\n\
                    [limits]\nrun_time = \"1s\"\nrows = 1\nbytes = \"1 KiB\"\n";

#[test]
fn all_findings_are_told_at_once_each_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = GOOD.replace("1.0.0", "1.0").replace("\"1 KiB\"", "\"1 KB\"").replace("max_length = 64\n", "");
    std::fs::write(folder.path().join("a.toml"), text).unwrap();
    std::fs::write(folder.path().join("b.toml"), GOOD).unwrap();

    let shown = lint(folder.path(), &["a.toml", "b.toml"]);
    let told = lint(folder.path(), &["a.toml", "b.toml", "-o", "json"]);

    let out = String::from_utf8(shown.stdout).unwrap();
    for words in [
        "a.toml:2:11: error: no semantic version",
        "wanted one such as 1.2.0 (version-invalid)",
        "version = \"1.0\"\n",
        "a.toml:10:8: warning: a value of any length",
        "a.toml:16:9: error: \"1 KB\" is no size; wanted one such as 64 KiB or 1 MiB (size-invalid)",
        "a.toml: errors: 2, warnings: 1\n",
        "b.toml: errors: 0, warnings: 0\n",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    assert_eq!(out.matches("no semantic version").count(), 1, "{out}");
    assert_eq!((shown.status.code(), told.status.code()), (Some(1), Some(1)));
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(
        (&told[0]["errors"], &told[0]["warnings"], &told[1]["errors"]),
        (&2.into(), &1.into(), &0.into())
    );
    let first = &told[0]["findings"][0];
    assert_eq!((&first["name"], &first["severity"]), (&"version-invalid".into(), &"error".into()));
    assert_eq!((&first["line"], &first["column"]), (&2.into(), &11.into()));
    assert!(first["found"].as_str().unwrap().starts_with("no semantic version"), "{first}");
    assert_eq!(told[0]["findings"][1]["fix"], "add `max_length = …`");
}

#[test]
fn warnings_count_where_one_is_strict() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.toml"), GOOD.replace("max_length = 64\n", "")).unwrap();
    std::fs::write(folder.path().join("b.toml"), GOOD).unwrap();

    let code = |arguments: &[&str]| lint(folder.path(), arguments).status.code();

    assert_eq!(code(&["a.toml"]), Some(0));
    assert_eq!(code(&["a.toml", "--strict"]), Some(1));
    assert_eq!(code(&["b.toml", "--strict"]), Some(0));
    assert_eq!(code(&["c.toml"]), Some(1));
    assert_eq!(code(&[]), Some(2));
}

#[test]
fn a_file_that_cannot_be_read_is_told_in_its_place_and_the_others_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.toml"), GOOD).unwrap();
    std::fs::write(folder.path().join("bytes.toml"), b"\xff").unwrap();
    std::fs::write(folder.path().join("bad.toml"), GOOD.replace("1.0.0", "1.0")).unwrap();
    let files = ["good.toml", "none.toml", "bytes.toml", "bad.toml"];

    let shown = lint(folder.path(), &files);
    let told = lint(folder.path(), &[&files[..], &["-o", "json"]].concat());

    let out = String::from_utf8(shown.stdout).unwrap();
    let place = |words: &str| out.find(words).unwrap_or_else(|| panic!("{words}: {out}"));
    let places = [
        place("good.toml: errors: 0"),
        place("none.toml: error: No such file"),
        place("none.toml: errors: 1, warnings: 0\n"),
        place("bytes.toml: error: not UTF-8"),
        place("bad.toml:2:11: error: no semantic version"),
    ];
    assert!(places.is_sorted(), "{out}");
    assert!(shown.stderr.is_empty() && told.stderr.is_empty());
    assert_eq!((shown.status.code(), told.status.code()), (Some(1), Some(1)));
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    let each: Vec<(&str, u64, bool)> = told
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            let problem = &it["problem"];
            (it["file"].as_str().unwrap(), it["errors"].as_u64().unwrap(), problem.is_string())
        })
        .collect();
    assert_eq!(
        each,
        [("good.toml", 0, false), ("none.toml", 1, true), ("bytes.toml", 1, true), ("bad.toml", 1, false)]
    );
    assert!(told[1]["problem"].as_str().unwrap().starts_with("No such file"), "{told}");
}

#[test]
fn what_misleads_or_drives_a_terminal_does_not_reach_it() {
    let folder = tempfile::tempdir().unwrap();
    for (hidden, number) in
        [("\u{9b}31m", "009B"), ("\u{202e}", "202E"), ("\u{200b}", "200B"), ("\\u001b", "001B")]
    {
        let text = GOOD.replace("version FROM", &format!("version, '{hidden}' FROM"));
        std::fs::write(folder.path().join("a.toml"), text).unwrap();

        let shown = lint(folder.path(), &["a.toml"]);
        let json = lint(folder.path(), &["a.toml", "-o", "json"]);
        let signed = muster_sign(folder.path(), &["inspect", "a.toml"]);

        let out = String::from_utf8(shown.stdout).unwrap();
        assert!(out.contains(&format!("U+{number}")) && out.contains("hidden-order"), "{out}");
        assert_eq!((shown.status.code(), signed.status.code()), (Some(1), Some(1)));
        let all = [out, String::from_utf8(json.stdout).unwrap(), String::from_utf8(signed.stderr).unwrap()];
        for text in all {
            assert!(!text.chars().any(|c| is_misleading(c) && c != '\n' && c != '\t'), "{text:?}");
        }
    }
}

#[test]
fn the_shipped_definitions_have_no_finding() {
    let found = lint(&definitions(), &["--strict", "Muster-File-Hash.toml", "Muster-Core-Query.toml"]);

    assert_eq!(found.status.code(), Some(0), "{}", String::from_utf8_lossy(&found.stdout));
}

#[test]
fn the_schema_takes_the_shipped_definitions_and_refuses_what_a_schema_can_see() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/python/bin/python");
    assert!(python.exists(), "{} is missing: run `bash deploy/ci/install-test-needs`", python.display());
    let schema = muster_sign(Path::new("."), &["schema"]);
    assert_eq!(schema.status.code(), Some(0));

    let mut judge = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/schema.py"))
        .arg(definitions())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    judge.stdin.take().unwrap().write_all(&schema.stdout).unwrap();
    let verdict = judge.wait_with_output().unwrap();

    assert!(verdict.status.success(), "{}", String::from_utf8_lossy(&verdict.stdout));
}

fn definitions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../definitions")
}

fn lint(folder: &Path, arguments: &[&str]) -> Output {
    muster_sign(folder, &[&["lint"], arguments].concat())
}

fn muster_sign(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_muster-sign"))
        .arg("definition")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}
