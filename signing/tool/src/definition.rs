//! Signing and verifying definitions.

use muster_pki::{Certificate, Facts, RevocationIndex, Role, Roots, UnixTime};
use muster_signing::definition::Definition;
use muster_signing::envelope::{self, Anchors, ContentType, Signer};
use muster_signing::licence::{Licence, LicenceRefusal};

use crate::{ToolError, check_signer};

/// Checks an authored text and signs it; the envelope holds the text as it is.
///
/// # Errors
/// The text is no definition, with the line of its first problem; or the signer is none that clients accept.
pub fn sign_definition(text: &str, signer: &Signer, now: UnixTime) -> Result<Vec<u8>, ToolError> {
    Definition::parse(text)?;
    check_signer(signer, now)?;
    Ok(envelope::sign(text.as_bytes(), ContentType::Definition, signer, now)?)
}

/// By what a definition is judged.
#[derive(Debug, Clone, Copy)]
pub struct Trust<'a> {
    /// Roots of authors.
    pub authors: &'a Roots,
    /// Roots of licensors.
    pub licences: &'a Roots,
    /// Roots of timestamp authorities; `None`: a timestamp is refused.
    pub timestamps: Option<&'a Roots>,
    /// Who is revoked.
    pub revocation: Option<&'a RevocationIndex>,
    /// The licence's envelope, if there is one.
    pub licence: Option<&'a [u8]>,
}

impl<'a> Trust<'a> {
    const fn anchors(&self, signers: &'a Roots) -> Anchors<'a> {
        Anchors { signers, timestamps: self.timestamps }
    }
}

/// A definition whose signature holds.
#[derive(Debug, Clone)]
pub struct VerifiedDefinition {
    /// The definition.
    pub definition: Definition,
    /// The text that was signed.
    pub text: String,
    /// Who signed it.
    pub signer: Certificate,
    /// When, by the signer's own clock.
    pub signing_time: UnixTime,
    /// When at the latest, by a timestamp.
    pub stamped_at: Option<UnixTime>,
    /// Whether it may be issued.
    pub licensed: Licensed,
}

/// Whether a definition may be issued (G1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Licensed {
    /// The licence with this serial binds its prefix to its signer.
    Yes {
        /// The licence's serial.
        serial: u64,
    },
    /// It can be imported, and not issued.
    No(String),
    /// There is no licence to look in.
    Unknown,
}

/// Verifies a definition as a Switch does when it is imported, and looks its prefix up in the licence.
///
/// # Errors
/// The signature does not hold, the signer is not trusted, or the text is no definition.
pub fn verify_definition(
    envelope: &[u8],
    trust: &Trust<'_>,
    now: UnixTime,
) -> Result<VerifiedDefinition, ToolError> {
    let facts = Facts { revocation: trust.revocation, ..Facts::at(now) };
    let verified = envelope::verify(
        envelope,
        ContentType::Definition,
        Role::Author,
        &trust.anchors(trust.authors),
        &facts,
    )?;
    let text = String::from_utf8(verified.content).map_err(|_| ToolError::NotText)?;
    let definition = Definition::parse(&text)?;
    let Some(signer) = verified.signers.into_iter().next() else { return Err(ToolError::NotText) };
    let licensed = match trust.licence.map(|envelope| licence(envelope, trust, &facts)) {
        Some(Ok(licence)) => licensed(&licence, &definition, &signer, verified.stamped_at),
        Some(Err(problem)) => Licensed::No(problem),
        None => Licensed::Unknown,
    };
    let (signing_time, stamped_at) = (verified.signing_time, verified.stamped_at);
    Ok(VerifiedDefinition { definition, text, signer, signing_time, stamped_at, licensed })
}

fn licence(envelope: &[u8], trust: &Trust<'_>, facts: &Facts<'_>) -> Result<Licence, String> {
    let anchors = trust.anchors(trust.licences);
    let verified = envelope::verify(envelope, ContentType::Licence, Role::Licensor, &anchors, facts)
        .map_err(|error| format!("the licence is refused: {error}"))?;
    let text = String::from_utf8(verified.content).map_err(|_| "the licence is not UTF-8".to_owned())?;
    let licence = Licence::parse(&text).map_err(|error| error.to_string())?;
    if licence.is_valid_at(facts.now) {
        Ok(licence)
    } else {
        Err(format!("licence {} is not valid now", licence.serial()))
    }
}

fn licensed(
    licence: &Licence,
    definition: &Definition,
    signer: &Certificate,
    stamped_at: Option<UnixTime>,
) -> Licensed {
    let admitted: Result<(), LicenceRefusal> =
        licence.admits(definition.name(), definition.version(), &signer.thumbprint(), stamped_at);
    match admitted {
        Ok(()) => Licensed::Yes { serial: licence.serial() },
        Err(refusal) => Licensed::No(refusal.to_string()),
    }
}
