//! The signed attributes: exactly contentType, messageDigest, signingTime and signingCertificateV2, once each.

use std::time::Duration;

use const_oid::db::{rfc5911, rfc5912};
use der::asn1::{Any, GeneralizedTime, ObjectIdentifier, OctetString, OctetStringRef, SetOfVec, UtcTime};
use der::{Decode, Encode, Sequence};
use muster_pki::{Certificate, UnixTime};
use x509_cert::attr::{Attribute, Attributes};
use x509_cert::ext::pkix::name::{GeneralName, GeneralNames};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::Time;

use super::algorithm::Hash;
use super::error::{EnvelopeError, SignError};

const CONTENT_TYPE: ObjectIdentifier = rfc5911::ID_CONTENT_TYPE;
const MESSAGE_DIGEST: ObjectIdentifier = rfc5911::ID_MESSAGE_DIGEST;
const SIGNING_TIME: ObjectIdentifier = rfc5911::ID_SIGNING_TIME;
/// id-aa-signingCertificateV2 (RFC 5035 §3).
const SIGNING_CERTIFICATE_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.47");

/// From 2050 on, times are GeneralizedTime (RFC 5652 §11.3); in Unix seconds.
const YEAR_2050: u64 = 2_524_608_000;

/// What the signed attributes say.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) content_type: ObjectIdentifier,
    pub(super) message_digest: Vec<u8>,
    pub(super) signing_time: UnixTime,
    certificate: EssCertificateId,
}

/// ESSCertIDv2 (RFC 5035 §4). The default of its first field is SHA-256, so DER leaves that out.
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
struct EssCertificateId {
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
struct SigningCertificate {
    certificates: Vec<EssCertificateId>,
}

/// Makes the attributes of one signature.
pub(super) fn make(
    content_type: ObjectIdentifier,
    message_digest: &[u8],
    signing_time: UnixTime,
    signer: &Certificate,
) -> Result<Attributes, SignError> {
    let parsed = x509_cert::Certificate::from_der(signer.der())?;
    let id = EssCertificateId {
        hash_algorithm: None,
        certificate_hash: OctetString::new(Hash::Sha256.of(signer.der()).as_ref())?,
        issuer_serial: Some(IssuerSerial {
            issuer: vec![GeneralName::DirectoryName(parsed.tbs_certificate.issuer)],
            serial_number: parsed.tbs_certificate.serial_number,
        }),
    };
    let attributes = vec![
        attribute(CONTENT_TYPE, Any::encode_from(&content_type)?)?,
        attribute(MESSAGE_DIGEST, Any::encode_from(&OctetStringRef::new(message_digest)?)?)?,
        attribute(SIGNING_TIME, time(signing_time)?)?,
        attribute(SIGNING_CERTIFICATE_V2, Any::encode_from(&SigningCertificate { certificates: vec![id] })?)?,
    ];
    Ok(SetOfVec::try_from(attributes)?)
}

/// Reads the attributes of one signature.
pub(super) fn read(attributes: &Attributes) -> Result<Signed, EnvelopeError> {
    for attribute in attributes.iter() {
        if ![CONTENT_TYPE, MESSAGE_DIGEST, SIGNING_TIME, SIGNING_CERTIFICATE_V2].contains(&attribute.oid) {
            let problem = format!("the signed attribute {}, which nothing here reads", attribute.oid);
            return Err(EnvelopeError::Form(problem));
        }
    }
    let mut certificates = one(attributes, SIGNING_CERTIFICATE_V2, "signingCertificateV2")?
        .decode_as::<SigningCertificate>()?
        .certificates;
    let certificate = certificates.pop().filter(|_| certificates.is_empty());
    Ok(Signed {
        content_type: one(attributes, CONTENT_TYPE, "contentType")?.decode_as()?,
        message_digest: one(attributes, MESSAGE_DIGEST, "messageDigest")?
            .decode_as::<OctetString>()?
            .into_bytes(),
        signing_time: read_time(one(attributes, SIGNING_TIME, "signingTime")?)?,
        certificate: certificate.ok_or_else(|| {
            EnvelopeError::Form("signingCertificateV2 without exactly one certificate".to_owned())
        })?,
    })
}

impl Signed {
    /// Returns whether signingCertificateV2 names this certificate, so that no other one with its key can stand in.
    pub(super) fn names(&self, signer: &Certificate) -> Result<bool, EnvelopeError> {
        let EssCertificateId { hash_algorithm, certificate_hash, issuer_serial } = &self.certificate;
        let hash = match hash_algorithm {
            Some(algorithm) if algorithm.oid == rfc5912::ID_SHA_256 => {
                return Err(EnvelopeError::Form(
                    "signingCertificateV2 writes its default, SHA-256, out".to_owned(),
                ));
            }
            Some(algorithm) => Hash::read(algorithm)?,
            None => Hash::Sha256,
        };
        let is_issuer_serial = match issuer_serial {
            Some(IssuerSerial { issuer, serial_number }) => {
                let parsed = x509_cert::Certificate::from_der(signer.der())?.tbs_certificate;
                *issuer == [GeneralName::DirectoryName(parsed.issuer)]
                    && *serial_number == parsed.serial_number
            }
            None => true,
        };
        Ok(is_issuer_serial && certificate_hash.as_bytes() == hash.of(signer.der()).as_ref())
    }
}

fn attribute(oid: ObjectIdentifier, value: Any) -> Result<Attribute, SignError> {
    Ok(Attribute { oid, values: SetOfVec::try_from(vec![value])? })
}

/// Returns the one value of the one attribute.
fn one<'a>(attributes: &'a Attributes, oid: ObjectIdentifier, name: &str) -> Result<&'a Any, EnvelopeError> {
    let mut found = attributes.iter().filter(|attribute| attribute.oid == oid);
    match (found.next(), found.next()) {
        (Some(attribute), None) if attribute.values.len() == 1 => {
            attribute.values.get(0).ok_or_else(|| EnvelopeError::Form(format!("{name} without value")))
        }
        (None, _) => Err(EnvelopeError::Form(format!("the signed attribute {name} is missing"))),
        (Some(_), _) => {
            Err(EnvelopeError::Form(format!("the signed attribute {name} has more than one value")))
        }
    }
}

fn time(moment: UnixTime) -> Result<Any, SignError> {
    let since_epoch = Duration::from_secs(moment.as_secs());
    let time = if moment.as_secs() < YEAR_2050 {
        Time::UtcTime(UtcTime::from_unix_duration(since_epoch).map_err(|_| SignError::Time)?)
    } else {
        Time::GeneralTime(GeneralizedTime::from_unix_duration(since_epoch).map_err(|_| SignError::Time)?)
    };
    Ok(Any::from_der(&time.to_der()?)?)
}

fn read_time(value: &Any) -> Result<UnixTime, EnvelopeError> {
    let time = Time::from_der(&value.to_der()?)?;
    let since_epoch = time.to_unix_duration();
    if matches!(time, Time::GeneralTime(_)) && since_epoch.as_secs() < YEAR_2050 {
        return Err(EnvelopeError::Form("a signingTime before 2050 in GeneralizedTime".to_owned()));
    }
    Ok(UnixTime::since_unix_epoch(since_epoch))
}
