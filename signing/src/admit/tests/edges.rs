//! What is at an edge, what a refusal tells, and what is asked of roots, CRLs and timestamps.

use der::asn1::OctetStringRef;
use muster_pki::RevocationMode;

use super::*;
use crate::fixture::edited;
use crate::timestamp::Token;
use crate::timestamp::stamper::Stamper;

#[test]
fn what_is_just_beyond_an_edge_is_refused_and_told_in_seconds() {
    let cases: [(&str, Change, Refusal); 7] = [
        (
            "a window of 59 s; its definition asks for 60 s at least",
            |case| {
                case.order.not_before_ms = NOW_MS - 1_000;
                case.order.expires_at_ms = NOW_MS + 58_999;
            },
            Refusal::BadArgument,
        ),
        (
            "this device's clock is 301 s behind what it has seen; set it",
            |case| case.time_floor = NOW + 301,
            Refusal::Clock,
        ),
        ("the order begins in 3540 s", |case| case.move_window(60), Refusal::NotYetValid),
        ("the order begins in 0 s", |case| case.order.not_before_ms = NOW_MS + 1, Refusal::NotYetValid),
        ("the order ended 1560 s ago", |case| case.move_window(-30), Refusal::Expired),
        (
            "a window of 4201 s; its definition allows 3600 s",
            |case| case.order.expires_at_ms = case.order.not_before_ms + 4_201_000,
            Refusal::BadArgument,
        ),
        (
            "a window of 4200 s",
            |case| case.order.expires_at_ms = case.order.not_before_ms + 4_200_001,
            Refusal::BadArgument,
        ),
    ];
    for (words, change, wanted) in cases {
        let mut case = Case::new();
        change(&mut case);

        let refusal = case.judge().expect_err(words);

        assert_eq!(refusal.refusal, wanted, "{words}: {refusal}");
        assert!(refusal.detail.contains(words), "{words}: {refusal}");
        assert!(!refusal.lacks_only_a_crl);
    }
}

#[test]
fn an_expression_alone_that_is_not_true_of_a_device_keeps_it_from_a_question() {
    let mut case = Case::new();
    *case.audience() = Audience { expression: "os == 'windows'".to_owned(), ..Audience::default() };
    // A proof without a root proves nothing.
    let refusal = case.judge().unwrap_err();

    assert_eq!(refusal.refusal, Refusal::WrongAudience);
    assert_eq!(refusal.detail, "`os == 'windows'` is not true of this device");
}

#[test]
fn a_platform_that_is_named_is_told() {
    let mut case = Case::new();
    case.platform = "macos-aarch64";

    assert_eq!(case.judge().unwrap_err().detail, "the definition is for linux; this is macos-aarch64");
}

#[test]
fn r6_a_revoked_operator_is_refused_and_one_whose_ca_has_no_crl_is_told_apart() {
    let case = Case::new();
    let (roots, ann) = (case.roots(), case.orders.signer("ann", Role::OrderSigner));
    let envelope = sign(&order_content::encode(&case.order), ContentType::Order, &ann);
    let open = |index: &RevocationIndex| {
        let trust = Trust { revocation: Some(index), ..case.trust(&roots) };
        signed_order(&envelope, &trust, at(NOW))
    };
    let mut hard = RevocationIndex::default();
    hard.set_rule_of_others(RevocationMode::Hard, None);

    let (order, signers) = open(&RevocationIndex::default()).unwrap();
    assert_eq!((order, signers), (case.order.clone(), vec![ann.certificate().unwrap().clone()]));
    let revoked = open(&case.orders.revoking(ann.certificate().unwrap())).unwrap_err();
    assert_eq!((revoked.refusal, revoked.lacks_only_a_crl), (Refusal::SignerRevoked, false));
    let lacking = open(&hard).unwrap_err();
    assert_eq!((lacking.refusal, lacking.lacks_only_a_crl), (Refusal::UntrustedSigner, true));
    let trust = Trust { revocation: Some(&hard), ..case.trust(&roots) };
    let foreign = sign(b"x", ContentType::Order, &Pki::flat("orders").signer("ann", Role::OrderSigner));
    assert!(!signed_order(&foreign, &trust, at(NOW)).unwrap_err().lacks_only_a_crl);
}

