//! [`DeviceKey`]: what a device without a certificate is known by (C1), and how it proves that it has it.
//!
//! The key signs what the TLS exporter gives on one connection (RFC 8446 §7.5), so a proof is worth nothing on another.
//! The name of the device is a digest of the key: nobody can claim another's, and none is ever that of a certificate. What
//! such a device says is its own word; that there is no CA behind it is for others to bear in mind.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::pem::LineEnding;
use rustls_pki_types::PrivateKeyDer;
pub use zeroize::Zeroizing;

use crate::device_id::DeviceId;
use crate::pem::{self, PemError};

/// The label that the exporter is asked with, without a context.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-muster-device-key";

/// Bytes that the exporter is asked for.
pub const EXPORTER_BYTES: usize = 32;

/// What the exporter gives: another value on every connection.
pub type Exported = [u8; EXPORTER_BYTES];

/// The header of the upgrade request that holds the proof.
pub const DEVICE_KEY_HEADER: &str = "muster-device-key";

/// The first byte of a proof.
const VERSION: u8 = 1;

/// What is signed begins with this, so that no signature of another kind or protocol counts.
const CONTEXT: &[u8] = b"muster.v1 device key\0";

/// An Ed25519 key (RFC 8032 §5.1.5).
const PUBLIC_BYTES: usize = 32;

/// An Ed25519 signature (RFC 8032 §5.1.6).
const SIGNATURE_BYTES: usize = 64;

const PROOF_BYTES: usize = 1 + PUBLIC_BYTES + SIGNATURE_BYTES;

/// What stands before the key in the DER of its SubjectPublicKeyInfo (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The key pair of a device that has no certificate.
pub struct DeviceKey {
    pair: Ed25519KeyPair,
    public: [u8; PUBLIC_BYTES],
    device: DeviceId,
}

/// A key whose holder is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenKey {
    device: DeviceId,
    spki: Vec<u8>,
}

/// Why a file is no device key.
#[derive(Debug, thiserror::Error)]
pub enum DeviceKeyError {
    /// There is no private key in it.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// It is a key of another kind.
    #[error("{0}: got a key of another kind or a damaged one, wanted an Ed25519 key as PKCS#8")]
    Kind(String),
    /// The system gave no random bytes.
    #[error("no key could be made: the system gives no random numbers")]
    Random,
}

/// Why a proof does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It has another form.
    #[error("got no proof of version 1, wanted {PROOF_BYTES} bytes in base64url without padding")]
    Form,
    /// The key is none that only its holder can sign with.
    #[error(
        "got a public key of small order or of another form than RFC 8032 §5.1.2 has, wanted one that was made of a private key"
    )]
    Key,
    /// The key did not sign this connection.
    #[error("got a signature that the key did not make on this very connection")]
    Signature,
}

impl DeviceKey {
    /// Makes a new one; returns it with its PKCS#8 in PEM.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn generate() -> Result<(Self, Zeroizing<String>), DeviceKeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| DeviceKeyError::Random)?;
        let document = pair.to_pkcs8v1().map_err(|_| DeviceKeyError::Random)?;
        let text = der::pem::encode_string("PRIVATE KEY", LineEnding::LF, document.as_ref());
        let text = Zeroizing::new(text.map_err(|_| DeviceKeyError::Random)?);
        Ok((Self::of(pair, "the new key")?, text))
    }

    /// Reads one from PEM; `what` names the file in errors.
    ///
    /// # Errors
    /// There is none, or it is of another kind.
    pub fn from_pem(bytes: &[u8], what: &str) -> Result<Self, DeviceKeyError> {
        let other = || DeviceKeyError::Kind(what.to_owned());
        let PrivateKeyDer::Pkcs8(der) = pem::private_key(bytes, what)? else { return Err(other()) };
        let pair = Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| other())?;
        Self::of(pair, what)
    }

    fn of(pair: Ed25519KeyPair, what: &str) -> Result<Self, DeviceKeyError> {
        let public = pair.public_key().as_ref().try_into();
        let public: [u8; PUBLIC_BYTES] = public.map_err(|_| DeviceKeyError::Kind(what.to_owned()))?;
        Ok(Self { pair, public, device: DeviceId::of_key(&spki(&public)) })
    }

    /// Returns the name of the device that has it.
    #[must_use]
    pub fn device(&self) -> &DeviceId {
        &self.device
    }

    /// Proves on the connection whose exporter gave this that the key is here; returns the header's value.
    #[must_use]
    pub fn prove(&self, exported: &Exported) -> String {
        let signature = self.pair.sign(&signed(exported, &self.device));
        let proof = [&[VERSION][..], &self.public, signature.as_ref()].concat();
        URL_SAFE_NO_PAD.encode(proof)
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DeviceKey").field("device", &self.device).finish_non_exhaustive()
    }
}

