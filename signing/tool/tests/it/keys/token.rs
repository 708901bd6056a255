//! Keys in tokens.

use std::path::Path;

use super::softhsm::{PIN, SoftHsm};
use super::{lab, refuse, sign};
use crate::authority::{P256, run};
use crate::openssl::KEYS;

/// Signs with a token's key; `more` is added to the usual PIN.
fn with(store: &SoftHsm, dir: &Path, key: &str, more: &[&str]) {
    let variables = store.variables();
    let mut all: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    all.push(("MUSTER_KEY_PASSWORD", PIN));
    sign(dir, &[&["--key", key], more].concat(), &all);
}

/// Signs with a token's key, in vain.
fn without(store: &SoftHsm, dir: &Path, key: &str, pin: Option<&str>, more: &[&str]) -> String {
    let variables = store.variables();
    let mut all: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    all.extend(pin.map(|pin| ("MUSTER_KEY_PASSWORD", pin)));
    refuse(dir, &[&["--key", key], more].concat(), &all)
}

/// A token that holds the lab's key and, above its certificate, the issuing CA's.
fn filled(dir: &Path) -> SoftHsm {
    let store = SoftHsm::new();
    store.key("signing", &dir.join("leaf.key"), "author", "a1");
    store.certificate("signing", &dir.join("leaf.pem"), "author", "a1");
    store.certificate("signing", &dir.join("issuing.pem"), "issuing", "c1");
    store.certificate("signing", &dir.join("root.pem"), "root", "c2");
    store
}

#[test]
fn g7_a_token_signs_with_rsa_and_ecdsa_and_openssl_accepts_it() {
    for (_, kind, _) in KEYS {
        let dir = lab(kind);
        let store = filled(dir.path());

        with(&store, dir.path(), "pkcs11:token=signing;object=author;type=private", &[]);
        with(&store, dir.path(), "pkcs11:id=%a1", &[]);
        with(&store, dir.path(), "pkcs11:", &["--certificate", "chain.pem"]);
    }
}

#[test]
fn g7_a_token_that_hashes_less_or_more_signs_all_the_same() {
    let dir = lab(KEYS[2].1);
    let store = filled(dir.path());

    for mechanisms in ["CKM_RSA_PKCS", "CKM_SHA256_RSA_PKCS"] {
        store.configure(&format!("slots.mechanisms = {mechanisms}"));
        with(&store, dir.path(), "pkcs11:object=author", &[]);
    }
    store.configure("slots.mechanisms = CKM_ECDSA,CKM_SHA_1");
    let missing = without(&store, dir.path(), "pkcs11:object=author", Some(PIN), &[]);

    assert!(
        missing.contains("has none of the mechanisms CKM_SHA256_RSA_PKCS, CKM_RSA_PKCS; it has CKM_"),
        "{missing}"
    );
}

#[test]
fn g7_a_key_that_wants_the_pin_for_each_signature_gets_it() {
    let dir = lab(KEYS[2].1);
    let store = SoftHsm::new();
    run(dir.path(), &["rsa", "-in", "leaf.key", "-outform", "DER", "-out", "leaf.der"]);
    let key = dir.path().join("leaf.der").display().to_string();
    let write = ["--write-object", &key, "--type", "privkey", "--label", "author", "--id", "a1"];
    store.tool("signing", &[&write[..], &["--usage-sign", "--always-auth"]].concat());
    store.certificate("signing", &dir.path().join("leaf.pem"), "author", "a1");
    store.certificate("signing", &dir.path().join("issuing.pem"), "issuing", "c1");

    with(&store, dir.path(), "pkcs11:object=author", &[]);
}

#[test]
fn g7_the_pin_comes_from_a_file_or_the_environment() {
    let dir = lab(P256);
    let store = filled(dir.path());
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    };
    let (right, wrong) = (file("right", "1234\n"), file("wrong", "4321\n"));
    let variables = store.variables();
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (&name[..], &value[..])).collect();

    // What is named nearer to the token goes first.
    let source = format!("pkcs11:object=author?pin-source=file:{right}");
    sign(dir.path(), &["--key", &source, "--key-password-file", &wrong], &variables);
    let with_wrong = [&variables[..], &[("MUSTER_KEY_PASSWORD", "4321")]].concat();
    sign(dir.path(), &["--key", "pkcs11:", "--key-password-file", &right], &with_wrong);
    let nowhere = refuse(dir.path(), &["--key", "pkcs11:object=author"], &variables);
    let missing = refuse(dir.path(), &["--key", "pkcs11:?pin-source=/no/such"], &variables);

    assert!(nowhere.contains("the PIN of token signing is wanted, and there is no terminal"), "{nowhere}");
    assert!(nowhere.contains("--key-password-file") && nowhere.contains("MUSTER_KEY_PASSWORD"), "{nowhere}");
    assert!(missing.contains("/no/such: No such file"), "{missing}");
}

