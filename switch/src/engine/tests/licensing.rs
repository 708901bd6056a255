//! The licence flips what is imported and ends what is queued (G1), and a slip of the pen does not use up its serials (G6).

use muster_proto::common::v1::{Refusal, TargetState};
use muster_signing::envelope::{self, ContentType};
use muster_signing::licence::Terms;

use super::stops::{leave, run};
use super::world::*;
use crate::engine::clock::unix_time;
use crate::engine::{Cursor, EngineError, ImportedLicence};

#[tokio::test]
async fn g1_what_is_queued_under_a_lost_prefix_is_refused_and_nobody_gets_it_when_the_prefix_comes_back() {
    let world = World::new().await;
    let here = world.connect("w1.acme.local").await;
    leave(&world, &world.connect("w2.acme.local").await).await;
    let id = world.issue("").await;
    run(&world, &here, id).await;

    let lost = world.engine.import_licence(world.licence_for(2, "Other")).await.unwrap();
    let back = world.engine.import_licence(world.licence(3)).await.unwrap();

    assert_eq!(lost, ImportedLicence { serial: 2, refused_targets: 1 });
    assert_eq!(back, ImportedLicence { serial: 3, refused_targets: 0 });
    let expected = [(TargetState::Running, 1), (TargetState::Refused, 1)];
    assert_eq!(counts(&world.engine.reader().instruction(id).unwrap()), expected);
    let targets = world.engine.reader().targets(id, None, &Cursor::default(), 10).unwrap().items;
    let told: Vec<_> =
        targets.iter().map(|one| (one.device.as_str(), one.state(), one.cause.as_str())).collect();
    let [progress, unlicensed] = ["progress", "UNLICENSED"];
    assert_eq!(
        told,
        [
            ("w1.acme.local", TargetState::Running, progress),
            ("w2.acme.local", TargetState::Refused, unlicensed)
        ]
    );
    assert!(targets.iter().all(|one| one.at_ms == world.now_ms()));
    // It is as durable as the licence.
    let world = world.killed();
    assert_eq!(counts(&world.engine.reader().instruction(id).unwrap()), expected);
    assert!(world.connect("w2.acme.local").await.connected.due.is_empty());
}

#[tokio::test]
async fn g1_what_the_switch_refuses_itself_has_the_code_that_devices_would_give_and_that_definitions_are_shown_with()
 {
    type Change = fn(&World, &mut Terms);
    let no_prefix: Change = |_, terms| terms.prefixes.clear();
    let distrusted: Change = |world, terms| {
        let author = world.author.issued.certificate.thumbprint();
        terms.distrusted.insert(author, unix_time(world.now_ms() - 60_000));
    };
    let minimum: Change = |_, terms| {
        terms.minimum_versions.insert(DEFINITION.parse().unwrap(), "2.0.0".parse().unwrap());
    };
    // A client finds the revoked author out before it asks the licence.
    for (change, is_revoked, code) in [
        (no_prefix, false, Refusal::Unlicensed),
        (distrusted, false, Refusal::UntrustedSigner),
        (minimum, false, Refusal::RolledBack),
        (no_prefix, true, Refusal::SignerRevoked),
    ] {
        let world = World::new().await;
        leave(&world, &world.connect("w1.acme.local").await).await;
        let id = world.issue("").await;
        if is_revoked {
            let crl = world.author.revoked(world.now_ms());
            world.believe(|trust| trust.revocation = Some(crl));
        }

        let licence = world.licence_with(2, |terms| change(&world, terms));
        let lost = world.engine.import_licence(licence).await.unwrap();

        assert_eq!(lost.refused_targets, 1, "{code:?}");
        let reader = world.engine.reader();
        let targets = reader.targets(id, None, &Cursor::default(), 10).unwrap().items;
        let [target] = &targets[..] else { panic!("{targets:?}") };
        assert_eq!((target.state(), target.cause.as_str()), (TargetState::Refused, code.name()));
        assert_eq!(reader.definition(DEFINITION, "").unwrap().0.refusal(), code);
    }
}

