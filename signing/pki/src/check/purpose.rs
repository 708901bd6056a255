//! What a path is judged for: a role, or the path alone.

use std::fmt;

use crate::finding::Rule;
use crate::role::{Family, Role};
use crate::usage::ExtendedKeyUsage;

/// Whose rules a path is held to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// A role's: its Extended Key Usage must be allowed by every CA.
    Of(Role),
    /// RFC 5280 §6 alone, for [`super::verify_path`].
    PathOnly,
}

impl Purpose {
    /// Returns the Extended Key Usage that every CA must allow.
    pub(super) const fn extended_key_usage(self) -> Option<ExtendedKeyUsage> {
        match self {
            Self::Of(role) => Some(role.extended_key_usage()),
            Self::PathOnly => None,
        }
    }

    /// Returns the role's family.
    pub(super) const fn family(self) -> Option<Family> {
        match self {
            Self::Of(role) => Some(role.family()),
            Self::PathOnly => None,
        }
    }

    /// Returns the rule that the role has in place of a TLS rule.
    pub(super) const fn rule(self, tls: Rule) -> Rule {
        match self {
            Self::Of(role) => role.rule(tls),
            Self::PathOnly => tls,
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(role) => role.fmt(f),
            Self::PathOnly => f.write_str("given"),
        }
    }
}
