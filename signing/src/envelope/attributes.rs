//! The signed attributes: exactly contentType, messageDigest, signingTime and signingCertificateV2, once each.

use std::time::Duration;

use der::asn1::{Any, GeneralizedTime, ObjectIdentifier, OctetString, OctetStringRef, SetOfVec, UtcTime};
use der::{Decode, Encode};
use muster_pki::{Certificate, UnixTime};
use x509_cert::attr::{Attribute, Attributes};
use x509_cert::time::Time;

use super::error::{EnvelopeError, SignError};
use crate::attributes::{
    CONTENT_TYPE, CertificateId, MESSAGE_DIGEST, SIGNING_CERTIFICATE_V2, SIGNING_TIME, SigningCertificate,
    one,
};

/// From 2050 on, times are GeneralizedTime (RFC 5652 §11.3); in Unix seconds.
const YEAR_2050: u64 = 2_524_608_000;

/// What the signed attributes say.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) content_type: ObjectIdentifier,
    pub(super) message_digest: Vec<u8>,
    pub(super) signing_time: UnixTime,
    pub(super) certificate: CertificateId,
}

/// Makes the attributes of one signature.
pub(super) fn make(
    content_type: ObjectIdentifier,
    message_digest: &[u8],
    signing_time: UnixTime,
    signer: &Certificate,
) -> Result<Attributes, SignError> {
    let id = CertificateId::of(signer)?;
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
    let certificate = certificate.ok_or_else(|| {
        EnvelopeError::Form("signingCertificateV2 without exactly one certificate".to_owned())
    })?;
    if certificate.writes_default() {
        return Err(EnvelopeError::Form("signingCertificateV2 writes its default, SHA-256, out".to_owned()));
    }
    Ok(Signed {
        content_type: one(attributes, CONTENT_TYPE, "contentType")?.decode_as()?,
        message_digest: one(attributes, MESSAGE_DIGEST, "messageDigest")?
            .decode_as::<OctetString>()?
            .into_bytes(),
        signing_time: read_time(one(attributes, SIGNING_TIME, "signingTime")?)?,
        certificate,
    })
}

fn attribute(oid: ObjectIdentifier, value: Any) -> Result<Attribute, SignError> {
    Ok(Attribute { oid, values: SetOfVec::try_from(vec![value])? })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::at;

    #[test]
    fn a_signing_time_has_the_one_form_of_its_year() {
        let general = |seconds: u64| {
            let time = GeneralizedTime::from_unix_duration(Duration::from_secs(seconds)).unwrap();
            read_time(&Any::from_der(&time.to_der().unwrap()).unwrap())
        };

        for seconds in [0, 1_800_000_000, YEAR_2050 - 1, YEAR_2050, YEAR_2050 + 1] {
            assert_eq!(read_time(&time(at(seconds)).unwrap()), Ok(at(seconds)));
        }
        assert_eq!(YEAR_2050, 2_524_608_000);
        assert_eq!(general(YEAR_2050), Ok(at(YEAR_2050)));
        for early in [YEAR_2050 - 1, 1_800_000_000] {
            assert!(general(early).unwrap_err().to_string().contains("before 2050"));
        }
        assert_eq!(time(at(u64::MAX)), Err(SignError::Time));
    }
}
