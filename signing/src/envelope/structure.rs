//! The CMS structures: made for signing, and read back so that no byte is left unaccounted for.

use aws_lc_rs::signature::UnparsedPublicKey;
use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedAttributes, SignedData, SignerIdentifier, SignerInfo,
    SignerInfos,
};
use const_oid::db::rfc5911::ID_SIGNED_DATA;
use der::asn1::{Any, OctetString, OctetStringRef, SetOfVec};
use der::{Decode, Encode};
use muster_pki::{Certificate, UnixTime, has_short_sets};
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::attributes;
use super::error::{EnvelopeError, SignError, up_to};
use super::{CERTIFICATES_MAX, ContentType, ENVELOPE_BYTES_MAX, Signer, stamp};
use crate::algorithm::{Hash, KeyType, check_one_form, verifier};
use crate::timestamp::Token;

/// An envelope, read.
#[derive(Debug)]
pub(super) struct Structure {
    content_type: ContentType,
    /// `None`: it is beside the signature (detached).
    pub(super) content: Option<Vec<u8>>,
    pub(super) certificates: Vec<Certificate>,
    pub(super) signatures: Vec<Signature>,
}

/// One SignerInfo.
#[derive(Debug)]
pub(super) struct Signature {
    pub(super) signer: Certificate,
    pub(super) attributes: SignedAttributes,
    pub(super) hash: Hash,
    algorithm: AlgorithmIdentifierOwned,
    pub(super) value: Vec<u8>,
    pub(super) token: Option<Token>,
}

/// Returns the type that an envelope says it holds.
pub(super) fn content_type(envelope: &[u8]) -> Result<ContentType, EnvelopeError> {
    type_of(
        &signed_data(envelope)?,
        "definition, order, licence, policy, pack's index, file's signature or licence request",
    )
}

/// Makes an envelope; the content of a detached one stays outside.
pub(super) fn sign(
    content: &[u8],
    content_type: ContentType,
    signers: &[&Signer],
    signing_time: UnixTime,
) -> Result<Vec<u8>, SignError> {
    let inside = (!content_type.is_detached()).then_some(content);
    // What cannot fit is not hashed.
    if let Some(content) = inside.filter(|content| content.len() > ENVELOPE_BYTES_MAX) {
        return Err(SignError::TooLarge(content.len()));
    }
    let digest = |hash: Hash| Ok(hash.of(content).as_ref().to_vec());
    assemble(inside, digest, content_type, signers, signing_time)
}

/// Makes an envelope around `inside`, or beside a content of which only `digest` is known.
pub(super) fn assemble(
    inside: Option<&[u8]>,
    digest: impl Fn(Hash) -> Result<Vec<u8>, SignError>,
    content_type: ContentType,
    signers: &[&Signer],
    signing_time: UnixTime,
) -> Result<Vec<u8>, SignError> {
    let unique: Vec<_> =
        signers.iter().filter_map(|signer| signer.certificate()).map(Certificate::thumbprint).collect();
    let is_repeated =
        unique.iter().enumerate().any(|(index, own)| unique.iter().skip(index + 1).any(|other| other == own));
    if signers.is_empty() || signers.len() > content_type.signers_max() || is_repeated {
        return Err(SignError::Signers { got: signers.len(), wanted: content_type.signers_max() });
    }
    let mut certificates: Vec<&Certificate> = signers.iter().flat_map(|signer| signer.chain()).collect();
    certificates.sort_unstable_by_key(|certificate| certificate.der());
    certificates.dedup();
    let certificates = certificates
        .into_iter()
        .map(|certificate| {
            Ok(CertificateChoices::Certificate(x509_cert::Certificate::from_der(certificate.der())?))
        })
        .collect::<Result<Vec<_>, der::Error>>()?;
    let infos = signers
        .iter()
        .map(|signer| {
            let digest = digest(signer.key_type().hash())?;
            signer_info(&digest, content_type, signer, signing_time)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let signed_data = SignedData {
        // RFC 5652 §5.1: 3, since the content type is not id-data.
        version: CmsVersion::V3,
        digest_algorithms: digest_algorithms(infos.iter().map(|info| &info.digest_alg))?,
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: content_type.oid(),
            econtent: inside.map(|content| Any::encode_from(&OctetStringRef::new(content)?)).transpose()?,
        },
        certificates: Some(CertificateSet::try_from(certificates)?),
        crls: None,
        signer_infos: SignerInfos::try_from(infos)?,
    };
    encode(&signed_data)
}

/// Writes an envelope.
pub(super) fn encode(signed_data: &SignedData) -> Result<Vec<u8>, SignError> {
    let envelope =
        ContentInfo { content_type: ID_SIGNED_DATA, content: Any::encode_from(signed_data)? }.to_der()?;
    if envelope.len() > ENVELOPE_BYTES_MAX {
        return Err(SignError::TooLarge(envelope.len()));
    }
    Ok(envelope)
}

/// Signs a content with this digest.
pub(super) fn signer_info(
    digest: &[u8],
    content_type: ContentType,
    signer: &Signer,
    signing_time: UnixTime,
) -> Result<SignerInfo, SignError> {
    let certificate = signer.certificate().ok_or(SignError::Key)?;
    let parsed = x509_cert::Certificate::from_der(certificate.der())?.tbs_certificate;
    let hash = signer.key_type().hash();
    let signed = attributes::make(content_type.oid(), digest, signing_time, certificate)?;
    let value = signer.sign(&signed.to_der()?)?;
    Ok(SignerInfo {
        version: CmsVersion::V1,
        sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
            issuer: parsed.issuer,
            serial_number: parsed.serial_number,
        }),
        digest_alg: hash.identifier(),
        signed_attrs: Some(signed),
        signature_algorithm: signer.key_type().identifier(),
        signature: OctetString::new(value)?,
        unsigned_attrs: None,
    })
}

