//! Our own certificate and key, checked before use.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use muster_pki::{Certificate, Format, IdentityFiles, NamedBytes, UnixTime};
use rustls::sign::CertifiedKey;

use super::error::CredentialError;
use super::files::{FileBytes, bytes_of};
use super::judge::Judge;
use super::provider::provider;
use super::store::password_of;
use super::{CredentialFiles, EXPIRY_WARNING};

/// Our own files, and their bytes.
pub(super) struct OwnFiles<'a> {
    pub(super) files: &'a CredentialFiles,
    pub(super) certificate: &'a FileBytes,
    pub(super) key: &'a FileBytes,
    pub(super) password: Option<&'a FileBytes>,
}

/// A validated certificate with its chain and key.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) certificate: Certificate,
    pub(super) certified: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads and checks certificate and key, PEM or PFX; the key must fit (C5).
    pub(super) fn new(own: &OwnFiles<'_>, judge: &Judge) -> Result<Self, CredentialError> {
        let files = own.files;
        let certificate = bytes_of(&files.certificate, own.certificate)?;
        // A PFX has its key in it.
        let is_pfx = Format::of(certificate) == Format::Pfx;
        let key = if is_pfx { None } else { Some(bytes_of(&files.key, own.key)?) };
        let password = match (&files.password_file, own.password) {
            (Some(path), Some(bytes)) => Some(password_of(path, bytes_of(path, bytes)?)?),
            (Some(_) | None, _) => None,
        };
        let (certificate_name, key_name) =
            (files.certificate.display().to_string(), files.key.display().to_string());
        let read = muster_pki::Identity::read(&IdentityFiles {
            certificate: NamedBytes { what: &certificate_name, bytes: certificate },
            key: key.map(|bytes| NamedBytes { what: &key_name, bytes }),
            password,
        })?;
        Self::of(read, &files.certificate, &files.key, judge)
    }

    /// Checks an identity; `certificate_file` and `key_file` are where it was read from.
    pub(super) fn of(
        read: muster_pki::Identity,
        certificate_file: &Path,
        key_file: &Path,
        judge: &Judge,
    ) -> Result<Self, CredentialError> {
        for skipped in read.skipped() {
            tracing::warn!(file = %certificate_file.display(), skipped, "a block of our own certificate's file is left out");
        }
        let (chain, key) = read.into_parts();
        let certificate = judge.check(&chain).map_err(|refused| CredentialError::OwnCertificate {
            path: certificate_file.to_owned(),
            role: judge.role(),
            refused,
        })?;
        if let Some(other) = judge.other_device(&certificate) {
            let path = certificate_file.to_owned();
            return Err(CredentialError::OtherDevice { path, other: Box::new(other) });
        }
        let certified =
            CertifiedKey::from_der(chain, key, &provider()).map_err(|error| CredentialError::Key {
                certificate: certificate_file.to_owned(),
                key: key_file.to_owned(),
                problem: error.to_string(),
            })?;
        Ok(Self { certificate, certified: Arc::new(certified) })
    }

    /// Returns what an operator should know about the validity of the certificate, and of the CAs that are sent with it.
    pub(super) fn expiry_warnings(&self, now: UnixTime) -> Vec<String> {
        let above = self.certified.cert.iter().skip(1).filter_map(|der| Certificate::from_der(der).ok());
        let above = above.filter_map(|certificate| expiry_warning("CA", &certificate, now));
        expiry_warning("certificate", &self.certificate, now).into_iter().chain(above).collect()
    }
}

/// Returns what to say of a certificate that ended, or is about to (N3).
pub(super) fn expiry_warning(what: &str, certificate: &Certificate, now: UnixTime) -> Option<String> {
    let left = certificate.not_after().as_secs().saturating_sub(now.as_secs());
    let subject = certificate.subject();
    if left == 0 {
        Some(format!("{what} {subject} expired; renew it"))
    } else if left <= EXPIRY_WARNING.as_secs() {
        let days = left / Duration::from_secs(24 * 60 * 60).as_secs();
        Some(format!("{what} {subject} expires in {days} days; renew it"))
    } else {
        None
    }
}
