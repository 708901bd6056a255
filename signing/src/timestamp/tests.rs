use cms::cert::CertificateChoices;
use cms::content_info::CmsVersion;
use cms::revocation::{OtherRevocationInfoFormat, RevocationInfoChoice, RevocationInfoChoices};
use cms::signed_data::{CertificateSet, SignedData, SignerIdentifier, SignerInfo, SignerInfos};
use const_oid::db::{rfc5911, rfc5912};
use der::asn1::{Any, BitString, Null, ObjectIdentifier, OctetString, SetOfVec, Uint};
use der::{Decode as _, Encode as _};
use muster_pki::{Certificate, Facts, RevocationIndex, Role, Roots};
use x509_cert::attr::Attribute;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::SubjectKeyIdentifier;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::asn1::{MessageImprint, StatusInfo, TimeStampRequest, TimeStampResponse, TstInfo};
use super::stamper::{Changes, Stamper, attribute, choice};
use super::*;
use crate::algorithm::Hash;
use crate::attributes::{
    CONTENT_TYPE, CertificateId, MESSAGE_DIGEST, SIGNING_CERTIFICATE_V2, SigningCertificate,
};
use crate::fixture::{NOW, Pki, at, edited, facts};

const SIGNATURE: &[u8] = b"the value of a signature";

/// An authority below an issuing CA, and its root.
struct Lab {
    pki: Pki,
    stamper: Stamper,
    roots: Roots,
}

impl Lab {
    fn new() -> Self {
        let pki = Pki::deep("timestamps");
        Self { stamper: Stamper::new(&pki), roots: pki.roots(), pki }
    }

    fn verify(&self, token: &[u8], facts: &Facts<'_>) -> Result<Stamp, TimestampError> {
        Token::read(token)?.verify(SIGNATURE, &self.roots, facts)
    }

    fn changed(&self, changes: &Changes<'_>) -> Result<Stamp, TimestampError> {
        self.verify(&self.stamper.token_with(SIGNATURE, changes), &facts())
    }

    fn refuses(&self, words: &str, changes: &Changes<'_>) {
        let error = self.changed(changes).expect_err(words).to_string();
        assert!(error.contains(words), "wanted {words}: {error}");
    }

    fn refuses_info(&self, words: &str, info: impl Fn(&mut TstInfo)) {
        self.refuses(words, &Changes { info: &info, ..Changes::default() });
    }

    fn refuses_attributes(&self, words: &str, attributes: impl Fn(&mut Vec<Attribute>)) {
        self.refuses(words, &Changes { attributes: &attributes, ..Changes::default() });
    }

    fn refuses_data(&self, words: &str, data: impl Fn(&mut SignedData)) {
        self.refuses(words, &Changes { data: &data, ..Changes::default() });
    }
}

#[test]
fn a_token_says_when_and_by_whom_and_goes_on_saying_so_when_its_certificates_are_over() {
    let lab = Lab::new();
    let token = lab.stamper.token(SIGNATURE);
    let wanted = Stamp { at: at(NOW), authority: lab.stamper.certificate().clone() };

    assert_eq!(lab.verify(&token, &facts()), Ok(wanted.clone()));
    assert_eq!(lab.verify(&token, &Facts::at(at(NOW + 5 * 365 * 86_400))), Ok(wanted));
    let after = lab.stamper.token_of(SIGNATURE, "20270117080000Z");
    let after = lab.verify(&after, &Facts::at(at(NOW + 5 * 365 * 86_400)));
    assert!(matches!(after, Err(TimestampError::Untrusted(_))), "its certificate was over: {after:?}");
}

#[test]
fn what_a_token_claims_has_its_authoritys_certificate_first_whatever_else_is_inside() {
    let lab = Lab::new();
    let (one, other) = (&lab.stamper, Stamper::new(&lab.pki));
    let issuing = lab.pki.authority().certificate();
    for (own, beside) in [(one, &other), (&other, one)] {
        let all = [own.certificate(), beside.certificate(), issuing];
        let data = |data: &mut SignedData| data.certificates = Some(set(&all));
        let token = own.token_with(SIGNATURE, &Changes { data: &data, ..Changes::default() });

        let claimed = Token::read(&token).unwrap().claimed();

        assert_eq!(claimed.at, Some(at(NOW)));
        assert_eq!(claimed.chain.first(), Some(own.certificate()));
        assert_eq!(claimed.chain.iter().filter(|it| *it == own.certificate()).count(), 1);
        assert_eq!(claimed.chain.len(), 3);
        let unused = lab.verify(&token, &facts());
        let wanted = TimestampError::UnusedCertificate(beside.certificate().subject().to_owned());
        assert_eq!(unused, Err(wanted));
    }
}