impl Structure {
    pub(super) const fn content_type(&self) -> ContentType {
        self.content_type
    }

    /// Reads an envelope of one type; nothing is verified yet.
    pub(super) fn read(envelope: &[u8], content_type: ContentType) -> Result<Self, EnvelopeError> {
        let data = signed_data(envelope)?;
        let got = type_of(&data, content_type.name())?;
        if got != content_type {
            return Err(EnvelopeError::ContentType {
                got: got.name().to_owned(),
                wanted: content_type.name(),
            });
        }
        if data.version != CmsVersion::V3 {
            return Err(form("SignedData of a version other than 3"));
        }
        if data.crls.is_some() {
            return Err(form("CRLs inside"));
        }
        let content = match (&data.encap_content_info.econtent, content_type.is_detached()) {
            (Some(content), false) => Some(content.decode_as::<OctetString>()?.into_bytes()),
            (None, true) => None,
            (None, false) => return Err(form("a detached signature, without its content")),
            (Some(_), true) => {
                return Err(form("a file's signature with the file inside; wanted it detached"));
            }
        };
        let certificates = certificates(data.certificates.as_ref())?;
        let infos = data.signer_infos.0.as_slice();
        if infos.is_empty() || infos.len() > content_type.signers_max() {
            return Err(EnvelopeError::Form(format!(
                "{} signatures; wanted {}",
                infos.len(),
                up_to(content_type.signers_max())
            )));
        }
        if digest_algorithms(infos.iter().map(|info| &info.digest_alg))? != data.digest_algorithms {
            return Err(form("digest algorithms that are not exactly the signers'"));
        }
        let mut signatures: Vec<Signature> = Vec::new();
        for info in infos {
            let signature = Signature::read(info, &certificates)?;
            if signatures.iter().any(|earlier| earlier.signer == signature.signer) {
                return Err(form("two signatures of one signer"));
            }
            signatures.push(signature);
        }
        Ok(Self { content_type, content, certificates, signatures })
    }

    /// Verifies one signature over a content with this digest, by the key of its certificate, and returns the time of signing.
    pub(super) fn verify_signature(
        &self,
        signature: &Signature,
        digest: &[u8],
    ) -> Result<UnixTime, EnvelopeError> {
        let bad =
            |problem| EnvelopeError::Signature { signer: signature.signer.subject().to_owned(), problem };
        let signed = attributes::read(&signature.attributes)?;
        if signed.content_type != self.content_type.oid() {
            return Err(bad("its contentType is another one"));
        }
        if signed.message_digest != digest {
            return Err(bad("the content was changed"));
        }
        if !signed.certificate.names(&signature.signer)? {
            return Err(bad("its signingCertificateV2 names another certificate"));
        }
        let (key_type, key) = KeyType::read(signature.signer.spki_der())?;
        let algorithm = verifier(&signature.algorithm, signature.hash, key_type)?;
        UnparsedPublicKey::new(algorithm, key)
            .verify(&signature.attributes.to_der()?, &signature.value)
            .map_err(|_| bad("it is not over these attributes, or not by this key"))?;
        Ok(signed.signing_time)
    }
}

