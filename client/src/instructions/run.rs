//! Runs the steps of an instruction, one helper process after the other.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_endpoint::{
    Action, Content, Deed, Given, Granted, HelperCommand, Query, QueryError, QueryLimits, Reach, RowColumn,
    RowKind, Script, ScriptText, SqlValue, Summary, Work, run_until,
};
use muster_proto::common::v1::ColumnType;
use muster_signing::definition;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Plan;
use super::admission::{PlanAction, PlanColumn, PlanStep};
use super::rows::{Collected, Collecting, Room};
use crate::content::{self as cache, ContentError};

/// Why the steps gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// The signed time for all steps together is over.
    #[error(
        "{place}stopped after {limit:?}, the run time that its definition allows (limits.run_time); ask for fewer rows, or \
         sign a definition with a longer one"
    )]
    RunTime {
        /// The step that was reached.
        place: Place,
        /// What the definition allows.
        limit: Duration,
    },
    /// What it needs is no longer what was verified; no step was begun.
    #[error("{0}")]
    Resource(Unconfirmed),
    /// What a later step needs is no longer what was verified.
    #[error("{place}not begun: {cause}")]
    NotBegun {
        /// Which step.
        place: Place,
        /// Why.
        cause: Unconfirmed,
    },
    /// What it needs was changed while a step ran, which may have read either.
    #[error("what it read while it ran does not count: {0}")]
    ChangedWhileRun(Unconfirmed),
    /// The same, of a step that changes the machine, which it has done.
    #[error("{place}it came to its end, but what it was given may not have been what was signed: {cause}")]
    ChangedWhileDone {
        /// Which step.
        place: Place,
        /// Why.
        cause: Unconfirmed,
    },
    /// It was stopped, and nothing of it runs any more.
    #[error("it was stopped")]
    Stopped,
    /// A step failed.
    #[error("{place}{cause}")]
    Query {
        /// Which.
        place: Place,
        /// Why.
        cause: QueryError,
    },
}

/// A step among those of its definition, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) step: usize,
    pub(crate) of: usize,
}

impl fmt::Display for Place {
    /// Nothing where there is one step only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.of > 1 { write!(f, "step {} of {}: ", self.step, self.of) } else { Ok(()) }
    }
}

/// A resource that is not known to be what was verified.
#[derive(Debug, thiserror::Error)]
#[error("resource {name:?}: {cause}")]
pub(crate) struct Unconfirmed {
    name: String,
    cause: Box<ContentError>,
}

impl Unconfirmed {
    /// Whether it is known to be another, and not only unknown.
    fn is_changed(&self) -> bool {
        matches!(*self.cause, ContentError::Changed { .. })
    }
}

/// Runs every step within the time of all, until one fails or `stop` comes, which is waited for; the last one's rows are the answer, as far as they
/// have room here. Resources are
/// looked at once more right before the first step, which may have waited for hours. A step that is told the path of one has it looked at before and
/// behind it, too: what was read of another file is no answer. What verifies its resource while it copies it is told no path, and what it did is done,
/// whatever becomes of the file.
pub(super) async fn run_steps(
    helper: &HelperCommand,
    cache: &cache::Content,
    plan: &Plan,
    resources: &[(String, PathBuf)],
    room: &Room,
    stop: &CancellationToken,
) -> Result<Collected, StepError> {
    let looking = Looking { cache, plan, resources, stop };
    let mut known: Vec<&str> = plan.resources.iter().map(|resource| resource.name.as_str()).collect();
    looking.confirm(&known).await?.map_err(StepError::Resource)?;
    let deadline = Instant::now() + plan.run_time;
    let mut collected = Collected::default();
    let mut missing: Vec<String> = Vec::new();
    for (at, step) in plan.steps.iter().enumerate() {
        let place = Place { step: at + 1, of: plan.steps.len() };
        let late = || StepError::RunTime { place, limit: plan.run_time };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        let told = told(plan, step);
        let unknown: Vec<&str> = told.iter().copied().filter(|name| !known.contains(name)).collect();
        looking.confirm(&unknown).await?.map_err(|cause| StepError::NotBegun { place, cause })?;
        let limits = QueryLimits { run_time: left, rows: plan.rows, bytes: plan.bytes.min(room.bytes_max) };
        // Nobody wants the rows of the steps before the last one.
        let mut rows = (at + 1 == plan.steps.len()).then(|| Collecting::new(plan, room));
        let work = match step {
            PlanStep::Query(sql) => Ok(Work::Query(query(plan, at, sql, resources, limits))),
            PlanStep::Script(signed) => script(plan, at, signed, resources, limits).map(Work::Script),
            PlanStep::Action(signed) => action(plan, signed, resources, left).map(Work::Action),
        };
        let given = match work {
            Ok(work) => run_until(helper, work, &mut rows, stop.cancelled()).await,
            Err(error) => Err(error),
        };
        let given = given.map_err(|cause| match cause {
            // The helper knows what was left of the time; nobody signed that.
            QueryError::Deadline { .. } => late(),
            QueryError::Stopped => StepError::Stopped,
            QueryError::Sql { .. }
            | QueryError::Script { .. }
            | QueryError::Crashed { .. }
            | QueryError::TooLarge { .. }
            | QueryError::Sandbox { .. }
            | QueryError::Unconfined { .. }
            | QueryError::NotGranted { .. }
            | QueryError::Spawn { .. } => StepError::Query { place, cause },
        })?;
        judge(place, plan, step, looking.confirm(&told).await?)?;
        known = told;
        for layer in &given.sandbox_missing {
            if !missing.contains(layer) {
                missing.push(layer.clone());
            }
        }
        if let Some(rows) = rows {
            collected = rows.finish(Summary { sandbox_missing: missing.clone(), ..given }).await;
        }
    }
    Ok(collected)
}

