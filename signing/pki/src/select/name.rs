//! Names as `cert_issuer` and `cert_subject` look at them (S3), and what an FQDN is (S1).

use der::Decode;
use der::asn1::Any;
use x509_cert::name::Name;

use crate::certificate::Certificate;
use crate::device_id::DeviceId;
use crate::directory_string;

/// What a distinguished name offers to substrings: the values of its attributes, and the whole as text.
///
/// The text escapes characters (RFC 4514), so a CA called `Acme <Root>` is found by its values; `CN=Acme` by the text.
#[derive(Debug)]
pub(super) struct Searched {
    values: Vec<String>,
    text: String,
}

impl Searched {
    /// The issuer of a certificate.
    pub(super) fn issuer(certificate: &Certificate) -> Self {
        Self::new(certificate.issuer_der(), certificate.issuer(), &[])
    }

    /// The subject of a certificate, its SAN dNSNames included: many certificates have an empty subject beside them.
    pub(super) fn subject(certificate: &Certificate) -> Self {
        Self::new(certificate.subject_der(), certificate.subject(), certificate.dns_names())
    }

    fn new(name_der: &[u8], text: &str, more: &[String]) -> Self {
        let values = values(name_der).into_iter().chain(more.iter().cloned());
        Self { values: values.map(|value| fold(&value)).collect(), text: fold(text) }
    }

    /// Returns whether one of `parts` is a substring, without regard to case (S3).
    pub(super) fn contains_any(&self, parts: &[String]) -> bool {
        parts.iter().any(|part| self.contains(part))
    }

    /// The text is searched only by a part with `=`: else `cn` would find every name by the type that stands before it.
    fn contains(&self, part: &str) -> bool {
        let part = fold(part);
        if self.values.iter().any(|value| value.contains(&part)) {
            return true;
        }
        // openssl writes `CN = Acme`, RFC 4514 `CN=Acme`.
        part.split_once('=').is_some_and(|(attribute, value)| {
            self.text.contains(&format!("{}={}", attribute.trim_end(), value.trim_start()))
        })
    }
}

/// Returns whether two certificates have the same subject: the same name, and where that is empty the same SAN dNSNames
/// (RFC 5280 §4.1.2.6 puts the subject there).
pub(super) fn has_same_subject(a: &Certificate, b: &Certificate) -> bool {
    if !is_same_name(a.subject_der(), b.subject_der()) {
        return false;
    }
    !values(a.subject_der()).is_empty() || folded(a.dns_names()) == folded(b.dns_names())
}

/// Returns whether two certificates have the same issuer name.
pub(super) fn has_same_issuer(a: &Certificate, b: &Certificate) -> bool {
    is_same_name(a.issuer_der(), b.issuer_der())
}

/// Compares names by value: a CA that changed from PrintableString to UTF8String still writes the same name (RFC 5280
/// §7.1).
fn is_same_name(a: &[u8], b: &[u8]) -> bool {
    if a == b {
        return true;
    }
    let (Ok(a), Ok(b)) = (Name::from_der(a), Name::from_der(b)) else { return false };
    a.0.len() == b.0.len()
        && a.0.iter().zip(&b.0).all(|(a, b)| {
            a.0.len() == b.0.len()
                && a.0
                    .iter()
                    .zip(b.0.iter())
                    .all(|(a, b)| a.oid == b.oid && is_same_value(&a.value, &b.value))
        })
}

fn is_same_value(a: &Any, b: &Any) -> bool {
    match (directory_string::text(a), directory_string::text(b)) {
        (Some(a), Some(b)) => fold(&a) == fold(&b),
        (Some(_) | None, Some(_) | None) => a == b,
    }
}

/// Returns whether the certificate's name is an FQDN (S1). The name is that of C7: the first SAN dNSName, else the CN.
pub(super) fn is_fully_qualified(certificate: &Certificate) -> bool {
    DeviceId::from_certificate(certificate).is_ok_and(|id| is_fqdn(id.as_str()))
}

/// At least two labels, the last one not a number: `10.0.0.1` is an address (RFC 1123 §2.1).
fn is_fqdn(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, last)| !last.bytes().all(|byte| byte.is_ascii_digit()))
}

fn values(name_der: &[u8]) -> Vec<String> {
    // A certificate that was parsed has names that can be.
    let Ok(name) = Name::from_der(name_der) else { return Vec::new() };
    name.0
        .iter()
        .flat_map(|part| part.0.iter())
        .filter_map(|attribute| directory_string::text(&attribute.value))
        .collect()
}

fn folded(names: &[String]) -> Vec<String> {
    names.iter().map(|name| fold(name)).collect()
}

fn fold(text: &str) -> String {
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use der::Encode;

    use super::*;

    fn searched(name: &str) -> Searched {
        let name = Name::from_str(name).unwrap();
        Searched::new(&name.to_der().unwrap(), &name.to_string(), &["W701.acme.local".to_owned()])
    }

    #[test]
    fn s3_parts_are_substrings_of_values_without_regard_to_case() {
        let name = searched("CN=Acme Issuing CA 01,O=ÄCME,C=DE");

        for part in
            ["acme", "ISSUING ca", "01", "äcme", "DE", "w701.ACME", "CN=Acme Iss", "cn = acme", "O=Äc"]
        {
            assert!(name.contains(part), "{part}");
        }
    }

    #[test]
    fn s3_a_type_alone_is_no_value() {
        let name = searched("CN=Acme,O=Acme");

        for part in ["cn", "acme,o", "CN=Globex", "OU=Acme"] {
            assert!(!name.contains(part), "{part}");
        }
    }

    #[test]
    fn s3_finds_values_that_text_escapes() {
        assert!(searched("CN=Acme \\<Root\\>").contains("acme <root>"));
    }

    #[test]
    fn n2_the_same_name_in_another_string_type_is_the_same() {
        // CN=Acme, as PrintableString and as UTF8String.
        let printable = hex::decode("300f310d300b06035504030c0441636d65").unwrap();
        let utf8 = hex::decode("300f310d300b0603550403130461636d65").unwrap();
        let other = hex::decode("300f310d300b0603550403130461636d66").unwrap();

        assert!(is_same_name(&printable, &utf8));
        assert!(!is_same_name(&printable, &other));
    }

    #[test]
    fn s1_an_fqdn_has_two_labels_and_is_no_address() {
        for name in ["w701.acme.local", "mac01.local", "w701.1e"] {
            assert!(is_fqdn(name), "{name}");
        }
        for name in ["w701", "10.0.0.1", "w701.7"] {
            assert!(!is_fqdn(name), "{name}");
        }
    }
}
