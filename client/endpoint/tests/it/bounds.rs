//! What ends a query: its limits, its deadline, its faults, its client.
use std::time::{Duration, Instant};

use muster_endpoint::{
    Column, ColumnKind, HelperCommand, Query, QueryError, QueryLimits, SQL_BYTES_MAX, SqlValue,
    VALUE_BYTES_MAX, run,
};

use crate::support::{ask, helper, query};

/// A statement that never ends.
const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

fn limits(rows: u32, bytes: u32) -> QueryLimits {
    QueryLimits { run_time: Duration::from_secs(30), rows, bytes }
}

#[test]
fn a_runaway_recursion_is_stopped_at_the_deadline() {
    let run_time = Duration::from_millis(300);
    let started = Instant::now();

    let error = ask(Query { limits: QueryLimits { run_time, ..QueryLimits::default() }, ..query(ENDLESS) });

    assert_eq!(error, Err(QueryError::Deadline { run_time }));
    assert!(started.elapsed() < run_time + muster_endpoint::RUN_GRACE, "{:?}", started.elapsed());
}

#[test]
fn rows_over_the_limit_are_dropped_and_told() {
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) SELECT i FROM n";

    let exact = ask(Query { limits: limits(100, 1_000_000), ..query(sql) }).unwrap();
    let short = ask(Query { limits: limits(99, 1_000_000), ..query(sql) }).unwrap();

    assert_eq!((exact.rows.len(), exact.truncated), (100, false));
    assert_eq!((short.rows.len(), short.truncated), (99, true));
    assert_eq!(short.rows[98], [SqlValue::Integer(99)]);
    assert_eq!(short.columns, [Column { name: "i".to_owned(), kind: ColumnKind::Integer }]);
}

#[test]
fn an_endless_statement_with_a_row_limit_answers() {
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";

    let answer = ask(Query { limits: limits(10, 1_000_000), ..query(sql) }).unwrap();

    assert_eq!((answer.rows.len(), answer.truncated), (10, true));
}

#[test]
fn bytes_over_the_limit_are_dropped_and_told() {
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
               SELECT hex(zeroblob(5000)) FROM n";

    let answer = ask(Query { limits: limits(1_000, 200_000), ..query(sql) }).unwrap();

    assert!(answer.truncated);
    assert_eq!(answer.rows.len(), 19);
}

#[test]
fn a_value_over_the_limit_is_cut_and_told() {
    let answer = ask(query("SELECT hex(zeroblob(100000)) AS t, zeroblob(100000) AS b")).unwrap();

    assert!(answer.truncated);
    assert_eq!(answer.rows[0][0].as_text().map(str::len), Some(VALUE_BYTES_MAX));
    assert_eq!(answer.rows[0][1], SqlValue::Blob(vec![0; VALUE_BYTES_MAX]));
}

#[test]
fn values_of_every_type_come_back() {
    let parameters = vec![
        ("text".to_owned(), SqlValue::from("ä€")),
        ("number".to_owned(), SqlValue::Integer(i64::MIN)),
        ("blob".to_owned(), SqlValue::Blob(vec![0, 255])),
        ("unused".to_owned(), SqlValue::Null),
    ];

    let answer =
        ask(Query { parameters, ..query("SELECT :text, :number, :blob, NULL AS none, 0.5") }).unwrap();

    let wanted = [
        SqlValue::from("ä€"),
        SqlValue::Integer(i64::MIN),
        SqlValue::Blob(vec![0, 255]),
        SqlValue::Null,
        SqlValue::Real(0.5),
    ];
    assert_eq!(answer.rows, [wanted]);
    let kinds: Vec<_> = answer.columns.iter().map(|column| column.kind).collect();
    assert_eq!(
        kinds,
        [ColumnKind::Text, ColumnKind::Integer, ColumnKind::Blob, ColumnKind::Any, ColumnKind::Real]
    );
}

#[test]
fn names_of_columns_are_unique_and_short() {
    let sql = format!("SELECT 1 AS a, 2 AS a, 3 AS a, {} ", ["'ä'"; 30].join(" || "));

    let answer = ask(query(&sql)).unwrap();

    let names: Vec<_> = answer.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names[..3], ["a", "a_2", "a_3"]);
    assert!((62..=64).contains(&names[3].len()), "{}", names[3]);
}

#[test]
fn a_sort_over_the_heap_is_an_error_and_no_crash() {
    let sql = "WITH RECURSIVE n(i, b) AS (SELECT 1, zeroblob(8) UNION ALL SELECT i + 1, randomblob(4000000) FROM n \
               WHERE i < 200) SELECT i FROM n ORDER BY b";

    let error = ask(query(sql)).unwrap_err();

    assert!(matches!(&error, QueryError::TooLarge { what, .. } if what == "the query's memory"), "{error:?}");
}

