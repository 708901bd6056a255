//! Reading one CRL: form, signature, kind and time (R5).
//!
//! The DER is walked where it lies. The signature is verified once, over the bytes of the tbsCertList, before any entry is
//! looked at (R7).

use std::time::Duration;

use der::{Decode, Encode};
use rustls_pki_types::UnixTime;
use x509_cert::name::Name;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::Time;

use super::CrlError;
use super::coverage::Covers;
use super::entries::{self, Version};
use super::error::CrlWarning;
use super::extension::CrlExtensions;
use super::serials::{Serial, SerialSet};
use super::tlv::{
    BIT_STRING, Cursor, EXPLICIT_0, GENERALIZED_TIME, INTEGER, Malformed, SEQUENCE, Tlv, UTC_TIME,
};
use crate::certificate::{Certificate, SignatureProblem, signature_name, verify_signature};
use crate::instant;
use crate::shape::has_short_sets;

/// How far thisUpdate may lie in the future: clocks of a CA and of a Switch differ by minutes at most.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// A CRL that is used.
#[derive(Debug)]
pub(super) struct Crl {
    /// The CA whose key made the signature.
    pub(super) signer: Certificate,
    /// Its issuing distribution point, as DER; empty without one.
    pub(super) point: Vec<u8>,
    pub(super) covers: Covers,
    pub(super) number: Option<Serial>,
    pub(super) this_update: UnixTime,
    pub(super) next_update: UnixTime,
    pub(super) revoked: SerialSet,
}

/// A CRL that was read, and whose it is.
pub(super) struct Read {
    pub(super) issuer: String,
    pub(super) issuer_der: Vec<u8>,
    pub(super) crl: Crl,
    pub(super) warnings: Vec<CrlWarning>,
}

impl Read {
    pub(super) fn new(der: &[u8], issuers: &[Certificate], now: UnixTime) -> Result<Self, CrlError> {
        let malformed = |malformed: Malformed| CrlError::Encoding(malformed.to_string());
        let signed = Signed::split(der).map_err(malformed)?;
        let body = Body::split(signed.body.value).map_err(malformed)?;
        if !has_short_sets(body.issuer) || !has_short_sets(body.extensions) {
            return Err(CrlError::Encoding("a SET of more elements than any CA writes".to_owned()));
        }
        let name = Name::from_der(body.issuer).map_err(|error| CrlError::Encoding(error.to_string()))?;
        let issuer = name.to_string();
        // Written again, since certificates' names are compared as they were written again.
        let issuer_der = name.to_der().map_err(|error| CrlError::Encoding(error.to_string()))?;
        if body.algorithm != signed.algorithm {
            return Err(CrlError::Encoding("two different signature algorithms".to_owned()));
        }
        let signer = signed.signer(&issuer, &issuer_der, issuers)?;

        let unsupported = |got: &str| CrlError::Unsupported { issuer: issuer.clone(), got: got.to_owned() };
        let this_update = time(&body.this_update)?;
        let next_update = body.next_update.as_ref().ok_or_else(|| unsupported("no nextUpdate"))?;
        let next_update = time(next_update)?;
        if this_update.as_secs() > now.as_secs().saturating_add(CLOCK_TOLERANCE.as_secs()) {
            return Err(CrlError::Future { issuer, this_update: instant::text(this_update) });
        }
        if next_update < this_update {
            return Err(unsupported("a nextUpdate before its thisUpdate"));
        }
        let extensions =
            CrlExtensions::read(body.extensions, &name).map_err(|problem| problem.of(&issuer))?;
        let entries = entries::read(body.entries, body.version).map_err(|problem| problem.of(&issuer))?;
        let mut warnings = Vec::new();
        if extensions.number.is_none() {
            warnings.push(CrlWarning::NoNumber);
        }
        if next_update <= now {
            warnings.push(CrlWarning::Expired { next_update });
        }
        let crl = Crl {
            signer,
            point: extensions.point,
            covers: extensions.covers,
            number: extensions.number,
            this_update,
            next_update,
            revoked: SerialSet::new(entries),
        };
        Ok(Self { issuer, issuer_der, crl, warnings })
    }
}

impl Crl {
    /// Returns whether this one is older than `known`, of the same signer and scope. The number decides; where one of them has
    /// none, or both the same, thisUpdate does (R5).
    pub(super) fn is_older_than(&self, known: &Self) -> bool {
        match (self.number, known.number) {
            (Some(ours), Some(theirs)) if ours != theirs => ours < theirs,
            (Some(_) | None, Some(_) | None) => self.this_update < known.this_update,
        }
    }

    /// Returns when it was made and its number, for messages.
    pub(super) fn age(&self) -> String {
        let made = instant::text(self.this_update);
        match self.number {
            Some(number) => format!("{made} with the number 0x{number}"),
            None => format!("{made} without a number"),
        }
    }
}

