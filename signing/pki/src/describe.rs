//! [`describe()`]: what a PEM or DER file holds, for people. Nothing is verified, and no secret is in the answer.

use std::time::Duration;

use const_oid::AssociatedOid as _;
use const_oid::db::rfc5280::{ID_CE_CRL_NUMBER, ID_CE_DELTA_CRL_INDICATOR};
use const_oid::db::rfc5911::ID_SIGNED_DATA;
use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Encode, Reader, SliceReader, Tag, TagNumber, Tagged};
use rustls_pki_types::UnixTime;
use x509_cert::crl::CertificateList;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::crl::CrlNumber;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::request::{CertReq, ExtensionReq};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use crate::certificate::{Certificate, KeyKind, signature_name};
use crate::pem::{self, PemError};

/// Most items of a file that are described; a bundle of public roots has some 150.
pub const ITEMS_MAX: usize = 1_000;

/// One thing that a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A certificate.
    Certificate(Certificate),
    /// A certificate revocation list.
    Crl(CrlSummary),
    /// A PKCS#10 certificate request.
    Request(RequestSummary),
    /// A private key; only its kind is told.
    PrivateKey(KeySummary),
    /// A public key alone, by its algorithm.
    PublicKey(String),
    /// A CMS message.
    Envelope(EnvelopeSummary),
    /// A PKCS#12 file, which is not opened.
    Pfx,
    /// Something that is not read here, or cannot be.
    Other {
        /// The label of the PEM block; empty for DER.
        label: String,
        /// Why it is not described.
        problem: String,
    },
}

/// What a CRL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlSummary {
    /// Who made it (RFC 4514).
    pub issuer: String,
    /// Its CRLNumber in decimal, in hex where it is longer than 128 bits; `None` without the extension.
    pub number: Option<String>,
    /// When it was made.
    pub this_update: UnixTime,
    /// When the next one is due; `None`: it does not say, and no Muster program uses it (R5).
    pub next_update: Option<UnixTime>,
    /// How many certificates it revokes.
    pub entries: usize,
    /// It only adds to another one; no Muster program uses it (R5).
    pub is_delta: bool,
    /// What it is signed with.
    pub signature_algorithm: String,
}

/// What a certificate request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestSummary {
    /// The subject (RFC 4514).
    pub subject: String,
    /// The SAN dNSNames it asks for.
    pub dns_names: Vec<String>,
    /// The key's algorithm.
    pub key_algorithm: String,
    /// What it is signed with.
    pub signature_algorithm: String,
}

/// What kind of private key a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySummary {
    /// `PKCS#8`, `SEC 1`, `PKCS#1`, or `encrypted`.
    pub form: &'static str,
    /// The key's algorithm; `None` where it is encrypted.
    pub algorithm: Option<String>,
}

/// What a CMS message says it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeSummary {
    /// Its kind by name, such as `id-signedData`, else its OID.
    pub kind: String,
    /// The OID of what was signed (eContentType), if it is SignedData.
    pub content_type: Option<String>,
}

/// Tells what a PEM or DER file holds, in its order; `what` names the file in errors.
///
/// # Errors
/// It is too large, or nothing in it is PEM or DER.
pub fn describe(bytes: &[u8], what: &str) -> Result<Vec<Item>, PemError> {
    if bytes.len() > pem::FILE_BYTES_MAX {
        return Err(PemError::TooLarge { what: what.to_owned(), got: bytes.len() });
    }
    let sections = pem::sections(bytes);
    if sections.is_empty() {
        if bytes.first() == Some(&0x30) {
            return Ok(vec![of_der("", bytes)]);
        }
        let detail = ", or DER".to_owned();
        let wanted = "certificate, CRL, request, key or CMS message";
        return Err(PemError::Nothing { what: what.to_owned(), wanted, detail });
    }
    let item = |section: pem::Section| match section.der {
        Ok(der) => of_der(&section.label, &der),
        Err(_) if section.is_encrypted => Item::PrivateKey(KeySummary { form: "encrypted", algorithm: None }),
        Err(problem) => {
            Item::Other { label: section.label, problem: format!("line {}: {problem}", section.line) }
        }
    };
    Ok(sections.into_iter().take(ITEMS_MAX).map(item).collect())
}