#[test]
fn a_refusal_of_an_envelope_tells_its_kind_and_the_worst_of_its_findings() {
    let case = Case::new();
    let roots = case.roots();
    let open = |envelope: &[u8]| order(envelope, &case.trust(&roots), at(NOW)).unwrap_err().detail;
    let content = order_content::encode(&case.order);
    let own = case.orders.signer("ann", Role::OrderSigner);
    let stranger = Pki::flat("orders").signer("ann", Role::OrderSigner);

    let untrusted = open(&sign(&content, ContentType::Order, &stranger));
    assert!(untrusted.starts_with("order: G5 refused: got "), "{untrusted}");
    assert!(untrusted.len() <= 1_024 && !untrusted.contains("certificate refused"), "{untrusted}");
    let changed = edited(&sign(&content, ContentType::Order, &own), |data| {
        let other = OctetStringRef::new(b"another").unwrap();
        data.encap_content_info.econtent = Some(der::Any::encode_from(&other).unwrap());
    });
    let changed = open(&changed);
    assert_eq!(changed, "order: the signature of CN=ann does not verify: the content was changed");
    let stamped =
        open(&stamped(&Stamper::new(&Pki::flat("stamps")), &sign(&content, ContentType::Order, &own)));
    assert!(stamped.starts_with("order: the signature has a timestamp, and no roots"), "{stamped}");
}

#[test]
fn g6_a_timestamp_before_the_moment_of_distrust_lets_a_definition_run() {
    let mut case = Case::new();
    let stamps = Pki::deep("timestamps");
    let (stamper, stamp_roots, roots) = (Stamper::new(&stamps), stamps.roots(), case.roots());
    let stranger = Stamper::new(&Pki::deep("timestamps"));
    let plain = case.definition.clone();
    let distrust = |case: &mut Case, after: u64| {
        case.terms.distrusted = [(case.author.certificate().unwrap().thumbprint(), at(after))].into();
    };
    let judge = |case: &mut Case, definition: &[u8]| {
        case.order.definition_digest = envelope::digest(definition).to_vec();
        let trust = Trust { timestamps: Some(&stamp_roots), ..case.trust(&roots) };
        let verdict = case.judge_trusting(&case.order, definition, &case.licence(), &trust);
        verdict.map(drop).map_err(|refusal| (refusal.refusal, refusal.detail))
    };
    let early = stamped(&stamper, &plain);

    distrust(&mut case, NOW);
    assert_eq!(judge(&mut case, &early), Ok(()));
    assert_eq!(judge(&mut case, &plain).unwrap_err().0, Refusal::UntrustedSigner);
    distrust(&mut case, NOW - 1);
    assert_eq!(judge(&mut case, &early).unwrap_err().0, Refusal::UntrustedSigner);
    let (refusal, detail) = judge(&mut case, &stamped(&stranger, &plain)).unwrap_err();
    assert_eq!(refusal, Refusal::UntrustedSigner);
    assert!(detail.starts_with("definition: timestamp: G5 refused: got "), "{detail}");
    let trust = Trust { timestamps: Some(&stamp_roots), ..case.trust(&roots) };
    let (definition, author, at_the_latest) = definition(&early, &trust, at(NOW)).unwrap();
    assert_eq!((definition.name().as_str(), at_the_latest), ("Acme-Test-Days", Some(at(NOW))));
    assert_eq!(Some(&author), case.author.certificate());
}

#[test]
fn documents_that_are_signed_and_none_are_refused_by_what_they_are_not() {
    let case = Case::new();
    let roots = case.roots();
    let trust = case.trust(&roots);
    let licensor = case.licences.signer("licensor", Role::Licensor);
    let licensed = |content: &[u8], now: u64| {
        let envelope = sign(content, ContentType::Licence, &licensor);
        licence(&envelope, &trust, at(now)).map(|licence| licence.serial()).map_err(|error| error.refusal)
    };
    let defined = |content: &[u8]| {
        let envelope = sign(content, ContentType::Definition, &case.author);
        definition(&envelope, &trust, at(NOW)).map(drop).map_err(|error| error.refusal)
    };
    let text = case.licence_text();

    assert_eq!(licensed(text.as_bytes(), NOW), Ok(5));
    assert_eq!(licensed(b"\xff", NOW), Err(Refusal::BadSignature));
    assert_eq!(licensed(b"serial = 1", NOW), Err(Refusal::BadSignature));
    let mut lapsed = case.terms.clone();
    lapsed.not_after = at(NOW - 1);
    let lapsed = Licence::new(lapsed).unwrap().to_text().unwrap();
    assert_eq!(licensed(lapsed.as_bytes(), NOW), Err(Refusal::LicenceStale));
    assert_eq!(defined(DEFINITION.as_bytes()), Ok(()));
    assert_eq!(defined(b"\xff"), Err(Refusal::BadSignature));
    assert_eq!(defined(b"name = 1"), Err(Refusal::Unsupported));
}

fn stamped(stamper: &Stamper, envelope: &[u8]) -> Vec<u8> {
    let values = envelope::signature_values(envelope).unwrap();
    let tokens: Vec<Token> = values.iter().map(|value| Token::read(&stamper.token(value)).unwrap()).collect();
    envelope::with_timestamps(envelope, &tokens).unwrap()
}
