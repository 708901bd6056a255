//! [`DefinitionName`]: `Prefix-Area-Thing` (G3).

use std::fmt;
use std::str::FromStr;

/// A definition's name: `Prefix-Area-Thing`, under 64 characters, ASCII letters, digits and hyphens (G3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DefinitionName(String);

/// Fewest components of a name: prefix, area and thing.
const COMPONENTS_MIN: usize = 3;

impl DefinitionName {
    /// Names are shorter than this, in characters.
    pub const LENGTH_BOUND: usize = 64;

    /// Returns the publisher's prefix: the first component, compared exactly.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.0.split('-').next().unwrap_or_default()
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether `prefix` can be the first component of a name.
    #[must_use]
    pub fn is_prefix(prefix: &str) -> bool {
        let is_valid = prefix.bytes().all(|byte| byte.is_ascii_alphanumeric());
        !prefix.is_empty() && prefix.len() < Self::LENGTH_BOUND && is_valid
    }
}

impl FromStr for DefinitionName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_component =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if text.len() >= Self::LENGTH_BOUND
            || text.split('-').count() < COMPONENTS_MIN
            || !text.split('-').all(is_component)
        {
            return Err(NameError(text.chars().take(80).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for DefinitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for DefinitionName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// A text that is no definition's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no definition's name; wanted Prefix-Area-Thing, under 64 characters, of ASCII letters, digits and hyphens (G3)"
)]
pub struct NameError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g3_takes_three_components_of_ascii_letters_and_digits() {
        let name: DefinitionName = "Acme-Security-ExpiringCertificates".parse().unwrap();

        assert_eq!(name.prefix(), "Acme");
        assert!("A-b-3-4".parse::<DefinitionName>().is_ok());
    }

    #[test]
    fn g3_a_prefix_is_the_first_component_that_a_name_can_have() {
        for prefix in ["A", "4", "Acme", &"a".repeat(63)] {
            assert!(DefinitionName::is_prefix(prefix), "{prefix}");
        }
        for no in ["", "Ac-me", "Acme ", "\u{c4}cme", &"a".repeat(64)] {
            assert!(!DefinitionName::is_prefix(no), "{no}");
        }
        let name: DefinitionName = format!("Acme-Os-{}", "a".repeat(55)).parse().unwrap();
        assert_eq!((name.to_string(), name.as_ref()), (name.as_str().to_owned(), name.as_str()));
        assert_eq!(name.as_str().len(), 63);
    }

    #[test]
    fn g3_refuses_everything_else() {
        let long = format!("Acme-Os-{}", "a".repeat(56));
        for text in [
            "",
            "Acme",
            "Acme-Os",
            "Acme--Os",
            "-Acme-Os",
            "Acme-Os-",
            "Acme-Os-V ",
            "Аcme-Os-Version",
            "Acme-Os-V.1",
            &long,
        ] {
            assert!(text.parse::<DefinitionName>().is_err(), "{text}");
        }
    }
}