#[test]
fn g7_a_wrong_pin_says_that_tries_may_run_out_and_is_tried_once() {
    let dir = lab(P256);
    let store = filled(dir.path());

    let wrong = without(&store, dir.path(), "pkcs11:object=author", Some("4321"), &[]);

    assert!(wrong.contains("token signing refuses the PIN"), "{wrong}");
    assert!(wrong.contains("tries") && !wrong.contains("4321"), "{wrong}");
}

#[test]
fn g7_what_is_not_found_is_told_with_what_there_is() {
    let dir = lab(P256);
    let store = filled(dir.path());
    store.key("signing", &dir.path().join("issuing.key"), "spare", "b2");
    let said = |key: &str| without(&store, dir.path(), key, Some(PIN), &[]);

    let token = said("pkcs11:token=other;object=author");
    let key = said("pkcs11:token=signing;object=nobody");
    let several = said("pkcs11:token=signing");
    let certificate = said("pkcs11:object=spare");
    let module = said("pkcs11:object=author?module-path=/no/such.so");
    let library = said(&format!("pkcs11:?module-path={}", dir.path().join("leaf.pem").display()));

    assert!(token.contains("no token is token=other; found token=signing;serial="), "{token}");
    assert!(
        key.contains("no private key object=nobody; it has object=author;id=a1, object=spare;id=b2"),
        "{key}"
    );
    assert!(several.contains("2 private keys of token signing are at all: object=author"), "{several}");
    assert!(
        certificate.contains("no certificate for private key object=spare;id=b2")
            && certificate.contains("id=c2"),
        "{certificate}"
    );
    assert!(module.contains("/no/such.so: No such file"), "{module}");
    assert!(library.contains("leaf.pem: ") && library.contains("wanted the shared library"), "{library}");
}

#[test]
fn g7_two_tokens_of_one_name_are_told_apart_by_their_serial() {
    let dir = lab(P256);
    let store = filled(dir.path());
    store.token("signing2");
    let said = without(&store, dir.path(), "pkcs11:manufacturer=SoftHSM%20project", Some(PIN), &[]);

    assert!(said.contains("2 tokens are manufacturer=SoftHSM project"), "{said}");
    let serial = said.split("token=signing;serial=").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
    with(&store, dir.path(), &format!("pkcs11:serial={serial}"), &[]);
}

#[test]
fn g7_a_certificate_that_is_not_the_keys_signs_nothing() {
    let dir = lab(P256);
    let store = filled(dir.path());
    store.key("signing", &dir.path().join("issuing.key"), "other", "b2");
    let rsa = lab(KEYS[2].1);
    let rsa = rsa.path().join("leaf.pem").display().to_string();

    let other = without(&store, dir.path(), "pkcs11:object=other", Some(PIN), &["--cert", "leaf.pem"]);
    let kind = without(&store, dir.path(), "pkcs11:object=author", Some(PIN), &["--cert", &rsa]);

    assert!(other.contains("the key is not the one of certificate"), "{other}");
    assert!(kind.contains("is of type CKK_EC, the certificate's is RSA 2048"), "{kind}");
}

#[test]
fn g7_a_weak_key_is_refused() {
    let dir = lab(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]);
    let store = filled(dir.path());

    let weak = without(&store, dir.path(), "pkcs11:object=author", Some(PIN), &[]);

    assert!(
        weak.contains("an RSA key of 1024 bits; wanted") && weak.contains("RSA of 2048 to 8192 bits"),
        "{weak}"
    );
}

#[test]
fn g7_a_pin_in_the_uri_is_refused_and_not_repeated() {
    let dir = lab(P256);
    let arguments = ["--key", "pkcs11:object=author?pin-value=1234"];

    let output = super::muster_sign(dir.path(), &arguments, &[]);

    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("pin-source"), "{said}");
}
