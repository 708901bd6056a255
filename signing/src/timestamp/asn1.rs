//! The structures of RFC 3161, as far as they are used.

use std::time::Duration;

use der::asn1::{Any, BitString, Int, OctetString, Uint};
use der::{DateTime, Sequence, Tag, Tagged as _};
use muster_pki::UnixTime;
use x509_cert::ext::Extensions;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::spki::{AlgorithmIdentifierOwned, ObjectIdentifier};

/// What is stamped: the digest of it (§2.4.1).
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct MessageImprint {
    pub(super) hash_algorithm: AlgorithmIdentifierOwned,
    pub(super) hashed_message: OctetString,
}

/// TimeStampReq (§2.4.1), without policy and extensions, which we don't ask for.
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct TimeStampRequest {
    pub(super) version: u8,
    pub(super) message_imprint: MessageImprint,
    pub(super) nonce: Uint,
    /// `certReq` has the default FALSE; we write TRUE.
    pub(super) certificates_wanted: bool,
}

/// TimeStampResp (§2.4.2).
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct TimeStampResponse {
    pub(super) status: StatusInfo,
    #[asn1(optional = "true")]
    pub(super) token: Option<Any>,
}

/// PKIStatusInfo (§2.4.2).
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct StatusInfo {
    pub(super) status: u8,
    #[asn1(optional = "true")]
    pub(super) texts: Option<Vec<String>>,
    #[asn1(optional = "true")]
    pub(super) failure: Option<BitString>,
}

/// TSTInfo (§2.4.2): what the authority signs.
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct TstInfo {
    pub(super) version: u8,
    pub(super) policy: ObjectIdentifier,
    pub(super) message_imprint: MessageImprint,
    pub(super) serial_number: Int,
    /// A GeneralizedTime, which may have a fraction of a second here; [`TstInfo::at`] reads it.
    pub(super) gen_time: Any,
    #[asn1(optional = "true")]
    pub(super) accuracy: Option<Accuracy>,
    #[asn1(default = "no")]
    pub(super) ordering: bool,
    #[asn1(optional = "true")]
    pub(super) nonce: Option<Uint>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) authority: Option<GeneralName>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    pub(super) extensions: Option<Extensions>,
}

/// How far genTime may be off (§2.4.2). Read for its form; a second more or less decides nothing here.
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct Accuracy {
    #[asn1(optional = "true")]
    seconds: Option<Int>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    millis: Option<u16>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    micros: Option<u16>,
}

fn no() -> bool {
    false
}

impl TstInfo {
    /// Returns genTime, rounded up to a whole second; `None` if it is none in DER, or before 1970.
    pub(super) fn at(&self) -> Option<UnixTime> {
        if self.gen_time.tag() != Tag::GeneralizedTime {
            return None;
        }
        let text = std::str::from_utf8(self.gen_time.value()).ok()?.strip_suffix('Z')?;
        let (whole, fraction) =
            text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // §2.4.2: no empty fraction, and no zeros at its end.
        let is_fraction = fraction.is_none_or(|digits| is_digits(digits) && !digits.ends_with('0'));
        if whole.len() != 14 || !is_digits(whole) || !is_fraction {
            return None;
        }
        let part = |from: usize| whole.get(from..from + 2)?.parse::<u8>().ok();
        let year = whole.get(..4)?.parse::<u16>().ok()?;
        let moment = DateTime::new(year, part(4)?, part(6)?, part(8)?, part(10)?, part(12)?).ok()?;
        let more = Duration::from_secs(u64::from(fraction.is_some()));
        Some(UnixTime::since_unix_epoch(moment.unix_duration() + more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<u64> {
        let algorithm = AlgorithmIdentifierOwned {
            oid: ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"),
            parameters: None,
        };
        let info = TstInfo {
            version: 1,
            policy: ObjectIdentifier::new_unwrap("1.2.3"),
            message_imprint: MessageImprint {
                hash_algorithm: algorithm,
                hashed_message: OctetString::new([0; 32]).unwrap(),
            },
            serial_number: Int::new(&[1]).unwrap(),
            gen_time: Any::new(Tag::GeneralizedTime, text.as_bytes()).unwrap(),
            accuracy: None,
            ordering: false,
            nonce: None,
            authority: None,
            extensions: None,
        };
        info.at().map(|moment| moment.as_secs())
    }

    #[test]
    fn reads_whole_seconds_and_rounds_fractions_up() {
        assert_eq!(at("20270115080000Z"), Some(1_800_000_000));
        assert_eq!(at("20270115080000.5Z"), Some(1_800_000_001));
        assert_eq!(at("20270115080000.000001Z"), Some(1_800_000_001));
    }

    #[test]
    fn refuses_times_that_der_does_not_have() {
        for text in [
            "20270115080000",
            "202701150800Z",
            "20270115080000.Z",
            "20270115080000.50Z",
            "20270115080000,5Z",
            "20271315080000Z",
            "20270115080060Z",
            "20270115080000+0100",
            "19690101000000Z",
            "+0270115080000Z",
            "2027+115080000Z",
            "2027011508000099Z",
            "202701150800000.5Z",
            "",
        ] {
            assert_eq!(at(text), None, "{text}");
        }
    }
}
