//! The licence: which signers may publish under which prefixes (G6), a signed TOML document.
//!
//! Prefixes are compared exactly (G3). `serial` never goes back; who keeps the highest one is the caller.

mod document;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_pki::text::is_misleading;
use muster_pki::{Thumbprint, UnixTime};
use muster_proto::common::v1::Refusal;

use crate::definition::DefinitionName;
use crate::{hidden, moment};

pub use self::request::{
    LicenceRequest, REQUEST_PREFIXES_MAX, REQUEST_TEXT_BYTES_MAX, RequestError, VerifiedRequest,
};

/// Largest licence text in bytes.
pub const TEXT_BYTES_MAX: usize = 192 * 1024;

/// A checked licence. Clones share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Licence(Arc<Terms>);

/// What a licence says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Grows with each licence of a tenant, from 1.
    pub serial: u64,
    /// Whom it is for, in words.
    pub licensee: String,
    /// The organisation whose devices follow it.
    pub tenant: String,
    /// First moment of validity.
    pub not_before: UnixTime,
    /// Last moment of validity.
    pub not_after: UnixTime,
    /// When a newer licence should have come; devices warn after it.
    pub refresh_by: Option<UnixTime>,
    /// What else is licensed, by name. They are carried and shown; no program asks for any.
    pub features: BTreeSet<String>,
    /// Who may sign under each prefix.
    pub prefixes: BTreeMap<String, BTreeSet<Thumbprint>>,
    /// The lowest version of a definition that may be issued.
    pub minimum_versions: BTreeMap<DefinitionName, semver::Version>,
    /// Signers whose definitions count only if a timestamp proves that they were signed up to this moment. The signer's own
    /// word counts for nothing: whoever stole the key may write any time.
    pub distrusted: BTreeMap<Thumbprint, UnixTime>,
}

impl Licence {
    /// Reads and checks a licence's text.
    ///
    /// # Errors
    /// What is wrong, and what would do.
    pub fn parse(text: &str) -> Result<Self, LicenceError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(LicenceError::new(format!("{} bytes; wanted at most {TEXT_BYTES_MAX}", text.len())));
        }
        refuse_hidden(text)?;
        Self::new(document::read(text)?)
    }

    /// Makes a licence of its terms.
    ///
    /// # Errors
    /// What is wrong with the terms.
    pub fn new(terms: Terms) -> Result<Self, LicenceError> {
        check(&terms)?;
        Ok(Self(Arc::new(terms)))
    }

    /// Writes the text that is signed; [`Self::parse`] gives the same licence.
    ///
    /// # Errors
    /// A time is out of the years 0 to 9999.
    pub fn to_text(&self) -> Result<String, LicenceError> {
        document::write(&self.0)
    }

    /// Returns everything it says.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.0
    }

    /// Returns the serial.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.0.serial
    }

    /// Returns the organisation.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.0.tenant
    }

    /// Returns whom it is for, in words.
    #[must_use]
    pub fn licensee(&self) -> &str {
        &self.0.licensee
    }

    /// Returns whether it is valid at `now`.
    #[must_use]
    pub fn is_valid_at(&self, now: UnixTime) -> bool {
        self.0.not_before <= now && now <= self.0.not_after
    }

    /// Returns whether a newer licence should have come.
    #[must_use]
    pub fn is_refresh_due(&self, now: UnixTime) -> bool {
        self.0.refresh_by.is_some_and(|refresh_by| now > refresh_by)
    }

    /// Checks that it binds a definition's prefix to its signer; `stamped_at` is when a timestamp says it was signed.
    ///
    /// # Errors
    /// It doesn't, it distrusts the signer and no timestamp is early enough, or it asks for a newer version.
    pub fn admits(
        &self,
        name: &DefinitionName,
        version: &semver::Version,
        signer: &Thumbprint,
        stamped_at: Option<UnixTime>,
    ) -> Result<(), LicenceRefusal> {
        let prefix = name.prefix();
        let Some(signers) = self.0.prefixes.get(prefix) else {
            return Err(LicenceRefusal::Prefix {
                prefix: prefix.to_owned(),
                serial: self.0.serial,
                licensed: match self.0.prefixes.is_empty() {
                    true => "none".to_owned(),
                    false => self.0.prefixes.keys().cloned().collect::<Vec<_>>().join(", "),
                },
            });
        };
        if !signers.contains(signer) {
            let serial = self.0.serial;
            return Err(LicenceRefusal::Signer { prefix: prefix.to_owned(), signer: *signer, serial });
        }
        if let Some(after) = self.0.distrusted.get(signer)
            && stamped_at.is_none_or(|stamp| stamp > *after)
        {
            return Err(LicenceRefusal::Distrusted {
                signer: *signer,
                serial: self.0.serial,
                after: after.as_secs(),
                found: stamped_at
                    .map_or("none".to_owned(), |stamp| format!("one of {}", moment::shown(stamp.as_secs()))),
            });
        }
        match self.0.minimum_versions.get(name) {
            Some(minimum) if version < minimum => Err(LicenceRefusal::Version {
                name: name.clone(),
                version: version.clone(),
                minimum: minimum.clone(),
            }),
            Some(_) | None => Ok(()),
        }
    }
}

