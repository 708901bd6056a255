//! Arguments are data (signing.md, "parameter injection"): hostile strings in every text parameter of every shipped
//! definition, bound and run as a client does, leave no trace.

use std::path::Path;
use std::process::Command;

use muster_endpoint::{
    Action, Answer, Deed, Granted, Query, QueryError, QueryLimits, SandboxProfile, SqlValue, VALUE_BYTES_MAX,
    Verb, check, run, run_action,
};
use muster_proto::common::v1::{NamedValue, Value, value::Kind};
use muster_signing::definition::{
    Action as SignedAction, ArgumentError, Definition, Parameter, ParameterKind, Step,
};
use tokio::task::JoinSet;

use crate::hostile::{CANARY_SLEEP, strings};
use crate::support::helper;

/// Every definition that is shipped, by name.
fn shipped() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../signing/definitions");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|it| it == "toml")).collect();
    files.sort();
    files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

/// Helpers at a time.
const HELPERS: usize = 4;

#[test]
fn sqlite_takes_every_shipped_query_and_gives_the_declared_columns() {
    for text in shipped() {
        let definition = Definition::parse(&text).unwrap();
        for step in definition.steps() {
            let Step::Query { sql } = step else { continue };

            let given = check(sql).unwrap_or_else(|error| panic!("{}: {error}", definition.name()));

            let given: Vec<&str> = given.iter().map(|column| column.name.as_str()).collect();
            let declared: Vec<&str> = definition.result().iter().map(|column| column.name.as_str()).collect();
            assert_eq!(given, declared, "{}", definition.name());
        }
    }
}

#[test]
fn hostile_strings_in_every_text_parameter_leave_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let canary = folder.path().join("canary");
    let strings = strings(&canary);
    assert!(strings.len() >= 500, "{} strings", strings.len());
    let (mut tried, mut ran) = (Vec::new(), 0);
    for text in shipped() {
        let definition = Definition::parse(&text).unwrap();
        for parameter in definition.parameters() {
            if matches!(parameter.kind(), ParameterKind::String { .. } | ParameterKind::Enum { .. }) {
                let (offences, steps) = match &definition.steps()[0] {
                    Step::Action(action) => done(&definition, action, parameter, &strings),
                    Step::Query { .. } | Step::QueryParameter { .. } | Step::Script(_) | _ => {
                        offences(&definition, parameter, &strings, |step| step.clone())
                    }
                };
                ran += steps;
                assert_eq!(offences, Vec::<String>::new(), "{}, {}", definition.name(), parameter.name());
                tried.push(format!("{} {}", definition.name(), parameter.name()));
            }
        }
    }
    assert!(ran > 600, "only {ran} strings passed a pattern, so only they were run");
    assert_eq!(
        tried,
        [
            "Muster-Certificates-Expiring path",
            "Muster-Core-Query sql",
            "Muster-File-Hash path",
            "Muster-Package-Version name",
            "Muster-Process-Top by",
            "Muster-Service-Restart unit",
            "Muster-Service-State name",
        ]
    );
    assert_eq!(traces(folder.path()), Vec::<String>::new());
}

#[test]
fn the_same_strings_are_noticed_where_text_is_pasted_into_sql() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = shipped().into_iter().find(|text| text.contains("\"Muster-File-Hash\"")).unwrap();
    let text = shipped.replace("pattern = '(/[^/]+)+'\n", "");
    let definition = Definition::parse(&text).unwrap();
    let pasted = |step: &Bound| Bound {
        sql: step.sql.replace(":path", &format!("'{}'", step.argument)),
        parameters: Vec::new(),
        ..step.clone()
    };

    let strings = strings(&folder.path().join("canary"));
    let (offences, _) = offences(&definition, &definition.parameters()[0], &strings, pasted);

    assert!(offences.len() > 50, "{offences:#?}");
}

#[test]
fn the_same_strings_do_harm_in_a_shell() {
    let folder = tempfile::tempdir().unwrap();
    let canary = folder.path().join("canary");
    let harmful = strings(&canary).into_iter().filter(|string| {
        let is_safe = string.contains('\0') || string.contains(CANARY_SLEEP) || !string.contains("canary");
        if is_safe {
            return false;
        }
        let mut shell = Command::new("timeout");
        shell.args(["5", "sh", "-c", &format!("echo {string}")]).current_dir(folder.path());
        drop(shell.output().unwrap());
        std::fs::remove_file(&canary).is_ok()
    });

    assert!(harmful.count() > 20);
}

/// One run, as `client/src/instructions/run.rs` makes it.
#[derive(Debug, Clone)]
struct Bound {
    sql: String,
    parameters: Vec<(String, SqlValue)>,
    limits: QueryLimits,
    argument: String,
    /// The argument is the query, which may be wrong SQL.
    is_query: bool,
}

