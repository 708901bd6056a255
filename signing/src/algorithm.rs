//! The algorithms that a signature may name: of an envelope, or of a timestamp.

use std::ops::RangeInclusive;

use aws_lc_rs::{digest, signature};
use const_oid::db::{rfc5912, rfc8410};
use der::asn1::{AnyRef, ObjectIdentifier, UintRef};
use der::{Decode, Encode, Sequence};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoRef};

/// A digest algorithm; SHA-1 and MD5 are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// What is used, in words.
pub(crate) const WANTED: &str =
    "SHA-256, SHA-384 or SHA-512 with ECDSA P-256 or P-384, or RSA of 2048 to 8192 bits";

/// Bits of an RSA key, as `aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256` has them.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

/// Why an algorithm or a key is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// It is weak or unknown.
    #[error("{0}; wanted {WANTED}")]
    Algorithm(String),
    /// It is not in the form that its RFC asks for.
    #[error("{0}")]
    Form(String),
}

impl From<der::Error> for Unusable {
    fn from(error: der::Error) -> Self {
        Self::Form(error.to_string())
    }
}

/// A signer's key type, and with it what the key signs with here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// ECDSA over P-256 with SHA-256; a signature is the DER of ECDSA-Sig-Value (RFC 3279 §2.2.3).
    P256,
    /// ECDSA over P-384 with SHA-384; a signature as that of P-256.
    P384,
    /// RSA of 2048 to 8192 bits, PKCS#1 v1.5 with SHA-256.
    Rsa,
}

impl Hash {
    /// Reads a digest algorithm; parameters are absent or NULL (RFC 5754 §2). Envelopes have [one form](check_one_form) of the two.
    pub(crate) fn read(algorithm: &AlgorithmIdentifierOwned) -> Result<Self, Unusable> {
        let hash = match algorithm.oid {
            rfc5912::ID_SHA_256 => Self::Sha256,
            rfc5912::ID_SHA_384 => Self::Sha384,
            rfc5912::ID_SHA_512 => Self::Sha512,
            other => return Err(Unusable::Algorithm(format!("digest algorithm {}", name(&other)))),
        };
        check_parameters(algorithm)?;
        Ok(hash)
    }

    /// Returns the identifier, without parameters (RFC 5754 §2).
    pub(crate) fn identifier(self) -> AlgorithmIdentifierOwned {
        let oid = match self {
            Self::Sha256 => rfc5912::ID_SHA_256,
            Self::Sha384 => rfc5912::ID_SHA_384,
            Self::Sha512 => rfc5912::ID_SHA_512,
        };
        AlgorithmIdentifierOwned { oid, parameters: None }
    }

    pub(crate) fn of(self, bytes: &[u8]) -> digest::Digest {
        digest::digest(self.algorithm(), bytes)
    }

    /// Returns what hashes piece by piece.
    pub(crate) fn context(self) -> digest::Context {
        digest::Context::new(self.algorithm())
    }

    /// Returns the algorithm's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        }
    }

    const fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

impl KeyType {
    /// Reads the key's type from a Subject Public Key Info.
    pub(crate) fn read(spki_der: &[u8]) -> Result<(Self, Vec<u8>), Unusable> {
        let spki = SubjectPublicKeyInfoRef::from_der(spki_der)?;
        let key = spki.subject_public_key.raw_bytes().to_vec();
        let curve = spki.algorithm.parameters.map(|any| any.decode_as::<ObjectIdentifier>());
        match (spki.algorithm.oid, curve) {
            (rfc5912::ID_EC_PUBLIC_KEY, Some(Ok(rfc5912::SECP_256_R_1))) => Ok((Self::P256, key)),
            (rfc5912::ID_EC_PUBLIC_KEY, Some(Ok(rfc5912::SECP_384_R_1))) => Ok((Self::P384, key)),
            (rfc5912::RSA_ENCRYPTION, _) => {
                check_rsa_size(&key)?;
                Ok((Self::Rsa, key))
            }
            (other, _) => Err(Unusable::Algorithm(format!("a key of type {}", name(&other)))),
        }
    }

    /// Returns the digest that a key of this type signs with here.
    pub(crate) fn hash(self) -> Hash {
        match self {
            Self::P256 | Self::Rsa => Hash::Sha256,
            Self::P384 => Hash::Sha384,
        }
    }