/// The three parts of a CRL (RFC 5280 §5.1).
struct Signed<'a> {
    body: Tlv<'a>,
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    fn split(der: &'a [u8]) -> Result<Self, Malformed> {
        let mut outside = Cursor::new(der);
        let list = outside.expect(SEQUENCE, "the CRL")?;
        outside.end("the CRL")?;
        let mut inside = Cursor::new(list.value);
        let body = inside.expect(SEQUENCE, "the tbsCertList")?;
        let algorithm = inside.expect(SEQUENCE, "the signature algorithm")?.bytes;
        let signature = inside.expect(BIT_STRING, "the signature")?.value;
        inside.end("the signature")?;
        match signature {
            [0, signature @ ..] => Ok(Self { body, algorithm, signature }),
            _ => Err(Malformed::Value("the signature")),
        }
    }

    /// Returns the candidate that has the issuer's name, may sign CRLs, and signed this one.
    ///
    /// Each key of that name is tried, and each try hashes the whole CRL: were there a bound here, CAs that took the name first
    /// would keep the lists of the true one out. How many candidates there are is the caller's to bound.
    fn signer(
        &self,
        issuer: &str,
        issuer_der: &[u8],
        issuers: &[Certificate],
    ) -> Result<Certificate, CrlError> {
        let algorithm = AlgorithmIdentifierOwned::from_der(self.algorithm)
            .map_err(|error| CrlError::Encoding(error.to_string()))?;
        let mut tried: Vec<&Certificate> = Vec::new();
        let mut last = None;
        for candidate in issuers.iter().filter(|candidate| may_sign(candidate, issuer_der)) {
            if tried.iter().any(|tried| tried.spki_der() == candidate.spki_der()) {
                continue;
            }
            tried.push(candidate);
            if candidate.key().is_weak() {
                last = last.or_else(|| Some(format!("signed by a key of {}", candidate.key_algorithm())));
                continue;
            }
            match verify_signature(candidate.certificate_der(), &algorithm, self.body.bytes, self.signature) {
                Ok(()) => return Ok(candidate.clone()),
                Err(SignatureProblem::Wrong) => {
                    last = Some("a signature that the issuer's key did not make".to_owned());
                }
                Err(SignatureProblem::Unsupported) => {
                    let name = signature_name(&algorithm.oid);
                    last = Some(format!("a signature with {name}, which is not accepted"));
                }
            }
        }
        let issuer = issuer.to_owned();
        match last {
            Some(problem) => Err(CrlError::Signature { issuer, problem }),
            None => Err(CrlError::UnknownIssuer { issuer }),
        }
    }
}

/// A CA of that name whose Key Usage does not forbid it; or one whose Key Usage cRLSign makes it the CA's signer of CRLs.
fn may_sign(candidate: &Certificate, issuer_der: &[u8]) -> bool {
    let has_name = candidate.subject_der() == issuer_der;
    has_name
        && match candidate.key_usage() {
            Some(usage) => usage.crl_sign(),
            None => candidate.is_ca() || candidate.is_self_signed(),
        }
}

/// The fields of a tbsCertList (RFC 5280 §5.1.2).
struct Body<'a> {
    version: Version,
    algorithm: &'a [u8],
    issuer: &'a [u8],
    this_update: Tlv<'a>,
    next_update: Option<Tlv<'a>>,
    entries: &'a [u8],
    extensions: &'a [u8],
}

impl<'a> Body<'a> {
    fn split(body: &'a [u8]) -> Result<Self, Malformed> {
        const TIMES: [u8; 2] = [UTC_TIME, GENERALIZED_TIME];
        let mut inside = Cursor::new(body);
        let version = match inside.optional(&[INTEGER], "the version")? {
            None => Version::V1,
            Some(Tlv { value: [1], .. }) => Version::V2,
            Some(_) => return Err(Malformed::Value("the version")),
        };
        let algorithm = inside.expect(SEQUENCE, "the inner signature algorithm")?.bytes;
        let issuer = inside.expect(SEQUENCE, "the issuer")?.bytes;
        let this_update = inside.optional(&TIMES, "thisUpdate")?.ok_or(Malformed::Missing("thisUpdate"))?;
        let next_update = inside.optional(&TIMES, "nextUpdate")?;
        let entries = inside.optional(&[SEQUENCE], "the entries")?.map_or(&[][..], |entries| entries.value);
        let extensions = match (inside.optional(&[EXPLICIT_0], "the extensions")?, version) {
            (None, _) => &[][..],
            (Some(_), Version::V1) => return Err(Malformed::Value("the version")),
            (Some(explicit), Version::V2) => {
                let mut explicit = Cursor::new(explicit.value);
                let extensions = explicit.expect(SEQUENCE, "the extensions")?.value;
                explicit.end("the extensions")?;
                extensions
            }
        };
        inside.end("the tbsCertList")?;
        Ok(Self { version, algorithm, issuer, this_update, next_update, entries, extensions })
    }
}

fn time(element: &Tlv<'_>) -> Result<UnixTime, CrlError> {
    let time = Time::from_der(element.bytes).map_err(|error| CrlError::Encoding(error.to_string()))?;
    Ok(UnixTime::since_unix_epoch(time.to_unix_duration()))
}
