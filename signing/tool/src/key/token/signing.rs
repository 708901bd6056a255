//! [`TokenKey`]: signs with a token's key, in whichever way the token can.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::KeyType as ObjectKeyType;
use cryptoki::session::{Session, UserType};
use der::asn1::UintRef;
use der::{Encode as _, Sequence};
use muster_signing::envelope::{KeyType, RemoteKey};
use zeroize::Zeroizing;

use super::super::error::TokenError;
use super::objects::PrivateKey;
use super::{as_pin, in_words};

/// DigestInfo of SHA-256 without the digest (RFC 8017 §9.2, note 1).
const SHA256_DIGEST_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
    0x04, 0x20,
];

/// How a token is asked for a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    RsaSha256,
    Rsa,
    EcdsaSha256,
    EcdsaSha384,
    Ecdsa,
}

impl Way {
    /// Returns the ways for a kind of key, the best first: to let the token hash lets it see what it signs.
    fn of(kind: ObjectKeyType, algorithm: &str) -> [Self; 2] {
        match (kind == ObjectKeyType::RSA, algorithm.contains("384")) {
            (true, _) => [Self::RsaSha256, Self::Rsa],
            (false, false) => [Self::EcdsaSha256, Self::Ecdsa],
            (false, true) => [Self::EcdsaSha384, Self::Ecdsa],
        }
    }

    fn mechanism(self) -> Mechanism<'static> {
        match self {
            Self::RsaSha256 => Mechanism::Sha256RsaPkcs,
            Self::Rsa => Mechanism::RsaPkcs,
            Self::EcdsaSha256 => Mechanism::EcdsaSha256,
            Self::EcdsaSha384 => Mechanism::EcdsaSha384,
            Self::Ecdsa => Mechanism::Ecdsa,
        }
    }

    /// Returns whether the token hashes the message itself; else it is given the hash, for RSA in its DigestInfo.
    const fn hashes(self) -> bool {
        matches!(self, Self::RsaSha256 | Self::EcdsaSha256 | Self::EcdsaSha384)
    }
}

/// A key of a token, and the session that it is used in.
pub(super) struct TokenKey {
    session: Mutex<Session>,
    key: PrivateKey,
    pin: Option<Zeroizing<String>>,
    way: Way,
}

impl fmt::Debug for TokenKey {
    /// Leaves the PIN out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("key", &self.key).field("way", &self.way).finish_non_exhaustive()
    }
}

impl TokenKey {
    /// Chooses how to sign; `algorithm` is that of the certificate's key, as [`muster_pki::Certificate::key_algorithm`] names it.
    pub(super) fn new(
        session: Session,
        key: PrivateKey,
        pin: Option<Zeroizing<String>>,
        mechanisms: &[MechanismType],
        algorithm: &str,
        token: &str,
    ) -> Result<Self, TokenError> {
        let wanted = if algorithm.starts_with("RSA") { ObjectKeyType::RSA } else { ObjectKeyType::EC };
        if key.kind != Some(wanted) {
            return Err(TokenError::KeyType {
                key: key.name,
                found: key.kind.map_or_else(|| "unknown".to_owned(), |kind| kind.to_string()),
                wanted: algorithm.to_owned(),
            });
        }
        let ways = Way::of(wanted, algorithm);
        let may = |way: &&Way| {
            // The PIN goes between two calls that make one signature, which only a hashing mechanism has.
            (!key.always_authenticate || way.hashes())
                && mechanisms.contains(&way.mechanism().mechanism_type())
        };
        let Some(way) = ways.iter().find(may).copied() else {
            let found: Vec<String> = mechanisms.iter().map(ToString::to_string).collect();
            return Err(TokenError::Mechanism {
                token: token.to_owned(),
                wanted: ways.map(|way| way.mechanism().mechanism_type().to_string()).join(", "),
                found: if found.is_empty() { "none".to_owned() } else { found.join(", ") },
            });
        };
        Ok(Self { session: Mutex::new(session), key, pin, way })
    }

    fn raw(&self, key_type: KeyType, message: &[u8]) -> Result<Vec<u8>, String> {
        let hashed;
        let data = if self.way.hashes() {
            message
        } else {
            hashed = hash(key_type, message);
            &hashed
        };
        let failed = |error| format!("the token does not sign: {}", in_words(&error));
        // Whoever panicked here left a session, and nothing half done.
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.key.always_authenticate {
            return session.sign(&self.way.mechanism(), self.key.handle, data).map_err(failed);
        }
        session.sign_init(&self.way.mechanism(), self.key.handle).map_err(failed)?;
        let pin = self.pin.as_ref().map(|pin| as_pin(pin));
        session.login(UserType::ContextSpecific, pin.as_ref()).map_err(failed)?;
        session.sign_update(data).map_err(failed)?;
        session.sign_final().map_err(failed)
    }
}

impl RemoteKey for TokenKey {
    fn sign(&self, key_type: KeyType, message: &[u8]) -> Result<Vec<u8>, String> {
        let raw = self.raw(key_type, message)?;
        match key_type {
            KeyType::Rsa => Ok(raw),
            KeyType::P256 | KeyType::P384 => ecdsa_der(&raw).ok_or_else(|| {
                format!("the token made a signature of {} bytes, which is no ECDSA", raw.len())
            }),
        }
    }
}

fn hash(key_type: KeyType, message: &[u8]) -> Vec<u8> {
    match key_type {
        KeyType::P256 => digest::digest(&digest::SHA256, message).as_ref().to_vec(),
        KeyType::P384 => digest::digest(&digest::SHA384, message).as_ref().to_vec(),
        KeyType::Rsa => [&SHA256_DIGEST_INFO, digest::digest(&digest::SHA256, message).as_ref()].concat(),
    }
}

/// ECDSA-Sig-Value (RFC 3279 §2.2.3).
#[derive(Sequence)]
struct EcdsaSignature<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// Writes the two halves of a token's signature as CMS wants them.
fn ecdsa_der(raw: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = raw.split_at_checked(raw.len() / 2).filter(|(r, s)| r.len() == s.len() && !r.is_empty())?;
    EcdsaSignature { r: UintRef::new(r).ok()?, s: UintRef::new(s).ok()? }.to_der().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g7_a_tokens_ecdsa_signature_becomes_der() {
        let raw = [&[0, 0x80], &[0, 0x01][..]].concat();

        assert_eq!(ecdsa_der(&raw).as_deref(), Some(&[0x30, 7, 2, 2, 0, 0x80, 2, 1, 1][..]));
        assert_eq!(ecdsa_der(&[]), None);
        assert_eq!(ecdsa_der(&[1, 2, 3]), None);
    }
}
