//! `muster instruction`: what was issued, and what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_proto::common::v1::{ColumnType, NamedValue, TargetState};
use muster_proto::ids::InstructionId;
use muster_proto::operator::v1::{
    GetInstructionRequest, Instruction as Shown, ListInstructionsRequest, ListResultsRequest,
    ListTargetsRequest, Target,
};
use muster_proto::order::v1::Order;
use serde_json::json;

use super::aggregate;
use super::issue::{self, Detail};
use crate::approve::{self, ToApprove};
use crate::cli::{Instruction, Listing, OrderKey};
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::issue::Outcome;
use crate::operator::{Operator, answered};
use crate::order_key;
use crate::output::{self, Cell, Flag, Format, Table};
use crate::stop::Standing;

/// Targets among which those are counted that the Switch refused: a page at most.
const REFUSED_LOOKED_AT: u32 = 10_000;

/// The cause of what a device's result says.
const BY_RESULT: &str = "result";

/// Runs a verb.
pub(crate) async fn run(operator: &Operator, home: &Home, verb: Instruction) -> Result<Exit, Failure> {
    match verb {
        Instruction::List(listing) => list(operator, &listing).await,
        Instruction::Show { id, output } => show(operator, &id, output).await,
        Instruction::Watch { id, wait, output } => {
            let outcome = issue::watch_with_progress(operator, &id, wait).await?;
            issue::show(&id, &outcome, output, Detail::Answer)?;
            Ok(outcome.exit())
        }
        Instruction::Approve { id, yes, wait, output, key } => {
            let consent = if yes { Consent::Given } else { Consent::Needed };
            approve(operator, home, &id, consent, &key, wait, output).await
        }
        Instruction::Stop { id, reason, wait, output, key } => {
            stop(operator, home, (&id, &reason), &key, wait, output).await
        }
        Instruction::Targets { id, state, listing } => targets(operator, &id, state, &listing).await,
        Instruction::Results { id, output } => {
            let outcome = results(operator, &id).await?;
            issue::show(&id, &outcome, output, Detail::Record)?;
            Ok(Exit::Ok)
        }
        Instruction::Aggregate { id, query, output } => {
            aggregate::run(operator, &parse(&id)?.to_string(), &query, output).await
        }
    }
}

/// Whether the operator still has to confirm the number of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Consent {
    Given,
    Needed,
}

/// Shows what an instruction would do, signs it, and prints how it stands; where nothing lacks any more, after a while.
async fn approve(
    operator: &Operator,
    home: &Home,
    id: &str,
    consent: Consent,
    key: &OrderKey,
    wait: Duration,
    format: Format,
) -> Result<Exit, Failure> {
    let parsed = parse(id)?;
    let id = &parsed.to_string();
    match approve::fetch(operator, home, parsed).await? {
        approve::Standing::Whole(before) => output::note(match before.approvals_wanted {
            0 => "its definition asks for no approvals; there was nothing to sign",
            _ => "it lacks no approval any more; there was nothing to sign",
        }),
        approve::Standing::Lacks(shown) => {
            tell(&shown);
            let (order, targets) = (&shown.order, members(&shown.order));
            if consent == Consent::Needed {
                let what = format!("{} waits for your approval", order.definition_name);
                output::confirm_count(&what, targets)?;
            }
            let signer = order_key::open(home, key)?;
            approve::approve(operator, home, *shown, parsed, &signer).await?;
        }
    }
    let mut instruction = get(operator, id).await?;
    if instruction.approvals_missing == 0 {
        instruction = issue::watch_with_progress(operator, id, wait).await?.instruction;
    }
    let mut pairs = vec![("instruction", Cell::text(id))];
    pairs.extend(standing(operator, &instruction).await?);
    print(pairs, format)?;
    Ok(if instruction.complete { Exit::Ok } else { Exit::Partial })
}

fn members(order: &Order) -> u64 {
    order.audience.as_ref().map_or(0, |audience| audience.members_count)
}

