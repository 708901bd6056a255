//! CRLs made byte by byte, also such as no CA makes, and signed with a P-256 key.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use muster_pki::authority::Authority;
use muster_pki::pem;
use time::OffsetDateTime;

/// AlgorithmIdentifier of ecdsa-with-SHA256 (RFC 5758 §3.2).
pub(crate) const ECDSA_SHA256: &[u8] =
    &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

pub(crate) const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];
pub(crate) const REASON_CODE: &[u8] = &[0x55, 0x1d, 0x15];
pub(crate) const INVALIDITY_DATE: &[u8] = &[0x55, 0x1d, 0x18];
pub(crate) const DELTA_CRL_INDICATOR: &[u8] = &[0x55, 0x1d, 0x1b];
pub(crate) const ISSUING_DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 0x1c];
pub(crate) const CERTIFICATE_ISSUER: &[u8] = &[0x55, 0x1d, 0x1d];
/// An OID that nobody knows.
pub(crate) const UNKNOWN: &[u8] = &[0x55, 0x1d, 0x7f];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Critical {
    Yes,
    No,
}

/// The fields of a tbsCertList; all may be changed.
#[derive(Debug, Clone)]
pub(crate) struct CrlMaker {
    pub(crate) version: Option<u8>,
    pub(crate) algorithm: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) this_update: u64,
    pub(crate) next_update: Option<u64>,
    /// All entries, one behind the other.
    pub(crate) entries: Vec<u8>,
    pub(crate) extensions: Vec<Vec<u8>>,
    /// What stands behind everything else.
    pub(crate) rest: Vec<u8>,
    key_pem: String,
}

impl CrlMaker {
    /// A CRL without entries that nothing is wrong with, fresh for a week, with the number.
    pub(crate) fn new(authority: &Authority, this_update: u64, crl_number: u64) -> Self {
        Self {
            version: Some(1),
            algorithm: ECDSA_SHA256.to_vec(),
            issuer: authority.certificate().subject_der().to_vec(),
            this_update,
            next_update: Some(this_update + 7 * 86_400),
            entries: Vec::new(),
            extensions: vec![number(crl_number)],
            rest: Vec::new(),
            key_pem: authority.key_pem().to_string(),
        }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(crate) fn entry(mut self, entry: &[u8]) -> Self {
        self.entries.extend_from_slice(entry);
        self
    }

    pub(crate) fn extension(mut self, extension: Vec<u8>) -> Self {
        self.extensions.push(extension);
        self
    }

    pub(crate) fn sign(&self) -> Vec<u8> {
        seal(&self.body(), &self.key_pem)
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend(self.version.map(|version| tlv(0x02, &[&[version]])).unwrap_or_default());
        body.extend_from_slice(&self.algorithm);
        body.extend_from_slice(&self.issuer);
        body.extend(utc_time(self.this_update));
        body.extend(self.next_update.map(utc_time).unwrap_or_default());
        if !self.entries.is_empty() {
            body.extend(tlv(0x30, &[&self.entries]));
        }
        if !self.extensions.is_empty() {
            body.extend(tlv(0xa0, &[&tlv(0x30, &[&self.extensions.concat()])]));
        }
        body.extend_from_slice(&self.rest);
        tlv(0x30, &[&body])
    }

    pub(crate) fn key_pem(&self) -> &str {
        &self.key_pem
    }
}

/// Signs a tbsCertList.
pub(crate) fn seal(body: &[u8], key_pem: &str) -> Vec<u8> {
    let key = pem::private_key(key_pem.as_bytes(), "key").unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.secret_der()).unwrap();
    let signature = key.sign(&SystemRandom::new(), body).unwrap();
    tlv(0x30, &[body, ECDSA_SHA256, &tlv(0x03, &[&[0], signature.as_ref()])])
}

pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let digits: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|digit| *digit == 0).collect();
    let mut element = vec![tag];
    if length >= 0x80 {
        element.push(0x80 | u8::try_from(digits.len()).unwrap());
    }
    element.extend(if length == 0 { vec![0] } else { digits });
    parts.iter().for_each(|part| element.extend_from_slice(part));
    element
}

