//! Issues one definition: prepare, check what the Switch prepared against what was typed, watch. [`crate::submit`] signs.
//!
//! The Switch is not trusted here: it resolves the audience and encodes the order, and this module decodes those bytes
//! again, holds every field against what the operator typed, and signs only then (DESIGN.md, "Ask and run").

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_pki::{Certificate, Facts, Role, Thumbprint};
use muster_proto::common::v1::{ColumnType, NamedValue, TargetState};
use muster_proto::operator::v1::watch_instruction_response::Update;
use muster_proto::operator::v1::{
    DeviceResult, Instruction, PrepareInstructionRequest, PrepareInstructionResponse, WatchInstructionRequest,
};
use muster_proto::order::v1::Order;
use muster_signing::definition::Definition;
use muster_signing::envelope::{self, ContentType, Verified};
use rustls_pki_types::UnixTime;

use crate::clock::now_ms;
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::operator::{Operator, answered};
use crate::order_check::{self, Asked};
use crate::output::{self, Cell, Table};
use crate::seen::{self, Age, Chosen};

/// What the operator wants to issue.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// The definition's name.
    pub(crate) definition: String,
    /// Its version; empty: the highest, and none below what this home has seen.
    pub(crate) version: String,
    /// Arguments as typed.
    pub(crate) arguments: Vec<(String, String)>,
    /// The audience as typed.
    pub(crate) audience: String,
    /// How long clients may start it.
    pub(crate) gather: Option<Duration>,
    /// How long the Switch keeps the results after that.
    pub(crate) keep: Option<Duration>,
}

/// An order that was prepared by the Switch and checked here.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The order's exact bytes, to be signed.
    pub(crate) bytes: Vec<u8>,
    /// What the bytes say.
    pub(crate) order: Order,
    /// What it issues; its signature is verified.
    pub(crate) definition: Definition,
    /// Counts and sample, as the Switch resolved them.
    pub(crate) prepared: PrepareInstructionResponse,
}

/// Prepares an order and checks it.
pub(crate) async fn prepare(operator: &Operator, home: &Home, wish: &Wish) -> Result<Checked, Failure> {
    let arguments = match wish.definition.as_str() {
        // The platform's own question has one parameter, known without asking for the definition.
        QUERY_DEFINITION => wish.arguments.iter().map(|(name, value)| text_argument(name, value)).collect(),
        _ if wish.arguments.is_empty() => Vec::new(),
        _ => typed_arguments(operator, home, wish).await?,
    };
    let request = PrepareInstructionRequest {
        definition: wish.definition.clone(),
        version: wish.version.clone(),
        arguments: arguments.clone(),
        audience: wish.audience.clone(),
        gather_ms: wish.gather.map_or(0, millis),
        keep_ms: wish.keep.map_or(0, millis),
    };
    let prepared = answered(operator.instructions().prepare_instruction(request)).await?;
    let authored = verified_definition(home, &prepared.definition)?;
    let bytes = prepared.order.clone();
    let order = muster_signing::order::decode(&bytes).map_err(|error| {
        Failure::denied(format!("the Switch prepared an order that does not decode: {error}"))
    })?;
    let asked = Asked {
        wish,
        arguments: &arguments,
        operator: operator.name(),
        definition: &authored.definition,
        definition_envelope: &prepared.definition,
        targets: prepared.targets,
        now_ms: now_ms(),
    };
    order_check::check(&order, &asked)?;
    let chosen = if wish.version.is_empty() { Chosen::BySwitch } else { Chosen::Typed };
    seen::hold(operator, home, &order, &authored, Age::New(chosen)).await?;
    Ok(Checked { bytes, order, definition: authored.definition, prepared })
}

fn millis(lifetime: Duration) -> u64 {
    u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX)
}

/// The name of the platform's free question.
pub(crate) const QUERY_DEFINITION: &str = "Muster-Core-Query";

