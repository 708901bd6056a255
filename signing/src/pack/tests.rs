use muster_pki::{Role, Roots};
use muster_proto::common::v1::Refusal;

use super::*;
use crate::envelope::{Anchors, ContentType, Signer, sign};
use crate::fixture::{NOW, Pki, at, facts};

const LIST: &[u8] = b"a\nb\n";

/// A pack by its parts, each of which a test may change.
struct Parts {
    pki: Pki,
    signer: Signer,
    definitions: Vec<(String, Vec<u8>)>,
    resources: Vec<(String, Vec<u8>)>,
}

impl Parts {
    /// Two definitions, of which one names a resource.
    fn new() -> Self {
        let pki = Pki::flat("a");
        let signer = pki.signer("b", Role::Author);
        let definitions = [("Acme-Test-A", "1.0.0", None), ("Acme-Test-B", "2.1.0", Some(LIST))]
            .map(|(name, version, list)| packed(name, version, list, &signer));
        let resources = vec![("resources/list.txt".to_owned(), LIST.to_vec())];
        Self { pki, signer, definitions: definitions.to_vec(), resources }
    }

    fn index(&self) -> Index {
        let definitions = self.definitions.iter().map(|(_, envelope)| {
            let (name, version) = named(envelope);
            (name, version, Digests::of(envelope))
        });
        let resources = self
            .resources
            .iter()
            .map(|(path, bytes)| (path.strip_prefix(RESOURCES).unwrap().to_owned(), Digests::of(bytes)));
        Index::new("Acme-Test-Pack".parse().unwrap(), Version::new(1, 0, 0), "Tests.", definitions, resources)
            .unwrap()
    }

    fn members(&self) -> Vec<(&str, &[u8])> {
        let all = self.definitions.iter().chain(&self.resources);
        all.map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect()
    }

    fn signed(&self, text: &str) -> Vec<u8> {
        sign(text.as_bytes(), ContentType::Pack, &self.signer, at(NOW)).unwrap()
    }

    fn archive(&self) -> Vec<u8> {
        archive(&self.signed(&self.index().to_text().unwrap()), &self.members())
    }

    /// The archive with an index of another text than its parts have.
    fn archive_with(&self, text: &str) -> Vec<u8> {
        archive(&self.signed(text), &self.members())
    }

    fn read(&self, archive: &[u8]) -> Result<Pack, PackError> {
        read(&self.pki.roots(), archive)
    }
}

#[test]
fn g9_a_pack_gives_back_its_members_who_signed_them_and_where_resources_stand() {
    let parts = Parts::new();
    let archive = parts.archive();

    let pack = parts.read(&archive).unwrap();

    assert_eq!(pack.index, parts.index());
    assert_eq!((&pack.signer, &pack.root), (parts.signer.certificate().unwrap(), parts.pki.root()));
    assert_eq!(pack.size, archive.len() as u64);
    let envelopes: Vec<_> = pack.definitions.iter().map(|it| it.envelope.clone()).collect();
    assert_eq!(envelopes, [parts.definitions[0].1.clone(), parts.definitions[1].1.clone()]);
    let offset = usize::try_from(pack.resources[0].offset).unwrap();
    assert_eq!(&archive[offset..offset + LIST.len()], LIST);
    assert_eq!(Index::parse(&pack.index.to_text().unwrap()).unwrap(), pack.index);
}

#[test]
fn g9_every_single_bit_flip_every_truncation_and_every_further_byte_of_a_pack_is_refused() {
    let parts = Parts::new();
    let roots = parts.pki.roots();
    let mut archive = parts.archive();
    // What was read up to a byte is the same for all of its flips.
    let mut reader = Reader::new(Anchors::of(&roots), facts());
    for index in 0..archive.len() {
        let truncated = reader.clone().finish();
        assert!(matches!(truncated, Err(PackError::Truncated { .. })), "{index} bytes: {truncated:?}");
        for bit in 0..8 {
            archive[index] ^= 1 << bit;
            let mut flipped = reader.clone();
            let verdict = flipped.handle_piece(&archive[index..]);
            assert!(verdict.is_err(), "bit {bit} of byte {index}");
            assert!(flipped.finish().is_err(), "bit {bit} of byte {index}, refused and then taken");
            archive[index] ^= 1 << bit;
        }
        reader.handle_piece(&archive[index..=index]).unwrap();
    }
    for byte in [0, 0x30, 0xff] {
        let mut longer = reader.clone();
        assert!(matches!(longer.handle_piece(&[byte]), Err(PackError::Form { .. })), "{byte}");
        assert!(longer.finish().is_err(), "{byte}, refused and then taken");
    }
    reader.finish().unwrap();
}

