//! [`Identity`]: a leaf, its chain and its key, from whatever files a person has (C5, C13).
//!
//! PEM or PFX is told by the bytes, never by the file's name. The leaf is the certificate that the key belongs to, the
//! chain is put in order behind it, and what is wrong is said in one sentence with its remedy. Whether the certificate may
//! play a role is [`crate::check()`]'s to say.

mod chain;
mod error;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use self::error::IdentityError;
use crate::certificate::Certificate;
use crate::format::Format;
use crate::pem::{self, Content, Item};
use crate::pfx::{self, DecryptError};

/// Most certificates that the files of one identity may hold; a chain has two to four.
pub const IDENTITY_CERTIFICATES_MAX: usize = 100;

/// The bytes of a file, and its name for errors.
#[derive(Debug, Clone, Copy)]
pub struct NamedBytes<'a> {
    /// The file's name as errors show it, best its path.
    pub what: &'a str,
    /// All of it.
    pub bytes: &'a [u8],
}

/// The files of an identity.
#[derive(Clone, Copy)]
pub struct IdentityFiles<'a> {
    /// PEM, or a PFX with everything in it.
    pub certificate: NamedBytes<'a>,
    /// PEM, where the certificate's file does not hold the key.
    pub key: Option<NamedBytes<'a>>,
    /// What opens the PFX or the encrypted key.
    pub password: Option<&'a str>,
}

impl std::fmt::Debug for IdentityFiles<'_> {
    /// Leaves the password and the bytes out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdentityFiles")
            .field("certificate", &self.certificate.what)
            .field("key", &self.key.map(|key| key.what))
            .finish_non_exhaustive()
    }
}

/// A certificate whose private key is at hand, and the CAs that go with it.
#[derive(Debug)]
pub struct Identity {
    leaf: Certificate,
    authorities: Vec<Certificate>,
    key: PrivateKeyDer<'static>,
    format: Format,
    unused: Vec<Certificate>,
    skipped: Vec<String>,
}

impl Identity {
    /// Reads an identity from its files.
    ///
    /// # Errors
    /// A file is empty, of another format, damaged or locked; there is no certificate, no key, or more than one key; or
    /// the key belongs to none of the certificates (C5).
    pub fn read(files: &IdentityFiles<'_>) -> Result<Self, IdentityError> {
        let NamedBytes { what, bytes } = files.certificate;
        let format = Format::of(bytes);
        let mut found =
            if format == Format::Pfx { Found::pfx(files)? } else { Found::pem(files.certificate)? };
        let mut key_file = what;
        if let Some(file) = files.key {
            if format == Format::Pfx && !found.keys.is_empty() {
                let (certificate, key) = (what.to_owned(), file.what.to_owned());
                return Err(IdentityError::TwoSources { certificate, key });
            }
            key_file = file.what;
            found.take_key_file(file)?;
        }
        let key = found.key(key_file, files)?;
        let certificates = found.parse(what)?;
        let chain::Ordered { leaf, authorities, unused } = chain::order(&key, certificates, what, key_file)?;
        Ok(Self { leaf, authorities, key, format, unused, skipped: found.skipped })
    }

    /// Returns the certificate that the key belongs to.
    #[must_use]
    pub fn leaf(&self) -> &Certificate {
        &self.leaf
    }

    /// Returns the CAs above the leaf in their order, without a root.
    #[must_use]
    pub fn authorities(&self) -> &[Certificate] {
        &self.authorities
    }

    /// Returns the leaf and the CAs above it, as rustls takes them.
    #[must_use]
    pub fn chain_der(&self) -> Vec<CertificateDer<'static>> {
        let chain = std::iter::once(&self.leaf).chain(&self.authorities);
        chain.map(|certificate| certificate.certificate_der().clone()).collect()
    }

    /// Returns the private key: PKCS#8, or as the PEM file has it (PKCS#1, SEC 1).
    #[must_use]
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// Gives chain and key away, as rustls takes them.
    #[must_use]
    pub fn into_parts(self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain_der(), self.key)
    }

    /// Returns whether the certificate's file was [`Format::Pem`] or [`Format::Pfx`].
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Returns the certificates of the file that are not of the chain: roots, and those of others.
    #[must_use]
    pub fn unused(&self) -> &[Certificate] {
        &self.unused
    }

    /// Returns what was wrong with the parts of the files that were left out.
    #[must_use]
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }
}

/// Returns the CAs that stand above `leaf` among `certificates`, nearest first, without a root: what a chain is put together of where the
/// key is elsewhere.
#[must_use]
pub fn authorities_above(leaf: &Certificate, certificates: &[Certificate]) -> Vec<Certificate> {
    chain::above(leaf, certificates)
}

/// What the files hold, before it is put together.
#[derive(Default)]
struct Found {
    certificates: Vec<CertificateDer<'static>>,
    keys: Vec<PrivateKeyDer<'static>>,
    encrypted_keys: Vec<Vec<u8>>,
    has_legacy_key: bool,
    skipped: Vec<String>,
}

