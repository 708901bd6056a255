//! `muster ask` and `muster run`.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use muster_proto::common::v1::TargetState;
use muster_proto::operator::v1::Instruction;
use muster_signing::definition::{Definition, Kind};
use serde_json::json;

use super::aggregate;
use crate::cli::{Ask, Issue, Run};
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::issue::{self, Checked, Outcome, QUERY_DEFINITION, Wish};
use crate::operator::Operator;
use crate::output::{self, Cell, Format, Table};
use crate::submit::submit;

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
        keep: arguments.issue.keep,
    };
    let manner = Manner { consent: Consent::NotNeeded, sight: Sight::Rows };
    issue_and_show(operator, home, &wish, &arguments.issue, manner).await
}

/// `muster run`: a definition by name.
pub(crate) async fn run(operator: &Operator, home: &Home, arguments: Run) -> Result<Exit, Failure> {
    let wish = Wish {
        definition: arguments.name,
        version: arguments.definition_version,
        arguments: arguments.parameters,
        audience: arguments.issue.on.clone(),
        gather: arguments.issue.gather,
        keep: arguments.issue.keep,
    };
    let consent = if arguments.yes { Consent::Given } else { Consent::ForActions };
    let sight = if arguments.rows { Sight::Rows } else { Sight::Aggregate };
    issue_and_show(operator, home, &wish, &arguments.issue, Manner { consent, sight }).await
}

/// Whether the operator still has to confirm the number of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Consent {
    NotNeeded,
    Given,
    ForActions,
}

/// What a person sees of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// The rows of every device.
    Rows,
    /// The definition's aggregate, where it has one.
    Aggregate,
}

/// How an instruction is issued and shown.
#[derive(Debug, Clone, Copy)]
struct Manner {
    consent: Consent,
    sight: Sight,
}

async fn issue_and_show(
    operator: &Operator,
    home: &Home,
    wish: &Wish,
    options: &Issue,
    manner: Manner,
) -> Result<Exit, Failure> {
    let checked = issue::prepare(operator, home, wish).await?;
    if options.what_if {
        return show_what_if(&checked, options.output);
    }
    if manner.consent == Consent::ForActions && checked.definition.kind() == Kind::Action {
        output::confirm_count(&confirmed(&checked.definition), checked.prepared.targets)?;
    }
    let id = submit(operator, home, wish, &checked, &options.key).await?;
    if checked.definition.approvals() > 0 {
        let wanted = checked.definition.approvals();
        output::note(&format!(
            "it waits for the approvals of {wanted} others; each signs it by\n  muster instruction approve {id}"
        ));
    }
    // A person who ends the wait early still has the id; programs find it in the document, or in the error.
    if matches!(options.output, Format::Table | Format::Wide) {
        output::note(&format!("instruction {id}"));
    }
    let outcome = tokio::select! {
        biased;
        outcome = watch_with_progress(operator, &id, options.wait) => outcome,
        // An error here means that no signal can be caught, so that the first one ends the process.
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Partial, "interrupted")),
    };
    let outcome = outcome.map_err(|failure| failure.after_submit(&id))?;
    let is_for_people = matches!(options.output, Format::Table | Format::Wide);
    let has_aggregate = checked.definition.aggregate().is_some();
    if is_for_people && has_aggregate && manner.sight == Sight::Aggregate && outcome.instruction.complete {
        match aggregate::of_definition(operator, &id).await {
            Ok(summed) => {
                summed.print_table(options.output)?;
                complain(&outcome);
                output::note(&format!("  the rows themselves:\n  muster instruction results {id}"));
                return Ok(outcome.exit());
            }
            Err(failure) => {
                output::note(&format!("no aggregate: {}", output::printable(&failure.to_string())))
            }
        }
    }
    show(&id, &outcome, options.output, Detail::Answer)?;
    Ok(outcome.exit())
}

/// What a person confirms of an action: a version that wants fewer approvals than another is to be seen.
fn confirmed(definition: &Definition) -> String {
    let wanted = match definition.approvals() {
        0 => "no approvals".to_owned(),
        1 => "the approval of 1 other".to_owned(),
        several => format!("the approvals of {several} others"),
    };
    format!("{} {}, which wants {wanted}, is an action", definition.name(), definition.version())
}