async fn typed_arguments(operator: &Operator, home: &Home, wish: &Wish) -> Result<Vec<NamedValue>, Failure> {
    let request = muster_proto::operator::v1::GetDefinitionRequest {
        name: wish.definition.clone(),
        version: wish.version.clone(),
    };
    let found = answered(operator.definitions().get_definition(request)).await?;
    let definition = verified_definition(home, &found.envelope)?.definition;
    wish.arguments
        .iter()
        .map(|(name, text)| {
            definition.parse_argument(name, text).map_err(|error| {
                Failure::usage(error.to_string())
                    .with_next(format!("muster definition show {}", wish.definition))
            })
        })
        .collect()
}

fn text_argument(name: &str, value: &str) -> NamedValue {
    use muster_proto::common::v1::{Value, value::Kind};
    NamedValue { name: name.to_owned(), value: Some(Value { kind: Some(Kind::Text(value.to_owned())) }) }
}

/// A definition whose signature was verified here.
#[derive(Debug)]
pub(crate) struct Authored {
    /// What it says.
    pub(crate) definition: Definition,
    /// Whose key signed it.
    pub(crate) author: Thumbprint,
    /// When at the latest, by a timestamp.
    pub(crate) stamped_at: Option<UnixTime>,
}

/// Verifies a definition's signature against the home's author roots, and parses it.
pub(crate) fn verified_definition(home: &Home, bytes: &[u8]) -> Result<Authored, Failure> {
    let Verified { content, signers, stamped_at, .. } = verified(home, bytes)?;
    let definition = Definition::parse(&utf8(content)?)
        .map_err(|error| Failure::denied(format!("the definition: {error}")))?;
    let author = signers.first().map(Certificate::thumbprint);
    let author = author.ok_or_else(|| Failure::denied("the definition: nobody signed it"))?;
    Ok(Authored { definition, author, stamped_at })
}

/// Verifies a definition's signature against the home's author roots; returns the authored text.
pub(crate) fn verified_definition_text(home: &Home, bytes: &[u8]) -> Result<String, Failure> {
    utf8(verified(home, bytes)?.content)
}

fn verified(home: &Home, bytes: &[u8]) -> Result<Verified, Failure> {
    let roots = home.document_roots("authors")?;
    let facts = Facts::at(UnixTime::now());
    envelope::verify(bytes, ContentType::Definition, Role::Author, &roots.anchors(), &facts)
        .map_err(|error| Failure::denied(format!("the definition's signature: {error}")))
}

fn utf8(content: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(content)
        .map_err(|error| Failure::denied(format!("the definition is not UTF-8: {error}")))
}

/// The column that says whose row it is.
const DEVICE: &str = "device";

/// Which column of a result: its name, and the how-many-eth of that name it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key<'a> {
    name: &'a str,
    before: usize,
}

fn keys(result: &DeviceResult) -> impl Iterator<Item = Key<'_>> {
    let names = |count: usize| result.columns.iter().take(count).map(|column| column.name.as_str());
    result.columns.iter().enumerate().map(move |(at, column)| Key {
        name: &column.name,
        before: names(at).filter(|name| *name == column.name).count(),
    })
}

/// What came of an instruction, as far as it was watched.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The last counts.
    pub(crate) instruction: Instruction,
    /// Committed results.
    pub(crate) results: Vec<DeviceResult>,
}

