//! Extensions of a CRL, and of its entries, as they lie in the DER.

use der::Decode;
use x509_cert::ext::pkix::crl::IssuingDistributionPoint;
use x509_cert::ext::pkix::name::DistributionPointName;
use x509_cert::name::Name;

use super::coverage::{Covers, REASONS_ALL, Subjects};
use super::serials::Serial;
use super::tlv::{
    BOOLEAN, Cursor, INTEGER, Malformed, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, Tlv, integer,
};
use crate::certificate::distribution;

/// Most extensions of one CRL; real ones have two to six.
const EXTENSIONS_MAX: usize = 32;

/// id-ce-cRLNumber (RFC 5280 §5.2.3), as the bytes inside an OBJECT IDENTIFIER.
const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];
/// id-ce-deltaCRLIndicator (RFC 5280 §5.2.4).
const DELTA_CRL_INDICATOR: &[u8] = &[0x55, 0x1d, 0x1b];
/// id-ce-issuingDistributionPoint (RFC 5280 §5.2.5).
const ISSUING_DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 0x1c];
/// id-ce-authorityKeyIdentifier (RFC 5280 §5.2.1); the signature says more.
const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x23];

/// One extension.
pub(super) struct Extension<'a> {
    pub(super) id: &'a [u8],
    pub(super) is_critical: bool,
    pub(super) value: &'a [u8],
}

impl<'a> Extension<'a> {
    pub(super) fn read(element: &Tlv<'a>) -> Result<Self, Malformed> {
        let mut inside = Cursor::new(element.value);
        let id = inside.expect(OBJECT_IDENTIFIER, "an extension's OID")?.value;
        let is_critical = match inside.optional(&[BOOLEAN], "an extension's criticality")? {
            None => false,
            Some(Tlv { value: [0xff], .. }) => true,
            Some(Tlv { value: [0x00], .. }) => false, // A default that is written out; CAs do.
            Some(_) => return Err(Malformed::Value("an extension's criticality")),
        };
        let value = inside.expect(OCTET_STRING, "an extension's value")?.value;
        inside.end("an extension")?;
        Ok(Self { id, is_critical, value })
    }

    /// Returns the OID with dots, for messages.
    pub(super) fn id_text(&self) -> String {
        let dotted = const_oid::ObjectIdentifier::from_bytes(self.id);
        dotted.map_or_else(|_| hex::encode(self.id), |oid| oid.to_string())
    }
}

/// Why a CRL is not used, before its issuer's name is put in front.
#[derive(Debug)]
pub(super) enum Problem {
    /// Not strict DER.
    Malformed(Malformed),
    /// Of a kind that is not used.
    Unsupported(String),
}

impl From<Malformed> for Problem {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

fn unsupported<T>(got: impl Into<String>) -> Result<T, Problem> {
    Err(Problem::Unsupported(got.into()))
}

/// What the extensions of a CRL say.
#[derive(Default)]
pub(super) struct CrlExtensions {
    pub(super) number: Option<Serial>,
    /// The issuing distribution point as DER: CRLs of one signer and point replace each other.
    pub(super) point: Vec<u8>,
    pub(super) covers: Covers,
}

impl CrlExtensions {
    /// Reads the SEQUENCE of extensions; `issuer` is the CRL's.
    pub(super) fn read(list: &[u8], issuer: &Name) -> Result<Self, Problem> {
        let mut read = Self::default();
        let mut seen: Vec<&[u8]> = Vec::new();
        let mut inside = Cursor::new(list);
        while !inside.is_empty() {
            let extension = Extension::read(&inside.expect(SEQUENCE, "an extension")?)?;
            if seen.contains(&extension.id) {
                return Err(Malformed::Twice("an extension").into());
            }
            if seen.len() >= EXTENSIONS_MAX {
                return unsupported(format!("more than {EXTENSIONS_MAX} extensions"));
            }
            seen.push(extension.id);
            read.take(&extension, issuer)?;
        }
        Ok(read)
    }

    fn take(&mut self, extension: &Extension<'_>, issuer: &Name) -> Result<(), Problem> {
        match extension.id {
            CRL_NUMBER => self.number = Some(number(extension.value)?),
            DELTA_CRL_INDICATOR => return unsupported("a delta CRL"),
            ISSUING_DISTRIBUTION_POINT => {
                self.covers = covers(extension.value, issuer)?;
                self.point = extension.value.to_vec();
            }
            AUTHORITY_KEY_IDENTIFIER => {}
            _ if extension.is_critical => {
                return unsupported(format!("the unknown critical extension {}", extension.id_text()));
            }
            _ => {}
        }
        Ok(())
    }
}

/// RFC 5280 §5.2.3: at most 20 octets, never negative. Kept like a serial number, whose order is that of the numbers.
fn number(value: &[u8]) -> Result<Serial, Problem> {
    const WHAT: &str = "the CRLNumber";
    let mut inside = Cursor::new(value);
    let content = integer(&inside.expect(INTEGER, WHAT)?, WHAT)?;
    inside.end(WHAT)?;
    let is_negative = content.first().is_none_or(|first| *first >= 0x80);
    match Serial::new(content) {
        Some(number) if !is_negative => Ok(number),
        Some(_) | None => unsupported(format!("the CRLNumber {}", hex::encode(content))),
    }
}

/// RFC 5280 §5.2.5: for which certificates and reasons the CRL speaks.
fn covers(value: &[u8], issuer: &Name) -> Result<Covers, Problem> {
    let point = IssuingDistributionPoint::from_der(value)
        .map_err(|error| Problem::Unsupported(format!("a bad issuing distribution point: {error}")))?;
    if point.indirect_crl {
        return unsupported("an indirect CRL");
    }
    if point.only_contains_attribute_certs {
        return unsupported("a CRL for attribute certificates only");
    }
    let subjects = match (point.only_contains_user_certs, point.only_contains_ca_certs) {
        (false, false) => Subjects::All,
        (true, false) => Subjects::Users,
        (false, true) => Subjects::Authorities,
        (true, true) => return unsupported("a CRL for user certificates only and for CA certificates only"),
    };
    let reasons = point.only_some_reasons.map_or(REASONS_ALL, |some| some.bits() & REASONS_ALL);
    if reasons == 0 {
        return unsupported("a CRL for no reason at all");
    }
    let points = point
        .distribution_point
        .as_ref()
        .map(|name: &DistributionPointName| distribution::names(name, issuer));
    Ok(Covers { subjects, reasons, points })
}
