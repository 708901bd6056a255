//! `muster export`: everything the Switch holds, one JSON object a line, for a history checker.

use muster_proto::common::v1::{ColumnType, TargetState};
use muster_proto::operator::v1::export_response::Record;
use muster_proto::operator::v1::{Approval, DeviceResult, ExportRequest, Instruction};
use serde_json::{Value, json};

use super::event;
use crate::exit::{Exit, Failure};
use crate::operator::{self, Operator, answered};
use crate::output::{self, Cell};

/// Streams the export to standard output.
pub(crate) async fn run(operator: &Operator) -> Result<Exit, Failure> {
    let mut stream = answered(operator.export().export(ExportRequest {})).await?;
    while let Some(response) = operator::next(&mut stream).await? {
        if let Some(record) = response.record {
            output::print_json_line(&as_json(record))?;
        }
    }
    Ok(Exit::Ok)
}

/// Returns a record as a line of the export has it.
pub(crate) fn as_json(record: Record) -> Value {
    match record {
        Record::Definition(definition) => json!({
            "kind": "definition",
            "name": definition.name,
            "version": definition.version,
            "definition_kind": definition.kind,
            "digest": definition.digest,
            "signer_thumbprint": definition.signer_thumbprint,
            "licensed": definition.licensed,
            "imported_at_ms": definition.imported_at_ms,
        }),
        Record::Instruction(instruction) => {
            let mut record = json!({
                "kind": "instruction",
                "id": instruction.id,
                "definition": instruction.definition,
                "version": instruction.version,
                "operator": instruction.operator,
                "audience": instruction.audience,
                "created_at_ms": instruction.created_at_ms,
                "expires_at_ms": instruction.expires_at_ms,
                "results_until_ms": instruction.results_until_ms,
                "results_deleted": instruction.results_deleted,
                "targets": instruction.targets,
                "states": states(&instruction),
                "complete": instruction.complete,
            });
            if let Some(stop) = &instruction.stop {
                record["stop"] = json!({
                    "id": stop.id,
                    "operator": stop.operator,
                    "reason": stop.reason,
                    "at_ms": stop.at_ms,
                    "signer_thumbprint": stop.signer_thumbprint,
                });
            }
            if instruction.approvals_wanted > 0 {
                record["approvals_wanted"] = json!(instruction.approvals_wanted);
                record["approvals"] = instruction.approvals.iter().map(approval).collect();
            }
            record
        }
        Record::Transition(transition) => json!({
            "kind": "transition",
            "instruction": transition.instruction,
            "batch": transition.batch,
            "state": transition.state().name(),
            "devices": transition.devices,
            "cause": transition.cause,
            "at_ms": transition.at_ms,
        }),
        Record::Result(exported) => result(
            &exported.instruction,
            &exported.outbox_id,
            exported.sequence,
            &exported.result.unwrap_or_default(),
        ),
        Record::Event(logged) => event::as_json(&logged),
    }
}

fn approval(given: &Approval) -> Value {
    json!({
        "operator": given.operator,
        "signer": given.signer,
        "signer_thumbprint": given.signer_thumbprint,
        "at_ms": given.at_ms,
    })
}

fn states(instruction: &Instruction) -> Value {
    let pairs = instruction.states.iter().map(|count| (count.state().name().to_owned(), json!(count.count)));
    Value::Object(pairs.collect())
}

fn result(instruction: &str, outbox_id: &[u8], sequence: u64, result: &DeviceResult) -> Value {
    let rows: Vec<Vec<Value>> = result
        .rows
        .iter()
        .map(|row| row.values.iter().map(|value| Cell::value(value, ColumnType::Unspecified).json).collect())
        .collect();
    let columns: Vec<&str> = result.columns.iter().map(|column| column.name.as_str()).collect();
    let refusal = (result.state() == TargetState::Refused).then(|| result.refusal().name());
    let mut record = json!({
        "kind": "result",
        "instruction": instruction,
        "device": result.device,
        "outbox_id": hex::encode(outbox_id),
        "sequence": sequence,
        "part": result.part,
        "last": result.last,
        "state": result.state().name(),
        "refusal": refusal,
        "detail": result.detail,
        "columns": columns,
        "rows": rows,
        "truncated": result.truncated,
        "started_at_ms": result.started_at_ms,
        "finished_at_ms": result.finished_at_ms,
    });
    if !result.sandbox_missing.is_empty() {
        record["sandbox_missing"] = json!(result.sandbox_missing);
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_has_the_layers_that_its_sandbox_missed_only_where_it_missed_any() {
        let whole = DeviceResult::default();
        let missing = DeviceResult { sandbox_missing: vec!["cgroup: none".to_owned()], ..whole.clone() };
        let told = |of: &DeviceResult| result("0", &[], 1, of).get("sandbox_missing").cloned();

        assert_eq!(told(&missing), Some(json!(["cgroup: none"])));
        assert_eq!(told(&whole), None);
    }
}