pub(crate) fn utc_time(seconds: u64) -> Vec<u8> {
    let at = OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap()).unwrap();
    let (year, month, day) = (at.year() % 100, u8::from(at.month()), at.day());
    let text = format!("{year:02}{month:02}{day:02}{:02}{:02}{:02}Z", at.hour(), at.minute(), at.second());
    tlv(0x17, &[text.as_bytes()])
}

/// An entry that was revoked in 2026; `serial` is the content of its INTEGER.
pub(crate) fn entry(serial: &[u8], extensions: &[Vec<u8>]) -> Vec<u8> {
    let serial = tlv(0x02, &[serial]);
    let date = tlv(0x17, &[b"260501000000Z"]);
    let extensions = if extensions.is_empty() { Vec::new() } else { tlv(0x30, &[&extensions.concat()]) };
    tlv(0x30, &[&serial, &date, &extensions])
}

pub(crate) fn extension(id: &[u8], critical: Critical, value: &[u8]) -> Vec<u8> {
    let critical = if critical == Critical::Yes { tlv(0x01, &[&[0xff]]) } else { Vec::new() };
    tlv(0x30, &[&tlv(0x06, &[id]), &critical, &tlv(0x04, &[value])])
}

pub(crate) fn number(number: u64) -> Vec<u8> {
    let digits = number.to_be_bytes();
    let digits: Vec<u8> = digits.into_iter().skip_while(|digit| *digit == 0).collect();
    let sign: &[u8] = if digits.first().is_none_or(|first| *first >= 0x80) { &[0] } else { &[] };
    extension(CRL_NUMBER, Critical::No, &tlv(0x02, &[sign, &digits]))
}

pub(crate) fn reason(reason: u8) -> Vec<u8> {
    extension(REASON_CODE, Critical::No, &tlv(0x0a, &[&[reason]]))
}

/// An issuing distribution point with these fields, in the order of their tags.
pub(crate) fn scope(fields: &[Vec<u8>]) -> Vec<u8> {
    extension(ISSUING_DISTRIBUTION_POINT, Critical::Yes, &tlv(0x30, &[&fields.concat()]))
}

/// A flag of an issuing distribution point: 1 user certificates, 2 CA certificates, 4 indirect, 5 attribute certificates.
pub(crate) fn flag(field: u8) -> Vec<u8> {
    tlv(0x80 | field, &[&[0xff]])
}

/// onlySomeReasons: the bits of RFC 5280 §4.2.1.13, the first to the left.
pub(crate) fn some_reasons(bits: [u8; 2]) -> Vec<u8> {
    match bits {
        [first, 0] => tlv(0x83, &[&[u8::try_from(first.trailing_zeros().min(7)).unwrap(), first]]),
        [first, second] => tlv(0x83, &[&[7, first, second & 0x80]]),
    }
}

/// The name of the distribution point, a URI.
pub(crate) fn point(uri: &str) -> Vec<u8> {
    tlv(0xa0, &[&tlv(0xa0, &[&tlv(0x86, &[uri.as_bytes()])])])
}

/// Serial numbers of 20 bytes as CAs make them at random, always the same ones.
pub(crate) fn serials(count: u64, seed: u64) -> impl Iterator<Item = [u8; 20]> {
    (0..count).map(move |n| {
        let mut serial = [0; 20];
        let mut state = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for chunk in serial.chunks_mut(8) {
            // splitmix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let bytes = (mixed ^ (mixed >> 31)).to_be_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        serial[0] = serial[0] & 0x7f | 0x01;
        serial
    })
}

/// A CRL of so many entries, each with a reason.
pub(crate) fn large(
    authority: &Authority,
    this_update: u64,
    crl_number: u64,
    count: u64,
    seed: u64,
) -> Vec<u8> {
    let reason = [reason(1)];
    let mut entries = Vec::new();
    serials(count, seed).for_each(|serial| entries.extend(entry(&serial, &reason)));
    CrlMaker::new(authority, this_update, crl_number).with(|crl| crl.entries = entries).sign()
}
