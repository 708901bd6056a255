//! [`IdentityError`]: why files give no identity, and what to do.

use super::IDENTITY_CERTIFICATES_MAX;
use crate::check::CHAIN_CERTIFICATES_MAX;
use crate::format::Format;
use crate::pem::PemError;
use crate::pfx::PfxError;

/// Why files give no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A PEM file is too large.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A PFX cannot be opened.
    #[error(transparent)]
    Pfx(#[from] PfxError),
    /// Neither PEM nor PFX.
    #[error("{what}: {found}; wanted PEM or a PFX (PKCS#12); {fix}")]
    Format {
        /// The file.
        what: String,
        /// What it is.
        found: Format,
        /// What to do.
        fix: String,
    },
    /// No certificate that can be read.
    #[error("{what}: no certificate{detail}; wanted the certificate of the key, followed by its CAs")]
    NoCertificate {
        /// The file.
        what: String,
        /// What stands there instead.
        detail: String,
    },
    /// No private key (C5).
    #[error(
        "{what}: no private key{detail}; wanted the certificate's key; give its file, or export the certificate together with its key"
    )]
    NoKey {
        /// The file.
        what: String,
        /// What stands there instead.
        detail: String,
    },
    /// More than one private key.
    #[error("{what}: {count} private keys; wanted one; export the certificate in use and its key alone")]
    SeveralKeys {
        /// The file.
        what: String,
        /// How many.
        count: usize,
    },
    /// A PFX that holds the key, and a key file as well.
    #[error(
        "{certificate}: holds the private key already, and {key} is given as well; wanted one; leave the key file out"
    )]
    TwoSources {
        /// The PFX.
        certificate: String,
        /// The key's file.
        key: String,
    },
    /// A PFX where a key's PEM is wanted.
    #[error(
        "{key}: a PFX (PKCS#12) file; wanted a PEM key; give the PFX as the certificate and no key file, or convert it: `openssl pkcs12 -in {key} -nocerts -nodes -out {key}.pem`"
    )]
    PfxAsKey {
        /// The key's file.
        key: String,
    },
    /// The key is no certificate's (C5).
    #[error(
        "{key}: the private key belongs to none of the certificates in {what} ({subjects}); wanted the key that its request was made with; compare: `openssl pkey -in {key} -pubout` with `openssl x509 -in {what} -noout -pubkey`"
    )]
    KeyMismatch {
        /// The key's file.
        key: String,
        /// The certificates' file.
        what: String,
        /// Subjects of the first certificates.
        subjects: String,
    },
    /// The key cannot be used.
    #[error(
        "{what}: an unusable private key: {problem}; wanted RSA of 2048 to 8192 bits, ECDSA P-256 or P-384 (for TLS alone, P-521 and Ed25519, too); make a new one and request a certificate for it"
    )]
    KeyUnusable {
        /// The key's file.
        what: String,
        /// What the library says.
        problem: String,
    },
    /// An encrypted key without a password.
    #[error(
        "{what}: the private key is encrypted, and no password was given; give its password, or convert it: `openssl pkey -in {what} -out {what}.key`"
    )]
    KeyPasswordMissing {
        /// The key's file.
        what: String,
    },
    /// An encrypted key with a wrong password.
    #[error(
        "{what}: the password does not open the private key (or the file is damaged); wanted the one that it was encrypted with; try it: `openssl pkey -in {what} -noout`"
    )]
    KeyPasswordWrong {
        /// The key's file.
        what: String,
    },
    /// Encrypted in a way that is not read.
    #[error(
        "{what}: the private key is not readable: {problem}; wanted PKCS#8 with AES; convert it: `openssl pkcs8 -topk8 -v2 aes-256-cbc -in {what} -out {what}.key`"
    )]
    KeyEncryption {
        /// The key's file.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// `Proc-Type: 4,ENCRYPTED`, whose derivation is one round of MD5.
    #[error(
        "{what}: the private key is encrypted in OpenSSL's old way (`Proc-Type: 4,ENCRYPTED`); wanted PKCS#8; convert it: `openssl pkcs8 -topk8 -v2 aes-256-cbc -in {what} -out {what}.key`"
    )]
    LegacyEncryptedKey {
        /// The key's file.
        what: String,
    },
    /// More certificates than any identity has.
    #[error(
        "{what}: {count} certificates; wanted at most {IDENTITY_CERTIFICATES_MAX}: the leaf and its CAs alone"
    )]
    TooManyCertificates {
        /// The file.
        what: String,
        /// How many.
        count: usize,
    },
    /// More CAs above the leaf than a peer accepts.
    #[error(
        "{what}: a chain of more than {CHAIN_CERTIFICATES_MAX} certificates, which peers refuse; remove the CAs that they do not need"
    )]
    LongChain {
        /// The file.
        what: String,
    },
}

impl IdentityError {
    /// Tells a file's format, with the command that converts it.
    pub(super) fn format(what: &str, found: Format) -> Self {
        Self::Format { what: what.to_owned(), found, fix: found.conversion_to_pem(what) }
    }
}