/// Why a licence does not admit a definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LicenceRefusal {
    /// Nobody may sign under the prefix.
    #[error(
        "prefix {prefix} is not in licence {serial} (it has: {licensed}); rename the definition, or have a licence issued with the prefix"
    )]
    Prefix {
        /// The definition's prefix.
        prefix: String,
        /// The licence.
        serial: u64,
        /// The prefixes it has.
        licensed: String,
    },
    /// Someone else may.
    #[error(
        "licence {serial} does not bind prefix {prefix} to signer {signer}; sign with a licensed certificate, or have a licence issued with this one"
    )]
    Signer {
        /// The definition's prefix.
        prefix: String,
        /// Who signed it.
        signer: Thumbprint,
        /// The licence.
        serial: u64,
    },
    /// The signer is not trusted any more.
    #[error(
        "licence {serial} distrusts signer {signer}: what it signed counts with a timestamp up to {}, found {found}; sign again with another certificate",
        moment::shown(*after)
    )]
    Distrusted {
        /// Who signed it.
        signer: Thumbprint,
        /// The licence.
        serial: u64,
        /// The latest timestamp that counts, in Unix seconds.
        after: u64,
        /// The timestamp that there is.
        found: String,
    },
    /// A newer version is asked for.
    #[error(
        "{name} {version} is older than {minimum}, the least that the licence allows; issue a newer version"
    )]
    Version {
        /// The definition.
        name: DefinitionName,
        /// Its version.
        version: semver::Version,
        /// The least that is allowed.
        minimum: semver::Version,
    },
}

impl LicenceRefusal {
    /// Returns the stable code that a client answers with.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Prefix { .. } | Self::Signer { .. } => Refusal::Unlicensed,
            Self::Distrusted { .. } => Refusal::UntrustedSigner,
            Self::Version { .. } => Refusal::RolledBack,
        }
    }
}

/// Why a text is no licence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("licence: {0}")]
pub struct LicenceError(String);

impl LicenceError {
    fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}

fn check(terms: &Terms) -> Result<(), LicenceError> {
    if terms.serial == 0 {
        return Err(LicenceError::new("serial is 0; wanted 1 or more"));
    }
    check_licensee(&terms.licensee)?;
    check_tenant(&terms.tenant)?;
    if let Some(feature) = terms.features.iter().find(|feature| feature.chars().any(is_misleading)) {
        return Err(LicenceError::new(format!(
            "feature {feature:?}; wanted a text without hidden characters"
        )));
    }
    if terms.not_after <= terms.not_before {
        return Err(LicenceError::new("not_after is not after not_before"));
    }
    check_refresh(terms)?;
    if let Some((name, version)) =
        terms.minimum_versions.iter().find(|(_, version)| !version.build.is_empty())
    {
        return Err(LicenceError::new(format!(
            "minimum version {version} of {name}; build metadata (`+…`) has no order, so no version may have it: remove it"
        )));
    }
    terms.prefixes.keys().try_for_each(|prefix| check_prefix(prefix))?;
    if let Some((prefix, _)) = terms.prefixes.iter().find(|(_, signers)| signers.is_empty()) {
        return Err(LicenceError::new(format!("prefix {prefix} has no signer; give one, or remove it")));
    }
    Ok(())
}

/// Before it is valid nobody warns, and after its end it is refused.
fn check_refresh(terms: &Terms) -> Result<(), LicenceError> {
    match terms.refresh_by {
        Some(refresh_by) if !(terms.not_before..=terms.not_after).contains(&refresh_by) => {
            let shown = |moment: UnixTime| moment::shown(moment.as_secs());
            Err(LicenceError::new(format!(
                "refresh_by is {}; wanted a moment of its validity, {} to {}",
                shown(refresh_by),
                shown(terms.not_before),
                shown(terms.not_after)
            )))
        }
        Some(_) | None => Ok(()),
    }
}

fn refuse_hidden(text: &str) -> Result<(), LicenceError> {
    let told = |c| LicenceError::new(format!("{}; remove it", hidden::told(c)));
    hidden::in_document(text).map_or(Ok(()), |c| Err(told(c)))
}

fn is_text(text: &str, max: usize) -> bool {
    !text.is_empty() && text.len() <= max && !text.chars().any(is_misleading)
}

fn check_licensee(licensee: &str) -> Result<(), LicenceError> {
    match is_text(licensee, 256) {
        true => Ok(()),
        false => Err(LicenceError::new(format!(
            "licensee is {licensee:?}; wanted 1 to 256 bytes on one line, none of them hidden"
        ))),
    }
}

fn check_tenant(tenant: &str) -> Result<(), LicenceError> {
    match is_text(tenant, crate::order::TENANT_BYTES_MAX) {
        true => Ok(()),
        false => Err(LicenceError::new(format!(
            "tenant is {tenant:?}; wanted 1 to 64 bytes on one line, none of them hidden"
        ))),
    }
}

fn check_prefix(prefix: &str) -> Result<(), LicenceError> {
    match DefinitionName::is_prefix(prefix) {
        true => Ok(()),
        false => Err(LicenceError::new(format!(
            "prefix {prefix:?}; wanted ASCII letters and digits, without hyphen"
        ))),
    }
}

#[cfg(test)]
mod tests;
