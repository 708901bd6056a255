//! Terminal results, built within the bounds of the wire.

use muster_endpoint::QueryError;
use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::frame::{self, FrameError};
use muster_proto::ids::InstructionId;
use muster_proto::limits::{DETAIL_BYTES_MAX, NAME_BYTES_MAX, SANDBOX_MISSING_MAX};
use muster_proto::session::v1::frame::Body;
use muster_proto::session::v1::{Frame, Result as InstructionResult};
use muster_signing::policy::NotGranted;

use super::rows::{Collected, RowsProblem};
use super::run::{Place, StepError};
use super::{Plan, Refused};
use crate::store::Parts;

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

/// It ran. Beside the result come its rows where they are parts; the result is then what every part says.
pub(super) fn finished(
    instruction: InstructionId,
    plan: &Plan,
    answer: Result<Collected, StepError>,
    started_at_ms: i64,
    now_ms: i64,
) -> (InstructionResult, Option<Parts>) {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return (unanswered(instruction, plan, &error, started_at_ms, now_ms), None),
    };
    let failed = |detail: String| (failed(instruction, &detail, started_at_ms, now_ms), None);
    if let Some(declared) = &plan.columns {
        let names: Vec<&str> = answer.columns.iter().map(|column| column.name.as_str()).collect();
        let wanted: Vec<&str> = declared.iter().map(|column| column.name.as_str()).collect();
        if names != wanted {
            return failed(format!(
                "the query gave the columns {names:?}, its definition declares {wanted:?}"
            ));
        }
    }
    match answer.problem {
        None => {}
        Some(problem @ RowsProblem::Mistyped(_)) => {
            let place = Place { step: plan.steps.len(), of: plan.steps.len() };
            return failed(format!("{place}{problem}"));
        }
        Some(problem @ RowsProblem::Unkept(_)) => return failed(problem.to_string()),
    }
    let mut result = ended(instruction, TargetState::Answered, "", started_at_ms, now_ms);
    result.truncated = answer.truncated;
    // What is told beside the rows must never be what keeps them back.
    let missing = answer.sandbox_missing.iter().take(SANDBOX_MISSING_MAX);
    result.sandbox_missing = missing.map(|layer| cut(layer, NAME_BYTES_MAX)).collect();
    result.columns = answer.columns;
    result.rows = answer.rows;
    match carried(result) {
        Ok(result) => (result, answer.parts),
        Err(error) => failed(format!("its result cannot be sent: {error}")),
    }
}

/// It could not run, or its steps gave no answer.
fn unanswered(
    instruction: InstructionId,
    plan: &Plan,
    error: &StepError,
    started_at_ms: i64,
    now_ms: i64,
) -> InstructionResult {
    match error {
        StepError::Query { cause: QueryError::NotGranted { table }, .. } => {
            refused(instruction, &withheld(plan, table.clone()), now_ms)
        }
        StepError::Resource(detail) => {
            refused(instruction, &Refused::new(Refusal::Resource, detail.to_string()), now_ms)
        }
        // Of the first step, nothing was begun; behind it, something was done.
        StepError::Query {
            place: Place { step: 1, .. },
            cause: cause @ (QueryError::Sandbox { .. } | QueryError::Unconfined { .. }),
        } => refused(instruction, &Refused::new(Refusal::Unsupported, cause.to_string()), now_ms),
        StepError::RunTime { .. }
        | StepError::NotBegun { .. }
        | StepError::ChangedWhileRun(_)
        | StepError::ChangedWhileDone { .. }
        | StepError::Stopped
        | StepError::Query { .. } => failed(instruction, &error.to_string(), started_at_ms, now_ms),
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
pub(super) fn cut(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
