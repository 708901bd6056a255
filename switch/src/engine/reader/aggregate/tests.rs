//! The walls around the SQL, and what stands in the table.

use std::time::{Duration, Instant};

use muster_proto::common::v1::{Column, ColumnType, Row, Value, value::Kind};
use muster_proto::operator::v1::DeviceResult;
use muster_signing::definition::Definition;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Answer};
use super::bounds::{AggregateLimits, Watch};
use super::check;
use super::error::AggregateError;
use super::table::{Put, Table};

const COLUMNS: [(&str, ColumnType); 6] = [
    ("name", ColumnType::Text),
    ("size", ColumnType::Integer),
    ("ratio", ColumnType::Real),
    ("is_on", ColumnType::Boolean),
    ("at", ColumnType::Datetime),
    ("raw", ColumnType::Blob),
];

fn definition(columns: &[(&str, ColumnType)], aggregate: &str) -> Definition {
    let column = |(name, kind): &(&str, ColumnType)| {
        let kind = match kind {
            ColumnType::Unspecified | ColumnType::Text => "text",
            ColumnType::Integer => "integer",
            ColumnType::Real => "real",
            ColumnType::Boolean => "boolean",
            ColumnType::Datetime => "datetime",
            ColumnType::Blob => "blob",
        };
        format!("[[result]]\nname = \"{name}\"\ntype = \"{kind}\"\n")
    };
    let columns: String = columns.iter().map(column).collect();
    let text = format!(
        "name = \"Acme-Test-Sum\"\nversion = \"1.0.0\"\nkind = \"question\"\nsays = \"What?\"\n\
         [[step]]\nquery = \"SELECT 1\"\n{columns}[aggregate]\nquery = '{aggregate}'\n"
    );
    Definition::parse(&text).unwrap()
}

fn watch(limits: &AggregateLimits) -> Watch {
    Watch::begin(limits, &CancellationToken::new()).unwrap()
}

