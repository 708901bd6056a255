use muster_pki::ExtendedKeyUsage;
use muster_proto::common::v1::Refusal;

mod form;
mod signers;
mod stamps;

use super::*;
use crate::fixture::{NOW, Pki, at, facts};

const CONTENT: &[u8] = b"what is reviewed is what is signed";

#[test]
fn gives_back_the_bytes_the_signer_and_the_time() {
    let pki = Pki::deep("authors");
    let signer = pki.signer("ann", Role::Author);

    let envelope = sign(CONTENT, ContentType::Definition, &signer, at(NOW)).unwrap();
    let verified =
        verify(&envelope, ContentType::Definition, Role::Author, &Anchors::of(&pki.roots()), &facts())
            .unwrap();

    assert_eq!(verified.content, CONTENT);
    assert_eq!(verified.signers, [signer.certificate().unwrap().clone()]);
    assert_eq!(verified.signing_time, at(NOW));
    assert_eq!(inspect(&envelope).unwrap().certificates.len(), 2);
}

#[test]
fn every_single_bit_flip_is_refused() {
    let pki = Pki::flat("a");
    let roots = pki.roots();
    let mut envelope = sign(b"x", ContentType::Definition, &pki.signer("b", Role::Author), at(NOW)).unwrap();
    for index in 0..envelope.len() {
        for bit in 0..8 {
            envelope[index] ^= 1 << bit;

            let verdict =
                verify(&envelope, ContentType::Definition, Role::Author, &Anchors::of(&roots), &facts());

            assert!(verdict.is_err(), "bit {bit} of byte {index}");
            envelope[index] ^= 1 << bit;
        }
    }
    verify(&envelope, ContentType::Definition, Role::Author, &Anchors::of(&roots), &facts()).unwrap();
}

#[test]
fn every_truncation_and_every_further_byte_is_refused() {
    let pki = Pki::flat("a");
    let roots = pki.roots();
    let envelope = sign(b"x", ContentType::Definition, &pki.signer("b", Role::Author), at(NOW)).unwrap();
    for length in 0..envelope.len() {
        let verdict = verify(
            &envelope[..length],
            ContentType::Definition,
            Role::Author,
            &Anchors::of(&roots),
            &facts(),
        );

        assert!(verdict.is_err(), "{length} bytes");
    }
    for byte in [0, 0x30, 0xff] {
        let longer = [&envelope[..], &[byte]].concat();

        assert!(
            verify(&longer, ContentType::Definition, Role::Author, &Anchors::of(&roots), &facts()).is_err()
        );
    }
}

#[test]
fn no_type_is_taken_for_another() {
    let pki = Pki::flat("a");
    let signer = pki.signer("b", Role::Author);
    for signed in ContentType::ALL {
        let envelope = sign(CONTENT, signed, &signer, at(NOW)).unwrap();
        for wanted in ContentType::ALL {
            let verdict = verify(&envelope, wanted, Role::Author, &Anchors::of(&pki.roots()), &facts());

            let is_inside = signed != ContentType::File;
            assert_eq!(verdict.is_ok(), signed == wanted && is_inside, "{signed:?} as {wanted:?}");
        }
    }
}

#[test]
fn what_nobody_signed_has_one_form_and_cannot_be_changed_without_a_key() {
    let pki = Pki::flat("a");
    let envelope = sign(CONTENT, ContentType::Definition, &pki.signer("b", Role::Author), at(NOW)).unwrap();
    let refused = |data: &cms::signed_data::SignedData| {
        let changed = structure::encode(data).unwrap();
        assert_ne!(changed, envelope);
        verify(&changed, ContentType::Definition, Role::Author, &Anchors::of(&pki.roots()), &facts())
            .unwrap_err()
    };
    let null = || Some(der::asn1::AnyRef::NULL.into());

    let mut digest = structure::signed_data(&envelope).unwrap();
    let mut infos = digest.signer_infos.0.into_vec();
    infos[0].digest_alg.parameters = null();
    digest.digest_algorithms =
        structure::digest_algorithms(infos.iter().map(|info| &info.digest_alg)).unwrap();
    digest.signer_infos = infos.try_into().unwrap();
    let mut signature = structure::signed_data(&envelope).unwrap();
    let mut infos = signature.signer_infos.0.into_vec();
    infos[0].signature_algorithm.parameters = null();
    signature.signer_infos = infos.try_into().unwrap();

    for data in [digest, signature] {
        let error = refused(&data).to_string();
        assert!(error.contains("wanted none (RFC 5754)"), "{error}");
    }
}