/// Follows an instruction until every target is accounted for or the wait ends.
pub(crate) async fn watch(
    operator: &Operator,
    id: &str,
    wait: Duration,
    mut progress: impl FnMut(&Instruction),
) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    let follow = async {
        let request = WatchInstructionRequest { instruction: id.to_owned() };
        let mut stream = answered(operator.instructions().watch_instruction(request)).await?;
        while let Some(response) = stream.message().await? {
            match response.update {
                Some(Update::Instruction(instruction)) => {
                    progress(&instruction);
                    let complete = instruction.complete;
                    outcome.instruction = instruction;
                    if complete && outcome.is_whole() {
                        return Ok(());
                    }
                }
                Some(Update::Result(result)) => outcome.results.push(result),
                None => {}
            }
        }
        Ok::<(), Failure>(())
    };
    match tokio::time::timeout(wait, follow).await {
        Ok(ended) => ended?,
        Err(_) => {
            let request = muster_proto::operator::v1::GetInstructionRequest { instruction: id.to_owned() };
            if let Some(instruction) =
                answered(operator.instructions().get_instruction(request)).await?.instruction
            {
                outcome.instruction = instruction;
            }
        }
    }
    Ok(outcome)
}

/// Every state that ends with a result of the device's own, of which one part is the last.
fn results_expected(instruction: &Instruction) -> usize {
    if instruction.results_deleted {
        return 0;
    }
    let own = [TargetState::Answered, TargetState::Failed, TargetState::Refused, TargetState::Interrupted];
    let count: u64 =
        instruction.states.iter().filter(|count| own.contains(&count.state())).map(|count| count.count).sum();
    usize::try_from(count).unwrap_or(usize::MAX)
}

impl Outcome {
    /// Whether the last part of every result has come. A result's other parts came before it, and those of one device say nothing of another's.
    fn is_whole(&self) -> bool {
        self.results.iter().filter(|result| result.last).count() >= results_expected(&self.instruction)
    }

