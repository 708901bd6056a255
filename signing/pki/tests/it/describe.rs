//! What files hold, made by `openssl` and by our own CA.
#![expect(clippy::disallowed_methods, reason = "openssl writes files")]

use std::path::Path;
use std::process::Command;

use muster_pki::authority::Revoked;
use muster_pki::{Item, KeySummary, Role, describe};

use crate::support::{DAY, NOW, Pki, at};

#[test]
fn tells_certificates_crls_and_keys_of_one_file_in_their_order() {
    let pki = Pki::new();
    let issued = pki.issue(Role::Device);
    let revoked = Revoked { serial_hex: issued.certificate.serial_hex(), at: at(NOW) };
    let crl = pki.issuing.crl(&[revoked], 7, at(NOW), at(NOW + DAY)).unwrap();
    let junk = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
    let file = format!("{}{crl}{junk}{}", issued.certificate_pem, issued.key_pem);

    let items = describe(file.as_bytes(), "a.pem").unwrap();

    let [
        Item::Certificate(certificate),
        Item::Crl(crl),
        Item::Other { label, problem },
        Item::PrivateKey(key),
    ] = &items[..]
    else {
        panic!("{items:?}")
    };
    assert_eq!(certificate, &issued.certificate);
    assert_eq!((&crl.issuer[..], crl.number.as_deref(), crl.entries), ("CN=Test Root Issuing", Some("7"), 1));
    assert_eq!((crl.this_update, crl.next_update, crl.is_delta), (at(NOW), Some(at(NOW + DAY)), false));
    assert!(label == "CERTIFICATE" && problem.contains("base64"), "{label}: {problem}");
    assert_eq!((key.form, key.algorithm.as_deref()), ("PKCS#8", Some("ECDSA P-256")));
    assert_eq!(describe(certificate.der(), "a.der").unwrap(), [Item::Certificate(certificate.clone())]);
}

#[test]
fn tells_every_form_of_key_that_openssl_writes_and_never_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &str| openssl(dir.path(), arguments);
    run("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem");
    run("rsa -in rsa.pem -traditional -out pkcs1.pem");
    run("ecparam -name secp384r1 -genkey -noout -out sec1.pem");
    run("genpkey -algorithm ED25519 -out ed.pem");
    run("pkcs8 -topk8 -in ed.pem -v2 aes256 -passout pass:x -out encrypted.pem");
    run("rsa -in rsa.pem -traditional -aes256 -passout pass:x -out old.pem");
    for (name, form, algorithm) in [
        ("rsa", "PKCS#8", Some("RSA 2048")),
        ("pkcs1", "PKCS#1", Some("RSA 2048")),
        ("sec1", "SEC 1", Some("ECDSA P-384")),
        ("ed", "PKCS#8", Some("Ed25519")),
        ("encrypted", "encrypted", None),
        ("old", "encrypted", None),
    ] {
        let wanted = [Item::PrivateKey(KeySummary { form, algorithm: algorithm.map(str::to_owned) })];
        let bytes = std::fs::read(dir.path().join(format!("{name}.pem"))).unwrap();

        assert_eq!(describe(&bytes, name).unwrap(), wanted, "{name}");

        if algorithm.is_some() {
            run(&format!("pkey -in {name}.pem -outform DER -out {name}.der"));
            let der =
                describe(&std::fs::read(dir.path().join(format!("{name}.der"))).unwrap(), name).unwrap();
            let Item::PrivateKey(key) = &der[0] else { panic!("{name}: {der:?}") };
            assert_eq!(key.algorithm.as_deref(), algorithm, "{name}");
        }
    }
}

#[test]
fn tells_requests_envelopes_public_keys_and_pfx() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &str| openssl(dir.path(), arguments);
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    run("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out a.key");
    run(
        "req -new -key a.key -subj /CN=w701/O=Acme -addext subjectAltName=DNS:w701.acme.local,DNS:w701 -out a.csr",
    );
    run("req -x509 -key a.key -subj /CN=w701 -days 3 -out a.pem");
    run("pkey -in a.key -pubout -out a.pub");
    run("pkcs12 -export -inkey a.key -in a.pem -passout pass:x -out a.pfx");
    run(
        "cms -sign -nodetach -binary -econtent_type 1.3.6.1.3.20263.1.1 -in a.pub -signer a.pem -inkey a.key -outform PEM -out a.cms",
    );
    run("req -in a.csr -outform DER -out csr.der");

    let request = describe(&read("a.csr"), "a.csr").unwrap();
    let envelope = describe(&read("a.cms"), "a.cms").unwrap();

    let Item::Request(asked) = &request[0] else { panic!("{request:?}") };
    assert!(asked.subject.contains("CN=w701") && asked.key_algorithm == "ECDSA P-256", "{asked:?}");
    assert_eq!(asked.dns_names, ["w701.acme.local", "w701"]);
    let Item::Envelope(summary) = &envelope[0] else { panic!("{envelope:?}") };
    assert_eq!(summary.content_type.as_deref(), Some("1.3.6.1.3.20263.1.1"));
    assert!(summary.kind.contains("signedData"), "{summary:?}");
    assert_eq!(describe(&read("a.pub"), "a.pub").unwrap(), [Item::PublicKey("ECDSA P-256".to_owned())]);
    assert_eq!(describe(&read("a.pfx"), "a.pfx").unwrap(), [Item::Pfx]);
    assert_eq!(describe(&read("csr.der"), "csr.der").unwrap(), request);
}

#[test]
fn refuses_what_is_neither_pem_nor_der() {
    let error = describe(b"hello\n", "a.txt").unwrap_err().to_string();

    assert!(error.starts_with("a.txt: no certificate, CRL, request, key or CMS message found"), "{error}");
    assert!(matches!(&describe(&[0x30, 0x03, 1, 2, 3], "a").unwrap()[..], [Item::Other { .. }]));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_described_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _told = describe(&bytes, "a");
        let _der = describe(&[&[0x30][..], &bytes].concat(), "a");
    }
}

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
