//! Exchanges (G9): lists of verified packs.

use serde_json::json;

use crate::pack::{BUILD, Lab, sha256sum};

/// A lab with two versions of a pack, whose versions are not in the order of their names.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.succeed(&BUILD.replace("1.0.0", "1.10.0"));
    lab.succeed(&BUILD.replace("1.0.0", "1.9.0").replace("a.pack", "b.pack"));
    lab
}

fn read(lab: &Lab, file: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(lab.path(file)).unwrap()).unwrap()
}

#[test]
fn g9_a_list_tells_of_each_verified_pack_what_is_in_it_where_it_is_and_its_sha256() {
    let lab = lab();

    let built =
        lab.succeed("exchange build a.pack b.pack --url-prefix packs/ --roots root.pem --out exchange.json");
    let verified = lab.succeed("pack verify a.pack --roots root.pem");

    let list = read(&lab, "exchange.json");
    assert_eq!(built["packs"].as_array().unwrap().len(), 2);
    assert_eq!((&list["format"], list["packs"].as_array().unwrap().len()), (&json!(1), 2));
    let (older, newer) = (&list["packs"][0], &list["packs"][1]);
    assert_eq!((&older["version"], &newer["version"]), (&json!("1.9.0"), &json!("1.10.0")), "by version");
    assert_eq!((&older["url"], &newer["url"]), (&json!("packs/b.pack"), &json!("packs/a.pack")));
    assert_eq!(newer["name"], "Acme-Test-Pack");
    assert_eq!(newer["says"], "Tests.");
    assert_eq!(newer["prefixes"], json!(["Acme"]));
    assert_eq!(newer["publisher"], verified["signer"]);
    assert_eq!(newer["size"], std::fs::metadata(lab.path("a.pack")).unwrap().len());
    assert_eq!(newer["sha256"], sha256sum(&lab.path("a.pack")));
    let (listed, packed) = (&newer["definitions"][1], &verified["definitions"][1]);
    for field in ["name", "version", "says", "digest"] {
        assert_eq!(listed[field], packed[field], "{field}");
    }
    assert_eq!(listed["signer"], packed["signer"]["thumbprint"]);
}

#[test]
fn g9_the_same_packs_make_the_same_list_in_whatever_order_they_are_named() {
    let lab = lab();

    lab.succeed("exchange build a.pack b.pack --roots root.pem --out first.json");
    lab.succeed("exchange build b.pack a.pack --roots root.pem --out second.json");

    assert_eq!(
        std::fs::read(lab.path("first.json")).unwrap(),
        std::fs::read(lab.path("second.json")).unwrap()
    );
    assert_eq!(read(&lab, "first.json")["packs"][0]["url"], "b.pack", "beside the list");
}

#[test]
fn g9_what_is_not_verified_or_would_lie_elsewhere_gets_into_no_list() {
    let lab = lab();
    let mut changed = std::fs::read(lab.path("a.pack")).unwrap();
    changed[3_000] ^= 1;
    std::fs::write(lab.path("changed.pack"), changed).unwrap();
    std::fs::copy(lab.path("a.pack"), lab.path("again.pack")).unwrap();
    std::fs::copy(lab.path("a.pack"), lab.path("a~.pack")).unwrap();
    std::fs::create_dir(lab.path("x")).unwrap();
    std::fs::copy(lab.path("b.pack"), lab.path("x/a.pack")).unwrap();
    let build = "exchange build a.pack --roots root.pem --out exchange.json";
    lab.succeed(&build.replace("a.pack", "a.pack b.pack"));
    let old = std::fs::read(lab.path("exchange.json")).unwrap();
    for (arguments, words) in [
        (build.replace("a.pack", "a.pack changed.pack"), "changed.pack: "),
        (build.replace("a.pack", "a.pack again.pack"), "Acme-Test-Pack 1.10.0: there twice"),
        (build.replace("a.pack", "a.pack x/a.pack"), "another pack has its url a.pack"),
        (build.replace("a.pack", "a.pack none.pack"), "none.pack: No such file"),
        (build.replace("a.pack", "a.pack d/list.txt"), "list.txt: the pack ends"),
        (build.replace("a.pack", "a~.pack"), "a pack lies on the server of its list"),
        (format!("{build} --url-prefix https://other.example/"), "a pack lies on the server of its list"),
        (format!("{build} --url-prefix ../"), "a pack lies on the server of its list"),
        (format!("{build} --url-prefix /packs/"), "a pack lies on the server of its list"),
        (format!("{build} --crl author.crl"), "SIGNER_REVOKED"),
    ] {
        let error = lab.refuse(&arguments);

        assert!(error.contains(words), "{arguments}: {error}");
        assert_eq!(std::fs::read(lab.path("exchange.json")).unwrap(), old, "{arguments}");
    }
    assert_eq!(lab.muster_sign("exchange build").status.code(), Some(2));
    assert_eq!(lab.muster_sign("exchange build a.pack --out exchange.json").status.code(), Some(2));
}
