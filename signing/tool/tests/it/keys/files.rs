//! Keys in files: PEM and PFX.

use super::{lab, refuse, sign};
use crate::authority::{P256, run};
use crate::openssl::KEYS;

const PASSWORD: (&str, &str) = ("MUSTER_KEY_PASSWORD", "sécret wörd");

/// Makes a PFX of the lab's key, its certificate and the issuing CA's.
fn export(dir: &std::path::Path, file: &str, more: &[&str]) {
    let usual =
        ["pkcs12", "-export", "-inkey", "leaf.key", "-in", "leaf.pem", "-certfile", "both.pem", "-out", file];
    let password = format!("pass:{}", PASSWORD.1);
    run(dir, &[&usual[..], &["-passout", &password], more].concat());
}

#[test]
fn g7_a_pfx_signs_new_or_old_and_openssl_accepts_it() {
    for (_, kind, _) in KEYS {
        let dir = lab(kind);
        for more in [&[][..], &["-legacy"]] {
            export(dir.path(), "leaf.pfx", more);

            sign(dir.path(), &["--key", "leaf.pfx"], &[PASSWORD]);
        }
    }
}

#[test]
fn g7_a_pfx_may_be_used_under_another_certificate_than_its_own() {
    let dir = lab(P256);
    export(dir.path(), "leaf.pfx", &[]);
    std::fs::write(dir.path().join("password"), format!("{}\n", PASSWORD.1)).unwrap();

    sign(dir.path(), &["--key", "leaf.pfx", "--cert", "chain.pem", "--key-password-file", "password"], &[]);
    let other = refuse(dir.path(), &["--key", "leaf.pfx", "--cert", "issuing.pem"], &[PASSWORD]);

    assert!(other.contains("the key is not the one of certificate"), "{other}");
}

#[test]
fn g7_a_pem_key_may_be_encrypted_and_stand_beside_its_certificate() {
    let dir = lab(P256);
    let read = |file: &str| std::fs::read(dir.path().join(file)).unwrap();
    let password = format!("pass:{}", PASSWORD.1);
    let encrypt = ["pkey", "-in", "leaf.key", "-aes256", "-passout", &password, "-out", "locked.key"];
    run(dir.path(), &encrypt);
    std::fs::write(dir.path().join("all.pem"), [read("leaf.key"), read("chain.pem")].concat()).unwrap();

    sign(dir.path(), &["--key", "leaf.key", "--cert", "chain.pem"], &[]);
    sign(dir.path(), &["--key", "locked.key", "--cert", "chain.pem"], &[PASSWORD]);
    sign(dir.path(), &["--key", "all.pem"], &[]);
    // A password that nothing asks for does no harm.
    sign(dir.path(), &["--key", "all.pem"], &[PASSWORD]);
    let alone = refuse(dir.path(), &["--key", "leaf.key"], &[]);

    assert!(alone.contains("leaf.key: holds no certificate") && alone.contains("--cert"), "{alone}");
}

#[test]
fn g7_a_password_that_is_wrong_or_missing_is_told_and_never_shown() {
    let dir = lab(P256);
    export(dir.path(), "leaf.pfx", &[]);
    std::fs::write(dir.path().join("empty"), "\n").unwrap();

    let wrong = refuse(dir.path(), &["--key", "leaf.pfx"], &[("MUSTER_KEY_PASSWORD", "unlikely")]);
    let missing = refuse(dir.path(), &["--key", "leaf.pfx"], &[]);
    let empty = refuse(dir.path(), &["--key", "leaf.pfx", "--key-password-file", "empty"], &[]);

    assert!(
        wrong.contains("leaf.pfx: the password does not open it") && !wrong.contains("unlikely"),
        "{wrong}"
    );
    assert!(missing.contains("the password of leaf.pfx is wanted, and there is no terminal"), "{missing}");
    assert!(empty.contains("empty: empty; wanted one line"), "{empty}");
}
