//! Where a signing key is, and how to sign with it (G7): a PEM file, a PFX, or an object of a PKCS#11 token.
//!
//! One way for every command that signs, `muster`'s orders included: [`open`] makes a [`Signer`] of a [`SignerSource`]. A key in a
//! file is read into memory and nowhere else; one in a token never leaves it. What opens a key comes from a file, the environment
//! or the terminal, never from an argument, which every process of the machine can read.

mod error;
mod file;
mod secret;
mod token;
mod uri;

use std::path::PathBuf;
use std::str::FromStr;

use muster_signing::envelope::Signer;

pub use self::error::{KeyError, TokenError, UriError};
pub use self::secret::{PASSWORD_BYTES_MAX, PASSWORD_VARIABLE, SecretError};
pub use self::uri::TokenUri;

/// Where a private key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A PEM file or a PFX, told apart by its bytes.
    File(PathBuf),
    /// An object of a token, by its PKCS#11 URI (RFC 7512).
    Token(Box<TokenUri>),
}

impl KeySource {
    /// Returns the files that it names: the key's own, or its token's library and PIN.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::File(path) => vec![path.clone()],
            Self::Token(uri) => uri.module.iter().chain(&uri.pin).cloned().collect(),
        }
    }
}

impl FromStr for KeySource {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        if TokenUri::is_one(text) {
            text.parse().map(|uri| Self::Token(Box::new(uri)))
        } else {
            Ok(Self::File(text.into()))
        }
    }
}

impl std::fmt::Display for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Token(uri) => uri.fmt(f),
        }
    }
}

/// Everything that makes a [`Signer`].
#[derive(Debug, Clone)]
pub struct SignerSource {
    /// The private key.
    pub key: KeySource,
    /// The signer's certificate and those above it (PEM); `None`: they stand beside the key, in its file or its token.
    pub certificate: Option<PathBuf>,
    /// A file whose first line opens the key: the password of the PFX or the PEM, or the token's PIN.
    pub password_file: Option<PathBuf>,
    /// The token's library, where the URI has no `module-path`.
    pub module: Option<PathBuf>,
}

/// Makes a signer.
///
/// # Errors
/// What was expected, what was found and what to do: a file or a library that is not there, a wrong password or PIN, a token or key
/// that is not to be found, a certificate that is not the key's.
pub fn open(source: &SignerSource) -> Result<Signer, KeyError> {
    match &source.key {
        KeySource::File(path) => file::open(path, source),
        KeySource::Token(uri) => token::open(uri, source),
    }
}
