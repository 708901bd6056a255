//! A timestamp authority for tests, which says whatever a test has it say.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::EcdsaKeyPair;
use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use const_oid::db::rfc5911::ID_SIGNED_DATA;
use der::asn1::{Any, Int, ObjectIdentifier, OctetString, OctetStringRef, SetOfVec};
use der::{Decode as _, Encode as _, Tag};
use muster_pki::{Certificate, Role, pem};
use x509_cert::attr::Attribute;

use super::asn1::{MessageImprint, TstInfo};
use super::token::TST_INFO;
use crate::algorithm::{Hash, KeyType};
use crate::attributes::{
    CONTENT_TYPE, CertificateId, MESSAGE_DIGEST, SIGNING_CERTIFICATE_V2, SigningCertificate,
};
use crate::fixture::{Pki, ecdsa};

/// A genTime, and the fixture's `NOW`.
const NOW_TEXT: &str = "20270115080000Z";

/// An authority with a key.
pub(crate) struct Stamper {
    chain: Vec<Certificate>,
    key: EcdsaKeyPair,
}

/// What a token says differently from an honest one: in what is signed, in the signed attributes, and around the signature.
pub(super) struct Changes<'a> {
    pub(super) info: &'a dyn Fn(&mut TstInfo),
    pub(super) attributes: &'a dyn Fn(&mut Vec<Attribute>),
    pub(super) data: &'a dyn Fn(&mut SignedData),
}

impl Default for Changes<'_> {
    fn default() -> Self {
        Self { info: &|_| {}, attributes: &|_| {}, data: &|_| {} }
    }
}

impl Stamper {
    pub(crate) fn new(pki: &Pki) -> Self {
        Self::of(pki, Role::Timestamp)
    }

    pub(crate) fn of(pki: &Pki, role: Role) -> Self {
        let issued = pki.issued("authority", role);
        let chain = pem::certificates(issued.chain_pem.as_bytes(), "a chain").unwrap();
        let key = pem::private_key(issued.key_pem.as_bytes(), "a key").unwrap();
        Self {
            chain: chain.iter().map(|der| Certificate::from_der(der).unwrap()).collect(),
            key: ecdsa(&key),
        }
    }

    pub(crate) fn certificate(&self) -> &Certificate {
        &self.chain[0]
    }

    /// An honest token over a signature's value, of the fixture's `NOW`.
    pub(crate) fn token(&self, signature: &[u8]) -> Vec<u8> {
        self.token_with(signature, &Changes::default())
    }

    pub(crate) fn token_of(&self, signature: &[u8], gen_time: &str) -> Vec<u8> {
        let info = |info: &mut TstInfo| {
            info.gen_time = Any::new(Tag::GeneralizedTime, gen_time.as_bytes()).unwrap();
        };
        self.token_with(signature, &Changes { info: &info, ..Changes::default() })
    }

    pub(super) fn token_with(&self, signature: &[u8], changes: &Changes<'_>) -> Vec<u8> {
        let mut info = honest(signature);
        (changes.info)(&mut info);
        let content = info.to_der().unwrap();
        let certificates = self.chain.iter().map(choice).collect::<Vec<_>>();
        let mut data = SignedData {
            version: CmsVersion::V3,
            digest_algorithms: SetOfVec::try_from(vec![Hash::Sha256.identifier()]).unwrap(),
            encap_content_info: EncapsulatedContentInfo {
                econtent_type: TST_INFO,
                econtent: Some(Any::encode_from(&OctetStringRef::new(&content).unwrap()).unwrap()),
            },
            certificates: Some(CertificateSet::try_from(certificates).unwrap()),
            crls: None,
            signer_infos: SignerInfos::try_from(vec![self.signer_info(&content, changes)]).unwrap(),
        };
        (changes.data)(&mut data);
        ContentInfo { content_type: ID_SIGNED_DATA, content: Any::encode_from(&data).unwrap() }
            .to_der()
            .unwrap()
    }

    fn signer_info(&self, content: &[u8], changes: &Changes<'_>) -> SignerInfo {
        let own = self.certificate();
        let parsed = x509_cert::Certificate::from_der(own.der()).unwrap().tbs_certificate;
        let digest = Hash::Sha256.of(content);
        let id = SigningCertificate { certificates: vec![CertificateId::of(own).unwrap()] };
        let mut attributes = vec![
            attribute(CONTENT_TYPE, Any::encode_from(&TST_INFO).unwrap()),
            attribute(MESSAGE_DIGEST, Any::encode_from(&OctetString::new(digest.as_ref()).unwrap()).unwrap()),
            attribute(SIGNING_CERTIFICATE_V2, Any::encode_from(&id).unwrap()),
        ];
        (changes.attributes)(&mut attributes);
        let signed = SetOfVec::try_from(attributes).unwrap();
        let value = self.key.sign(&SystemRandom::new(), &signed.to_der().unwrap()).unwrap();
        SignerInfo {
            version: CmsVersion::V1,
            sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
                issuer: parsed.issuer,
                serial_number: parsed.serial_number,
            }),
            digest_alg: Hash::Sha256.identifier(),
            signed_attrs: Some(signed),
            signature_algorithm: KeyType::P256.identifier(),
            signature: OctetString::new(value.as_ref()).unwrap(),
            unsigned_attrs: None,
        }
    }
}

/// What an honest authority says of a signature's value at the fixture's `NOW`.
pub(super) fn honest(signature: &[u8]) -> TstInfo {
    TstInfo {
        version: 1,
        policy: ObjectIdentifier::new_unwrap("1.2.3.4"),
        message_imprint: MessageImprint {
            hash_algorithm: Hash::Sha256.identifier(),
            hashed_message: OctetString::new(Hash::Sha256.of(signature).as_ref()).unwrap(),
        },
        serial_number: Int::new(&[1]).unwrap(),
        gen_time: Any::new(Tag::GeneralizedTime, NOW_TEXT.as_bytes()).unwrap(),
        accuracy: None,
        ordering: false,
        nonce: None,
        authority: None,
        extensions: None,
    }
}

pub(super) fn attribute(oid: ObjectIdentifier, value: Any) -> Attribute {
    Attribute { oid, values: SetOfVec::try_from(vec![value]).unwrap() }
}

pub(crate) fn choice(certificate: &Certificate) -> CertificateChoices {
    CertificateChoices::Certificate(x509_cert::Certificate::from_der(certificate.der()).unwrap())
}