#[test]
fn a_token_over_something_else_or_of_another_version_or_with_what_nothing_reads_is_refused() {
    let lab = Lab::new();
    let token = Token::read(&lab.stamper.token(SIGNATURE)).unwrap();
    assert_eq!(token.verify(b"another", &lab.roots, &facts()), Err(TimestampError::Imprint));

    lab.refuses_info("version other than 1", |info| info.version = 2);
    lab.refuses_info("a critical extension", |info| info.extensions = Some(vec![extension(true)]));
    lab.refuses_info("digest algorithm", |info| {
        info.message_imprint.hash_algorithm.oid = rfc5912::ID_SHA_1;
    });
    lab.refuses_info("genTime", |info| info.gen_time = Any::encode_from(&Null).unwrap());
    lab.refuses_info("names another authority", |info| info.authority = Some(named(lab.pki.root())));
    let fine = |info: &mut TstInfo| {
        info.extensions = Some(vec![extension(false)]);
        info.authority = Some(named(lab.stamper.certificate()));
    };
    assert!(lab.changed(&Changes { info: &fine, ..Changes::default() }).is_ok());
}

#[test]
fn a_token_from_the_future_is_refused_but_for_five_minutes() {
    let lab = Lab::new();
    let verify = |gen_time| lab.verify(&lab.stamper.token_of(SIGNATURE, gen_time), &facts());

    assert_eq!(verify("20270115080500Z").unwrap().at, at(NOW + 300));
    assert_eq!(verify("20270115080501Z"), Err(TimestampError::Future { at: NOW + 301, now: NOW }));
}

#[test]
fn the_attributes_of_a_token_name_its_kind_its_content_and_its_signer() {
    let lab = Lab::new();
    let any = |value: &OctetString| Any::encode_from(value).unwrap();
    let ids =
        |certificates: Vec<CertificateId>| Any::encode_from(&SigningCertificate { certificates }).unwrap();
    let set = |oid: ObjectIdentifier, value: Any| {
        move |attributes: &mut Vec<Attribute>| {
            attributes.retain(|attribute| attribute.oid != oid);
            attributes.push(attribute(oid, value.clone()));
        }
    };
    let digest = any(&OctetString::new([0; 32]).unwrap());
    let other = CertificateId::of(lab.pki.root()).unwrap();

    lab.refuses_attributes(
        "contentType is another",
        set(CONTENT_TYPE, Any::encode_from(&rfc5911::ID_DATA).unwrap()),
    );
    lab.refuses_attributes("the content was changed", set(MESSAGE_DIGEST, digest));
    lab.refuses_attributes("names another certificate", set(SIGNING_CERTIFICATE_V2, ids(vec![other])));
    lab.refuses_attributes("names another certificate", set(SIGNING_CERTIFICATE_V2, ids(Vec::new())));
    for (oid, name) in [(CONTENT_TYPE, "contentType"), (MESSAGE_DIGEST, "messageDigest")] {
        lab.refuses_attributes(name, |attributes| attributes.retain(|attribute| attribute.oid != oid));
    }
}

#[test]
fn every_byte_around_a_tokens_signature_is_accounted_for() {
    let lab = Lab::new();
    let info = |change: fn(&mut SignerInfo)| move |data: &mut SignedData| with_info(data, change);

    lab.refuses_data(
        "or not by this key",
        info(|info| {
            let mut value = info.signature.as_bytes().to_vec();
            *value.last_mut().unwrap() ^= 1;
            info.signature = OctetString::new(value).unwrap();
        }),
    );
    lab.refuses_data("no signed attributes", info(|info| info.signed_attrs = None));
    lab.refuses_data("SignerInfo of a version other", info(|info| info.version = CmsVersion::V3));
    lab.refuses_data(
        "named by issuer and serial number",
        info(|info| {
            let id = SubjectKeyIdentifier(OctetString::new([1; 20]).unwrap());
            info.sid = SignerIdentifier::SubjectKeyIdentifier(id);
        }),
    );
    lab.refuses_data(
        "CRLs or unsigned attributes",
        info(|info| {
            info.unsigned_attrs = Some(SetOfVec::try_from(vec![odd_attribute()]).unwrap());
        }),
    );
    lab.refuses_data("CRLs or unsigned attributes", |data| data.crls = Some(crls()));
    lab.refuses_data("digest algorithms that are not exactly", |data| {
        data.digest_algorithms.insert(odd_algorithm(1)).unwrap();
    });
    lab.refuses_data("a SET of more elements", |data| {
        data.digest_algorithms = SetOfVec::try_from((0..65).map(odd_algorithm).collect::<Vec<_>>()).unwrap();
    });
    lab.refuses_data("not TSTInfo", |data| data.version = CmsVersion::V4);
    lab.refuses_data("not TSTInfo", |data| data.encap_content_info.econtent_type = rfc5911::ID_DATA);
    lab.refuses_data("no content", |data| data.encap_content_info.econtent = None);
    lab.refuses_data("0 signatures", |data| data.signer_infos = SignerInfos::try_from(Vec::new()).unwrap());
    lab.refuses_data("no certificate of its authority", |data| data.certificates = None);
}