    /// Counts by the state's name, in the order in which a target passes through them.
    pub(crate) fn states(&self) -> BTreeMap<&'static str, u64> {
        self.instruction.states.iter().map(|count| (count.state().name(), count.count)).collect()
    }

    /// Whether every target answered, and nothing of any answer was left out.
    pub(crate) fn exit(&self) -> Exit {
        let answered: u64 = self
            .instruction
            .states
            .iter()
            .filter(|count| count.state() == TargetState::Answered)
            .map(|count| count.count)
            .sum();
        let refused = |result: &DeviceResult| {
            TargetState::try_from(result.state).is_ok_and(|state| state == TargetState::Refused)
        };
        if answered == self.instruction.targets {
            if self.results.iter().any(|result| result.truncated) { Exit::Partial } else { Exit::Ok }
        } else if answered == 0 && !self.results.is_empty() && self.results.iter().all(refused) {
            Exit::Denied
        } else {
            Exit::Partial
        }
    }

    /// The devices of whose answer something was left out, and how many of its rows are there.
    pub(crate) fn truncated(&self) -> BTreeMap<&str, usize> {
        let is_cut: BTreeSet<&str> = self
            .results
            .iter()
            .filter(|result| result.truncated)
            .map(|result| result.device.as_str())
            .collect();
        let mut cut = BTreeMap::new();
        for result in self.results.iter().filter(|result| is_cut.contains(result.device.as_str())) {
            *cut.entry(result.device.as_str()).or_default() += result.rows.len();
        }
        cut
    }

    /// The devices whose sandbox was not whole, and the layers that each missed.
    pub(crate) fn sandbox_missing(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for result in self.results.iter().filter(|result| !result.sandbox_missing.is_empty()) {
            let layers = result.sandbox_missing.iter().map(String::as_str);
            missing.entry(result.device.as_str()).or_default().extend(layers);
        }
        missing
    }

    /// The rows of all devices under the columns that any of them gave, `device` first.
    pub(crate) fn rows(&self) -> Table {
        let mut columns: Vec<(Key<'_>, ColumnType)> = Vec::new();
        for result in &self.results {
            for (key, column) in keys(result).zip(&result.columns) {
                if !columns.iter().any(|(known, _)| *known == key) {
                    columns.push((key, column.r#type()));
                }
            }
        }
        // A column of the result that is called `device`, as `mounts` has one, must not hide whose row it is; nor may one
        // of two columns of one name hide the other.
        let shown = output::distinct(&[DEVICE], columns.iter().map(|(key, _)| key.name));
        let mut table = Table::new(std::iter::once(DEVICE.to_owned()).chain(shown));
        let mut results: Vec<&DeviceResult> = self.results.iter().collect();
        results.sort_by(|a, b| (&a.device, a.part).cmp(&(&b.device, b.part)));
        for result in results {
            let own: Vec<Key<'_>> = keys(result).collect();
            let positions: Vec<Option<usize>> =
                columns.iter().map(|(key, _)| own.iter().position(|own| own == key)).collect();
            for row in &result.rows {
                let cell = |(at, (_, column)): (usize, &(Key<'_>, ColumnType))| {
                    let value = positions[at].and_then(|position| row.values.get(position));
                    value.map_or_else(
                        || Cell { text: String::new(), json: serde_json::Value::Null },
                        |value| Cell::value(value, *column),
                    )
                };
                table.push(
                    std::iter::once(Cell::text(&result.device))
                        .chain(columns.iter().enumerate().map(cell))
                        .collect(),
                );
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::common::v1::{Column, Row, Value, value::Kind};
    use muster_proto::operator::v1::StateCount;

    use super::*;

    fn result(device: &str, columns: &[&str], numbers: &[i64]) -> DeviceResult {
        let column = |name: &&str| Column { name: (*name).to_owned(), r#type: ColumnType::Integer.into() };
        let value = |number: &i64| Value { kind: Some(Kind::Integer(*number)) };
        DeviceResult {
            device: device.to_owned(),
            state: TargetState::Answered.into(),
            columns: columns.iter().map(column).collect(),
            rows: vec![Row { values: numbers.iter().map(value).collect() }],
            ..DeviceResult::default()
        }
    }

    #[test]
    fn no_column_hides_another_of_its_name_or_the_device() {
        let results = vec![
            result("web1", &["a", "a", "device", "device_1"], &[1, 2, 3, 4]),
            result("web2", &["a", "b"], &[5, 6]),
        ];
        let outcome = Outcome { results, ..Outcome::default() };

        let rows = outcome.rows();

        assert_eq!(rows.columns(), ["device", "a", "a_1", "device_2", "device_1", "b"]);
        let expected = serde_json::json!([
            { "device": "web1", "a": 1, "a_1": 2, "device_2": 3, "device_1": 4, "b": null },
            { "device": "web2", "a": 5, "a_1": null, "device_2": null, "device_1": null, "b": 6 },
        ]);
        assert_eq!(serde_json::Value::Array(rows.objects()), expected);
    }

    #[test]
    fn a_device_with_any_part_cut_counts_once_with_all_its_rows() {
        let cut = |part| DeviceResult { truncated: part == 1, part, ..result("web1", &["a"], &[1]) };
        let results = vec![cut(0), cut(1), result("web2", &["a"], &[1])];

        let outcome = Outcome { results, ..Outcome::default() };

        assert_eq!(outcome.truncated(), BTreeMap::from([("web1", 2)]));
        assert_eq!(outcome.exit(), Exit::Partial, "a script must not take it for the whole answer");
    }

    #[test]
    fn a_result_is_whole_with_its_last_part_and_other_parts_stand_for_no_other_device() {
        let part = |device: &str, part, last| DeviceResult { part, last, ..result(device, &["a"], &[1]) };
        let two = StateCount { state: TargetState::Answered.into(), count: 2 };
        let instruction = Instruction { targets: 2, states: vec![two], ..Instruction::default() };
        let of = |results: Vec<DeviceResult>| Outcome { instruction: instruction.clone(), results };
        let first = || vec![part("web1", 0, false), part("web1", 1, false)];

        assert!(!of(first()).is_whole());
        assert!(!of([first(), vec![part("web1", 2, true)]].concat()).is_whole());
        assert!(of([first(), vec![part("web1", 2, true), part("web2", 0, true)]].concat()).is_whole());
    }
}
