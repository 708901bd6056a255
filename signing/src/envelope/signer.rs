//! [`Signer`]: a certificate chain and its key.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    RSA_PKCS1_SHA256, RsaKeyPair,
};
use muster_pki::{Certificate, PrivateKeyDer, pem};

use super::error::SignError;
use crate::algorithm::KeyType;

/// Who signs: a certificate, the ones above it up to and without the root, and the key.
pub struct Signer {
    chain: Vec<Certificate>,
    key: Key,
}

enum Key {
    Ecdsa(KeyType, EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Signer {
    /// Reads a chain (leaf first; a root in it is left out) and the leaf's key from PEM.
    ///
    /// # Errors
    /// One of the two cannot be read or is of no supported type, or they do not belong together.
    pub fn from_pem(chain_pem: impl AsRef<[u8]>, key_pem: impl AsRef<[u8]>) -> Result<Self, SignError> {
        let certificates = pem::certificates(chain_pem.as_ref(), "the signer's certificate")?;
        let key = pem::private_key(key_pem.as_ref(), "the signer's key")?;
        let mut chain = Vec::new();
        for der in &certificates {
            let certificate =
                Certificate::from_der(der).map_err(|error| SignError::Certificate(error.to_string()))?;
            if !certificate.is_self_signed() && !chain.contains(&certificate) {
                chain.push(certificate);
            }
        }
        let Some(leaf) = chain.first() else {
            return Err(SignError::Certificate(
                "self-signed, which no client accepts (G5); have it issued by a code-signing CA".to_owned(),
            ));
        };
        let key = Key::read(&key)?;
        let (key_type, public) =
            KeyType::read(leaf.spki_der()).map_err(|error| SignError::Certificate(error.to_string()))?;
        if key_type != key.key_type() || public != key.public() {
            return Err(SignError::Mismatch(leaf.subject().to_owned()));
        }
        Ok(Self { chain, key })
    }

    /// Returns the signer's own certificate.
    #[must_use]
    pub fn certificate(&self) -> Option<&Certificate> {
        self.chain.first()
    }

    /// Returns the chain, the signer's own certificate first, without the root.
    #[must_use]
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    pub(super) fn key_type(&self) -> KeyType {
        self.key.key_type()
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Ecdsa(_, key) => key
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| SignError::Unspecified),
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| SignError::Unspecified)?;
                Ok(signature)
            }
        }
    }
}

impl fmt::Debug for Signer {
    /// Writes the certificate, never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl Key {
    fn read(key: &PrivateKeyDer<'_>) -> Result<Self, SignError> {
        let curves = [
            (KeyType::P256, &ECDSA_P256_SHA256_ASN1_SIGNING),
            (KeyType::P384, &ECDSA_P384_SHA384_ASN1_SIGNING),
        ];
        for (key_type, algorithm) in curves {
            let pair = match key {
                PrivateKeyDer::Pkcs8(key) => EcdsaKeyPair::from_pkcs8(algorithm, key.secret_pkcs8_der()).ok(),
                PrivateKeyDer::Sec1(key) => {
                    EcdsaKeyPair::from_private_key_der(algorithm, key.secret_sec1_der()).ok()
                }
                PrivateKeyDer::Pkcs1(_) | _ => None,
            };
            if let Some(pair) = pair {
                return Ok(Self::Ecdsa(key_type, pair));
            }
        }
        let pair = match key {
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).ok(),
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()).ok(),
            PrivateKeyDer::Sec1(_) | _ => None,
        };
        pair.map(Self::Rsa).ok_or(SignError::Key)
    }

    fn key_type(&self) -> KeyType {
        match self {
            Self::Ecdsa(key_type, _) => *key_type,
            Self::Rsa(_) => KeyType::Rsa,
        }
    }

    fn public(&self) -> &[u8] {
        match self {
            Self::Ecdsa(_, key) => key.public_key().as_ref(),
            Self::Rsa(key) => key.public_key().as_ref(),
        }
    }
}