/// Describes DER by the label it stood under, or by its looks where there is none.
fn of_der(label: &str, der: &[u8]) -> Item {
    let other = |problem: String| Item::Other { label: label.to_owned(), problem };
    let described = match label {
        "CERTIFICATE" | "X509 CERTIFICATE" => certificate(der),
        "X509 CRL" => crl(der).map_err(|error| error.to_string()),
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => request(der).map_err(|error| error.to_string()),
        "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" => {
            private_key(der).ok_or_else(|| "no private key of a known form".to_owned())
        }
        "PUBLIC KEY" => public_key(der).map_err(|error| error.to_string()),
        "CMS" | "PKCS7" => envelope(der).ok_or_else(|| "no CMS message".to_owned()),
        "" => by_looks(der),
        _ => Err("not read here".to_owned()),
    };
    described.unwrap_or_else(other)
}

fn by_looks(der: &[u8]) -> Result<Item, String> {
    let unknown = || "DER of none of: certificate, CRL, request, key, CMS message, PFX".to_owned();
    let parts = fields(der).map_err(|error| format!("no DER: {error}"))?;
    let tags: Vec<Tag> = parts.iter().map(Tagged::tag).collect();
    match tags[..] {
        [Tag::ObjectIdentifier, ..] => envelope(der).ok_or_else(unknown),
        [Tag::Integer, Tag::Sequence, ..] if pem::is_pfx(der) => Ok(Item::Pfx),
        [Tag::Integer, ..] | [Tag::Sequence, Tag::OctetString] => private_key(der).ok_or_else(unknown),
        [Tag::Sequence, Tag::BitString] => public_key(der).map_err(|_| unknown()),
        _ => {
            let certificate = certificate(der);
            certificate.or_else(|_| crl(der)).or_else(|_| request(der)).map_err(|_| unknown())
        }
    }
}

fn certificate(der: &[u8]) -> Result<Item, String> {
    Certificate::from_der(der).map(Item::Certificate).map_err(|error| error.to_string())
}

fn crl(der: &[u8]) -> der::Result<Item> {
    let list = CertificateList::from_der(der)?;
    let body = &list.tbs_cert_list;
    let extension = |oid: ObjectIdentifier| {
        body.crl_extensions.iter().flatten().find(|extension| extension.extn_id == oid)
    };
    let number = extension(ID_CE_CRL_NUMBER)
        .and_then(|extension| CrlNumber::from_der(extension.extn_value.as_bytes()).ok())
        .map(|number| decimal(number.0.as_bytes()));
    let moment = |since_epoch: Duration| UnixTime::since_unix_epoch(since_epoch);
    Ok(Item::Crl(CrlSummary {
        issuer: body.issuer.to_string(),
        number,
        this_update: moment(body.this_update.to_unix_duration()),
        next_update: body.next_update.map(|time| moment(time.to_unix_duration())),
        entries: body.revoked_certificates.as_ref().map_or(0, Vec::len),
        is_delta: extension(ID_CE_DELTA_CRL_INDICATOR).is_some(),
        signature_algorithm: signature_name(&list.signature_algorithm.oid),
    }))
}

/// Writes a number in decimal; one of more than 128 bits in hex.
fn decimal(big_endian: &[u8]) -> String {
    if big_endian.len() > 16 {
        return format!("0x{}", hex::encode(big_endian));
    }
    big_endian.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte)).to_string()
}

fn request(der: &[u8]) -> der::Result<Item> {
    let request = CertReq::from_der(der)?;
    Ok(Item::Request(RequestSummary {
        subject: request.info.subject.to_string(),
        dns_names: requested_names(&request),
        key_algorithm: KeyKind::of(&request.info.public_key).to_string(),
        signature_algorithm: signature_name(&request.algorithm.oid),
    }))
}

fn requested_names(request: &CertReq) -> Vec<String> {
    let mut names = Vec::new();
    let asked = request.info.attributes.iter().filter(|attribute| attribute.oid == ExtensionReq::OID);
    for value in asked.flat_map(|attribute| attribute.values.iter()) {
        let Ok(extensions) = value.to_der().and_then(|der| ExtensionReq::from_der(&der)) else { continue };
        for extension in extensions.0.iter().filter(|extension| extension.extn_id == SubjectAltName::OID) {
            let Ok(asked) = SubjectAltName::from_der(extension.extn_value.as_bytes()) else { continue };
            for name in asked.0 {
                if let GeneralName::DnsName(name) = name {
                    names.push(name.to_string());
                }
            }
        }
    }
    names
}

