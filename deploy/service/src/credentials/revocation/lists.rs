//! The CRLs of one file.

use std::path::Path;

use muster_pki::{Certificate, CrlError, Loaded, RevocationIndex, UnixTime, pem};

use super::issuers::{self, Issuers};
use super::kept::Kept;
use crate::credentials::error::CredentialError;
use crate::credentials::files::{FileBytes, bytes_of};

/// Verifies the CRLs of one file and adds them. Each stands alone: one that is refused does not keep the others out.
pub(super) fn load_file(
    index: &mut RevocationIndex,
    issuers: &Issuers,
    kept: &mut Kept,
    (path, bytes): (&Path, &FileBytes),
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
        let (more, error) = load_list(index, kept, list, &candidates, now);
        loaded.extend(more);
        errors.extend(error.map(refused));
    }
    for crl in &loaded {
        for warning in &crl.warnings {
            tracing::warn!(file = %path.display(), issuer = crl.issuer, %warning, "a CRL with a flaw");
        }
    }
    (loaded, CredentialError::of_all(errors))
}

/// Verifies one CRL and adds it, and keeps it over a restart; unless a newer one of its scope was kept: that one counts then (R5).
fn load_list(
    index: &mut RevocationIndex,
    kept: &mut Kept,
    list: &[u8],
    candidates: &[Certificate],
    now: UnixTime,
) -> (Vec<Loaded>, Option<CrlError>) {
    let loaded = match index.load(list, candidates, now) {
        Ok(loaded) => loaded,
        Err(error) => return (Vec::new(), Some(error)),
    };
    for crl in &loaded {
        let Some(before) = kept.list_to_compare(crl.scope).filter(|before| before.as_slice() != list) else {
            continue;
        };
        // One that is damaged, or older, does not load. Of the same age as this one, it is followed by this one.
        if let Ok(newer) = index.load(&before, candidates, now)
            && let Err(error) = index.load(list, candidates, now)
        {
            return (newer, Some(error));
        }
    }
    loaded.iter().for_each(|crl| kept.put_list(crl.scope, list));
    (loaded, None)
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
