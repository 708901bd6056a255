//! [`Signer`]: a certificate chain and its key.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use muster_pki::{Certificate, PrivateKeyDer, pem};

use super::error::SignError;
use crate::algorithm::{KeyType, verifier};

/// Who signs: a certificate, the ones above it up to and without the root, and the key.
pub struct Signer {
    chain: Vec<Certificate>,
    key: Key,
}

enum Key {
    Ecdsa(KeyType, EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Remote(KeyType, Box<dyn RemoteKey>),
}

/// A private key that stays where it is, such as in a PKCS#11 token (G7).
pub trait RemoteKey: Send + Sync {
    /// Signs `message` in the way of `key_type`, whose doc says what a signature looks like.
    ///
    /// # Errors
    /// What went wrong and what to do, for people.
    fn sign(&self, key_type: KeyType, message: &[u8]) -> Result<Vec<u8>, String>;
}

impl Signer {
    /// Reads a chain (leaf first; a root in it is left out) and the leaf's key from PEM.
    ///
    /// # Errors
    /// One of the two cannot be read or is of no supported type, or they do not belong together.
    pub fn from_pem(chain_pem: impl AsRef<[u8]>, key_pem: impl AsRef<[u8]>) -> Result<Self, SignError> {
        let certificates = pem::certificates(chain_pem.as_ref(), "the signer's certificate")?;
        let key = pem::private_key(key_pem.as_ref(), "the signer's key")?;
        let parsed = certificates.iter().map(|der| Certificate::from_der(der));
        let parsed: Result<Vec<_>, _> = parsed.collect();
        Self::new(parsed.map_err(|error| SignError::Certificate(error.to_string()))?, &key)
    }

    /// Puts a chain (leaf first; a root in it is left out) and the leaf's key together.
    ///
    /// # Errors
    /// One of the two is of no supported type, or they do not belong together.
    pub fn new(
        certificates: impl IntoIterator<Item = Certificate>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<Self, SignError> {
        let (chain, key_type, public) = chain(certificates)?;
        let key = Key::read(key)?;
        if key_type != key.key_type() || Some(&public[..]) != key.public() {
            return Err(mismatch(&chain));
        }
        Ok(Self { chain, key })
    }

    /// Puts a chain (leaf first; a root in it is left out) and a key together that lives elsewhere. Whether the two belong together
    /// shows with the first signature, which is verified before it is given out, as every one is.
    ///
    /// # Errors
    /// The certificate's key is of no supported type.
    pub fn with_remote_key(
        certificates: impl IntoIterator<Item = Certificate>,
        key: Box<dyn RemoteKey>,
    ) -> Result<Self, SignError> {
        let (chain, key_type, _) = chain(certificates)?;
        Ok(Self { chain, key: Key::Remote(key_type, key) })
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
            Key::Remote(key_type, key) => {
                let signature = key.sign(*key_type, message).map_err(SignError::Remote)?;
                self.check(*key_type, message, &signature)?;
                Ok(signature)
            }
        }
    }

    /// A signature of a key that was never seen counts if the certificate's public key says so.
    fn check(&self, key_type: KeyType, message: &[u8], signature: &[u8]) -> Result<(), SignError> {
        let leaf = self.chain.first().ok_or(SignError::Key)?;
        let unusable = |error: crate::algorithm::Unusable| SignError::Certificate(error.to_string());
        let (_, public) = KeyType::read(leaf.spki_der()).map_err(unusable)?;
        let algorithm = verifier(&key_type.identifier(), key_type.hash(), key_type).map_err(unusable)?;
        UnparsedPublicKey::new(algorithm, public)
            .verify(message, signature)
            .map_err(|_| mismatch(&self.chain))
    }
}

/// Returns the chain without repetition and roots, and the leaf's public key.
fn chain(
    certificates: impl IntoIterator<Item = Certificate>,
) -> Result<(Vec<Certificate>, KeyType, Vec<u8>), SignError> {
    let mut chain: Vec<Certificate> = Vec::new();
    for certificate in certificates {
        if !certificate.is_self_signed() && !chain.contains(&certificate) {
            chain.push(certificate);
        }
    }
    let Some(leaf) = chain.first() else {
        return Err(SignError::Certificate(
            "self-signed, which no client accepts (G5); have it issued by a code-signing CA".to_owned(),
        ));
    };
    let (key_type, public) =
        KeyType::read(leaf.spki_der()).map_err(|error| SignError::Certificate(error.to_string()))?;
    Ok((chain, key_type, public))
}

fn mismatch(chain: &[Certificate]) -> SignError {
    SignError::Mismatch(chain.first().map(|leaf| leaf.subject().to_owned()).unwrap_or_default())
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
            Self::Ecdsa(key_type, _) | Self::Remote(key_type, _) => *key_type,
            Self::Rsa(_) => KeyType::Rsa,
        }
    }

    fn public(&self) -> Option<&[u8]> {
        match self {
            Self::Ecdsa(_, key) => Some(key.public_key().as_ref()),
            Self::Rsa(key) => Some(key.public_key().as_ref()),
            Self::Remote(..) => None,
        }
    }
}
