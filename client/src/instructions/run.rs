//! Runs the steps of an instruction, one helper process after the other.

use std::path::PathBuf;
use std::time::Duration;

use muster_endpoint::{Answer, Granted, HelperCommand, Query, QueryError, QueryLimits, SqlValue};
use tokio::time::Instant;

use super::Plan;
use crate::content::Content;

/// Why the steps gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// The signed time for all steps together is over.
    #[error(
        "stopped after {limit:?}, the run time that its definition allows (limits.run_time); ask for fewer rows, or \
         sign a definition with a longer one"
    )]
    RunTime {
        /// What the definition allows.
        limit: Duration,
    },
    /// What it needs is no longer what was verified; no step was begun.
    #[error("{0}")]
    Resource(String),
    /// What it needs was changed while a step ran, which may have read either.
    #[error("what it read while it ran does not count: {0}")]
    ChangedWhileRun(String),
    /// A step failed.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// Runs every step within the time of all; the last one's rows are the answer. Steps are told the paths of resources, so each is
/// looked at once more right before the first one, which may have waited for hours, and behind each: what was read of another
/// file is no answer.
pub(super) async fn run_steps(
    helper: &HelperCommand,
    content: &Content,
    plan: &Plan,
    resources: &[(String, PathBuf)],
) -> Result<Answer, StepError> {
    confirm(content, plan, resources).await.map_err(StepError::Resource)?;
    let deadline = Instant::now() + plan.run_time;
    let mut parameters = plan.parameters.clone();
    parameters.extend(
        resources
            .iter()
            .map(|(name, path)| (name.clone(), SqlValue::Text(path.to_string_lossy().into_owned()))),
    );
    let mut answer =
        Answer { columns: Vec::new(), rows: Vec::new(), truncated: false, sandbox_missing: Vec::new() };
    let late = || StepError::RunTime { limit: plan.run_time };
    for (at, sql) in plan.steps.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        let query = Query {
            sql: sql.clone(),
            parameters: parameters.clone(),
            limits: QueryLimits { run_time: left, rows: plan.rows, bytes: plan.bytes },
            sandbox: plan.sandbox,
            readable: resources.iter().map(|(_, path)| path.clone()).collect(),
            granted: granted(plan),
            then: later(plan, at),
        };
        answer = muster_endpoint::run(helper, query).await.map_err(|error| match error {
            // The helper knows what was left of the time; nobody signed that.
            QueryError::Deadline { .. } => late(),
            QueryError::Sql { .. }
            | QueryError::Crashed { .. }
            | QueryError::TooLarge { .. }
            | QueryError::Sandbox { .. }
            | QueryError::NotGranted { .. }
            | QueryError::Spawn { .. } => StepError::Query(error),
        })?;
        confirm(content, plan, resources).await.map_err(StepError::ChangedWhileRun)?;
    }
    Ok(answer)
}

/// Looks whether the resources are still those that were verified.
async fn confirm(content: &Content, plan: &Plan, resources: &[(String, PathBuf)]) -> Result<(), String> {
    for (resource, (_, path)) in plan.resources.iter().zip(resources) {
        let changed = |error| format!("resource {:?}: {error}", resource.name);
        content.confirm(resource, path).await.map_err(changed)?;
    }
    Ok(())
}

/// Returns the tables that the helper has.
fn granted(plan: &Plan) -> Granted {
    match &plan.tables {
        None => Granted::All,
        Some(granted) => Granted::Tables(granted.tables.iter().cloned().collect()),
    }
}

/// Returns the steps behind the first one, which begins only if all of them are granted.
fn later(plan: &Plan, at: usize) -> Vec<String> {
    match (&plan.tables, at) {
        (Some(_), 0) => plan.steps.iter().skip(1).cloned().collect(),
        (Some(_) | None, _) => Vec::new(),
    }
}