/// Tells on standard error what is to be approved, as the signed bytes say it.
fn tell(shown: &ToApprove) {
    let (order, definition) = (&shown.order, &shown.definition);
    let argument = |argument: &NamedValue| {
        let value = argument.value.clone().unwrap_or_default();
        // As JSON, a text ends where it ends.
        ("argument", format!("{} = {}", argument.name, Cell::value(&value, ColumnType::Unspecified).json))
    };
    let bound = definition.bind(&order.arguments).unwrap_or_default();
    let audience = order.audience.clone().unwrap_or_default().expression;
    let audience = if audience.is_empty() { "every device".to_owned() } else { json!(audience).to_string() };
    let signers: Vec<&str> = shown.signers.iter().map(|signer| signer.subject()).collect();
    let mut rows = vec![
        ("tenant", json!(order.tenant).to_string()),
        ("definition", format!("{} {}", definition.name(), definition.version())),
        (definition.kind().name(), definition.says().to_owned()),
    ];
    rows.extend(bound.iter().map(argument));
    rows.extend([
        ("audience", format!("{audience} ({} devices)", members(order))),
        ("issued by", json!(order.operator).to_string()),
        ("signed by", json!(signers).to_string()),
        ("from", output::moment(order.not_before_ms)),
        ("until", output::moment(order.expires_at_ms)),
    ]);
    for (what, told) in rows {
        output::note(&output::printable(&format!("  {what:<10}  {told}")));
    }
}

fn parse(id: &str) -> Result<InstructionId, Failure> {
    id.parse()
        .map_err(|error| Failure::usage(format!("`{id}`: {error}")).with_next("muster instruction list"))
}

async fn get(operator: &Operator, id: &str) -> Result<Shown, Failure> {
    let request = GetInstructionRequest { instruction: id.to_owned() };
    Ok(answered(operator.instructions().get_instruction(request)).await?.instruction.unwrap_or_default())
}

/// Stops an instruction, waits for its targets, and prints what became of them.
async fn stop(
    operator: &Operator,
    home: &Home,
    (id, reason): (&str, &str),
    key: &OrderKey,
    wait: Duration,
    format: Format,
) -> Result<Exit, Failure> {
    let parsed = parse(id)?;
    let id = &parsed.to_string();
    match crate::stop::stop(operator, home, parsed, reason, key).await? {
        Standing::Stopped => {}
        Standing::Before(before) => output::note(&match (&before.stop, before.complete) {
            (Some(stop), _) => output::printable(&format!("{} has stopped it before", stop.operator)),
            (None, true) => "it had ended already; there was nothing to stop".to_owned(),
            (None, false) => "the Switch has nothing to stop of it".to_owned(),
        }),
    }
    let instruction = issue::watch_with_progress(operator, id, wait).await?.instruction;
    let mut pairs = vec![("instruction", Cell::text(id))];
    pairs.extend(standing(operator, &instruction).await?);
    print(pairs, format)?;
    Ok(if instruction.complete { Exit::Ok } else { Exit::Partial })
}

/// Who approved an instruction, and how many are missing; nothing if its definition asks for none.
fn approved(instruction: &Shown) -> Vec<(&'static str, Cell)> {
    if instruction.approvals_wanted == 0 {
        return Vec::new();
    }
    let given = instruction.approvals.iter().map(|given| {
        json!({ "operator": given.operator, "signer": given.signer, "at": output::moment(given.at_ms) })
    });
    let names: Vec<&str> = instruction.approvals.iter().map(|given| given.operator.as_str()).collect();
    vec![
        ("approvals_wanted", Cell::number(instruction.approvals_wanted.into())),
        ("approvals_missing", Cell::number(instruction.approvals_missing.into())),
        ("approved_by", Cell { text: names.join(", "), json: given.collect() }),
    ]
}

/// Who stopped an instruction, when and why; nothing if nobody did.
fn stopped(instruction: &Shown) -> Vec<(&'static str, Cell)> {
    let Some(stop) = &instruction.stop else { return Vec::new() };
    vec![
        ("stopped_by", Cell::text(&stop.operator)),
        ("stopped_at", Cell::moment(stop.at_ms)),
        ("stop_reason", Cell::text(&stop.reason)),
        ("stop_signer", Cell::text(&stop.signer)),
    ]
}

