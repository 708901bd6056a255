use cms::signed_data::SignerInfos;
use der::asn1::{Any, ObjectIdentifier, SetOfVec};
use muster_pki::ExtendedKeyUsage;
use muster_proto::common::v1::Refusal;
use x509_cert::attr::Attribute;

use super::super::structure::{encode, signed_data};
use super::super::{sign, verify};
use super::*;
use crate::fixture::{NOW, Pki, at, facts};

const CONTENT: &[u8] = b"\x7fELF and so on";

#[test]
fn g10_a_file_that_is_hashed_in_pieces_verifies_and_says_who_when_and_by_which_root() {
    let pki = Pki::deep("releases");
    let signer = pki.signer("ann", Role::Author);
    let mut digester = Digester::of(&signer);
    CONTENT.chunks(3).for_each(|piece| digester.update(piece));

    let signature = sign_detached(&digester.finish(), &signer, at(NOW)).unwrap();
    let verified = judged(&pki, &signature, CONTENT).unwrap();

    assert_eq!(&verified.signer, signer.certificate().unwrap());
    assert_eq!(&verified.root, pki.root());
    assert_eq!((verified.signing_time, verified.stamped_at), (at(NOW), None));
    assert!(!signature.windows(CONTENT.len()).any(|window| window == CONTENT));
}

#[test]
fn g10_the_signature_of_another_file_is_refused() {
    let pki = Pki::flat("a");
    let signature = signed(&pki.signer("b", Role::Author));

    for content in [&CONTENT[1..], &CONTENT[..CONTENT.len() - 1], b"", &[CONTENT, b"\0"].concat()] {
        let error = judged(&pki, &signature, content).unwrap_err();

        assert_eq!(error.refusal(), Refusal::BadSignature);
        assert!(error.to_string().contains("the content was changed"), "{error}");
    }
}

#[test]
fn g10_every_single_bit_flip_every_truncation_and_every_further_byte_of_a_signature_is_refused() {
    let pki = Pki::flat("a");
    let mut signature = signed(&pki.signer("b", Role::Author));
    for index in 0..signature.len() {
        assert!(judged(&pki, &signature[..index], CONTENT).is_err(), "{index} bytes");
        for bit in 0..8 {
            signature[index] ^= 1 << bit;
            assert!(judged(&pki, &signature, CONTENT).is_err(), "bit {bit} of byte {index}");
            signature[index] ^= 1 << bit;
        }
    }
    for byte in [0, 0x30, 0xff] {
        assert!(judged(&pki, &[&signature[..], &[byte]].concat(), CONTENT).is_err(), "{byte}");
    }
    judged(&pki, &signature, CONTENT).unwrap();
}

#[test]
fn a_document_is_no_files_signature_and_a_files_signature_with_the_file_inside_is_none() {
    let pki = Pki::flat("a");
    let signer = pki.signer("b", Role::Author);
    for content_type in ContentType::ALL.into_iter().filter(|other| *other != ContentType::File) {
        let document = sign(CONTENT, content_type, &signer, at(NOW)).unwrap();

        let error = judged(&pki, &document, CONTENT).unwrap_err();

        assert!(matches!(error, EnvelopeError::ContentType { .. }), "{content_type:?}: {error}");
    }
    let mut data = signed_data(&signed(&signer)).unwrap();
    data.encap_content_info.econtent =
        Some(Any::encode_from(&der::asn1::OctetStringRef::new(CONTENT).unwrap()).unwrap());
    let error = judged(&pki, &encode(&data).unwrap(), CONTENT).unwrap_err().to_string();
    assert!(error.contains("with the file inside; wanted it detached"), "{error}");
    let beside =
        verify(&signed(&signer), ContentType::File, Role::Author, &Anchors::of(&pki.roots()), &facts());
    assert!(beside.unwrap_err().to_string().contains("is verified beside its file"));
}

#[test]
fn g5_a_files_signer_is_for_code_signing_of_the_given_roots_alone_and_valid() {
    let pki = Pki::flat("a");
    let tls = signed(&pki.signer_for("b", ExtendedKeyUsage::ServerAuth));
    let stranger = signed(&Pki::flat("a").signer("b", Role::Author));
    let fine = signed(&pki.signer("b", Role::Author));

    for signature in [tls, stranger] {
        assert_eq!(judged(&pki, &signature, CONTENT).unwrap_err().refusal(), Refusal::UntrustedSigner);
    }
    let detached = Detached::read(&fine).unwrap();
    let later = Facts::at(at(NOW + 2 * 86_400));
    let digest = hashed(detached.digester(), CONTENT);
    let expired = detached.verify(&digest, Role::Author, &Anchors::of(&pki.roots()), &later);
    assert_eq!(expired.unwrap_err().refusal(), Refusal::UntrustedSigner);
}

#[test]
fn g10_a_legacy_countersignature_is_refused() {
    let pki = Pki::flat("a");
    let signer = pki.signer("b", Role::Author);
    let mut data = signed_data(&signed(&signer)).unwrap();
    let info = data.signer_infos.0.as_slice()[0].clone();
    let countersignature = Attribute {
        oid: ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.6"),
        values: SetOfVec::try_from(vec![Any::encode_from(&info).unwrap()]).unwrap(),
    };
    let unsigned_attrs = Some(SetOfVec::try_from(vec![countersignature]).unwrap());
    let countersigned = cms::signed_data::SignerInfo { unsigned_attrs, ..info };
    data.signer_infos = SignerInfos::try_from(vec![countersigned]).unwrap();

    let error = judged(&pki, &encode(&data).unwrap(), CONTENT).unwrap_err();

    assert_eq!(error.refusal(), Refusal::BadSignature);
    assert!(error.to_string().contains("a legacy countersignature; wanted an RFC 3161 timestamp"), "{error}");
}

#[test]
fn a_digest_of_another_algorithm_than_the_signers_is_not_signed_and_not_compared() {
    let pki = Pki::flat("a");
    let signer = pki.signer("b", Role::Author);
    let other = hashed(Digester::with(Hash::Sha512), CONTENT);

    let unsigned = sign_detached(&other, &signer, at(NOW)).unwrap_err();
    let detached = Detached::read(&signed(&signer)).unwrap();
    let refused = detached.verify(&other, Role::Author, &Anchors::of(&pki.roots()), &facts()).unwrap_err();

    assert!(unsigned.to_string().contains("SHA-512, and this signer's is SHA-256"), "{unsigned}");
    assert!(refused.to_string().contains("a digest of another algorithm"), "{refused}");
}

fn hashed(mut digester: Digester, content: &[u8]) -> ContentDigest {
    digester.update(content);
    digester.finish()
}

fn signed(signer: &Signer) -> Vec<u8> {
    sign_detached(&hashed(Digester::of(signer), CONTENT), signer, at(NOW)).unwrap()
}

fn judged(pki: &Pki, signature: &[u8], content: &[u8]) -> Result<VerifiedFile, EnvelopeError> {
    let detached = Detached::read(signature)?;
    let digest = hashed(detached.digester(), content);
    detached.verify(&digest, Role::Author, &Anchors::of(&pki.roots()), &facts())
}
