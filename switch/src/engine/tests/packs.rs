//! Packs (G9): all of their definitions, or none.

use muster_pki::Role;
use muster_proto::operator::v1::ImportPackResponse;
use muster_signing::definition::Definition;
use muster_signing::envelope::ContentType;
use muster_signing::pack::{Digests, Index};

use super::world::*;
use crate::engine::{Cursor, EngineEnd, EngineError};

/// A pack on its way, each part of which a test may change.
#[derive(Clone)]
struct Parts {
    index: Vec<u8>,
    definitions: Vec<Vec<u8>>,
}

impl Parts {
    /// The pack of these texts, which come in the order of the index.
    fn of(world: &World, texts: &[String]) -> Self {
        let sign =
            |text: &String| world.author.sign(text.as_bytes(), ContentType::Definition, world.now_ms());
        Self::packed(world, texts.iter().map(sign).collect(), texts, &world.author)
    }

    /// The pack of these definitions, as texts of which its packer names them.
    fn packed(world: &World, definitions: Vec<Vec<u8>>, texts: &[String], packer: &Party) -> Self {
        let text = index_text(texts, &definitions, &[]);
        let index = packer.sign(text.as_bytes(), ContentType::Pack, world.now_ms());
        Self { index, definitions }
    }

    async fn import(&self, world: &World) -> Result<ImportPackResponse, EngineError> {
        world.engine.import_pack(self.index.clone(), self.definitions.clone()).await
    }
}

/// The index of these definitions, as texts of which it names them, and resources.
fn index_text(texts: &[String], definitions: &[Vec<u8>], resources: &[(String, Digests)]) -> String {
    let named = texts.iter().zip(definitions).map(|(text, envelope)| {
        let definition = Definition::parse(text).unwrap();
        (definition.name().clone(), definition.version().clone(), Digests::of(envelope))
    });
    let (name, version) = ("Acme-Test-Pack".parse().unwrap(), "1.2.3".parse().unwrap());
    Index::new(name, version, "Tests.", named, resources.to_vec()).unwrap().to_text().unwrap()
}

/// The text of a definition of this name.
fn named(name: &str) -> String {
    definition_text("1.0.0", "SELECT 1 AS one").replace(DEFINITION, name)
}

fn three() -> [String; 3] {
    ["Acme-Pack-A", "Acme-Pack-B", "Acme-Pack-C"].map(named)
}

/// The names of the definitions that are held.
fn held(world: &World) -> Vec<String> {
    let page = world.engine.reader().definitions(&Cursor::default(), 100);
    page.items.into_iter().map(|definition| definition.name).collect()
}

fn were_held(imported: &ImportPackResponse) -> Vec<bool> {
    imported.definitions.iter().map(|one| one.was_held).collect()
}