    /// Returns the identifier of the signature that a key of this type makes here.
    pub(crate) fn identifier(self) -> AlgorithmIdentifierOwned {
        match self {
            Self::P256 => AlgorithmIdentifierOwned { oid: rfc5912::ECDSA_WITH_SHA_256, parameters: None },
            Self::P384 => AlgorithmIdentifierOwned { oid: rfc5912::ECDSA_WITH_SHA_384, parameters: None },
            // rsaEncryption is what RFC 5754 §3.2 asks every implementation to support, with NULL.
            Self::Rsa => AlgorithmIdentifierOwned {
                oid: rfc5912::RSA_ENCRYPTION,
                parameters: Some(AnyRef::NULL.into()),
            },
        }
    }
}

/// An RSA key (RFC 8017 §A.1.1).
#[derive(Sequence)]
struct RsaKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

/// Refuses a key that no signature is verified by, before anybody says that the signature is not its own.
fn check_rsa_size(key: &[u8]) -> Result<(), Unusable> {
    let key = RsaKey::from_der(key)?;
    let modulus = key.modulus.as_bytes();
    let unused = modulus.first().map_or(0, |first| first.leading_zeros());
    let bits = (modulus.len() * 8).saturating_sub(usize::try_from(unused).unwrap_or(0));
    match RSA_BITS.contains(&bits) {
        true => Ok(()),
        false => Err(Unusable::Algorithm(format!("an RSA key of {bits} bits"))),
    }
}