/// Gives every string to a parameter and runs what is bound; tells what a client must not do, and how many were run.
fn offences(
    definition: &Definition,
    parameter: &Parameter,
    strings: &[String],
    change: impl Fn(&Bound) -> Bound,
) -> (Vec<String>, usize) {
    let mut offences = Vec::new();
    let mut steps = Vec::new();
    for string in strings {
        match bind(definition, parameter.name(), string) {
            Ok(bound) => steps.push(change(&bound)),
            Err(ArgumentError::Unfit { name, wanted, .. }) => {
                if name != parameter.name() || wanted != parameter.kind().to_string() {
                    offences.push(format!("refused as {name}: {wanted}"));
                }
            }
            Err(other) => offences.push(other.to_string()),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ran = steps.len();
    offences.extend(runtime.block_on(run_all(definition.name().as_str(), steps)));
    (offences, ran)
}

/// Gives every string to an action's parameter and has done what is bound, as a client does; tells what must not be, and how many went to the
/// service manager. No unit is called so: the manager, or its program where there is none, must name the very string.
fn done(
    definition: &Definition,
    action: &SignedAction,
    parameter: &Parameter,
    strings: &[String],
) -> (Vec<String>, usize) {
    let SignedAction::Service { unit, .. } = action else { panic!("{action:?}: write what it may do") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut offences, mut asked) = (Vec::new(), 0);
    for string in strings {
        let argument = NamedValue {
            name: parameter.name().to_owned(),
            value: Some(Value { kind: Some(Kind::Text(string.clone())) }),
        };
        let bound = match definition.bind(&[argument]) {
            Ok(bound) => bound,
            Err(ArgumentError::Unfit { name, .. }) if name == parameter.name() => continue,
            Err(other) => {
                offences.push(other.to_string());
                continue;
            }
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ":_.@\\-".contains(c);
        if !string.chars().all(is_plain) || string.starts_with('-') {
            offences.push(format!("{string:?} is bound"));
        }
        let unit = unit.value(&bound).unwrap().to_owned();
        let deed = Deed::Service { verb: Verb::Restart, unit: unit.clone() };
        let answer =
            runtime.block_on(run_action(&helper(), Action { deed, run_time: definition.limits().run_time }));
        asked += 1;
        let is_told = |message: &str| {
            message.contains(&format!("the unit {unit} is not"))
                || message.contains(&format!(" -- {unit}`: "))
        };
        match answer {
            Err(QueryError::Script { message }) if is_told(&message) => {}
            other => offences.push(format!("{string:?}: {other:?}")),
        }
    }
    assert!(asked > 20 && asked < strings.len(), "{asked} strings passed the pattern");
    (offences, asked)
}

fn bind(definition: &Definition, name: &str, string: &str) -> Result<Bound, ArgumentError> {
    let argument = NamedValue {
        name: name.to_owned(),
        value: Some(Value { kind: Some(Kind::Text(string.to_owned())) }),
    };
    let bound = definition.bind(&[argument])?;
    let value = |named: NamedValue| match named.value.and_then(|value| value.kind) {
        Some(Kind::Text(text)) => (named.name, SqlValue::Text(text)),
        Some(Kind::Integer(number)) => (named.name, SqlValue::Integer(number)),
        Some(Kind::Real(number)) => (named.name, SqlValue::Real(number)),
        Some(Kind::Blob(blob)) => (named.name, SqlValue::Blob(blob)),
        None => (named.name, SqlValue::Null),
    };
    let limits = definition.limits();
    let (sql, is_query) = match &definition.steps()[0] {
        Step::QueryParameter { .. } => (string.to_owned(), true),
        Step::Query { sql } => (sql.clone(), false),
        other @ (Step::Script(_) | Step::Action(_) | _) => panic!("{other:?}"),
    };
    Ok(Bound {
        sql,
        parameters: bound.into_iter().map(value).collect(),
        limits: QueryLimits { run_time: limits.run_time, rows: limits.rows, bytes: limits.bytes },
        argument: string.to_owned(),
        is_query,
    })
}

async fn run_all(definition: &str, steps: Vec<Bound>) -> Vec<String> {
    let mut offences = Vec::new();
    let mut running = JoinSet::new();
    for step in steps {
        if running.len() == HELPERS {
            offences.extend(running.join_next().await.and_then(|judged| judged.unwrap()));
        }
        let is_path = definition == "Muster-File-Hash";
        running.spawn(async move {
            let query = Query {
                sql: step.sql.clone(),
                parameters: step.parameters.clone(),
                limits: step.limits,
                sandbox: SandboxProfile::Standard,
                readable: Vec::new(),
                granted: Granted::All,
                then: Vec::new(),
            };
            let answer = run(&helper(), query).await;
            judge(&step, answer, is_path)
        });
    }
    while let Some(judged) = running.join_next().await {
        offences.extend(judged.unwrap());
    }
    offences
}

/// An ordinary answer, or for a query of one's own a refusal, is no offence.
fn judge(step: &Bound, answer: Result<Answer, QueryError>, is_path: bool) -> Option<String> {
    let argument: String = step.argument.chars().take(100).collect();
    match answer {
        Ok(answer) if is_path => {
            let is_asked = |row: &Vec<SqlValue>| row.first() == Some(&SqlValue::Text(step.argument.clone()));
            let others = answer.rows.iter().filter(|row| !is_asked(row)).count();
            (others > 0).then(|| format!("{argument:?}: {others} rows of other files"))
        }
        Ok(answer) => {
            let is_long =
                |value: &SqlValue| matches!(value, SqlValue::Text(text) if text.len() > VALUE_BYTES_MAX);
            answer
                .rows
                .iter()
                .flatten()
                .any(is_long)
                .then(|| format!("{argument:?}: a value beyond its bound"))
        }
        Err(QueryError::Sql { .. }) if step.is_query => None,
        Err(error) => Some(format!("{argument:?}: {error}")),
    }
}

/// Whatever a string has made: files beside the canary's place, or the canary process.
fn traces(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path().display().to_string());
    let processes = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.contains(&CANARY_SLEEP.as_bytes()).then(|| format!("process {}", entry.path().display()))
    });
    files.chain(processes).collect()
}
