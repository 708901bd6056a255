//! Every byte is accounted for: what no honest signer writes is refused, whoever signed it.

use cms::content_info::{CmsVersion, ContentInfo};
use cms::revocation::{OtherRevocationInfoFormat, RevocationInfoChoice, RevocationInfoChoices};
use cms::signed_data::{CertificateSet, SignedData, SignerIdentifier, SignerInfo, SignerInfos};
use const_oid::db::{rfc5911, rfc5912};
use der::asn1::{Any, Null, ObjectIdentifier, OctetString, OctetStringRef, SetOfVec};
use der::{Decode as _, Encode as _};
use x509_cert::attr::Attribute;
use x509_cert::ext::pkix::SubjectKeyIdentifier;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::*;
use crate::fixture::edited;
use crate::timestamp::stamper::choice;

/// An order's signer of a flat PKI.
struct Lab {
    pki: Pki,
    ann: Signer,
    order: Vec<u8>,
}

impl Lab {
    fn new() -> Self {
        let pki = Pki::flat("orders");
        let ann = pki.signer("ann", Role::OrderSigner);
        Self { order: sign(CONTENT, ContentType::Order, &ann, at(NOW)).unwrap(), pki, ann }
    }

    fn verify(&self, envelope: &[u8], content_type: ContentType) -> Result<Verified, EnvelopeError> {
        verify(envelope, content_type, Role::OrderSigner, &Anchors::of(&self.pki.roots()), &facts())
    }

    fn refuses(&self, words: &str, envelope: &[u8], content_type: ContentType) {
        let error = self.verify(envelope, content_type).expect_err(words);
        assert!(error.to_string().contains(words), "wanted {words}: {error}");
        assert_eq!(error.refusal(), Refusal::BadSignature, "{error}");
    }

    /// Refuses the order with something changed that no signature covers.
    fn refuses_data(&self, words: &str, change: impl FnOnce(&mut SignedData)) {
        self.refuses(words, &edited(&self.order, change), ContentType::Order);
    }

    fn refuses_info(&self, words: &str, change: impl FnOnce(&mut SignerInfo)) {
        self.refuses_data(words, |data| with_info(data, change));
    }

    /// The order with other attributes, which its signer signed.
    fn with_attributes(&self, change: impl FnOnce(&mut Vec<Attribute>)) -> Vec<u8> {
        edited(&self.order, |data| {
            with_info(data, |info| {
                let mut attributes = info.signed_attrs.clone().unwrap().into_vec();
                change(&mut attributes);
                let signed = SetOfVec::try_from(attributes).unwrap();
                info.signature = OctetString::new(self.ann.sign(&signed.to_der().unwrap()).unwrap()).unwrap();
                info.signed_attrs = Some(signed);
            });
        })
    }

    fn refuses_attributes(&self, words: &str, change: impl FnOnce(&mut Vec<Attribute>)) {
        self.refuses(words, &self.with_attributes(change), ContentType::Order);
    }
}

#[test]
fn a_content_type_is_named_as_in_a_sentence() {
    let named = [ContentType::Order, ContentType::Definition].map(ContentType::with_article);

    assert_eq!(named, ["an order", "a definition"]);
}

#[test]
fn an_envelope_without_signature_is_refused() {
    let lab = Lab::new();

    lab.refuses_data("0 signatures; wanted 1 to 8", |data| {
        data.signer_infos = SignerInfos::try_from(Vec::new()).unwrap();
        data.certificates = None;
        data.digest_algorithms = SetOfVec::new();
    });
}

#[test]
fn a_definition_with_two_signatures_and_an_order_with_two_of_one_signer_are_refused() {
    let lab = Lab::new();
    let two = cosign(&lab.order, &lab.pki.signer("ben", Role::OrderSigner), at(NOW)).unwrap();
    let as_definition = edited(&two, |data| {
        data.encap_content_info.econtent_type = ContentType::Definition.oid();
    });
    lab.refuses("2 signatures; wanted 1;", &as_definition, ContentType::Definition);

    let later = sign(CONTENT, ContentType::Order, &lab.ann, at(NOW - 1)).unwrap();
    let later = structure::signed_data(&later).unwrap().signer_infos.0;
    lab.refuses_data("two signatures of one signer", |data| {
        let both: Vec<_> = data.signer_infos.0.iter().chain(later.iter()).cloned().collect();
        data.signer_infos = SignerInfos::try_from(both).unwrap();
    });
}

#[test]
fn the_certificates_are_those_of_the_chains_and_at_most_eight() {
    let lab = Lab::new();
    let own = lab.ann.certificate().unwrap();
    let others: Vec<Certificate> =
        (0..8).map(|_| lab.pki.issued("other", Role::OrderSigner).certificate).collect();
    let with = |count: usize| {
        let all = std::iter::once(own).chain(others.iter().take(count)).map(choice).collect::<Vec<_>>();
        edited(&lab.order, |data| data.certificates = Some(CertificateSet::try_from(all).unwrap()))
    };

    assert!(lab.verify(&with(0), ContentType::Order).is_ok());
    let unused = EnvelopeError::UnusedCertificate("CN=other".to_owned());
    assert_eq!(lab.verify(&with(1), ContentType::Order).unwrap_err(), unused);
    assert_eq!(lab.verify(&with(7), ContentType::Order).unwrap_err(), unused);
    assert_eq!(unused.refusal(), Refusal::BadSignature);
    let many = lab.verify(&with(8), ContentType::Order).unwrap_err();
    assert_eq!((many.refusal(), many), (Refusal::TooLarge, EnvelopeError::TooManyCertificates(9)));
    lab.refuses_data("no certificate of the signer", |data| data.certificates = None);
}

