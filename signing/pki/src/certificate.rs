//! [`Certificate`]: an X.509 certificate, parsed once.

mod algorithm;
pub(crate) mod distribution;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use const_oid::db::rfc5280::{ID_CE_NAME_CONSTRAINTS, ID_CE_POLICY_CONSTRAINTS};
use der::asn1::{ObjectIdentifier, Utf8StringRef};
use der::{Decode, Encode};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_cert::ext::pkix::crl::CrlDistributionPoints;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName};
use x509_cert::name::Name;

use self::algorithm::is_weak_signature;
pub(crate) use self::algorithm::{
    KeyKind, SignatureProblem, may_have_signed, signature_name, signed_parts, verify_signature,
};
use crate::directory_string;
use crate::shape::{SET_ELEMENTS_MAX, has_short_sets};
use crate::thumbprint::Thumbprint;
use crate::usage::ExtendedKeyUsage;

/// Largest certificate that is parsed, in bytes; a real one has 1 to 4 KiB, post-quantum ones up to some 20 KiB.
const CERTIFICATE_BYTES_MAX: usize = 64 * 1024;

/// The otherName by which Windows knows a person, such as `ann@acme.example`.
const USER_PRINCIPAL_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.20.2.3");

/// An X.509 certificate, parsed once from its DER. Clones share the parsed fields.
#[derive(Clone)]
pub struct Certificate(Arc<Parsed>);

struct Parsed {
    der: CertificateDer<'static>,
    thumbprint: Thumbprint,
    subject: String,
    issuer: String,
    subject_der: Vec<u8>,
    issuer_der: Vec<u8>,
    serial: Vec<u8>,
    not_before: UnixTime,
    not_after: UnixTime,
    common_name: Option<String>,
    extensions: Extensions,
    spki_der: Vec<u8>,
    key: KeyKind,
    signature_algorithm: ObjectIdentifier,
    is_self_signed: bool,
}

/// The extensions that the rules look at.
#[derive(Default)]
struct Extensions {
    dns_names: Vec<String>,
    personal_names: Vec<String>,
    ip_addresses: Vec<IpAddr>,
    has_subject_alternative_name: bool,
    extended_key_usages: Option<Vec<ExtendedKeyUsage>>,
    extended_key_usage_is_critical: bool,
    key_usage: Option<KeyUsage>,
    is_ca: bool,
    path_length: Option<u8>,
    crl_distribution_points: Vec<String>,
    crl_point_names: Vec<Vec<u8>>,
    has_name_constraints: bool,
    has_policy_constraints: bool,
}

