use muster_pki::Role;
use serde_json::{Value, json};

use super::*;
use crate::definition::Definition;
use crate::envelope::{Anchors, ContentType, Signer, sign};
use crate::fixture::{NOW, Pki, at, facts};
use crate::pack::{Digests, END, INDEX_PATH, Index, Reader, header, padding};

const TEXT: &str = "name = \"Acme-Test-A\"\nversion = \"1.0.0\"\nkind = \"question\"\nsays = \"What\\n is it?\"\n\n[[step]]\n\
                    query = \"SELECT 1 AS v\"\n\n[[result]]\nname = \"v\"\ntype = \"integer\"\n";

/// A pack of two definitions, and its bytes.
fn pack(name: &str, version: &str, signer: &Signer, pki: &Pki) -> (Pack, Vec<u8>) {
    let envelopes = ["Acme-Test-A", "Other-Test-B"].map(|name| {
        sign(TEXT.replace("Acme-Test-A", name).as_bytes(), ContentType::Definition, signer, at(NOW)).unwrap()
    });
    let named = envelopes.iter().map(|envelope| {
        let text = String::from_utf8(envelope::inspect(envelope).unwrap().content).unwrap();
        let definition = Definition::parse(&text).unwrap();
        (definition.name().clone(), definition.version().clone(), Digests::of(envelope))
    });
    let (name, version) = (name.parse().unwrap(), version.parse().unwrap());
    let index = Index::new(name, version, "Tests.", named, []).unwrap();
    let signed = sign(index.to_text().unwrap().as_bytes(), ContentType::Pack, signer, at(NOW)).unwrap();
    let mut archive = Vec::new();
    let paths = index.definitions().iter().map(|(_, _, member)| member.path());
    for (path, bytes) in std::iter::once((INDEX_PATH, &signed)).chain(paths.zip(&envelopes)) {
        archive.extend_from_slice(&header(path, bytes.len() as u64));
        archive.extend_from_slice(bytes);
        archive.extend_from_slice(padding(bytes.len() as u64));
    }
    archive.extend_from_slice(&END);
    let roots = pki.roots();
    let mut reader = Reader::new(Anchors::of(&roots), facts());
    reader.handle_piece(&archive).unwrap();
    (reader.finish().unwrap(), archive)
}

/// Somebody who signs packs.
fn publisher() -> (Pki, Signer) {
    let pki = Pki::flat("a");
    let signer = pki.signer("b", Role::Author);
    (pki, signer)
}

fn listed(pack: &Pack, archive: &[u8], url: &str) -> Listed {
    Listed::of(pack, Digests::of(archive).sha256, url.parse().unwrap())
}

/// A list of one pack, as JSON that a test may change.
fn document() -> Value {
    let (pki, signer) = publisher();
    let (pack, archive) = pack("Acme-Test-Pack", "1.0.0", &signer, &pki);
    let exchange = Exchange::new(vec![listed(&pack, &archive, "packs/test.pack")]).unwrap();
    serde_json::from_str(&exchange.to_text().unwrap()).unwrap()
}

fn refused(document: &Value) -> String {
    Exchange::parse(document.to_string().as_bytes()).map(drop).unwrap_err().to_string()
}