impl ProvenKey {
    /// Verifies a header's value on the connection whose exporter gave this.
    ///
    /// # Errors
    /// It proves nothing here.
    pub fn verify(header: &[u8], exported: &Exported) -> Result<Self, ProofError> {
        // Looked at before it is decoded, so that nothing long is.
        if header.len() != PROOF_BYTES.div_ceil(3) * 4 - 2 {
            return Err(ProofError::Form);
        }
        let proof = URL_SAFE_NO_PAD.decode(header).map_err(|_| ProofError::Form)?;
        let (version, rest) = proof.split_first().ok_or(ProofError::Form)?;
        let (public, signature) = rest.split_at_checked(PUBLIC_BYTES).ok_or(ProofError::Form)?;
        let public: &[u8; PUBLIC_BYTES] = public.try_into().map_err(|_| ProofError::Form)?;
        if *version != VERSION || signature.len() != SIGNATURE_BYTES {
            return Err(ProofError::Form);
        }
        if !is_canonical(public) || is_of_small_order(public) {
            return Err(ProofError::Key);
        }
        let spki = spki(public);
        let device = DeviceId::of_key(&spki);
        let key = UnparsedPublicKey::new(&ED25519, public);
        key.verify(&signed(exported, &device), signature).map_err(|_| ProofError::Signature)?;
        Ok(Self { device, spki })
    }

    /// Returns the name of the device.
    #[must_use]
    pub fn device(&self) -> &DeviceId {
        &self.device
    }

    /// Returns the DER of its SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }
}

/// Returns what a proof signs: every part has a fixed length.
fn signed(exported: &Exported, device: &DeviceId) -> Vec<u8> {
    [CONTEXT, &exported[..], device.as_str().as_bytes()].concat()
}