fn public_key(der: &[u8]) -> der::Result<Item> {
    let key = SubjectPublicKeyInfoOwned::from_der(der)?;
    Ok(Item::PublicKey(KeyKind::of(&key).to_string()))
}

/// Tells a private key's form and algorithm by its outer fields.
fn private_key(der: &[u8]) -> Option<Item> {
    let parts = fields(der).ok()?;
    let tags: Vec<Tag> = parts.iter().map(Tagged::tag).collect();
    let (form, kind) = match tags[..] {
        [Tag::Sequence, Tag::OctetString] => ("encrypted", None),
        [Tag::Integer, Tag::Sequence, Tag::OctetString, ..] => {
            let algorithm = elements(parts.get(1)?.value()).ok()?;
            let oid = algorithm.first()?.decode_as::<ObjectIdentifier>().ok()?;
            let parameters = algorithm.get(1).and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
            let bits = || fields(parts.get(2)?.value()).ok().and_then(|key| modulus_bits(&key));
            ("PKCS#8", Some(KeyKind::from_parts(oid, parameters, || bits().unwrap_or(0))))
        }
        [Tag::Integer, Tag::OctetString, ..] => ("SEC 1", Some(curve(&parts)?)),
        [Tag::Integer, Tag::Integer, Tag::Integer, ..] => {
            ("PKCS#1", Some(KeyKind::Rsa { bits: modulus_bits(&parts)? }))
        }
        _ => return None,
    };
    Some(Item::PrivateKey(KeySummary { form, algorithm: kind.map(|kind| kind.to_string()) }))
}

/// RFC 5915 §3: the curve stands under the tag with the number 0.
fn curve(sec1: &[AnyRef<'_>]) -> Option<KeyKind> {
    let number = Tag::ContextSpecific { constructed: true, number: TagNumber::N0 };
    let parameters = sec1.iter().find(|part| part.tag() == number)?;
    let oid = ObjectIdentifier::from_der(parameters.value()).ok()?;
    Some(KeyKind::on_curve(oid))
}

/// RFC 8017 §A.1.2: version, then the modulus.
fn modulus_bits(pkcs1: &[AnyRef<'_>]) -> Option<usize> {
    let modulus = pkcs1.get(1)?.decode_as::<der::asn1::UintRef<'_>>().ok()?;
    let leading = usize::try_from(modulus.as_bytes().first()?.leading_zeros()).ok()?;
    (modulus.as_bytes().len() * 8).checked_sub(leading)
}

/// RFC 5652 §3 and §5.1: the kind, and of SignedData the type of what was signed.
fn envelope(der: &[u8]) -> Option<Item> {
    let outer = fields(der).ok()?;
    let kind = outer.first()?.decode_as::<ObjectIdentifier>().ok()?;
    let content_type = || {
        let signed = fields(outer.get(1)?.value()).ok()?;
        let content = signed.get(2).filter(|content| content.tag() == Tag::Sequence)?;
        elements(content.value()).ok()?.first()?.decode_as::<ObjectIdentifier>().ok()
    };
    let content_type = (kind == ID_SIGNED_DATA).then(content_type).flatten();
    Some(Item::Envelope(EnvelopeSummary {
        kind: signature_name(&kind),
        content_type: content_type.map(|oid| oid.to_string()),
    }))
}

/// Returns what stands in a SEQUENCE.
fn fields(der: &[u8]) -> der::Result<Vec<AnyRef<'_>>> {
    let outer = AnyRef::from_der(der)?;
    outer.tag().assert_eq(Tag::Sequence)?;
    elements(outer.value())
}

fn elements(body: &[u8]) -> der::Result<Vec<AnyRef<'_>>> {
    let mut reader = SliceReader::new(body)?;
    let mut found = Vec::new();
    while !reader.is_finished() {
        found.push(reader.decode()?);
    }
    Ok(found)
}