#[tokio::test]
async fn g1_an_order_that_may_be_on_its_way_is_left_to_its_device_to_judge() {
    let mut world = World::new().await;
    let here = world.connect("w1.acme.local").await;
    let id = world.issue("").await;

    let lost = world.engine.import_licence(world.licence_for(2, "Other")).await.unwrap();
    // It came before the licence, and ran.
    world.answer(&here, id, 1).await;

    assert_eq!(lost, ImportedLicence { serial: 2, refused_targets: 0 });
    let shown = world.until(id, |instruction| instruction.complete).await;
    assert_eq!(counts(&shown), [(TargetState::Answered, 1)]);
}

#[tokio::test]
async fn g1_a_result_of_a_target_that_was_refused_while_its_device_was_away_is_kept_once() {
    // With another target open, the ledger in memory is asked; without, the store.
    for others in [&[][..], &["w2.acme.local"]] {
        let mut world = World::new().await;
        let here = world.connect("w1.acme.local").await;
        for other in others {
            world.connect(other).await;
        }
        let id = world.issue("").await;
        // It got the order, and nobody noted that it was written.
        leave(&world, &here).await;
        let lost = world.engine.import_licence(world.licence_for(2, "Other")).await.unwrap();
        assert_eq!(lost.refused_targets, 1);

        for _ in 0..2 {
            let back = world.connect("w1.acme.local").await;
            assert!(back.connected.due.is_empty());
            world.answer(&back, id, 1).await;
            world = world.killed();
        }

        let reader = world.engine.reader();
        let counted = counts(&reader.instruction(id).unwrap());
        assert!(counted.contains(&(TargetState::Refused, 1)), "it is final: {counted:?}");
        let kept = reader.results(id, &Default::default(), 10).unwrap().items;
        assert_eq!(kept.len(), 1, "{others:?}: {kept:?}");
    }
}

#[tokio::test]
async fn g1_a_signature_that_is_not_licensed_takes_no_licensed_one_of_the_same_version_out_of_use() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let licensed = world.engine.reader().definition(DEFINITION, "").unwrap().0;
    let mallory = world.author.signer("mallory");
    let by_mallory = |select: &str| {
        let text = definition_text(&licensed.version, select);
        envelope::sign(text.as_bytes(), ContentType::Definition, &mallory, unix_time(world.now_ms())).unwrap()
    };

    let other = world.engine.import_definition(by_mallory("SELECT 2 AS one")).await;
    let same = world.engine.import_definition(by_mallory("SELECT 1 AS one")).await.unwrap();

    assert!(matches!(other, Err(EngineError::FailedPrecondition(_))), "{other:?}");
    assert!(!same.licensed);
    let shown = world.engine.reader().definition(DEFINITION, "").unwrap().0;
    assert_eq!((shown.digest, shown.licensed), (licensed.digest, true));
    assert!(world.prepare("").await.is_ok());
    let world = world.killed();
    assert!(world.engine.reader().definition(DEFINITION, "").unwrap().0.licensed, "nor after a restart");
}

#[tokio::test]
async fn g1_a_text_that_is_not_licensed_keeps_no_licensed_one_out() {
    let world = World::new().await;
    let mallory = world.author.signer("mallory");
    let text = definition_text("2.0.0", "SELECT 2 AS one");
    let squatting =
        envelope::sign(text.as_bytes(), ContentType::Definition, &mallory, unix_time(world.now_ms()));
    world.engine.import_definition(squatting.unwrap()).await.unwrap();

    let ours = world.engine.import_definition(world.definition("2.0.0")).await.unwrap();

    assert!(ours.licensed);
    assert_eq!(world.engine.reader().definition(DEFINITION, "2.0.0").unwrap().0.digest, ours.digest);
}

