//! What SQL can't do, and how a machine without a layer is told.
use muster_endpoint::{Query, QueryError, SandboxProfile};

use crate::support::{ask, lacks, lines, query};

#[test]
fn everything_but_a_query_is_refused() {
    for sql in [
        "ATTACH '/tmp/muster-test.db' AS x",
        "CREATE TABLE t(a)",
        "CREATE TEMP TABLE t(a)",
        "CREATE VIRTUAL TABLE t USING fts5(a)",
        "INSERT INTO users(name) VALUES ('x')",
        "DELETE FROM users",
        "UPDATE users SET uid = 0",
        "DROP TABLE users",
        "PRAGMA journal_mode = WAL",
        "PRAGMA temp_store_directory = '/tmp'",
        "PRAGMA query_only = OFF",
        "SELECT * FROM pragma_database_list",
        "VACUUM INTO '/tmp/muster-test.db'",
        "VACUUM",
        "BEGIN",
        "SAVEPOINT a",
        "REINDEX",
        "ANALYZE",
        "SELECT load_extension('/tmp/x.so')",
        "SELECT writefile('/tmp/x', 'y')",
        "SELECT readfile('/etc/shadow')",
        "SELECT 1; SELECT 2",
        "",
        "-- nothing",
    ] {
        let error = ask(query(sql)).unwrap_err();
        assert!(matches!(error, QueryError::Sql { .. }), "{sql}: {error:?}");
        assert!(matches!(muster_endpoint::check(sql), Err(QueryError::Sql { .. })), "{sql} passes check");
    }
    assert!(!std::path::Path::new("/tmp/muster-test.db").exists());
}

#[test]
fn a_refusal_says_what_is_refused() {
    let message = ask(query("ATTACH '/tmp/x' AS x")).unwrap_err().to_string();

    assert!(message.contains("ATTACH is refused"), "{message}");
}

#[test]
fn tables_describe_themselves() {
    let columns = lines("SELECT name FROM pragma_table_info('users')");

    assert_eq!(columns, ["gecos", "gid", "home", "name", "shell", "uid"]);
}

#[test]
fn an_unknown_column_is_told_by_the_helper_as_by_the_check() {
    let sql = "SELECT nmae FROM users";

    let error = ask(query(sql)).unwrap_err();

    assert_eq!(Err(error.clone()), muster_endpoint::check(sql));
    let QueryError::Sql { message, offset } = error else { panic!("{error}") };
    assert!(message.contains("did you mean `name`?"), "{message}");
    assert_eq!(offset, Some(7));
}

#[test]
fn a_fault_at_run_time_is_told() {
    let error = ask(query("SELECT path FROM files WHERE path = 'etc'")).unwrap_err();

    assert!(error.to_string().contains("not an absolute path; begin it with `/`"), "{error}");
}

#[test]
fn only_the_layers_that_depend_on_the_machine_may_be_missing() {
    let answer = ask(query("SELECT 1")).unwrap();

    let missing = &answer.sandbox_missing;
    let expected =
        |layer: &String| ["uid: ", "cgroup: ", "landlock: "].iter().any(|name| layer.starts_with(name));
    assert!(missing.iter().all(expected), "{missing:?}");
    // What a result can carry of it (`NAME_BYTES_MAX` of the protocol): name and cause are told whole.
    assert!(missing.iter().all(|layer| layer.len() <= 64), "{missing:?}");
}

#[test]
fn strict_answers_with_every_layer_or_not_at_all() {
    let strict = Query { sandbox: SandboxProfile::Strict, ..query("SELECT count(*) > 0 FROM users") };

    match ask(strict) {
        Ok(answer) => {
            assert!(answer.sandbox_missing.is_empty(), "{:?}", answer.sandbox_missing);
            every_table_answers_under_strict();
        }
        Err(QueryError::Sandbox { missing }) => {
            assert!(!missing.is_empty());
            let fix = format!("{missing:?} are missing though the kernel has them; let the tests use them");
            lacks("sandbox", can_make_every_layer(), &fix);
        }
        Err(error) => panic!("{error}"),
    }
}

/// Whether root runs on a kernel with Landlock, in a control group of version 2 that passes both controllers on.
pub(crate) fn can_make_every_layer() -> bool {
    let has = |file: &str, words: &[&str]| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        words.iter().all(|word| text.split([' ', ',', '\n']).any(|has| has == *word))
    };
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    nix::unistd::geteuid().is_root()
        && has("/sys/kernel/security/lsm", &["landlock"])
        && has(&format!("/sys/fs/cgroup/{}/cgroup.subtree_control", own.trim()), &["memory", "pids"])
}

fn every_table_answers_under_strict() {
    for table in muster_endpoint::schema().iter().filter(|table| table.needs.is_none()) {
        let sql = format!("SELECT * FROM {} LIMIT 3", table.name);
        let answer = ask(Query { sandbox: SandboxProfile::Strict, ..query(&sql) });
        assert!(answer.is_ok(), "{}: {answer:?}", table.name);
    }
}
