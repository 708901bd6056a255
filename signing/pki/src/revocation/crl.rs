//! Reading one CRL: form, kind, time and signature (R5).

use std::collections::HashSet;
use std::time::Duration;

use const_oid::db::rfc5280::{
    ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_CRL_NUMBER, ID_CE_DELTA_CRL_INDICATOR,
    ID_CE_ISSUING_DISTRIBUTION_POINT,
};
use der::{Decode, Encode};
use rustls_pki_types::UnixTime;
use x509_cert::crl::{CertificateList, RevokedCert, TbsCertList};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::crl::{CrlNumber, IssuingDistributionPoint};

use super::{CrlError, Entry, Number, Scope, Serial};
use crate::certificate::{Certificate, SignatureProblem, signature_name, signed_parts, verify_signature};
use crate::instant;

/// How far thisUpdate may lie in the future: clocks of a CA and of a Switch differ by minutes at most.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// A CRL that may be used.
pub(super) struct Crl {
    pub(super) issuer: String,
    pub(super) issuer_der: Vec<u8>,
    pub(super) scope: Scope,
    pub(super) entry: Entry,
}

impl Crl {
    pub(super) fn read(der: &[u8], issuers: &[Certificate], now: UnixTime) -> Result<Self, CrlError> {
        let encoding = |error: der::Error| CrlError::Encoding(error.to_string());
        let list = CertificateList::from_der(der).map_err(encoding)?;
        let body = &list.tbs_cert_list;
        let issuer = body.issuer.to_string();
        let issuer_der = body.issuer.to_der().map_err(encoding)?;
        if body.signature != list.signature_algorithm {
            return Err(CrlError::Encoding("two different signature algorithms".to_owned()));
        }
        verify(der, &issuer, &issuer_der, issuers)?;

        let unsupported = |got: String| CrlError::Unsupported { issuer: issuer.clone(), got };
        let extensions = Extensions::read(body).map_err(unsupported)?;
        let this_update = UnixTime::since_unix_epoch(body.this_update.to_unix_duration());
        let next_update = body.next_update.ok_or_else(|| unsupported("no nextUpdate".to_owned()))?;
        if this_update.as_secs() > now.as_secs().saturating_add(CLOCK_TOLERANCE.as_secs()) {
            return Err(CrlError::Future { issuer, this_update: instant::text(this_update) });
        }
        let revoked = body.revoked_certificates.as_deref().unwrap_or_default();
        let entry = Entry {
            number: extensions.number,
            this_update,
            next_update: UnixTime::since_unix_epoch(next_update.to_unix_duration()),
            revoked: serials(revoked).map_err(unsupported)?,
        };
        Ok(Self { issuer, issuer_der, scope: extensions.scope, entry })
    }
}

fn verify(der: &[u8], issuer: &str, issuer_der: &[u8], issuers: &[Certificate]) -> Result<(), CrlError> {
    let (message, algorithm, signature) =
        signed_parts(der).ok_or_else(|| CrlError::Encoding("not three parts".to_owned()))?;
    let may_sign = |candidate: &&Certificate| {
        candidate.subject_der() == issuer_der
            && (candidate.is_ca() || candidate.is_self_signed())
            && candidate.key_usage().is_none_or(|usage| usage.crl_sign())
    };
    let mut last = None;
    for candidate in issuers.iter().filter(may_sign) {
        match verify_signature(candidate.certificate_der(), &algorithm, message, &signature) {
            Ok(()) => return Ok(()),
            Err(problem) => last = Some(problem),
        }
    }
    let issuer = issuer.to_owned();
    let problem = match last {
        None => return Err(CrlError::UnknownIssuer { issuer }),
        Some(SignatureProblem::Wrong) => "a signature that the issuer's key did not make".to_owned(),
        Some(SignatureProblem::Unsupported) => {
            format!("a signature with {}, which is not accepted", signature_name(&algorithm.oid))
        }
    };
    Err(CrlError::Signature { issuer, problem })
}

/// What the CRL extensions say.
struct Extensions {
    number: Option<Number>,
    scope: Scope,
}

impl Extensions {
    fn read(body: &TbsCertList) -> Result<Self, String> {
        let mut read = Self { number: None, scope: Scope::default() };
        for extension in body.crl_extensions.iter().flatten() {
            let value = extension.extn_value.as_bytes();
            if extension.extn_id == ID_CE_DELTA_CRL_INDICATOR {
                return Err("a delta CRL".to_owned());
            } else if extension.extn_id == ID_CE_ISSUING_DISTRIBUTION_POINT {
                refuse_partial(value)?;
                read.scope.1 = value.to_vec();
            } else if extension.extn_id == ID_CE_CRL_NUMBER {
                let number =
                    CrlNumber::from_der(value).map_err(|error| format!("a bad CRLNumber: {error}"))?;
                let bytes = number.0.as_bytes();
                read.number = Some((bytes.len(), bytes.to_vec()));
            } else if extension.extn_id == ID_CE_AUTHORITY_KEY_IDENTIFIER {
                read.scope.0 = value.to_vec();
            } else if extension.critical {
                return Err(format!("the unknown critical extension {}", extension.extn_id));
            }
        }
        Ok(read)
    }
}

/// Refuses CRLs that speak for other issuers, or for some reasons or attribute certificates only.
fn refuse_partial(value: &[u8]) -> Result<(), String> {
    let point = IssuingDistributionPoint::from_der(value)
        .map_err(|error| format!("a bad issuing distribution point: {error}"))?;
    if point.indirect_crl {
        return Err("an indirect CRL".to_owned());
    }
    if point.only_some_reasons.is_some() {
        return Err("a CRL for some reasons only".to_owned());
    }
    if point.only_contains_attribute_certs {
        return Err("a CRL for attribute certificates only".to_owned());
    }
    Ok(())
}

fn serials(revoked: &[RevokedCert]) -> Result<HashSet<Serial>, String> {
    let is_critical = |extension: &&Extension| extension.critical;
    let mut serials = HashSet::with_capacity(revoked.len());
    for entry in revoked {
        if let Some(extension) = entry.crl_entry_extensions.iter().flatten().find(is_critical) {
            // Foremost certificateIssuer, which makes the CRL an indirect one.
            return Err(format!("an entry with the critical extension {}", extension.extn_id));
        }
        serials.extend(Serial::new(entry.serial_number.as_bytes()));
    }
    Ok(serials)
}
