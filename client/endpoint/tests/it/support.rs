//! What the tests share: the helper of this build, queries, and the tools' output.
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use muster_endpoint::{
    Answer, Granted, HelperCommand, Query, QueryError, QueryLimits, SandboxProfile, SqlValue, run,
};

/// The helper of this build.
pub(crate) fn helper() -> HelperCommand {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_muster-sql-helper"));
    HelperCommand {
        program,
        arguments: Vec::new(),
        closed: Vec::new(),
        locks: env!("CARGO_TARGET_TMPDIR").into(),
    }
}

/// A query with the default limits, but 30 s: a test machine may be busy.
pub(crate) fn query(sql: &str) -> Query {
    Query {
        sql: sql.to_owned(),
        parameters: Vec::new(),
        limits: QueryLimits { run_time: Duration::from_secs(30), ..QueryLimits::default() },
        sandbox: SandboxProfile::Standard,
        readable: Vec::new(),
        granted: Granted::All,
        then: Vec::new(),
    }
}

/// Runs a query on a runtime of its own.
pub(crate) fn ask(query: Query) -> Result<Answer, QueryError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(&helper(), query))
}

/// The rows of SQL that must run.
pub(crate) fn rows(sql: &str) -> Vec<Vec<SqlValue>> {
    let limits = QueryLimits { run_time: Duration::from_secs(30), rows: 100_000, bytes: 64 * 1024 * 1024 };
    let answer = ask(Query { limits, ..query(sql) }).unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert!(!answer.truncated, "{sql}: truncated");
    answer.rows
}

/// The rows of SQL as lines of text, values parted by `|`, sorted.
pub(crate) fn lines(sql: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        rows(sql).iter().map(|row| row.iter().map(text).collect::<Vec<_>>().join("|")).collect();
    lines.sort();
    lines
}

/// A value as the tools would print it.
pub(crate) fn text(value: &SqlValue) -> String {
    match value {
        SqlValue::Null => String::new(),
        SqlValue::Integer(number) => number.to_string(),
        SqlValue::Real(number) => number.to_string(),
        SqlValue::Text(text) => text.clone(),
        SqlValue::Blob(bytes) => format!("{bytes:?}"),
    }
}

/// The output of a shell pipeline in the C locale; `None` if the tool isn't on this machine and need not be.
#[track_caller]
pub(crate) fn shell(tool: &str, script: &str) -> Option<String> {
    let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap();
    if lacks(tool, !found.status.success(), "install it (bash deploy/ci/install-test-needs)") {
        return None;
    }
    let output = Command::new("sh").args(["-c", script]).env("LC_ALL", "C").output().unwrap();
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether this machine lacks something that a test needs, which fails the test, unless `MUSTER_TEST_MAY_SKIP` names it.
#[track_caller]
pub(crate) fn lacks(name: &str, is_missing: bool, fix: &str) -> bool {
    let may_skip = std::env::var("MUSTER_TEST_MAY_SKIP").unwrap_or_default();
    let may = may_skip.split(',').any(|one| one.trim() == name);
    assert!(!is_missing || may, "needs {name}: {fix}; or skip such tests with MUSTER_TEST_MAY_SKIP={name}");
    if is_missing {
        eprintln!("SKIPPED, since MUSTER_TEST_MAY_SKIP names {name}");
    }
    is_missing
}

/// The output of a shell pipeline as sorted lines.
#[track_caller]
pub(crate) fn shell_lines(tool: &str, script: &str) -> Option<Vec<String>> {
    let mut lines: Vec<String> = shell(tool, script)?.lines().map(str::to_owned).collect();
    lines.sort();
    Some(lines)
}
