//! Asking for licences, and issuing them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_pki::{Certificate, Facts, Role, Roots, Thumbprint, UnixTime, pem};
use muster_signing::envelope::{self, ContentType, Signer};
use muster_signing::licence::{Licence, LicenceRequest, Terms, VerifiedRequest};

use crate::{ToolError, check_publisher, check_signer};

/// How long before `now` a licence begins: machines whose clocks are behind accept it at once.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

const DAY_SECONDS: u64 = 86_400;

/// What a licence is to say.
#[derive(Debug, Clone)]
pub struct NewLicence {
    /// Whom it is for, in words.
    pub licensee: String,
    /// The organisation whose devices follow it.
    pub tenant: String,
    /// Greater than that of every licence before it.
    pub serial: u64,
    /// Days from now on; after five sixths of them a newer one should have come.
    pub valid_days: u64,
    /// Prefix and PEM of a signer's certificate, the first of the file; a prefix may stand there several times.
    pub prefixes: Vec<(String, Vec<u8>)>,
}

/// Issues and signs a licence.
///
/// # Errors
/// A certificate cannot be read, the terms do not hold together, or the signer is none that clients accept, such as one
/// of the publishers.
pub fn issue_licence(new: &NewLicence, signer: &Signer, now: UnixTime) -> Result<Vec<u8>, ToolError> {
    check_signer(signer, now)?;
    let mut prefixes: BTreeMap<String, BTreeSet<Thumbprint>> = BTreeMap::new();
    for (prefix, certificate_pem) in &new.prefixes {
        let thumbprint = thumbprint(certificate_pem)
            .map_err(|problem| ToolError::PrefixCertificate { prefix: prefix.clone(), problem })?;
        // Roles have roots of their own (DESIGN.md, "Contracts"): who publishes does not license.
        if let Some(own) = signer.certificate().filter(|own| own.thumbprint() == thumbprint) {
            let (subject, prefix) = (own.subject().to_owned(), prefix.clone());
            return Err(ToolError::SignerIsPublisher { subject, prefix });
        }
        prefixes.entry(prefix.clone()).or_default().insert(thumbprint);
    }
    let at = |seconds: u64| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let validity = new.valid_days.saturating_mul(DAY_SECONDS);
    let licence = Licence::new(Terms {
        serial: new.serial,
        licensee: new.licensee.clone(),
        tenant: new.tenant.clone(),
        not_before: at(now.as_secs().saturating_sub(BACKDATED.as_secs())),
        not_after: at(now.as_secs().saturating_add(validity)),
        refresh_by: Some(at(now.as_secs().saturating_add(validity / 6 * 5))),
        features: BTreeSet::new(),
        prefixes,
        minimum_versions: BTreeMap::new(),
        distrusted: BTreeMap::new(),
    })?;
    Ok(envelope::sign(licence.to_text()?.as_bytes(), ContentType::Licence, signer, now)?)
}

/// Makes a publisher's request for a licence: prefixes, and the certificate of the key that signs it. It holds no key.
///
/// # Errors
/// The request asks for what no licence can hold, or the signer is none that clients would accept as a publisher.
pub fn request_licence(
    request: LicenceRequest,
    signer: &Signer,
    now: UnixTime,
) -> Result<Vec<u8>, ToolError> {
    check_signer(signer, now)?;
    Ok(request.sign(signer, now)?)
}

/// Verifies a publisher's request: whoever made it has the key of the certificate in it. Whose that is, the licensor must know: from
/// `authors`, the roots of publishers, or by asking for its thumbprint on another way.
///
/// # Errors
/// The request was changed, was not made with the key, or its certificate can be no publisher's.
pub fn verify_request(
    envelope: &[u8],
    authors: Option<&Roots>,
    now: UnixTime,
) -> Result<VerifiedRequest, ToolError> {
    let verified = LicenceRequest::verify(envelope, now)?;
    check_publisher(&verified.signer, now)?;
    if let Some(authors) = authors {
        let chain = std::iter::once(&verified.signer).chain(&verified.authorities);
        let chain: Vec<_> = chain.map(|element| element.certificate_der().clone()).collect();
        let judged = muster_pki::check(Role::Author, &chain, authors, &Facts::at(now)).into_result();
        judged.map_err(|refused| ToolError::SignerRole {
            subject: verified.signer.subject().to_owned(),
            wanted: Role::Author,
            found: refused.to_string(),
        })?;
    }
    Ok(verified)
}

fn thumbprint(certificate_pem: &[u8]) -> Result<Thumbprint, String> {
    let certificates =
        pem::certificates(certificate_pem, "certificate").map_err(|error| error.to_string())?;
    let first = certificates.first().ok_or_else(|| "no certificate".to_owned())?;
    Certificate::from_der(first)
        .map(|certificate| certificate.thumbprint())
        .map_err(|error| error.to_string())
}
