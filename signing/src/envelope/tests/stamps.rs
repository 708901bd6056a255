//! Timestamps beside signatures: what outlives its certificate by them, and what is refused for them.

use cms::signed_data::{SignerInfo, SignerInfos};
use der::Decode as _;
use der::asn1::{Any, Null, SetOfVec};
use muster_pki::RevocationIndex;
use x509_cert::attr::Attribute;

use super::*;
use crate::fixture::edited;
use crate::timestamp::TimestampError;
use crate::timestamp::stamper::Stamper;

const TWO_DAYS: u64 = 2 * 86_400;

struct Lab {
    pki: Pki,
    ann: Signer,
    stamper: Stamper,
    roots: Roots,
    stamp_roots: Roots,
}

impl Lab {
    fn new() -> Self {
        let (pki, stamps) = (Pki::deep("authors"), Pki::deep("timestamps"));
        let (roots, stamp_roots) = (pki.roots(), stamps.roots());
        Self { ann: pki.signer("ann", Role::Author), stamper: Stamper::new(&stamps), roots, stamp_roots, pki }
    }

    fn anchors(&self) -> Anchors<'_> {
        Anchors { signers: &self.roots, timestamps: Some(&self.stamp_roots) }
    }

    fn signed(&self, content_type: ContentType, time: u64) -> Vec<u8> {
        sign(CONTENT, content_type, &self.ann, at(time)).unwrap()
    }

    fn stamped(&self, envelope: &[u8], gen_time: &str) -> Vec<u8> {
        let token = |value: &Vec<u8>| Token::read(&self.stamper.token_of(value, gen_time)).unwrap();
        let tokens: Vec<Token> = signature_values(envelope).unwrap().iter().map(token).collect();
        with_timestamps(envelope, &tokens).unwrap()
    }

    fn verify(
        &self,
        envelope: &[u8],
        content_type: ContentType,
        now: u64,
    ) -> Result<Verified, EnvelopeError> {
        verify(envelope, content_type, Role::Author, &self.anchors(), &Facts::at(at(now)))
    }
}

const AT_NOW: &str = "20270115080000Z";
const BEFORE: &str = "20270115075800Z";

#[test]
fn g10_what_a_timestamp_makes_outlive_its_certificate_are_definitions_packs_and_files() {
    let lab = Lab::new();
    for content_type in ContentType::ALL {
        let outlives =
            [ContentType::Definition, ContentType::Pack, ContentType::File].contains(&content_type);
        let stamped = lab.stamped(&lab.signed(content_type, NOW), AT_NOW);
        let judged = |now| match content_type {
            ContentType::File => {
                let file = Detached::read(&stamped).unwrap();
                let mut digester = file.digester();
                digester.update(CONTENT);
                let facts = Facts::at(at(now));
                let file = file.verify(&digester.finish(), Role::Author, &lab.anchors(), &facts);
                file.map(|verified| verified.stamped_at)
            }
            ContentType::Definition
            | ContentType::Order
            | ContentType::Licence
            | ContentType::Policy
            | ContentType::Pack
            | ContentType::LicenceRequest => {
                lab.verify(&stamped, content_type, now).map(|verified| verified.stamped_at)
            }
        };

        assert_eq!(judged(NOW), Ok(Some(at(NOW))), "{content_type:?}");
        assert_eq!(judged(NOW + TWO_DAYS).is_ok(), outlives, "{content_type:?}");
        let chains = inspect(&stamped).unwrap().chains(Role::Author);
        assert_eq!(chains[0].signed_at, outlives.then(|| at(NOW)), "{content_type:?}");
        assert_eq!((chains[1].role, chains[1].signed_at), (Role::Timestamp, Some(at(NOW))));
        assert_eq!(chains[1].certificates[0], *lab.stamper.certificate().certificate_der());
    }
}

#[test]
fn each_signature_has_its_timestamp_or_none() {
    let lab = Lab::new();
    let bare = lab.signed(ContentType::Definition, NOW);
    let stamped = lab.stamped(&bare, AT_NOW);
    let of = |envelope: &[u8]| timestamps(envelope).unwrap();

    assert!(matches!(of(&bare)[..], [None]));
    let [Some(token)] = &of(&stamped)[..] else { panic!("no timestamp") };
    let Some(value) = signature_values(&bare).unwrap().pop() else { panic!("no signature") };
    assert_eq!(token.verify(&value, &lab.stamp_roots, &Facts::at(at(NOW))).unwrap().at, at(NOW));
    assert!(timestamps(CONTENT).is_err());
}

#[test]
fn a_timestamp_is_refused_without_roots_for_it_and_where_it_is_over_another_signature() {
    let lab = Lab::new();
    let envelope = lab.signed(ContentType::Definition, NOW);
    let stamped = lab.stamped(&envelope, AT_NOW);
    let alone = Anchors::of(&lab.roots);
    let without = verify(&stamped, ContentType::Definition, Role::Author, &alone, &facts());
    assert_eq!(without.unwrap_err(), EnvelopeError::NoTimestampRoots);

    let other = Token::read(&lab.stamper.token(b"another")).unwrap();
    let other = with_timestamps(&envelope, std::slice::from_ref(&other)).unwrap();
    let error = lab.verify(&other, ContentType::Definition, NOW).unwrap_err();
    assert_eq!(error, EnvelopeError::Timestamp(TimestampError::Imprint));
    assert_eq!(error.refusal(), Refusal::BadSignature);
    // The facts of a caller say nothing about when it was signed.
    let facts = Facts { signed_at: Some(at(NOW)), ..Facts::at(at(NOW + TWO_DAYS)) };
    let plain = verify(&envelope, ContentType::Definition, Role::Author, &lab.anchors(), &facts);
    assert!(matches!(plain, Err(EnvelopeError::Untrusted(_))), "{plain:?}");
}

