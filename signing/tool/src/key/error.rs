//! [`KeyError`]: why a key does not sign, and what to do.

use std::path::PathBuf;

use muster_pki::IdentityError;
use muster_pki::pem::PemError;
use muster_pki::pfx::PfxError;
use muster_signing::envelope::SignError;

use super::secret::SecretError;
use crate::FileError;

/// Why there is no signer.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Key and certificate give no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The PFX is not opened.
    #[error(transparent)]
    Pfx(#[from] PfxError),
    /// The certificate's file is none.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A certificate that cannot be read.
    #[error("{certificate}: {problem}")]
    Certificate {
        /// Its file.
        certificate: String,
        /// What is wrong.
        problem: String,
    },
    /// A key's file without a certificate, and no other file.
    #[error(
        "{key}: holds no certificate; wanted the signer's; give its file with --cert, or a PFX that holds both"
    )]
    NoCertificate {
        /// The key's file.
        key: String,
    },
    /// Not one key in a PFX.
    #[error("{key}: {count} private keys; wanted one; export the signer's key alone")]
    PfxKeys {
        /// The PFX.
        key: String,
        /// How many.
        count: usize,
    },
    /// They are no signer.
    #[error("{key}: {problem}")]
    Unfit {
        /// The key's file or URI.
        key: String,
        /// What is wrong.
        problem: SignError,
    },
    /// There is no password or PIN.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The token does not give the key.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl KeyError {
    /// Returns whether a password may open what is locked, and none was given.
    pub(super) fn wants_password(&self) -> bool {
        matches!(
            self,
            Self::Identity(
                IdentityError::KeyPasswordMissing { .. }
                    | IdentityError::Pfx(PfxError::PasswordMissing { .. })
            ) | Self::Pfx(PfxError::PasswordMissing { .. })
        )
    }
}

/// Why a text is no URI of a key in a token (RFC 7512).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; wanted such as 'pkcs11:token=signing;object=author?module-path=/usr/lib/softhsm/libsofthsm2.so'"
)]
pub struct UriError(pub(super) String);

/// Why a token does not give a key.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// No library was named.
    #[error(
        "no PKCS#11 library is named; give the one of the token's maker with --pkcs11-module or MUSTER_PKCS11_MODULE, or as module-path in the URI (SoftHSM's is /usr/lib/softhsm/libsofthsm2.so on Debian)"
    )]
    NoModule,
    /// The library is not there, or is none.
    #[error(
        "PKCS#11 library {}: {problem}; wanted the shared library of the token's maker; look for it with `find / -name '*pkcs11*.so' -o -name 'libsofthsm2.so'`",
        path.display()
    )]
    Module {
        /// Where it was looked for.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// None of the tokens is the one.
    #[error("no token is {wanted}; found {found}; insert it, or correct the URI")]
    Absent {
        /// What the URI asks for.
        wanted: String,
        /// All tokens.
        found: String,
    },
    /// More than one is.
    #[error("{count} tokens are {wanted}: {found}; add serial=… or slot-id=… to the URI")]
    SeveralTokens {
        /// What the URI asks for.
        wanted: String,
        /// How many.
        count: usize,
        /// Which.
        found: String,
    },
    /// It was never made ready for a user.
    #[error(
        "token {token} has no user PIN yet; set one with its maker's tool, such as `pkcs11-tool --init-pin`"
    )]
    NoPin {
        /// The token.
        token: String,
    },
    /// The token does not take it.
    #[error(
        "token {token} refuses the PIN; {left}; give the right one: pin-source=FILE in the URI, --key-password-file, MUSTER_KEY_PASSWORD, or the terminal"
    )]
    PinWrong {
        /// The token.
        token: String,
        /// What is known of the tries that are left.
        left: &'static str,
    },
    /// It takes none any more.
    #[error(
        "the PIN of token {token} is locked after too many wrong ones; unlock it with the token's security officer PIN"
    )]
    PinLocked {
        /// The token.
        token: String,
    },
    /// No private key is the one.
    #[error("token {token} has no private key {wanted}; it has {found}; correct object= or id= of the URI")]
    KeyAbsent {
        /// The token.
        token: String,
        /// What the URI asks for.
        wanted: String,
        /// The labels and ids of those it has.
        found: String,
    },
    /// More than one is.
    #[error("{count} private keys of token {token} are {wanted}: {found}; name one by object= or id=")]
    SeveralKeys {
        /// The token.
        token: String,
        /// What the URI asks for.
        wanted: String,
        /// How many.
        count: usize,
        /// Their labels and ids.
        found: String,
    },
    /// It is for something else.
    #[error("private key {key} may not sign (CKA_SIGN is false); name one that may, or make one for signing")]
    MayNotSign {
        /// The key.
        key: String,
    },
    /// Neither RSA nor ECDSA, or another one than the certificate's.
    #[error(
        "private key {key} is of type {found}, the certificate's is {wanted}; give the key's own certificate with --cert"
    )]
    KeyType {
        /// The key.
        key: String,
        /// Its type.
        found: String,
        /// The certificate's.
        wanted: String,
    },
    /// The token cannot sign in any of the ways that an envelope takes.
    #[error(
        "token {token} has none of the mechanisms {wanted}; it has {found}; enable one of them, or use another token"
    )]
    Mechanism {
        /// The token.
        token: String,
        /// Those that would do.
        wanted: String,
        /// Those that it has for signing.
        found: String,
    },
    /// No certificate beside the key.
    #[error(
        "token {token} has no certificate for private key {key}; it has {found}; give the certificate with --cert, or write it to the token under the key's id"
    )]
    NoCertificate {
        /// The token.
        token: String,
        /// The key.
        key: String,
        /// The labels and ids of the certificates that it has.
        found: String,
    },
    /// A call failed in a way that has no words of its own here.
    #[error("{step}: {problem}")]
    Call {
        /// What was asked for.
        step: &'static str,
        /// What the library says.
        problem: String,
    },
}
