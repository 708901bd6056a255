//! `muster ask` and `muster run`.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use muster_proto::common::v1::TargetState;
use muster_proto::operator::v1::{DeviceResult, Instruction};
use muster_signing::definition::Kind;
use serde_json::json;

use crate::cli::{Ask, Issue, Run};
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::issue::{self, Checked, Outcome, QUERY_DEFINITION, Wish};
use crate::operator::Operator;
use crate::output::{self, Cell, Format, Table};

/// Devices whose refusals or failures are named one by one; the rest are counted.
const COMPLAINTS_MAX: usize = 5;

/// Prepares the question against the tables, so that a wrong column is told before anything is sent.
pub(crate) fn check_sql(sql: &str) -> Result<(), Failure> {
    muster_endpoint::check(sql)
        .map(|_| ())
        .map_err(|error| Failure::usage(error.to_string()).with_next("muster ask --help"))
}

/// `muster ask`: the platform's own definition with the question as its parameter.
pub(crate) async fn ask(operator: &Operator, home: &Home, arguments: Ask) -> Result<Exit, Failure> {
    let wish = Wish {
        definition: QUERY_DEFINITION.to_owned(),
        version: String::new(),
        arguments: vec![("sql".to_owned(), arguments.sql)],
        audience: arguments.issue.on.clone(),
        gather: arguments.issue.gather,
    };
    issue_and_show(operator, home, &wish, &arguments.issue, Consent::NotNeeded).await
}

/// `muster run`: a definition by name.
pub(crate) async fn run(operator: &Operator, home: &Home, arguments: Run) -> Result<Exit, Failure> {
    let wish = Wish {
        definition: arguments.name,
        version: arguments.definition_version,
        arguments: arguments.parameters,
        audience: arguments.issue.on.clone(),
        gather: arguments.issue.gather,
    };
    let consent = if arguments.yes { Consent::Given } else { Consent::ForActions };
    issue_and_show(operator, home, &wish, &arguments.issue, consent).await
}

/// Whether the operator still has to confirm the number of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Consent {
    NotNeeded,
    Given,
    ForActions,
}

async fn issue_and_show(
    operator: &Operator,
    home: &Home,
    wish: &Wish,
    options: &Issue,
    consent: Consent,
) -> Result<Exit, Failure> {
    let checked = issue::prepare(operator, home, wish).await?;
    if options.what_if {
        return show_what_if(&checked, options.output);
    }
    if checked.prepared.targets == 0 {
        return Err(no_target(wish));
    }
    if consent == Consent::ForActions && checked.definition.kind() == Kind::Action {
        confirm(&checked)?;
    }
    let id = issue::submit(operator, home, &checked).await?;
    let outcome = watch_with_progress(operator, &id, options.wait).await?;
    show(&id, &outcome, options.output)?;
    Ok(outcome.exit())
}

fn no_target(wish: &Wish) -> Failure {
    let message = match wish.audience.as_str() {
        "" => "the Switch knows no device yet, so nothing was sent".to_owned(),
        expression => format!("no device matches `{expression}`, so nothing was sent"),
    };
    Failure::new(Exit::Partial, message).with_next("muster client list")
}

fn show_what_if(checked: &Checked, format: Format) -> Result<Exit, Failure> {
    let prepared = &checked.prepared;
    let expires_at = output::moment(checked.order.expires_at_ms);
    match format {
        Format::Json | Format::Jsonl => output::print_json(&json!({
            "definition": checked.order.definition_name,
            "version": checked.order.definition_version,
            "targets": prepared.targets,
            "online": prepared.online,
            "sample": prepared.sample,
            "expires_at": expires_at,
        }))?,
        Format::Table | Format::Wide | Format::Csv => output::print_line(&format!(
            "{} {} would reach {} devices, {} of them online, until {expires_at}; nothing was sent\nfor example: {}",
            checked.order.definition_name,
            checked.order.definition_version,
            prepared.targets,
            prepared.online,
            prepared.sample.join(", "),
        ))?,
    }
    Ok(Exit::Ok)
}

/// Asks for the number of devices, as a person who means it types it.
fn confirm(checked: &Checked) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    let targets = checked.prepared.targets;
    let refuse = |why: &str| {
        Failure::usage(format!("{} is an action on {targets} devices; {why}", checked.order.definition_name))
            .with_next("the same command with --yes")
    };
    if !std::io::stdin().is_terminal() {
        return Err(refuse("no terminal to confirm it on"));
    }
    output::note(&format!(
        "{} is an action. Type the number of devices to go on ({targets}):",
        checked.order.definition_name
    ));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|error| refuse(&error.to_string()))?;
    if line.trim() == targets.to_string() { Ok(()) } else { Err(refuse("the number typed was another")) }
}

