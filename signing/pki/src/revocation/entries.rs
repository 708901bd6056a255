//! The entries of a CRL, streamed over the DER: nothing is built but the array of serial numbers.

use der::Decode as _;
use der::asn1::GeneralizedTime;
use x509_cert::time::Time;

use super::extension::{Extension, Problem};
use super::serials::{CRL_ENTRIES_MAX, Entry, Serial};
use super::tlv::{
    Cursor, ENUMERATED, GENERALIZED_TIME, INTEGER, Malformed, SEQUENCE, Tlv, UTC_TIME, integer,
};

/// id-ce-cRLReasons (RFC 5280 §5.3.1), as the bytes inside an OBJECT IDENTIFIER.
const REASON_CODE: &[u8] = &[0x55, 0x1d, 0x15];
/// id-ce-invalidityDate (RFC 5280 §5.3.2): since when the key may have been in other hands, which is before the revocation.
const INVALIDITY_DATE: &[u8] = &[0x55, 0x1d, 0x18];
/// id-ce-certificateIssuer (RFC 5280 §5.3.3): the entry is about another CA's certificate.
const CERTIFICATE_ISSUER: &[u8] = &[0x55, 0x1d, 0x1d];

/// removeFromCRL (RFC 5280 §5.3.1).
const REMOVE_FROM_CRL: u8 = 8;

/// Whether entries may have extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// Returns what the entries in `list` revoke, in their order.
///
/// Every reason but removeFromCRL revokes, certificateHold too. An entry with removeFromCRL says that the certificate is good
/// again; it belongs into delta CRLs and is passed over, as OpenSSL does. Another entry of the same number still revokes.
pub(super) fn read(list: &[u8], version: Version) -> Result<Vec<Entry>, Problem> {
    let mut entries = Vec::with_capacity(count(list)?);
    let mut cursor = Cursor::new(list);
    while !cursor.is_empty() {
        let element = cursor.expect(SEQUENCE, "an entry")?;
        entries.extend(entry(&element, version)?);
    }
    Ok(entries)
}

/// Counts first, so that the array is allocated once, and by what is there.
fn count(list: &[u8]) -> Result<usize, Problem> {
    let mut cursor = Cursor::new(list);
    let mut count = 0;
    while !cursor.is_empty() {
        cursor.any("an entry")?;
        count += 1;
    }
    if count > CRL_ENTRIES_MAX {
        return Err(Problem::Unsupported(format!("{count} entries, more than {CRL_ENTRIES_MAX}")));
    }
    Ok(count)
}

fn entry(element: &Tlv<'_>, version: Version) -> Result<Option<Entry>, Problem> {
    let mut inside = Cursor::new(element.value);
    let content = integer(&inside.expect(INTEGER, "an entry's serial number")?, "an entry's serial number")?;
    let Some(serial) = Serial::new(content) else {
        let bytes = content.len();
        return Err(Problem::Unsupported(format!("an entry with a serial number of {bytes} bytes")));
    };
    let date = inside.any("an entry's revocation date")?;
    match (date.tag, date.value.len()) {
        (UTC_TIME, 13) | (GENERALIZED_TIME, 15) => {}
        (UTC_TIME | GENERALIZED_TIME, _) => {
            return Err(Malformed::Value("an entry's revocation date").into());
        }
        (got, _) => return Err(Malformed::Tag { what: "an entry's revocation date", got }.into()),
    }
    let extensions = inside.optional(&[SEQUENCE], "an entry's extensions")?;
    inside.end("an entry")?;
    let revoked = Entry::new(serial, since(Time::from_der(date.bytes).ok()));
    let Some(extensions) = extensions else { return Ok(Some(revoked)) };
    if version == Version::V1 {
        return Err(Problem::Unsupported("an entry with extensions in a CRL of version 1".to_owned()));
    }
    refined(revoked, &extensions)
}

/// Returns a time in Unix seconds. One that is none, or beyond 2106, counts as since ever: it excuses no signature.
fn since(time: Option<Time>) -> u32 {
    time.and_then(|time| u32::try_from(time.to_unix_duration().as_secs()).ok()).unwrap_or(0)
}

/// Returns what the extensions of an entry make of it.
fn refined(mut revoked: Entry, extensions: &Tlv<'_>) -> Result<Option<Entry>, Problem> {
    let mut told = None;
    let mut cursor = Cursor::new(extensions.value);
    while !cursor.is_empty() {
        let extension = Extension::read(&cursor.expect(SEQUENCE, "an extension")?)?;
        match extension.id {
            REASON_CODE if told.is_some() => return Err(Malformed::Twice("an entry's reason").into()),
            REASON_CODE => told = Some(reason(extension.value)?),
            INVALIDITY_DATE => {
                let date = GeneralizedTime::from_der(extension.value).ok().map(Time::GeneralTime);
                revoked.also_since(since(date));
            }
            CERTIFICATE_ISSUER => {
                let got = "an indirect CRL (an entry with a certificateIssuer)";
                return Err(Problem::Unsupported(got.to_owned()));
            }
            _ if extension.is_critical => {
                let got = format!("an entry with the unknown critical extension {}", extension.id_text());
                return Err(Problem::Unsupported(got));
            }
            _ => {}
        }
    }
    Ok((told != Some(REMOVE_FROM_CRL)).then_some(revoked))
}

fn reason(value: &[u8]) -> Result<u8, Malformed> {
    const WHAT: &str = "an entry's reason";
    let mut inside = Cursor::new(value);
    let element = inside.expect(ENUMERATED, WHAT)?;
    inside.end(WHAT)?;
    match element.value {
        [reason] => Ok(*reason),
        _ => Err(Malformed::Value(WHAT)),
    }
}
