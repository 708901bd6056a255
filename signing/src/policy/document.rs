//! The TOML of a policy.

use muster_pki::Certificate;
use muster_pki::select::Selection;
use muster_pki::trust_store::TrustSettings;
use serde::Deserialize;

use super::{Grants, OrderKey, PolicyError, Terms, order_key};
use crate::audience::{CLIENT_ATTRIBUTES, Expression};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    serial: u64,
    tenant: String,
    #[serde(default)]
    says: String,
    #[serde(default)]
    audience: String,
    #[serde(default)]
    switch: Vec<String>,
    background_channel: Option<String>,
    #[serde(default)]
    ca: String,
    trust: Option<TrustSettings>,
    selection: Option<Selection>,
    #[serde(default)]
    grants: Grants,
    order_key: Option<order_key::Written>,
    minimum_client_version: Option<semver::Version>,
}

/// What is read of a policy that cannot be read.
#[derive(Debug, Deserialize)]
struct Wants {
    minimum_client_version: Option<semver::Version>,
}

pub(super) fn read(text: &str) -> Result<Terms, PolicyError> {
    let document: Document = toml::from_str(text).map_err(|error| unreadable(&error, text))?;
    if let Some(outdated) = outdated(document.minimum_client_version.as_ref()) {
        return Err(PolicyError::new(outdated));
    }
    Ok(Terms {
        serial: document.serial,
        tenant: document.tenant,
        says: document.says,
        audience: audience(&document.audience)?,
        switches: document.switch,
        background_channel: document.background_channel,
        authorities: authorities(&document.ca)?,
        trust: document.trust,
        selection: document.selection,
        grants: document.grants,
        order_key: document.order_key.map(OrderKey::try_from).transpose()?,
    })
}

/// A key that is not known may be one of a later version: then the policy's own word for it tells more.
fn unreadable(error: &toml::de::Error, text: &str) -> PolicyError {
    let wants = toml::from_str::<Wants>(text).ok().and_then(|wants| wants.minimum_client_version);
    match outdated(wants.as_ref()) {
        Some(outdated) => PolicyError::new(format!("{outdated} ({})", error.message())),
        None => PolicyError::new(error.to_string()),
    }
}

fn outdated(wanted: Option<&semver::Version>) -> Option<String> {
    let here = semver::Version::parse(env!("CARGO_PKG_VERSION")).ok()?;
    let wanted = wanted.filter(|wanted| **wanted > here)?;
    Some(format!(
        "it wants muster {wanted} or later, and this is {here}; update it, or sign a policy without the new keys"
    ))
}

/// A device judges by what it tells of itself: an attribute that it does not have would never match.
fn audience(text: &str) -> Result<Option<Expression>, PolicyError> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |error: crate::audience::AudienceError| PolicyError::new(format!("audience: {error}"));
    let expression = Expression::parse(text).map_err(wrong)?;
    expression.check_names(CLIENT_ATTRIBUTES).map_err(wrong)?;
    Ok(Some(expression))
}

fn authorities(pem: &str) -> Result<Vec<Certificate>, PolicyError> {
    if pem.trim().is_empty() {
        return Ok(Vec::new());
    }
    let wrong = |error: String| PolicyError::new(format!("ca: {error}"));
    muster_pki::pem::certificates(pem.as_bytes(), "the bundle")
        .map_err(|error| wrong(error.to_string()))?
        .iter()
        .map(|der| Certificate::from_der(der).map_err(|error| wrong(error.to_string())))
        .collect()
}