/// What is looked at between steps.
struct Looking<'a> {
    cache: &'a cache::Content,
    plan: &'a Plan,
    resources: &'a [(String, PathBuf)],
    stop: &'a CancellationToken,
}

impl Looking<'_> {
    /// Looks whether these resources are still those that were verified, unless it is stopped: nothing runs meanwhile.
    async fn confirm(&self, names: &[&str]) -> Result<Result<(), Unconfirmed>, StepError> {
        let look = async {
            for (resource, (_, path)) in self.plan.resources.iter().zip(self.resources) {
                if names.contains(&resource.name.as_str()) {
                    let name = resource.name.clone();
                    let unconfirmed = |cause| Unconfirmed { name, cause: Box::new(cause) };
                    self.cache.confirm(resource, path).await.map_err(unconfirmed)?;
                }
            }
            Ok::<(), Unconfirmed>(())
        };
        self.stop.run_until_cancelled(look).await.ok_or(StepError::Stopped)
    }
}

/// Returns the resources whose paths a step is told.
fn told<'a>(plan: &'a Plan, step: &'a PlanStep) -> Vec<&'a str> {
    match step {
        PlanStep::Query(_) => plan.resources.iter().map(|resource| resource.name.as_str()).collect(),
        // One that is its text is verified where nobody changes it any more.
        PlanStep::Script(script) => script
            .arguments
            .iter()
            .filter_map(|argument| match argument {
                definition::ScriptArgument::Resource(name) => Some(name.as_str()),
                definition::ScriptArgument::Parameter(_) => None,
            })
            .collect(),
        PlanStep::Action(_) => Vec::new(),
    }
}

/// Says what it means for a step that came to its end how the resources are whose paths it was told.
fn judge(
    place: Place,
    plan: &Plan,
    step: &PlanStep,
    looked: Result<(), Unconfirmed>,
) -> Result<(), StepError> {
    let Err(cause) = looked else { return Ok(()) };
    let has_changed_something = match step {
        PlanStep::Script(_) | PlanStep::Action(_) => plan.reach == Reach::Changes,
        PlanStep::Query(_) => false,
    };
    match has_changed_something {
        false => Err(StepError::ChangedWhileRun(cause)),
        true if cause.is_changed() => Err(StepError::ChangedWhileDone { place, cause }),
        true => {
            // It is done, and nothing says that it was done with something else.
            tracing::warn!(%cause, "a step is done, and what it was given cannot be looked at any more");
            Ok(())
        }
    }
}

fn query(plan: &Plan, at: usize, sql: &str, resources: &[(String, PathBuf)], limits: QueryLimits) -> Query {
    let mut parameters = plan.parameters.clone();
    parameters.extend(resources.iter().map(|(name, path)| (name.clone(), path_value(path))));
    Query {
        sql: sql.to_owned(),
        parameters,
        limits,
        sandbox: plan.sandbox,
        readable: readable(resources),
        granted: granted(plan),
        then: later(plan, at),
    }
}

