//! Timestamps: those of a real authority (`openssl ts`), believed for as long as they should be, and by openssl, too.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use muster_pki::authority::{Authority, Issued, Request as Wanted, Revoked};
use muster_pki::{Certificate, Facts, RevocationIndex, Role, Roots, UnixTime};
use muster_sign::{Stamped, ToolError, stamp_envelope};
use muster_signing::envelope::{self, Anchors, ContentType, EnvelopeError, Signer, Verified};
use muster_signing::timestamp::{Request, TimestampError, Token};

use crate::authority::{P256, Served, TimestampAuthority};

mod again;
mod kept;

const CONTENT: &[u8] = b"name = \"Acme-Os-Version\"\nversion = \"1.0.0\"\nkind = \"question\"\nsays = \"Which?\"\n\n[[step]]\nquery = \"SELECT version FROM os\"\n\n\
                         [[result]]\nname = \"version\"\ntype = \"text\"\n";

const DAY: u64 = 86_400;

#[test]
fn with_a_timestamp_a_signature_outlives_its_certificate_and_the_authoritys() {
    let lab = Lab::new();
    let stamped = lab.stamp().unwrap();

    for years in [0, 2, 9] {
        let later = lab.after(years * 365 * DAY);
        let verified = lab.verify(&stamped.envelope, later, None).unwrap();
        assert_eq!((verified.content.as_slice(), verified.stamped_at), (CONTENT, Some(stamped.stamps[0].at)));
    }
    let plain = lab.verify(&lab.envelope, lab.after(2 * 365 * DAY), None);
    assert!(matches!(plain, Err(EnvelopeError::Untrusted(_))), "{plain:?}");
}

#[test]
fn an_order_a_licence_and_a_policy_do_not_outlive_their_signers_whatever_is_stamped() {
    let lab = Lab::new();
    let signer = Signer::from_pem(&lab.author.chain_pem, &lab.author.key_pem).unwrap();
    let kinds = [
        (ContentType::Definition, Role::Author, true),
        (ContentType::Order, Role::OrderSigner, false),
        (ContentType::Licence, Role::Licensor, false),
        (ContentType::Policy, Role::Policy, false),
    ];
    for (kind, role, outlives) in kinds {
        let envelope = envelope::sign(CONTENT, kind, &signer, UnixTime::now()).unwrap();
        let ask = |request: &Request| Ok::<_, ToolError>(lab.authority.answer(request.der()));
        let stamped =
            stamp_envelope(&envelope, &lab.stamps, |_| Ok(None), UnixTime::now(), || Ok([9; 16]), ask)
                .unwrap();
        let anchors = Anchors { signers: &lab.authors, timestamps: Some(&lab.stamps) };
        let verify = |now| envelope::verify(&stamped.envelope, kind, role, &anchors, &Facts::at(now)).is_ok();

        assert!(verify(UnixTime::now()), "{kind:?}");
        assert_eq!(verify(lab.after(2 * DAY)), outlives, "{kind:?}");
    }
}

#[test]
fn without_roots_of_timestamps_or_with_others_a_timestamp_is_refused() {
    let lab = Lab::new();
    let stamped = lab.stamp().unwrap();
    let facts = Facts::at(UnixTime::now());
    let verify = |timestamps: Option<&Roots>| {
        let anchors = Anchors { signers: &lab.authors, timestamps };
        envelope::verify(&stamped.envelope, ContentType::Definition, Role::Author, &anchors, &facts)
    };

    assert_eq!(verify(None).unwrap_err(), EnvelopeError::NoTimestampRoots);
    let others = verify(Some(&lab.authors));
    assert!(matches!(others, Err(EnvelopeError::Timestamp(TimestampError::Untrusted(_)))), "{others:?}");
}

