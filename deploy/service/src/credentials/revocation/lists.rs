//! The CRLs of one file.

use std::path::Path;

use muster_pki::{CrlError, Loaded, RevocationIndex, UnixTime, pem};

use super::issuers::{self, Issuers};
use crate::credentials::error::CredentialError;
use crate::credentials::files::{FileBytes, bytes_of};

/// Verifies the CRLs of one file and adds them. Each stands alone: one that is refused does not keep the others out.
pub(super) fn load_file(
    index: &mut RevocationIndex,
    issuers: &Issuers,
    path: &Path,
    bytes: &FileBytes,
    now: UnixTime,
) -> (Vec<Loaded>, Option<CredentialError>) {
    let refused = |source| CredentialError::Crl { path: path.to_owned(), source };
    let lists = bytes_of(path, bytes).and_then(|bytes| Ok((bytes, one_by_one(bytes).map_err(refused)?)));
    let (bytes, lists) = match lists {
        Ok(read) => read,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let candidates = issuers.candidates(&issuers::certificates_beside(bytes), now);
    let (mut loaded, mut errors) = (Vec::new(), Vec::new());
    for list in &lists {
        match index.load(list, &candidates, now) {
            Ok(more) => loaded.extend(more),
            Err(source) => errors.push(refused(source)),
        }
    }
    for crl in &loaded {
        for warning in &crl.warnings {
            tracing::warn!(file = %path.display(), issuer = crl.issuer, %warning, "a CRL with a flaw");
        }
    }
    (loaded, CredentialError::of_all(errors))
}

/// Returns the CRLs of a file, as DER.
fn one_by_one(bytes: &[u8]) -> Result<Vec<Vec<u8>>, CrlError> {
    /// DER begins with a sequence; PEM does not.
    const SEQUENCE: u8 = 0x30;
    if bytes.first() == Some(&SEQUENCE) {
        return Ok(vec![bytes.to_vec()]);
    }
    Ok(pem::crls(bytes, "CRL")?.iter().map(|der| der.to_vec()).collect())
}
