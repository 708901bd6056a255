//! Asking for licences, and issuing them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_pki::{Certificate, Facts, Role, Roots, Thumbprint, UnixTime, pem};
use muster_signing::definition::DefinitionName;
use muster_signing::envelope::{self, Anchors, ContentType, Signer};
use muster_signing::licence::{Licence, LicenceRequest, Terms, VerifiedRequest};

use crate::{ToolError, check_publisher, check_signer};

/// How long before `now` a licence begins: machines whose clocks are behind accept it at once.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

const DAY_SECONDS: u64 = 86_400;

/// When a newer licence should have come, where nobody says it: whoever keeps it away does so for a month at most before Switch and clients alarm.
const REFRESH_SECONDS_MAX: u64 = 30 * DAY_SECONDS;

/// What a licence is to say.
#[derive(Debug, Clone, Default)]
pub struct NewLicence {
    /// Whom it is for, in words.
    pub licensee: String,
    /// The organisation whose devices follow it.
    pub tenant: String,
    /// Greater than that of every licence before it.
    pub serial: u64,
    /// Days from now on.
    pub valid_days: u64,
    /// Days from now on until a newer one should have come, at most `valid_days`; `None`: five sixths of those, and at most 30.
    pub refresh_days: Option<u64>,
    /// Prefix and PEM of a signer's certificate, the first of the file; a prefix may stand there several times.
    pub prefixes: Vec<(String, Vec<u8>)>,
    /// Prefixes and signers beside those, such as a former licence's.
    pub signers: BTreeMap<String, BTreeSet<Thumbprint>>,
    /// What else is licensed, by name.
    pub features: BTreeSet<String>,
    /// The lowest version of a definition that may be issued.
    pub minimum_versions: BTreeMap<DefinitionName, semver::Version>,
    /// Signers whose definitions count only with a timestamp up to this moment.
    pub distrusted: BTreeMap<Thumbprint, UnixTime>,
}

impl NewLicence {
    /// Returns what follows a former licence: the same terms, under the next serial.
    #[must_use]
    pub fn after(former: &Licence, valid_days: u64) -> Self {
        let terms = former.terms().clone();
        Self {
            licensee: terms.licensee,
            tenant: terms.tenant,
            serial: terms.serial.saturating_add(1),
            valid_days,
            refresh_days: None,
            prefixes: Vec::new(),
            signers: terms.prefixes,
            features: terms.features,
            minimum_versions: terms.minimum_versions,
            distrusted: terms.distrusted,
        }
    }

    /// Takes a prefix of a former licence away, with all its signers.
    ///
    /// # Errors
    /// The former licence does not have it: a typing error would leave it licensed.
    pub fn withdraw_prefix(&mut self, prefix: &str) -> Result<(), ToolError> {
        match self.signers.remove(prefix) {
            Some(_) => Ok(()),
            None => Err(ToolError::PrefixNotLicensed {
                prefix: prefix.to_owned(),
                licensed: self.signers.keys().cloned().collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// Takes a signer of a former licence away, from each prefix; one that nobody may sign under then needs another, or must go, too.
    ///
    /// # Errors
    /// No prefix of the former licence has it.
    pub fn withdraw_signer(&mut self, signer: &Thumbprint) -> Result<(), ToolError> {
        let count = self.signers.values_mut().filter_map(|signers| signers.take(signer)).count();
        match count {
            0 => Err(ToolError::SignerNotLicensed { signer: *signer }),
            _ => Ok(()),
        }
    }

    /// When a newer one should have come, in seconds from now on.
    fn refresh_seconds(&self) -> Result<u64, ToolError> {
        let validity = self.valid_days.saturating_mul(DAY_SECONDS);
        match self.refresh_days {
            Some(refresh) if refresh > self.valid_days => {
                Err(ToolError::RefreshAfterEnd { refresh, valid: self.valid_days })
            }
            Some(refresh) => Ok(refresh.saturating_mul(DAY_SECONDS)),
            None => Ok((validity / 6 * 5).min(REFRESH_SECONDS_MAX)),
        }
    }
}

/// Issues and signs a licence.
///
/// # Errors
/// A certificate cannot be read, the terms do not hold together, or the signer is none that clients accept, such as one
/// of the publishers.
pub fn issue_licence(new: &NewLicence, signer: &Signer, now: UnixTime) -> Result<Vec<u8>, ToolError> {
    check_signer(signer, now)?;
    let mut prefixes = new.signers.clone();
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
    if let Some((prefix, _)) = prefixes.iter().find(|(_, signers)| signers.is_empty()) {
        return Err(ToolError::PrefixWithoutSigner { prefix: prefix.clone() });
    }
    let at = |seconds: u64| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let validity = new.valid_days.saturating_mul(DAY_SECONDS);
    let licence = Licence::new(Terms {
        serial: new.serial,
        licensee: new.licensee.clone(),
        tenant: new.tenant.clone(),
        not_before: at(now.as_secs().saturating_sub(BACKDATED.as_secs())),
        not_after: at(now.as_secs().saturating_add(validity)),
        refresh_by: Some(at(now.as_secs().saturating_add(new.refresh_seconds()?))),
        features: new.features.clone(),
        prefixes,
        minimum_versions: new.minimum_versions.clone(),
        distrusted: new.distrusted.clone(),
    })?;
    Ok(envelope::sign(licence.to_text()?.as_bytes(), ContentType::Licence, signer, now)?)
}

/// Verifies a licence as a Switch and its clients do, but for its validity: an ended one can be renewed while its signer's certificate lasts.
///
/// # Errors
/// The signature does not hold, the signer is no licensor by `roots`, or the text is no licence.
pub fn verify_licence(envelope: &[u8], roots: &Roots, now: UnixTime) -> Result<Licence, ToolError> {
    let anchors = Anchors { signers: roots, timestamps: None };
    let verified =
        envelope::verify(envelope, ContentType::Licence, Role::Licensor, &anchors, &Facts::at(now))?;
    let text = String::from_utf8(verified.content).map_err(|_| ToolError::NotText)?;
    Ok(Licence::parse(&text)?)
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

/// Returns the thumbprint of the first certificate of a PEM file.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn thumbprint(certificate_pem: &[u8]) -> Result<Thumbprint, String> {
    let certificates =
        pem::certificates(certificate_pem, "certificate").map_err(|error| error.to_string())?;
    let first = certificates.first().ok_or_else(|| "no certificate".to_owned())?;
    Certificate::from_der(first)
        .map(|certificate| certificate.thumbprint())
        .map_err(|error| error.to_string())
}
