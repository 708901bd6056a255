//! What may be run: the authored text of a definition, checked as a whole before anybody signs or runs it.
//!
//! The text is TOML (`spec/signing.md`, "Definition"); what is reviewed is what is signed. Parameters are typed data
//! that SQL binds; text substitution does not exist. The one exception that proves the rule is `query_parameter` of the
//! platform's own `Muster-Core-Query`, whose step *is* its parameter. Start with [`Definition::parse`].

mod action;
mod aggregate;
mod argument;
pub(crate) mod datetime;
mod document;
mod error;
mod hidden;
mod lint;
mod name;
mod parameter;
mod quantity;
mod read;
mod rule;
mod script;
mod sql;

use std::sync::Arc;
use std::time::Duration;

use muster_proto::common::v1::ColumnType;
use muster_proto::ids::Digest;

pub use self::action::{ACTION_COLUMNS, Action, Operand, ServiceVerb};
pub use self::aggregate::AGGREGATE_FUNCTIONS;
pub use self::argument::ArgumentError;
pub use self::error::{DefinitionError, FINDINGS_MAX, Finding};
pub use self::name::{DefinitionName, NameError};
pub use self::parameter::{Parameter, ParameterKind, Pattern};
pub use self::rule::{Rule, Severity};
pub use self::script::{SCRIPT_BYTES_MAX, Script, ScriptArgument, ScriptText};

/// Largest authored text in bytes: what an envelope holds beside its certificates and signature.
pub const TEXT_BYTES_MAX: usize = 192 * 1024;

/// Most parameters, result columns and resources of a definition: arguments and columns are 64 on the wire.
pub const ITEMS_MAX: usize = 64;

/// Most steps of a definition: they share one run time of at most an hour.
pub const STEPS_MAX: usize = 8;

/// The only prefix whose definitions may have a step that is its parameter.
pub const PLATFORM_PREFIX: &str = "Muster";

/// A checked definition. Clones share it.
#[derive(Debug, Clone)]
pub struct Definition(Arc<Content>);

#[derive(Debug)]
struct Content {
    name: DefinitionName,
    version: semver::Version,
    kind: Kind,
    says: String,
    parameters: Vec<Parameter>,
    steps: Vec<Step>,
    result: Vec<ResultColumn>,
    aggregate: Option<String>,
    resources: Vec<Resource>,
    limits: Limits,
    time_to_live: TimeToLive,
    platforms: Vec<String>,
    minimum_client_version: Option<semver::Version>,
    sandbox: Sandbox,
    approvals: u32,
}

impl Definition {
    /// Reads and checks an authored text.
    ///
    /// # Errors
    /// The first problem, with its line; rendered by miette it points into the text.
    pub fn parse(text: &str) -> Result<Self, DefinitionError> {
        read::definition(text).map(|content| Self(Arc::new(content))).map_err(|fault| fault.within(text))
    }

    /// Returns the name and the version that a text gives itself, whatever else is wrong with it; `None`: these do not pass either.
    #[must_use]
    pub fn called(text: &str) -> Option<(DefinitionName, semver::Version)> {
        read::called(text)
    }

    /// Returns everything that is wrong with an authored text, and advice beyond that, in the order of the text; at most
    /// [`FINDINGS_MAX`].
    ///
    /// It has an error exactly where [`Definition::parse`] gives one.
    #[must_use]
    pub fn lint(text: &str) -> Vec<Finding> {
        lint::findings(text)
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &DefinitionName {
        &self.0.name
    }

    /// Returns the version; a client never goes back from one it has seen.
    #[must_use]
    pub fn version(&self) -> &semver::Version {
        &self.0.version
    }

    /// Returns whether it only asks or also changes something.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Returns what it does, in words, with `%parameter%` where an argument stands.
    #[must_use]
    pub fn says(&self) -> &str {
        &self.0.says
    }

    /// Returns the parameters in their order.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.0.parameters
    }

