//! Signed attributes that envelopes and timestamp tokens have in common (RFC 5652 §11, RFC 5035).

use const_oid::db::{rfc5911, rfc5912};
use der::asn1::{Any, ObjectIdentifier, OctetString};
use der::{Decode as _, Sequence};
use muster_pki::Certificate;
use x509_cert::attr::Attributes;
use x509_cert::ext::pkix::name::{GeneralName, GeneralNames};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::algorithm::{Hash, Unusable};

pub(crate) const CONTENT_TYPE: ObjectIdentifier = rfc5911::ID_CONTENT_TYPE;
pub(crate) const MESSAGE_DIGEST: ObjectIdentifier = rfc5911::ID_MESSAGE_DIGEST;
pub(crate) const SIGNING_TIME: ObjectIdentifier = rfc5911::ID_SIGNING_TIME;
/// id-aa-signingCertificateV2 (RFC 5035 §3).
pub(crate) const SIGNING_CERTIFICATE_V2: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.47");

/// ESSCertIDv2 (RFC 5035 §4). The default of its first field is SHA-256, so DER leaves that out.
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(crate) struct CertificateId {
    #[asn1(optional = "true")]
    hash_algorithm: Option<AlgorithmIdentifierOwned>,
    certificate_hash: OctetString,
    #[asn1(optional = "true")]
    issuer_serial: Option<IssuerSerial>,
}

#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
struct IssuerSerial {
    issuer: GeneralNames,
    serial_number: SerialNumber,
}

/// SigningCertificateV2; its policies are not used, and refused.
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(crate) struct SigningCertificate {
    pub(crate) certificates: Vec<CertificateId>,
}

impl CertificateId {
    /// Returns the id of a certificate: SHA-256, issuer and serial number.
    pub(crate) fn of(certificate: &Certificate) -> Result<Self, der::Error> {
        let parsed = x509_cert::Certificate::from_der(certificate.der())?;
        Ok(Self {
            hash_algorithm: None,
            certificate_hash: OctetString::new(Hash::Sha256.of(certificate.der()).as_ref())?,
            issuer_serial: Some(IssuerSerial {
                issuer: vec![GeneralName::DirectoryName(parsed.tbs_certificate.issuer)],
                serial_number: parsed.tbs_certificate.serial_number,
            }),
        })
    }

    /// Returns whether the default of the first field is written out, as DER does not.
    pub(crate) fn writes_default(&self) -> bool {
        self.hash_algorithm.as_ref().is_some_and(|algorithm| algorithm.oid == rfc5912::ID_SHA_256)
    }

    /// Returns whether it names this certificate, so that no other one with its key can stand in.
    pub(crate) fn names(&self, certificate: &Certificate) -> Result<bool, Unusable> {
        let hash = self.hash_algorithm.as_ref().map_or(Ok(Hash::Sha256), Hash::read)?;
        let is_issuer_serial = match &self.issuer_serial {
            Some(IssuerSerial { issuer, serial_number }) => {
                let parsed = x509_cert::Certificate::from_der(certificate.der())?.tbs_certificate;
                *issuer == [GeneralName::DirectoryName(parsed.issuer)]
                    && *serial_number == parsed.serial_number
            }
            None => true,
        };
        Ok(is_issuer_serial && self.certificate_hash.as_bytes() == hash.of(certificate.der()).as_ref())
    }
}

/// Returns the one value of the one attribute.
pub(crate) fn one<'a>(
    attributes: &'a Attributes,
    oid: ObjectIdentifier,
    name: &str,
) -> Result<&'a Any, Unusable> {
    let mut found = attributes.iter().filter(|attribute| attribute.oid == oid);
    match (found.next(), found.next()) {
        (Some(attribute), None) if attribute.values.len() == 1 => {
            attribute.values.get(0).ok_or_else(|| Unusable::Form(format!("{name} without value")))
        }
        (None, _) => Err(Unusable::Form(format!("the signed attribute {name} is missing"))),
        (Some(_), _) => Err(Unusable::Form(format!("the signed attribute {name} has more than one value"))),
    }
}

#[cfg(test)]
mod tests {
    use der::asn1::{Null, SetOfVec};
    use muster_pki::Role;
    use x509_cert::attr::Attribute;

    use super::*;
    use crate::fixture::Pki;

    /// An id of `of` as signers write it, and one of the same PKI.
    fn ids() -> (Certificate, CertificateId, CertificateId) {
        let pki = Pki::flat("a");
        let of = |name| pki.issued(name, Role::Author).certificate;
        let (ann, ben) = (of("ann"), of("ben"));
        let ids = (CertificateId::of(&ann).unwrap(), CertificateId::of(&ben).unwrap());
        (ann, ids.0, ids.1)
    }

    #[test]
    fn an_id_names_a_certificate_by_hash_issuer_and_serial_number() {
        let (ann, own, other) = ids();
        let serial = |id: &CertificateId| id.issuer_serial.clone().unwrap();
        let issuer_of = |issuer: GeneralNames| IssuerSerial { issuer, ..serial(&own) };
        let with = |issuer_serial| CertificateId { issuer_serial, ..own.clone() };

        assert_eq!(own.names(&ann), Ok(true));
        assert_eq!(with(None).names(&ann), Ok(true));
        let hash = CertificateId { certificate_hash: other.certificate_hash.clone(), ..own.clone() };
        for (what, id) in [
            ("another hash", hash),
            ("another serial number", with(Some(serial(&other)))),
            ("another issuer", with(Some(issuer_of(Vec::new())))),
        ] {
            assert_eq!(id.names(&ann), Ok(false), "{what}");
        }
    }

    #[test]
    fn an_id_has_the_hash_that_it_says_and_leaves_sha_256_unsaid() {
        let (ann, own, _) = ids();
        let by = |hash: Hash| CertificateId {
            hash_algorithm: Some(hash.identifier()),
            certificate_hash: OctetString::new(hash.of(ann.der()).as_ref()).unwrap(),
            ..own.clone()
        };

        assert_eq!(by(Hash::Sha384).names(&ann), Ok(true));
        assert!(!own.writes_default() && by(Hash::Sha256).writes_default());
        assert!(!by(Hash::Sha384).writes_default());
        let mut weak = by(Hash::Sha384);
        weak.hash_algorithm.as_mut().unwrap().oid = rfc5912::ID_SHA_1;
        assert!(matches!(weak.names(&ann), Err(Unusable::Algorithm(_))));
    }

    #[test]
    fn an_attribute_is_there_once_with_one_value() {
        let (null, number) = (Any::encode_from(&Null).unwrap(), Any::encode_from(&7_u8).unwrap());
        let with = |values: &[&[&Any]]| {
            let attribute = |values: &&[&Any]| Attribute {
                oid: SIGNING_TIME,
                values: SetOfVec::try_from(values.iter().copied().cloned().collect::<Vec<_>>()).unwrap(),
            };
            let attributes: Attributes =
                SetOfVec::try_from(values.iter().map(attribute).collect::<Vec<_>>()).unwrap();
            one(&attributes, SIGNING_TIME, "it").cloned().map_err(|error| error.to_string())
        };
        let several = Err("the signed attribute it has more than one value".to_owned());

        assert_eq!(with(&[&[&null]]), Ok(null.clone()));
        assert_eq!(with(&[]), Err("the signed attribute it is missing".to_owned()));
        assert_eq!(with(&[&[&null, &number]]), several);
        assert_eq!(with(&[&[]]), several);
        assert_eq!(with(&[&[&null], &[&number]]), several);
    }
}