#[test]
fn a_token_has_at_most_ten_certificates_and_64_kib() {
    let lab = Lab::new();
    let more: Vec<Certificate> = (0..9).map(|_| lab.pki.issued("x", Role::Timestamp).certificate).collect();
    let read = |count: usize| {
        let all: Vec<&Certificate> = std::iter::once(lab.stamper.certificate())
            .chain([lab.pki.authority().certificate()])
            .chain(&more)
            .take(count)
            .collect();
        let data = |data: &mut SignedData| data.certificates = Some(set(&all));
        Token::read(&lab.stamper.token_with(SIGNATURE, &Changes { data: &data, ..Changes::default() }))
    };

    assert!(read(10).is_ok());
    assert!(read(11).unwrap_err().to_string().contains("11 certificates; wanted at most 10"));
    assert!(matches!(Token::read(&vec![0; 65_536]), Err(TimestampError::Form(_))));
    assert_eq!(Token::read(&vec![0; 65_537]).unwrap_err(), TimestampError::TooLarge(65_537));
}

#[test]
fn cms_of_another_kind_is_no_token() {
    let lab = Lab::new();
    let token = lab.stamper.token(SIGNATURE);
    let mut outer = cms::content_info::ContentInfo::from_der(&token).unwrap();
    outer.content_type = rfc5911::ID_DATA;

    let error = Token::read(&outer.to_der().unwrap()).unwrap_err().to_string();

    assert!(error.contains("another kind than SignedData"), "{error}");
}

#[test]
fn what_an_authority_sends_along_is_dropped_and_der_is_made_of_what_is_left() {
    let lab = Lab::new();
    let other = Pki::flat("other");
    let all = [lab.stamper.certificate(), lab.pki.authority().certificate(), lab.pki.root(), other.root()];
    let data = |data: &mut SignedData| {
        data.certificates = Some(set(&all));
        data.crls = Some(crls());
        data.digest_algorithms.insert(odd_algorithm(1)).unwrap();
        with_info(data, |info| {
            info.unsigned_attrs = Some(SetOfVec::try_from(vec![odd_attribute()]).unwrap());
        });
    };
    let sent = lab.stamper.token_with(SIGNATURE, &Changes { data: &data, ..Changes::default() });

    let pruned = Token::read(&sent).unwrap().pruned(SIGNATURE, &lab.roots, &facts()).unwrap();

    assert_eq!(pruned.verify(SIGNATURE, &lab.roots, &facts()).unwrap().at, at(NOW));
    let left = edited(&sent, |data| {
        data.certificates = Some(set(&all[..2]));
        data.crls = None;
        data.digest_algorithms = SetOfVec::try_from(vec![Hash::Sha256.identifier()]).unwrap();
        with_info(data, |info| info.unsigned_attrs = None);
    });
    assert_eq!(pruned.to_der().unwrap(), left);
    assert_eq!(pruned.claimed().chain.len(), 2);
    let foreign = Token::read(&sent).unwrap().pruned(b"another", &lab.roots, &facts());
    assert_eq!(foreign.unwrap_err(), TimestampError::Imprint);
}

