//! Every command that signs, with a key of each kind and in each place (G7); `openssl cms` and our own verifier judge what comes of it.

use std::path::Path;

use muster_pki::{Facts, Role, Roots, UnixTime};
use muster_signing::envelope::{self, Anchors, ContentType};

use super::softhsm::{PIN, SoftHsm};
use super::{command, lab};
use crate::authority::run;
use crate::openssl::KEYS;

const POLICY: &str = "serial = 1\ntenant = \"acme\"\n";

/// What is signed, as whose document, and by whose word.
const DOCUMENTS: [(&str, ContentType, Role); 5] = [
    ("definition sign a.toml", ContentType::Definition, Role::Author),
    (
        "licence request --prefix Acme --licensee Acme --tenant acme",
        ContentType::LicenceRequest,
        Role::Author,
    ),
    (
        "licence issue --licensee Acme --tenant acme --prefix Acme=issuing.pem --serial 1 --valid 1d",
        ContentType::Licence,
        Role::Licensor,
    ),
    ("policy sign p.toml", ContentType::Policy, Role::Policy),
    ("pack build d --name Acme-Test-Pack --version 1.0.0 --says Tests.", ContentType::Pack, Role::Author),
];

#[test]
fn g7_every_document_is_signed_with_a_key_of_each_kind_p256() {
    signs_everything(0);
}

#[test]
fn g7_every_document_is_signed_with_a_key_of_each_kind_p384() {
    signs_everything(1);
}

#[test]
fn g7_every_document_is_signed_with_a_key_of_each_kind_rsa_2048() {
    signs_everything(2);
}

#[test]
fn g7_every_document_is_signed_with_a_key_of_each_kind_rsa_3072() {
    signs_everything(3);
}

fn signs_everything(kind: usize) {
    let dir = lab(KEYS[kind].1);
    let dir = dir.path();
    std::fs::write(dir.join("p.toml"), POLICY).unwrap();
    let pfx =
        "pkcs12 -export -inkey leaf.key -in leaf.pem -certfile issuing.pem -passout pass:1234 -out leaf.pfx";
    run(dir, &pfx.split(' ').collect::<Vec<_>>());
    let store = SoftHsm::new();
    store.key("signing", &dir.join("leaf.key"), "author", "a1");
    store.certificate("signing", &dir.join("leaf.pem"), "author", "a1");
    store.certificate("signing", &dir.join("issuing.pem"), "issuing", "c1");
    let variables = store.variables();
    let mut variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    // One word opens both: the PFX's password is the token's PIN.
    variables.push(("MUSTER_KEY_PASSWORD", PIN));
    let signs = |what: &str, out: &str, key: &[&str]| {
        let arguments: Vec<&str> = what.split(' ').chain(["--out", out, "--key"]).collect();
        let output = command(dir, &[&arguments, key].concat(), &variables);
        assert!(output.status.success(), "{what} {key:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    // A pack holds what is signed already.
    std::fs::create_dir(dir.join("d")).unwrap();
    signs(DOCUMENTS[0].0, "d/a.cms", &["leaf.key", "--cert", "chain.pem"]);

    for key in [&["leaf.key", "--cert", "chain.pem"][..], &["leaf.pfx"], &["pkcs11:object=author"]] {
        for (what, content_type, role) in DOCUMENTS {
            signs(what, "out", key);
            if content_type == ContentType::Pack {
                run_tar(dir);
            }
            judged(dir, content_type, role, &format!("{what} {key:?}"));
            // Nothing replaces a document of another kind.
            std::fs::remove_file(dir.join("out")).unwrap();
        }
        signs("file sign p.toml", "p.p7s", key);
        let detached = "cms -verify -cades -inform DER -in p.p7s -content p.toml -CAfile root.pem -purpose any -binary -out content";
        run(dir, &detached.split(' ').collect::<Vec<_>>());
        let own =
            command(dir, &["file", "verify", "p.toml", "--signature", "p.p7s", "--roots", "root.pem"], &[]);
        assert!(own.status.success(), "{key:?}: {}", String::from_utf8_lossy(&own.stderr));
    }
}

/// Puts the index of the pack `out` in its place.
fn run_tar(dir: &Path) {
    let tar = std::process::Command::new("tar").args(["xf", "out", "index.cms"]).current_dir(dir).status();
    assert!(tar.unwrap().success());
    std::fs::rename(dir.join("index.cms"), dir.join("out")).unwrap();
}

/// Holds `out` against the root; openssl and our own verifier find the same bytes.
fn judged(dir: &Path, content_type: ContentType, role: Role, what: &str) {
    let verify = "cms -verify -cades -inform DER -in out -CAfile root.pem -purpose any -binary -out content";
    run(dir, &verify.split(' ').collect::<Vec<_>>());
    let envelope = std::fs::read(dir.join("out")).unwrap();
    let roots = Roots::from_pem(&std::fs::read(dir.join("root.pem")).unwrap(), "root.pem").unwrap();
    let facts = Facts::at(UnixTime::now());
    let own = envelope::verify(&envelope, content_type, role, &Anchors::of(&roots), &facts)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(own.content, std::fs::read(dir.join("content")).unwrap(), "{what}");
}