fn script(
    plan: &Plan,
    at: usize,
    signed: &definition::Script,
    resources: &[(String, PathBuf)],
    limits: QueryLimits,
) -> Result<Script, QueryError> {
    let given = |(name, value): &(String, SqlValue)| match value {
        SqlValue::Integer(number) if plan.booleans.contains(name) => {
            (name.clone(), Given::Boolean(*number != 0))
        }
        SqlValue::Null | SqlValue::Integer(_) | SqlValue::Real(_) | SqlValue::Text(_) | SqlValue::Blob(_) => {
            (name.clone(), Given::Value(value.clone()))
        }
    };
    let parameters: Vec<(String, Given)> = plan.parameters.iter().map(given).collect();
    let arguments = signed.arguments.iter().map(|argument| match argument {
        definition::ScriptArgument::Parameter(name) => {
            let found = parameters.iter().find(|(parameter, _)| parameter == name);
            found.map(|(_, given)| given.clone()).ok_or_else(|| lacks(name))
        }
        definition::ScriptArgument::Resource(name) => {
            Ok(Given::Value(path_value(&content(plan, name, resources)?.path)))
        }
    });
    let arguments = arguments.collect::<Result<_, _>>()?;
    // The rows of the last step are the answer; nobody declared those of the others.
    let is_last = at + 1 == plan.steps.len();
    Ok(Script {
        interpreter: PathBuf::from(&signed.interpreter),
        text: match &signed.text {
            definition::ScriptText::Inline(text) => ScriptText::Inline(text.clone()),
            definition::ScriptText::Resource(name) => ScriptText::Resource(content(plan, name, resources)?),
        },
        arguments,
        parameters,
        columns: plan.columns.as_ref().filter(|_| is_last).map(|columns| {
            let column =
                |column: &PlanColumn| RowColumn { name: column.name.clone(), kind: row_kind(column.kind) };
            columns.iter().map(column).collect()
        }),
        limits,
        sandbox: plan.sandbox,
        reach: plan.reach,
        readable: readable(resources),
    })
}

fn action(
    plan: &Plan,
    signed: &PlanAction,
    resources: &[(String, PathBuf)],
    run_time: Duration,
) -> Result<Action, QueryError> {
    let deed = match signed {
        PlanAction::Service(verb, unit) => Deed::Service { verb: *verb, unit: unit.clone() },
        PlanAction::Put(resource, path, mode) => {
            let content = content(plan, resource, resources)?;
            Deed::Put { content, path: path.clone(), mode: *mode }
        }
        PlanAction::Remove(path) => Deed::Remove { path: path.clone() },
    };
    Ok(Action { deed, run_time })
}

/// Returns a resource that was fetched, with what its content must be.
fn content(plan: &Plan, name: &str, resources: &[(String, PathBuf)]) -> Result<Content, QueryError> {
    let signed = plan.resources.iter().find(|resource| resource.name == name);
    let fetched = resources.iter().find(|(bound, _)| bound.strip_prefix("resource_") == Some(name));
    match (signed, fetched) {
        (Some(signed), Some((_, path))) => {
            let root = *signed.root.as_bytes();
            Ok(Content { path: path.clone(), size: signed.size, root })
        }
        (Some(_) | None, _) => Err(lacks(name)),
    }
}

/// A checked definition names nothing that it does not have.
fn lacks(name: &str) -> QueryError {
    QueryError::Script { message: format!("nothing here is called {name:?}; report it") }
}

fn row_kind(kind: ColumnType) -> RowKind {
    match kind {
        ColumnType::Text | ColumnType::Unspecified => RowKind::Text,
        ColumnType::Integer => RowKind::Integer,
        ColumnType::Real => RowKind::Real,
        ColumnType::Blob => RowKind::Blob,
        ColumnType::Boolean => RowKind::Boolean,
        ColumnType::Datetime => RowKind::Datetime,
    }
}

fn path_value(path: &Path) -> SqlValue {
    SqlValue::Text(path.to_string_lossy().into_owned())
}

fn readable(resources: &[(String, PathBuf)]) -> Vec<PathBuf> {
    resources.iter().map(|(_, path)| path.clone()).collect()
}

/// Returns the tables that the helper has.
fn granted(plan: &Plan) -> Granted {
    match &plan.tables {
        None => Granted::All,
        Some(granted) => Granted::Tables(granted.tables.iter().cloned().collect()),
    }
}

/// Returns the steps behind the first one, which begins only if all of them are granted. Where tables are limited, all steps
/// are SQL.
fn later(plan: &Plan, at: usize) -> Vec<String> {
    let sql = |step: &PlanStep| match step {
        PlanStep::Query(sql) => Some(sql.clone()),
        PlanStep::Script(_) | PlanStep::Action(_) => None,
    };
    match (&plan.tables, at) {
        (Some(_), 0) => plan.steps.iter().skip(1).filter_map(sql).collect(),
        (Some(_) | None, _) => Vec::new(),
    }
}