async fn list(operator: &Operator, listing: &Listing) -> Result<Exit, Failure> {
    let mut table = Table::new([
        "id",
        "definition",
        "version",
        "created",
        "states",
        "targets",
        "complete",
        "operator",
        "audience",
    ])
    .wide_only(&["version", "targets", "complete", "operator", "audience"]);
    let mut page_token = String::new();
    loop {
        let left = listing.limit.saturating_sub(u32::try_from(table.len()).unwrap_or(u32::MAX));
        let request = ListInstructionsRequest { page_size: left.min(1_000), page_token };
        let page = answered(operator.instructions().list_instructions(request)).await?;
        for instruction in &page.instructions {
            table.push(row(instruction));
        }
        page_token = page.next_page_token;
        if page_token.is_empty() || table.len() >= usize::try_from(listing.limit).unwrap_or(usize::MAX) {
            break;
        }
    }
    table.print(listing.output)?;
    if !page_token.is_empty() {
        output::note_more(listing.limit);
    }
    if table.len() == 0 {
        output::note("no instruction yet; issue one: muster ask 'SELECT name, version FROM os'");
    }
    Ok(Exit::Ok)
}

fn row(instruction: &Shown) -> Vec<Cell> {
    vec![
        Cell::text(&instruction.id),
        Cell::text(&instruction.definition),
        Cell::text(&instruction.version),
        Cell::moment(instruction.created_at_ms),
        states(instruction),
        Cell::number(instruction.targets),
        Cell::flag(Flag::from(instruction.complete)),
        Cell::text(&instruction.operator),
        Cell::text(&instruction.audience),
    ]
}

fn states(instruction: &Shown) -> Cell {
    let named = |count: &muster_proto::operator::v1::StateCount| (count.state().name(), count.count);
    let text: Vec<String> =
        instruction.states.iter().map(named).map(|(state, count)| format!("{count} {state}")).collect();
    let json: serde_json::Map<_, _> =
        instruction.states.iter().map(named).map(|(state, count)| (state.to_owned(), json!(count))).collect();
    Cell { text: text.join(", "), json: serde_json::Value::Object(json) }
}

async fn show(operator: &Operator, id: &str, format: Format) -> Result<Exit, Failure> {
    let instruction = get(operator, id).await?;
    let mut pairs = vec![
        ("id", Cell::text(&instruction.id)),
        ("definition", Cell::text(&instruction.definition)),
        ("version", Cell::text(&instruction.version)),
        ("operator", Cell::text(&instruction.operator)),
        ("signer", Cell::text(&instruction.signer)),
        ("signer_thumbprint", Cell::text(&instruction.signer_thumbprint)),
        ("audience", Cell::text(&instruction.audience)),
        ("arguments", arguments(&instruction)),
        ("created", Cell::moment(instruction.created_at_ms)),
        ("expires", Cell::moment(instruction.expires_at_ms)),
        ("results_kept_until", Cell::moment(instruction.results_until_ms)),
        ("results_deleted", Cell::flag(Flag::from(instruction.results_deleted))),
    ];
    pairs.extend(standing(operator, &instruction).await?);
    print(pairs, format)?;
    Ok(Exit::Ok)
}

/// How far an instruction has come: its targets, who stopped it, and whom it waits for.
async fn standing(operator: &Operator, instruction: &Shown) -> Result<Vec<(&'static str, Cell)>, Failure> {
    let mut pairs = vec![
        ("targets", Cell::number(instruction.targets)),
        ("states", states(instruction)),
        ("complete", Cell::flag(Flag::from(instruction.complete))),
    ];
    pairs.extend(approved(instruction));
    pairs.extend(stopped(instruction));
    let waiting = waiting(operator, &instruction.id).await?;
    if !waiting.is_empty() {
        pairs.push(("waiting_for", Cell { text: waiting.join(", "), json: json!(waiting) }));
    }
    let is_refused =
        instruction.states.iter().any(|count| count.state() == TargetState::Refused && count.count > 0);
    if is_refused && let Some(refused) = refused_here(operator, &instruction.id).await? {
        pairs.push(("refused_by_switch", refused));
    }
    Ok(pairs)
}

/// How many targets the Switch itself refused, by code: of these no result tells. Counted among the first [`REFUSED_LOOKED_AT`].
async fn refused_here(operator: &Operator, id: &str) -> Result<Option<Cell>, Failure> {
    let request = ListTargetsRequest {
        instruction: id.to_owned(),
        state: TargetState::Refused.into(),
        page_size: REFUSED_LOOKED_AT,
        page_token: String::new(),
    };
    let page = answered(operator.instructions().list_targets(request)).await?;
    Ok(by_cause(&page.targets))
}

