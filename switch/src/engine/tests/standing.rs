//! Who signed what is held is judged anew for as long as it is held (G8): what clients would refuse is shown with their code and not issued.

use std::time::Duration;

use muster_pki::{RevocationIndex, RevocationMode, Role};
use muster_proto::common::v1::Refusal;
use muster_proto::operator::v1::Definition;
use muster_signing::envelope::{self, ContentType};
use muster_signing::licence::Licence;

use super::world::*;
use crate::engine::clock::unix_time;
use crate::engine::{Cursor, EngineError, Trust};

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn g8_what_a_revoked_author_signed_is_told_and_not_issued_until_the_list_lets_them_go() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let prepared = world.prepare("").await.unwrap();
    assert_eq!(shown(&world).refusal(), Refusal::Unspecified);

    let crl = world.author.revoked(world.now_ms());
    world.believe(|trust| trust.revocation = Some(crl));

    let fallen = shown(&world);
    assert_eq!((fallen.refusal(), fallen.licensed), (Refusal::SignerRevoked, true));
    assert!(
        fallen.problem.contains("R2") && fallen.problem.contains("a certificate that counts"),
        "{fallen:?}"
    );
    let again = refused(world.prepare("").await);
    let before = refused(submit(&world, &prepared.order).await);
    for said in [again, before] {
        assert!(said.contains("1.0.0 cannot be issued: SIGNER_REVOKED: "), "{said}");
    }
    let said = format!(
        "1 of the licensed definitions cannot be issued, for who signed them: {DEFINITION} 1.0.0 (SIGNER_REVOKED);"
    );
    assert!(world.engine.reader().status().warnings.iter().any(|warning| warning.starts_with(&said)));

    world.believe(|_| ());

    let back = shown(&world);
    assert_eq!((back.refusal(), back.problem.as_str()), (Refusal::Unspecified, ""));
    assert!(submit(&world, &prepared.order).await.is_ok());
    assert!(world.engine.reader().status().warnings.is_empty());
}

#[tokio::test]
async fn g8_what_is_signed_by_a_certificate_that_has_ended_is_not_issued_without_a_timestamp() {
    let world = World::empty(Party::for_days(Role::Author, 10), 64);
    world.engine.import_licence(world.licence(1)).await.unwrap();
    world.engine.import_definition(world.definition("1.0.0")).await.unwrap();
    world.connect("w1.acme.local").await;
    world.advance(10 * DAY - Duration::from_secs(30));
    assert!(world.prepare("").await.is_ok());

    // Looked at a moment ago, and judged again at its end.
    world.advance(Duration::from_secs(31));

    let said = refused(world.prepare("").await);
    assert!(said.contains("UNTRUSTED_SIGNER") && said.contains("C9"), "{said}");
    assert_eq!(shown(&world).refusal(), Refusal::UntrustedSigner);
}

#[tokio::test]
async fn g8_without_the_root_of_its_author_nothing_is_issued() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;

    let prepared = world.prepare("").await.unwrap();

    world.believe(|trust| trust.authors = Party::new(Role::Author).roots);
    // Nobody has looked at it since.
    let submitted = refused(submit(&world, &prepared.order).await);
    let without = refused(world.prepare("").await);
    world.believe(|_| ());

    for said in [submitted, without] {
        assert!(said.contains("UNTRUSTED_SIGNER"), "{said}");
    }
    assert!(world.prepare("").await.is_ok());
}

#[tokio::test]
async fn g8_of_two_signatures_of_a_version_that_is_issued_whose_signer_counts() {
    let world = World::empty(Party::new(Role::Author), 64);
    let second = world.author.signer("second");
    let licence = envelope::inspect(&world.licence(1)).unwrap().content;
    let mut terms = Licence::parse(&String::from_utf8(licence).unwrap()).unwrap().terms().clone();
    let thumbprint = second.certificate().unwrap().thumbprint();
    terms.prefixes.get_mut("Acme").unwrap().insert(thumbprint);
    let licence = Licence::new(terms).unwrap().to_text().unwrap();
    let licence = world.licensor.sign(licence.as_bytes(), ContentType::Licence, world.now_ms());
    world.engine.import_licence(licence).await.unwrap();
    let text = definition_text("1.0.0", "SELECT 1 AS one");
    let by_second =
        envelope::sign(text.as_bytes(), ContentType::Definition, &second, unix_time(world.now_ms())).unwrap();
    world.engine.import_definition(by_second).await.unwrap();
    world.engine.import_definition(world.definition("1.0.0")).await.unwrap();
    world.connect("w1.acme.local").await;
    let last = shown(&world).signer_thumbprint;

    let crl = world.author.revoked(world.now_ms());
    world.believe(|trust| trust.revocation = Some(crl));

    let now = shown(&world);
    assert_eq!(
        (now.signer_thumbprint.as_str(), now.refusal()),
        (thumbprint.to_string().as_str(), Refusal::Unspecified)
    );
    assert_ne!(last, now.signer_thumbprint, "the last one imported, until then");
    assert!(world.prepare("").await.is_ok());
}

