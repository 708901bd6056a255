//! Audiences, definitions and the licence.

use muster_pki::Role;
use muster_proto::ids::Digest;
use muster_proto::session::v1::DocumentKind;
use muster_signing::envelope::ContentType;

use super::world::*;
use crate::engine::{Cursor, EngineError, Prepare, ShardMessage};

#[tokio::test]
async fn an_audience_holds_those_whose_attributes_match() {
    let world = World::new().await;
    for (device, os, cpus) in [("w1.a", "linux", 2), ("w2.a", "linux", 8), ("w3.a", "freebsd", 8)] {
        world.connect_with(device, outbox(), vec![text("os", os), integer("cpus", cpus)]).await;
    }

    for (audience, wanted) in [
        ("", vec!["w1.a", "w2.a", "w3.a"]),
        ("os == \"linux\" && cpus >= 4", vec!["w2.a"]),
        ("cpus == 8", vec!["w2.a", "w3.a"]),
        ("device.startsWith(\"w1\") || os == \"freebsd\"", vec!["w1.a", "w3.a"]),
    ] {
        let prepared = world.prepare(audience).await.unwrap();
        let shown = world.engine.reader().clients(audience, &Cursor::default(), 10).unwrap();
        assert_eq!(prepared.sample.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), wanted, "{audience}");
        assert_eq!(
            shown.items.iter().map(|client| &client.device[..]).collect::<Vec<_>>(),
            wanted,
            "{audience}"
        );
    }
}

#[tokio::test]
async fn refuses_an_audience_that_is_wrong_or_empty() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;

    let unknown = world.prepare("osx == \"linux\"").await;
    let broken = world.prepare("os ==").await;
    let nobody = world.prepare("os == \"plan9\"").await;
    let mistyped = world.prepare("os == 5").await;
    let listed = world.engine.reader().clients("cpus < \"4\"", &Cursor::default(), 10);

    let Err(EngineError::InvalidArgument(text)) = unknown else { panic!("{unknown:?}") };
    assert!(text.contains("osx") && text.contains("os"), "{text}");
    assert!(matches!(broken, Err(EngineError::InvalidArgument(_))), "{broken:?}");
    let Err(EngineError::NoTargets(text)) = nobody else { panic!("{nobody:?}") };
    assert_eq!(text, "no device is in the audience `os == \"plan9\"`; 1 device is known");
    let Err(EngineError::InvalidArgument(text)) = mistyped else { panic!("{mistyped:?}") };
    assert!(text.contains("`os` is a text, `5` is an integer"), "{text}");
    assert!(matches!(listed, Err(EngineError::InvalidArgument(_))), "{listed:?}");
}

#[tokio::test]
async fn a_client_cannot_give_itself_another_name() {
    let world = World::new().await;
    world.connect_with("w1.acme.local", outbox(), vec![text("device", "w2.acme.local")]).await;

    let other = world.prepare("device == \"w2.acme.local\"").await;
    let own = world.prepare("device == \"w1.acme.local\"").await;

    assert!(other.is_err());
    assert_eq!(own.unwrap().targets, 1);
}

#[tokio::test]
async fn an_audience_can_name_what_somebody_has_and_nothing_that_is_gone() {
    let world = World::new().await;
    world.connect_with("w1.acme.local", outbox(), vec![text("room", "a1")]).await;
    let before = world.prepare("room == \"a1\"").await;

    world.connect_with("w1.acme.local", outbox(), vec![text("hall", "a1")]).await;

    assert_eq!(before.unwrap().targets, 1);
    assert_eq!(world.prepare("hall == \"a1\"").await.unwrap().targets, 1);
    let Err(EngineError::InvalidArgument(text)) = world.prepare("room == \"a1\"").await else {
        panic!("known")
    };
    assert!(text.contains("room"), "{text}");
}

#[tokio::test]
async fn a_definition_can_be_issued_once_the_licence_binds_its_signer() {
    let world = World::empty(Party::new(Role::Author), 64);
    world.connect("w1.acme.local").await;

    let imported = world.engine.import_definition(world.definition("1.0.0")).await.unwrap();
    let without = world.prepare("").await;
    world.engine.import_licence(world.licence_for(2, "Other")).await.unwrap();
    let unbound = world.prepare("").await;
    world.engine.import_licence(world.licence(3)).await.unwrap();
    let bound = world.prepare("").await;

    assert!(!imported.licensed);
    assert!(matches!(without, Err(EngineError::FailedPrecondition(_))), "{without:?}");
    assert!(matches!(unbound, Err(EngineError::FailedPrecondition(_))), "{unbound:?}");
    assert!(bound.is_ok());
    assert!(world.engine.reader().definition(DEFINITION, "").unwrap().0.licensed);
}