#[test]
fn a_parameter_without_a_value_is_named() {
    let error = ask(query("SELECT :days")).unwrap_err();

    assert!(error.to_string().contains("no value for parameter :days"), "{error}");
}

#[test]
fn sql_over_the_limit_is_refused_before_a_process_is_started() {
    let sql = format!("SELECT '{}'", "x".repeat(SQL_BYTES_MAX));

    assert!(matches!(ask(query(&sql)), Err(QueryError::TooLarge { .. })));
}

#[test]
fn a_helper_that_is_not_there_is_told_by_its_name() {
    let command = HelperCommand { program: "/nonexistent/helper".into(), ..helper() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();

    let error = runtime.block_on(run(&command, query("SELECT 1"))).unwrap_err();

    assert!(
        matches!(&error, QueryError::Spawn { program, .. } if program == "/nonexistent/helper"),
        "{error}"
    );
}

#[test]
fn a_helper_that_ends_without_an_answer_crashed() {
    let command = HelperCommand {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), "kill -9 $$".into()],
        ..helper()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();

    let error = runtime.block_on(run(&command, query("SELECT 1"))).unwrap_err();

    assert!(matches!(&error, QueryError::Crashed { .. }), "{error}");
}

/// The helper's number, as it tells it itself while it runs.
fn helper_pid() -> Option<i32> {
    let children = std::fs::read_to_string("/proc/thread-self/children").ok()?;
    children.split_whitespace().next()?.parse().ok()
}

#[test]
fn a_helper_that_is_killed_crashed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();

    let error = runtime.block_on(async {
        let command = helper();
        let killed = async {
            loop {
                if let Some(pid) = helper_pid() {
                    nix::sys::signal::kill(
                        nix::unistd::Pid::from_raw(pid),
                        nix::sys::signal::Signal::SIGKILL,
                    )
                    .unwrap();
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(run(&command, query(ENDLESS)), killed).0.unwrap_err()
    });

    let QueryError::Crashed { detail } = &error else { panic!("{error}") };
    assert!(detail.contains("signal"), "{detail}");
}

#[test]
fn the_helper_runs_under_its_filter() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run_time = Duration::from_secs(5);

    let status = runtime.block_on(async {
        let command = helper();
        let endless = Query { limits: QueryLimits { run_time, ..QueryLimits::default() }, ..query(ENDLESS) };
        let mut running = Box::pin(run(&command, endless));
        loop {
            tokio::select! {
                biased;
                outcome = &mut running => panic!("{outcome:?}"),
                () = tokio::task::yield_now() => {}
            }
            let status =
                helper_pid().and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).ok());
            if let Some(status) = status.filter(|status| status.contains("Seccomp:\t2")) {
                return status;
            }
        }
    });

    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
}

#[test]
fn a_query_that_is_dropped_leaves_no_process() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();

    let pid = runtime.block_on(async {
        let command = helper();
        let mut running = Box::pin(run(&command, query(ENDLESS)));
        loop {
            tokio::select! {
                biased;
                outcome = &mut running => panic!("{outcome:?}"),
                () = tokio::task::yield_now() => {}
            }
            if let Some(pid) = helper_pid() {
                return pid;
            }
        }
    });

    let deadline = Instant::now() + Duration::from_secs(10);
    let state =
        || std::fs::read_to_string(format!("/proc/{pid}/stat")).ok().filter(|stat| !stat.contains(") Z "));
    while state().is_some() {
        assert!(Instant::now() < deadline, "process {pid} still runs");
        std::thread::yield_now();
    }
}

#[test]
fn a_helper_ends_with_its_standard_input() {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child =
        Command::new(helper().program).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // Field 1 is the SQL, field 3 the run time in ms (600,000), fields 4 and 5 the rows and bytes.
    let mut body = vec![0x0A, u8::try_from(ENDLESS.len()).unwrap()];
    body.extend(ENDLESS.as_bytes());
    body.extend([0x18, 0xC0, 0xCF, 0x24, 0x20, 10, 0x28, 100]);
    let mut input = child.stdin.take().unwrap();
    input.write_all(&u32::try_from(body.len()).unwrap().to_be_bytes()).unwrap();
    input.write_all(&body).unwrap();
    input.flush().unwrap();

    drop(input);

    let deadline = Instant::now() + Duration::from_secs(10);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the helper goes on without a client");
        std::thread::yield_now();
    }
}
