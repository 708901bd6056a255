//! Approvals: who counts as one person, by certificates of openssl; and orders that several signed, by openssl and by us.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use muster_pki::{Certificate, Roots, UnixTime, pem};
use muster_signing::admit::{self, Trust};
use muster_signing::approval::people;
use muster_signing::envelope::{self, ContentType, Signer};
use muster_signing::order;

use crate::authority::{P256, run};
use crate::openssl::{KEYS, openssl};

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

/// A key and a certificate of each of them below one root, by openssl: NAME.key, NAME.pem.
fn lab(people: &[(&str, &[&str])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("leaf.ext"), "extendedKeyUsage=codeSigning\n").unwrap();
    run(dir.path(), &[&["genpkey", "-out", "root.key"], P256].concat());
    let root = "req -x509 -new -key root.key -subj /CN=r -days 30 -addext basicConstraints=critical,CA:TRUE -out root.pem";
    openssl(dir.path(), root);
    for (name, key) in people {
        let file = format!("{name}.key");
        run(dir.path(), &[&["genpkey", "-out", &file], *key].concat());
        openssl(dir.path(), &format!("req -new -key {name}.key -subj /CN={name} -out {name}.csr"));
        openssl(
            dir.path(),
            &format!(
                "x509 -req -in {name}.csr -CA root.pem -CAkey root.key -CAcreateserial -days 30 -extfile leaf.ext -out {name}.pem"
            ),
        );
    }
    dir
}

/// Judges the order as a client does: who signed it.
fn judged(dir: &Path, envelope: &[u8]) -> Result<Vec<String>, String> {
    let roots = Roots::from_pem(&std::fs::read(dir.join("root.pem")).unwrap(), "root.pem").unwrap();
    let trust =
        Trust { authors: &roots, orders: &roots, licences: &roots, timestamps: None, revocation: None };
    let now = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + 60));
    let (order, signers) = admit::signed_order(envelope, &trust, now).map_err(|error| error.to_string())?;
    assert_eq!(order::encode(&order), crate::exhaustive::content(ContentType::Order));
    assert_eq!(people(&signers), signers.len());
    let mut names: Vec<String> = signers.iter().map(|signer| signer.subject().to_owned()).collect();
    names.sort_unstable();
    Ok(names)
}

const PEOPLE: [(&str, &[&str]); 4] =
    [("ann", KEYS[0].1), ("ben", KEYS[1].1), ("cat", KEYS[2].1), ("dan", KEYS[3].1)];

#[test]
fn openssl_verifies_an_order_with_each_number_of_approvals() {
    let dir = lab(&PEOPLE);
    let signer = |name: &str| {
        let read = |end: &str| std::fs::read(dir.path().join(format!("{name}.{end}"))).unwrap();
        Signer::from_pem(read("pem"), read("key")).unwrap()
    };
    let content = crate::exhaustive::content(ContentType::Order);
    let mut envelope = envelope::sign(&content, ContentType::Order, &signer("ann"), UnixTime::now()).unwrap();

    for (approvals, (name, _)) in PEOPLE.iter().enumerate() {
        if approvals > 0 {
            envelope = envelope::cosign(&envelope, &signer(name), UnixTime::now()).unwrap();
        }
        std::fs::write(dir.path().join("order.cms"), &envelope).unwrap();

        openssl(
            dir.path(),
            "cms -verify -cades -inform DER -in order.cms -CAfile root.pem -purpose any -binary -out content -signer signers.pem",
        );

        assert_eq!(std::fs::read(dir.path().join("content")).unwrap(), content, "{approvals} approvals");
        let signers = std::fs::read_to_string(dir.path().join("signers.pem")).unwrap();
        assert_eq!(
            signers.matches("BEGIN CERTIFICATE").count(),
            approvals + 1,
            "openssl looks at each of them"
        );
        assert_eq!(judged(dir.path(), &envelope).unwrap().len(), approvals + 1);
    }
    // One whose signature does not hold fails all, there as here.
    let last = envelope.len() - 1;
    envelope[last] ^= 1;
    std::fs::write(dir.path().join("order.cms"), &envelope).unwrap();
    let verify =
        "cms -verify -cades -inform DER -in order.cms -CAfile root.pem -purpose any -binary -out content";
    let verified = Command::new("openssl").args(verify.split(' ')).current_dir(dir.path()).output().unwrap();
    assert!(!verified.status.success() && judged(dir.path(), &envelope).is_err());
}

#[test]
fn an_order_that_openssl_signs_again_is_approved() {
    let dir = lab(&PEOPLE);
    std::fs::write(dir.path().join("content"), crate::exhaustive::content(ContentType::Order)).unwrap();
    let attributes = "-cades -nosmimecap -md sha256 -outform DER";
    openssl(
        dir.path(),
        &format!(
            "cms -sign -nodetach -binary -econtent_type 1.3.6.1.3.20263.1.2 -in content -signer ann.pem -inkey ann.key {attributes} -out order.cms"
        ),
    );
    let mut signed = vec!["CN=ann".to_owned()];

    for (name, _) in &PEOPLE[1..] {
        openssl(
            dir.path(),
            &format!(
                "cms -resign -inform DER -in order.cms -binary -nodetach -signer {name}.pem -inkey {name}.key {attributes} -out more.cms"
            ),
        );
        std::fs::rename(dir.path().join("more.cms"), dir.path().join("order.cms")).unwrap();
        signed.push(format!("CN={name}"));
        let envelope = std::fs::read(dir.path().join("order.cms")).unwrap();

        assert_eq!(judged(dir.path(), &envelope), Ok(signed.clone()));
    }
}