#[test]
fn a_token_that_is_not_in_der_is_read_to_be_pruned_and_not_believed() {
    let lab = Lab::new();
    let token = lab.stamper.token(SIGNATURE);
    let (a, b) = (lab.stamper.certificate().der(), lab.pki.authority().certificate().der());
    let (sorted, swapped) = ([a, b].concat(), [b, a].concat());
    let place = |part: &[u8]| token.windows(part.len()).position(|window| window == part);
    let (from, other) = match (place(&sorted), place(&swapped)) {
        (Some(from), _) => (from, swapped),
        (None, from) => (from.unwrap(), sorted),
    };
    let mut unsorted = token.clone();
    unsorted[from..from + other.len()].copy_from_slice(&other);

    let read = Token::read(&unsorted).unwrap();

    let error = read.verify(SIGNATURE, &lab.roots, &facts()).unwrap_err().to_string();
    assert!(error.contains("an encoding that is not DER"), "{error}");
    assert_eq!(read.pruned(SIGNATURE, &lab.roots, &facts()).unwrap().to_der().unwrap(), token);
}

#[test]
fn an_authority_is_one_of_its_roots_for_timestamping_alone_and_never_revoked() {
    let lab = Lab::new();
    let token = lab.stamper.token(SIGNATURE);
    let foreign = Token::read(&token).unwrap().verify(SIGNATURE, &Pki::deep("timestamps").roots(), &facts());
    let author = Stamper::of(&lab.pki, Role::Author).token(SIGNATURE);

    assert!(matches!(foreign, Err(TimestampError::Untrusted(_))), "{foreign:?}");
    let author = lab.verify(&author, &facts());
    assert!(matches!(author, Err(TimestampError::Untrusted(_))), "{author:?}");
    // Before its stamp or after it: whoever has its key writes any time.
    let index = lab.pki.revoking(lab.stamper.certificate());
    let revoked = |index: &RevocationIndex, token: &[u8]| {
        lab.verify(token, &Facts { revocation: Some(index), ..facts() })
    };
    let wanted = TimestampError::Revoked(lab.stamper.certificate().subject().to_owned());
    for gen_time in ["20270115080000Z", "20270115075800Z"] {
        assert_eq!(revoked(&index, &lab.stamper.token_of(SIGNATURE, gen_time)), Err(wanted.clone()));
    }
    let other = lab.pki.revoking(&lab.pki.issued("x", Role::Timestamp).certificate);
    assert!(revoked(&other, &token).is_ok());
}

#[test]
fn an_answer_is_taken_if_it_is_granted_and_answers_this_request() {
    let lab = Lab::new();
    let request = Request::new(SIGNATURE, [0xa7; 16]).unwrap();
    let told = |nonce: u8, signature: &[u8], status: u8| {
        let nonce = Uint::new(&[nonce; 16]).unwrap();
        let info = |info: &mut TstInfo| info.nonce = Some(nonce.clone());
        let token = lab.stamper.token_with(signature, &Changes { info: &info, ..Changes::default() });
        request.token(&answer(status, Some(&token)))
    };

    for granted in [0, 1] {
        let token = told(0xa7, SIGNATURE, granted).unwrap();
        assert!(token.verify(SIGNATURE, &lab.roots, &facts()).is_ok());
    }
    assert_eq!(told(0xa7, b"another", 0).unwrap_err(), TimestampError::Imprint);
    assert_eq!(told(0xa8, SIGNATURE, 0).unwrap_err(), TimestampError::Nonce);
    let without = request.token(&answer(0, Some(&lab.stamper.token(SIGNATURE))));
    assert_eq!(without.unwrap_err(), TimestampError::Nonce);
    for declined in [told(0xa7, SIGNATURE, 2), request.token(&answer(0, None))] {
        assert!(matches!(declined, Err(TimestampError::Declined(_))), "{declined:?}");
    }
    assert!(matches!(request.token(&[0; 65_536]), Err(TimestampError::Form(_))));
    assert_eq!(request.token(&[0; 65_537]).unwrap_err(), TimestampError::TooLarge(65_537));
}

#[test]
fn a_request_is_over_the_signatures_sha256_and_has_its_nonce() {
    for nonce in [[0xa7; 16], [0; 16], [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]] {
        let request = Request::new(SIGNATURE, nonce).unwrap();
        let message = TimeStampRequest::from_der(request.der()).unwrap();

        assert_eq!(message.message_imprint, stamper::honest(SIGNATURE).message_imprint);
        assert!(message.certificates_wanted && message.version == 1);
        assert_eq!(Request::nonce_of(request.der()), Ok(nonce));
    }
    let imprint: MessageImprint = stamper::honest(SIGNATURE).message_imprint;
    let of = |nonce: &[u8]| {
        let message = TimeStampRequest {
            version: 1,
            message_imprint: imprint.clone(),
            nonce: Uint::new(nonce).unwrap(),
            certificates_wanted: true,
        };
        Request::nonce_of(&message.to_der().unwrap())
    };
    assert_eq!(of(&[0xa7; 16]), Ok([0xa7; 16]));
    assert!(of(&[0xa7; 17]).unwrap_err().to_string().contains("more than 16 bytes"));
}