fn by_cause(targets: &[Target]) -> Option<Cell> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    // A Switch of an older version tells none.
    let told =
        targets.iter().map(|target| target.cause.as_str()).filter(|cause| !["", BY_RESULT].contains(cause));
    told.for_each(|cause| *counts.entry(cause).or_default() += 1);
    let text: Vec<String> = counts.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
    (!counts.is_empty()).then(|| Cell { text: text.join(", "), json: json!(counts) })
}

/// Lists targets, in the order in which the Switch came to know their devices.
async fn targets(
    operator: &Operator,
    id: &str,
    state: Option<TargetState>,
    listing: &Listing,
) -> Result<Exit, Failure> {
    let id = parse(id)?.to_string();
    let mut table = Table::new(["device", "state", "cause", "since"]);
    let mut page_token = String::new();
    loop {
        let left = listing.limit.saturating_sub(u32::try_from(table.len()).unwrap_or(u32::MAX));
        let request = ListTargetsRequest {
            instruction: id.clone(),
            state: state.unwrap_or_default().into(),
            page_size: left.min(10_000),
            page_token,
        };
        let page = answered(operator.instructions().list_targets(request)).await?;
        for target in &page.targets {
            table.push(vec![
                Cell::text(&target.device),
                Cell::text(target.state().name()),
                Cell::text(&target.cause),
                Cell::moment(target.at_ms),
            ]);
        }
        page_token = page.next_page_token;
        if page_token.is_empty() || table.len() >= usize::try_from(listing.limit).unwrap_or(usize::MAX) {
            break;
        }
    }
    table.print(listing.output)?;
    if !page_token.is_empty() {
        output::note_more(listing.limit);
    }
    Ok(Exit::Ok)
}

fn print(pairs: Vec<(&'static str, Cell)>, format: Format) -> Result<(), Failure> {
    output::print_pairs(pairs.into_iter().map(|(name, cell)| (name.to_owned(), cell)).collect(), format)
}

fn arguments(instruction: &Shown) -> Cell {
    let object: serde_json::Map<_, _> = instruction
        .arguments
        .iter()
        .map(|argument| {
            let value = argument.value.clone().unwrap_or_default();
            (argument.name.clone(), Cell::value(&value, ColumnType::Unspecified).json)
        })
        .collect();
    let text: Vec<String> = object.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Cell { text: text.join(" "), json: serde_json::Value::Object(object) }
}

/// The first targets that have not come to an end.
async fn waiting(operator: &Operator, id: &str) -> Result<Vec<String>, Failure> {
    let mut waiting = Vec::new();
    for state in [TargetState::Running, TargetState::Acked, TargetState::Sent, TargetState::Queued] {
        let request = ListTargetsRequest {
            instruction: id.to_owned(),
            state: state.into(),
            page_size: 10,
            page_token: String::new(),
        };
        let page = answered(operator.instructions().list_targets(request)).await?;
        let name = state.name();
        waiting.extend(page.targets.into_iter().map(|target| format!("{} ({name})", target.device)));
    }
    waiting.truncate(10);
    Ok(waiting)
}

async fn results(operator: &Operator, id: &str) -> Result<Outcome, Failure> {
    let instruction = get(operator, id).await?;
    let mut outcome = Outcome { instruction, results: Vec::new() };
    let mut page_token = String::new();
    loop {
        let request = ListResultsRequest { instruction: id.to_owned(), page_size: 1_000, page_token };
        let page = answered(operator.instructions().list_results(request)).await?;
        outcome.results.extend(page.results);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g1_what_the_switch_refused_itself_is_counted_by_its_code_and_what_devices_told_is_not() {
        let target = |cause: &str| Target { cause: cause.to_owned(), ..Target::default() };

        let some = by_cause(&["UNLICENSED", "result", "UNLICENSED", ""].map(target)).unwrap();

        assert_eq!((some.text.as_str(), some.json), ("2 UNLICENSED", json!({ "UNLICENSED": 2 })));
        assert_eq!(by_cause(&["result", ""].map(target)), None);
    }
}
