//! Reading an envelope as people keep it: DER, or PEM between `BEGIN CMS` and `END CMS`.

use muster_signing::envelope::ENVELOPE_BYTES_MAX;

/// Labels of PEM that hold CMS: RFC 7468 §9's, and openssl's other one.
const LABELS: [&str; 2] = ["CMS", "PKCS7"];

/// What every envelope in DER begins with.
const DER_SEQUENCE: u8 = 0x30;

/// Returns an envelope's DER, whichever of the two forms `bytes` have.
///
/// # Errors
/// PEM that cannot be read, or holds something else, or too many bytes.
pub fn read_envelope(bytes: &[u8]) -> Result<Vec<u8>, ReadError> {
    // PEM is a third longer than what it holds, and has some lines around it.
    if bytes.len() > 2 * ENVELOPE_BYTES_MAX {
        return Err(ReadError::TooLarge(bytes.len()));
    }
    let armoured = bytes.trim_ascii();
    if !armoured.starts_with(b"-----BEGIN ") {
        return if bytes.first() == Some(&DER_SEQUENCE) {
            Ok(bytes.to_vec())
        } else {
            Err(ReadError::Neither)
        };
    }
    let mut text = armoured.to_vec();
    text.push(b'\n');
    let (label, der) = der::pem::decode_vec(&text).map_err(|error| ReadError::Pem(error.to_string()))?;
    if !LABELS.contains(&label) {
        return Err(ReadError::Label(label.to_owned()));
    }
    Ok(der)
}

/// Why bytes are no envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// More than any envelope has.
    #[error("{0} bytes; wanted an envelope of at most {ENVELOPE_BYTES_MAX}")]
    TooLarge(usize),
    /// A text, or anything else that nobody signed.
    #[error("neither PEM nor DER; wanted a signed document: a block `-----BEGIN CMS-----`, or DER")]
    Neither,
    /// PEM that is damaged.
    #[error("bad PEM: {0}; wanted a block `-----BEGIN CMS-----`, or DER")]
    Pem(String),
    /// PEM of something else.
    #[error("PEM of a {0:?}; wanted a block `-----BEGIN CMS-----`, or DER")]
    Label(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_der_and_both_labels_of_pem() {
        assert_eq!(read_envelope(&[0x30, 0]), Ok(vec![0x30, 0]));
        assert_eq!(read_envelope(b"-----BEGIN CMS-----\nMAA=\n-----END CMS-----\n"), Ok(vec![0x30, 0]));
        assert_eq!(
            read_envelope(b"\n-----BEGIN PKCS7-----\r\nMAA=\r\n-----END PKCS7-----"),
            Ok(vec![0x30, 0])
        );
    }

    #[test]
    fn says_what_else_a_file_is() {
        let certificate = read_envelope(b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");

        assert_eq!(certificate, Err(ReadError::Label("CERTIFICATE".to_owned())));
        assert!(matches!(read_envelope(b"-----BEGIN CMS-----\nMAA"), Err(ReadError::Pem(_))));
        assert_eq!(read_envelope(b"name = \"Acme-Os-Version\"\n"), Err(ReadError::Neither));
        assert_eq!(read_envelope(b""), Err(ReadError::Neither));
    }
}
