//! What passwords encrypt: PBES2 (RFC 8018 §6.2) and PKCS#12's own schemes of 1999 (RFC 7292 §C).

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{digest, hmac};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockCipherDecrypt, BlockModeDecrypt, InnerIvInit, KeyInit};
use der::Decode;
use der::asn1::{ObjectIdentifier, OctetStringRef};
use des::{TdesEde2, TdesEde3};
use rc2::Rc2;
use x509_cert::spki::AlgorithmIdentifierRef;
use zeroize::Zeroizing;

use super::asn1::{EncryptedPrivateKey, Mac, Pbes1Parameters, Pbes2Parameters, Pbkdf2Parameters};
use super::derivation::{self, Budget, Password, Salted, Use};

/// Why something stays encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DecryptError {
    /// The padding or the MAC is wrong: another password, or changed bytes.
    Password,
    /// More work than [`super::ROUNDS_MAX`].
    Rounds { got: u64, iterations: u32 },
    /// An algorithm that is not read.
    Unsupported(String),
    /// Not what the standards write.
    Malformed(String),
}

const PBES2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.13");
const PBKDF2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.12");
const DES_EDE3_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.3.7");
const AES_128_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.2");
const AES_192_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.22");
const AES_256_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.42");
/// Block of 3DES and RC2 in bytes, which is the length of their initial vectors.
const LEGACY_BLOCK: usize = 8;

/// The functions of PBKDF2 (RFC 8018 §B.1); the first is the default.
const FUNCTIONS: [(ObjectIdentifier, hmac::Algorithm); 4] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.2.7"), hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.2.9"), hmac::HMAC_SHA256),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.2.10"), hmac::HMAC_SHA384),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.2.11"), hmac::HMAC_SHA512),
];

/// The hashes of a MAC.
const HASHES: [(ObjectIdentifier, hmac::Algorithm); 4] = [
    (ObjectIdentifier::new_unwrap("1.3.14.3.2.26"), hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"), hmac::HMAC_SHA256),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"), hmac::HMAC_SHA384),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"), hmac::HMAC_SHA512),
];

/// Ciphers of RFC 7292 §C, by the last arc of 1.2.840.113549.1.12.1.
#[derive(Debug, Clone, Copy)]
enum Pbes1 {
    TripleDes3,
    TripleDes2,
    Rc2 { key_bytes: usize },
}

const PBES1: [(ObjectIdentifier, Pbes1); 4] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.3"), Pbes1::TripleDes3),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.4"), Pbes1::TripleDes2),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.5"), Pbes1::Rc2 { key_bytes: 16 }),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.6"), Pbes1::Rc2 { key_bytes: 5 }),
];

/// Verifies a PFX's MAC over `content`.
pub(super) fn verify_mac(
    mac: &Mac<'_>,
    content: &[u8],
    password: &Password<'_>,
    budget: &mut Budget,
) -> Result<(), DecryptError> {
    let algorithm = find(&HASHES, &mac.digest.algorithm.oid)?;
    let hash = algorithm.digest_algorithm();
    let salted = Salted { salt: mac.salt.as_bytes(), iterations: mac.iterations };
    let key = derivation::pkcs12(hash, password, salted, Use::Mac, hash.output_len(), budget)?;
    let key = hmac::Key::new(algorithm, &key);
    hmac::verify(&key, content, mac.digest.digest.as_bytes()).map_err(|_| DecryptError::Password)
}

/// Decrypts an `EncryptedPrivateKeyInfo` (RFC 5958 §3) to PKCS#8.
pub(super) fn decrypt_key(
    key: &EncryptedPrivateKey<'_>,
    password: &Password<'_>,
    budget: &mut Budget,
) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
    decrypt(&key.algorithm, key.bytes.as_bytes(), password, budget)
}

/// Decrypts `bytes`.
pub(super) fn decrypt(
    algorithm: &AlgorithmIdentifierRef<'_>,
    bytes: &[u8],
    password: &Password<'_>,
    budget: &mut Budget,
) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
    if algorithm.oid == PBES2 {
        let parameters: Pbes2Parameters<'_> = parameters(algorithm)?;
        return pbes2(&parameters, bytes, password, budget);
    }
    let cipher = find(&PBES1, &algorithm.oid)?;
    let given: Pbes1Parameters<'_> = parameters(algorithm)?;
    let salted = Salted { salt: given.salt.as_bytes(), iterations: given.iterations };
    let mut derive = |use_for: Use, length: usize| {
        derivation::pkcs12(&digest::SHA1_FOR_LEGACY_USE_ONLY, password, salted, use_for, length, budget)
    };
    let iv = derive(Use::InitialVector, LEGACY_BLOCK)?;
    match cipher {
        Pbes1::TripleDes3 => cbc_decrypt(TdesEde3::new_from_slice(&derive(Use::Encryption, 24)?), &iv, bytes),
        Pbes1::TripleDes2 => cbc_decrypt(TdesEde2::new_from_slice(&derive(Use::Encryption, 16)?), &iv, bytes),
        Pbes1::Rc2 { key_bytes } => {
            cbc_decrypt(Rc2::new_from_slice(&derive(Use::Encryption, key_bytes)?), &iv, bytes)
        }
    }
}

