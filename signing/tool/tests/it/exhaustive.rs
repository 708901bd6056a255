//! Every single bit flipped, every truncation, every byte more: refused by the doors that clients use, without a panic.
//!
//! The signers are made by openssl, of P-256 and RSA-2048; the documents are small, since each bit costs a verification.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use muster_pki::{Facts, Roots, UnixTime};
use muster_signing::admit::{self, Trust};
use muster_signing::approval::people;
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

#[test]
fn every_change_of_an_order_with_one_approval_is_refused() {
    every_change_of_an_approved_order_is_refused(&["ann", "ben"], &[P256, RSA], &order());
}

#[test]
fn every_change_of_an_order_with_two_approvals_is_refused() {
    every_change_of_an_approved_order_is_refused(&["ann", "ben", "cat"], &[P256, P256, P256], &order());
}

#[test]
fn every_change_of_a_stop_is_refused() {
    let mut stop = Order { definition_digest: Vec::new(), ..order() };
    (stop.definition_name, stop.definition_version) = (String::new(), String::new());
    stop.stops = [&stop.instruction[..15], &[0x22]].concat();
    every_change_of_an_approved_order_is_refused(&["ann"], &[P256], &stop);
}

/// Each change keeps the order from being opened: nobody can take an approval away, count one twice, or make a stop of what is none.
fn every_change_of_an_approved_order_is_refused(names: &[&str], keys: &[&[&str]], order: &Order) {
    let folder = authority();
    let mut envelope: Option<Vec<u8>> = None;
    for (name, key) in names.iter().zip(keys) {
        let signer = signer_of(folder.path(), name, key);
        envelope = Some(match envelope {
            None => envelope::sign(&order::encode(order), ContentType::Order, &signer, now()).unwrap(),
            Some(envelope) => envelope::cosign(&envelope, &signer, now()).unwrap(),
        });
    }
    let (envelope, roots) = (envelope.unwrap(), roots(folder.path()));
    let (found, signers) = admit::signed_order(&envelope, &trust(&roots), now()).unwrap();
    assert_eq!((&found, people(&signers)), (order, names.len()));

    each_change(&envelope, |changed| open(ContentType::Order, changed, &roots, now()).is_ok());
}

fn every_change_is_refused(kind: ContentType, key: &[&str]) {
    let folder = authority();
    let signer = signer_of(folder.path(), "a", key);
    let roots = roots(folder.path());
    let envelope = envelope::sign(&content(kind), kind, &signer, now()).unwrap();

    each_change(&envelope, |changed| open(kind, changed, &roots, now()).is_ok());
}

/// Tries every change, on two threads, and tells those that are accepted.
fn each_change(envelope: &[u8], is_accepted: impl Fn(&[u8]) -> bool + Sync) {
    assert!(is_accepted(envelope));
    let half = |indices: std::ops::Range<usize>| {
        let (mut envelope, mut accepted) = (envelope.to_vec(), Vec::new());
        for index in indices {
            for bit in 0..8 {
                envelope[index] ^= 1 << bit;
                if is_accepted(&envelope) {
                    accepted.push(format!("bit {bit} of byte {index}"));
                }
                envelope[index] ^= 1 << bit;
            }
            if is_accepted(&envelope[..index]) {
                accepted.push(format!("the first {index} bytes"));
            }
        }
        accepted
    };
    let middle = envelope.len() / 2;
    let mut accepted = std::thread::scope(|scope| {
        let first = scope.spawn(|| half(0..middle));
        let second = half(middle..envelope.len());
        [first.join().unwrap(), second].concat()
    });
    for byte in [0, 0x30, 0xff] {
        if is_accepted(&[envelope, &[byte]].concat()) || is_accepted(&[&[byte], envelope].concat()) {
            accepted.push(format!("a byte {byte} more"));
        }
    }

    assert_eq!(accepted, Vec::<String>::new(), "of {} bytes", envelope.len());
}

fn now() -> UnixTime {
    let seconds = UnixTime::now().as_secs().checked_add(60);
    UnixTime::since_unix_epoch(seconds.map(Duration::from_secs).unwrap())
}

fn trust(roots: &Roots) -> Trust<'_> {
    Trust { authors: roots, orders: roots, licences: roots, timestamps: Some(roots), revocation: None }
}

/// Opens an envelope as a client does.
fn open(kind: ContentType, envelope: &[u8], roots: &Roots, now: UnixTime) -> Result<(), String> {
    let trust = trust(roots);
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
        ContentType::Order => order::encode(&order()),
    }
}

fn order() -> Order {
    let mut instruction = vec![0x11; 16];
    (instruction[6], instruction[8]) = (0x70, 0x80);
    Order {
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
    }
}

/// A root, by openssl.
fn authority() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("leaf.ext"), "extendedKeyUsage=codeSigning\n").unwrap();
    openssl(folder.path(), &[&["genpkey", "-out", "root.key"], P256].concat());
    let root = "req -x509 -new -key root.key -subj /CN=r -days 30 -addext basicConstraints=critical,CA:TRUE -out root.pem";
    openssl(folder.path(), &root.split(' ').collect::<Vec<_>>());
    folder
}

fn roots(folder: &Path) -> Roots {
    Roots::from_pem(&std::fs::read(folder.join("root.pem")).unwrap(), "root.pem").unwrap()
}

/// A signer below the root, by openssl.
fn signer_of(folder: &Path, name: &str, key: &[&str]) -> Signer {
    openssl(folder, &[&["genpkey", "-out", "leaf.key"], key].concat());
    for command in [
        format!("req -new -key leaf.key -subj /CN={name} -out leaf.csr"),
        "x509 -req -in leaf.csr -CA root.pem -CAkey root.key -CAcreateserial -days 30 -extfile leaf.ext -out leaf.pem".to_owned(),
    ] {
        openssl(folder, &command.split(' ').collect::<Vec<_>>());
    }
    let read = |file: &str| std::fs::read(folder.join(file)).unwrap();
    Signer::from_pem(read("leaf.pem"), read("leaf.key")).unwrap()
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
