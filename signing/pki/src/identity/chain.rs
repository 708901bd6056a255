//! Which certificate is the key's, and which CAs stand above it.

use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::PrivateKeyDer;

use super::IdentityError;
use crate::certificate::{Certificate, may_have_signed};
use crate::check::CHAIN_CERTIFICATES_MAX;

/// The certificates of the files, put in order.
pub(super) struct Ordered {
    /// The key's.
    pub(super) leaf: Certificate,
    /// Those above it, nearest first, without a root.
    pub(super) authorities: Vec<Certificate>,
    /// All others.
    pub(super) unused: Vec<Certificate>,
}

/// Finds the certificate of the key and what stands above it.
pub(super) fn order(
    key: &PrivateKeyDer<'static>,
    certificates: Vec<Certificate>,
    what: &str,
    key_file: &str,
) -> Result<Ordered, IdentityError> {
    let public = public_key(key, key_file)?;
    let owned = certificates.iter().filter(|certificate| has_key(certificate, &public));
    // Of two for one key, the one that is valid longer: it is the renewed one. The first of equals stays.
    let leaf = owned.reduce(|best, other| if other.not_after() > best.not_after() { other } else { best });
    let Some(leaf) = leaf.cloned() else {
        // Three names are enough to see whether it is the wrong file.
        let subjects: Vec<&str> = certificates.iter().take(3).map(Certificate::subject).collect();
        let (key, what, subjects) = (key_file.to_owned(), what.to_owned(), subjects.join(" | "));
        return Err(IdentityError::KeyMismatch { key, what, subjects });
    };
    let authorities = above(&leaf, &certificates);
    if authorities.len() >= CHAIN_CERTIFICATES_MAX {
        return Err(IdentityError::LongChain { what: what.to_owned() });
    }
    let is_unused = |one: &Certificate| *one != leaf && !authorities.contains(one);
    let unused = certificates.into_iter().filter(is_unused).collect();
    Ok(Ordered { leaf, authorities, unused })
}

/// Returns the CAs above `leaf`; one too many where there are more than a peer accepts.
pub(super) fn above(leaf: &Certificate, certificates: &[Certificate]) -> Vec<Certificate> {
    let mut found: Vec<Certificate> = Vec::new();
    let mut below = leaf.clone();
    for next in 0..CHAIN_CERTIFICATES_MAX {
        for authority in certificates.iter().filter(|authority| !authority.is_self_signed()) {
            // Several hold where CAs are cross-signed; the peer needs one that leads to a root of its own.
            let is_new = authority != leaf && !found.contains(authority);
            if is_new && found.len() < CHAIN_CERTIFICATES_MAX && may_have_issued(authority, &below) {
                found.push(authority.clone());
            }
        }
        let Some(authority) = found.get(next) else { break };
        below = authority.clone();
    }
    found
}

/// Returns the bits of the public key, as they stand in a certificate.
fn public_key(key: &PrivateKeyDer<'static>, what: &str) -> Result<Vec<u8>, IdentityError> {
    let pair = KeyPair::try_from(key)
        .map_err(|error| IdentityError::KeyUnusable { what: what.to_owned(), problem: error.to_string() })?;
    Ok(pair.der_bytes().to_vec())
}

/// Returns whether the certificate's public key has these bits. The algorithm's name may differ: RSA keys also serve RSA-PSS.
fn has_key(certificate: &Certificate, public: &[u8]) -> bool {
    use der::Decode;
    let info = x509_cert::spki::SubjectPublicKeyInfoRef::from_der(certificate.spki_der());
    info.is_ok_and(|info| info.subject_public_key.raw_bytes() == public)
}

/// Returns whether `above` has the issuer's name and, as far as can be judged, its key.
fn may_have_issued(above: &Certificate, below: &Certificate) -> bool {
    above.subject_der() == below.issuer_der() && may_have_signed(above.certificate_der(), below.der())
}