impl Certificate {
    /// Parses a certificate from strict DER.
    ///
    /// # Errors
    /// The bytes are no certificate, too many, or an extension that the rules need cannot be read.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(CertificateError::TooLarge(der.len()));
        }
        if !has_short_sets(der) {
            return Err(CertificateError::LongSet);
        }
        let parsed = x509_cert::Certificate::from_der(der).map_err(|error| encoding("certificate", error))?;
        let body = &parsed.tbs_certificate;
        let spki_der =
            body.subject_public_key_info.to_der().map_err(|error| encoding("subject public key", error))?;
        let subject_der = body.subject.to_der().map_err(|error| encoding("subject", error))?;
        let issuer_der = body.issuer.to_der().map_err(|error| encoding("issuer", error))?;
        let der = CertificateDer::from(der.to_vec());
        let is_self_signed = subject_der == issuer_der && algorithm::may_have_signed_itself(&der);
        Ok(Self(Arc::new(Parsed {
            thumbprint: Thumbprint::of(&der),
            subject: body.subject.to_string(),
            issuer: body.issuer.to_string(),
            serial: body.serial_number.as_bytes().to_vec(),
            not_before: unix_time(body.validity.not_before.to_unix_duration()),
            not_after: unix_time(body.validity.not_after.to_unix_duration()),
            common_name: common_name(&body.subject),
            extensions: Extensions::read(body)?,
            key: KeyKind::of(&body.subject_public_key_info),
            signature_algorithm: parsed.signature_algorithm.oid,
            der,
            subject_der,
            issuer_der,
            spki_der,
            is_self_signed,
        })))
    }

    /// Returns the DER as it was given.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// Returns the DER as rustls takes it.
    #[must_use]
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.0.der
    }

    /// Returns the certificate as one PEM block.
    #[must_use]
    pub fn pem(&self) -> String {
        crate::pem::encode("CERTIFICATE", self.der())
    }

    /// Returns the subject as text (RFC 4514, most specific part first).
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// Returns the issuer as text (RFC 4514, most specific part first).
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// Returns the subject's DER, with its SEQUENCE header.
    #[must_use]
    pub fn subject_der(&self) -> &[u8] {
        &self.0.subject_der
    }

    /// Returns the issuer's DER, with its SEQUENCE header.
    #[must_use]
    pub fn issuer_der(&self) -> &[u8] {
        &self.0.issuer_der
    }

    /// Returns the serial number: big-endian, two's complement, without superfluous zeros.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.0.serial
    }

    /// Returns the serial number in lower-case hex.
    #[must_use]
    pub fn serial_hex(&self) -> String {
        hex::encode(&self.0.serial)
    }

    /// Returns the SHA-256 over the DER.
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        self.0.thumbprint
    }

    /// Returns the first moment of validity.
    #[must_use]
    pub fn not_before(&self) -> UnixTime {
        self.0.not_before
    }

    /// Returns the last moment of validity.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.0.not_after
    }

    /// Returns whether `notBefore <= now <= notAfter` (C9).
    #[must_use]
    pub fn is_valid_at(&self, now: UnixTime) -> bool {
        self.0.not_before <= now && now <= self.0.not_after
    }

    /// Returns the SAN dNSNames in their order, as they are written.
    #[must_use]
    pub fn dns_names(&self) -> &[String] {
        &self.0.extensions.dns_names
    }

    /// Returns what else the SAN calls a person, in its order: rfc822Names (e-mail addresses), and Microsoft's user principal names.
    #[must_use]
    pub fn personal_names(&self) -> &[String] {
        &self.0.extensions.personal_names
    }

    /// Returns the SAN iPAddresses in their order.
    #[must_use]
    pub fn ip_addresses(&self) -> &[IpAddr] {
        &self.0.extensions.ip_addresses
    }

    /// Returns whether there is a Subject Alternative Name extension of any kind.
    #[must_use]
    pub fn has_subject_alternative_name(&self) -> bool {
        self.0.extensions.has_subject_alternative_name
    }

    /// Returns the most specific common name of the subject.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.0.common_name.as_deref()
    }

    /// Returns the purposes of the Extended Key Usage extension; `None` without the extension, which no role accepts (C3).
    #[must_use]
    pub fn extended_key_usages(&self) -> Option<&[ExtendedKeyUsage]> {
        self.0.extensions.extended_key_usages.as_deref()
    }

    /// Returns whether the Extended Key Usage extension is marked critical, as RFC 3161 §2.3 asks of a timestamp signer.
    #[must_use]
    pub fn extended_key_usage_is_critical(&self) -> bool {
        self.0.extensions.extended_key_usage_is_critical
    }

    /// Returns whether Basic Constraints say CA:TRUE.
    #[must_use]
    pub fn is_ca(&self) -> bool {
        self.0.extensions.is_ca
    }

    /// Returns whether subject and issuer are the same and its own key made the signature.
    ///
    /// A self-issued certificate whose signature cannot be judged (SHA-1, RSA < 2048) counts as self-signed.
    #[must_use]
    pub fn is_self_signed(&self) -> bool {
        self.0.is_self_signed
    }

    /// Returns the Subject Public Key Info's DER.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.0.spki_der
    }

    /// Returns the key's algorithm as text: `ECDSA P-256`, `RSA 2048`, `Ed25519`, else an OID.
    #[must_use]
    pub fn key_algorithm(&self) -> String {
        self.0.key.to_string()
    }

    /// Returns the name of the algorithm that the issuer signed with, else its OID.
    #[must_use]
    pub fn signature_algorithm(&self) -> String {
        signature_name(&self.0.signature_algorithm)
    }

    /// Returns the URIs of the CRL distribution points, of any scheme, in their order.
    #[must_use]
    pub fn crl_distribution_points(&self) -> &[String] {
        &self.0.extensions.crl_distribution_points
    }

    /// Returns the names, as DER, of the distribution points whose CRL the issuer signs itself (R5).
    pub(crate) fn crl_point_names(&self) -> &[Vec<u8>] {
        &self.0.extensions.crl_point_names
    }

    pub(crate) fn key(&self) -> &KeyKind {
        &self.0.key
    }

    pub(crate) fn key_usage(&self) -> Option<&KeyUsage> {
        self.0.extensions.key_usage.as_ref()
    }

    pub(crate) fn path_length(&self) -> Option<u8> {
        self.0.extensions.path_length
    }

    pub(crate) fn has_name_constraints(&self) -> bool {
        self.0.extensions.has_name_constraints
    }

    pub(crate) fn has_policy_constraints(&self) -> bool {
        self.0.extensions.has_policy_constraints
    }

    pub(crate) fn has_weak_signature(&self) -> bool {
        is_weak_signature(&self.0.signature_algorithm)
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.0.subject)
            .field("issuer", &self.0.issuer)
            .field("serial", &self.serial_hex())
            .field("thumbprint", &self.0.thumbprint)
            .finish_non_exhaustive()
    }
}

