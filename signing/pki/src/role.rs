//! [`Role`]: what a certificate is used for; each role has roots of its own.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::finding::Rule;
use crate::usage::ExtendedKeyUsage;

/// What the holder of a certificate does. Each role has its own trust store (DESIGN.md, "Contracts").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A device's client: TLS client of a Switch or Background Channel.
    Device,
    /// An operator: TLS client of the operator API.
    Operator,
    /// A Switch or Background Channel: TLS server.
    Switch,
    /// A service of ours that is TLS client of another (the Background Channel's relay).
    Service,
    /// Signs definitions.
    Author,
    /// Signs orders.
    OrderSigner,
    /// Signs licences.
    Licensor,
    /// Signs client policies.
    Policy,
    /// Signs RFC 3161 timestamps.
    Timestamp,
}

/// Whether a role speaks TLS or signs documents; the rules differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Rules C1–C16.
    Tls,
    /// Rule G5.
    Signing,
}

impl Role {
    /// All roles, in the order of their declaration.
    pub const ALL: [Self; 9] = [
        Self::Device,
        Self::Operator,
        Self::Switch,
        Self::Service,
        Self::Author,
        Self::OrderSigner,
        Self::Licensor,
        Self::Policy,
        Self::Timestamp,
    ];

    /// Returns the Extended Key Usage that a leaf of this role must have (C3, S7, G5).
    #[must_use]
    pub const fn extended_key_usage(self) -> ExtendedKeyUsage {
        match self {
            Self::Device | Self::Operator | Self::Service => ExtendedKeyUsage::ClientAuth,
            Self::Switch => ExtendedKeyUsage::ServerAuth,
            Self::Author | Self::OrderSigner | Self::Licensor | Self::Policy => ExtendedKeyUsage::CodeSigning,
            Self::Timestamp => ExtendedKeyUsage::TimeStamping,
        }
    }

    /// Returns the role's name as it is written on command lines and in configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Operator => "operator",
            Self::Switch => "switch",
            Self::Service => "service",
            Self::Author => "author",
            Self::OrderSigner => "order",
            Self::Licensor => "licensor",
            Self::Policy => "policy",
            Self::Timestamp => "timestamp",
        }
    }

    pub(crate) const fn family(self) -> Family {
        match self {
            Self::Device | Self::Operator | Self::Switch | Self::Service => Family::Tls,
            Self::Author | Self::OrderSigner | Self::Licensor | Self::Policy | Self::Timestamp => {
                Family::Signing
            }
        }
    }

    /// Returns `tls` for TLS roles, else G5: signers have one rule for purpose, chain and self-signature.
    pub(crate) const fn rule(self, tls: Rule) -> Rule {
        match self.family() {
            Family::Tls => tls,
            Family::Signing => Rule::G5,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = RoleError;

    /// Reads a role's name; `client` means device, `server` means switch.
    fn from_str(text: &str) -> Result<Self, RoleError> {
        match text {
            "client" => Ok(Self::Device),
            "server" => Ok(Self::Switch),
            name => Self::ALL
                .into_iter()
                .find(|role| role.name() == name)
                .ok_or_else(|| RoleError(name.to_owned())),
        }
    }
}

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no role is called {0:?}; wanted device (client), operator, switch (server), service, author, order, licensor, policy or timestamp"
)]
pub struct RoleError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_every_name_and_both_aliases() {
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
        }
        assert_eq!("client".parse(), Ok(Role::Device));
        assert_eq!("server".parse(), Ok(Role::Switch));
        assert!("Client".parse::<Role>().is_err());
    }
}
