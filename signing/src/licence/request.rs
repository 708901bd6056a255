//! [`LicenceRequest`]: what a publisher asks a licensor for (G6).

use std::collections::BTreeSet;

use muster_pki::{Certificate, Thumbprint, UnixTime};
use serde::{Deserialize, Serialize};

use super::{LicenceError, check_licensee, check_prefix, check_tenant, refuse_hidden};
use crate::envelope::{self, ContentType, EnvelopeError, Possessed, SignError, Signer};

/// Largest text of a request in bytes.
pub const REQUEST_TEXT_BYTES_MAX: usize = 16 * 1024;

/// Most prefixes of a request; a publisher has one or two.
pub const REQUEST_PREFIXES_MAX: usize = 64;

/// A checked request. Its signature, by the key that is to be licensed, says for which certificate; it holds no key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LicenceRequest {
    /// Whom the licence is to be for, in words; `None`: the licensor knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licensee: Option<String>,
    /// The organisation whose devices are to follow it; `None`: the licensor knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The prefixes that the signer wants to publish under, 1 to [`REQUEST_PREFIXES_MAX`].
    pub prefixes: BTreeSet<String>,
    /// SHA-256 of the CAs that come along, above the signer's certificate: the signature covers them by it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub authorities: BTreeSet<Thumbprint>,
}

/// A request that its signer made, and nobody changed since.
#[derive(Debug, Clone)]
pub struct VerifiedRequest {
    /// What it asks for.
    pub request: LicenceRequest,
    /// The text that was signed.
    pub text: String,
    /// The certificate that is to be licensed; who made the request has its key.
    pub signer: Certificate,
    /// The CAs above it that came along.
    pub authorities: Vec<Certificate>,
    /// When it was made, by the signer's own clock.
    pub signing_time: UnixTime,
}

/// Why a request is refused, or not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Its envelope does not hold.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Its text asks for what cannot be.
    #[error(transparent)]
    Text(#[from] LicenceError),
    /// The key does not sign it.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Not the certificates that were signed for.
    #[error(
        "the CAs inside are not those that the request was signed with; have it made again: `muster-sign licence request`"
    )]
    Authorities,
}

impl LicenceRequest {
    /// Reads and checks a request's text.
    ///
    /// # Errors
    /// What is wrong, and what would do.
    pub fn parse(text: &str) -> Result<Self, LicenceError> {
        if text.len() > REQUEST_TEXT_BYTES_MAX {
            let got = text.len();
            return Err(LicenceError::new(format!(
                "a request of {got} bytes; wanted at most {REQUEST_TEXT_BYTES_MAX}"
            )));
        }
        refuse_hidden(text)?;
        let request: Self = toml::from_str(text).map_err(|error| LicenceError::new(error.to_string()))?;
        request.check()?;
        Ok(request)
    }

    /// Writes the text that is signed; [`Self::parse`] gives the same request.
    ///
    /// # Errors
    /// What is wrong with it, as [`Self::parse`] would say.
    pub fn to_text(&self) -> Result<String, LicenceError> {
        self.check()?;
        toml::to_string_pretty(self).map_err(|error| LicenceError::new(error.to_string()))
    }

    /// Signs the request with the key that is to be licensed.
    ///
    /// # Errors
    /// The request is none, with what is wrong; or the key does not sign.
    pub fn sign(mut self, signer: &Signer, now: UnixTime) -> Result<Vec<u8>, RequestError> {
        self.authorities = signer.chain().iter().skip(1).map(Certificate::thumbprint).collect();
        Ok(envelope::sign(self.to_text()?.as_bytes(), ContentType::LicenceRequest, signer, now)?)
    }

    /// Verifies that whoever made a request has the key of the certificate in it, and that nothing of it was changed.
    ///
    /// # Errors
    /// What is wrong.
    pub fn verify(envelope: &[u8], now: UnixTime) -> Result<VerifiedRequest, RequestError> {
        let Possessed { content, signer, authorities, signing_time } =
            envelope::verify_possession(envelope, now)?;
        let text =
            String::from_utf8(content).map_err(|_| LicenceError::new("a request that is not UTF-8"))?;
        let request = Self::parse(&text)?;
        let inside: BTreeSet<Thumbprint> = authorities.iter().map(Certificate::thumbprint).collect();
        if inside != request.authorities {
            return Err(RequestError::Authorities);
        }
        Ok(VerifiedRequest { request, text, signer, authorities, signing_time })
    }

    fn check(&self) -> Result<(), LicenceError> {
        self.licensee.as_deref().map_or(Ok(()), check_licensee)?;
        self.tenant.as_deref().map_or(Ok(()), check_tenant)?;
        let count = self.prefixes.len();
        if !(1..=REQUEST_PREFIXES_MAX).contains(&count) {
            return Err(LicenceError::new(format!("{count} prefixes; wanted 1 to {REQUEST_PREFIXES_MAX}")));
        }
        self.prefixes.iter().try_for_each(|prefix| check_prefix(prefix))
    }
}

#[cfg(test)]
mod tests {
    use cms::signed_data::CertificateSet;
    use muster_pki::Role;

    use super::*;
    use crate::fixture::{NOW, Pki, at, edited};
    use crate::timestamp::stamper::choice;

