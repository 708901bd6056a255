//! Who signs: keys of every kind, and keys that live elsewhere (G7).

use std::time::Duration;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair as _, RsaKeyPair};
use der::asn1::UintRef;
use der::{Encode as _, Sequence};
use muster_pki::{PrivateKeyDer, pem};

use super::*;
use crate::fixture::{ecdsa, rsa_public_key};

/// A key that lives elsewhere and signs another message than it is given, if it lies.
struct Elsewhere {
    key: EcdsaKeyPair,
    lies: bool,
}

impl RemoteKey for Elsewhere {
    fn sign(&self, key_type: KeyType, message: &[u8]) -> Result<Vec<u8>, String> {
        assert_eq!(key_type, KeyType::P256);
        let message = if self.lies { &b"another"[..] } else { message };
        Ok(self.key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec())
    }
}

#[test]
fn g7_what_a_key_that_lives_elsewhere_signed_is_given_out_if_it_holds() {
    let pki = Pki::flat("authors");
    let issued = pki.issued("ann", Role::Author);
    let key = || ecdsa(&pem::private_key(issued.key_pem.as_bytes(), "a key").unwrap());
    let signed = |key: EcdsaKeyPair, lies: bool| {
        let signer =
            Signer::with_remote_key([issued.certificate.clone()], Box::new(Elsewhere { key, lies })).unwrap();
        sign(CONTENT, ContentType::Definition, &signer, at(NOW))
    };
    let other = ecdsa(&pem::private_key(pki.authority().key_pem().as_bytes(), "a key").unwrap());

    let envelope = signed(key(), false).unwrap();
    let anchors = pki.roots();
    verify(&envelope, ContentType::Definition, Role::Author, &Anchors::of(&anchors), &facts()).unwrap();
    let mismatch = Err(SignError::Mismatch("CN=ann".to_owned()));
    assert_eq!(signed(key(), true), mismatch);
    assert_eq!(signed(other, false), mismatch);
}

#[test]
fn g7_an_rsa_key_that_lives_elsewhere_has_2048_to_8192_bits() {
    let pki = Pki::flat("authors");
    let key = pem::private_key(pki.authority().key_pem().as_bytes(), "a key").unwrap();
    let with = |bytes: usize, first: u8| {
        let mut modulus = vec![0xff; bytes];
        modulus[0] = first;
        let public = RsaPublicKey {
            modulus: UintRef::new(&modulus).unwrap(),
            exponent: UintRef::new(&[1, 0, 1]).unwrap(),
        };
        let public = rsa_public_key(&public.to_der().unwrap());
        let leaf = pki.certified("ann", Role::Author, public);
        Signer::with_remote_key([leaf], Box::new(Elsewhere { key: ecdsa(&key), lies: false }))
    };

    for (bytes, first, bits) in [(256, 0xff, 2_048), (256, 0x80, 2_048), (1_024, 0xff, 8_192)] {
        assert!(with(bytes, first).is_ok(), "{bits}");
    }
    for (bytes, first, bits) in [(256, 0x7f, 2_047), (255, 0xff, 2_040), (1_025, 0x01, 8_193)] {
        let error = with(bytes, first).unwrap_err().to_string();
        assert!(error.contains(&format!("an RSA key of {bits} bits; wanted SHA-256")), "{error}");
        assert!(error.ends_with("RSA of 2048 to 8192 bits"), "{error}");
    }
}

#[test]
fn keys_of_p384_and_rsa_sign_what_verifies() {
    let pki = Pki::deep("authors");
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
    let leaf = pki.certified("rob", Role::Author, rsa_public_key(rsa.public_key().as_ref()));
    let chain = std::iter::once(leaf).chain(pki.authority().chain());
    let rob = Signer::new(chain, &PrivateKeyDer::Pkcs8(pkcs8.as_ref().to_vec().into())).unwrap();
    let signers = [pki.signer("ann", Role::Author), pki.signer_of_p384("eve", Role::Author), rob];
    let anchors = pki.roots();
    for (signer, algorithm) in signers.iter().zip(["SHA-256", "SHA-384", "SHA-256"]) {
        let envelope = sign(CONTENT, ContentType::Definition, signer, at(NOW)).unwrap();

        let verified =
            verify(&envelope, ContentType::Definition, Role::Author, &Anchors::of(&anchors), &facts());

        assert_eq!(verified.unwrap().content, CONTENT);
        let digester = Digester::of(signer);
        assert!(format!("{digester:?}").starts_with("Digester { hash: Sha"));
        let digest = digester.finish();
        assert_eq!(digest.algorithm(), algorithm);
        if algorithm == "SHA-256" {
            assert_eq!(digest.to_string(), super::digest(b"").to_string());
        }
    }
}

#[test]
fn a_key_of_another_kind_than_its_certificates_is_refused() {
    let pki = Pki::flat("authors");
    let p384 = pki.signer_of_p384("eve", Role::Author);
    let key = pem::private_key(pki.authority().key_pem().as_bytes(), "a key").unwrap();

    let mixed = Signer::new(p384.chain().to_vec(), &key);

    assert!(matches!(mixed, Err(SignError::Mismatch(_))), "{mixed:?}");
}

#[test]
fn a_signers_chain_has_each_certificate_once_and_no_root() {
    let pki = Pki::deep("authors");
    let issued = pki.issued("ann", Role::Author);
    let issuing = pki.authority().certificate();
    let all = [&issued.certificate, issuing, pki.root(), issuing, &issued.certificate].map(Certificate::pem);

    let signer = Signer::from_pem(all.concat(), &issued.key_pem).unwrap();

    assert_eq!(signer.chain(), [issued.certificate.clone(), issuing.clone()]);
    assert_eq!(signer.certificate(), Some(&issued.certificate));
    let debug = format!("{signer:?}");
    assert!(debug.starts_with("Signer") && debug.contains("chain") && debug.ends_with(".. }"), "{debug}");
}

#[test]
fn signing_times_are_utc_times_until_2049_and_generalized_times_from_2050() {
    let root = Pki::flat_for("authors", Duration::from_secs(40 * 365 * 86_400));
    for (seconds, tag) in [(2_524_607_999, 0x17_u8), (2_524_608_000, 0x18)] {
        let signer = root.signer_until("ann", Role::Author, seconds + 86_400);
        let envelope = sign(CONTENT, ContentType::Definition, &signer, at(seconds)).unwrap();
        let facts = Facts::at(at(seconds));
        let anchors = root.roots();

        let verified =
            verify(&envelope, ContentType::Definition, Role::Author, &Anchors::of(&anchors), &facts);

        assert_eq!(verified.unwrap().signing_time, at(seconds));
        let text: &[u8] = if tag == 0x17 { b"491231235959Z" } else { b"20500101000000Z" };
        let written = [&[tag, u8::try_from(text.len()).unwrap()], text].concat();
        assert!(envelope.windows(written.len()).any(|window| window == written), "{seconds}");
    }
}

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}