/// Returns how to verify a signature of this algorithm, over this digest, by a key of this type.
pub(crate) fn verifier(
    algorithm: &AlgorithmIdentifierOwned,
    hash: Hash,
    key: KeyType,
) -> Result<&'static dyn signature::VerificationAlgorithm, Unusable> {
    let is_for_key = match algorithm.oid {
        rfc5912::ECDSA_WITH_SHA_256 => hash == Hash::Sha256 && key != KeyType::Rsa,
        rfc5912::ECDSA_WITH_SHA_384 => hash == Hash::Sha384 && key != KeyType::Rsa,
        rfc5912::ECDSA_WITH_SHA_512 => hash == Hash::Sha512 && key != KeyType::Rsa,
        rfc5912::RSA_ENCRYPTION => key == KeyType::Rsa,
        rfc5912::SHA_256_WITH_RSA_ENCRYPTION => hash == Hash::Sha256 && key == KeyType::Rsa,
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION => hash == Hash::Sha384 && key == KeyType::Rsa,
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION => hash == Hash::Sha512 && key == KeyType::Rsa,
        other => return Err(Unusable::Algorithm(format!("signature algorithm {}", name(&other)))),
    };
    if !is_for_key {
        let problem =
            format!("signature algorithm {} with {hash:?} and a key of type {key:?}", name(&algorithm.oid));
        return Err(Unusable::Algorithm(problem));
    }
    check_parameters(algorithm)?;
    Ok(match (key, hash) {
        (KeyType::P256, Hash::Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
        (KeyType::P256, Hash::Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
        (KeyType::P256, Hash::Sha512) => &signature::ECDSA_P256_SHA512_ASN1,
        (KeyType::P384, Hash::Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
        (KeyType::P384, Hash::Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
        (KeyType::P384, Hash::Sha512) => &signature::ECDSA_P384_SHA512_ASN1,
        (KeyType::Rsa, Hash::Sha256) => &signature::RSA_PKCS1_2048_8192_SHA256,
        (KeyType::Rsa, Hash::Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
        (KeyType::Rsa, Hash::Sha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
    })
}

/// Refuses parameters that are not as RFC 5754 has signers write them: NULL for RSA (§3.2), none for digests (§2) and ECDSA (§3.3). It lets verifiers
/// take the other form, too; but nobody signs over these identifiers, so whoever has an envelope could change it without a key. openssl, gnutls and
/// ours write this one form. Timestamp authorities write either, so their tokens may have either.
///
/// Two things can be changed without a key all the same, and are harmless, since no envelope of another content comes of them: an RSA signature may
/// be called rsaEncryption or by its digest, and of ECDSA's number s the negative is as good. The envelope's digest is another one then: an order that
/// names a definition by its digest means the envelope that its operator saw.
pub(crate) fn check_one_form(algorithm: &AlgorithmIdentifierOwned) -> Result<(), Unusable> {
    let is_rsa = matches!(
        algorithm.oid,
        rfc5912::RSA_ENCRYPTION
            | rfc5912::SHA_256_WITH_RSA_ENCRYPTION
            | rfc5912::SHA_384_WITH_RSA_ENCRYPTION
            | rfc5912::SHA_512_WITH_RSA_ENCRYPTION
    );
    check_parameters(algorithm)?;
    if algorithm.parameters.is_some() == is_rsa {
        return Ok(());
    }
    let (found, wanted) = if is_rsa { ("no parameters", "NULL") } else { ("parameters", "none") };
    Err(Unusable::Form(format!("{found} of {}; wanted {wanted} (RFC 5754)", name(&algorithm.oid))))
}

fn check_parameters(algorithm: &AlgorithmIdentifierOwned) -> Result<(), Unusable> {
    let is_null = |parameters: &der::Any| parameters.to_der().is_ok_and(|der| der == [5, 0]);
    if algorithm.parameters.as_ref().is_none_or(is_null) {
        return Ok(());
    }
    Err(Unusable::Form(format!("parameters of {} that are neither absent nor NULL", name(&algorithm.oid))))
}

fn name(oid: &ObjectIdentifier) -> String {
    if *oid == rfc8410::ID_ED_25519 {
        return "Ed25519".to_owned();
    }
    const_oid::db::DB.by_oid(oid).map_or_else(|| oid.to_string(), |name| format!("{name} ({oid})"))
}

#[cfg(test)]
mod tests {
    use der::asn1::{Any, BitString, Null};
    use x509_cert::spki::SubjectPublicKeyInfoOwned;

    use super::*;

    const HASHES: [Hash; 3] = [Hash::Sha256, Hash::Sha384, Hash::Sha512];
    const KEYS: [KeyType; 3] = [KeyType::P256, KeyType::P384, KeyType::Rsa];

    fn identifier(oid: ObjectIdentifier, parameters: Option<Any>) -> AlgorithmIdentifierOwned {
        AlgorithmIdentifierOwned { oid, parameters }
    }

    fn null() -> Any {
        Any::encode_from(&Null).unwrap()
    }

    #[test]
    fn a_signature_algorithm_goes_with_its_own_digest_and_kind_of_key_alone() {
        let any: &[Hash] = &HASHES;
        let (curves, rsa): (&[KeyType], &[KeyType]) = (&[KeyType::P256, KeyType::P384], &[KeyType::Rsa]);
        let table = [
            (rfc5912::ECDSA_WITH_SHA_256, &[Hash::Sha256][..], curves),
            (rfc5912::ECDSA_WITH_SHA_384, &[Hash::Sha384], curves),
            (rfc5912::ECDSA_WITH_SHA_512, &[Hash::Sha512], curves),
            (rfc5912::RSA_ENCRYPTION, any, rsa),
            (rfc5912::SHA_256_WITH_RSA_ENCRYPTION, &[Hash::Sha256], rsa),
            (rfc5912::SHA_384_WITH_RSA_ENCRYPTION, &[Hash::Sha384], rsa),
            (rfc5912::SHA_512_WITH_RSA_ENCRYPTION, &[Hash::Sha512], rsa),
        ];
        for (oid, hashes, keys) in table {
            for hash in HASHES {
                for key in KEYS {
                    let wanted = hashes.contains(&hash) && keys.contains(&key);
                    for parameters in [None, Some(null())] {
                        let verdict = verifier(&identifier(oid, parameters), hash, key);
                        assert_eq!(verdict.is_ok(), wanted, "{oid} {hash:?} {key:?}");
                    }
                    let odd = verifier(&identifier(oid, Some(Any::encode_from(&7_u8).unwrap())), hash, key);
                    assert!(odd.is_err(), "{oid} {hash:?} {key:?}");
                }
            }
        }
        for oid in [rfc5912::SHA_1_WITH_RSA_ENCRYPTION, rfc5912::ID_RSASSA_PSS, rfc8410::ID_ED_25519] {
            assert!(KEYS.iter().all(|key| verifier(&identifier(oid, None), Hash::Sha256, *key).is_err()));
        }
    }

    #[test]
    fn a_digest_is_sha_2_without_parameters_or_with_null() {
        for hash in HASHES {
            let named = hash.identifier();
            assert_eq!(Hash::read(&named), Ok(hash));
            assert_eq!(Hash::read(&identifier(named.oid, Some(null()))), Ok(hash));
            let odd = Hash::read(&identifier(named.oid, Some(Any::encode_from(&7_u8).unwrap())));
            assert!(odd.unwrap_err().to_string().contains("neither absent nor NULL"));
            let mut context = hash.context();
            context.update(b"x");
            assert_eq!(hash.of(b"x").as_ref(), context.finish().as_ref());
        }
        assert_eq!(HASHES.map(Hash::name), ["SHA-256", "SHA-384", "SHA-512"]);
        let weak = Hash::read(&identifier(rfc5912::ID_SHA_1, None)).unwrap_err().to_string();
        assert!(weak.starts_with("digest algorithm id-sha1 (1.3.14.3.2.26); wanted SHA-256"), "{weak}");
        let ed25519 = Hash::read(&identifier(rfc8410::ID_ED_25519, None)).unwrap_err().to_string();
        assert!(ed25519.starts_with("digest algorithm Ed25519; wanted"), "{ed25519}");
        let unknown = Hash::read(&identifier(ObjectIdentifier::new_unwrap("1.2.3.4"), None)).unwrap_err();
        assert!(unknown.to_string().starts_with("digest algorithm 1.2.3.4; wanted"), "{unknown}");
    }

    fn read_key(
        oid: ObjectIdentifier,
        parameters: Option<Any>,
        key: &[u8],
    ) -> Result<(KeyType, Vec<u8>), Unusable> {
        let key = SubjectPublicKeyInfoOwned {
            algorithm: identifier(oid, parameters),
            subject_public_key: BitString::from_bytes(key).unwrap(),
        };
        KeyType::read(&key.to_der().unwrap())
    }

    #[test]
    fn an_rsa_key_has_2048_to_8192_bits_and_one_that_has_not_is_told_as_that() {
        // The first byte of the modulus, and how many there are.
        let of = |first: u8, bytes: usize| {
            let modulus = [vec![first], vec![1; bytes - 1]].concat();
            let key = RsaKey {
                modulus: UintRef::new(&modulus).unwrap(),
                exponent: UintRef::new(&[1, 0, 1]).unwrap(),
            };
            let key = key.to_der().unwrap();
            read_key(rfc5912::RSA_ENCRYPTION, Some(null()), &key).map(|(kind, read)| (kind, read == key))
        };
        let refused = |bits: usize| Err(Unusable::Algorithm(format!("an RSA key of {bits} bits")));

        for (first, bytes) in [(0x80, 256), (0xff, 384), (0xff, 1024)] {
            assert_eq!(of(first, bytes), Ok((KeyType::Rsa, true)));
        }
        assert_eq!(of(0x80, 128), refused(1024));
        assert_eq!(of(0x7f, 256), refused(2047));
        assert_eq!(of(0x01, 1025), refused(8193));
        let no_key = read_key(rfc5912::RSA_ENCRYPTION, Some(null()), &[4, 1, 2]);
        assert!(matches!(no_key, Err(Unusable::Form(_))), "{no_key:?}");
    }

    #[test]
    fn a_key_is_of_p256_p384_or_rsa() {
        let read = |oid, parameters| read_key(oid, parameters, &[4, 1, 2]);
        let curve = |oid: ObjectIdentifier| Some(Any::encode_from(&oid).unwrap());

        let key = vec![4, 1, 2];
        let of_curve = |oid| read(rfc5912::ID_EC_PUBLIC_KEY, curve(oid));
        assert_eq!(of_curve(rfc5912::SECP_256_R_1), Ok((KeyType::P256, key.clone())));
        assert_eq!(of_curve(rfc5912::SECP_384_R_1), Ok((KeyType::P384, key)));
        for (oid, parameters) in [
            (rfc5912::ID_EC_PUBLIC_KEY, curve(rfc5912::SECP_521_R_1)),
            (rfc5912::ID_EC_PUBLIC_KEY, None),
            (rfc8410::ID_ED_25519, None),
        ] {
            assert!(matches!(read(oid, parameters), Err(Unusable::Algorithm(_))), "{oid}");
        }
    }

    #[test]
    fn each_algorithm_has_one_form_in_an_envelope() {
        let of = |oid, parameters| AlgorithmIdentifierOwned { oid, parameters };
        let null = || Some(AnyRef::NULL.into());
        for oid in [
            rfc5912::RSA_ENCRYPTION,
            rfc5912::SHA_256_WITH_RSA_ENCRYPTION,
            rfc5912::SHA_384_WITH_RSA_ENCRYPTION,
            rfc5912::SHA_512_WITH_RSA_ENCRYPTION,
        ] {
            assert_eq!(check_one_form(&of(oid, null())), Ok(()));
            assert!(check_one_form(&of(oid, None)).is_err(), "{oid}");
        }
        for oid in [rfc5912::ID_SHA_256, rfc5912::ID_SHA_512, rfc5912::ECDSA_WITH_SHA_256] {
            assert_eq!(check_one_form(&of(oid, None)), Ok(()));
            assert!(check_one_form(&of(oid, null())).is_err(), "{oid}");
        }
        for key in [KeyType::P256, KeyType::P384, KeyType::Rsa] {
            assert_eq!(check_one_form(&key.identifier()), Ok(()));
            assert_eq!(check_one_form(&key.hash().identifier()), Ok(()));
        }
    }
}