#[test]
fn an_authority_that_declines_is_quoted_on_one_bounded_line() {
    let request = Request::new(SIGNATURE, [1; 16]).unwrap();
    let said = |texts: Option<Vec<String>>, failure: Option<BitString>| {
        let status = StatusInfo { status: 2, texts, failure };
        let answer = TimeStampResponse { status, token: None }.to_der().unwrap();
        match request.token(&answer) {
            Err(TimestampError::Declined(said)) => said,
            other => panic!("{other:?}"),
        }
    };

    assert_eq!(said(None, None), "status 2, it gives no reason");
    // Bits 2 and 25 of PKIFailureInfo.
    let bits = BitString::new(6, [0x20, 0, 0, 0x40]).unwrap();
    assert_eq!(
        said(Some(vec!["no\u{7} \nthanks".to_owned()]), Some(bits)),
        "status 2, no thanks; it does not accept such a request; it cannot serve now"
    );
    assert_eq!(said(Some(vec!["x".repeat(1_000)]), None).len(), 512);
}

#[test]
fn a_tokens_ordering_is_written_only_where_it_is_true() {
    let info = |ordering| TstInfo { ordering, ..stamper::honest(SIGNATURE) };
    let (unordered, ordered) = (info(false).to_der().unwrap(), info(true).to_der().unwrap());

    // DER leaves a default out: the other has a BOOLEAN more.
    assert_eq!(unordered.len() + 3, ordered.len());
    assert!(!TstInfo::from_der(&unordered).unwrap().ordering);
    assert!(TstInfo::from_der(&ordered).unwrap().ordering);
}

#[test]
fn any_changed_bit_of_a_token_is_refused() {
    // Every byte once; `muster-sign` has every bit.
    let lab = Lab::new();
    let mut token = lab.stamper.token(SIGNATURE);
    for index in 0..token.len() {
        token[index] ^= 1;
        assert!(lab.verify(&token, &facts()).is_err(), "byte {index}");
        token[index] ^= 1;
    }
    assert!(lab.verify(&token, &facts()).is_ok());
}

fn set(certificates: &[&Certificate]) -> CertificateSet {
    let choices: Vec<CertificateChoices> =
        certificates.iter().map(|certificate| choice(certificate)).collect();
    CertificateSet::try_from(choices).unwrap()
}

fn with_info(data: &mut SignedData, change: impl Fn(&mut SignerInfo)) {
    let mut info = data.signer_infos.0.as_slice()[0].clone();
    change(&mut info);
    data.signer_infos = SignerInfos::try_from(vec![info]).unwrap();
}

fn answer(status: u8, token: Option<&[u8]>) -> Vec<u8> {
    let status = StatusInfo { status, texts: None, failure: None };
    let token = token.map(|token| Any::from_der(token).unwrap());
    TimeStampResponse { status, token }.to_der().unwrap()
}

fn extension(critical: bool) -> Extension {
    Extension {
        extn_id: ObjectIdentifier::new_unwrap("1.2.3.4"),
        critical,
        extn_value: OctetString::new([5, 0]).unwrap(),
    }
}

fn named(certificate: &Certificate) -> GeneralName {
    let parsed = x509_cert::Certificate::from_der(certificate.der()).unwrap();
    GeneralName::DirectoryName(parsed.tbs_certificate.subject)
}

fn odd_algorithm(number: u32) -> AlgorithmIdentifierOwned {
    let oid = ObjectIdentifier::new_unwrap(&format!("1.2.3.{number}"));
    AlgorithmIdentifierOwned { oid, parameters: None }
}

fn odd_attribute() -> Attribute {
    attribute(ObjectIdentifier::new_unwrap("1.2.3.4"), Any::encode_from(&Null).unwrap())
}

fn crls() -> RevocationInfoChoices {
    let other =
        OtherRevocationInfoFormat { other_format: odd_algorithm(9), other: Any::encode_from(&Null).unwrap() };
    RevocationInfoChoices::try_from(vec![RevocationInfoChoice::Other(other)]).unwrap()
}