fn result(device: &str, columns: &[(&str, ColumnType)], rows: Vec<Vec<Option<Kind>>>) -> DeviceResult {
    let column =
        |(name, kind): &(&str, ColumnType)| Column { name: (*name).to_owned(), r#type: (*kind).into() };
    let row =
        |values: Vec<Option<Kind>>| Row { values: values.into_iter().map(|kind| Value { kind }).collect() };
    DeviceResult {
        device: device.to_owned(),
        columns: columns.iter().map(column).collect(),
        rows: rows.into_iter().map(row).collect(),
        ..DeviceResult::default()
    }
}

fn row(name: &str, size: i64) -> Vec<Option<Kind>> {
    vec![
        Some(Kind::Text(name.to_owned())),
        Some(Kind::Integer(size)),
        Some(Kind::Integer(3)),
        Some(Kind::Integer(1)),
        Some(Kind::Integer(1_700_000_000)),
        Some(Kind::Blob(vec![0, 255])),
    ]
}

/// A table with rows `n0`, `n1` … of one device.
fn table_within(limits: &AggregateLimits, rows: i64) -> Table {
    let mut table = Table::new(Some(&definition(&COLUMNS, "SELECT 1")), watch(limits)).unwrap();
    let rows = (0..rows).map(|number| row(&format!("n{number}"), number)).collect();
    assert_eq!(table.put(&result("w1", &COLUMNS, rows)).unwrap(), Put::In);
    table.seal().unwrap();
    table
}

fn table(rows: i64) -> Table {
    table_within(&AggregateLimits::default(), rows)
}

fn problem(table: &Table, sql: &str) -> String {
    match answer::of(table, sql, 100) {
        Err(error @ AggregateError::Sql { .. }) => error.to_string(),
        other => panic!("{sql}: {other:?}"),
    }
}

fn shown(answer: &Answer) -> Vec<String> {
    let value = |value: &Value| match &value.kind {
        None => "NULL".to_owned(),
        Some(Kind::Integer(number)) => number.to_string(),
        Some(Kind::Real(number)) => format!("{number:?}"),
        Some(Kind::Text(text)) => text.clone(),
        Some(Kind::Blob(bytes)) => hex::encode(bytes),
    };
    answer.rows.iter().map(|row| row.values.iter().map(value).collect::<Vec<_>>().join("|")).collect()
}

fn types(answer: &Answer) -> Vec<ColumnType> {
    answer.columns.iter().map(Column::r#type).collect()
}

#[test]
fn nothing_but_one_select_over_results_is_let_through() {
    let table = table(3);
    for sql in [
        "ATTACH ':memory:' AS other",
        "ATTACH '/tmp/other.db' AS other",
        "DETACH main",
        "PRAGMA table_list",
        "PRAGMA hard_heap_limit = 1",
        "SELECT * FROM pragma_table_info('results')",
        "SELECT * FROM sqlite_schema",
        "SELECT name FROM sqlite_temp_schema",
        "DELETE FROM results",
        "DELETE FROM results RETURNING *",
        "UPDATE results SET size = 1",
        "INSERT INTO results DEFAULT VALUES",
        "REPLACE INTO results (name) VALUES ('x')",
        "DROP TABLE results",
        "ALTER TABLE results ADD COLUMN more",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "CREATE TEMP VIEW v AS SELECT 1",
        "CREATE INDEX i ON results (name)",
        "CREATE TRIGGER t AFTER INSERT ON results BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE t USING fts5 (a)",
        "VACUUM",
        "VACUUM INTO '/tmp/other.db'",
        "ANALYZE",
        "BEGIN",
        "COMMIT",
        "SAVEPOINT a",
        "SELECT * FROM json_each('[1]')",
        "SELECT count(*) FROM json_tree('{}')",
        "SELECT * FROM dbstat",
        "SELECT load_extension('/tmp/x.so')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT hex(randomblob(1000000000))",
        "SELECT zeroblob(1000000000)",
        "SELECT random()",
        "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c",
        "SELECT 1; DELETE FROM results",
        "-- nothing",
    ] {
        let said = problem(&table, sql);

        let words =
            ["is refused: write one SELECT over `results`", "write one SELECT", "may not be modified"];
        assert!(words.iter().any(|word| said.contains(word)), "{sql}: {said}");
    }
    let left = answer::of(&table, "SELECT count(*), sum(size) FROM results", 10).unwrap();
    assert_eq!(shown(&left), ["3|3"], "nothing was changed");
}

#[test]
fn sql_of_a_size_that_nobody_writes_is_refused() {
    let table = table(3);
    let repeated = |part: &str, count: usize| vec![part; count].join(", ");
    for (sql, words) in [
        (format!("SELECT {}", "1 + ".repeat(200) + "1"), "too large"),
        (format!("SELECT {}{}", "(".repeat(4_000), ")".repeat(4_000)), "limit"),
        (format!("SELECT 1 {}", "UNION ALL SELECT 1 ".repeat(60)), "too many terms"),
        (format!("SELECT {}", repeated("1", 300)), "too many columns"),
        (format!("SELECT {}", repeated("1", 65)), "65 columns, wanted at most 64"),
        (format!("SELECT coalesce({})", repeated("1", 101)), "too many arguments"),
        (format!("SELECT name LIKE '{}' FROM results", "x".repeat(2_000)), "too complex"),
        (format!("SELECT '{}'", "x".repeat(40_000)), "wanted at most 32768"),
        ("SELECT printf('%2000000s', name) FROM results".to_owned(), "too big"),
        ("SELECT replace(hex(printf('%400000s', '')), '2', 'xxxxxxxx')".to_owned(), "too big"),
    ] {
        let said = problem(&table, &sql);

        assert!(said.contains(words), "{sql:.60}: {said}");
    }
}

#[test]
fn what_takes_too_long_is_ended() {
    let deadline = Duration::from_millis(100);
    let table = table_within(&AggregateLimits { deadline, ..AggregateLimits::default() }, 1_000);
    let begin = Instant::now();

    let ended = answer::of(&table, "SELECT count(*) FROM results a, results b, results c, results d", 10);

    assert!(matches!(ended, Err(AggregateError::Deadline(allowed)) if allowed == deadline), "{ended:?}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn it_ends_when_nobody_waits_for_it_any_more() {
    let stop = CancellationToken::new();
    let watch = Watch::begin(&AggregateLimits::default(), &stop).unwrap();
    let mut table = Table::new(Some(&definition(&COLUMNS, "SELECT 1")), watch).unwrap();
    let rows = (0..1_000).map(|number| row("n", number)).collect();
    table.put(&result("w1", &COLUMNS, rows)).unwrap();
    table.seal().unwrap();
    let begin = Instant::now();
    let caller = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        stop.cancel();
    });

    let ended = answer::of(&table, "SELECT count(*) FROM results a, results b, results c, results d", 10);

    assert!(matches!(ended, Err(AggregateError::Gone)), "{ended:?}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    caller.join().unwrap();
}

#[test]
fn rows_that_take_more_memory_than_they_may_are_refused() {
    let limits = AggregateLimits { memory_bytes: 64 << 20, ..AggregateLimits::default() };
    let mut table = Table::new(Some(&definition(&COLUMNS, "SELECT 1")), watch(&limits)).unwrap();
    let rows = || (0..1_000).map(|number| row(&"x".repeat(1_000), number)).collect();

    let full = (0..100).find_map(|_| table.put(&result("w1", &COLUMNS, rows())).err());

    let said = full.unwrap().to_string();
    assert!(said.starts_with("the results take more than `engine.aggregate_memory` allows"), "{said}");
    assert!(table.rows() >= 2_000, "{}", table.rows());
}

#[test]
fn a_query_whose_sort_takes_more_memory_than_it_may_is_ended() {
    let limits = AggregateLimits { memory_bytes: 16 << 20, ..AggregateLimits::default() };
    for sql in [
        // 100 GB would be sorted.
        "SELECT printf('%100000s', a.name) AS x FROM results a, results b ORDER BY x DESC",
        "SELECT count(*) FROM (SELECT DISTINCT printf('%100000d', a.size * 1000 + b.size) FROM results a, results b)",
        "SELECT count(*) FROM (SELECT printf('%100000d', a.size * 1000 + b.size) AS x FROM results a, results b GROUP BY x)",
    ] {
        let table = table_within(&limits, 1_000);

        let ended = answer::of(&table, sql, 10).map(|answer| answer.rows.len());

        assert!(matches!(ended, Err(AggregateError::Memory { .. })), "{sql}: {ended:?}");
    }
}

#[test]
fn each_type_comes_out_as_it_went_in_and_null_is_none_of_them() {
    let mut table = Table::new(Some(&definition(&COLUMNS, "SELECT 1")), watch(&Default::default())).unwrap();
    table.put(&result("w1", &COLUMNS, vec![row("a", 1)])).unwrap();
    table.put(&result("w2", &COLUMNS, vec![vec![None; 6]])).unwrap();
    table.seal().unwrap();

    let all = answer::of(&table, "SELECT * FROM results ORDER BY device", 10).unwrap();
    let sums = "SELECT count(*), count(name), sum(size), avg(ratio), max(ratio) / 2, min(at) AS at, max(raw) AS r, \
                group_concat(name), NULL FROM results";
    let sums = answer::of(&table, sums, 10).unwrap();

    let declared: Vec<ColumnType> =
        std::iter::once(ColumnType::Text).chain(COLUMNS.map(|(_, kind)| kind)).collect();
    assert_eq!(types(&all), declared);
    assert_eq!(shown(&all), ["w1|a|1|3.0|1|1700000000|00ff", "w2|NULL|NULL|NULL|NULL|NULL|NULL"]);
    assert_eq!(shown(&sums), ["2|1|1|3.0|1.5|1700000000|00ff|a|NULL"]);
    let computed = [
        ColumnType::Integer,
        ColumnType::Integer,
        ColumnType::Integer,
        ColumnType::Real,
        ColumnType::Real,
        ColumnType::Datetime,
        ColumnType::Blob,
        ColumnType::Text,
        ColumnType::Unspecified,
    ];
    assert_eq!(types(&sums), computed);
}

#[test]
fn a_result_that_is_not_what_was_declared_is_left_out_whole() {
    let mut table = Table::new(Some(&definition(&COLUMNS, "SELECT 1")), watch(&Default::default())).unwrap();
    let spoiled = |at: usize, value: Kind| {
        let mut spoiled = row("a", 1);
        spoiled[at] = Some(value);
        result("w1", &COLUMNS, vec![row("a", 1), spoiled])
    };
    let text = || Kind::Text("1".to_owned());
    let mut renamed = COLUMNS;
    renamed[1].0 = "bytes";
    let mut short = row("a", 1);
    short.pop();
    for unfit in [
        spoiled(0, Kind::Integer(1)),
        spoiled(1, text()),
        spoiled(1, Kind::Real(1.0)),
        spoiled(2, text()),
        spoiled(3, Kind::Integer(2)),
        spoiled(4, Kind::Real(0.5)),
        spoiled(5, text()),
        result("w1", &renamed, vec![row("a", 1)]),
        result("w1", &COLUMNS[..5], vec![row("a", 1)]),
        result("w1", &COLUMNS, vec![short]),
    ] {
        assert_eq!(table.put(&unfit).unwrap(), Put::Unfit, "{unfit:?}");
    }

    assert_eq!(table.rows(), 0);
    assert_eq!(
        table.put(&result("w1", &[], Vec::new())).unwrap(),
        Put::In,
        "a device that has nothing to tell"
    );
}

#[test]
fn a_column_of_the_definition_keeps_its_name_and_whose_row_it_is_has_another() {
    for (columns, own) in [
        (vec!["path"], "device"),
        (vec!["path", "Device"], "device_id"),
        (vec!["device", "DEVICE_ID", "device_id_2"], "device_id_3"),
    ] {
        let columns: Vec<(&str, ColumnType)> =
            columns.into_iter().map(|name| (name, ColumnType::Text)).collect();
        let mut table =
            Table::new(Some(&definition(&columns, "SELECT 1")), watch(&Default::default())).unwrap();
        let values = columns.iter().map(|_| Some(Kind::Text("theirs".to_owned()))).collect();
        table.put(&result("w1", &columns, vec![values])).unwrap();
        table.seal().unwrap();

        let sql = format!("SELECT {own}, {} FROM results", columns[columns.len() - 1].0);
        let found = answer::of(&table, &sql, 10).unwrap();

        assert_eq!(shown(&found), ["w1|theirs"], "{sql}");
    }
}

#[test]
fn an_error_of_the_sql_has_sqlites_words_and_the_columns_that_there_are() {
    let said = problem(&table(1), "SELECT nmae FROM results");

    let wanted =
        "no such column: nmae; the table `results` has the columns device, name, size, ratio, is_on, at, raw";
    assert_eq!(said, wanted);
    let said = problem(
        &table(1),
        "SELECT sum(size * 9223372036854775807 * 3 + abs(-9223372036854775807 - 1)) FROM results",
    );
    assert!(said.contains("integer overflow"), "{said}");
    let said = problem(&table(1), "SELECT \"a text\" FROM results");
    assert!(said.contains("no such column"), "a name in double quotes is never a text: {said}");
}

#[test]
fn a_question_without_declared_columns_has_those_of_its_results() {
    let mut table = Table::new(None, watch(&Default::default())).unwrap();
    let text = |text: &str| Some(Kind::Text(text.to_owned()));
    let (one, any) = (ColumnType::Text, ColumnType::Unspecified);
    let first = [("name", one), ("count(*)", any), ("device", one), ("name", one)];
    table
        .put(&result("w1", &first, vec![vec![text("a"), Some(Kind::Integer(2)), text("eth0"), text("b")]]))
        .unwrap();
    table
        .put(&result(
            "w2",
            &[("NAME", one), ("new\"er", ColumnType::Datetime)],
            vec![vec![text("c"), text("12")]],
        ))
        .unwrap();
    let unfit = table.put(&result("w3", &[("a\0", one)], vec![vec![text("x")]])).unwrap();
    table.seal().unwrap();

    let all = answer::of(&table, "SELECT * FROM results ORDER BY device", 10).unwrap();

    assert_eq!(unfit, Put::Unfit);
    let names: Vec<&str> = all.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["device", "name", "count(*)", "device_1", "name_1", "new\"er"]);
    assert_eq!(shown(&all), ["w1|a|2|eth0|b|NULL", "w2|c|NULL|NULL|NULL|12"]);
    let kinds = [one, one, ColumnType::Integer, one, one, ColumnType::Datetime];
    assert_eq!(types(&all), kinds);
}

#[test]
fn columns_without_an_end_are_left_out() {
    let mut table = Table::new(None, watch(&Default::default())).unwrap();
    let put = |table: &mut Table, number: usize| {
        let names: Vec<String> = (0..60).map(|at| format!("c{number}_{at}")).collect();
        let columns: Vec<(&str, ColumnType)> =
            names.iter().map(|name| (name.as_str(), ColumnType::Integer)).collect();
        table.put(&result("w1", &columns, vec![vec![Some(Kind::Integer(1)); 60]])).unwrap()
    };

    let put: Vec<Put> = (0..4).map(|number| put(&mut table, number)).collect();

    assert_eq!(put, [Put::In, Put::In, Put::Unfit, Put::Unfit]);
}

#[test]
fn an_answer_that_is_cut_says_so() {
    let table = table(20);
    let cut = |sql: &str| {
        let answer = answer::of(&table, sql, 10).unwrap();
        (answer.rows.len(), answer.truncated)
    };

    assert_eq!(cut("SELECT name FROM results LIMIT 10"), (10, false));
    assert_eq!(cut("SELECT name FROM results"), (10, true));
    assert_eq!(cut("SELECT printf('%70000s', name) FROM results LIMIT 1"), (1, true));
    let large = "SELECT printf('%60000s', a.name)".to_owned()
        + &", printf('%60000s', 1)".repeat(9)
        + " FROM results a";
    assert_eq!(cut(&large), (5, true), "3 MiB are more than five rows of 600 KB");
}

#[test]
fn columns_of_one_name_are_told_apart_and_a_long_one_is_cut() {
    let sql = format!("SELECT 1 AS a, 2 AS a, 3 AS \"{}\" FROM results", "ü".repeat(40));
    let found = answer::of(&table(1), &sql, 10).unwrap();

    let names: Vec<&str> = found.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["a", "a_2", "ü".repeat(32).as_str()]);
}

