//! What orders the Switch's own key may sign for (K2, signing.md "Order"): nothing that is not named.

use std::collections::BTreeSet;
use std::str::FromStr;

use muster_pki::Thumbprint;
use serde::Deserialize;

use super::PolicyError;
use super::grants::{NotGranted, check_list, require};
use crate::definition::{Definition, DefinitionName, Kind};

/// Most thumbprints: the key in use, and those that take its place.
const THUMBPRINTS_MAX: usize = 16;

/// A Switch's key, and what it counts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderKey {
    thumbprints: BTreeSet<Thumbprint>,
    prefixes: BTreeSet<String>,
    kinds: BTreeSet<String>,
    definitions: BTreeSet<String>,
}

/// As it is written: every list must name something.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    thumbprints: BTreeSet<Thumbprint>,
    prefixes: BTreeSet<String>,
    kinds: BTreeSet<String>,
    definitions: BTreeSet<String>,
}

impl OrderKey {
    /// Returns whether a certificate is of this key.
    #[must_use]
    pub fn is(&self, certificate: &Thumbprint) -> bool {
        self.thumbprints.contains(certificate)
    }

    /// Returns whether the key may sign orders of a definition: its prefix, its kind and its name are all listed.
    ///
    /// # Errors
    /// The list that does not have it, and what it has.
    pub fn admit(&self, definition: &Definition) -> Result<(), NotGranted> {
        let name = definition.name();
        require(PREFIXES, Some(&self.prefixes), name.prefix())?;
        require(KINDS, Some(&self.kinds), definition.kind().name())?;
        require(DEFINITIONS, Some(&self.definitions), name.as_str())
    }
}

const PREFIXES: &str = "order_key.prefixes";
const KINDS: &str = "order_key.kinds";
const DEFINITIONS: &str = "order_key.definitions";

impl TryFrom<Written> for OrderKey {
    type Error = PolicyError;

    fn try_from(written: Written) -> Result<Self, PolicyError> {
        let Written { thumbprints, prefixes, kinds, definitions } = written;
        let got = thumbprints.len();
        if !(1..=THUMBPRINTS_MAX).contains(&got) {
            let problem = format!("order_key.thumbprints has {got}; wanted 1 to {THUMBPRINTS_MAX}");
            return Err(PolicyError::new(problem));
        }
        let is_kind = |name: &str| [Kind::Question, Kind::Action].iter().any(|kind| kind.name() == name);
        let is_definition = |name: &str| DefinitionName::from_str(name).is_ok();
        check_list(PREFIXES, Some(&prefixes), DefinitionName::is_prefix, "prefixes of definitions' names")?;
        check_list(KINDS, Some(&kinds), is_kind, "question, action")?;
        check_list(
            DEFINITIONS,
            Some(&definitions),
            is_definition,
            "names of definitions, Prefix-Area-Thing",
        )?;
        Ok(Self { thumbprints, prefixes, kinds, definitions })
    }
}
