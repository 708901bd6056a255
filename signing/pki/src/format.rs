//! [`Format`]: what a file of certificates or keys is, by its bytes and never by its name.

use std::fmt;

use der::{Reader, SliceReader, Tag};

use crate::certificate::Certificate;
use crate::pem;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Nothing, or white space.
    Empty,
    /// Text with PEM blocks.
    Pem,
    /// PKCS#12.
    Pfx,
    /// A certificate in DER.
    Certificate,
    /// A private key in DER, not encrypted.
    PrivateKey,
    /// An encrypted private key in DER (PKCS#8).
    EncryptedKey,
    /// A CRL in DER.
    Crl,
    /// PKCS#7, as `.p7b` files are.
    Pkcs7,
    /// Text without a PEM block.
    Text,
    /// Anything else.
    Unknown,
}

/// id-signedData (RFC 5652 §5.1) as DER.
const SIGNED_DATA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
/// UTF-8's byte order mark.
const MARK: &[u8] = b"\xef\xbb\xbf";

impl Format {
    /// Looks at the bytes of a file.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let text = pem::as_utf8(bytes);
        let text = text.strip_prefix(MARK).unwrap_or(&text);
        if text.trim_ascii().is_empty() {
            return Self::Empty;
        }
        if bytes.first() == Some(&0x30)
            && let Some(found) = of_der(bytes)
        {
            return found;
        }
        if pem::has_block(text) {
            return Self::Pem;
        }
        let is_text = std::str::from_utf8(text).is_ok_and(|text| !text.contains('\0'));
        if is_text { Self::Text } else { Self::Unknown }
    }

    /// Returns the command that makes PEM of the file `what`, as a sentence for errors (T5).
    #[must_use]
    pub fn conversion_to_pem(self, what: &str) -> String {
        match self {
            Self::Certificate => format!("convert it: `openssl x509 -inform DER -in {what} -out {what}.pem`"),
            Self::PrivateKey | Self::EncryptedKey => {
                format!("convert it: `openssl pkey -inform DER -in {what} -out {what}.pem`")
            }
            Self::Crl => format!("convert it: `openssl crl -inform DER -in {what} -out {what}.pem`"),
            Self::Pkcs7 => {
                format!("convert it: `openssl pkcs7 -inform DER -print_certs -in {what} -out {what}.pem`")
            }
            Self::Pfx => format!(
                "convert it: `openssl pkcs12 -in {what} -nodes -out {what}.pem` (its certificates alone: `-nokeys`; an old one: add `-legacy`)"
            ),
            Self::Pem => "it is PEM already".to_owned(),
            Self::Empty => "write it again from its source".to_owned(),
            Self::Text | Self::Unknown => {
                format!("see what it is: `openssl storeutl -noout -text {what}`")
            }
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "an empty file",
            Self::Pem => "PEM",
            Self::Pfx => "a PFX (PKCS#12) file",
            Self::Certificate => "a certificate in DER",
            Self::PrivateKey => "a private key in DER",
            Self::EncryptedKey => "an encrypted private key in DER",
            Self::Crl => "a CRL in DER",
            Self::Pkcs7 => "a PKCS#7 file (.p7b)",
            Self::Text => "a text without a PEM block",
            Self::Unknown => "neither PEM nor DER",
        })
    }
}

/// Tells DER apart by the first elements inside; `None` if the file does not begin as one of these.
fn of_der(bytes: &[u8]) -> Option<Format> {
    if pem::is_pfx(bytes) {
        return Some(Format::Pfx);
    }
    if Certificate::from_der(bytes).is_ok() {
        return Some(Format::Certificate);
    }
    let inside = bytes.get(header_length(bytes)?..)?;
    if inside.starts_with(SIGNED_DATA) {
        return Some(Format::Pkcs7);
    }
    if let [0x02, 0x01, 0x00 | 0x01, 0x30 | 0x02 | 0x04, ..] = inside {
        return Some(Format::PrivateKey); // PKCS#8, PKCS#1 or SEC 1
    }
    let first = inside.get(header_length(inside)?..)?;
    match (inside.first()?, first.first()?) {
        (0x30, 0xa0) => Some(Format::Certificate), // Damaged, or it would have been read above.
        (0x30, 0x02) => Some(Format::Crl),
        (0x30, 0x06) if is_followed_by_octets(inside) => Some(Format::EncryptedKey),
        _ => None,
    }
}

/// Returns how long tag and length are, whether or not the rest is there.
fn header_length(bytes: &[u8]) -> Option<usize> {
    match *bytes.get(1)? {
        short @ ..0x80 => Some(2).filter(|_| short > 0),
        0x80 => Some(2),
        long => Some(2 + usize::from(long & 0x7f)),
    }
}

/// AlgorithmIdentifier, OCTET STRING: RFC 5958 §3; a public key has a BIT STRING there.
fn is_followed_by_octets(inside: &[u8]) -> bool {
    let Ok(mut reader) = SliceReader::new(inside) else { return false };
    reader.tlv_bytes().is_ok() && reader.peek_tag() == Ok(Tag::OctetString)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t5_tells_texts_and_foreign_bytes_apart() {
        for (bytes, expected) in [
            (b"".as_slice(), Format::Empty),
            (b" \r\n\t", Format::Empty),
            (b"\xef\xbb\xbf\n", Format::Empty),
            (b"\xff\xfe", Format::Empty),
            (b"hello", Format::Text),
            (b"0", Format::Text),
            (b"\xef\xbb\xbfsubject\n-----BEGIN CERTIFICATE-----\n", Format::Pem),
            (b"0 is a text, then\n-----BEGIN X-----\n", Format::Pem),
            (b"\xff\xfe-\0-\0-\0-\0-\0B\0E\0G\0I\0N\0 \0", Format::Pem),
            (b"\x00\x01\x02", Format::Unknown),
            (b"\x30", Format::Text),
            (b"\x30\x80\x02\x01\x03", Format::Pfx),
            (b"\x30\x82\x01\x02\x02\x01\x03\x30", Format::Pfx),
            (b"\x30\x0a\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70", Format::PrivateKey),
        ] {
            assert_eq!(Format::of(bytes), expected, "{bytes:?}");
        }
    }
}