#[test]
fn an_aggregate_that_can_never_run_is_told_before_anybody_issues_it() {
    let said = |aggregate: &str| check(&definition(&COLUMNS, aggregate)).map_err(|error| error.to_string());

    assert_eq!(said("SELECT name, count(*) AS devices FROM results GROUP BY name"), Ok(()));
    for (aggregate, words) in [
        ("SELECT nmae FROM results", "the definition's [aggregate]: no such column: nmae"),
        ("SELECT name FROM result", "no such table: result"),
        ("SELECT name FROM results GROUP name", "syntax error"),
        ("SELECT load_extension(name) FROM results", "is refused"),
    ] {
        let said = said(aggregate).unwrap_err();

        assert!(said.contains(words) && said.contains("device, name, size"), "{said}");
    }
}

#[test]
fn the_shipped_definitions_aggregates_can_run() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../signing/definitions");
    let mut with_aggregate = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let definition = Definition::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();

            assert_eq!(check(&definition), Ok(()), "{}", path.display());
            // A device may answer with several rows of one thing.
            let aggregate = definition.aggregate().unwrap_or_default();
            let counts_devices = aggregate.contains("count(DISTINCT device) AS devices");
            assert_eq!(aggregate.contains("AS devices"), counts_devices, "{}", path.display());
            with_aggregate += usize::from(definition.aggregate().is_some());
        }
    }
    assert!(with_aggregate >= 8, "{with_aggregate}");
}