#[test]
fn openssl_accepts_what_is_stamped_and_its_token_for_every_kind_of_key() {
    let keys: [(&[&str], &str); 4] = [
        (P256, "sha256"),
        (&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "sha384"),
        (&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "sha256"),
        (&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"], "sha512"),
    ];
    for (key, digest) in keys {
        let lab = Lab::of(TimestampAuthority::new(key));
        lab.authority.configure(&format!("signer_digest = {digest}\n"));

        let stamped = lab.stamp().unwrap();

        lab.verify(&stamped.envelope, UnixTime::now(), None).unwrap();
        std::fs::write(lab.authority.path("stamped.cms"), &stamped.envelope).unwrap();
        std::fs::write(lab.authority.path("authors.pem"), lab.root.certificate_pem()).unwrap();
        lab.authority.openssl(
            "cms -verify -inform DER -in stamped.cms -CAfile authors.pem -purpose any -binary -out content",
        );
        let value = envelope::signature_values(&stamped.envelope).unwrap().remove(0);
        std::fs::write(lab.authority.path("value"), value).unwrap();
        std::fs::write(lab.authority.path("token"), token_of(&stamped.envelope)).unwrap();
        lab.authority.openssl("ts -verify -token_in -in token -data value -CAfile root.pem");
    }
}

#[test]
fn what_an_authority_sends_along_is_dropped_and_openssl_accepts_what_is_left() {
    let lab = Lab::new();
    lab.authority.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout more.key -subj /CN=more -out more.pem");
    lab.authority.chain(&["issuing.pem", "root.pem", "more.pem"]);
    let value = envelope::signature_values(&lab.envelope).unwrap().remove(0);
    let request = Request::new(&value, [7; 16]).unwrap();
    let token = request.token(&lab.authority.answer(request.der())).unwrap();
    let facts = Facts::at(UnixTime::now());

    let as_it_came = token.verify(&value, &lab.stamps, &facts);
    let stamped = lab.stamp().unwrap();

    assert!(matches!(as_it_came, Err(TimestampError::UnusedCertificate(_))), "{as_it_came:?}");
    assert_eq!(envelope::inspect(&stamped.envelope).unwrap().stamps[0].chain.len(), 2);
    lab.verify(&stamped.envelope, UnixTime::now(), None).unwrap();
    std::fs::write(lab.authority.path("value"), &value).unwrap();
    std::fs::write(lab.authority.path("token"), token_of(&stamped.envelope)).unwrap();
    lab.authority.openssl("ts -verify -token_in -in token -data value -CAfile root.pem");
}

#[test]
fn a_signer_revoked_after_the_timestamp_stays_good_and_before_it_does_not() {
    let lab = Lab::new();
    let stamped = lab.stamp().unwrap();
    let at = stamped.stamps[0].at.as_secs();
    let serial_hex = lab.author.certificate.serial_hex();
    for (revoked_at, is_good) in [(at + 1, true), (at, false), (at - 60, false)] {
        let revoked = [Revoked { serial_hex: serial_hex.clone(), at: seconds(revoked_at) }];
        let crl = lab.root.crl(&revoked, 1, seconds(at - 60), seconds(at + 30 * DAY)).unwrap();
        let issuers = [lab.root.certificate().clone()];
        let index = RevocationIndex::default().with_crl(crl.as_bytes(), &issuers, UnixTime::now()).unwrap();

        let verified = lab.verify(&stamped.envelope, UnixTime::now(), Some(&index));
        let plain = lab.verify(&lab.envelope, UnixTime::now(), Some(&index));

        assert_eq!(verified.is_ok(), is_good, "revoked at {revoked_at}, stamped at {at}: {verified:?}");
        assert!(matches!(plain, Err(EnvelopeError::Revoked(_))), "{plain:?}");
    }
}

#[test]
fn an_authority_that_is_revoked_is_not_believed_whenever_it_was_and_told_as_that() {
    // Superseded after the stamp; known to others long before it.
    for reason in ["-crl_reason superseded", "-crl_compromise 20200101000000Z"] {
        let lab = Lab::new();
        let stamped = lab.stamp().unwrap();
        let issuing = certificate(&lab.authority.path("issuing.pem"));
        let crl = lab.authority.list(Some(reason));
        let now = lab.after(60);
        let index = RevocationIndex::default().with_crl(&crl, &[issuing], now).unwrap();

        let refused = lab.verify(&stamped.envelope, now, Some(&index)).unwrap_err();

        assert_eq!(refused.refusal().as_str_name(), "REFUSAL_SIGNER_REVOKED", "{reason}: {refused}");
        let EnvelopeError::Timestamp(TimestampError::Revoked(subject)) = refused else {
            panic!("{reason}: {refused}")
        };
        assert!(subject.contains("CN=stamps"), "{subject}");
    }
}

#[test]
fn muster_sign_takes_the_list_of_a_timestamp_authoritys_issuing_ca() {
    let lab = Lab::new();
    let home = tempfile::tempdir().unwrap();
    let at = |file: &str| home.path().join(file);
    std::fs::create_dir(at("trust")).unwrap();
    std::fs::copy(lab.authority.path("root.pem"), at("trust/timestamps.pem")).unwrap();
    std::fs::write(at("trust/authors.pem"), lab.root.certificate_pem()).unwrap();
    std::fs::write(at("trust/licences.pem"), lab.root.certificate_pem()).unwrap();
    std::fs::write(at("a.cms"), &lab.envelope).unwrap();
    std::fs::write(at("none.crl"), lab.authority.list(None)).unwrap();
    succeed(home.path(), &["timestamp", "a.cms", "--home", ".", "--request", "a.tsq"]);
    std::fs::write(at("a.tsr"), lab.authority.answer(&std::fs::read(at("a.tsq")).unwrap())).unwrap();
    let stamp = ["timestamp", "a.cms", "--home", ".", "--request", "a.tsq", "--answer", "a.tsr"];
    let verify = ["definition", "verify", "b.cms", "--home", "."];
    let refuse = |arguments: &[&str]| {
        let output = muster_sign(home.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };

    succeed(home.path(), &[&stamp[..], &["--crl", "none.crl", "--out", "b.cms"]].concat());
    succeed(home.path(), &[&verify[..], &["--crl", "none.crl"]].concat());
    std::fs::write(at("some.crl"), lab.authority.list(Some("-crl_reason keyCompromise"))).unwrap();
    let stamped = refuse(&[&stamp[..], &["--crl", "some.crl", "--out", "c.cms"]].concat());
    let verified = refuse(&[&verify[..], &["--crl", "some.crl"]].concat());

    for told in [stamped, verified] {
        assert!(
            told.contains("CN=stamps") && told.contains("of the timestamp authority is revoked"),
            "{told}"
        );
    }
    assert!(!at("c.cms").exists());
}

#[test]
fn a_timestamp_of_another_signature_of_another_request_or_of_tomorrow_is_refused() {
    let lab = Lab::new();
    let value = envelope::signature_values(&lab.envelope).unwrap().remove(0);
    let request = Request::new(&value, [1; 16]).unwrap();
    let answer = lab.authority.answer(request.der());
    let token = request.token(&answer).unwrap();
    let facts = Facts::at(UnixTime::now());

    let other = Request::new(b"another signature", [1; 16]).unwrap().token(&answer);
    let replayed = Request::new(&value, [2; 16]).unwrap().token(&answer);
    let moved = token.verify(b"another signature", &lab.stamps, &facts);
    let early = token.verify(&value, &lab.stamps, &Facts::at(seconds(facts.now.as_secs() - 3_600)));

    assert_eq!(other.unwrap_err(), TimestampError::Imprint);
    assert_eq!(replayed.unwrap_err(), TimestampError::Nonce);
    assert_eq!(moved.unwrap_err(), TimestampError::Imprint);
    assert!(matches!(early, Err(TimestampError::Future { .. })), "{early:?}");
}

#[test]
fn an_authority_that_declines_names_itself_by_sha1_or_has_another_purpose_is_told() {
    let lab = Lab::new();
    for (change, words) in [
        ("digests = sha512\n", "it does not know the algorithm SHA-256"),
        ("ess_cert_id_alg = sha1\n", "signingCertificateV2 is missing"),
        ("signer_digest = sha1\n", "digest algorithm"),
    ] {
        lab.authority.configure(change);

        let error = lab.stamp().unwrap_err().to_string();

        assert!(error.contains(words), "{change}: {error}");
    }
    let author = Lab::new();
    let only_here = Roots::from_certificates([author.root.certificate().clone()]).unwrap();
    author.authority.configure("");
    let error = author.stamp_by(&only_here).unwrap_err().to_string();
    assert!(error.contains("the timestamp authority is not trusted"), "{error}");
}

#[test]
fn every_single_bit_flip_and_every_truncation_of_a_stamped_envelope_is_refused() {
    let lab = Lab::new();
    let mut stamped = lab.stamp().unwrap().envelope;
    let now = UnixTime::now();
    for index in 0..stamped.len() {
        assert!(lab.verify(&stamped[..index], now, None).is_err(), "{index} bytes");
        for bit in 0..8 {
            stamped[index] ^= 1 << bit;
            assert!(lab.verify(&stamped, now, None).is_err(), "bit {bit} of byte {index}");
            stamped[index] ^= 1 << bit;
        }
    }
    lab.verify(&stamped, now, None).unwrap();
}

#[test]
fn muster_sign_stamps_over_http_and_by_files() {
    let lab = Lab::new();
    let home = tempfile::tempdir().unwrap();
    let at = |file: &str| home.path().join(file);
    std::fs::create_dir(at("trust")).unwrap();
    std::fs::copy(lab.authority.path("root.pem"), at("trust/timestamps.pem")).unwrap();
    std::fs::write(at("trust/authors.pem"), lab.root.certificate_pem()).unwrap();
    std::fs::write(at("trust/licences.pem"), lab.root.certificate_pem()).unwrap();
    std::fs::write(at("a.cms"), &lab.envelope).unwrap();

    succeed(home.path(), &["timestamp", "a.cms", "--home", ".", "--request", "a.tsq", "--out", "b.cms"]);
    std::fs::write(at("a.tsr"), lab.authority.answer(&std::fs::read(at("a.tsq")).unwrap())).unwrap();
    let by_file =
        ["timestamp", "a.cms", "--home", ".", "--request", "a.tsq", "--answer", "a.tsr", "--out", "b.cms"];
    let attached = succeed(home.path(), &by_file);
    let served = Served::new(lab.authority, "application/timestamp-reply");
    let asked = succeed(home.path(), &["timestamp", "a.cms", "--home", ".", "--url", &served.url]);

    for (report, file) in [(&attached, "b.cms"), (&asked, "a.cms")] {
        let shown = succeed(home.path(), &["definition", "inspect", file]);
        assert_eq!(report["timestamps"][0]["at"], shown["timestamps"][0]["at"], "{report} {shown}");
        assert!(report["timestamps"][0]["at"].as_u64().is_some(), "{report}");
        assert!(
            report["timestamps"][0]["authority"]["subject"].as_str().unwrap().contains("stamps"),
            "{report}"
        );
        let verified = succeed(home.path(), &["definition", "verify", file, "--home", "."]);
        assert_eq!(verified["timestamp"], report["timestamps"][0]["at"]);
    }
}

#[test]
fn without_authority_or_roots_muster_sign_says_what_is_missing_as_wrong_usage() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, wanted) in [
        (&["timestamp", "a.cms", "--home", "."][..], "--url"),
        (&["timestamp", "a.cms", "--url", "http://127.0.0.1:1/"], "--roots"),
        (&["timestamp", "a.cms", "--home", ".", "--answer", "a.tsr"], "--request"),
    ] {
        let output = muster_sign(home.path(), arguments);

        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn muster_sign_says_what_answered_in_the_place_of_an_authority() {
    let lab = Lab::new();
    let home = tempfile::tempdir().unwrap();
    std::fs::copy(lab.authority.path("root.pem"), home.path().join("roots.pem")).unwrap();
    std::fs::write(home.path().join("a.cms"), &lab.envelope).unwrap();
    let served = Served::new(lab.authority, "text/html");
    let refuse = |url: &str, code: i32| {
        let output = muster_sign(home.path(), &["timestamp", "a.cms", "--roots", "roots.pem", "--url", url]);
        assert_eq!(output.status.code(), Some(code), "{url}");
        String::from_utf8(output.stderr).unwrap()
    };

    let page = refuse(&served.url, 1);
    let nobody = refuse("http://127.0.0.1:1/", 1);
    let scheme = refuse("https://127.0.0.1:1/", 2);

    assert!(
        page.contains("text/html") && page.contains("is this the address of a timestamp authority?"),
        "{page}"
    );
    assert!(
        nobody.contains("timestamp authority http://127.0.0.1:1/") && nobody.contains("refused"),
        "{nobody}"
    );
    assert!(scheme.contains("wanted http://HOST") && scheme.contains("has no TLS"), "{scheme}");
    for step in [
        "--request FILE.tsq",
        "--data-binary @FILE.tsq https://127.0.0.1:1/ -o FILE.tsr",
        "--answer FILE.tsr",
    ] {
        assert!(scheme.contains(step), "{scheme}");
    }
    assert_eq!(std::fs::read(home.path().join("a.cms")).unwrap(), lab.envelope, "the document is as it was");
}

/// An author with a signed definition, and a timestamp authority.
struct Lab {
    root: Authority,
    author: Issued,
    authors: Roots,
    stamps: Roots,
    envelope: Vec<u8>,
    authority: TimestampAuthority,
}

impl Lab {
    fn new() -> Self {
        Self::of(TimestampAuthority::new(P256))
    }

    fn of(authority: TimestampAuthority) -> Self {
        let now = UnixTime::now().as_secs();
        let root = Authority::root("authors", Duration::from_secs(3_650 * DAY), seconds(now - DAY)).unwrap();
        let wanted = Wanted {
            common_name: "ann".to_owned(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            role: Role::Author,
            not_before: seconds(now - 3_600),
            not_after: seconds(now + DAY),
            crl_url: None,
        };
        let author = root.issue(&wanted).unwrap();
        let signer = Signer::from_pem(&author.chain_pem, &author.key_pem).unwrap();
        let envelope = envelope::sign(CONTENT, ContentType::Definition, &signer, seconds(now)).unwrap();
        let stamps = std::fs::read(authority.path("root.pem")).unwrap();
        Self {
            authors: Roots::from_certificates([root.certificate().clone()]).unwrap(),
            stamps: Roots::from_pem(&stamps, "stamps").unwrap(),
            root,
            author,
            envelope,
            authority,
        }
    }

    fn stamp(&self) -> Result<Stamped, ToolError> {
        self.stamp_by(&self.stamps)
    }

    fn stamp_by(&self, roots: &Roots) -> Result<Stamped, ToolError> {
        let ask = |request: &Request| Ok(self.authority.answer(request.der()));
        stamp_envelope(&self.envelope, roots, |_| Ok(None), UnixTime::now(), || Ok([9; 16]), ask)
    }

    fn verify(
        &self,
        envelope: &[u8],
        now: UnixTime,
        revocation: Option<&RevocationIndex>,
    ) -> Result<Verified, EnvelopeError> {
        let anchors = Anchors { signers: &self.authors, timestamps: Some(&self.stamps) };
        let facts = Facts { revocation, ..Facts::at(now) };
        envelope::verify(envelope, ContentType::Definition, Role::Author, &anchors, &facts)
    }

    fn after(&self, seconds_later: u64) -> UnixTime {
        seconds(UnixTime::now().as_secs() + seconds_later)
    }
}

/// The token as it stands in an envelope: the first ContentInfo behind the attribute's OID.
fn token_of(envelope: &[u8]) -> Vec<u8> {
    const TIME_STAMP_TOKEN: [u8; 13] = [6, 11, 42, 134, 72, 134, 247, 13, 1, 9, 16, 2, 14];
    let at = envelope.windows(13).position(|window| window == TIME_STAMP_TOKEN).unwrap() + 13;
    // SET, with a length of two bytes behind 0x82; then the token, likewise.
    let token = &envelope[at + 4..];
    let length = usize::from(token[2]) << 8 | usize::from(token[3]);
    let der = token[..length + 4].to_vec();
    Token::read(&der).unwrap();
    der
}

fn certificate(path: &Path) -> Certificate {
    let roots = Roots::from_pem(&std::fs::read(path).unwrap(), "certificate").unwrap();
    roots.iter().next().unwrap().clone()
}

fn seconds(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn succeed(dir: &Path, arguments: &[&str]) -> serde_json::Value {
    let output = muster_sign(dir, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn muster_sign(dir: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster-sign"));
    command.args(arguments).args(["-o", "json"]).current_dir(dir);
    command.env_remove("MUSTER_HOME").env_remove("MUSTER_TIMESTAMP_URL").output().unwrap()
}