#[test]
fn the_digest_algorithms_are_the_signers_each_once() {
    let (lab, deep) = (Lab::new(), Pki::deep("deep"));
    let algorithms = |envelope: &[u8]| {
        let data = structure::signed_data(envelope).unwrap();
        data.digest_algorithms.into_vec().into_iter().map(|one| one.oid).collect::<Vec<_>>()
    };
    let both = cosign(&lab.order, &deep.signer("ben", Role::OrderSigner), at(NOW)).unwrap();
    let mixed = cosign(&both, &deep.signer_of_p384("eve", Role::OrderSigner), at(NOW)).unwrap();

    assert_eq!(algorithms(&lab.order), [rfc5912::ID_SHA_256]);
    assert_eq!(algorithms(&both), [rfc5912::ID_SHA_256]);
    assert_eq!(algorithms(&mixed), [rfc5912::ID_SHA_256, rfc5912::ID_SHA_384]);
    lab.refuses_data("not exactly the signers'", |data| {
        data.digest_algorithms.insert(odd_algorithm(1)).unwrap();
    });
    lab.refuses_data("not exactly the signers'", |data| data.digest_algorithms = SetOfVec::new());
}

#[test]
fn what_no_signer_of_ours_writes_around_a_signature_is_refused() {
    let lab = Lab::new();

    lab.refuses_data("a version other than 3", |data| data.version = CmsVersion::V1);
    lab.refuses_data("CRLs inside", |data| data.crls = Some(crls()));
    lab.refuses_data("a detached signature, without its content", |data| {
        data.encap_content_info.econtent = None
    });
    lab.refuses_data("its contentType is another one", |data| {
        data.signer_infos =
            structure::signed_data(&sign(CONTENT, ContentType::Licence, &lab.ann, at(NOW)).unwrap())
                .unwrap()
                .signer_infos;
    });
    lab.refuses_data("the content was changed", |data| {
        let other = OctetStringRef::new(b"another").unwrap();
        data.encap_content_info.econtent = Some(Any::encode_from(&other).unwrap());
    });
    lab.refuses_data("a SET of more elements", |data| {
        data.digest_algorithms = SetOfVec::try_from((0..65).map(odd_algorithm).collect::<Vec<_>>()).unwrap();
    });
    let not_named = "named by issuer and serial number";
    lab.refuses_info(not_named, |info| info.version = CmsVersion::V3);
    lab.refuses_info(not_named, |info| {
        let id = SubjectKeyIdentifier(OctetString::new([1; 20]).unwrap());
        info.sid = SignerIdentifier::SubjectKeyIdentifier(id);
    });
    lab.refuses_info("no signed attributes", |info| info.signed_attrs = None);
    lab.refuses_info("not over these attributes, or not by this key", |info| {
        let mut value = info.signature.as_bytes().to_vec();
        *value.last_mut().unwrap() ^= 1;
        info.signature = OctetString::new(value).unwrap();
    });
    lab.refuses_info("signature algorithm", |info| {
        info.signature_algorithm.oid = rfc5912::ECDSA_WITH_SHA_384
    });
    let mut outer = ContentInfo::from_der(&lab.order).unwrap();
    outer.content_type = rfc5911::ID_DATA;
    lab.refuses("CMS of another kind", &outer.to_der().unwrap(), ContentType::Order);
}

#[test]
fn the_signed_attributes_are_the_four_each_once() {
    let lab = Lab::new();
    let null = || Any::encode_from(&Null).unwrap();
    let unknown = ObjectIdentifier::new_unwrap("1.2.3.4");

    lab.refuses_attributes("1.2.3.4, which nothing here reads", |attributes| {
        attributes.push(Attribute { oid: unknown, values: SetOfVec::try_from(vec![null()]).unwrap() });
    });
    for attribute in 0..4 {
        lab.refuses_attributes("is missing", |attributes| drop(attributes.remove(attribute)));
        lab.refuses_attributes("has more than one value", |attributes| {
            attributes[attribute].values.insert(null()).unwrap();
        });
    }
    assert!(lab.verify(&lab.with_attributes(|_| {}), ContentType::Order).is_ok());
}