#[test]
fn g9_members_that_are_missing_added_renamed_swapped_or_linked_are_refused() {
    let parts = Parts::new();
    let index = parts.signed(&parts.index().to_text().unwrap());
    let members = parts.members();
    let without = |number: usize| {
        let mut fewer = members.clone();
        fewer.remove(number);
        fewer
    };
    let swapped = [members[1], members[0], members[2]];
    let exchanged = [(members[0].0, members[1].1), (members[1].0, members[0].1), members[2]];
    let renamed = [members[0], members[1], ("resources/../list.txt", LIST)];
    let added = [members[0], members[1], members[2], ("resources/more.txt", b"more")];
    let doubled = [members[0], members[0], members[1], members[2]];
    let grown = [members[0], members[1], (members[2].0, &b"a\nb\nc"[..])];
    let changed = [members[0], members[1], (members[2].0, &b"a\nB\n"[..])];
    let cases = [
        ("no first definition", without(0)),
        ("no second definition", without(1)),
        ("no resource", without(2)),
        ("swapped", swapped.to_vec()),
        ("exchanged", exchanged.to_vec()),
        ("renamed", renamed.to_vec()),
        ("added", added.to_vec()),
        ("doubled", doubled.to_vec()),
        ("grown", grown.to_vec()),
        ("changed", changed.to_vec()),
    ];
    for (what, members) in cases {
        assert!(parts.read(&archive(&index, &members)).is_err(), "{what}");
    }
    let mut linked = archive(&index, &members);
    let at = linked.windows(18).rposition(|window| window == b"resources/list.txt").unwrap();
    for kind in b"12345670gxSLK\0" {
        linked[at + 156] = *kind;
        fix_checksum(&mut linked[at..at + BLOCK_BYTES]);
        assert_eq!(parts.read(&linked).is_ok(), *kind == b'0', "type {kind}");
    }
}

#[test]
fn g9_the_index_of_another_pack_is_refused_whoever_signed_it() {
    let parts = Parts::new();
    let mut other = Parts::new();
    other.definitions[0] = packed("Acme-Test-A", "1.0.1", None, &parts.signer);
    let index = parts.signed(&other.index().to_text().unwrap());

    let error = parts.read(&archive(&index, &parts.members())).unwrap_err().to_string();

    assert!(error.contains("wanted the header of definitions/Acme-Test-A-1.0.1.cms"), "{error}");
    assert!(error.contains("found \"definitions/Acme-Test-A-1.0.0.cms\""), "{error}");
}

#[test]
fn g5_an_index_or_a_definition_of_a_stranger_and_a_document_of_another_type_is_refused() {
    let (parts, stranger) = (Parts::new(), Parts::new());
    let index = stranger.signed(&parts.index().to_text().unwrap());
    let mut mixed = Parts::new();
    mixed.definitions[0] = packed("Acme-Test-A", "1.0.0", None, &stranger.signer);
    let text = parts.index().to_text().unwrap();
    let policy = sign(text.as_bytes(), ContentType::Policy, &parts.signer, at(NOW)).unwrap();

    let by_stranger = parts.read(&archive(&index, &parts.members())).unwrap_err();
    let with_stranger = mixed.read(&mixed.archive()).unwrap_err();
    let another_type = parts.read(&archive(&policy, &parts.members())).unwrap_err();

    assert!(
        matches!(&by_stranger, PackError::Envelope(it) if it.refusal() == Refusal::UntrustedSigner),
        "{by_stranger}"
    );
    assert!(by_stranger.to_string().starts_with("the pack's index: UNTRUSTED_SIGNER: "), "{by_stranger}");
    assert!(matches!(&with_stranger, PackError::Signature { path, problem }
        if path == "definitions/Acme-Test-A-1.0.0.cms" && problem.refusal() == Refusal::UntrustedSigner));
    assert!(another_type.to_string().contains("holds a policy; wanted a pack's index"), "{another_type}");
}

#[test]
fn g9_a_definition_is_the_one_whose_name_and_version_the_index_gives() {
    let parts = Parts::new();
    let text = parts.index().to_text().unwrap();
    let wrong = text.replace("Acme-Test-A-1.0.0.cms", "Acme-Test-A-1.0.9.cms").replacen(
        "version = \"1.0.0\"\nsize",
        "version = \"1.0.9\"\nsize",
        1,
    );
    assert_ne!(wrong, text);
    let members: Vec<_> = parts
        .members()
        .into_iter()
        .map(|(path, bytes)| {
            if path.contains("Test-A") { ("definitions/Acme-Test-A-1.0.9.cms", bytes) } else { (path, bytes) }
        })
        .collect();

    let error = parts.read(&archive(&parts.signed(&wrong), &members)).unwrap_err().to_string();

    assert!(error.contains("it is Acme-Test-A 1.0.0, and the index says otherwise"), "{error}");
}

