//! Every single bit flipped, every truncation, every byte more: refused by the doors that clients use, without a panic.
//!
//! The signers are made by openssl, of P-256 and RSA-2048; the documents are small, since each bit costs a verification.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use muster_pki::{Facts, Roots, UnixTime};
use muster_signing::admit::{self, Trust};
use muster_signing::envelope::{self, Anchors, ContentType, Signer};
use muster_signing::order::{self, Audience, Order};
use muster_signing::policy::Policy;

const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];

const DEFINITION: &str = "name=\"A-B-C\"\nversion=\"1.0.0\"\nkind=\"question\"\nsays=\"?\"\n\
                          step=[{query=\"SELECT 1 AS a\"}]\nresult=[{name=\"a\",type=\"integer\"}]\n";
const LICENCE: &str = "serial=1\nlicensee=\"A\"\ntenant=\"a\"\nnot_before=2020-01-01T00:00:00Z\nnot_after=2099-01-01T00:00:00Z\n";
const POLICY: &str = "serial=1\ntenant=\"a\"\n";

#[test]
fn every_change_of_a_definition_is_refused_p256() {
    every_change_is_refused(ContentType::Definition, P256);
}

#[test]
fn every_change_of_a_definition_is_refused_rsa() {
    every_change_is_refused(ContentType::Definition, RSA);
}

#[test]
fn every_change_of_an_order_is_refused_p256() {
    every_change_is_refused(ContentType::Order, P256);
}

#[test]
fn every_change_of_an_order_is_refused_rsa() {
    every_change_is_refused(ContentType::Order, RSA);
}

#[test]
fn every_change_of_a_licence_is_refused_p256() {
    every_change_is_refused(ContentType::Licence, P256);
}

#[test]
fn every_change_of_a_licence_is_refused_rsa() {
    every_change_is_refused(ContentType::Licence, RSA);
}

#[test]
fn every_change_of_a_policy_is_refused_p256() {
    every_change_is_refused(ContentType::Policy, P256);
}

#[test]
fn every_change_of_a_policy_is_refused_rsa() {
    every_change_is_refused(ContentType::Policy, RSA);
}

fn every_change_is_refused(kind: ContentType, key: &[&str]) {
    let folder = signer(key);
    let read = |file: &str| std::fs::read(folder.path().join(file)).unwrap();
    let roots = Roots::from_pem(&read("root.pem"), "root.pem").unwrap();
    let signer = Signer::from_pem(read("leaf.pem"), read("leaf.key")).unwrap();
    let now = UnixTime::since_unix_epoch(
        UnixTime::now().as_secs().checked_add(60).map(Duration::from_secs).unwrap(),
    );
    let mut envelope = envelope::sign(&content(kind), kind, &signer, now).unwrap();
    let refused = |envelope: &[u8]| open(kind, envelope, &roots, now);
    refused(&envelope).unwrap();

    let mut accepted = Vec::new();
    for index in 0..envelope.len() {
        for bit in 0..8 {
            envelope[index] ^= 1 << bit;
            if refused(&envelope).is_ok() {
                accepted.push(format!("bit {bit} of byte {index}"));
            }
            envelope[index] ^= 1 << bit;
        }
    }
    for length in 0..envelope.len() {
        if refused(&envelope[..length]).is_ok() {
            accepted.push(format!("the first {length} bytes"));
        }
    }
    for byte in [0, 0x30, 0xff] {
        if refused(&[&envelope[..], &[byte]].concat()).is_ok()
            || refused(&[&[byte], &envelope[..]].concat()).is_ok()
        {
            accepted.push(format!("a byte {byte} more"));
        }
    }

    assert_eq!(accepted, Vec::<String>::new(), "of {} bytes", envelope.len());
    refused(&envelope).unwrap();
}

/// Opens an envelope as a client does.
fn open(kind: ContentType, envelope: &[u8], roots: &Roots, now: UnixTime) -> Result<(), String> {
    let trust =
        Trust { authors: roots, orders: roots, licences: roots, timestamps: Some(roots), revocation: None };
    match kind {
        ContentType::Definition => {
            admit::definition(envelope, &trust, now).map(drop).map_err(|error| error.to_string())
        }
        ContentType::Order => {
            admit::order(envelope, &trust, now).map(drop).map_err(|error| error.to_string())
        }
        ContentType::Licence => {
            admit::licence(envelope, &trust, now).map(drop).map_err(|error| error.to_string())
        }
        ContentType::Policy => Policy::open(envelope, &Anchors::of(roots), &Facts::at(now))
            .map(drop)
            .map_err(|error| error.to_string()),
        ContentType::Pack | ContentType::File | ContentType::LicenceRequest => {
            panic!("a {} has tests of its own", kind.name())
        }
    }
}

pub(crate) fn content(kind: ContentType) -> Vec<u8> {
    match kind {
        ContentType::Definition => DEFINITION.into(),
        ContentType::Licence => LICENCE.into(),
        ContentType::Policy => POLICY.into(),
        ContentType::Pack | ContentType::File | ContentType::LicenceRequest => {
            panic!("a {} has tests of its own", kind.name())
        }
        ContentType::Order => {
            let mut instruction = vec![0x11; 16];
            (instruction[6], instruction[8]) = (0x70, 0x80);
            order::encode(&Order {
                tenant: "a".to_owned(),
                instruction,
                definition_name: "A-B-C".to_owned(),
                definition_version: "1.0.0".to_owned(),
                definition_digest: vec![7; 32],
                licence_serial: 1,
                audience: Some(Audience::default()),
                not_before_ms: 1,
                expires_at_ms: 2,
                sequence: 1,
                operator: "a".to_owned(),
                ..Order::default()
            })
        }
    }
}

/// A root and a signer below it, by openssl.
fn signer(key: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("leaf.ext"), "extendedKeyUsage=codeSigning\n").unwrap();
    for name in ["root", "leaf"] {
        openssl(folder.path(), &[&["genpkey", "-out", &format!("{name}.key")], key].concat());
    }
    for command in [
        "req -x509 -new -key root.key -subj /CN=r -days 30 -addext basicConstraints=critical,CA:TRUE -out root.pem",
        "req -new -key leaf.key -subj /CN=a -out leaf.csr",
        "x509 -req -in leaf.csr -CA root.pem -CAkey root.key -set_serial 2 -days 30 -extfile leaf.ext -out leaf.pem",
    ] {
        openssl(folder.path(), &command.split(' ').collect::<Vec<_>>());
    }
    folder
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