#[test]
fn g9_a_list_says_of_each_pack_what_is_in_it_and_is_read_again_as_the_same() {
    let (pki, signer) = publisher();
    let (old, old_bytes) = pack("Acme-Test-Pack", "1.9.0", &signer, &pki);
    let (new, new_bytes) = pack("Acme-Test-Pack", "1.10.0", &signer, &pki);
    let (other, other_bytes) = pack("Acme-Other-Pack", "3.0.0", &signer, &pki);
    let each = [
        listed(&new, &new_bytes, "test-1.10.0.pack"),
        listed(&old, &old_bytes, "old/test-1.9.0.pack"),
        listed(&other, &other_bytes, "other.pack"),
    ];
    let exchange = Exchange::new(each.to_vec()).unwrap();
    let backwards = Exchange::new(each.iter().rev().cloned().collect()).unwrap();

    let text = exchange.to_text().unwrap();

    assert_eq!(backwards.to_text().unwrap(), text, "the order follows from names and versions");
    assert_eq!(Exchange::parse(text.as_bytes()).unwrap(), exchange);
    let order: Vec<String> = exchange.packs().iter().map(ToString::to_string).collect();
    assert_eq!(order, ["Acme-Other-Pack 3.0.0", "Acme-Test-Pack 1.9.0", "Acme-Test-Pack 1.10.0"]);
    let one = &exchange.packs()[2];
    assert_eq!((one.size(), one.sha256()), (new_bytes.len() as u64, Digests::of(&new_bytes).sha256));
    assert_eq!(one.prefixes().into_iter().collect::<Vec<_>>(), ["Acme", "Other"]);
    assert_eq!(one.definitions()[0].says, "What is it?", "on one line");
    assert_eq!(one.definitions()[0].digest, envelope::digest(&new.definitions[0].envelope));
    assert_eq!(one.publisher().thumbprint, signer.certificate().unwrap().thumbprint());
}

#[test]
fn g9_what_no_list_has_is_refused_with_what_was_wanted() {
    let long = "x".repeat(1_025);
    let zeros = "0".repeat(64);
    for (at, value, words) in [
        ("/format", json!(2), "this version reads format 1"),
        ("/more", json!(1), "unknown field `more`"),
        ("/packs/0/more", json!(1), "unknown field `more`"),
        ("/packs/0/publisher/more", json!(1), "unknown field `more`"),
        ("/packs/0/definitions/0/more", json!(1), "unknown field `more`"),
        ("/packs/0/name", json!("Acme"), "no definition's name"),
        ("/packs/0/version", json!("1"), "unexpected end of input"),
        ("/packs/0/version", json!(format!("1.0.0+{long}")), "a version of more than 100 bytes"),
        ("/packs/0/says", json!(long), "says: wanted at most 1024 bytes on one line"),
        ("/packs/0/says", json!("a\u{1b}[2Jb"), "says: wanted at most 1024 bytes on one line"),
        ("/packs/0/publisher/subject", json!("a\nb"), "publisher: wanted at most 1024 bytes"),
        ("/packs/0/publisher/thumbprint", json!("ab"), "no list of packs"),
        ("/packs/0/prefixes", json!(["Acme"]), "wanted those of its definitions, by name: Acme, Other"),
        ("/packs/0/prefixes", json!(["Other", "Acme"]), "wanted those of its definitions"),
        ("/packs/0/size", json!(0), "size 0; a pack has 1 to"),
        ("/packs/0/size", json!(PACK_BYTES_MAX + 1), "a pack has 1 to"),
        ("/packs/0/size", json!(-1), "no list of packs"),
        ("/packs/0/size", json!(1.5), "no list of packs"),
        ("/packs/0/sha256", json!(zeros[1..]), "64 hex digits"),
        ("/packs/0/sha256", Value::Null, "no list of packs"),
        ("/packs/0/definitions", json!([]), "wanted those of its definitions"),
        ("/packs/0/definitions/0/says", json!("a\tb"), "says of a definition"),
        ("/packs/0/definitions/0/digest", json!("x"), "64 hex digits"),
        ("/packs/0/definitions/0/name", json!("Acme-Test"), "no definition's name"),
        ("/packs", json!({}), "no list of packs"),
        ("", json!([]), "no list of packs"),
    ] {
        let mut document = document();
        match at.rsplit_once('/') {
            Some((parent, key)) => document.pointer_mut(parent).unwrap()[key] = value,
            None => document = value,
        }

        let error = refused(&document);

        assert!(error.contains(words), "{at}: {error}");
    }
    let text = document().to_string();
    let twice = text.replacen("\"format\":1", "\"format\":1,\"format\":1", 1);
    assert!(Exchange::parse(twice.as_bytes()).unwrap_err().to_string().contains("duplicate field `format`"));
    for bytes in [&b""[..], b"<html>Log in first</html>", &text.as_bytes()[..text.len() - 1], b"\xff"] {
        assert!(matches!(Exchange::parse(bytes), Err(ExchangeError::Form(_))));
    }
    assert!(Exchange::parse(format!("{text} {{}}").as_bytes()).is_err());
}

