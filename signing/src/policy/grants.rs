//! What may run on a device, and what it may read there (K2): lists of what is allowed, whoever signed the rest.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::PolicyError;
use crate::definition::{Definition, DefinitionName, Kind, Step};

/// Most tables or actions of one list.
pub const GRANTED_MAX: usize = 1_024;

/// Longest name of a table in bytes.
const TABLE_BYTES_MAX: usize = 64;

/// The tables that clients of this version have. Those of another version may have others.
pub const TABLES: [&str; 16] = [
    "certificates",
    "cpu",
    "disks",
    "files",
    "host",
    "interfaces",
    "listening_ports",
    "memory",
    "mounts",
    "os",
    "packages",
    "processes",
    "routes",
    "services",
    "time",
    "users",
];

/// The sorts of steps, as [`Step::sort`] has them.
const STEPS: [&str; 3] = ["query", "script", "action"];

/// The lists. A list that is left out allows all; an empty one allows nothing. One exception: where `tables` is there and `steps` is not,
/// only queries run, since no list of tables bounds what a script or an action reads.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Tables that SQL may read, by name. One that a client does not know is none of its.
    pub tables: Option<BTreeSet<String>>,
    /// Kinds of definitions that may run: `question`, `action`.
    pub kinds: Option<BTreeSet<String>>,
    /// Actions that may run, by their definitions' whole names.
    pub actions: Option<BTreeSet<String>>,
    /// Sorts of steps that may run: `query`, `script`, `action`. What has another step as well does not begin.
    pub steps: Option<BTreeSet<String>>,
}

impl Grants {
    /// Returns whether a definition may run at all.
    ///
    /// # Errors
    /// The list that does not have it, and what it has.
    pub fn admit(&self, definition: &Definition) -> Result<(), NotGranted> {
        let (kind, name) = (definition.kind(), definition.name().as_str());
        require("grants.kinds", self.kinds.as_ref(), kind.name())?;
        match kind {
            Kind::Action => require("grants.actions", self.actions.as_ref(), name)?,
            Kind::Question => {}
        }
        definition.steps().iter().try_for_each(|step| self.admit_step(step))
    }

    fn admit_step(&self, step: &Step) -> Result<(), NotGranted> {
        match (&self.steps, &self.tables) {
            (Some(_), Some(_) | None) => require("grants.steps", self.steps.as_ref(), step.sort()),
            (None, Some(has)) if !step.is_sql() => Err(NotGranted {
                name: format!("a step that is no SQL ({}, which grants.steps can allow)", step.sort()),
                list: "grants.tables",
                has: has.clone(),
            }),
            (None, Some(_) | None) => Ok(()),
        }
    }

    /// Returns what may be a slip of the pen: tables that no client of this version has, scripts that nobody thought of, and lists of
    /// tables that bound less than they seem to.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let unknown = |name: &&String| !TABLES.contains(&name.as_str());
        let unknown = self.tables.iter().flatten().filter(unknown).map(|name| {
            format!(
                "grants.tables has {name:?}, which no client of this version has; there are {}",
                TABLES.join(", ")
            )
        });
        unknown.chain(self.warn_of_steps().map(str::to_owned)).collect()
    }

    fn warn_of_steps(&self) -> Option<&'static str> {
        let only_queries = BTreeSet::from(["query".to_owned()]);
        let any_limit = self.kinds.is_some() || self.actions.is_some();
        match (&self.steps, &self.tables) {
            (None, None) if any_limit => Some(
                "grants limits neither tables nor steps: questions and actions run scripts as well; \
                 steps = [\"query\"] allows SQL alone",
            ),
            (Some(steps), Some(_)) if !steps.is_subset(&only_queries) => Some(
                "grants.tables bounds queries alone: the scripts and actions that grants.steps allows read what they like",
            ),
            (None | Some(_), None | Some(_)) => None,
        }
    }

    pub(super) fn check(&self) -> Result<(), PolicyError> {
        let is_table = |name: &str| {
            !name.is_empty()
                && name.len() <= TABLE_BYTES_MAX
                && name.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let is_kind = |name: &str| [Kind::Question, Kind::Action].iter().any(|kind| kind.name() == name);
        let is_step = |name: &str| STEPS.contains(&name);
        let is_action = |name: &str| DefinitionName::from_str(name).is_ok();
        check_list(
            "grants.tables",
            self.tables.as_ref(),
            is_table,
            "names of tables, at most 64 bytes each",
        )?;
        check_list("grants.kinds", self.kinds.as_ref(), is_kind, "question, action")?;
        check_list("grants.steps", self.steps.as_ref(), is_step, "query, script, action")?;
        check_list(
            "grants.actions",
            self.actions.as_ref(),
            is_action,
            "names of definitions, Prefix-Area-Thing",
        )
    }
}

/// Why something is not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} is not granted: {list} has {}", shown(has))]
pub struct NotGranted {
    /// What was to run or to be read.
    pub name: String,
    /// The list.
    pub list: &'static str,
    /// What that has.
    pub has: BTreeSet<String>,
}

/// Names that an error lists.
const SHOWN_MAX: usize = 16;

fn shown(has: &BTreeSet<String>) -> String {
    let mut names: Vec<&str> = has.iter().map(String::as_str).take(SHOWN_MAX).collect();
    if has.len() > SHOWN_MAX {
        names.push("…");
    }
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

pub(super) fn require(
    list: &'static str,
    allowed: Option<&BTreeSet<String>>,
    name: &str,
) -> Result<(), NotGranted> {
    match allowed {
        Some(has) if !has.contains(name) => Err(NotGranted { name: name.to_owned(), list, has: has.clone() }),
        Some(_) | None => Ok(()),
    }
}

pub(super) fn check_list(
    list: &str,
    names: Option<&BTreeSet<String>>,
    is_one: impl Fn(&str) -> bool,
    wanted: &str,
) -> Result<(), PolicyError> {
    let Some(names) = names else { return Ok(()) };
    if names.len() > GRANTED_MAX {
        let got = names.len();
        return Err(PolicyError::new(format!("{list} has {got} names; wanted at most {GRANTED_MAX}")));
    }
    match names.iter().find(|name| !is_one(name)) {
        Some(odd) => Err(PolicyError::new(format!("{list} has {odd:?}; wanted {wanted}"))),
        None => Ok(()),
    }
}
