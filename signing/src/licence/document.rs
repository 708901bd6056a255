//! The TOML of a licence.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_pki::{Thumbprint, UnixTime};
use serde::{Deserialize, Serialize};
use toml::value::Datetime;

use super::{LicenceError, Terms};
use crate::definition::{DefinitionName, datetime};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    serial: u64,
    licensee: String,
    tenant: String,
    not_before: Datetime,
    not_after: Datetime,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_by: Option<Datetime>,
    #[serde(default)]
    features: Vec<String>,
    #[serde(default)]
    prefix: Vec<Prefix>,
    #[serde(default)]
    minimum: Vec<Minimum>,
    #[serde(default)]
    distrusted: Vec<Distrusted>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prefix {
    name: String,
    signers: Vec<Thumbprint>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Minimum {
    name: String,
    version: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Distrusted {
    signer: Thumbprint,
    after: Datetime,
}

pub(super) fn read(text: &str) -> Result<Terms, LicenceError> {
    let document: Document = toml::from_str(text).map_err(|error| LicenceError::new(error.to_string()))?;
    let mut prefixes: BTreeMap<String, BTreeSet<Thumbprint>> = BTreeMap::new();
    for prefix in document.prefix {
        let signers = prefix.signers.into_iter().collect();
        if prefixes.insert(prefix.name.clone(), signers).is_some() {
            return Err(LicenceError::new(format!(
                "prefix {} stands there twice; list its signers together",
                prefix.name
            )));
        }
    }
    let minimum = |minimum: Minimum| {
        let name = minimum
            .name
            .parse::<DefinitionName>()
            .map_err(|error| LicenceError::new(format!("minimum: {error}")))?;
        let version = semver::Version::parse(&minimum.version)
            .map_err(|error| LicenceError::new(format!("minimum version of {}: {error}", minimum.name)))?;
        // Licences were issued with build metadata once. It has no order, and no definition has any.
        Ok((name, semver::Version { build: semver::BuildMetadata::EMPTY, ..version }))
    };
    let mut minimum_versions = BTreeMap::new();
    for given in document.minimum {
        let (name, version) = minimum(given)?;
        if minimum_versions.insert(name.clone(), version).is_some() {
            return Err(LicenceError::new(format!("minimum of {name} stands there twice; leave one")));
        }
    }
    let mut distrusted = BTreeMap::new();
    for given in document.distrusted {
        let signer = given.signer;
        if distrusted.insert(signer, moment(&given.after)?).is_some() {
            return Err(LicenceError::new(format!(
                "distrusted signer {signer} stands there twice; leave one, with the moment that counts"
            )));
        }
    }
    Ok(Terms {
        serial: document.serial,
        licensee: document.licensee,
        tenant: document.tenant,
        not_before: moment(&document.not_before)?,
        not_after: moment(&document.not_after)?,
        refresh_by: document.refresh_by.as_ref().map(moment).transpose()?,
        features: document.features.into_iter().collect(),
        prefixes,
        minimum_versions,
        distrusted,
    })
}

pub(super) fn write(terms: &Terms) -> Result<String, LicenceError> {
    let prefix = |(name, signers): (&String, &BTreeSet<Thumbprint>)| Prefix {
        name: name.clone(),
        signers: signers.iter().copied().collect(),
    };
    let distrusted = |(signer, after): (&Thumbprint, &UnixTime)| {
        Ok(Distrusted { signer: *signer, after: written(*after)? })
    };
    let document = Document {
        serial: terms.serial,
        licensee: terms.licensee.clone(),
        tenant: terms.tenant.clone(),
        not_before: written(terms.not_before)?,
        not_after: written(terms.not_after)?,
        refresh_by: terms.refresh_by.map(written).transpose()?,
        features: terms.features.iter().cloned().collect(),
        prefix: terms.prefixes.iter().map(prefix).collect(),
        minimum: terms
            .minimum_versions
            .iter()
            .map(|(name, version)| Minimum { name: name.to_string(), version: version.to_string() })
            .collect(),
        distrusted: terms.distrusted.iter().map(distrusted).collect::<Result<_, LicenceError>>()?,
    };
    toml::to_string_pretty(&document).map_err(|error| LicenceError::new(error.to_string()))
}

fn moment(written: &Datetime) -> Result<UnixTime, LicenceError> {
    datetime::unix_seconds(written)
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(|seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
        .ok_or_else(|| {
            LicenceError::new(format!(
                "{written} is no moment since 1970; wanted one such as 2026-01-31T12:00:00Z"
            ))
        })
}

fn written(moment: UnixTime) -> Result<Datetime, LicenceError> {
    i64::try_from(moment.as_secs()).ok().and_then(datetime::from_unix_seconds).ok_or_else(|| {
        LicenceError::new(format!("{} seconds since 1970 is after the year 9999", moment.as_secs()))
    })
}