#[tokio::test]
async fn g8_under_a_licence_whose_signer_does_not_count_nothing_is_issued_and_status_says_why() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let crl = world.licensor.revoked(world.now_ms());
    let stranger = Party::new(Role::Licensor).roots;
    type Change = Box<dyn FnOnce(&mut Trust)>;
    let changes: [(&str, Change); 2] = [
        ("SIGNER_REVOKED", Box::new(|trust| trust.revocation = Some(crl))),
        ("UNTRUSTED_SIGNER", Box::new(|trust| trust.licences = stranger)),
    ];
    for (code, change) in changes {
        world.believe(change);

        let said = refused(world.prepare("").await);
        assert!(said.contains(&format!("cannot be issued: {code}: licence: ")), "{said}");
        assert_eq!(shown(&world).refusal().name(), code);
        let status = world.engine.reader().status();
        assert!(status.licence_problem.starts_with(code), "{status:?}");
        assert!(status.warnings.iter().any(|warning| warning.contains(code)), "{status:?}");
        assert_eq!(world.engine.reader().licence_problem(), status.licence_problem);

        world.believe(|_| ());
        assert!(world.prepare("").await.is_ok());
        assert_eq!(world.engine.reader().status().licence_problem, "");
    }
}

#[tokio::test]
async fn g6_a_licence_ends_with_its_signers_certificate_and_with_its_own_validity() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;

    // The licence is valid for 90 days, its signer's certificate for 30.
    let ends = world.engine.reader().status().licence_expires_at_ms - world.now_ms();
    assert!((29..=30).contains(&(ends / 86_400_000)), "a warning before the end comes in time: {ends}");
    world.advance(31 * DAY);
    let signer = refused(world.prepare("").await);
    world.advance(60 * DAY);
    let status = world.engine.reader().status();

    assert!(signer.contains("UNTRUSTED_SIGNER: licence: C9"), "{signer}");
    assert!(status.licence_problem.contains("UNTRUSTED_SIGNER"), "as clients find first: {status:?}");
    let world = World::new().await;
    world.engine.import_licence(world.licence_within(2, -1_000, 60_000)).await.unwrap();
    world.advance(Duration::from_secs(61));
    assert!(world.engine.reader().status().licence_problem.starts_with("LICENCE_STALE: "));
    let stale = shown(&world);
    assert_eq!((stale.refusal(), stale.licensed), (Refusal::LicenceStale, false));
}

#[tokio::test]
async fn r6_a_list_that_does_not_come_takes_nothing_out_of_use_that_is_held() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;

    world.believe(|trust| {
        let mut index = RevocationIndex::default();
        index.set_rule_of_others(RevocationMode::Hard, None);
        trust.revocation = Some(index);
    });

    assert_eq!(shown(&world).refusal(), Refusal::Unspecified);
    assert!(world.prepare("").await.is_ok());
    let import = world.engine.import_definition(world.definition("2.0.0")).await;
    assert!(matches!(import, Err(EngineError::PermissionDenied(_))), "{import:?}");
}

/// The definition, as lists and the one call show it.
fn shown(world: &World) -> Definition {
    let reader = world.engine.reader();
    let one = reader.definition(DEFINITION, "").unwrap().0;
    assert_eq!(reader.definitions(&Cursor::default(), 10).items, std::slice::from_ref(&one));
    one
}

async fn submit(world: &World, order: &[u8]) -> Result<(), EngineError> {
    let envelope = world.orders.sign(order, ContentType::Order, world.now_ms());
    world.engine.submit(envelope, "key".to_owned(), OPERATOR).await.map(drop)
}

fn refused<T>(answer: Result<T, EngineError>) -> String {
    match answer {
        Err(EngineError::FailedPrecondition(said)) => said,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("not refused"),
    }
}
