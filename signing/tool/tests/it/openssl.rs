//! Ours verified by `openssl cms`, and `openssl cms` verified by ours.

use std::path::Path;

use muster_pki::{Facts, Role, Roots, UnixTime};
use muster_signing::envelope::{self, Anchors, ContentType, Signer};

use crate::authority::run;

const CONTENT: &str = "name = \"Acme-Os-Version\"\n";

/// How openssl is asked for a key.
pub(crate) const KEYS: [(&str, &[&str], &str); 4] = [
    ("p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "sha256"),
    ("p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "sha384"),
    ("rsa2048", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "sha256"),
    ("rsa3072", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"], "sha512"),
];

#[test]
fn openssl_verifies_ours() {
    for (name, key, _) in KEYS {
        let dir = pki(key);
        let at = |file: &str| dir.path().join(file);

        let envelope =
            envelope::sign(CONTENT.as_bytes(), ContentType::Definition, &signer(dir.path()), UnixTime::now())
                .unwrap();
        std::fs::write(at("ours.cms"), &envelope).unwrap();

        openssl(
            dir.path(),
            "cms -verify -cades -inform DER -in ours.cms -CAfile root.pem -purpose any -binary -out content",
        );
        assert_eq!(std::fs::read(at("content")).unwrap(), CONTENT.as_bytes(), "{name}");
        check(dir.path(), &envelope);
    }
}

#[test]
fn ours_verifies_openssl() {
    for (name, key, digest) in KEYS {
        let dir = pki(key);
        std::fs::write(dir.path().join("content"), CONTENT).unwrap();

        openssl(
            dir.path(),
            &format!(
                "cms -sign -cades -nosmimecap -nodetach -binary -md {digest} -econtent_type 1.3.6.1.3.20263.1.1 \
                 -in content -signer leaf.pem -inkey leaf.key -certfile issuing.pem -outform DER -out theirs.cms"
            ),
        );
        let envelope = std::fs::read(dir.path().join("theirs.cms")).unwrap();

        assert_eq!(check(dir.path(), &envelope), CONTENT.as_bytes(), "{name}");
    }
}

#[test]
fn openssl_without_the_attributes_or_with_more_than_needed_is_refused() {
    let dir = pki(KEYS[0].1);
    std::fs::write(dir.path().join("content"), CONTENT).unwrap();
    let common = "cms -sign -nodetach -binary -econtent_type 1.3.6.1.3.20263.1.1 -in content -signer leaf.pem \
                  -inkey leaf.key -outform DER -out theirs.cms";
    for (arguments, words) in [
        ("-cades -nosmimecap -md sha256", "certificate refused"),
        ("-nosmimecap -md sha256 -certfile issuing.pem", "signingCertificateV2 is missing"),
        ("-cades -md sha256 -certfile issuing.pem", "which nothing here reads"),
        ("-noattr -md sha256 -certfile issuing.pem", "no signed attributes"),
        ("-cades -nosmimecap -md sha1 -certfile issuing.pem", "digest algorithm"),
        ("-cades -nosmimecap -md sha256 -keyid -certfile issuing.pem", "issuer and serial"),
        ("-cades -nosmimecap -md sha256 -certfile both.pem", "which no signer's chain needs"),
        (
            "-cades -nosmimecap -md sha256 -stream -certfile issuing.pem",
            "not a signed envelope in strict DER",
        ),
    ] {
        openssl(dir.path(), &format!("{common} {arguments}"));
        let envelope = std::fs::read(dir.path().join("theirs.cms")).unwrap();

        let error = verify(dir.path(), &envelope).expect_err(arguments).to_string();

        assert!(error.contains(words), "{arguments}: {error}");
    }
}

#[test]
fn the_command_that_a_refusal_advises_makes_an_envelope_that_is_accepted() {
    let dir = pki(KEYS[0].1);
    std::fs::write(dir.path().join("FILE"), CONTENT).unwrap();
    for (name, file) in [("leaf.pem", "CERT.pem"), ("leaf.key", "KEY.pem"), ("issuing.pem", "CHAIN.pem")] {
        std::fs::copy(dir.path().join(name), dir.path().join(file)).unwrap();
    }
    let refusal = verify(dir.path(), CONTENT.as_bytes()).unwrap_err().to_string();

    let advised = refusal.split('`').nth(1).unwrap().strip_prefix("openssl ").unwrap();
    let oid = refusal.split("where OID is ").nth(1).unwrap().split(' ').next().unwrap();
    openssl(dir.path(), &advised.replace(" OID ", &format!(" {oid} ")));

    let envelope = std::fs::read(dir.path().join("FILE.cms")).unwrap();
    assert_eq!(check(dir.path(), &envelope), CONTENT.as_bytes());
}

pub(crate) fn check(dir: &Path, envelope: &[u8]) -> Vec<u8> {
    verify(dir, envelope).unwrap_or_else(|error| panic!("{error}")).content
}

fn verify(dir: &Path, envelope: &[u8]) -> Result<envelope::Verified, envelope::EnvelopeError> {
    let roots = Roots::from_pem(&std::fs::read(dir.join("root.pem")).unwrap(), "root.pem").unwrap();
    let facts = Facts::at(UnixTime::now());
    envelope::verify(envelope, ContentType::Definition, Role::Author, &Anchors::of(&roots), &facts)
}

fn signer(dir: &Path) -> Signer {
    let read = |file: &str| std::fs::read(dir.join(file)).unwrap();
    Signer::from_pem([read("leaf.pem"), read("issuing.pem")].concat(), read("leaf.key")).unwrap()
}

/// A root, an issuing CA and a signer, all by openssl.
pub(crate) fn pki(key: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["root", "issuing", "leaf"] {
        let mut arguments = vec!["genpkey"];
        arguments.extend_from_slice(key);
        let file = format!("{name}.key");
        arguments.extend_from_slice(&["-out", &file]);
        run(dir.path(), &arguments);
    }
    let ca = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n";
    std::fs::write(dir.path().join("ca.ext"), format!("{ca}subjectKeyIdentifier=hash\n")).unwrap();
    let leaf = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=codeSigning\n";
    std::fs::write(dir.path().join("leaf.ext"), format!("{leaf}subjectKeyIdentifier=hash\n")).unwrap();
    openssl(dir.path(), "req -new -key root.key -subj /CN=root -out root.csr");
    openssl(dir.path(), "x509 -req -in root.csr -signkey root.key -days 30 -extfile ca.ext -out root.pem");
    openssl(dir.path(), "req -new -key issuing.key -subj /CN=issuing -out issuing.csr");
    openssl(
        dir.path(),
        "x509 -req -in issuing.csr -CA root.pem -CAkey root.key -CAcreateserial -days 30 -extfile ca.ext -out issuing.pem",
    );
    openssl(dir.path(), "req -new -key leaf.key -subj /CN=ann/O=Acme -out leaf.csr");
    openssl(
        dir.path(),
        "x509 -req -in leaf.csr -CA issuing.pem -CAkey issuing.key -CAcreateserial -days 30 -extfile leaf.ext -out leaf.pem",
    );
    let read = |file: &str| std::fs::read(dir.path().join(file)).unwrap();
    std::fs::write(dir.path().join("both.pem"), [read("issuing.pem"), read("root.pem")].concat()).unwrap();
    std::fs::write(dir.path().join("chain.pem"), [read("leaf.pem"), read("issuing.pem")].concat()).unwrap();
    dir
}

pub(crate) fn openssl(dir: &Path, arguments: &str) {
    run(dir, &arguments.split_whitespace().collect::<Vec<_>>());
}