    /// Returns what is run, in its order; the rows of the last step are the result.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.0.steps
    }

    /// Returns the columns of the result; none for a step that is its parameter, whose columns are free.
    #[must_use]
    pub fn result(&self) -> &[ResultColumn] {
        &self.0.result
    }

    /// Returns the SQL over the table `results` that sums it up; the Switch runs it.
    #[must_use]
    pub fn aggregate(&self) -> Option<&str> {
        self.0.aggregate.as_deref()
    }

    /// Returns the content it needs.
    #[must_use]
    pub fn resources(&self) -> &[Resource] {
        &self.0.resources
    }

    /// Returns the bounds of one run on one device.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Returns how long it is gathered and how long its results are kept.
    #[must_use]
    pub fn time_to_live(&self) -> &TimeToLive {
        &self.0.time_to_live
    }

    /// Returns the platforms it is for, such as `linux` or `linux-x86_64`; none: every one.
    #[must_use]
    pub fn platforms(&self) -> &[String] {
        &self.0.platforms
    }

    /// Returns whether it is for `platform`: `linux` is also for `linux-x86_64`.
    #[must_use]
    pub fn is_for_platform(&self, platform: &str) -> bool {
        let is_for = |wanted: &String| {
            platform
                .strip_prefix(wanted.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '/']))
        };
        self.0.platforms.is_empty() || self.0.platforms.iter().any(is_for)
    }

    /// Returns the oldest client that may run it.
    #[must_use]
    pub fn minimum_client_version(&self) -> Option<&semver::Version> {
        self.0.minimum_client_version.as_ref()
    }

    /// Returns how its steps are confined.
    #[must_use]
    pub fn sandbox(&self) -> Sandbox {
        self.0.sandbox
    }

    /// Returns how many people must sign an order of it beside the operator who issues it; at most [`APPROVALS_MAX`].
    ///
    /// [`APPROVALS_MAX`]: crate::envelope::APPROVALS_MAX
    #[must_use]
    pub fn approvals(&self) -> u32 {
        self.0.approvals
    }
}

/// Whether a definition only asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Reads the machine.
    Question,
    /// Changes the machine.
    Action,
}

impl Kind {
    /// Returns the name as a definition writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Question => "question",
            Self::Action => "action",
        }
    }
}

/// One thing that is run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A SQL query over the device's tables; parameters and `:resource_<name>` are bound.
    Query {
        /// The query.
        sql: String,
    },
    /// The query is the argument of this parameter; platform definitions only.
    QueryParameter {
        /// The parameter's name.
        parameter: String,
    },
    /// A script; values are handed to it.
    Script(Script),
    /// A typed action; values are handed to it.
    Action(Action),
}

impl Step {
    /// Returns whether it is a query over the device's tables, and so can do nothing but read them.
    #[must_use]
    pub const fn is_sql(&self) -> bool {
        match self {
            Self::Query { .. } | Self::QueryParameter { .. } => true,
            Self::Script(_) | Self::Action(_) => false,
        }
    }

    /// Returns what sort of step it is, as the key that a definition names it by: `query`, `script` or `action`.
    #[must_use]
    pub const fn sort(&self) -> &'static str {
        match self {
            Self::Query { .. } | Self::QueryParameter { .. } => "query",
            Self::Script(_) => "script",
            Self::Action(_) => "action",
        }
    }
}

/// A column of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
    /// Bytes of a text or blob at most.
    pub max_length: Option<usize>,
}

/// Content that a definition needs; its local path is bound as `:resource_<name>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its name in the definition.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// Its BLAKE3 root.
    pub root: Digest,
    /// Its SHA-256, if its author names it: a device refuses content of another, and people can check it by hand.
    pub sha256: Option<Digest>,
}

/// Bounds of one run on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// For all steps together; 1 s to 1 h.
    pub run_time: Duration,
    /// Rows at most; 1 to 100,000.
    pub rows: u32,
    /// Bytes of rows at most; 1 KiB to 16 MiB.
    pub bytes: u32,
}

/// How long an instruction of the definition lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeToLive {
    /// How long devices may start it; at most 7 days, the longest window of an order.
    pub gather: Bounds,
    /// How long the Switch keeps the results.
    pub keep: Bounds,
}

/// A time with its bounds: minimum <= default <= maximum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Where nothing is said.
    pub default: Duration,
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

/// How steps are confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sandbox {
    /// Layers that cannot be applied are reported.
    #[default]
    Standard,
    /// A device on which a layer cannot be applied refuses.
    Strict,
}

#[cfg(test)]
mod tests;
