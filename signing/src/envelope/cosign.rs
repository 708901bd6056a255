//! One more signature over the same content: an approval of an order (signing.md, "Order").

use cms::cert::CertificateChoices;
use cms::signed_data::{CertificateSet, SignerInfo, SignerInfos};
use der::Decode as _;
use muster_pki::{Certificate, UnixTime};

use super::error::SignError;
use super::structure::{Structure, content_type, digest_algorithms, encode, signed_data, signer_info};
use super::{CERTIFICATES_MAX, Signer};

/// Adds a signature to an envelope. Those that are there stay as they are, and are not verified.
///
/// # Errors
/// It is no envelope that holds its content, the signer has signed it already, it would have more signatures or certificates than its
/// type may have, or the key does not sign.
pub fn cosign(envelope: &[u8], signer: &Signer, signing_time: UnixTime) -> Result<Vec<u8>, SignError> {
    let unreadable = |error: super::EnvelopeError| SignError::Encoding(error.to_string());
    let content_type = content_type(envelope).map_err(unreadable)?;
    let structure = Structure::read(envelope, content_type).map_err(unreadable)?;
    let content = structure.content.as_deref().unwrap_or_default();
    let own = signer.certificate().ok_or(SignError::Key)?;
    if structure.signatures.iter().any(|signature| signature.signer == *own) {
        return Err(SignError::SignedBefore(own.subject().to_owned()));
    }
    let (signers, signers_max) = (structure.signatures.len() + 1, content_type.signers_max());
    if signers > signers_max || content_type.is_detached() {
        return Err(SignError::Signers { got: signers, wanted: signers_max });
    }
    let digest = signer.key_type().hash().of(content);
    let info = signer_info(digest.as_ref(), content_type, signer, signing_time)?;

    let mut data = signed_data(envelope).map_err(unreadable)?;
    let infos: Vec<SignerInfo> = data.signer_infos.0.iter().cloned().chain([info]).collect();
    data.digest_algorithms = digest_algorithms(infos.iter().map(|info| &info.digest_alg))?;
    data.certificates = Some(certificates(&structure.certificates, signer)?);
    data.signer_infos = SignerInfos::try_from(infos)?;
    encode(&data)
}

/// The certificates of all signers, each once.
fn certificates(there: &[Certificate], signer: &Signer) -> Result<CertificateSet, SignError> {
    let mut all: Vec<&Certificate> = there.iter().chain(signer.chain()).collect();
    all.sort_unstable_by_key(|certificate| certificate.der());
    all.dedup();
    if all.len() > CERTIFICATES_MAX {
        return Err(SignError::Certificates(all.len()));
    }
    let choice = |certificate: &Certificate| {
        x509_cert::Certificate::from_der(certificate.der()).map(CertificateChoices::Certificate)
    };
    Ok(CertificateSet::try_from(all.into_iter().map(choice).collect::<Result<Vec<_>, _>>()?)?)
}