#[test]
fn g9_resources_are_exactly_those_that_definitions_name() {
    let mut missing = Parts::new();
    missing.resources.clear();
    let mut unnamed = Parts::new();
    unnamed.resources.push(("resources/more.txt".to_owned(), b"more".to_vec()));
    let mut sized = Parts::new();
    let text = definition("Acme-Test-B", "2.1.0", Some(LIST)).replace("size = 4", "size = 5");
    sized.definitions[1].1 = sign(text.as_bytes(), ContentType::Definition, &sized.signer, at(NOW)).unwrap();
    for (parts, words) in [
        (missing, "resource list of Acme-Test-B"),
        (unnamed, "resources/more.txt: no definition of the pack names it"),
        (sized, "another size or SHA-256"),
    ] {
        let error = parts.read(&parts.archive()).unwrap_err().to_string();

        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_bomb_is_refused_before_it_is_read() {
    let parts = Parts::new();
    let text = parts.index().to_text().unwrap();
    let huge = text.replace("size = 4\n", "size = 4294967297\n");
    assert_ne!(huge, text);

    let nobody = Roots::default();
    let reader = Reader::new(Anchors::of(&nobody), facts());
    let zeros = reader.clone().handle_piece(&[0; BLOCK_BYTES]);
    let large = reader.clone().handle_piece(&header(INDEX_PATH, ENVELOPE_BYTES_MAX as u64 + 1));
    let resource = parts.read(&parts.archive_with(&huge)).unwrap_err().to_string();
    let many = (0..=MEMBERS_MAX)
        .map(|it| ("Acme-Test-A".parse().unwrap(), Version::new(1, 0, it as u64), Digests::of(b"")));
    let many =
        Index::new("Acme-Test-Pack".parse().unwrap(), Version::new(1, 0, 0), "", many, []).unwrap_err();
    let heavy = (0..13).map(|it| {
        (
            "Acme-Test-A".parse().unwrap(),
            Version::new(1, 0, it),
            Digests { size: 256 << 10, ..Digests::of(b"") },
        )
    });
    let heavy =
        Index::new("Acme-Test-Pack".parse().unwrap(), Version::new(1, 0, 0), "", heavy, []).unwrap_err();

    assert!(matches!(zeros, Err(PackError::Form { at: 512, .. })), "{zeros:?}");
    assert!(matches!(large, Err(PackError::Form { at: 512, .. })), "{large:?}");
    assert!(resource.contains("4294967297 bytes; wanted at most 4294967296"), "{resource}");
    assert!(many.to_string().contains("257 definitions; wanted at most 256"), "{many}");
    assert!(heavy.to_string().contains("more than 3145728 bytes; make two packs"), "{heavy}");
}

#[test]
fn an_index_that_says_what_no_pack_has_is_refused_though_it_is_signed() {
    let parts = Parts::new();
    let text = parts.index().to_text().unwrap();
    let resource = text.find("[[resource]]").unwrap();
    let again = format!("{text}\n{}", &text[resource..]);
    let renamed = again.replacen("resources/list.txt", "resources/0.txt", 1);
    for (from, to, words) in [
        ("resources/list.txt", "/etc/passwd", "wanted resources/NAME"),
        ("resources/list.txt", "resources/../x", "wanted resources/NAME"),
        ("resources/list.txt", "resources/..", "wanted resources/NAME"),
        ("resources/list.txt", "resources/a/b", "wanted resources/NAME"),
        ("resources/list.txt", "resources/a+b", "wanted resources/NAME"),
        ("resources/list.txt", "resources/.hidden", "wanted resources/NAME"),
        ("resources/list.txt", "resources/", "wanted resources/NAME"),
        ("resources/list.txt", "resources/a\\nb", "wanted resources/NAME"),
        ("resources/list.txt", "definitions/list.txt", "wanted resources/NAME"),
        ("resources/list.txt", &format!("resources/{}", "x".repeat(91)), "of at most 100 bytes"),
        ("Acme-Test-A-1.0.0.cms", "Acme-Test-A-1.0.1.cms", "by name and version"),
        ("Acme-Test-B-2.1.0.cms", "Acme-Test-A-1.0.0.cms", "by name and version"),
        ("format = 1", "format = 2", "this version reads format 1"),
        ("format = 1", "format = 1\nmore = 1", "unknown field `more`"),
        ("name = \"Acme-Test-Pack\"", "name = \"Acme\"", "no definition's name"),
        ("says = \"Tests.\"", "says = \"a\\nb\"", "says: wanted at most"),
        ("says = \"Tests.\"", "says = \"a\\u001bb\"", "the hidden character U+001B"),
        ("says = \"Tests.\"", "says = \"a\\u200bb\"", "the hidden character U+200B"),
        ("says = \"Tests.\"", "says = \"a\u{202e}b\"", "the hidden character U+202E"),
        ("size = 4\n", "size = -4\n", "size"),
        (&text[..], &again[..], "there twice"),
        (&text[..], &renamed[..], "another member has the same content"),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text, "{from}");

        let error = parts.read(&parts.archive_with(&changed)).unwrap_err();

        assert!(error.to_string().contains(words), "{to}: {error}");
    }
    let no_definition = format!("definition = []\n{}", &text[..text.find("[[definition]]").unwrap()]);
    assert!(Index::parse(&no_definition).unwrap_err().to_string().contains("no definition"));
}

proptest::proptest! {
    #[test]
    fn any_pieces_of_a_pack_are_the_same_pack(cuts in proptest::collection::vec(1_usize..3_000, 1..20)) {
        let parts = Parts::new();
        let roots = parts.pki.roots();
        let archive = parts.archive();
        let mut reader = Reader::new(Anchors::of(&roots), facts());
        let mut rest = archive.as_slice();
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            reader.handle_piece(piece).unwrap();
            rest = after;
        }
        reader.handle_piece(rest).unwrap();
        let pack = reader.finish().unwrap();

        proptest::prop_assert_eq!(pack.index, parts.index());
        let offset = usize::try_from(pack.resources[0].offset).unwrap();
        proptest::prop_assert_eq!(&archive[offset..offset + LIST.len()], LIST);
    }

    #[test]
    fn any_bytes_are_refused_without_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2_000)) {
        let index = [&header(INDEX_PATH, 700)[..], &bytes].concat();

        proptest::prop_assert!(read(&Roots::default(), &bytes).is_err());
        proptest::prop_assert!(read(&Roots::default(), &index).is_err());
        drop(Index::parse(&String::from_utf8_lossy(&bytes)));
    }
}

