//! Key kinds, signature algorithms, and what is too weak (C16).

use std::fmt;

use der::asn1::{ObjectIdentifier, UintRef};
use der::{Encode, Reader, SliceReader};
use rustls_pki_types::CertificateDer;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

/// What kind of key a certificate holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// RSA, with the length of the modulus in bits; 0 if it cannot be read.
    Rsa { bits: usize },
    /// ECDSA on a named curve.
    Ecdsa { curve: &'static str },
    /// Ed25519.
    Ed25519,
    /// Anything else, by OID.
    Other(ObjectIdentifier),
}

/// Shortest RSA modulus in bits (C16).
pub(crate) const RSA_BITS_MIN: usize = 2048;
/// Longest one: rustls and webpki verify nothing longer.
pub(crate) const RSA_BITS_MAX: usize = 8192;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

const CURVES: [(&str, ObjectIdentifier); 3] = [
    ("P-256", ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7")),
    ("P-384", ObjectIdentifier::new_unwrap("1.3.132.0.34")),
    ("P-521", ObjectIdentifier::new_unwrap("1.3.132.0.35")),
];

/// Signature algorithms over MD2, MD4, MD5 or SHA-1.
const WEAK_SIGNATURES: [ObjectIdentifier; 7] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.2"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.3"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"),
    ObjectIdentifier::new_unwrap("1.3.14.3.2.29"),
    ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"),
    ObjectIdentifier::new_unwrap("1.2.840.10040.4.3"),
];

impl KeyKind {
    pub(crate) fn of(key: &SubjectPublicKeyInfoOwned) -> Self {
        let curve = key.algorithm.parameters.as_ref().and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
        let bits = || modulus_bits(key.subject_public_key.raw_bytes()).unwrap_or(0);
        Self::from_parts(key.algorithm.oid, curve, bits)
    }

    /// Makes it of an algorithm's OID, the OID of its curve, and the length of the modulus if it is RSA.
    pub(crate) fn from_parts(
        oid: ObjectIdentifier,
        curve: Option<ObjectIdentifier>,
        bits: impl FnOnce() -> usize,
    ) -> Self {
        match curve {
            // id-RSASSA-PSS keys are not among them: rustls and webpki verify PSS with rsaEncryption keys only.
            _ if oid == RSA_ENCRYPTION => Self::Rsa { bits: bits() },
            _ if oid == ED25519 => Self::Ed25519,
            Some(curve) if oid == EC_PUBLIC_KEY && CURVES.iter().any(|(_, known)| *known == curve) => {
                Self::on_curve(curve)
            }
            Some(_) | None => Self::Other(oid),
        }
    }

    /// Returns the kind of an EC key by its curve.
    pub(crate) fn on_curve(curve: ObjectIdentifier) -> Self {
        let known = CURVES.iter().find(|(_, known)| *known == curve);
        known.map_or(Self::Other(curve), |(name, _)| Self::Ecdsa { curve: name })
    }

    /// Returns whether the key is too short, or of a kind that no signature is verified with (C16).
    pub(crate) fn is_weak(&self) -> bool {
        match self {
            Self::Rsa { bits } => !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(bits),
            Self::Ecdsa { .. } | Self::Ed25519 => false,
            Self::Other(_) => true,
        }
    }

    pub(crate) fn is_rsa(&self) -> bool {
        matches!(self, Self::Rsa { .. })
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
            Self::Ecdsa { curve } => write!(f, "ECDSA {curve}"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other(oid) => write!(f, "{oid}"),
        }
    }
}

/// Returns whether a signature algorithm rests on a broken hash (C16).
pub(crate) fn is_weak_signature(algorithm: &ObjectIdentifier) -> bool {
    WEAK_SIGNATURES.contains(algorithm)
}

/// Returns the algorithm's name, else its OID.
pub(crate) fn signature_name(algorithm: &ObjectIdentifier) -> String {
    const_oid::db::DB.by_oid(algorithm).map_or_else(|| algorithm.to_string(), str::to_owned)
}

/// Verifies `signature` over `message` with the key of `signer`.
pub(crate) fn verify_signature(
    signer: &CertificateDer<'_>,
    algorithm: &AlgorithmIdentifierOwned,
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureProblem> {
    let signer = webpki::EndEntityCert::try_from(signer).map_err(|_| SignatureProblem::Unsupported)?;
    let identifier = algorithm.to_der().map_err(|_| SignatureProblem::Unsupported)?;
    let mut problem = SignatureProblem::Unsupported;
    for candidate in webpki::ALL_VERIFICATION_ALGS {
        // webpki's identifiers are what stands inside the SEQUENCE.
        if !identifier.ends_with(&candidate.signature_alg_id())
            || identifier.len() != candidate.signature_alg_id().len() + 2
        {
            continue;
        }
        match signer.verify_signature(*candidate, message, signature) {
            Ok(()) => return Ok(()),
            Err(webpki::Error::InvalidSignatureForPublicKey) => problem = SignatureProblem::Wrong,
            Err(_) => {} // The key's kind does not suit this candidate.
        }
    }
    Err(problem)
}

/// Why a signature is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignatureProblem {
    /// Another key made it, or the bytes were changed.
    Wrong,
    /// No supported algorithm fits.
    Unsupported,
}

/// Returns whether a self-issued certificate carries its own key's signature, or one that we cannot judge.
pub(crate) fn may_have_signed_itself(der: &CertificateDer<'_>) -> bool {
    may_have_signed(der, der)
}

/// Returns whether the key of `signer` made the signature of the certificate `der`, or one that we cannot judge.
pub(crate) fn may_have_signed(signer: &CertificateDer<'_>, der: &[u8]) -> bool {
    let Some((message, algorithm, signature)) = signed_parts(der) else { return true };
    verify_signature(signer, &algorithm, message, &signature) != Err(SignatureProblem::Wrong)
}

/// Splits what X.509 signs (certificate or CRL) into signed bytes, algorithm and signature.
pub(crate) fn signed_parts(der: &[u8]) -> Option<(&[u8], AlgorithmIdentifierOwned, Vec<u8>)> {
    let mut reader = SliceReader::new(der).ok()?;
    let parts = reader.sequence(|inner| {
        let message = inner.tlv_bytes()?;
        let algorithm: AlgorithmIdentifierOwned = inner.decode()?;
        let signature: der::asn1::BitString = inner.decode()?;
        Ok((message, algorithm, signature.as_bytes().map(<[u8]>::to_vec)))
    });
    let (message, algorithm, signature) = parts.ok()?;
    // `None` where bits are left over, which no signature has.
    Some((message, algorithm, signature?))
}

fn modulus_bits(key: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(key).ok()?;
    let modulus: Vec<u8> = reader
        .sequence(|inner| {
            let modulus: UintRef<'_> = inner.decode()?;
            let _exponent: UintRef<'_> = inner.decode()?;
            Ok(modulus.as_bytes().to_vec())
        })
        .ok()?;
    let leading = usize::try_from(modulus.first()?.leading_zeros()).ok()?;
    (modulus.len() * 8).checked_sub(leading)
}
