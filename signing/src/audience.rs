//! For whom an instruction is: a subset of CEL over a device's attributes.
//!
//! `&& || ! == != < <= > >= in startsWith matches has`, strings, integers, `true` and `false`, lists of literals and
//! parentheses; precedence and meaning are CEL's (<https://github.com/google/cel-spec>), so `os == "linux" && cpus >= 4`
//! means here what it means there. `matches` finds its pattern anywhere in the text, as CEL's does. A condition on an
//! attribute that is missing or of another type is neither true nor false; `&&` and `||` pass that on unless the other
//! side decides. One thing is ours: an attribute holds booleans as 0 or 1, so `virtual`, `virtual == true` and
//! `virtual == 1` are the same.
//!
//! Start with [`Expression`]; the Switch's planner reads its [`Node`]s.

mod error;
mod evaluate;
mod lexer;
mod node;
mod parser;
mod types;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use muster_proto::common::v1::{Value, value::Kind};

pub use self::error::AudienceError;
pub use self::node::{Comparison, Literal, Node, Operand, Pattern};

/// Longest expression in bytes (order.proto, `Audience.expression`).
pub const EXPRESSION_BYTES_MAX: usize = 4 * 1024;

/// Deepest nesting of parentheses and `!` (DESIGN.md, "Audience language"); it bounds the stack of every walk.
pub const DEPTH_MAX: usize = 32;

/// The attribute that says whether a device has a certificate: 1, or 0 for one that is known by its key alone (C1 of trust.md). Client
/// and Switch each set it by the identity, whatever is said.
pub const AUTHENTICATED: &str = "authenticated";

/// The attributes that every client tells of itself, by name; `cpus` and `memory_mb` are integers, `virtual` and
/// `authenticated` 0 or 1.
pub const CLIENT_ATTRIBUTES: [&str; 12] = [
    "device",
    "os",
    "os_version",
    "arch",
    "host",
    "domain",
    "version",
    "kernel",
    "cpus",
    "memory_mb",
    "virtual",
    AUTHENTICATED,
];

/// A parsed audience expression. Clones share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression(Arc<Parsed>);

#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    text: String,
    node: Node,
    /// Where each attribute is named first: offset and length in bytes.
    names: BTreeMap<String, (usize, usize)>,
    /// The first operator that does not go with the types of what it stands between.
    mistake: Option<AudienceError>,
}

impl Expression {
    /// Parses an expression.
    ///
    /// # Errors
    /// What is wrong, where it stands, and what would do instead.
    pub fn parse(text: &str) -> Result<Self, AudienceError> {
        let parser::Parsing { node, names, mistake } = parser::parse(text)?;
        Ok(Self(Arc::new(Parsed { text: text.to_owned(), node, names, mistake })))
    }

    /// Returns whether the expression is true of a device with these attributes; neither true nor false counts as not.
    #[must_use]
    pub fn matches(&self, attributes: &BTreeMap<String, Value>) -> bool {
        evaluate::truth(&self.0.node, &|name| evaluate::known(attributes, name)) == Some(true)
    }

    /// Returns whether the expression is true of a device that is under the order's root already.
    ///
    /// What only the Switch knows (tags, groups, site) was decided when the root was made and is signed with it, so a
    /// device leaves open what depends on a name outside [`CLIENT_ATTRIBUTES`] that it doesn't have.
    #[must_use]
    pub fn admits_member(&self, attributes: &BTreeMap<String, Value>) -> bool {
        let is_open = |name: &str| !attributes.contains_key(name) && !CLIENT_ATTRIBUTES.contains(&name);
        let look_up = |name: &str| {
            if is_open(name) { evaluate::Found::Open } else { evaluate::known(attributes, name) }
        };
        match evaluate::truth(&self.0.node, &look_up) {
            Some(decided) => decided,
            None => self.names().any(is_open),
        }
    }

    /// Returns whether it asks for devices without a certificate, too: no other ever holds one (C1 of trust.md).
    #[must_use]
    pub fn asks_for_unauthenticated(&self) -> bool {
        self.0.names.contains_key(AUTHENTICATED)
    }

    /// Returns the attributes that it names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.names.keys().map(String::as_str)
    }

    /// Checks that every attribute it names is known.
    ///
    /// # Errors
    /// The first unknown one, with the nearest known name.
    pub fn check_names<'a>(&self, known: impl IntoIterator<Item = &'a str>) -> Result<(), AudienceError> {
        let known: Vec<&str> = known.into_iter().collect();
        match self.0.names.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, span)) => Err(AudienceError::unknown_name(&self.0.text, name, *span, &known)),
            None => Ok(()),
        }
    }

    /// Checks that every operator goes with the types of what it stands between, as far as [`CLIENT_ATTRIBUTES`] say what
    /// they are. For who writes an audience; whoever is given a signed one evaluates it as it is.
    ///
    /// # Errors
    /// The first mistake, with its place and what would do.
    pub fn check_types(&self) -> Result<(), AudienceError> {
        self.0.mistake.clone().map_or(Ok(()), Err)
    }

    /// Returns the tree.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// Returns the text as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }
}

/// Returns whether an audience holds a device with these attributes; none is everybody with a certificate (C1 of trust.md).
#[must_use]
pub fn holds(audience: Option<&Expression>, attributes: &BTreeMap<String, Value>) -> bool {
    let is_unauthenticated =
        attributes.get(AUTHENTICATED).is_some_and(|value| value.kind == Some(Kind::Integer(0)));
    let is_asked_for = |audience: &Expression| audience.asks_for_unauthenticated();
    (!is_unauthenticated || audience.is_some_and(is_asked_for))
        && audience.is_none_or(|audience| audience.matches(attributes))
}

impl fmt::Display for Expression {
    /// Writes the text as it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl FromStr for Expression {
    type Err = AudienceError;

    fn from_str(text: &str) -> Result<Self, AudienceError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests;
