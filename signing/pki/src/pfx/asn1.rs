//! The structures of RFC 7292 and RFC 8018 that a PFX is made of, borrowed from its bytes.
//!
//! Bag attributes (friendlyName, localKeyId, Microsoft's) are left undecoded: nothing rests on them, and real files
//! write them in ways that strict decoders refuse.

use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use der::{Reader, Sequence};
use x509_cert::spki::AlgorithmIdentifierRef;

/// RFC 7292 §4.
#[derive(Debug, Sequence)]
pub(super) struct Pfx<'a> {
    pub(super) version: u8,
    pub(super) auth_safe: ContentInfo<'a>,
    #[asn1(optional = "true")]
    pub(super) mac: Option<Mac<'a>>,
}

/// RFC 5652 §3.
#[derive(Debug, Sequence)]
pub(super) struct ContentInfo<'a> {
    pub(super) content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(super) content: AnyRef<'a>,
}

/// RFC 7292 §4, MacData.
#[derive(Debug, Sequence)]
pub(super) struct Mac<'a> {
    pub(super) digest: DigestInfo<'a>,
    pub(super) salt: OctetStringRef<'a>,
    #[asn1(default = "one")]
    pub(super) iterations: u32,
}

/// RFC 8017 §9.2.
#[derive(Debug, Sequence)]
pub(super) struct DigestInfo<'a> {
    pub(super) algorithm: AlgorithmIdentifierRef<'a>,
    pub(super) digest: OctetStringRef<'a>,
}

/// RFC 5652 §8.
#[derive(Debug, Sequence)]
pub(super) struct EncryptedData<'a> {
    pub(super) version: u8,
    pub(super) content: EncryptedContent<'a>,
}

/// RFC 5652 §6.1.
#[derive(Debug, Sequence)]
pub(super) struct EncryptedContent<'a> {
    pub(super) content_type: ObjectIdentifier,
    pub(super) algorithm: AlgorithmIdentifierRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) bytes: Option<OctetStringRef<'a>>,
}

/// RFC 7292 §4.2.
#[derive(Debug, Sequence)]
pub(super) struct SafeBag<'a> {
    pub(super) kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(super) value: AnyRef<'a>,
    #[asn1(optional = "true")]
    pub(super) attributes: Option<AnyRef<'a>>,
}

/// RFC 7292 §4.2.3.
#[derive(Debug, Sequence)]
pub(super) struct CertificateBag<'a> {
    pub(super) kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(super) value: AnyRef<'a>,
}

/// RFC 5958 §3.
#[derive(Debug, Sequence)]
pub(super) struct EncryptedPrivateKey<'a> {
    pub(super) algorithm: AlgorithmIdentifierRef<'a>,
    pub(super) bytes: OctetStringRef<'a>,
}

/// RFC 7292 §C, pkcs-12PbeParams.
#[derive(Debug, Sequence)]
pub(super) struct Pbes1Parameters<'a> {
    pub(super) salt: OctetStringRef<'a>,
    pub(super) iterations: u32,
}

/// RFC 8018 §A.4.
#[derive(Debug, Sequence)]
pub(super) struct Pbes2Parameters<'a> {
    pub(super) derivation: AlgorithmIdentifierRef<'a>,
    pub(super) encryption: AlgorithmIdentifierRef<'a>,
}

/// RFC 8018 §A.2.
#[derive(Debug, Sequence)]
pub(super) struct Pbkdf2Parameters<'a> {
    pub(super) salt: OctetStringRef<'a>,
    pub(super) iterations: u32,
    #[asn1(optional = "true")]
    pub(super) key_length: Option<u16>,
    #[asn1(optional = "true")]
    pub(super) function: Option<AlgorithmIdentifierRef<'a>>,
}

/// The default of MacData's iterations.
fn one() -> u32 {
    1
}

/// Returns how many bytes the outermost element says that it has, header included; `None` if it says none.
pub(super) fn announced_length(bytes: &[u8]) -> Option<usize> {
    let reader = der::SliceReader::new(bytes).ok()?;
    let header = reader.peek_header().ok()?;
    let of_header = der::Encode::encoded_len(&header).ok()?;
    usize::try_from((of_header + header.length).ok()?).ok()
}

pub(super) const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
pub(super) const ENCRYPTED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.6");
pub(super) const KEY_BAG: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.1");
pub(super) const SHROUDED_KEY_BAG: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.2");
pub(super) const CERTIFICATE_BAG: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.3");
pub(super) const X509_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.22.1");
