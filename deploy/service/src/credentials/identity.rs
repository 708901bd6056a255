//! Our own certificate and key, checked before use.

use std::sync::Arc;
use std::time::Duration;

use muster_pki::{
    Certificate, CertificateDer, Facts, Refused, Role, Roots, Rule, Severity, UnixTime, Verdict, check_with,
    pem,
};
use rustls::sign::CertifiedKey;

use super::error::CredentialError;
use super::provider::provider;
use super::{CredentialFiles, EXPIRY_WARNING, POLICY};

/// A validated certificate with its chain and key.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) certificate: Certificate,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) certified: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads and checks certificate and key; the key must fit.
    pub(super) fn new(
        files: &CredentialFiles,
        certificate: &[u8],
        key: &[u8],
        role: Role,
        now: UnixTime,
    ) -> Result<Self, CredentialError> {
        let chain = pem::certificates(certificate, &files.certificate.display().to_string())?;
        let key = pem::private_key(key, &files.key.display().to_string())?;
        let certificate = check_own(&chain, role, now).map_err(|refused| {
            CredentialError::OwnCertificate { path: files.certificate.clone(), role, refused }
        })?;
        let certified = CertifiedKey::from_der(chain.clone(), key, &provider()).map_err(|error| {
            CredentialError::Key {
                certificate: files.certificate.clone(),
                key: files.key.clone(),
                problem: error.to_string(),
            }
        })?;
        Ok(Self { certificate, chain, certified: Arc::new(certified) })
    }

    /// Returns what an operator should know about the validity, if anything.
    pub(super) fn expiry_warning(&self, now: UnixTime) -> Option<String> {
        let left = self.certificate.not_after().as_secs().saturating_sub(now.as_secs());
        let subject = self.certificate.subject();
        if left == 0 {
            Some(format!("certificate {subject} expired; renew it"))
        } else if left <= EXPIRY_WARNING.as_secs() {
            let days = left / Duration::from_secs(24 * 60 * 60).as_secs();
            Some(format!("certificate {subject} expires in {days} days; renew it"))
        } else {
            None
        }
    }
}

/// Applies every rule that needs no root of ours: peers know the root, our own configuration need not.
///
/// The CAs of the file stand in for the root. Without any CA in the file the path (C2) is for the peers to judge.
fn check_own(chain: &[CertificateDer<'static>], role: Role, now: UnixTime) -> Result<Certificate, Refused> {
    let issuers: Vec<Certificate> =
        chain.iter().skip(1).filter_map(|der| Certificate::from_der(der).ok()).collect();
    let has_issuer = !issuers.is_empty();
    let roots = Roots::from_certificates(issuers).unwrap_or_default();
    let verdict = check_with(&POLICY, role, chain, &roots, &Facts::at(now));
    if !has_issuer
        && only_the_path_is_missing(&verdict)
        && let Some(leaf) = verdict.leaf()
    {
        return Ok(leaf.clone());
    }
    verdict.into_result()
}

fn only_the_path_is_missing(verdict: &Verdict) -> bool {
    let mut refusals = verdict.findings().iter().filter(|finding| finding.severity == Severity::Refusal);
    refusals.all(|finding| finding.rule == Rule::C2)
}