#[test]
fn g9_no_pack_of_a_list_lies_anywhere_but_below_the_lists_folder() {
    for url in [
        "https://other.example/test.pack",
        "http://other.example/test.pack",
        "HTTPS:test.pack",
        "//other.example/test.pack",
        "/etc/passwd",
        "../test.pack",
        "packs/../../test.pack",
        "./test.pack",
        "packs/.hidden",
        "packs//test.pack",
        "packs/",
        "",
        "..",
        "\\\\other.example\\test.pack",
        "packs\\test.pack",
        "%2e%2e/test.pack",
        "packs/%2F%2Fother.example",
        "test.pack?to=https://other.example",
        "test.pack#x",
        "user@other.example",
        "other.example:443",
        "a b.pack",
        "a\r\nHost: other.example",
        "täst.pack",
        &"x".repeat(256),
    ] {
        let mut document = document();
        document["packs"][0]["url"] = json!(url);

        let error = refused(&document);

        assert!(error.contains("a pack lies on the server of its list"), "{url}: {error}");
    }
    for url in ["test.pack", "packs/test-1.0.0+1.pack", "a/b/c_d"] {
        assert_eq!(url.parse::<PackPath>().unwrap().as_str(), url);
    }
}

#[test]
fn g9_a_list_is_bounded_and_names_nothing_twice() {
    let document = document();
    let one = &document["packs"][0];
    let with = |packs: Vec<Value>| json!({ "format": 1, "packs": packs });
    let numbered = |number: usize, url: &str| {
        let mut pack = one.clone();
        (pack["version"], pack["url"]) = (json!(format!("1.0.{number}")), json!(url));
        pack
    };
    let many = |count: usize| (0..count).map(|n| numbered(n, &format!("{n}.pack"))).collect::<Vec<_>>();
    let mut definition_twice = one.clone();
    definition_twice["definitions"][1] = one["definitions"][0].clone();
    definition_twice["prefixes"] = json!(["Acme"]);
    let mut crowded = one.clone();
    crowded["definitions"] = (0..257)
        .map(|n| {
            let mut definition = one["definitions"][0].clone();
            definition["version"] = json!(format!("1.0.{n}"));
            definition
        })
        .collect();
    crowded["prefixes"] = json!(["Acme"]);

    for (document, words) in [
        (with(many(PACKS_MAX + 1)), "1001 packs; wanted at most 1000"),
        (with(vec![numbered(1, "a"), numbered(1, "b")]), "Acme-Test-Pack 1.0.1: there twice"),
        (with(vec![numbered(1, "a"), numbered(2, "a")]), "another pack has its url a"),
        (with(vec![definition_twice]), "definition Acme-Test-A 1.0.0 is there twice"),
        (with(vec![crowded]), "257 definitions; a pack has 1 to 256"),
    ] {
        let error = refused(&document);
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(
        Exchange::parse(with(many(PACKS_MAX)).to_string().as_bytes()).unwrap().packs().len(),
        PACKS_MAX
    );
    assert!(Exchange::parse(with(Vec::new()).to_string().as_bytes()).unwrap().packs().is_empty());
    let mut padded = document.to_string().into_bytes();
    padded.resize(LIST_BYTES_MAX, b' ');
    assert!(Exchange::parse(&padded).is_ok());
    padded.push(b' ');
    assert_eq!(Exchange::parse(&padded), Err(ExchangeError::TooLarge { got: LIST_BYTES_MAX + 1 }));
}

#[test]
fn a_line_of_a_list_has_nothing_that_hides_or_turns() {
    for hidden in ["a\u{202e}b", "a\u{200b}b", "a\u{1b}b"] {
        assert!(!is_line(hidden), "{hidden:?}");
        assert_eq!(line(hidden), "a b");
    }
}

#[test]
fn what_a_foreign_list_says_is_repeated_in_errors_shortly_and_on_one_line() {
    let mut document = document();
    document["\u{1b}]0;x\u{7}".to_owned() + &"long".repeat(10_000)] = json!(1);
    let unknown = refused(&document);
    document = self::document();
    document["packs"][0]["name"] = json!("\u{1b}[2J\u{202e}".to_owned() + &"long".repeat(10_000));
    let named = refused(&document);

    for error in [unknown, named] {
        assert!(error.len() < 1_000 && !error.chars().any(is_misleading), "{error}");
    }
}

#[test]
fn g9_a_pack_arrives_whole_and_as_the_list_says_or_not_at_all() {
    let (pki, signer) = publisher();
    let (pack, archive) = pack("Acme-Test-Pack", "1.0.0", &signer, &pki);
    let listed = listed(&pack, &archive, "test.pack");
    let arrive = |bytes: &[u8]| {
        let mut arrival = Arrival::of(&listed);
        bytes.chunks(700).try_for_each(|piece| arrival.handle_piece(piece))?;
        arrival.finish()
    };
    let (size, mut changed) = (archive.len() as u64, archive.clone());
    changed[2_000] ^= 1;

    assert_eq!(arrive(&archive), Ok(()));
    assert_eq!(arrive(&[]), Err(ExchangeError::TooShort { got: 0, wanted: size }));
    let short = arrive(&archive[..archive.len() - 1]);
    assert_eq!(short, Err(ExchangeError::TooShort { got: size - 1, wanted: size }));
    assert_eq!(arrive(&[&archive[..], &[0]].concat()), Err(ExchangeError::TooLong { wanted: size }));
    assert!(
        matches!(arrive(&changed), Err(ExchangeError::Differs { wanted, .. }) if wanted == listed.sha256())
    );
    // Not a byte more than the list says is handed on, whatever comes afterwards.
    let mut flooded = Arrival::of(&listed);
    assert!(flooded.handle_piece(&vec![0; archive.len() + 1]).is_err());
    assert!(flooded.handle_piece(&[]).is_err() && flooded.finish().is_err());
}

#[test]
fn g9_a_pack_that_is_genuine_and_another_one_than_was_listed_is_refused() {
    let (pki, signer) = publisher();
    let another = pki.signer("c", Role::Author);
    let (pack, archive) = pack("Acme-Test-Pack", "1.0.0", &signer, &pki);
    let mut said = document();
    said["packs"][0]["says"] = json!("Something else.");
    let said = Exchange::parse(said.to_string().as_bytes()).unwrap().packs()[0].clone();
    let listed = listed(&pack, &archive, "test.pack");
    listed.check(&pack).unwrap();

    for (listed, found, words) in [
        (&listed, self::pack("Acme-Test-Pack", "0.9.0", &signer, &pki).0, "differ in version"),
        (&listed, self::pack("Acme-Evil-Pack", "1.0.0", &signer, &pki).0, "differ in name"),
        (&listed, self::pack("Acme-Test-Pack", "1.0.0", &another, &pki).0, "publisher"),
        (&said, pack, "says"),
    ] {
        let error = listed.check(&found).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("Acme-Test-Pack 1.0.0"), "{error}");
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_no_list_without_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2_000)) {
        drop(Exchange::parse(&bytes));
    }

    #[test]
    fn any_words_become_a_line_that_a_list_may_have(text in "\\PC*|[\\s\\x00-\\x1fa-zäß]{0,1500}") {
        proptest::prop_assert!(is_line(&line(&text)));
    }
}