/// The y of the points whose order divides 8, lowest byte first: 1 (order 1), -1 (order 2), 0 (order 4), and the two of order 8. With
/// such a key the signature of nobody holds, now and then of any text: what it proves is nothing (RFC 8032 leaves them to us).
const SMALL_ORDER_Y: [[u8; PUBLIC_BYTES]; 5] = [
    y_of(1, 0, 0),
    y_of(0xec, 0xff, 0x7f),
    y_of(0, 0, 0),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

/// Makes a number of its lowest byte, those between, and its highest.
const fn y_of(lowest: u8, between: u8, highest: u8) -> [u8; PUBLIC_BYTES] {
    let mut y = [between; PUBLIC_BYTES];
    y[0] = lowest;
    y[PUBLIC_BYTES - 1] = highest;
    y
}

/// Returns the y of a point, without the sign of its x (RFC 8032 §5.1.2).
fn y(public: &[u8; PUBLIC_BYTES]) -> [u8; PUBLIC_BYTES] {
    let mut y = *public;
    y[PUBLIC_BYTES - 1] &= 0x7f;
    y
}

/// Returns whether y is less than 2^255 - 19: one point has one name, and so one DeviceId.
fn is_canonical(public: &[u8; PUBLIC_BYTES]) -> bool {
    let [lowest, between @ .., highest] = y(public);
    highest != 0x7f || between.iter().any(|byte| *byte != 0xff) || lowest < 0xed
}

fn is_of_small_order(public: &[u8; PUBLIC_BYTES]) -> bool {
    SMALL_ORDER_Y.contains(&y(public))
}

fn spki(public: &[u8; PUBLIC_BYTES]) -> Vec<u8> {
    [&SPKI_PREFIX[..], public].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HERE: Exported = [7; EXPORTER_BYTES];

    #[test]
    fn c1_a_proof_holds_on_its_own_connection_and_on_no_other() {
        let (key, pem) = DeviceKey::generate().unwrap();
        let read = DeviceKey::from_pem(pem.as_bytes(), "device.key").unwrap();

        let proof = read.prove(&HERE);

        let proven = ProvenKey::verify(proof.as_bytes(), &HERE).unwrap();
        assert_eq!((proven.device(), read.device()), (key.device(), key.device()));
        assert!(key.device().is_of_key());
        assert_eq!(
            ProvenKey::verify(proof.as_bytes(), &[8; EXPORTER_BYTES]),
            Err(ProofError::Signature),
            "replayed"
        );
    }

    /// The example of PROTOCOL.md §1, made with `openssl pkeyutl -sign -rawin`.
    #[test]
    fn c1_a_proof_is_what_openssl_makes_of_the_same_key() {
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n\
                   -----END PRIVATE KEY-----\n";

        let key = DeviceKey::from_pem(pem.as_bytes(), "device.key").unwrap();

        assert_eq!(key.device().as_str(), "a050837d85070582ccf7394b0988847c.key.invalid");
        assert_eq!(
            key.prove(&HERE),
            "AQOhB7_zzhC-HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4OBhJG8ehAbGHMUn8ZGffhw_lfw8q-ojMjlvlu9Ejlty6q7hoZ-99zAU1OUB8wTOvIFbQfQacevPOzYu58Vf3Bg"
        );
    }

    #[test]
    fn c1_a_proof_of_one_key_is_none_of_another() {
        let (mine, theirs) = (DeviceKey::generate().unwrap().0, DeviceKey::generate().unwrap().0);
        let mut proof = URL_SAFE_NO_PAD.decode(mine.prove(&HERE)).unwrap();

        proof[1..=PUBLIC_BYTES].copy_from_slice(&theirs.public);

        let swapped = URL_SAFE_NO_PAD.encode(proof);
        assert_eq!(ProvenKey::verify(swapped.as_bytes(), &HERE), Err(ProofError::Signature));
    }

    /// Every name of a point of small order, canonical or not, with either sign.
    fn worthless() -> Vec<[u8; PUBLIC_BYTES]> {
        let same = [y_of(0xed, 0xff, 0x7f), y_of(0xee, 0xff, 0x7f)];
        let both = |y: [u8; PUBLIC_BYTES]| {
            let mut negative = y;
            negative[PUBLIC_BYTES - 1] |= 0x80;
            [y, negative]
        };
        SMALL_ORDER_Y.into_iter().chain(same).flat_map(both).collect()
    }

    #[test]
    fn c1_a_key_that_nobody_needs_to_have_proves_nothing() {
        let mut accepted_by_the_signature_alone = 0;
        for public in worthless() {
            for here in 0..16 {
                let exported = [here; EXPORTER_BYTES];
                let message = signed(&exported, &DeviceId::of_key(&spki(&public)));
                for r in worthless() {
                    // S = 0: made without a private key.
                    let signature = [r, [0; PUBLIC_BYTES]].concat();
                    let alone = UnparsedPublicKey::new(&ED25519, public).verify(&message, &signature);
                    accepted_by_the_signature_alone += u32::from(alone.is_ok());
                    let proof = [&[VERSION][..], &public, &signature].concat();

                    let verified = ProvenKey::verify(URL_SAFE_NO_PAD.encode(proof).as_bytes(), &exported);

                    assert_eq!(verified, Err(ProofError::Key), "{public:02x?}");
                }
            }
        }
        assert!(accepted_by_the_signature_alone > 0, "the signature is no guard of its own");
    }

    #[test]
    fn c1_a_key_has_one_form() {
        let (last, first) = (y_of(0xeb, 0xff, 0x7f), y_of(0xed, 0xff, 0x7f));

        assert!(is_canonical(&last) && is_canonical(&y_of(0xff, 0, 0x7f)));
        assert!(!is_canonical(&first) && !is_canonical(&[0xff; PUBLIC_BYTES]));
    }

    #[test]
    fn c1_a_key_is_no_other_devices_whatever_its_name_is_said_to_be() {
        let (key, other) = (DeviceKey::generate().unwrap().0, DeviceKey::generate().unwrap().0);
        let signature = key.pair.sign(&signed(&HERE, other.device()));
        let proof = [&[VERSION][..], &key.public, signature.as_ref()].concat();

        let verified = ProvenKey::verify(URL_SAFE_NO_PAD.encode(proof).as_bytes(), &HERE);

        assert_eq!(verified, Err(ProofError::Signature));
    }

    #[test]
    fn keys_of_another_kind_are_refused_by_name() {
        let request = rcgen::KeyPair::generate().unwrap();

        let error = DeviceKey::from_pem(request.serialize_pem().as_bytes(), "device.key").unwrap_err();

        assert!(error.to_string().contains("device.key: got a key of another kind"), "{error}");
        assert!(DeviceKey::from_pem(b"", "device.key").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_no_proof_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(ProvenKey::verify(&bytes, &HERE).is_err());
            let text = URL_SAFE_NO_PAD.encode(&bytes);
            prop_assert!(ProvenKey::verify(text.as_bytes(), &HERE).is_err());
        }
    }
}
