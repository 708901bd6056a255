//! Grants: which operator may do what. The gate reads them.

use serde::{Deserialize, Serialize};

/// Gives operators a role, within prefixes and kinds. What no grant gives is denied, once there is any grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Names in the operators' TLS certificates (first SAN dNSName, else CN; lower case), or `*` for all.
    pub operators: Vec<String>,
    /// What they may do.
    pub role: GrantRole,
    /// Prefixes of the definitions they may issue; empty: all. Compared exactly (G3 of signing.md).
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// Kinds of the definitions they may issue; empty: both. Of a definition that is damaged or not held any more, nobody can tell the kind, and
    /// who is limited to some approves and stops nothing.
    #[serde(default)]
    pub kinds: Vec<GrantKind>,
}

/// What a grant allows; each includes the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GrantRole {
    /// Reads devices, definitions, instructions, results and events. Prefixes and kinds do not narrow it.
    Viewer,
    /// Prepares, submits and stops instructions of the granted prefixes and kinds.
    Issuer,
    /// Imports definitions, licences and client policies, removes and blocks devices, exports the store. Stops every
    /// instruction. Prefixes and kinds narrow issuing only.
    Administrator,
}

/// The kind of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GrantKind {
    /// Asks, changes nothing.
    Question,
    /// Changes something.
    Action,
}