#[test]
fn g5_refuses_a_signer_of_another_root() {
    let envelope =
        sign(CONTENT, ContentType::Order, &Pki::flat("a").signer("b", Role::OrderSigner), at(NOW)).unwrap();

    check(&envelope, &Pki::flat("a"), Refusal::UntrustedSigner);
}

#[test]
fn g5_refuses_a_signer_without_code_signing() {
    let pki = Pki::flat("a");
    let signer = pki.signer_for("b", ExtendedKeyUsage::ClientAuth);

    check(&sign(CONTENT, ContentType::Order, &signer, at(NOW)).unwrap(), &pki, Refusal::UntrustedSigner);
}

#[test]
fn g5_refuses_a_revoked_signer() {
    let pki = Pki::flat("a");
    let signer = pki.signer("b", Role::OrderSigner);
    let index = pki.revoking(signer.certificate().unwrap());
    let envelope = sign(CONTENT, ContentType::Order, &signer, at(NOW)).unwrap();

    let facts = Facts { revocation: Some(&index), ..facts() };
    let error = verify(&envelope, ContentType::Order, Role::OrderSigner, &Anchors::of(&pki.roots()), &facts)
        .unwrap_err();

    assert_eq!(error.refusal(), Refusal::SignerRevoked, "{error}");
}

#[test]
fn refuses_a_signature_after_its_certificate_and_one_from_the_future() {
    let pki = Pki::flat("a");
    let signer = pki.signer("b", Role::OrderSigner);
    let signed_now = sign(CONTENT, ContentType::Order, &signer, at(NOW)).unwrap();
    let signed_before = sign(CONTENT, ContentType::Order, &signer, at(NOW - 7_200)).unwrap();
    let by_a_fast_clock = sign(CONTENT, ContentType::Order, &signer, at(NOW + 300)).unwrap();
    let signed_later = sign(CONTENT, ContentType::Order, &signer, at(NOW + 301)).unwrap();

    let later = Facts { now: at(NOW + 2 * 86_400), ..facts() };
    let expired =
        verify(&signed_now, ContentType::Order, Role::OrderSigner, &Anchors::of(&pki.roots()), &later);

    assert!(matches!(expired, Err(EnvelopeError::Untrusted(_))), "{expired:?}");
    check(&signed_before, &pki, Refusal::BadSignature);
    let anchors = pki.roots();
    verify(&by_a_fast_clock, ContentType::Order, Role::OrderSigner, &Anchors::of(&anchors), &facts())
        .unwrap();
    check(&signed_later, &pki, Refusal::BadSignature);
}

#[test]
fn an_order_may_have_several_signers_and_a_definition_may_not() {
    let pki = Pki::deep("orders");
    let (ann, ben) = (pki.signer("ann", Role::OrderSigner), pki.signer("ben", Role::OrderSigner));

    let order = sign_by_all(CONTENT, ContentType::Order, &[&ann, &ben], at(NOW)).unwrap();
    let verified =
        verify(&order, ContentType::Order, Role::OrderSigner, &Anchors::of(&pki.roots()), &facts()).unwrap();

    assert_eq!(verified.signers.len(), 2);
    let two = sign_by_all(CONTENT, ContentType::Definition, &[&ann, &ben], at(NOW));
    assert_eq!(two, Err(SignError::Signers { got: 2, wanted: 1 }));
    let same = sign_by_all(CONTENT, ContentType::Order, &[&ann, &ann], at(NOW));
    assert!(matches!(same, Err(SignError::Signers { .. })));
    let nobody = sign_by_all(CONTENT, ContentType::Order, &[], at(NOW));
    assert_eq!(nobody, Err(SignError::Signers { got: 0, wanted: ORDER_SIGNERS_MAX }));
}

#[test]
fn a_signature_is_added_to_an_order_and_leaves_the_others_as_they_are() {
    let (ours, deep) = (Pki::flat("orders"), Pki::deep("others"));
    let (ann, ben) = (ours.signer("ann", Role::OrderSigner), deep.signer("ben", Role::OrderSigner));
    let roots = Roots::from_certificates([ours.root().clone(), deep.root().clone()]).unwrap();
    let alone = sign(CONTENT, ContentType::Order, &ann, at(NOW)).unwrap();

    let both = cosign(&alone, &ben, at(NOW + 60)).unwrap();

    let facts = Facts::at(at(NOW + 60));
    let verified =
        verify(&both, ContentType::Order, Role::OrderSigner, &Anchors::of(&roots), &facts).unwrap();
    assert_eq!(verified.content, CONTENT);
    let signers: Vec<_> = [&ann, &ben].map(|signer| signer.certificate().unwrap().clone()).into();
    assert!(verified.signers.len() == 2 && signers.iter().all(|one| verified.signers.contains(one)));
    assert_eq!(verified.signing_time, at(NOW + 60));
    let values = signature_values(&both).unwrap();
    assert!(values.contains(&signature_values(&alone).unwrap()[0]), "ann's own is what it was");
    assert!(values.len() == 2 && values[0] != values[1] && values.iter().all(|value| value.len() > 60));
    // In whatever order they sign, it is one form.
    let other_way =
        cosign(&sign(CONTENT, ContentType::Order, &ben, at(NOW)).unwrap(), &ann, at(NOW)).unwrap();
    verify(&other_way, ContentType::Order, Role::OrderSigner, &Anchors::of(&roots), &facts).unwrap();
}