/// Prints what would be sent: words for people, one object or row for programs.
fn show_what_if(checked: &Checked, format: Format) -> Result<Exit, Failure> {
    let (order, prepared) = (&checked.order, &checked.prepared);
    let audience = order.audience.clone().unwrap_or_default().expression;
    match format {
        Format::Table | Format::Wide => {
            output::print_line(&format!(
                "{} {} would reach {} devices, {} of them online,\nuntil {}; nothing was sent",
                order.definition_name,
                order.definition_version,
                prepared.targets,
                prepared.online,
                output::moment(order.expires_at_ms),
            ))?;
            let sample: Vec<String> = prepared.sample.iter().map(|name| output::printable(name)).collect();
            if !sample.is_empty() {
                output::print_line(&format!("for example:\n  {}", sample.join("\n  ")))?;
            }
        }
        Format::Json | Format::Jsonl | Format::Csv => {
            let mut table = Table::new([
                "definition",
                "version",
                "audience",
                "targets",
                "online",
                "expires_at",
                "sample",
            ]);
            table.push(vec![
                Cell::text(&order.definition_name),
                Cell::text(&order.definition_version),
                Cell::text(audience),
                Cell::number(prepared.targets),
                Cell::number(prepared.online),
                Cell::moment(order.expires_at_ms),
                Cell { text: prepared.sample.join(" "), json: json!(prepared.sample) },
            ]);
            match (format, table.objects().first()) {
                (Format::Json, Some(object)) => output::print_json(object)?,
                _ => table.print(format)?,
            }
        }
    }
    Ok(Exit::Ok)
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

/// How much of the results' record is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// The answer to a question: its JSON has the documented keys alone.
    Answer,
    /// All that is known of the results.
    Record,
}

/// Prints rows, and beside them who did not answer and why.
pub(crate) fn show(id: &str, outcome: &Outcome, format: Format, detail: Detail) -> Result<(), Failure> {
    let rows = outcome.rows();
    match format {
        Format::Json => {
            let mut document = document(id, outcome, &rows);
            if detail == Detail::Record {
                add_sandbox(&mut document, outcome);
            }
            output::print_json(&document)
        }
        Format::Table | Format::Wide => {
            if rows.len() > 0 {
                rows.print(format)?;
            }
            summary(id, outcome);
            if format == Format::Wide
                && let Some(line) = sandbox_line(outcome)
            {
                output::note(&output::printable(&line));
            }
            Ok(())
        }
        Format::Jsonl | Format::Csv => {
            rows.print(format)?;
            complain(outcome);
            Ok(())
        }
    }
}

/// The JSON of an instruction's outcome. `truncated` and `problems` are there only where something was left out of an
/// answer, or went wrong; `problems` says of which device.
fn document(id: &str, outcome: &Outcome, rows: &Table) -> serde_json::Value {
    let mut document = json!({
        "instruction": id,
        "targets": outcome.instruction.targets,
        "states": outcome.states(),
        "columns": rows.columns().iter().skip(1).collect::<Vec<_>>(),
        "rows": rows.objects(),
    });
    if !outcome.truncated().is_empty() {
        document["truncated"] = json!(true);
    }
    let problems = problems(outcome);
    if !problems.is_empty() {
        let object = |problem: &Problem| json!({ "device": problem.device, "problem": problem.what, "truncated": problem.is_truncated });
        document["problems"] = problems.iter().map(object).collect();
    }
    document
}

/// Adds the layers of the sandbox that devices missed, by device, where any did.
fn add_sandbox(document: &mut serde_json::Value, outcome: &Outcome) {
    let missing = outcome.sandbox_missing();
    if !missing.is_empty() {
        document["sandbox_missing"] = json!(missing);
    }
}

/// The layers of the sandbox that devices missed, and how many missed each; nothing if none did.
fn sandbox_line(outcome: &Outcome) -> Option<String> {
    let missing = outcome.sandbox_missing();
    let mut layers: BTreeMap<&str, usize> = BTreeMap::new();
    for layer in missing.values().flatten() {
        *layers.entry(layer).or_default() += 1;
    }
    let layers: Vec<String> = layers.iter().map(|(layer, devices)| format!("{layer} ({devices})")).collect();
    let devices = missing.len();
    (devices > 0).then(|| format!("  sandbox layers missing on {devices} devices: {}", layers.join("; ")))
}

fn summary(id: &str, outcome: &Outcome) {
    let states: Vec<String> =
        outcome.states().iter().map(|(state, count)| format!("{count} {state}")).collect();
    output::note(&format!(
        "\n{} rows from {} devices ({})",
        outcome.rows().len(),
        outcome.instruction.targets,
        states.join(", "),
    ));
    complain(outcome);
    if !outcome.instruction.complete {
        output::note(&format!(
            "  it goes on until {}; to see the rest:\n  muster instruction watch {id}",
            output::moment(outcome.instruction.expires_at_ms)
        ));
    }
}

