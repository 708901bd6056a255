//! Tables that are not granted cannot be read, however they are written.

use muster_endpoint::{Granted, Query, QueryError};

use crate::support::{ask, query};

#[test]
fn k2_a_table_that_is_not_granted_is_not_read_however_it_is_written() {
    for sql in [
        "SELECT name FROM users",
        "SELECT count(*) FROM users",
        "SELECT 1 FROM USERS",
        "SELECT name FROM main.users",
        "SELECT \"name\" FROM [users] AS os",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM users)",
        "SELECT o.name FROM os AS o JOIN users",
        "WITH u AS (SELECT name FROM users) SELECT count(*) FROM u",
        "SELECT name FROM os UNION SELECT name FROM users",
        "SELECT (SELECT max(uid) FROM users) FROM os",
        "EXPLAIN SELECT name FROM users",
    ] {
        let refused = asked(sql, &["os"], &[]);

        assert_eq!(refused, Err(QueryError::NotGranted { table: "users".to_owned() }), "{sql}");
    }
    let files = asked("SELECT size FROM files('/etc/hosts')", &["os"], &[]);
    assert_eq!(files, Err(QueryError::NotGranted { table: "files".to_owned() }));
}

#[test]
fn k2_what_is_granted_is_read_and_with_none_only_what_needs_no_table() {
    assert_eq!(asked("SELECT count(*) FROM os", &["os"], &[]), Ok(1));
    assert_eq!(asked("WITH users AS (SELECT name FROM os) SELECT count(*) FROM users", &["os"], &[]), Ok(1));
    assert_eq!(asked("SELECT 41 + 1", &[], &[]), Ok(1));
    let none = asked("SELECT count(*) FROM os", &[], &[]);
    assert_eq!(none, Err(QueryError::NotGranted { table: "os".to_owned() }));
    // A mistake is still told as one.
    assert!(matches!(asked("SELECT name FROM oss", &["os"], &[]), Err(QueryError::Sql { .. })));
}

#[test]
fn k2_a_later_step_that_is_not_granted_keeps_the_first_from_running() {
    let refused = asked("SELECT name FROM os", &["os"], &["SELECT 1", "SELECT name FROM users"]);

    assert_eq!(refused, Err(QueryError::NotGranted { table: "users".to_owned() }));
    assert_eq!(asked("SELECT name FROM os", &["os"], &["SELECT version FROM os"]), Ok(1));
}

/// How many rows there are.
fn asked(sql: &str, tables: &[&str], then: &[&str]) -> Result<usize, QueryError> {
    let granted = Granted::Tables(tables.iter().map(ToString::to_string).collect());
    let then = then.iter().map(ToString::to_string).collect();
    ask(Query { granted, then, ..query(sql) }).map(|answer| answer.rows.len())
}