#[tokio::test]
async fn g9_a_pack_is_held_whole_after_a_kill_and_the_same_again_changes_nothing() {
    let world = World::empty(Party::new(Role::Author), 64);
    world.engine.import_licence(world.licence(1)).await.unwrap();
    let parts = Parts::of(&world, &three());
    // One of them was imported alone before.
    world.engine.import_definition(parts.definitions[1].clone()).await.unwrap();

    let first = parts.import(&world).await.unwrap();
    let world = world.killed();
    let kept = held(&world);
    let again = parts.import(&world).await.unwrap();

    assert_eq!((first.name.as_str(), first.version.as_str()), ("Acme-Test-Pack", "1.2.3"));
    assert_eq!(kept, ["Acme-Pack-A", "Acme-Pack-B", "Acme-Pack-C"]);
    assert_eq!(were_held(&first), [false, true, false]);
    assert_eq!(were_held(&again), [true, true, true]);
    let shown = |imported: &ImportPackResponse| {
        imported.definitions.iter().map(|one| one.definition.clone().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(shown(&again), shown(&first), "what is told is what was stored");
    let world = world.restart(|database| {
        let rows = database.query_row("SELECT count(*) FROM definitions", [], |row| row.get::<_, i64>(0));
        assert_eq!(rows, Ok(3));
    });
    assert_eq!(held(&world), kept);
}

#[tokio::test]
async fn g1_the_definitions_of_a_pack_are_licensed_one_by_one_and_told_why_they_are_not() {
    let world = World::empty(Party::new(Role::Author), 64);
    let parts = Parts::of(&world, &["Acme-Pack-A", "Other-Pack-B"].map(named));
    let unlicensed = |imported: ImportPackResponse| {
        imported.definitions.into_iter().map(|one| one.unlicensed).collect::<Vec<_>>()
    };

    let without = parts.import(&world).await.unwrap();
    world.engine.import_licence(world.licence(1)).await.unwrap();
    let with = parts.import(&world).await.unwrap();

    let flags: Vec<bool> =
        with.definitions.iter().map(|one| one.definition.as_ref().unwrap().licensed).collect();
    assert_eq!(flags, [true, false]);
    assert!(unlicensed(without).iter().all(|why| why.contains("there is no licence")));
    let with = unlicensed(with);
    assert!(with[0].is_empty() && with[1].contains("Other"), "{with:?}");
}

#[tokio::test]
async fn g9_one_wrong_part_of_several_leaves_nothing() {
    let world = World::empty(Party::new(Role::Author), 64);
    let (texts, stranger) = (three(), Party::new(Role::Author));
    let parts = Parts::of(&world, &texts);
    let changed = |change: fn(&mut Parts)| {
        let mut changed = parts.clone();
        change(&mut changed);
        changed
    };
    let mut definitions = parts.definitions.clone();
    let index_by_stranger = Parts::packed(&world, definitions.clone(), &texts, &stranger);
    definitions[2] = stranger.sign(texts[2].as_bytes(), ContentType::Definition, world.now_ms());
    // Of the same name and version, and as well signed.
    let mut other_text = parts.clone();
    let text = texts[2].replace("SELECT 1", "SELECT 2");
    other_text.definitions[2] = world.author.sign(text.as_bytes(), ContentType::Definition, world.now_ms());
    // The index names the stranger's very bytes.
    let by_stranger = Parts::packed(&world, definitions, &texts, &world.author);
    for (what, parts, said) in [
        ("a definition of a stranger", by_stranger, "Acme-Pack-C"),
        ("another text of a version", other_text, "Acme-Pack-C"),
        ("the index of a stranger", index_by_stranger, "the pack's index"),
        ("a definition as index", changed(|it| it.index = it.definitions[0].clone()), "the pack's index"),
        ("no index", changed(|it| it.index.clear()), "the pack's index"),
        ("no definition", changed(|it| it.definitions.clear()), "0 definitions came"),
        ("one missing", changed(|it| drop(it.definitions.pop())), "2 definitions came"),
        ("one more", changed(|it| it.definitions.push(it.definitions[0].clone())), "4 definitions came"),
        ("one twice", changed(|it| it.definitions[2] = it.definitions[1].clone()), "Acme-Pack-C"),
        ("another order", changed(|it| it.definitions.swap(0, 2)), "Acme-Pack-A"),
        ("a changed byte", changed(|it| it.definitions[2][40] ^= 1), "Acme-Pack-C"),
        ("a byte more", changed(|it| it.definitions[2].push(0)), "Acme-Pack-C"),
    ] {
        let refused = parts.import(&world).await.unwrap_err();

        assert!(
            matches!(refused, EngineError::PermissionDenied(_) | EngineError::InvalidArgument(_)),
            "{what}: {refused:?}"
        );
        assert!(refused.to_string().contains(said), "{what}: {refused}");
        assert_eq!(held(&world), [""; 0], "{what}");
    }
    let world = world.killed();
    assert_eq!(held(&world), [""; 0]);
    parts.import(&world).await.unwrap();
    assert_eq!(held(&world).len(), 3);
}

#[tokio::test]
async fn g9_an_index_that_says_otherwise_than_the_definitions_is_refused() {
    let world = World::empty(Party::new(Role::Author), 64);
    let (texts, definitions) = (three(), Parts::of(&world, &three()).definitions);
    let mut renamed = texts.clone();
    renamed[1] = named("Acme-Pack-BB");
    let mut renumbered = texts;
    renumbered[1] = renumbered[1].replace("1.0.0", "1.0.1");
    for said in [renamed, renumbered] {
        let parts = Parts::packed(&world, definitions.clone(), &said, &world.author);

        let refused = parts.import(&world).await.unwrap_err();

        assert!(matches!(refused, EngineError::InvalidArgument(_)), "{refused:?}");
        assert!(refused.to_string().contains("the index says otherwise"), "{refused}");
        assert_eq!(held(&world), [""; 0]);
    }
    let text = index_text(&three(), &definitions, &[("a.txt".to_owned(), Digests::of(b"of no definition"))]);
    let index = world.author.sign(text.as_bytes(), ContentType::Pack, world.now_ms());
    let refused = Parts { index, definitions }.import(&world).await.unwrap_err();
    assert!(refused.to_string().contains("resources/a.txt: no definition"), "{refused}");
}

#[tokio::test]
async fn g9_a_version_that_is_held_with_other_content_keeps_the_whole_pack_out() {
    let world = World::empty(Party::new(Role::Author), 64);
    let other = definition_text("1.0.0", "SELECT 2 AS one").replace(DEFINITION, "Acme-Pack-C");
    let other = world.author.sign(other.as_bytes(), ContentType::Definition, world.now_ms());
    world.engine.import_definition(other).await.unwrap();

    let refused = Parts::of(&world, &three()).import(&world).await.unwrap_err();

    assert!(matches!(refused, EngineError::FailedPrecondition(_)), "{refused:?}");
    assert!(refused.to_string().contains("Acme-Pack-C 1.0.0 is held with other content"), "{refused}");
    assert_eq!(held(&world), ["Acme-Pack-C"]);
}

#[tokio::test]
async fn g9_a_disk_without_room_for_all_of_a_pack_takes_none_of_it() {
    let world = World::empty(Party::new(Role::Author), 64).with_disk_reserve(u64::MAX / 2);

    let refused = Parts::of(&world, &three()).import(&world).await.unwrap_err();

    assert!(matches!(refused, EngineError::ResourceExhausted(_)), "{refused:?}");
    assert_eq!(held(&world), [""; 0]);
}

#[tokio::test]
async fn g9_a_writer_that_dies_within_a_pack_leaves_nothing_of_it_and_then_it_is_taken() {
    let world = World::empty(Party::new(Role::Author), 64).restart(|database| {
        let sql = "CREATE TRIGGER dies BEFORE INSERT ON definitions WHEN NEW.position = 3 \
                   BEGIN SELECT RAISE(ABORT, 'the third'); END";
        database.execute_batch(sql).unwrap();
    });
    let parts = Parts::of(&world, &three());

    let died = parts.import(&world).await.unwrap_err();
    let ended = tokio::time::timeout(PATIENCE, world.engine.failed()).await.unwrap();
    let world = world.restart(|database| database.execute_batch("DROP TRIGGER dies").unwrap());
    let left = held(&world);
    let taken = parts.import(&world).await.unwrap();

    assert_eq!(died, EngineError::Closed);
    assert!(matches!(ended, EngineEnd::Store { .. }), "{ended:?}");
    assert_eq!(left, [""; 0]);
    assert_eq!(were_held(&taken), [false, false, false]);
}