impl Found {
    fn pem(file: NamedBytes<'_>) -> Result<Self, IdentityError> {
        let format = Format::of(file.bytes);
        if format != Format::Pem {
            return Err(IdentityError::format(file.what, format));
        }
        let mut found = Self::default();
        for item in pem::items(file.bytes, file.what)? {
            found.take(item, file.what);
        }
        Ok(found)
    }

    fn pfx(files: &IdentityFiles<'_>) -> Result<Self, IdentityError> {
        let NamedBytes { what, bytes } = files.certificate;
        let pfx::Contents { certificates, keys, skipped } = pfx::read(bytes, files.password, what)?;
        Ok(Self { certificates, keys, skipped, ..Self::default() })
    }

    fn take(&mut self, item: Item, what: &str) {
        let (line, label) = (item.line, item.label);
        match item.content {
            Content::Certificate(der) => self.certificates.push(der),
            Content::Key(key) => self.keys.push(key),
            Content::EncryptedKey(der) => self.encrypted_keys.push(der),
            Content::LegacyEncryptedKey => self.has_legacy_key = true,
            Content::Crl(_) => {}
            // What `openssl ecparam -genkey` writes before a key.
            Content::Unusable(_) if label == "EC PARAMETERS" => {}
            Content::Unusable(problem) => {
                self.skipped.push(format!("{what}: line {line}: `{label}`: {problem}"));
            }
        }
    }

    /// Takes keys from a file of their own; those beside the certificate do not count any more.
    fn take_key_file(&mut self, file: NamedBytes<'_>) -> Result<(), IdentityError> {
        if Format::of(file.bytes) == Format::Pfx {
            return Err(IdentityError::PfxAsKey { key: file.what.to_owned() });
        }
        let beside = Self::pem(file)?;
        self.keys = beside.keys;
        self.encrypted_keys = beside.encrypted_keys;
        self.has_legacy_key = beside.has_legacy_key;
        self.skipped.extend(beside.skipped);
        Ok(())
    }

    /// Returns the one key, decrypted.
    fn key(
        &mut self,
        what: &str,
        files: &IdentityFiles<'_>,
    ) -> Result<PrivateKeyDer<'static>, IdentityError> {
        let what = || what.to_owned();
        let mut keys = std::mem::take(&mut self.keys);
        let mut distinct: Vec<PrivateKeyDer<'static>> = Vec::new();
        for key in keys.drain(..) {
            if !distinct.contains(&key) {
                distinct.push(key);
            }
        }
        let count = distinct.len() + self.encrypted_keys.len() + usize::from(self.has_legacy_key);
        if count > 1 {
            return Err(IdentityError::SeveralKeys { what: what(), count });
        }
        if let Some(key) = distinct.pop() {
            return Ok(key);
        }
        if self.has_legacy_key {
            return Err(IdentityError::LegacyEncryptedKey { what: what() });
        }
        let Some(encrypted) = self.encrypted_keys.pop() else {
            let detail = self.detail();
            return Err(IdentityError::NoKey { what: what(), detail });
        };
        let Some(password) = files.password else {
            return Err(IdentityError::KeyPasswordMissing { what: what() });
        };
        pfx::decrypt_key(&encrypted, password).map_err(|error| match error {
            DecryptError::Password => IdentityError::KeyPasswordWrong { what: what() },
            DecryptError::Rounds { iterations, .. } => IdentityError::KeyEncryption {
                what: what(),
                problem: format!(
                    "{iterations} iterations of key derivation, more than are spent on one file"
                ),
            },
            DecryptError::Unsupported(algorithm) => IdentityError::KeyEncryption {
                what: what(),
                problem: format!("encrypted with {algorithm}, which is not supported"),
            },
            DecryptError::Malformed(problem) => IdentityError::KeyEncryption { what: what(), problem },
        })
    }

    /// Parses the certificates; those that cannot be read are left out and told.
    fn parse(&mut self, what: &str) -> Result<Vec<Certificate>, IdentityError> {
        let count = self.certificates.len();
        if count > IDENTITY_CERTIFICATES_MAX {
            return Err(IdentityError::TooManyCertificates { what: what.to_owned(), count });
        }
        let mut parsed: Vec<Certificate> = Vec::with_capacity(count);
        for (index, der) in self.certificates.iter().enumerate() {
            match Certificate::from_der(der) {
                Ok(certificate) if parsed.contains(&certificate) => {}
                Ok(certificate) => parsed.push(certificate),
                Err(error) => self.skipped.push(format!("{what}: certificate {}: {error}", index + 1)),
            }
        }
        if parsed.is_empty() {
            return Err(IdentityError::NoCertificate { what: what.to_owned(), detail: self.detail() });
        }
        Ok(parsed)
    }

    /// Says what stands in the files instead of what was wanted.
    fn detail(&self) -> String {
        let mut detail = String::new();
        if !self.certificates.is_empty() {
            detail += &format!("; it holds {} certificate(s)", self.certificates.len());
        }
        // A few say what is wrong; a file of junk would otherwise fill the log.
        for skipped in self.skipped.iter().take(3) {
            detail += "; ";
            detail += skipped;
        }
        detail
    }
}