#[tokio::test]
async fn g1_signatures_of_a_version_have_a_bound_and_the_unlicensed_ones_take_no_place_of_a_licensed_one() {
    let world = World::new().await;
    let sign = |name: String| {
        let text = definition_text("3.0.0", "SELECT 1 AS one");
        let signer = world.author.signer(&name);
        envelope::sign(text.as_bytes(), ContentType::Definition, &signer, unix_time(world.now_ms())).unwrap()
    };
    for number in 0..16 {
        world.engine.import_definition(sign(format!("author{number}"))).await.unwrap();
    }

    let one_more = world.engine.import_definition(sign("author16".to_owned())).await;
    let licensed = world.engine.import_definition(world.definition("3.0.0")).await;

    assert!(
        matches!(&one_more, Err(EngineError::FailedPrecondition(why)) if why.contains("16 signatures")),
        "{one_more:?}"
    );
    assert!(licensed.as_ref().is_ok_and(|shown| shown.licensed), "{licensed:?}");
}

#[tokio::test]
async fn g6_a_licence_that_is_not_valid_now_or_whose_serial_leaps_changes_nothing() {
    let world = World::new().await;
    let day_ms = 86_400_000;
    let refused = |licence: Vec<u8>| {
        let engine = world.engine.clone();
        async move { engine.import_licence(licence).await.unwrap_err().to_string() }
    };

    let early = refused(world.licence_within(5, 10 * day_ms, 20 * day_ms)).await;
    let late = refused(world.licence_within(5, -20 * day_ms, -10 * day_ms)).await;
    let leap = refused(world.licence(1_000_000_002)).await;

    assert!(early.contains("is valid from") && late.contains("is valid from"), "{early} {late}");
    assert!(leap.contains("issue it with serial 2"), "{leap}");
    assert_eq!(world.engine.reader().status().licence_serial, 1);
    assert!(world.engine.import_licence(world.licence(1_000_000_001)).await.is_ok());
}

#[tokio::test]
async fn g6_a_serial_names_one_licence_for_ever_whose_bytes_are_taken_again_and_no_other() {
    let world = World::new().await;
    let held = world.engine.reader().licence().unwrap();

    let same = world.engine.import_licence(held.to_vec()).await;
    // Clients that hold the one do not exchange it for the other.
    let anew = world.engine.import_licence(world.licence(1)).await.unwrap_err().to_string();
    let other = world.engine.import_licence(world.licence_for(1, "Other")).await.unwrap_err().to_string();

    assert_eq!(same, Ok(ImportedLicence { serial: 1, refused_targets: 0 }));
    assert!(anew.contains("another signature") && anew.contains("issue it with serial 2"), "{anew}");
    assert!(other.contains("another text") && other.contains("issue it with serial 2"), "{other}");
    assert_eq!(world.engine.reader().licence().unwrap(), held);
}

#[tokio::test]
async fn targets_page_by_page_tell_why_each_came_to_its_state() {
    let mut world = World::new().await;
    let here = world.connect("w1.acme.local").await;
    world.connect("w2.acme.local").await;
    leave(&world, &world.connect("w3.acme.local").await).await;
    let id = world.issue("").await;
    world.answer(&here, id, 1).await;
    world.engine.remove("w2.acme.local".parse().unwrap()).await.unwrap();

    let (mut causes, mut cursor) = (Vec::new(), Cursor::default());
    loop {
        let page = world.engine.reader().targets(id, None, &cursor, 1).unwrap();
        let is_last = page.next_page_token().is_empty();
        causes.extend(page.items.into_iter().map(|target| target.cause));
        cursor = page.cursor;
        if is_last {
            break;
        }
    }

    assert_eq!(causes, ["result", "removed", "submitted"]);
    let beyond = world.engine.reader().targets(id, None, &cursor, 1).unwrap();
    assert!(beyond.items.is_empty() && !beyond.more);
}
