//! Runs the steps of an instruction, one helper process after the other.

use std::path::PathBuf;
use std::time::Duration;

use muster_endpoint::{Answer, Granted, HelperCommand, Query, QueryError, QueryLimits, SqlValue};
use tokio::time::Instant;

use super::Plan;

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
    /// A step failed.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// Runs every step within the time of all; the last one's rows are the answer.
pub(super) async fn run_steps(
    helper: &HelperCommand,
    plan: &Plan,
    resources: &[(String, PathBuf)],
) -> Result<Answer, StepError> {
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
    }
    Ok(answer)
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
