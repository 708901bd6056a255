//! Fingerprints as people type and read them: `SHA256:…` (T7).
//!
//! A fingerprint is a [`Thumbprint`] in another dress: SHA-256 over the certificate's DER, never over its key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::certificate::Certificate;
use crate::thumbprint::Thumbprint;

/// Reads a fingerprint, in any form that a tool prints.
///
/// `SHA256:` and base64 with or without `=`, `SHA256:` and 64 hex digits with or without colons, `openssl x509
/// -fingerprint -sha256`'s line, or the hex digits alone. Base64 alone is not taken, since nothing says what it is.
///
/// # Errors
/// It is another hash, or not as long as SHA-256.
pub fn parse(text: &str) -> Result<Thumbprint, FingerprintError> {
    let text: String = text.chars().filter(|c| !c.is_whitespace() && *c != '\u{200e}').take(200).collect();
    let (hash, value) = split(&text);
    let is_sha256 = ["SHA256", "SHA-256"].iter().any(|name| hash.eq_ignore_ascii_case(name));
    if !hash.is_empty() && !is_sha256 {
        return Err(FingerprintError::Hash(hash.to_owned()));
    }
    let digits: String = value.chars().filter(|c| *c != ':').collect();
    if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        match digits.len() {
            64 => {
                let mut bytes = [0; 32];
                hex::decode_to_slice(&digits, &mut bytes)
                    .map_err(|_| FingerprintError::Length(digits.len()))?;
                return Ok(Thumbprint::from_bytes(bytes));
            }
            40 if hash.is_empty() => return Err(FingerprintError::Hash("SHA1".to_owned())),
            32 if hash.is_empty() => return Err(FingerprintError::Hash("MD5".to_owned())),
            _ => {}
        }
    }
    let base64 = value.trim_end_matches('=');
    let decoded = STANDARD_NO_PAD.decode(base64).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    match decoded {
        Some(_) if hash.is_empty() => Err(FingerprintError::NoHash),
        Some(bytes) => Ok(Thumbprint::from_bytes(bytes)),
        None => Err(FingerprintError::Length(value.chars().count())),
    }
}

/// Writes a thumbprint as `SHA256:` and base64, 50 characters that fit a line and a double click.
#[must_use]
pub fn text(thumbprint: &Thumbprint) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(thumbprint.as_bytes()))
}

/// Compares a server's certificate with the fingerprint that its owner told (T7).
///
/// # Errors
/// It is another certificate.
pub fn confirm(expected: &Thumbprint, certificate: &Certificate) -> Result<(), FingerprintMismatch> {
    let found = certificate.thumbprint();
    if found == *expected {
        return Ok(());
    }
    Err(FingerprintMismatch { expected: *expected, found, subject: certificate.subject().to_owned() })
}

/// Cuts the hash's name off: `SHA256:…`, or `sha256 Fingerprint=…` (its spaces are gone already).
fn split(text: &str) -> (&str, &str) {
    const LABEL: &str = "Fingerprint=";
    if let Some(at) = text.to_ascii_lowercase().find(&LABEL.to_ascii_lowercase())
        && let (Some(hash), Some(value)) = (text.get(..at), text.get(at + LABEL.len()..))
    {
        return (hash, value);
    }
    match text.split_once(':') {
        // Two hex digits before the colon are the first byte of openssl's form.
        Some((hash, value)) if hash.len() > 2 => (hash, value),
        Some(_) | None => ("", text),
    }
}

/// Why a text is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    /// Another hash.
    #[error(
        "a fingerprint of the kind {0:?}; wanted SHA256; print it: `openssl x509 -in CERT -noout -fingerprint -sha256`"
    )]
    Hash(String),
    /// Base64 without a name before it.
    #[error("a fingerprint that does not say its hash; wanted it as `SHA256:…`")]
    NoHash,
    /// Neither 43 characters of base64 nor 64 hex digits.
    #[error(
        "a fingerprint of {0} characters; wanted `SHA256:` and 43 characters of base64 or 64 hex digits; print it: `openssl x509 -in CERT -noout -fingerprint -sha256`"
    )]
    Length(usize),
}

/// A certificate that has not the fingerprint that was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server's certificate ({subject}) has the fingerprint {} ({found} in hex); wanted {}; ask the server's owner, and trust neither until you know",
    text(found),
    text(expected)
)]
pub struct FingerprintMismatch {
    /// What was given.
    pub expected: Thumbprint,
    /// What the server has.
    pub found: Thumbprint,
    /// The certificate's subject.
    pub subject: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t7_reads_every_form_of_one_fingerprint() {
        let thumbprint = Thumbprint::of(b"certificate");
        let hex = thumbprint.to_string();
        let pairs: Vec<String> =
            hex.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).into_owned()).collect();
        let colons = pairs.join(":");

        for form in [
            text(&thumbprint),
            format!("{}=", text(&thumbprint)),
            format!(" {}\r\n", text(&thumbprint)),
            text(&thumbprint).replace("SHA256", "sha256"),
            format!("SHA256:{hex}"),
            format!("SHA-256:{}", hex.to_uppercase()),
            format!("SHA256:{colons}"),
            colons.to_uppercase(),
            hex.clone(),
            pairs.join(" "),
            format!("\u{200e}{hex}"),
            format!("SHA256 Fingerprint={}", colons.to_uppercase()),
            format!("sha256 Fingerprint={colons}\n"),
        ] {
            assert_eq!(parse(&form), Ok(thumbprint), "{form}");
        }
    }

    #[test]
    fn t7_refuses_other_hashes_and_lengths_by_name() {
        let base64 = text(&Thumbprint::of(b"certificate")).replace("SHA256:", "");
        for (form, expected) in [
            (format!("SHA1:{}", "a".repeat(40)), FingerprintError::Hash("SHA1".to_owned())),
            (format!("MD5:{}", "a".repeat(32)), FingerprintError::Hash("MD5".to_owned())),
            (format!("sha1 Fingerprint={}", "AA:".repeat(20)), FingerprintError::Hash("sha1".to_owned())),
            ("a".repeat(40), FingerprintError::Hash("SHA1".to_owned())),
            ("aa:".repeat(19) + "aa", FingerprintError::Hash("SHA1".to_owned())),
            ("a".repeat(32), FingerprintError::Hash("MD5".to_owned())),
            (base64.clone(), FingerprintError::NoHash),
            (String::new(), FingerprintError::Length(0)),
            ("SHA256:".to_owned(), FingerprintError::Length(0)),
            (format!("SHA256:{}", &base64[1..]), FingerprintError::Length(42)),
            (format!("SHA256:{base64}A"), FingerprintError::Length(44)),
            (format!("SHA256:{}", "a".repeat(63)), FingerprintError::Length(63)),
            (format!("SHA256:{}", "a".repeat(65)), FingerprintError::Length(65)),
            (format!("SHA256:{}", "!".repeat(43)), FingerprintError::Length(43)),
            ("a".repeat(5000), FingerprintError::Length(200)),
        ] {
            assert_eq!(parse(&form), Err(expected), "{form}");
        }
    }

    proptest::proptest! {
        #[test]
        fn t7_any_text_is_read_or_refused(text in "\\PC{0,80}") {
            drop(parse(&text));
            drop(parse(&format!("SHA256:{text}")));
        }

        #[test]
        fn t7_what_is_written_is_read(bytes in proptest::prelude::any::<[u8; 32]>()) {
            let thumbprint = Thumbprint::from_bytes(bytes);
            proptest::prop_assert_eq!(parse(&text(&thumbprint)), Ok(thumbprint));
        }
    }
}