#[test]
fn the_size_of_an_envelope_is_bounded_to_the_byte() {
    let lab = Lab::new();
    let of = |content: usize| {
        let mut data = structure::signed_data(&lab.order).unwrap();
        let content = vec![7; content];
        let content = OctetStringRef::new(&content).unwrap();
        data.encap_content_info.econtent = Some(Any::encode_from(&content).unwrap());
        structure::encode(&data)
    };
    let around = of(260_000).unwrap().len() - 260_000;
    let most = of(262_144 - around).unwrap();

    assert_eq!(most.len(), 262_144);
    assert_eq!(of(262_145 - around), Err(SignError::TooLarge(262_145)));
    // It is read, and found out to be another content than what was signed.
    lab.refuses("the content was changed", &most, ContentType::Order);
    let more = [&most[..], &[0]].concat();
    assert_eq!(lab.verify(&more, ContentType::Order).unwrap_err(), EnvelopeError::TooLarge(262_145));
    // What cannot fit is told by its own size, what does not by the envelope's.
    let signed = |bytes: usize| sign(&vec![0; bytes], ContentType::Order, &lab.ann, at(NOW));
    assert_eq!(signed(262_145), Err(SignError::TooLarge(262_145)));
    assert!(matches!(signed(262_144), Err(SignError::TooLarge(bytes)) if bytes > 262_400));
}

#[test]
fn an_error_says_whether_a_crl_alone_is_missing_and_which_refusal_it_is() {
    let pki = Pki::flat("orders");
    let order = sign(CONTENT, ContentType::Order, &pki.signer("ann", Role::OrderSigner), at(NOW)).unwrap();
    let mut index = muster_pki::RevocationIndex::default();
    index.set_rule_of_others(muster_pki::RevocationMode::Hard, None);
    let facts = Facts { revocation: Some(&index), ..facts() };
    let verify = |roots: &Roots| {
        verify(&order, ContentType::Order, Role::OrderSigner, &Anchors::of(roots), &facts).unwrap_err()
    };

    let (lacking, foreign) = (verify(&pki.roots()), verify(&Pki::flat("orders").roots()));

    assert!(lacking.lacks_only_a_crl(), "{lacking}");
    assert!(!foreign.lacks_only_a_crl(), "{foreign}");
    assert!(!EnvelopeError::NoTimestampRoots.lacks_only_a_crl());
    assert_eq!(EnvelopeError::NoTimestampRoots.refusal(), Refusal::UntrustedSigner);
}

#[test]
fn only_certificates_inside_the_envelope_build_its_chains_and_no_name_is_compared() {
    let pki = Pki::deep("orders");
    let roots = pki.roots();
    let order = sign(CONTENT, ContentType::Order, &pki.signer("ann", Role::OrderSigner), at(NOW)).unwrap();
    let issuing = [pki.authority().certificate().certificate_der().clone()];
    let facts = Facts { intermediates: &issuing, name: Some("switch.example"), ..facts() };
    let verify = |envelope: &[u8]| {
        verify(envelope, ContentType::Order, Role::OrderSigner, &Anchors::of(&roots), &facts)
    };

    assert!(verify(&order).is_ok());
    let leaf_alone = edited(&order, |data| {
        let leaf = inspect(&order).unwrap().signers.remove(0).0;
        data.certificates = Some(CertificateSet::try_from(vec![choice(&leaf)]).unwrap());
    });
    assert_eq!(verify(&leaf_alone).unwrap_err().refusal(), Refusal::UntrustedSigner);
}

#[test]
fn the_chains_of_an_envelope_are_told_for_each_signer_its_own_certificate_first() {
    let (ours, deep) = (Pki::flat("orders"), Pki::deep("others"));
    let (ann, ben) = (ours.signer("ann", Role::OrderSigner), deep.signer("ben", Role::OrderSigner));
    let order = sign_by_all(CONTENT, ContentType::Order, &[&ann, &ben], at(NOW)).unwrap();

    let inspection = inspect(&order).unwrap();

    let chains = inspection.chains(Role::OrderSigner);
    assert_eq!(chains.len(), 2);
    for (chain, (signer, signed_at)) in chains.iter().zip(&inspection.signers) {
        assert_eq!((chain.role, chain.signed_at, *signed_at), (Role::OrderSigner, None, at(NOW)));
        assert_eq!(chain.certificates[0], *signer.certificate_der());
        assert_eq!(chain.certificates.iter().filter(|der| **der == chain.certificates[0]).count(), 1);
        assert_eq!(chain.certificates.len(), 3);
    }
}

fn with_info(data: &mut SignedData, change: impl FnOnce(&mut SignerInfo)) {
    let mut info = data.signer_infos.0.as_slice()[0].clone();
    change(&mut info);
    data.signer_infos = SignerInfos::try_from(vec![info]).unwrap();
}

fn odd_algorithm(number: u32) -> AlgorithmIdentifierOwned {
    let oid = ObjectIdentifier::new_unwrap(&format!("1.2.3.{number}"));
    AlgorithmIdentifierOwned { oid, parameters: None }
}

fn crls() -> RevocationInfoChoices {
    let other =
        OtherRevocationInfoFormat { other_format: odd_algorithm(9), other: Any::encode_from(&Null).unwrap() };
    RevocationInfoChoices::try_from(vec![RevocationInfoChoice::Other(other)]).unwrap()
}
