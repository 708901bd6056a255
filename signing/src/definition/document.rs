//! The TOML of a definition, as it is authored; unknown keys are refused.

use serde::Deserialize;
use toml::Spanned;
use toml::Value;

use super::{Kind, Sandbox};

/// What every definition says first, whatever else it says.
#[derive(Debug, Deserialize)]
pub(super) struct Called {
    pub(super) name: String,
    pub(super) version: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) name: Spanned<String>,
    pub(super) version: Spanned<String>,
    pub(super) kind: Kind,
    pub(super) says: Spanned<String>,
    #[serde(default)]
    pub(super) parameter: Vec<Spanned<Parameter>>,
    #[serde(default)]
    pub(super) step: Vec<Spanned<Step>>,
    #[serde(default)]
    pub(super) result: Vec<Spanned<Column>>,
    pub(super) aggregate: Option<Aggregate>,
    #[serde(default)]
    pub(super) resource: Vec<Spanned<Resource>>,
    pub(super) limits: Option<Spanned<Limits>>,
    #[serde(default)]
    pub(super) time_to_live: TimeToLive,
    #[serde(default)]
    pub(super) platforms: Vec<Spanned<String>>,
    pub(super) minimum_client_version: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) sandbox: Sandbox,
    pub(super) approvals: Option<Spanned<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameter {
    pub(super) name: Spanned<String>,
    #[serde(rename = "type")]
    pub(super) kind: Spanned<String>,
    pub(super) pattern: Option<Spanned<String>>,
    pub(super) min: Option<Spanned<Value>>,
    pub(super) max: Option<Spanned<Value>>,
    pub(super) max_length: Option<Spanned<u32>>,
    pub(super) values: Option<Spanned<Vec<String>>>,
    pub(super) default: Option<Spanned<Value>>,
    pub(super) hint: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    pub(super) query: Option<Spanned<String>>,
    pub(super) query_parameter: Option<Spanned<String>>,
    pub(super) action: Option<Spanned<Action>>,
    pub(super) script: Option<Spanned<Script>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Action {
    #[serde(rename = "do")]
    pub(super) verb: Spanned<String>,
    pub(super) unit: Option<Spanned<String>>,
    pub(super) resource: Option<Spanned<String>>,
    pub(super) path: Option<Spanned<String>>,
    pub(super) mode: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Script {
    pub(super) interpreter: Spanned<String>,
    pub(super) text: Option<Spanned<String>>,
    pub(super) resource: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) arguments: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Column {
    pub(super) name: Spanned<String>,
    #[serde(rename = "type")]
    pub(super) kind: Spanned<String>,
    pub(super) max_length: Option<Spanned<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Aggregate {
    pub(super) query: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resource {
    pub(super) name: Spanned<String>,
    pub(super) size: u64,
    pub(super) root: Spanned<String>,
    pub(super) sha256: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) run_time: Option<Spanned<String>>,
    pub(super) rows: Option<Spanned<u32>>,
    pub(super) bytes: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimeToLive {
    pub(super) gather: Option<Spanned<Bounds>>,
    pub(super) keep: Option<Spanned<Bounds>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bounds {
    pub(super) default: Option<Spanned<String>>,
    pub(super) min: Option<Spanned<String>>,
    pub(super) max: Option<Spanned<String>>,
}
