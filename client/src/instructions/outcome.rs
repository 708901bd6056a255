//! Terminal results, built within the bounds of the wire.

use muster_endpoint::{Answer, QueryError, SqlValue};
use muster_proto::common::v1::{Column, ColumnType, Refusal, Row, TargetState, Value, value::Kind};
use muster_proto::frame::{self, FrameError};
use muster_proto::ids::InstructionId;
use muster_proto::limits::{
    DETAIL_BYTES_MAX, NAME_BYTES_MAX, RESULT_BYTES_MAX, SANDBOX_MISSING_MAX, VALUE_BYTES_MAX,
};
use muster_proto::session::v1::frame::Body;
use muster_proto::session::v1::{Frame, Result as InstructionResult};
use muster_signing::policy::NotGranted;
use prost::Message;

use super::run::{Place, StepError};
use super::{Plan, Refused, typed};

/// Room in a result for what is written after its rows were measured: the sequence, and the tags of the row list.
const MARGIN_BYTES: usize = 64;

/// The client would not run it. A window that has ended has a state of its own.
pub(super) fn refused(instruction: InstructionId, refused: &Refused, now_ms: i64) -> InstructionResult {
    if refused.refusal == Refusal::Expired {
        let mut result = expired(instruction, now_ms);
        result.detail = cut(&refused.detail, DETAIL_BYTES_MAX);
        return result;
    }
    let mut result = ended(instruction, TargetState::Refused, &refused.detail, 0, now_ms);
    result.refusal = refused.refusal.into();
    result
}

/// Returns the stable code of what is not run. A window that has ended and a queue that is full are states, and no refusals.
pub(super) fn code(result: &InstructionResult) -> &'static str {
    let refusal = result.refusal();
    if refusal == Refusal::Unspecified {
        return result.state().as_str_name().trim_start_matches("TARGET_STATE_");
    }
    refusal.name()
}

/// Its window ended before it started.
pub(super) fn expired(instruction: InstructionId, now_ms: i64) -> InstructionResult {
    ended(instruction, TargetState::Expired, "its window ended before it could start", 0, now_ms)
}

/// It may have run before the store was brought back from a copy.
pub(super) fn restored(instruction: InstructionId, now_ms: i64) -> InstructionResult {
    let detail = "this device's store was brought back from a copy after it was issued; it may have run before, and is \
                  not run again";
    ended(instruction, TargetState::Interrupted, detail, 0, now_ms)
}

/// An operator stopped it; `started_at_ms` is 0 if it never started.
pub(super) fn cancelled(
    instruction: InstructionId,
    detail: &str,
    started_at_ms: i64,
    now_ms: i64,
) -> InstructionResult {
    ended(instruction, TargetState::Cancelled, detail, started_at_ms, now_ms)
}

/// It could not run, or ended with an error.
pub(super) fn failed(
    instruction: InstructionId,
    detail: &str,
    started_at_ms: i64,
    now_ms: i64,
) -> InstructionResult {
    ended(instruction, TargetState::Failed, detail, started_at_ms, now_ms)
}

/// It ran.
pub(super) fn finished(
    instruction: InstructionId,
    plan: &Plan,
    answer: Result<Answer, StepError>,
    started_at_ms: i64,
    now_ms: i64,
) -> InstructionResult {
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(StepError::Query { cause: QueryError::NotGranted { table }, .. }) => {
            return refused(instruction, &withheld(plan, table), now_ms);
        }
        Err(StepError::Resource(detail)) => {
            let refusal = Refused::new(Refusal::Resource, detail.to_string());
            return refused(instruction, &refusal, now_ms);
        }
        Err(
            error @ (StepError::RunTime { .. }
            | StepError::NotBegun { .. }
            | StepError::ChangedWhileRun(_)
            | StepError::ChangedWhileDone { .. }
            | StepError::Stopped
            | StepError::Query { .. }),
        ) => {
            return failed(instruction, &error.to_string(), started_at_ms, now_ms);
        }
    };
    let names: Vec<&str> = answer.columns.iter().map(|column| column.name.as_str()).collect();
    if let Some(declared) = &plan.columns {
        let wanted: Vec<&str> = declared.iter().map(|column| column.name.as_str()).collect();
        if names != wanted {
            let detail = format!("the query gave the columns {names:?}, its definition declares {wanted:?}");
            return failed(instruction, &detail, started_at_ms, now_ms);
        }
        if let Err(error) = typed::check(declared, &mut answer.rows) {
            let place = Place { step: plan.steps.len(), of: plan.steps.len() };
            return failed(instruction, &format!("{place}{error}"), started_at_ms, now_ms);
        }
    }
    let mut result = ended(instruction, TargetState::Answered, "", started_at_ms, now_ms);
    result.truncated = answer.truncated;
    // What is told beside the rows must never be what keeps them back.
    let missing = answer.sandbox_missing.iter().take(SANDBOX_MISSING_MAX);
    result.sandbox_missing = missing.map(|layer| cut(layer, NAME_BYTES_MAX)).collect();
    result.columns = names.iter().enumerate().map(|(at, name)| column(plan, &answer, at, name)).collect();
    add_rows(&mut result, plan, answer.rows);
    match carried(result) {
        Ok(result) => result,
        Err(error) => {
            failed(instruction, &format!("its result cannot be sent: {error}"), started_at_ms, now_ms)
        }
    }
}