impl Signature {
    fn read(info: &SignerInfo, certificates: &[Certificate]) -> Result<Self, EnvelopeError> {
        let (SignerIdentifier::IssuerAndSerialNumber(id), CmsVersion::V1) = (&info.sid, info.version) else {
            return Err(form("a signer that is not named by issuer and serial number"));
        };
        let Some(attributes) = info.signed_attrs.clone() else { return Err(form("no signed attributes")) };
        let issuer = id.issuer.to_der()?;
        let is_signer = |certificate: &&Certificate| {
            certificate.issuer_der() == issuer && certificate.serial() == id.serial_number.as_bytes()
        };
        let signer =
            certificates.iter().find(is_signer).ok_or_else(|| form("no certificate of the signer"))?;
        check_one_form(&info.digest_alg)?;
        check_one_form(&info.signature_algorithm)?;
        Ok(Self {
            signer: signer.clone(),
            attributes,
            hash: Hash::read(&info.digest_alg)?,
            algorithm: info.signature_algorithm.clone(),
            value: info.signature.as_bytes().to_vec(),
            token: info.unsigned_attrs.as_ref().map(stamp::read).transpose()?,
        })
    }
}

/// Decodes the outer structure; the bytes must be what it encodes to.
pub(super) fn signed_data(envelope: &[u8]) -> Result<SignedData, EnvelopeError> {
    if envelope.len() > ENVELOPE_BYTES_MAX {
        return Err(EnvelopeError::TooLarge(envelope.len()));
    }
    if !has_short_sets(envelope) {
        return Err(form("a SET of more elements than any envelope has"));
    }
    let outer = ContentInfo::from_der(envelope)?;
    if outer.content_type != ID_SIGNED_DATA {
        return Err(form("CMS of another kind than SignedData"));
    }
    let data = outer.content.decode_as::<SignedData>()?;
    let again =
        ContentInfo { content_type: outer.content_type, content: Any::encode_from(&data)? }.to_der()?;
    if again != envelope {
        return Err(form("an encoding that is not DER"));
    }
    Ok(data)
}

fn type_of(data: &SignedData, wanted: &'static str) -> Result<ContentType, EnvelopeError> {
    let oid = data.encap_content_info.econtent_type;
    let found = ContentType::ALL.into_iter().find(|content_type| content_type.oid() == oid);
    found.ok_or_else(|| EnvelopeError::ContentType { got: format!("document of type {oid}"), wanted })
}

fn certificates(set: Option<&CertificateSet>) -> Result<Vec<Certificate>, EnvelopeError> {
    let choices = set.map(|set| set.0.as_slice()).unwrap_or_default();
    if choices.len() > CERTIFICATES_MAX {
        return Err(EnvelopeError::TooManyCertificates(choices.len()));
    }
    let read = |choice: &CertificateChoices| match choice {
        CertificateChoices::Certificate(certificate) => Certificate::from_der(&certificate.to_der()?)
            .map_err(|error| EnvelopeError::Form(error.to_string())),
        CertificateChoices::Other(_) => Err(form("a certificate that is not X.509")),
    };
    choices.iter().map(read).collect()
}

/// Returns the algorithms without repetition, as a SET.
pub(super) fn digest_algorithms<'a>(
    algorithms: impl Iterator<Item = &'a AlgorithmIdentifierOwned>,
) -> Result<SetOfVec<AlgorithmIdentifierOwned>, der::Error> {
    let mut unique: Vec<AlgorithmIdentifierOwned> = Vec::new();
    for algorithm in algorithms {
        if !unique.contains(algorithm) {
            unique.push(algorithm.clone());
        }
    }
    SetOfVec::try_from(unique)
}

pub(super) fn form(problem: &str) -> EnvelopeError {
    EnvelopeError::Form(problem.to_owned())
}