#[test]
fn a_signature_that_cannot_be_added_is_refused_with_its_reason() {
    let pki = Pki::flat("orders");
    let signer = |name: &str| pki.signer(name, Role::OrderSigner);
    let ann = signer("ann");
    let order = sign(CONTENT, ContentType::Order, &ann, at(NOW)).unwrap();
    let definition = sign(CONTENT, ContentType::Definition, &ann, at(NOW)).unwrap();

    assert_eq!(cosign(&order, &ann, at(NOW)), Err(SignError::SignedBefore("CN=ann".to_owned())));
    assert_eq!(cosign(&definition, &signer("ben"), at(NOW)), Err(SignError::Signers { got: 2, wanted: 1 }));
    assert!(matches!(cosign(b"no envelope", &ann, at(NOW)), Err(SignError::Encoding(_))));
    let mut many = order;
    for number in 1..ORDER_SIGNERS_MAX {
        many = cosign(&many, &signer(&format!("signer{number}")), at(NOW)).unwrap();
    }
    assert_eq!(
        cosign(&many, &signer("one more"), at(NOW)),
        Err(SignError::Signers { got: ORDER_SIGNERS_MAX + 1, wanted: ORDER_SIGNERS_MAX })
    );
}

#[test]
fn as_many_approvals_as_a_definition_may_ask_for_fit_an_order_whatever_their_cas() {
    let people = |number| Pki::deep(&format!("ca{number}")).signer("x", Role::OrderSigner);
    let mut order = sign(CONTENT, ContentType::Order, &people(0), at(NOW)).unwrap();
    for number in 1..=APPROVALS_MAX {
        order = cosign(&order, &people(number), at(NOW)).unwrap();
    }
    let more = cosign(&order, &people(APPROVALS_MAX + 1), at(NOW));

    assert_eq!(inspect(&order).unwrap().signers.len(), 4);
    assert_eq!(more, Err(SignError::Certificates(CERTIFICATES_MAX + 2)));
}

#[test]
fn all_signers_of_an_order_must_be_trusted() {
    let pki = Pki::flat("orders");
    let (ann, eve) =
        (pki.signer("ann", Role::OrderSigner), Pki::flat("eve").signer("eve", Role::OrderSigner));

    check(
        &sign_by_all(CONTENT, ContentType::Order, &[&ann, &eve], at(NOW)).unwrap(),
        &pki,
        Refusal::UntrustedSigner,
    );
}

#[test]
fn refuses_too_many_bytes_before_it_looks_at_them() {
    let pki = Pki::flat("a");
    let zeros = vec![0; ENVELOPE_BYTES_MAX + 1];

    check(&zeros, &pki, Refusal::TooLarge);
    let signed = sign(&zeros, ContentType::Order, &pki.signer("b", Role::OrderSigner), at(NOW));
    assert!(matches!(signed, Err(SignError::TooLarge(_))));
}

#[test]
fn refuses_a_key_of_another_certificate_and_a_self_signed_signer() {
    let pki = Pki::flat("a");
    let key = pki.authority().key_pem();

    let self_signed = Signer::from_pem(pki.root().pem(), &key);

    assert!(matches!(self_signed, Err(SignError::Certificate(_))), "{self_signed:?}");
    let other = pki.signer("b", Role::Author).certificate().unwrap().pem();
    assert!(matches!(Signer::from_pem(other, &key), Err(SignError::Mismatch(_))));
}

#[test]
fn a_digest_is_sha256_over_the_bytes() {
    let digest = digest(b"").to_string();

    assert_eq!(digest, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_refused_without_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        let roots = Roots::default();
        let verdict = verify(&bytes, ContentType::Order, Role::OrderSigner, &Anchors::of(&roots), &facts());

        proptest::prop_assert!(verdict.is_err());
    }
}

fn check(envelope: &[u8], pki: &Pki, wanted: Refusal) {
    let error = verify(envelope, ContentType::Order, Role::OrderSigner, &Anchors::of(&pki.roots()), &facts())
        .unwrap_err();

    assert_eq!(error.refusal(), wanted, "{error}");
}
