//! The client policy: where a fleet's clients connect and whom they trust there (trust.md, K1–K2), a signed TOML document.
//!
//! The Switch carries policies and signs none. A serial never goes back; who keeps the highest one is the caller, as is what
//! becomes of a policy that does not work out (K4). A key that this version does not know makes it no policy: a client must
//! not follow half of what its administrators wrote. It may name the version that knows all of them.

mod document;
mod grants;
mod order_key;

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_pki::select::Selection;
use muster_pki::text::is_misleading;
use muster_pki::trust_store::TrustSettings;
use muster_pki::{Certificate, Facts, Role};
use muster_proto::common::v1::Value;

pub use self::grants::{GRANTED_MAX, Grants, NotGranted, TABLES};
pub use self::order_key::OrderKey;
use crate::audience::{self, Expression};
use crate::envelope::{self, Anchors, ContentType, EnvelopeError};
use crate::hidden;

/// Largest policy text in bytes: addresses, and a bundle of a few dozen CAs.
pub const TEXT_BYTES_MAX: usize = 192 * 1024;

/// Most addresses of Switches.
pub const SWITCHES_MAX: usize = 16;

/// Longest address in bytes.
pub const URL_BYTES_MAX: usize = 2_048;

/// Longest sentence for people in bytes.
const SAYS_BYTES_MAX: usize = 1_024;

/// A checked policy. Clones share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy(Arc<Terms>);

/// What a policy says. What it leaves out stays as it was installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Grows with each policy of a tenant, from 1.
    pub serial: u64,
    /// The organisation whose devices follow it.
    pub tenant: String,
    /// What it is for, in words.
    pub says: String,
    /// The devices that follow it; none: all of the tenant. One device is the usual first one (T12).
    pub audience: Option<Expression>,
    /// The Switches' session endpoints, `wss://…`, the preferred one first; empty: as installed.
    pub switches: Vec<String>,
    /// The Background Channel's base, `https://…`; none: as installed.
    pub background_channel: Option<String>,
    /// CAs of the Switch's and the Background Channel's certificates, which count beside those at hand (T1).
    pub authorities: Vec<Certificate>,
    /// How servers are verified (T9); none: as installed.
    pub trust: Option<TrustSettings>,
    /// Which certificate is taken from the device's store (S1); none: as installed.
    pub selection: Option<Selection>,
    /// What may run and be read on the device.
    pub grants: Grants,
    /// The Switch's own key, and what it may sign orders for; none: nothing.
    pub order_key: Option<OrderKey>,
}

impl Policy {
    /// Reads and checks a policy's text.
    ///
    /// # Errors
    /// What is wrong, and what would do.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(PolicyError::new(format!("{} bytes; wanted at most {TEXT_BYTES_MAX}", text.len())));
        }
        if let Some(c) = hidden::in_document(text) {
            return Err(PolicyError::new(format!("{}; remove it", hidden::told(c))));
        }
        Self::new(document::read(text)?)
    }

    /// Makes a policy of its terms.
    ///
    /// # Errors
    /// What is wrong with the terms.
    pub fn new(terms: Terms) -> Result<Self, PolicyError> {
        check(&terms)?;
        Ok(Self(Arc::new(terms)))
    }

    /// Verifies an envelope with the roots of the policies' administrators and of timestamps, and reads the policy in it.
    ///
    /// # Errors
    /// Its signature or signer will not do, or what they signed is no policy.
    pub fn open(envelope: &[u8], anchors: &Anchors<'_>, facts: &Facts<'_>) -> Result<Self, OpenError> {
        let verified = envelope::verify(envelope, ContentType::Policy, Role::Policy, anchors, facts)?;
        let text = String::from_utf8(verified.content).map_err(|_| PolicyError::new("it is not UTF-8"))?;
        Ok(Self::parse(&text)?)
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

    /// Returns whether a device of that organisation, with these attributes, follows it; one without a certificate only where
    /// the audience asks for such devices (C1).
    #[must_use]
    pub fn is_for(&self, tenant: &str, attributes: &BTreeMap<String, Value>) -> bool {
        self.0.tenant == tenant && audience::holds(self.0.audience.as_ref(), attributes)
    }
}

/// Why a text is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy: {0}")]
pub struct PolicyError(String);

impl PolicyError {
    fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}

/// Why an envelope is no policy of the administrators.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Form, signature or signer.
    #[error("policy: {0}")]
    Envelope(#[from] EnvelopeError),
    /// What they signed.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

impl OpenError {
    /// Returns whether nothing is wrong but that the signer's issuer has no fresh CRL, as [`EnvelopeError::lacks_only_a_crl`].
    #[must_use]
    pub fn lacks_only_a_crl(&self) -> bool {
        match self {
            Self::Envelope(error) => error.lacks_only_a_crl(),
            Self::Policy(_) => false,
        }
    }
}

fn check(terms: &Terms) -> Result<(), PolicyError> {
    let is_text = |text: &str, max: usize| text.len() <= max && !text.chars().any(is_misleading);
    if terms.serial == 0 {
        return Err(PolicyError::new("serial is 0; wanted 1 or more"));
    }
    if terms.tenant.is_empty() || !is_text(&terms.tenant, crate::order::TENANT_BYTES_MAX) {
        return Err(PolicyError::new(format!("tenant is {:?}; wanted 1 to 64 bytes", terms.tenant)));
    }
    if !is_text(&terms.says, SAYS_BYTES_MAX) {
        return Err(PolicyError::new(format!(
            "says: wanted at most {SAYS_BYTES_MAX} bytes on one line, none of them hidden"
        )));
    }
    if terms.switches.len() > SWITCHES_MAX {
        let got = terms.switches.len();
        return Err(PolicyError::new(format!("switch has {got} addresses; wanted at most {SWITCHES_MAX}")));
    }
    terms.grants.check()?;
    terms.switches.iter().try_for_each(|url| check_url("switch", url, "wss://"))?;
    terms.background_channel.iter().try_for_each(|url| check_url("background_channel", url, "https://"))
}

fn check_url(key: &str, url: &str, scheme: &str) -> Result<(), PolicyError> {
    let is_url = url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty());
    if is_url && url.len() <= URL_BYTES_MAX && url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(PolicyError::new(format!("{key} is {url:?}; wanted {scheme}HOST…, at most {URL_BYTES_MAX} bytes")))
}

#[cfg(test)]
mod tests;