fn read(roots: &Roots, archive: &[u8]) -> Result<Pack, PackError> {
    let mut reader = Reader::new(Anchors::of(roots), facts());
    reader.handle_piece(archive)?;
    reader.finish()
}

/// Puts an archive together, whatever the index says.
fn archive(index: &[u8], members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (path, bytes) in std::iter::once((INDEX_PATH, index)).chain(members.iter().copied()) {
        archive.extend_from_slice(&header(path, bytes.len() as u64));
        archive.extend_from_slice(bytes);
        archive.extend_from_slice(padding(bytes.len() as u64));
    }
    archive.extend_from_slice(&END);
    archive
}

fn fix_checksum(block: &mut [u8]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn packed(name: &str, version: &str, list: Option<&[u8]>, signer: &Signer) -> (String, Vec<u8>) {
    let text = definition(name, version, list);
    let envelope = sign(text.as_bytes(), ContentType::Definition, signer, at(NOW)).unwrap();
    (format!("{DEFINITIONS}{name}-{version}.cms"), envelope)
}

fn definition(name: &str, version: &str, list: Option<&[u8]>) -> String {
    let (query, resource) = match list {
        Some(list) => (
            "SELECT :resource_list AS v",
            format!(
                "\n[[resource]]\nname = \"list\"\nsize = {}\nroot = \"{}\"\n",
                list.len(),
                Digests::of(list).root
            ),
        ),
        None => ("SELECT 1 AS v", String::new()),
    };
    format!(
        "name = \"{name}\"\nversion = \"{version}\"\nkind = \"question\"\nsays = \"?\"\n\n[[step]]\nquery = \"{query}\"\n\n\
         [[result]]\nname = \"v\"\ntype = \"text\"\n{resource}"
    )
}

fn named(envelope: &[u8]) -> (DefinitionName, Version) {
    let text = String::from_utf8(crate::envelope::inspect(envelope).unwrap().content).unwrap();
    let definition = Definition::parse(&text).unwrap();
    (definition.name().clone(), definition.version().clone())
}