#[tokio::test]
async fn a_licence_never_goes_back_and_every_session_hears_of_a_new_one() {
    let mut world = World::new().await;

    let older = world.licence(2);
    world.engine.import_licence(world.licence(3)).await.unwrap();
    let notice = |message| match message {
        ShardMessage::LicenceNotice { digest, .. } => Some(digest),
        ShardMessage::Order { .. }
        | ShardMessage::Ack { .. }
        | ShardMessage::Close { .. }
        | ShardMessage::PolicyNotice { .. } => None,
    };
    let (_first, newest) = (world.next(notice).await, world.next(notice).await);
    let back = world.engine.import_licence(older).await;
    let connected = world.connect("w1.acme.local").await.connected;

    assert!(matches!(back, Err(EngineError::FailedPrecondition(_))), "{back:?}");
    assert_eq!(connected.licence_digest, Some(newest));
    assert_eq!(world.engine.document(DocumentKind::Licence, newest), world.engine.reader().licence());
    assert_eq!(world.engine.document(DocumentKind::Licence, Digest::from([0; 32])), None);
    assert_eq!(world.engine.reader().status().licence_serial, 3);
}

#[tokio::test]
async fn refuses_a_definition_of_a_stranger_and_a_version_with_other_content() {
    let world = World::new().await;
    let other = definition_text("1.0.0", "SELECT 2 AS one");
    let other = world.author.sign(other.as_bytes(), ContentType::Definition, world.now_ms());
    let stranger = definition_text("2.0.0", "SELECT 1 AS one");
    let stranger =
        Party::new(Role::Author).sign(stranger.as_bytes(), ContentType::Definition, world.now_ms());

    let other = world.engine.import_definition(other).await;
    let stranger = world.engine.import_definition(stranger).await;

    assert!(matches!(other, Err(EngineError::FailedPrecondition(_))), "{other:?}");
    assert!(matches!(stranger, Err(EngineError::PermissionDenied(_))), "{stranger:?}");
}

#[tokio::test]
async fn the_highest_version_is_issued_and_a_near_name_is_told() {
    let world = World::new().await;
    world.connect("w1.acme.local").await;
    let newer = world.engine.import_definition(world.definition("1.10.0")).await.unwrap();
    world.engine.import_definition(world.definition("1.9.0")).await.unwrap();

    let prepared = world.prepare("").await.unwrap();
    let misspelt = Prepare { definition: "Acme-Test-Kernal".to_owned(), ..Prepare::default() };
    let misspelt = world.engine.prepare(misspelt, admitted).await;

    let digest: Digest = newer.digest.parse().unwrap();
    assert_eq!(Some(prepared.definition), world.engine.document(DocumentKind::Definition, digest));
    let Err(EngineError::NotFound(text)) = misspelt else { panic!("{misspelt:?}") };
    assert!(text.contains(DEFINITION), "{text}");
    assert_eq!(text, format!("no definition Acme-Test-Kernal is imported; did you mean `{DEFINITION}`?"));
    for (name, version, wanted) in [
        ("Zork-Zork-Zork", "", "no definition Zork-Zork-Zork is imported; import it first"),
        ("Zork-Zork-Zork", "1.0.0", "no definition Zork-Zork-Zork is imported; import it first"),
        (
            DEFINITION,
            "3.0.0",
            "Acme-Test-Kernel is not imported in version 3.0.0; it is in 1.0.0, 1.9.0, 1.10.0",
        ),
        ("", "", "the name of the definition is empty; give one, such as Acme-Os-Version"),
    ] {
        let prepare =
            Prepare { definition: name.to_owned(), version: version.to_owned(), ..Prepare::default() };

        let (prepared, read) =
            (world.engine.prepare(prepare, admitted).await, world.engine.reader().definition(name, version));

        assert_eq!(prepared.unwrap_err(), EngineError::NotFound(wanted.to_owned()));
        assert_eq!(read.unwrap_err(), EngineError::NotFound(wanted.to_owned()));
    }
    let versions: Vec<_> = world
        .engine
        .reader()
        .definitions(&Cursor::default(), 10)
        .items
        .into_iter()
        .map(|shown| shown.version)
        .collect();
    assert_eq!(versions, ["1.0.0", "1.9.0", "1.10.0"]);
}

#[tokio::test]
async fn an_audience_of_a_switch_without_devices_says_so() {
    let world = World::new().await;

    let nobody = world.prepare("").await;

    let wanted = "no device is known yet; connect a client first".to_owned();
    assert_eq!(nobody.unwrap_err(), EngineError::NoTargets(wanted));
}
