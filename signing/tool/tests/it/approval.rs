//! Who counts as one person, by certificates of openssl.

use muster_pki::{Certificate, pem};
use muster_signing::approval::people;

use crate::authority::{P256, run};

#[test]
fn who_has_an_address_or_a_principal_name_in_common_is_one_person() {
    let dir = tempfile::tempdir().unwrap();
    let of = |subject: &str, names: &str| {
        let san = format!("subjectAltName={names}");
        let key = [&["genpkey", "-out", "key"], P256].concat();
        run(dir.path(), &key);
        run(
            dir.path(),
            &["req", "-x509", "-new", "-key", "key", "-subj", subject, "-addext", &san, "-out", "cert"],
        );
        let der = pem::certificates(&std::fs::read(dir.path().join("cert")).unwrap(), "cert").unwrap();
        Certificate::from_der(&der[0]).unwrap()
    };
    let principal = |name: &str| format!("otherName:1.3.6.1.4.1.311.20.2.3;UTF8:{name}");
    let other = |name: &str| format!("otherName:1.3.6.1.4.1.311.20.2.4;UTF8:{name}");

    for (a, b, wanted) in [
        ("email:ann@acme.example".to_owned(), "email:Ann@ACME.example".to_owned(), 1),
        (principal("ann@acme.example"), principal("ANN@acme.example"), 1),
        (principal("ann@acme.example"), "email:ann@acme.example".to_owned(), 1),
        ("DNS:a.b,email:ann@acme.example".to_owned(), "DNS:c.d,email:ann@acme.example".to_owned(), 1),
        ("email:ann@acme.example".to_owned(), "email:ben@acme.example".to_owned(), 2),
        (other("same"), other("same"), 2),
    ] {
        assert_eq!(people(&[of("/CN=Ann Lee", &a), of("/CN=A. Lee", &b)]), wanted, "{a} {b}");
    }
}