impl Extensions {
    fn read(body: &x509_cert::TbsCertificate) -> Result<Self, CertificateError> {
        let mut read = Self::default();
        if let Some((_, names)) =
            body.get::<SubjectAltName>().map_err(|error| encoding("subject alternative name", error))?
        {
            read.has_subject_alternative_name = true;
            for name in &names.0 {
                if let GeneralName::DnsName(name) = name {
                    read.dns_names.push(name.to_string());
                } else if let GeneralName::Rfc822Name(name) = name {
                    read.personal_names.push(name.to_string());
                } else if let GeneralName::OtherName(name) = name {
                    let text = Utf8StringRef::try_from(&name.value).ok();
                    let text = text.filter(|_| name.type_id == USER_PRINCIPAL_NAME);
                    read.personal_names.extend(text.map(|text| text.as_str().to_owned()));
                } else if let GeneralName::IpAddress(bytes) = name {
                    read.ip_addresses.extend(ip_address(bytes.as_bytes()));
                }
            }
        }
        if let Some((critical, usages)) = body
            .get::<x509_cert::ext::pkix::ExtendedKeyUsage>()
            .map_err(|error| encoding("extended key usage", error))?
        {
            read.extended_key_usage_is_critical = critical;
            read.extended_key_usages = Some(usages.0.iter().map(ExtendedKeyUsage::from_oid).collect());
        }
        read.key_usage =
            body.get::<KeyUsage>().map_err(|error| encoding("key usage", error))?.map(|(_, usage)| usage);
        if let Some((_, constraints)) =
            body.get::<BasicConstraints>().map_err(|error| encoding("basic constraints", error))?
        {
            read.is_ca = constraints.ca;
            read.path_length = constraints.path_len_constraint;
        }
        if let Some((_, points)) =
            body.get::<CrlDistributionPoints>().map_err(|error| encoding("CRL distribution points", error))?
        {
            read.crl_distribution_points = uris(&points);
            read.crl_point_names = distribution::own_names(&points, &body.issuer);
        }
        let has = |id| body.extensions.iter().flatten().any(|extension| extension.extn_id == id);
        read.has_name_constraints = has(ID_CE_NAME_CONSTRAINTS);
        read.has_policy_constraints = has(ID_CE_POLICY_CONSTRAINTS);
        Ok(read)
    }
}

/// Why bytes are not a certificate that we can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// More bytes than any certificate needs.
    #[error("{0} bytes; wanted a certificate of at most {CERTIFICATE_BYTES_MAX} bytes")]
    TooLarge(usize),
    /// A name with more attributes in one place than anybody has, or nesting that no certificate has.
    #[error("a SET of more than {SET_ELEMENTS_MAX} elements, or deep nesting; wanted an X.509 certificate")]
    LongSet,
    /// A part is not valid DER, or stands there twice.
    #[error("{part}: {problem}; wanted one X.509 certificate in strict DER")]
    Encoding {
        /// Which part of the certificate.
        part: &'static str,
        /// What the decoder says.
        problem: String,
    },
    /// It cannot be a trust anchor.
    #[error("not usable as a root: {problem}; wanted an X.509 certificate of a CA")]
    Anchor {
        /// What webpki says.
        problem: String,
    },
}

fn encoding(part: &'static str, error: der::Error) -> CertificateError {
    CertificateError::Encoding { part, problem: error.to_string() }
}

fn unix_time(since_epoch: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(since_epoch)
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn uris(points: &CrlDistributionPoints) -> Vec<String> {
    let mut uris = Vec::new();
    for point in &points.0 {
        let Some(DistributionPointName::FullName(names)) = &point.distribution_point else { continue };
        for name in names {
            if let GeneralName::UniformResourceIdentifier(uri) = name {
                uris.push(uri.to_string());
            }
        }
    }
    uris
}

/// Returns the last CN of the name, which is the most specific one.
fn common_name(name: &Name) -> Option<String> {
    let attributes = name.0.iter().rev().flat_map(|part| part.0.iter());
    attributes
        .filter(|attribute| attribute.oid == const_oid::db::rfc4519::CN)
        .find_map(|attribute| directory_string::text(&attribute.value))
}