    fn request(prefixes: &[&str]) -> LicenceRequest {
        let prefixes = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
        LicenceRequest {
            licensee: Some("Acme Ltd".to_owned()),
            tenant: None,
            prefixes,
            authorities: BTreeSet::new(),
        }
    }

    #[test]
    fn g6_a_request_reads_back_what_it_wrote() {
        let written = request(&["Acme", "Exchange"]);

        assert_eq!(LicenceRequest::parse(&written.to_text().unwrap()), Ok(written));
    }

    #[test]
    fn g6_a_request_for_what_no_licence_can_hold_is_refused() {
        for (text, said) in [
            ("prefixes = []", "0 prefixes"),
            ("prefixes = [\"Acme-\"]", "without hyphen"),
            ("prefixes = [\"Acme\"]\ntenant = \"\"", "tenant is"),
            ("prefixes = [\"Acme\"]\nlicensee = \"a\\nb\"", "licensee is"),
            ("prefixes = [\"Acme\"]\nkey = \"secret\"", "unknown field"),
        ] {
            let error = LicenceRequest::parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
        let padded = |bytes: usize| {
            let text = "prefixes = [\"Acme\"]\n#";
            LicenceRequest::parse(&format!("{text}{}", " ".repeat(bytes - text.len())))
        };
        assert!(padded(16_384).is_ok());
        assert!(padded(16_385).unwrap_err().to_string().contains("16385 bytes; wanted at most 16384"));
        assert!(request(&[]).to_text().is_err());
        let many: Vec<String> = (0..65).map(|number| format!("Acme{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(request(&many[..64]).to_text().is_ok());
        assert!(request(&many).to_text().unwrap_err().to_string().contains("65 prefixes; wanted 1 to 64"));
    }

    #[test]
    fn g6_the_cas_of_a_request_are_those_that_it_was_signed_with() {
        let signer = Pki::deep("authors").signer("ann", Role::Author);
        let envelope = request(&["Acme"]).sign(&signer, at(NOW)).unwrap();

        let verified = LicenceRequest::verify(&envelope, at(NOW)).unwrap();
        assert_eq!((Some(&verified.signer), verified.signing_time), (signer.certificate(), at(NOW)));
        assert_eq!(verified.authorities, signer.chain()[1..]);
        let without = edited(&envelope, |data| {
            let leaf = signer.certificate().map(choice).unwrap();
            data.certificates = Some(CertificateSet::try_from(vec![leaf]).unwrap());
        });

        let error = LicenceRequest::verify(&without, at(NOW)).unwrap_err();
        assert_eq!(error, RequestError::Authorities);
    }

    #[test]
    fn g6_a_text_that_hides_something_is_no_request_and_no_licence() {
        for hidden in ["\u{202e}", "\\u202E", "\\u001b[31m", "\u{200b}", "\\U000E0041"] {
            let request = format!("prefixes = [\"Acme\"]\nlicensee = \"a{hidden}\"");
            let comment = format!("prefixes = [\"Acme\"] # \u{202e}{hidden}");
            for text in [request, comment] {
                let error = LicenceRequest::parse(&text).unwrap_err().to_string();
                assert!(error.contains("the hidden character U+"), "{text}: {error}");
                assert!(crate::licence::Licence::parse(&text).unwrap_err().to_string().contains("hidden"));
            }
        }
        let mut written = request(&["Acme"]);
        written.licensee = Some("a\u{2066}".to_owned());
        assert!(written.to_text().is_err());
    }

    #[test]
    fn g6_a_request_proves_the_key_and_every_changed_bit_or_missing_byte_is_refused() {
        let signer = Pki::deep("authors").signer("ann", Role::Author);
        let envelope = request(&["Acme"]).sign(&signer, at(NOW)).unwrap();

        let verified = LicenceRequest::verify(&envelope, at(NOW)).unwrap();

        assert_eq!(Some(&verified.signer), signer.certificate());
        assert_eq!((verified.authorities.len(), verified.request.prefixes.len()), (1, 1));
        for bit in 0..envelope.len() * 8 {
            let mut flipped = envelope.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(LicenceRequest::verify(&flipped, at(NOW)).is_err(), "bit {bit}");
        }
        for length in 0..envelope.len() {
            assert!(LicenceRequest::verify(&envelope[..length], at(NOW)).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn g6_nothing_but_a_request_proves_possession_and_a_request_is_nothing_else() {
        let pki = Pki::flat("authors");
        let signer = pki.signer("ann", Role::Author);
        let licence =
            envelope::sign(b"prefixes = [\"Acme\"]", ContentType::Licence, &signer, at(NOW)).unwrap();
        let envelope = request(&["Acme"]).sign(&signer, at(NOW)).unwrap();

        let other = LicenceRequest::verify(&licence, at(NOW)).unwrap_err().to_string();
        let inspected = envelope::inspect(&envelope).unwrap().content_type;
        let later = LicenceRequest::verify(&envelope, at(NOW - 3_600)).unwrap_err();

        assert!(other.contains("holds a licence; wanted a licence request"), "{other}");
        assert_eq!(inspected, ContentType::LicenceRequest);
        assert!(matches!(later, RequestError::Envelope(EnvelopeError::SigningTime { .. })), "{later}");
    }
}