#[test]
fn a_signature_cannot_be_later_than_its_timestamp_but_by_five_minutes() {
    let lab = Lab::new();
    let verify = |signed| {
        let stamped = lab.stamped(&lab.signed(ContentType::Definition, signed), AT_NOW);
        lab.verify(&stamped, ContentType::Definition, NOW + 10_000)
    };

    assert!(verify(NOW + 300).is_ok());
    assert!(matches!(verify(NOW + 301), Err(EnvelopeError::SigningTime { .. })));
}

#[test]
fn a_signer_that_was_revoked_after_the_timestamp_counts_and_one_before_it_does_not() {
    let lab = Lab::new();
    let index: RevocationIndex = lab.pki.revoking(lab.ann.certificate().unwrap());
    let facts = Facts { revocation: Some(&index), ..facts() };
    let verify = |gen_time| {
        let stamped = lab.stamped(&lab.signed(ContentType::Definition, NOW - 120), gen_time);
        verify(&stamped, ContentType::Definition, Role::Author, &lab.anchors(), &facts).map(drop)
    };

    assert_eq!(verify(BEFORE), Ok(()));
    assert_eq!(verify(AT_NOW).unwrap_err().refusal(), Refusal::SignerRevoked);
}

#[test]
fn an_order_is_as_old_as_its_latest_stamp_and_has_none_where_one_signature_has_none() {
    let lab = Lab::new();
    let ben = lab.pki.signer("ben", Role::Author);
    let both = cosign(&lab.signed(ContentType::Order, NOW - 300), &ben, at(NOW - 200)).unwrap();
    let values = signature_values(&both).unwrap();
    let token = |value: &[u8], gen_time| Token::read(&lab.stamper.token_of(value, gen_time)).unwrap();
    for times in [[AT_NOW, BEFORE], [BEFORE, AT_NOW]] {
        let tokens = [token(&values[0], times[0]), token(&values[1], times[1])];

        let verified =
            lab.verify(&with_timestamps(&both, &tokens).unwrap(), ContentType::Order, NOW).unwrap();

        assert_eq!((verified.stamped_at, verified.signing_time), (Some(at(NOW)), at(NOW - 200)));
    }
    let one = token(&values[0], AT_NOW);
    let wrong = with_timestamps(&both, std::slice::from_ref(&one));
    assert_eq!(wrong, Err(SignError::Signers { got: 1, wanted: 2 }));
    let one_alone =
        cosign(&lab.stamped(&lab.signed(ContentType::Order, NOW), AT_NOW), &ben, at(NOW)).unwrap();
    assert_eq!(lab.verify(&one_alone, ContentType::Order, NOW).unwrap().stamped_at, None);
}

#[test]
fn a_signature_has_one_timestamp_and_no_other_unsigned_attribute() {
    let lab = Lab::new();
    let stamped = lab.stamped(&lab.signed(ContentType::Definition, NOW), AT_NOW);
    let refuses = |words: &str, change: &dyn Fn(&mut Vec<Attribute>)| {
        let changed = edited(&stamped, |data| {
            let info = data.signer_infos.0.as_slice()[0].clone();
            let mut attributes = info.unsigned_attrs.clone().unwrap().into_vec();
            change(&mut attributes);
            let unsigned_attrs = Some(SetOfVec::try_from(attributes).unwrap());
            data.signer_infos = SignerInfos::try_from(vec![SignerInfo { unsigned_attrs, ..info }]).unwrap();
        });
        let error = lab.verify(&changed, ContentType::Definition, NOW).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.refusal(), Refusal::BadSignature);
    };
    let null = || Any::encode_from(&Null).unwrap();
    let odd = ObjectIdentifier::new_unwrap("1.2.3.4");

    refuses("1.2.3.4, which nothing here reads", &|attributes| attributes[0].oid = odd);
    refuses("several unsigned attributes", &|attributes| {
        attributes.push(Attribute { oid: odd, values: SetOfVec::try_from(vec![null()]).unwrap() });
    });
    refuses("a set of unsigned attributes with none in it", &|attributes| attributes.clear());
    refuses("more than one timestamp of one signature", &|attributes| {
        let other = Any::from_der(&lab.stamper.token(b"another")).unwrap();
        attributes[0].values.insert(other).unwrap();
    });
    refuses("no RFC 3161 timestamp", &|attributes| {
        attributes[0].values = SetOfVec::try_from(vec![null()]).unwrap();
    });
    let token = inspect(&stamped).unwrap().stamps.remove(0);
    assert_eq!((token.at, token.chain.len()), (Some(at(NOW)), 2));
}

#[test]
fn g6_a_licence_request_has_no_timestamp_and_a_certificate_that_stands_above_nobody_is_refused() {
    let lab = Lab::new();
    let request = lab.signed(ContentType::LicenceRequest, NOW);
    assert!(verify_possession(&request, at(NOW)).is_ok());

    let stamped = verify_possession(&lab.stamped(&request, AT_NOW), at(NOW)).unwrap_err();
    assert!(stamped.to_string().contains("a timestamp, which a licence request has not"), "{stamped}");
    let with_another = edited(&request, |data| {
        let other = crate::timestamp::stamper::choice(&lab.pki.issued("other", Role::Author).certificate);
        data.certificates.as_mut().unwrap().0.insert(other).unwrap();
    });
    let unused = verify_possession(&with_another, at(NOW)).unwrap_err();
    assert_eq!(unused, EnvelopeError::UnusedCertificate("CN=other".to_owned()));
}