/// Watches with a coverage bar where a person looks.
pub(crate) async fn watch_with_progress(
    operator: &Operator,
    id: &str,
    wait: Duration,
) -> Result<Outcome, Failure> {
    if !output::is_watched() {
        return issue::watch(operator, id, wait, |_| {}).await;
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} answered · {msg}") {
        bar.set_style(style);
    }
    let outcome = issue::watch(operator, id, wait, |instruction| draw(&bar, instruction)).await;
    bar.finish_and_clear();
    outcome
}

fn draw(bar: &ProgressBar, instruction: &Instruction) {
    let count = |state: TargetState| -> u64 {
        instruction.states.iter().filter(|count| count.state() == state).map(|count| count.count).sum()
    };
    bar.set_length(instruction.targets);
    bar.set_position(count(TargetState::Answered));
    let running = count(TargetState::Running) + count(TargetState::Acked);
    bar.set_message(format!(
        "{} queued, {} sent, {running} running",
        count(TargetState::Queued),
        count(TargetState::Sent)
    ));
}

/// Prints rows, and beside them who did not answer and why.
pub(crate) fn show(id: &str, outcome: &Outcome, format: Format) -> Result<(), Failure> {
    let rows = outcome.rows();
    match format {
        Format::Json => output::print_json(&document(id, outcome, &rows)),
        Format::Table | Format::Wide => {
            if rows.len() > 0 {
                rows.print(format)?;
            }
            summary(id, outcome);
            Ok(())
        }
        Format::Jsonl | Format::Csv => {
            rows.print(format)?;
            complain(outcome);
            Ok(())
        }
    }
}

/// The JSON of an instruction's outcome; `problems` is there only where there are any.
fn document(id: &str, outcome: &Outcome, rows: &Table) -> serde_json::Value {
    let mut document = json!({
        "instruction": id,
        "targets": outcome.instruction.targets,
        "states": outcome.states(),
        "columns": rows.columns().iter().skip(1).collect::<Vec<_>>(),
        "rows": rows.objects(),
    });
    let problems = problems(outcome);
    if problems.len() > 0 {
        document["problems"] = serde_json::Value::Array(problems.objects());
    }
    document
}

fn summary(id: &str, outcome: &Outcome) {
    let states: Vec<String> =
        outcome.states().iter().map(|(state, count)| format!("{count} {state}")).collect();
    output::note(&format!(
        "\n{} rows from {} devices ({}) · instruction {id}",
        outcome.rows().len(),
        outcome.instruction.targets,
        states.join(", "),
    ));
    complain(outcome);
    if !outcome.instruction.complete {
        output::note(&format!(
            "  it goes on until {}: muster instruction watch {id}",
            output::moment(outcome.instruction.expires_at_ms)
        ));
    }
}

fn complain(outcome: &Outcome) {
    let problems: Vec<String> = outcome
        .results
        .iter()
        .filter_map(problem)
        .map(|(device, what)| format!("  {device}: {what}"))
        .collect();
    for line in problems.iter().take(COMPLAINTS_MAX) {
        output::note(&output::printable(line));
    }
    if problems.len() > COMPLAINTS_MAX {
        output::note(&format!("  … and {} more; -o json shows all", problems.len() - COMPLAINTS_MAX));
    }
}

fn problems(outcome: &Outcome) -> Table {
    let mut table = Table::new(["device", "problem"]);
    for (device, what) in outcome.results.iter().filter_map(problem) {
        table.push(vec![Cell::text(device), Cell::text(what)]);
    }
    table
}

/// What is worth telling about one device's result.
fn problem(result: &DeviceResult) -> Option<(&str, String)> {
    let what = match (result.state(), result.truncated) {
        (TargetState::Answered, false) => return None,
        (TargetState::Answered, true) => "rows or values were cut at a limit of the definition".to_owned(),
        (TargetState::Refused, _) => {
            format!("refused {}: {}", result.refusal().name(), result.detail)
        }
        (state, _) => format!("{}: {}", state.name(), result.detail),
    };
    Some((&result.device, what))
}