fn pbes2(
    given: &Pbes2Parameters<'_>,
    bytes: &[u8],
    password: &Password<'_>,
    budget: &mut Budget,
) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
    if given.derivation.oid != PBKDF2 {
        return Err(unsupported(&given.derivation.oid));
    }
    let derivation: Pbkdf2Parameters<'_> = parameters(&given.derivation)?;
    let function = match &derivation.function {
        Some(function) => find(&FUNCTIONS, &function.oid)?,
        None => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
    };
    let iv: OctetStringRef<'_> = parameters(&given.encryption)?;
    let salted = Salted { salt: derivation.salt.as_bytes(), iterations: derivation.iterations };
    let mut derive = |length: u16| {
        if derivation.key_length.is_some_and(|told| told != length) {
            return Err(DecryptError::Malformed("PBKDF2 key length".to_owned()));
        }
        derivation::pbkdf2(function, password, salted, usize::from(length), budget)
    };
    match given.encryption.oid {
        AES_128_CBC => aes(UnboundCipherKey::new(&AES_128, &derive(16)?), iv.as_bytes(), bytes),
        AES_192_CBC => aes(UnboundCipherKey::new(&AES_192, &derive(24)?), iv.as_bytes(), bytes),
        AES_256_CBC => aes(UnboundCipherKey::new(&AES_256, &derive(32)?), iv.as_bytes(), bytes),
        DES_EDE3_CBC => cbc_decrypt(TdesEde3::new_from_slice(&derive(24)?), iv.as_bytes(), bytes),
        other => Err(unsupported(&other)),
    }
}

fn aes(
    key: Result<UnboundCipherKey, aws_lc_rs::error::Unspecified>,
    iv: &[u8],
    bytes: &[u8],
) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
    let key = key.and_then(PaddedBlockDecryptingKey::cbc_pkcs7);
    let iv = FixedLength::<16>::try_from(iv);
    let (Ok(key), Ok(iv)) = (key, iv) else {
        return Err(DecryptError::Malformed("initial vector of AES".to_owned()));
    };
    let mut buffer = Zeroizing::new(bytes.to_vec());
    let plain = key.decrypt(&mut buffer, DecryptionContext::Iv128(iv)).map_err(|_| DecryptError::Password)?;
    Ok(Zeroizing::new(plain.to_vec()))
}

/// Decrypts with the ciphers that aws-lc-rs has not: 3DES and RC2, in CBC with PKCS#7 padding.
fn cbc_decrypt<C: BlockCipherDecrypt, E>(
    cipher: Result<C, E>,
    iv: &[u8],
    bytes: &[u8],
) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
    let malformed = |_| DecryptError::Malformed("initial vector".to_owned());
    let cipher = cipher.map_err(|_| DecryptError::Malformed("key length".to_owned()))?;
    let decryptor = cbc::Decryptor::inner_iv_slice_init(cipher, iv).map_err(malformed)?;
    let mut buffer = Zeroizing::new(bytes.to_vec());
    let plain = decryptor.decrypt_padded::<Pkcs7>(&mut buffer).map_err(|_| DecryptError::Password)?;
    Ok(Zeroizing::new(plain.to_vec()))
}

fn parameters<'a, T: Decode<'a> + der::DecodeValue<'a> + der::FixedTag + 'a>(
    algorithm: &AlgorithmIdentifierRef<'a>,
) -> Result<T, DecryptError> {
    let malformed =
        |problem: String| DecryptError::Malformed(format!("parameters of {}: {problem}", algorithm.oid));
    let parameters = algorithm.parameters.ok_or_else(|| malformed("none".to_owned()))?;
    parameters.decode_as().map_err(|error| malformed(error.to_string()))
}

fn find<T: Copy>(known: &[(ObjectIdentifier, T)], oid: &ObjectIdentifier) -> Result<T, DecryptError> {
    known.iter().find(|(known, _)| known == oid).map(|(_, found)| *found).ok_or_else(|| unsupported(oid))
}

/// Names an algorithm for people: its OID, with its name where one is known.
fn unsupported(oid: &ObjectIdentifier) -> DecryptError {
    let name = const_oid::db::DB.by_oid(oid).map(|name| format!(" ({name})")).unwrap_or_default();
    DecryptError::Unsupported(format!("{oid}{name}"))
}
