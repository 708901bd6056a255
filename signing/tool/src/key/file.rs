//! Keys in files: PEM, encrypted or not, and PFX (PKCS#12).

use std::path::Path;

use muster_pki::{Certificate, Format, Identity, IdentityError, IdentityFiles, NamedBytes, pem, pfx};
use muster_signing::envelope::Signer;
use zeroize::Zeroizing;

use super::error::KeyError;
use super::{SignerSource, secret};
use crate::{FileKind, read_file};

/// Makes a signer of a key's file and, where that has no certificate, of the certificate's.
pub(super) fn open(key: &Path, source: &SignerSource) -> Result<Signer, KeyError> {
    let bytes = Zeroizing::new(read_file(key, FileKind::KEY)?);
    let chain = source
        .certificate
        .as_deref()
        .map(|path| Ok::<_, KeyError>((path, read_file(path, FileKind::KEY)?)))
        .transpose()?;
    let certificate = chain.as_ref().map(|(path, bytes)| (*path, &bytes[..]));
    let given = secret::given(source.password_file.as_deref())?;
    match attempt(key, &bytes, certificate, given.as_ref().map(|text| text.as_str())) {
        // What needs no password is not asked for one.
        Err(error) if given.is_none() && error.wants_password() => {
            let asked = secret::ask(&format!("the password of {}", key.display()))?;
            attempt(key, &bytes, certificate, Some(&asked))
        }
        opened => opened,
    }
}

fn attempt(
    key: &Path,
    bytes: &[u8],
    certificate: Option<(&Path, &[u8])>,
    password: Option<&str>,
) -> Result<Signer, KeyError> {
    let name = key.display().to_string();
    let identity = match (Format::of(bytes), certificate) {
        (Format::Pfx, Some((path, chain))) => {
            return pfx_and_certificate(&name, bytes, path, chain, password);
        }
        (_, Some((path, chain))) => {
            let what = path.display().to_string();
            let certificate = NamedBytes { what: &what, bytes: chain };
            let key = Some(NamedBytes { what: &name, bytes });
            Identity::read(&IdentityFiles { certificate, key, password })?
        }
        (_, None) => {
            let certificate = NamedBytes { what: &name, bytes };
            match Identity::read(&IdentityFiles { certificate, key: None, password }) {
                Err(IdentityError::NoCertificate { .. }) => {
                    return Err(KeyError::NoCertificate { key: name });
                }
                read => read?,
            }
        }
    };
    let chain = std::iter::once(identity.leaf()).chain(identity.authorities()).cloned();
    Signer::new(chain, identity.key()).map_err(|problem| KeyError::Unfit { key: name, problem })
}

/// The key of a PFX under another certificate than the one that was exported with it, such as its renewed one.
fn pfx_and_certificate(
    name: &str,
    bytes: &[u8],
    path: &Path,
    chain: &[u8],
    password: Option<&str>,
) -> Result<Signer, KeyError> {
    let contents = pfx::read(bytes, password, name)?;
    let [key] = &contents.keys[..] else {
        return Err(KeyError::PfxKeys { key: name.to_owned(), count: contents.keys.len() });
    };
    Signer::new(certificates(path, chain)?, key)
        .map_err(|problem| KeyError::Unfit { key: name.to_owned(), problem })
}

/// Reads a file of certificates, the signer's own first.
pub(super) fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<Certificate>, KeyError> {
    let name = path.display().to_string();
    let read = pem::certificates(bytes, &name)?;
    let parsed: Result<Vec<_>, _> = read.iter().map(|der| Certificate::from_der(der)).collect();
    parsed.map_err(|error| KeyError::Certificate { certificate: name, problem: error.to_string() })
}