/// Tells on standard error whose answer is missing or not whole.
fn complain(outcome: &Outcome) {
    let problems = problems(outcome);
    for problem in problems.iter().take(COMPLAINTS_MAX) {
        output::note(&output::printable(&format!("  {}: {}", problem.device, problem.what)));
    }
    if problems.len() > COMPLAINTS_MAX {
        output::note(&format!("  … and {} more; -o json shows all", problems.len() - COMPLAINTS_MAX));
    }
    let cut = outcome.truncated().len();
    if cut > 0 {
        output::note(&format!(
            "the answer is not whole: {cut} of its devices had more to tell than was allowed"
        ));
    }
}

/// What is worth telling about one device's answer.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    device: String,
    what: String,
    is_truncated: bool,
}

/// What is worth telling, a device once, those that gave no answer first.
fn problems(outcome: &Outcome) -> Vec<Problem> {
    let truncated = outcome.truncated();
    let mut problems = Vec::new();
    for result in &outcome.results {
        let what = match result.state() {
            TargetState::Answered => continue,
            TargetState::Refused => format!("refused {}: {}", result.refusal().name(), result.detail),
            state @ (TargetState::Unspecified
            | TargetState::Queued
            | TargetState::Sent
            | TargetState::Acked
            | TargetState::Running
            | TargetState::Failed
            | TargetState::Interrupted
            | TargetState::Expired
            | TargetState::Cancelled) => format!("{}: {}", state.name(), result.detail),
        };
        let is_truncated = truncated.contains_key(result.device.as_str());
        problems.push(Problem { device: result.device.clone(), what, is_truncated });
    }
    for (device, rows) in truncated {
        if !problems.iter().any(|problem| problem.device == device) {
            let what = format!(
                "cut at a limit of the definition or the device; {rows} rows are here, more rows or values are not"
            );
            problems.push(Problem { device: device.to_owned(), what, is_truncated: true });
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use muster_proto::operator::v1::DeviceResult;

    use super::*;

    fn outcome() -> Outcome {
        let result = |device: &str, state: TargetState, truncated| DeviceResult {
            device: device.to_owned(),
            state: state.into(),
            detail: "no such file".to_owned(),
            truncated,
            ..DeviceResult::default()
        };
        let results = vec![
            result("web1", TargetState::Answered, false),
            result("web2", TargetState::Answered, true),
            result("web2", TargetState::Answered, true),
            result("web3", TargetState::Failed, false),
        ];
        Outcome { results, ..Outcome::default() }
    }

    #[test]
    fn json_says_of_each_device_whether_its_answer_was_cut() {
        let outcome = outcome();

        let document = document("0", &outcome, &outcome.rows());

        assert_eq!(document["truncated"], true);
        let problems = document["problems"].as_array().unwrap();
        let told: Vec<_> =
            problems.iter().map(|problem| (&problem["device"], &problem["truncated"])).collect();
        assert_eq!(told, [(&json!("web3"), &json!(false)), (&json!("web2"), &json!(true))]);
    }

    #[test]
    fn a_missing_layer_of_the_sandbox_is_in_the_record_and_not_in_the_answer() {
        let mut outcome = outcome();
        outcome.results[0].sandbox_missing = vec!["cgroup: none".to_owned()];
        outcome.results[1].sandbox_missing = vec!["cgroup: none".to_owned(), "uid: stays root".to_owned()];

        let answer = document("0", &outcome, &outcome.rows());
        let mut record = answer.clone();
        add_sandbox(&mut record, &outcome);
        let line = sandbox_line(&outcome).unwrap();

        assert_eq!(answer.get("sandbox_missing"), None);
        let expected = json!({ "web1": ["cgroup: none"], "web2": ["cgroup: none", "uid: stays root"] });
        assert_eq!(record["sandbox_missing"], expected);
        assert_eq!(line.trim(), "sandbox layers missing on 2 devices: cgroup: none (2); uid: stays root (1)");
        assert_eq!(sandbox_line(&Outcome::default()), None);
    }

    #[test]
    fn json_of_a_whole_answer_has_the_five_keys_alone() {
        let outcome = Outcome::default();

        let document = document("0", &outcome, &outcome.rows());

        let keys: Vec<&String> = document.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["columns", "instruction", "rows", "states", "targets"]);
    }
}