/// The policy does not grant a table, and no step was begun.
fn withheld(plan: &Plan, table: String) -> Refused {
    let (policy, has) = plan
        .tables
        .as_ref()
        .map_or_else(Default::default, |granted| (granted.policy, granted.tables.clone()));
    Refused::not_granted(policy, &NotGranted { name: table, list: "grants.tables", has })
}

/// Returns the result if a Switch would take it, such as without two columns of one name.
fn carried(mut result: InstructionResult) -> Result<InstructionResult, FrameError> {
    result.sequence = 1;
    let mut frame = Frame { body: Some(Body::Result(result)), proof: None };
    frame::check(&frame)?;
    if let Some(Body::Result(result)) = &mut frame.body {
        result.sequence = 0;
        return Ok(std::mem::take(result));
    }
    Ok(InstructionResult::default())
}

fn column(plan: &Plan, answer: &Answer, at: usize, name: &str) -> Column {
    let declared = plan.columns.as_ref().and_then(|columns| columns.get(at)).map(|column| column.kind);
    let kind = declared.unwrap_or_else(|| guessed_type(answer, at));
    Column { name: name.to_owned(), r#type: kind.into() }
}

/// The type of a column whose definition declares none: that of its values, if they agree.
fn guessed_type(answer: &Answer, at: usize) -> ColumnType {
    let mut kinds = answer.rows.iter().filter_map(|row| match row.get(at)? {
        SqlValue::Null => None,
        SqlValue::Integer(_) => Some(ColumnType::Integer),
        SqlValue::Real(_) => Some(ColumnType::Real),
        SqlValue::Text(_) => Some(ColumnType::Text),
        SqlValue::Blob(_) => Some(ColumnType::Blob),
    });
    let first = kinds.next().unwrap_or(ColumnType::Unspecified);
    if kinds.all(|kind| kind == first) { first } else { ColumnType::Unspecified }
}

/// Adds rows while they fit. What is left out or cut is told by `truncated`.
fn add_rows(result: &mut InstructionResult, plan: &Plan, rows: Vec<Vec<SqlValue>>) {
    let mut bytes = result.encoded_len() + MARGIN_BYTES;
    for row in rows {
        let mut values = Vec::with_capacity(row.len());
        for (at, value) in row.into_iter().enumerate() {
            let declared = plan.columns.as_ref().and_then(|columns| columns.get(at)?.max_length);
            let length_max = declared.unwrap_or(VALUE_BYTES_MAX).min(VALUE_BYTES_MAX);
            let (value, fits) = wire_value(value, length_max);
            result.truncated |= !fits;
            values.push(value);
        }
        let row = Row { values };
        let length = row.encoded_len();
        bytes += 1 + prost::length_delimiter_len(length) + length;
        if bytes > RESULT_BYTES_MAX {
            result.truncated = true;
            return;
        }
        result.rows.push(row);
    }
}

/// Returns a value for the wire, and whether it is whole.
fn wire_value(value: SqlValue, length_max: usize) -> (Value, bool) {
    let (kind, fits) = match value {
        SqlValue::Null => (None, true),
        SqlValue::Integer(number) => (Some(Kind::Integer(number)), true),
        // NaN does not exist in SQL; as a precaution it is NULL.
        SqlValue::Real(number) if number.is_nan() => (None, true),
        SqlValue::Real(number) => (Some(Kind::Real(number)), true),
        SqlValue::Text(text) => {
            let fits = text.len() <= length_max;
            (Some(Kind::Text(if fits { text } else { cut(&text, length_max) })), fits)
        }
        SqlValue::Blob(mut bytes) => {
            let fits = bytes.len() <= length_max;
            bytes.truncate(length_max);
            (Some(Kind::Blob(bytes)), fits)
        }
    };
    (Value { kind }, fits)
}

fn ended(
    instruction: InstructionId,
    state: TargetState,
    detail: &str,
    started_at_ms: i64,
    now_ms: i64,
) -> InstructionResult {
    InstructionResult {
        instruction: instruction.to_vec(),
        state: state.into(),
        detail: cut(detail, DETAIL_BYTES_MAX),
        last: true,
        started_at_ms,
        finished_at_ms: now_ms,
        ..InstructionResult::default()
    }
}

/// Cuts text at the end of a character.
fn cut(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
